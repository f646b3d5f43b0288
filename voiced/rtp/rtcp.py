"""RTCP (RFC 3550 section 6): sender and receiver reports, the source's name, goodbye.

`Reporter` is the machine behind one stream: it makes our compound packets and learns from the
peer's. Other packet types (feedback, extended reports, application data) are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

__all__ = [
    "Compound",
    "MalformedRtcp",
    "ReceptionReport",
    "Reporter",
    "SenderInfo",
    "build",
    "parse",
]

INTERVAL_S: Final = 5.0
"""Mean time between reports (section 6.2: the least that is recommended; two parties need no more);
each is drawn from half to one and a half of it, and the first comes after half (6.2, 6.3.1)."""

_SR, _RR, _SDES, _BYE = 200, 201, 202, 203
_CNAME: Final = 1
_UNIX_TO_NTP: Final = 2_208_988_800  # seconds from 1900 to 1970
_BLOCK: Final = struct.Struct("!IIIIII")
_MAX_REPORTED_LOSS: Final = 0x7FFFFF  # 24 bits, signed


class MalformedRtcp(Exception):
    """Nothing of the datagram could be read; the text is a fixed phrase."""


class ReceptionReport(NamedTuple):
    """What a receiver says of one source (section 6.4.1); `jitter` in timestamp units."""

    ssrc: int
    fraction_lost: int  # of 256, since the report before
    cumulative_lost: int
    highest_sequence: int  # extended by the count of wraps
    jitter: int
    last_sr: int  # middle 32 bits of the NTP time of our report it answers; 0: none yet
    delay_since_last_sr: int  # in 1/65536 s


class SenderInfo(NamedTuple):
    """What a sender says of itself: `ntp` as 64 bits, 32 of them the fraction."""

    ntp: int
    timestamp: int
    packets: int
    octets: int


class Compound(NamedTuple):
    """One datagram; `ssrc` is the sender's, `bye` true where it leaves."""

    ssrc: int
    sender: SenderInfo | None = None
    reports: tuple[ReceptionReport, ...] = ()
    cname: str | None = None
    bye: bool = False


def parse(data: bytes) -> Compound:
    """Read a compound packet as far as it goes: a broken end does not spoil the beginning.

    Raises MalformedRtcp when not even the first packet can be read.
    """
    at = 0
    ssrc: int | None = None
    sender: SenderInfo | None = None
    reports: list[ReceptionReport] = []
    cname: str | None = None
    bye = False
    while len(data) - at >= 4:
        first, packet_type, words = struct.unpack_from("!BBH", data, at)
        end = at + 4 + 4 * words
        if first & 0xC0 != 0x80 or end > len(data):
            break
        count = first & 0x1F
        body = data[at + 4 : end]
        if first & 0x20 and body:  # padding, in the last packet only
            body = body[: max(0, len(body) - body[-1])]
        at = end
        if len(body) < 4:
            continue
        whose = int.from_bytes(body[:4], "big")
        if ssrc is None:
            ssrc = whose
        if packet_type == _SR and len(body) >= 24:
            sender = SenderInfo(*struct.unpack_from("!QIII", body, 4))
            reports += _blocks(body[24:], count)
        elif packet_type == _RR:
            reports += _blocks(body[4:], count)
        elif packet_type == _SDES and count:
            cname = _cname(body) or cname
        elif packet_type == _BYE:
            bye = bye or ssrc in struct.unpack_from(f"!{min(count, len(body) // 4)}I", body)
    if ssrc is None:
        raise MalformedRtcp("not RTCP")
    return Compound(ssrc, sender, tuple(reports), cname, bye)


def _blocks(data: bytes, count: int) -> list[ReceptionReport]:
    found = []
    for at in range(0, min(24 * count, len(data) - 23), 24):
        whose, loss, highest, jitter, last, delay = _BLOCK.unpack_from(data, at)
        lost = loss & 0xFFFFFF
        if lost > _MAX_REPORTED_LOSS:  # negative: duplicates outnumbered the lost
            lost -= 1 << 24
        found.append(ReceptionReport(whose, loss >> 24, lost, highest, jitter, last, delay))
    return found


def _cname(body: bytes) -> str | None:
    """The CNAME of the first chunk."""
    at = 4
    while at + 2 <= len(body) and body[at]:
        length = body[at + 1]
        if body[at] == _CNAME and at + 2 + length <= len(body):
            return body[at + 2 : at + 2 + length].decode("utf-8", "replace")
        at += 2 + length
    return None


def build(compound: Compound) -> bytes:
    """Write a compound packet: a report always comes first (section 6.1), then SDES, then BYE."""
    if compound.sender is None:
        packet_type, head = _RR, b""
    else:
        packet_type, head = _SR, struct.pack("!QIII", *compound.sender)
    blocks = b"".join(
        _BLOCK.pack(
            block.ssrc,
            block.fraction_lost << 24 | block.cumulative_lost & 0xFFFFFF,
            *block[3:],
        )
        for block in compound.reports
    )
    parts = [_packet(packet_type, len(compound.reports), compound.ssrc, head + blocks)]
    if compound.cname is not None:
        name = compound.cname.encode()[:255]
        item = bytes([_CNAME, len(name)]) + name
        # The list ends with a null and is padded to a word with nulls (section 6.5).
        item += bytes(4 - len(item) % 4)
        parts.append(_packet(_SDES, 1, compound.ssrc, item))
    if compound.bye:
        parts.append(_packet(_BYE, 1, compound.ssrc, b""))
    return b"".join(parts)


def _packet(packet_type: int, count: int, ssrc: int, rest: bytes) -> bytes:
    words = 1 + len(rest) // 4
    return struct.pack("!BBHI", 0x80 | count, packet_type, words, ssrc) + rest


class Reporter:
    """Our half of the reports and what the peer's tell. Times in seconds of one monotonic clock.

    `wall` is the Unix time that goes with `now`, for the NTP timestamps: it is looked at once, so
    that a step of the wall clock does not become a round trip.
    """

    def __init__(
        self, ssrc: int, cname: str, now: float, wall: float, uniform: Callable[[], float]
    ) -> None:
        self.ssrc = ssrc
        self.said_bye = False
        self.rtt_s: float | None = None
        self.remote_lost: int | None = None
        self.remote_fraction_lost: float | None = None
        self.remote_jitter: int | None = None  # timestamp units
        self.due = now + INTERVAL_S / 2 * (0.5 + uniform())
        self._cname = cname
        self._uniform = uniform
        self._to_ntp = wall - now + _UNIX_TO_NTP
        self._last_sr_of: int | None = None  # the source whose it is
        self._last_sr = 0  # of the peer, middle 32 bits
        self._last_sr_at = 0.0
        self._source: int | None = None
        self._expected_before = self._received_before = 0

    def _ntp(self, now: float) -> int:
        return int((now + self._to_ntp) * 4294967296)

    def received(self, compound: Compound, now: float) -> None:
        """Learn from a packet of the peer."""
        if compound.sender is not None:
            self._last_sr_of = compound.ssrc
            self._last_sr = compound.sender.ntp >> 16 & 0xFFFFFFFF
            self._last_sr_at = now
        for block in compound.reports:
            if block.ssrc != self.ssrc:
                continue
            self.remote_lost = block.cumulative_lost
            self.remote_fraction_lost = block.fraction_lost / 256
            self.remote_jitter = block.jitter
            if block.last_sr:
                trip = (self._ntp(now) >> 16) - block.last_sr - block.delay_since_last_sr
                trip &= 0xFFFFFFFF
                # Within the clocks' rounding a loopback trip may come out negative, as a huge one;
                # over a minute it is a stale or foreign report.
                if trip < 60 << 16:
                    self.rtt_s = trip / 65536
                elif trip > 0xFFFF0000:
                    self.rtt_s = 0.0
        self.said_bye = self.said_bye or compound.bye

    def report(
        self,
        now: float,
        sent: SenderInfo | None,
        source: tuple[int, int, int, int, float] | None,
        *,
        bye: bool = False,
    ) -> bytes:
        """Make a compound packet and fix when the next is due.

        Args:
            now: the time.
            sent: what we have sent, `ntp` left at 0; None where nothing went out since the report
                before the last (section 6.4: then a receiver report).
            source: of the peer: SSRC, highest extended sequence number, packets expected and
                received of it so far, jitter in timestamp units; None before its first packet.
            bye: this is the last one.
        """
        self.due = now + INTERVAL_S * (0.5 + self._uniform())
        if sent is not None:
            sent = sent._replace(ntp=self._ntp(now))
        reports: Sequence[ReceptionReport] = ()
        if source is not None:
            whose, highest, expected, received, jitter = source
            if whose != self._source:
                self._source = whose
                self._expected_before = self._received_before = 0
            since = expected - self._expected_before
            lost_since = since - (received - self._received_before)
            self._expected_before, self._received_before = expected, received
            fraction = min(255, 256 * lost_since // since) if since > 0 and lost_since > 0 else 0
            lost = max(-_MAX_REPORTED_LOSS - 1, min(expected - received, _MAX_REPORTED_LOSS))
            # A report that this source has not sent (the one before it has) would make a round trip
            # of hours at the peer's (section 6.4.1: zero).
            last_sr = self._last_sr if whose == self._last_sr_of else 0
            delay = int((now - self._last_sr_at) * 65536) if last_sr else 0
            reports = (
                ReceptionReport(
                    whose,
                    fraction,
                    lost,
                    highest & 0xFFFFFFFF,
                    int(jitter) & 0xFFFFFFFF,
                    last_sr,
                    min(delay, 0xFFFFFFFF),
                ),
            )
        return build(Compound(self.ssrc, sent, tuple(reports), self._cname, bye))
