"""What a session tells its owner, and what it asks of the owner's media.

A `Session` has one observer. Events are frozen and dispatched by type; `Ended` comes exactly once
and nothing comes after it. An observer may call the session back from inside `on_event`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from voiced.sip.uri import NameAddr

__all__ = [
    "Answered",
    "Confirmed",
    "EndReason",
    "Ended",
    "Info",
    "MediaChanged",
    "MediaControl",
    "Observer",
    "Progress",
    "ReferProgress",
    "ReferRequested",
    "SessionEvent",
]

EndReason = Literal[
    "remote_bye",  # the peer hung up
    "local_bye",  # `bye()` was called on an answered call
    "cancelled",  # before an answer: the caller gave up, whichever side that is
    "rejected",  # a final answer of 300 to 699, given by us or by the peer
    # Nobody answered in time, or a request inside the dialog was not answered (408), or the peer
    # knows no such call any more (481).
    "timeout",
    "ack_timeout",  # our 2xx was never acknowledged
    "session_expired",  # RFC 4028: nobody refreshed the session
    "transport",  # the request could not be sent anywhere
    "media_refused",  # offer and answer did not meet
    "protocol",  # the peer broke a rule that leaves no session to speak of
]


@dataclass(frozen=True, slots=True)
class Progress:
    """UAC: a provisional response 101 to 199. `has_media`: it brought an answer, taken already."""

    status: int
    has_media: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """UAC: a 2xx came, its answer was taken and the ACK has been sent."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """UAS: the ACK to our 2xx came (and with it the answer, where the 2xx held the offer)."""


@dataclass(frozen=True, slots=True)
class MediaChanged:
    """An offer and its answer are complete: look at what the media agreed on.

    Comes after the first exchange too, before `Answered` or `Confirmed` of that exchange.
    """


@dataclass(frozen=True, slots=True)
class Info:
    """A SIP INFO that was answered 200. `content_type` is in lower case, without parameters."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class ReferRequested:
    """The peer asks us to call `refer_to` (RFC 3515). Call `accept` or `reject`, now or soon.

    `accept()` answers 202 and returns `notify(status, reason)`, by which the peer is told how the
    new call fares; a status of 200 or more is the last. `reject(status)` refuses; what is not
    decided in 16 s is refused with 603.
    """

    refer_to: NameAddr
    referred_by: str | None
    accept: Callable[[], Callable[[int, str], None]]
    reject: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ReferProgress:
    """How a `refer` of ours fares: `status` of the new call as the peer reports it.

    A refusal of the REFER itself comes as its own status; a peer that falls silent as 408 with the
    reason "timeout". `final`: nothing more follows about this REFER.
    """

    status: int
    reason: str
    final: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over; the last event.

    `status`, `text` and `headers`: of the response that ended it (503 with its Retry-After, 302
    with its Contact…), or of the BYE or CANCEL (then `status` is None, or the 487 that we gave).
    """

    reason: EndReason
    status: int | None = None
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()


SessionEvent = (
    Progress | Answered | Confirmed | MediaChanged | Info | ReferRequested | ReferProgress | Ended
)


class Observer(Protocol):
    """Whoever owns a session."""

    def on_event(self, event: SessionEvent) -> None:
        """Take note; must not block, must not raise."""


class MediaControl(Protocol):
    """The owner's media as the session sees it: bodies of SDP in and out, all synchronous.

    Every method may raise `SipError`; `NotAcceptable` carries the status and the warning that go
    back to the peer, anything else is answered 400.
    """

    def offer(self, held: bool, *, full: bool = False) -> bytes:
        """Make an offer; `held`: the peer is to be put on hold (`sendonly`).

        `full`: the peer asked for one by an INVITE without a body, so name all that can be done
        and not only what is in use. Either `take_answer` or `rollback` follows.
        """

    def answer(self, offer: bytes) -> bytes:
        """Answer the peer's offer. Raises NotAcceptable, and then nothing has changed."""

    def take_answer(self, answer: bytes) -> None:
        """Take the answer to our last offer.

        May be called again for the same offer as long as the call has not been `Answered`: an
        answer in a provisional response may be followed by that of another fork, or by a different
        one in the 2xx; the last one holds. Raises NotAcceptable.
        """

    def rollback(self) -> None:
        """Our last offer was refused: what held before it holds on."""

    def early(self) -> None:
        """The answer taken just now came before the call was answered: early media may flow."""
