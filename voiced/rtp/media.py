"""What a media stream is told and what it tells: plain values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

__all__ = [
    "COMFORT_NOISE",
    "TELEPHONE_EVENT",
    "Address",
    "MediaClosed",
    "MediaParameters",
    "MediaTransport",
    "Paced",
    "QueueFull",
    "RtpStatistics",
    "SrtpKeys",
    "Suite",
]

Address = tuple[str, int]
"""Numeric host and port; an IPv6 host without brackets and without zone."""

TELEPHONE_EVENT: Final = "telephone-event"  # RFC 4733
COMFORT_NOISE: Final = "CN"  # RFC 3389

Suite = Literal["AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"]


class MediaClosed(Exception):
    """The stream has been closed: nothing can be sent any more."""


class QueueFull(Exception):
    """More audio was sent ahead than `max_queued_ms`: the sender does not keep its lead."""


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """SDES keys (RFC 4568), 30 bytes each, master key and salt; `local` is in our own SDP."""

    suite: Suite
    local: bytes = field(repr=False)
    remote: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class MediaParameters:
    """What an offer and its answer agreed on for one audio stream.

    Attributes:
        codec: what we send: "PCMU", "PCMA" or "G722".
        payload_type: that of the codec, as the peer's SDP numbers it.
        remote_rtp: where the peer's SDP wants RTP; host "" or "0.0.0.0" or port 0: nowhere (yet).
        accepted: what the peer may send: payload type → "PCMU", "PCMA", "G722", "telephone-event",
            "CN", as our own SDP numbers them. Empty: `payload_type` and `telephone_event` alone.
            Payload type 13 is always taken for comfort noise.
        telephone_event: payload type of the digits that we send; None: the peer takes none.
        remote_rtcp: where the peer wants RTCP; None: the port above `remote_rtp`.
        rtcp_mux: RTCP shares the RTP port (RFC 5761).
        ptime_ms: length of the packets that we send, 10 to 60, a multiple of 10.
        send: we may send audio (not held); else only RTCP goes out.
        receive: the peer sends audio; else whatever comes is dropped, and its absence is no fault.
        srtp: keys, where the profile is RTP/SAVP.
    """

    codec: str
    payload_type: int
    remote_rtp: Address
    accepted: Mapping[int, str] = field(default_factory=dict)
    telephone_event: int | None = None
    remote_rtcp: Address | None = None
    rtcp_mux: bool = False
    ptime_ms: int = 20
    send: bool = True
    receive: bool = True
    srtp: SrtpKeys | None = None

    def types(self) -> dict[int, str]:
        """`accepted`, with what goes without saying."""
        known = dict(self.accepted) or {self.payload_type: self.codec}
        if self.telephone_event is not None and TELEPHONE_EVENT not in known.values():
            known[self.telephone_event] = TELEPHONE_EVENT
        return known


class Paced(Protocol):
    """What a pacer drives."""

    def tick(self, due: float, now: float) -> float:
        """Do what was due at `due`; returns when the next is. Must neither block nor raise."""


class MediaTransport(Protocol):
    """What carries a stream's datagrams and gives it time. Nothing blocks, nothing raises."""

    def send_rtp(self, data: bytes, to: Address) -> None:
        """Send one datagram from the RTP port; what the kernel does not take is lost."""

    def send_rtcp(self, data: bytes, to: Address) -> None:
        """Send one datagram from the RTCP port."""

    def begin(self, paced: Paced) -> float:
        """Call `paced.tick` from now on, at the times it returns; returns the first of them."""

    def keep_time(self) -> None:
        """Tick whatever stream is due.

        Tasks that take turns call it before each piece of work, so that packets wait for one piece
        and not for those of all calls.
        """

    def close(self) -> None:
        """Stop the ticks, give the ports back. Safe to call twice."""


@dataclass(frozen=True, slots=True)
class RtpStatistics:
    """Counts of the whole stream so far; times in ms."""

    # in
    packets: int = 0  # of audio, digits and comfort noise that were accepted
    lost: int = 0  # by sequence number; packets that came too late count as lost, too
    late: int = 0
    duplicated: int = 0
    reordered: int = 0  # late by sequence, but in time
    filled_ms: int = 0  # silence and concealment put in for what did not come
    resyncs: int = 0  # jumps over which no time was kept
    digits: int = 0
    strangers: int = 0  # datagrams from where they may not come
    malformed: int = 0  # not RTP, or broken
    unexpected: int = 0  # payload types that nobody agreed on
    undecryptable: int = 0  # SRTP: wrong tag, replayed, too old
    overrun_ms: int = 0  # audio dropped because the call did not take it
    jitter_ms: float = 0.0  # RFC 3550 section 6.4.1
    # out
    sent_packets: int = 0
    skipped_ms: int = 0  # passed over after stalls
    # by RTCP
    rtt_ms: float | None = None
    remote_lost: int | None = None  # packets of ours that the peer has missed
    remote_fraction_lost: float | None = None  # 0 to 1, since its report before the last
    remote_jitter_ms: float | None = None
    # pacing: how late packets left; (upper bound in ms, count), the last bound is infinite
    lateness: tuple[tuple[float, int], ...] = ()
