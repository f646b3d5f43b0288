"""What happens in a simulated call, as its observer is told it.

`at_ms` is milliseconds since the media started, by the caller's own clock; speech is dated to its
acoustic edge, which is known a little later than it happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "AgentStarted",
    "AgentStopped",
    "BufferCleared",
    "CallEvent",
    "CallerStarted",
    "CallerStopped",
    "DigitPressed",
    "HungUp",
    "MediaStarted",
    "Observer",
    "Violation",
]

Party = Literal["caller", "agent", "line"]


@dataclass(frozen=True, slots=True)
class MediaStarted:
    """The stream is open and `start` has been sent."""

    at_ms: float
    call_sid: str
    stream_sid: str


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The caller begins to hear speech."""

    at_ms: float


@dataclass(frozen=True, slots=True)
class AgentStopped:
    """The caller has heard the last of that speech. `cut`: a `clear` ended it."""

    at_ms: float
    started_ms: float
    cut: bool


@dataclass(frozen=True, slots=True)
class CallerStarted:
    """The caller begins to speak `clip`. `interrupting`: on purpose while the agent speaks."""

    at_ms: float
    clip: str
    text: str
    interrupting: bool


@dataclass(frozen=True, slots=True)
class CallerStopped:
    """The caller has spoken."""

    at_ms: float
    started_ms: float
    clip: str


@dataclass(frozen=True, slots=True)
class BufferCleared:
    """A `clear` has reached the carrier and thrown out `discarded_ms` of audio."""

    at_ms: float
    discarded_ms: float


@dataclass(frozen=True, slots=True)
class DigitPressed:
    """The caller pressed a key; `digit` is empty where it is a secret."""

    at_ms: float
    digit: str


@dataclass(frozen=True, slots=True)
class Violation:
    """The server did what Twilio would warn of; `code` is the number in its debugger."""

    at_ms: float
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class HungUp:
    """The stream is over. `by` "line": cut without a word. `unheard_ms` was queued, unplayed."""

    at_ms: float
    by: Party
    unheard_ms: float


CallEvent = (
    MediaStarted
    | AgentStarted
    | AgentStopped
    | CallerStarted
    | CallerStopped
    | BufferCleared
    | DigitPressed
    | Violation
    | HungUp
)

Observer = Callable[[CallEvent], None]
"""Called from within the call as things happen: it must be quick and must not raise."""
