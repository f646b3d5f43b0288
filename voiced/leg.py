"""What a leg is: one side of a call that carries audio to and from a telephone.

A carrier (Twilio, a SIP trunk) is a package that implements `Leg`; `call` knows nothing else of it.
Positions are bytes of the leg's own format, counted from the leg's last `clear` (a *generation*).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from voiced.formats import AudioFormat

__all__ = [
    "CallFacts",
    "CallerAudio",
    "Digit",
    "Held",
    "Leg",
    "LegClosed",
    "LegEvent",
    "PlayingLeg",
    "Stopped",
    "Transferred",
    "Unsupported",
]


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Who calls whom over what. Everything here came from outside: bounded, never trusted."""

    call_id: str  # ours, unique for ever
    carrier: str  # "twilio" or "sip"
    carrier_call_id: str  # Twilio: CallSid; SIP: Call-ID
    caller: str  # E.164, "sip:…", "anonymous" or whatever the carrier says
    called: str
    direction: Literal["inbound", "outbound"] = "inbound"
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What else the carrier said: Twilio's parameters, a trunk's `X-` and diversion headers."""
    trunk: str | None = None
    """The `[[sip.trunk]]`; None with Twilio."""


class CallerAudio(Struct, frozen=True, gc=False):
    """What the caller said: `payload` in the leg's format, any length.

    A leg joins everything that one wake-up brought into one event, so that batching appears under
    load and costs nothing without it.
    """

    payload: bytes


class Digit(Struct, frozen=True, gc=False):
    """One key that the caller pressed, of `0-9 * # A-D`."""

    digit: str


class Held(Struct, frozen=True, gc=False):
    """The other side put the call on hold, or took it back: meanwhile nobody listens or speaks."""

    held: bool


class Stopped(Struct, frozen=True, gc=False):
    """The stream is over; nothing follows. `reason` is for the log.

    `hung_up`: the carrier said so, as it does when either side of the telephone line ends the call;
    otherwise the stream broke, or had to be given up. `code` is the word for the journal where the
    leg knows a better one than these two: `media_timeout`, `session_expired`.
    """

    reason: str
    hung_up: bool = False
    code: str | None = None


LegEvent = CallerAudio | Digit | Held | Stopped


class LegClosed(Exception):
    """The carrier is gone: nothing can be sent to it or received from it any more."""


class Unsupported(Exception):
    """What was asked cannot be done with this carrier, or now; the text says why."""


@dataclass(frozen=True, slots=True)
class Transferred:
    """What became of a transfer. `status`: the last SIP or HTTP status heard of it."""

    done: bool
    status: int | None = None
    text: str = ""


class Leg(Protocol):
    """One side of a call. `receive` has one caller, `ready` and `drained` another."""

    @property
    def format(self) -> AudioFormat:
        """Of the audio in both directions."""

    @property
    def lead_ms(self) -> int:
        """How far ahead of the play clock audio may be sent when the agent does not say."""

    async def receive(self) -> Sequence[LegEvent]:
        """Wait for the carrier, return all that this wake-up brought, at least one event.

        Raises LegClosed when the carrier is gone and `Stopped` has been delivered.
        """

    def send(self, payload: bytes) -> None:
        """Have `payload` played after all that was sent before; counts as sent at once.

        Never blocks: what the socket does not take waits in the leg, and `ready` waits for it.
        Raises LegClosed.
        """

    async def ready(self) -> None:
        """Wait until the carrier takes more; returns at once while it keeps up.

        Raises LegClosed.
        """

    def sent(self) -> int:
        """Bytes sent in this generation."""

    def heard(self) -> int:
        """Bytes of this generation that a `clear` sent now would find played already."""

    def seconds_until(self, position: int) -> float:
        """Seconds until `heard()` reaches `position`, if nothing stalls; 0 when it has."""

    def clear(self) -> int:
        """Empty the carrier's buffer, begin a new generation; returns the old one's final heard."""

    async def drained(self) -> None:
        """Wait until all that was sent has been played, confirmed by the carrier where it can."""

    async def transfer(self, target: str) -> Transferred:
        """Hand the caller over to `target`, an E.164 number or a SIP URI; wait for the outcome.

        Bounded in time by the leg. Raises Unsupported, or ValueError for a target that is none.
        """

    def send_digits(self, digits: str) -> None:
        """Press keys, of `0-9 * # A-D`; a comma is a pause. Raises Unsupported, LegClosed."""

    def facts(self) -> Mapping[str, int | float | str | bool | None]:
        """Figures of the stream so far, for the journal and the operator, flat."""

    async def hang_up(self) -> None:
        """End the telephone call, not only its audio. Safe to call twice, and after the end."""


@runtime_checkable
class PlayingLeg(Leg, Protocol):
    """A leg that plays what it is sent itself: what leaves it is what the caller hears, and when.

    With any other the carrier plays, and `seconds_until` is the best that is known.
    """

    on_played: Callable[[bytes, float], None] | None
    """Told of all audio as it leaves, in `format`, with the time at which its first sample does, on
    Trio's clock; not of the silence in between. Called synchronously; must not block."""
