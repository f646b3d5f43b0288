"""What a simulated SIP caller measures beside what every caller does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["RtpFigures", "SipFigures", "Spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in milliseconds."""

    n: int
    p50: float
    p99: float
    p999: float
    max: float

    @classmethod
    def of_us(cls, values: Sequence[int]) -> Spread | None:
        """Of microseconds; None for no values."""
        if not values:
            return None
        ordered = sorted(values)
        count = len(ordered)
        ranks = (min(count - 1, int(count * share)) for share in (0.5, 0.99, 0.999))
        p50, p99, p999 = (round(ordered[rank] / 1000, 3) for rank in ranks)
        return cls(count, p50, p99, p999, round(ordered[-1] / 1000, 3))


@dataclass(frozen=True, slots=True)
class SipFigures:
    """How the call was set up and ended; ms since the INVITE was first sent."""

    status: int | None  # the final answer to the INVITE, 408 where there was none
    reason: str | None
    ringing_ms: float | None  # the first 180 or 183
    answered_ms: float | None  # the 200
    first_audio_ms: float | None  # the first RTP packet
    first_speech_ms: float | None  # the first packet of what the caller took for speech
    codec: str | None
    authenticated: bool  # a challenge was answered
    retransmissions: int  # messages that had to be sent again
    repeats: int  # messages that came again
    ended: str | None  # "BYE", with the Reason header if there was one
    transferred_to: str | None


@dataclass(frozen=True, slots=True)
class RtpFigures:
    """What went over RTP; losses are those on the way to the caller unless said otherwise."""

    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    malformed: int
    unexpected: int  # packets of a payload type that was not agreed on
    strangers: int  # packets from elsewhere than the agreed address
    sources: int  # SSRCs seen
    jitter_ms: float | None  # RFC 3550 section 6.4.1, at the end
    lateness_ms: Spread | None  # of packets behind the grid of their own timestamps
    longest_gap_ms: float  # between two packets
    bursts: int  # packets less than 5 ms after the one before
    digits: str  # RFC 4733 events from the other side
    echo_ms: Spread | None  # own frames that came back unaltered
    reports: int  # RTCP packets
    remote_lost: int | None  # of our packets, as the other side reports it
    remote_jitter_ms: float | None
    goodbye: bool  # the other side ended its stream with an RTCP BYE
