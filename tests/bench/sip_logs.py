"""What SIP callers write down beside what all callers do. Times in ns of the monotonic clock."""

from __future__ import annotations

from msgspec import Struct, field

from tests.bench.logs import CallerLog

__all__ = ["SipLog", "Spurt", "Stream"]


class Spurt(Struct, array_like=True):
    """Packets with anything but silence in them, one after the other.

    `start` and `end` count samples of the call's audio; `silent_ns` is the next packet's time.
    """

    start_ns: int
    end_ns: int  # the last of them
    start: int
    end: int
    silent_ns: int = 0  # 0: none came


class Stream(Struct):
    """The RTP stream to one caller. Jitter in timestamp units; what has a time is of the window."""

    call: int
    packets: int = 0
    first_sequence: int = 0
    lost: int = 0
    repeated: int = 0  # or out of order: on loopback neither happens by itself
    sources: int = 0
    bursts: int = 0  # packets less than 5 ms after the one before
    jitter: float = 0.0
    longest_gap_ns: int = 0
    longest_gap_at_ns: int = 0
    grid_ns: int = 0  # when timestamp 0 of the stream would have been due
    lateness_us: bytes = b""  # of each packet behind its grid: array of native unsigned int


class SipLog(CallerLog):
    """The callers' side of a run over SIP."""

    streams: list[Stream] = field(default_factory=list)
    spurts: dict[int, list[Spurt]] = field(default_factory=dict)  # by call
    setup_ns: list[int] = field(default_factory=list)  # INVITE to 200
    complaints: list[str] = field(default_factory=list)  # rules of SIP that the daemon broke
