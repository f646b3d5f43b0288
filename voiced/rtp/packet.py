"""RTP packets (RFC 3550 section 5.1), and what else arrives on an RTP port (RFC 7983)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

__all__ = ["HEADER", "MalformedPacket", "RtpPacket", "build", "kind", "parse"]

HEADER: Final = struct.Struct("!BBHII")
"""First byte, marker and payload type, sequence number, timestamp, SSRC."""

_VERSION_2: Final = 0x80
_PADDING: Final = 0x20
_EXTENSION: Final = 0x10


class MalformedPacket(Exception):
    """Not RTP, or an RTP packet that contradicts itself; the text is a fixed phrase."""


class RtpPacket(NamedTuple):
    """One packet. `extension` is (profile, data) and `padding` the bytes it ended with."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False
    csrcs: tuple[int, ...] = ()
    extension: tuple[int, bytes] | None = None
    padding: int = 0


def kind(data: bytes) -> Literal["rtp", "rtcp", "other"]:
    """Tell RTP from RTCP (RFC 5761 section 4) and from STUN, DTLS and noise (RFC 7983)."""
    if len(data) < 2 or data[0] & 0xC0 != _VERSION_2:
        return "other"
    return "rtcp" if 192 <= data[1] <= 223 else "rtp"


def parse(data: bytes) -> RtpPacket:
    """Read one datagram. Raises MalformedPacket."""
    if len(data) < HEADER.size:
        raise MalformedPacket("shorter than a header")
    first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
    if first & 0xC0 != _VERSION_2:
        raise MalformedPacket("not version 2")
    at = HEADER.size + 4 * (first & 0x0F)
    csrcs: tuple[int, ...] = ()
    if first & 0x0F:
        if len(data) < at:
            raise MalformedPacket("CSRC list beyond the end")
        csrcs = struct.unpack_from(f"!{first & 0x0F}I", data, HEADER.size)
    extension = None
    if first & _EXTENSION:
        if len(data) < at + 4:
            raise MalformedPacket("extension beyond the end")
        profile, words = struct.unpack_from("!HH", data, at)
        at += 4
        if len(data) < at + 4 * words:
            raise MalformedPacket("extension beyond the end")
        extension = (profile, data[at : at + 4 * words])
        at += 4 * words
    end = len(data)
    padding = 0
    if first & _PADDING:
        padding = data[-1]
        if not 0 < padding <= end - at:
            raise MalformedPacket("padding longer than the payload")
        end -= padding
    return RtpPacket(
        second & 0x7F,
        sequence,
        timestamp,
        ssrc,
        data[at:end],
        second >= 0x80,
        csrcs,
        extension,
        padding,
    )


def build(
    payload_type: int,
    sequence: int,
    timestamp: int,
    ssrc: int,
    payload: bytes,
    *,
    marker: bool = False,
    csrcs: Sequence[int] = (),
    extension: tuple[int, bytes] | None = None,
    padding: int = 0,
) -> bytes:
    """Write one packet; `padding` is the number of bytes to end with, their count in the last."""
    first = _VERSION_2 | len(csrcs)
    parts = [struct.pack(f"!{len(csrcs)}I", *csrcs)]
    if extension is not None:
        first |= _EXTENSION
        profile, data = extension
        parts += [struct.pack("!HH", profile, len(data) // 4), data]
    parts.append(payload)
    if padding:
        first |= _PADDING
        parts += [bytes(padding - 1), bytes([padding])]
    second = payload_type | (0x80 if marker else 0)
    return HEADER.pack(first, second, sequence, timestamp, ssrc) + b"".join(parts)
