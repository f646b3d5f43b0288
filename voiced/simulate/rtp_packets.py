"""RTP and RTCP packets of the simulated caller (RFC 3550, RFC 4733), from the RFCs alone."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

__all__ = [
    "DIGITS",
    "BadPacket",
    "Report",
    "RtpPacket",
    "bye",
    "event_payload",
    "parse_event",
    "parse_reports",
    "parse_rtp",
    "rtp",
    "sender_report",
]

DIGITS: Final = "0123456789*#ABCD"  # events 0 to 15, RFC 4733 table 3

_RTP: Final = struct.Struct(">BBHII")
_EVENT: Final = struct.Struct(">BBH")
_END: Final = 0x80
_VOLUME: Final = 10  # -10 dBm0
_NTP_EPOCH_S: Final = 2_208_988_800
_SR, _RR, _SDES, _BYE = 200, 201, 202, 203


class BadPacket(Exception):
    """Not a packet as RFC 3550 has them; the text says why."""


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One packet; `payload` is without padding, CSRCs and extension."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


def rtp(packet: RtpPacket) -> bytes:
    """Write a packet."""
    second = packet.payload_type | (0x80 if packet.marker else 0)
    head = _RTP.pack(0x80, second, packet.sequence, packet.timestamp, packet.ssrc)
    return head + packet.payload


def parse_rtp(data: bytes) -> RtpPacket:
    """Read a packet. Raises BadPacket."""
    if len(data) < _RTP.size:
        raise BadPacket(f"an RTP packet of {len(data)} bytes")
    first, second, sequence, timestamp, ssrc = _RTP.unpack_from(data)
    if first >> 6 != 2:
        raise BadPacket(f"RTP version {first >> 6}")
    start, end = _RTP.size + 4 * (first & 0x0F), len(data)
    if first & 0x10:
        if start + 4 > end:
            raise BadPacket("the header extension is cut off")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if first & 0x20:
        end -= data[-1]
        if not data[-1]:
            raise BadPacket("padding of no length")
    if start > end:
        raise BadPacket("the header is longer than the packet")
    payload = data[start:end]
    return RtpPacket(second & 0x7F, second >= 0x80, sequence, timestamp, ssrc, payload)


def event_payload(digit: str, duration: int, *, end: bool) -> bytes:
    """A telephone-event; `duration` in samples at 8 kHz."""
    return _EVENT.pack(DIGITS.index(digit), (_END if end else 0) | _VOLUME, min(duration, 0xFFFF))


def parse_event(payload: bytes) -> tuple[str | None, bool, int]:
    """The digit (None: another event), whether it has ended, its duration. Raises BadPacket."""
    if len(payload) < _EVENT.size:
        raise BadPacket(f"a telephone-event of {len(payload)} bytes")
    event, flags, duration = _EVENT.unpack_from(payload)
    return DIGITS[event] if event < len(DIGITS) else None, bool(flags & _END), duration


@dataclass(frozen=True, slots=True)
class Report:
    """What a compound RTCP packet says; of the report blocks only the one about `about`.

    `fraction_lost` in 1/256, `jitter` in timestamp units; None: there is no such block.
    """

    sender: int
    packets: int | None  # of a sender report
    ntp_middle: int | None
    fraction_lost: int | None
    lost: int | None
    jitter: int | None
    named: bool  # there is an SDES with a CNAME
    bye: bool


def sender_report(
    ssrc: int,
    *,
    now_s: float,
    timestamp: int,
    packets: int,
    octets: int,
    block: tuple[int, int, int, int, int, int] | None,
    cname: str,
) -> bytes:
    """A compound of SR and SDES. `now_s` is the time of day.

    `block`: SSRC, packets lost, highest sequence, jitter, last SR, delay since it in 1/65536 s.
    """
    ntp = int((now_s + _NTP_EPOCH_S) * (1 << 32)) & (1 << 64) - 1
    blocks = b""
    if block is not None:
        of, lost, highest, jitter, last_sr, delay = block
        lost_24 = max(-(1 << 23), min(lost, (1 << 23) - 1)) & 0xFFFFFF
        blocks = struct.pack(">IIIIII", of, lost_24, highest, jitter, last_sr, delay)
    body = struct.pack(">IQIII", ssrc, ntp, timestamp & 0xFFFFFFFF, packets, octets) + blocks
    return _rtcp(1 if block else 0, _SR, body) + _cname(ssrc, cname)


def bye(ssrc: int, cname: str) -> bytes:
    """A compound that says good-bye (section 6.6): an empty RR first."""
    head = _rtcp(0, _RR, struct.pack(">I", ssrc)) + _cname(ssrc, cname)
    return head + _rtcp(1, _BYE, struct.pack(">I", ssrc))


def parse_reports(data: bytes, about: int) -> Report:
    """Read a compound packet by the rules of RFC 3550 appendix A.2. Raises BadPacket."""
    if len(data) < 8 or len(data) % 4:
        raise BadPacket(f"an RTCP packet of {len(data)} bytes")
    if data[0] >> 6 != 2 or data[0] & 0x20 or data[1] not in (_SR, _RR):
        raise BadPacket("a compound RTCP packet begins with SR or RR, without padding")
    sender = int.from_bytes(data[4:8], "big")
    packets = middle = fraction = lost = jitter = None
    named = gone = False
    at = 0
    while at < len(data):
        count, kind = data[at] & 0x1F, data[at + 1]
        size = 4 * (int.from_bytes(data[at + 2 : at + 4], "big") + 1)
        if data[at] >> 6 != 2 or at + size > len(data):
            raise BadPacket("the lengths of a compound RTCP packet do not add up")
        part = data[at : at + size]
        at += size
        if kind in (_SR, _RR):
            start = 28 if kind == _SR else 8
            if start + 24 * count > size:
                raise BadPacket("an RTCP report shorter than its blocks")
            if kind == _SR:
                middle = int.from_bytes(part[10:14], "big")
                packets = int.from_bytes(part[20:24], "big")
            for block in range(start, start + 24 * count, 24):
                of, word, _, found = struct.unpack_from(">IIII", part, block)
                if of == about:
                    fraction, jitter = word >> 24, found
                    lost = word & 0xFFFFFF
                    lost -= 1 << 24 if lost >= 1 << 23 else 0
        elif kind == _SDES:
            named = named or (count > 0 and part[8:9] == b"\x01")
        elif kind == _BYE:
            gone = True
    return Report(sender, packets, middle, fraction, lost, jitter, named, gone)


def _rtcp(count: int, kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0x80 | count, kind, len(body) // 4) + body


def _cname(ssrc: int, cname: str) -> bytes:
    text = cname.encode()[:255]
    item = struct.pack(">IBB", ssrc, 1, len(text)) + text + b"\0"
    return _rtcp(1, _SDES, item + bytes(-len(item) % 4))
