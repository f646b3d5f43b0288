"""What happens to an outgoing SIP call, as its agent tells it. Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from voiced.simulate.sip_sdp import Direction, Media

__all__ = [
    "AgentEvent",
    "Answered",
    "Complaint",
    "Ended",
    "MediaChanged",
    "Provisional",
    "Refused",
    "Transferred",
]


@dataclass(frozen=True, slots=True)
class Provisional:
    """A 1xx other than 100."""

    at_s: float
    status: int
    media: Media | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The first 2xx, with the answer to our offer."""

    at_s: float
    media: Media


@dataclass(frozen=True, slots=True)
class MediaChanged:
    """An offer and answer after the first, ours or the other side's.

    `ours` names the direction that we asked for, None where the other side asked.
    """

    at_s: float
    media: Media
    direction: Direction  # as it is now, seen from here
    ours: Direction | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A final answer other than 2xx, or none at all (408)."""

    at_s: float
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The call that had been answered is over; the last event."""

    at_s: float
    by: Literal["caller", "agent", "line"]
    text: str


@dataclass(frozen=True, slots=True)
class Transferred:
    """The other side asked us to call someone else, and has been told that it went well."""

    at_s: float
    target: str


@dataclass(frozen=True, slots=True)
class Complaint:
    """The other side broke a rule. `code` is the SIP status that fits best."""

    at_s: float
    code: int
    text: str


AgentEvent = Provisional | Answered | MediaChanged | Refused | Ended | Transferred | Complaint
