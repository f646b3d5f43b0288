"""A transport that keeps what is sent, the packets of a peer, and captures of real ones."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from voiced.leg import CallerAudio, Digit
from voiced.rtp import packet
from voiced.rtp.media import Address, MediaParameters, Paced
from voiced.rtp.receiver import Receiver
from voiced.rtp.stream import MediaStream

SDP: Final[Address] = ("192.0.2.7", 30000)  # what the peer's SDP says; not a global address
PTIME: Final = 0.02

CAPTURES: Final = Path("/usr/share/sip-tester")


class Wire:
    """A `MediaTransport` with a clock that the test moves."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.rtp: list[tuple[float, bytes, Address]] = []
        self.rtcp: list[tuple[float, bytes, Address]] = []
        self.paced: Paced | None = None
        self.due = 0.0
        self.closed = 0

    def now(self) -> float:
        return self.at

    def send_rtp(self, data: bytes, to: Address) -> None:
        self.rtp.append((self.at, data, to))

    def send_rtcp(self, data: bytes, to: Address) -> None:
        self.rtcp.append((self.at, data, to))

    def begin(self, paced: Paced) -> float:
        self.paced = paced
        self.due = self.at
        return self.due

    def keep_time(self) -> None:
        pass  # `run` ticks in time

    def close(self) -> None:
        self.closed += 1

    def run(self, seconds: float) -> None:
        """Let time pass, with every tick on its due time."""
        until = self.at + seconds - 1e-6
        while self.paced is not None and self.due <= until:
            self.at = max(self.at, self.due)
            self.due = self.paced.tick(self.due, self.at)
        self.at = until + 1e-6

    def stall(self, seconds: float) -> None:
        """Let time pass without ticks, then have one."""
        assert self.paced is not None
        self.at += seconds
        while self.due <= self.at:
            self.due = self.paced.tick(self.due, self.at)

    def packets(self) -> list[packet.RtpPacket]:
        """What has been sent by RTP, read; and forgotten."""
        sent, self.rtp = self.rtp, []
        return [packet.parse(data) for _, data, _ in sent]


def parameters(**changes: object) -> MediaParameters:
    known: dict[str, object] = {
        "codec": "PCMU",
        "payload_type": 0,
        "remote_rtp": SDP,
        "telephone_event": 101,
    }
    return MediaParameters(**{**known, **changes})  # type: ignore[arg-type]


def stream_on(wire: Wire, **changes: object) -> MediaStream:
    """A stream that has begun."""
    stream = MediaStream(wire, now=wire.now)
    stream.configure(parameters(**changes))
    stream.begin()
    return stream


def rtp(
    number: int,
    payload: bytes,
    *,
    timestamp: int | None = None,
    payload_type: int = 0,
    ssrc: int = 7,
    marker: bool = False,
) -> bytes:
    """Packet `number` of a peer that began at nought and sends 20 ms of 8 kHz each time."""
    stamp = number * 160 if timestamp is None else timestamp
    return packet.build(
        payload_type, number & 0xFFFF, stamp & 0xFFFFFFFF, ssrc, payload, marker=marker
    )


def key(
    number: int,
    timestamp: int,
    digit: str,
    duration: int,
    *,
    end: bool = False,
    marker: bool = False,
    ssrc: int = 7,
) -> bytes:
    """A telephone event."""
    event = "0123456789*#ABCD".index(digit)
    body = struct.pack("!BBH", event, 0x8A if end else 0x0A, duration)
    return rtp(number, body, timestamp=timestamp, payload_type=101, ssrc=ssrc, marker=marker)


def voice(number: int, size: int = 160) -> bytes:
    """A frame that tells which one it is, and is neither silence nor a concealment of another."""
    return bytes([number % 100 + 1]) * size


def audio(taken: list[CallerAudio | Digit]) -> bytes:
    return b"".join(each.payload for each in taken if isinstance(each, CallerAudio))


def digits(taken: list[CallerAudio | Digit]) -> str:
    return "".join(each.digit for each in taken if isinstance(each, Digit))


def receiver(hold_s: float = 0.04) -> Receiver:
    """One for PCMU with events as 101."""
    from voiced.formats import PCMU_8K

    made = Receiver(hold_s, 0.0)
    made.configure(PCMU_8K, 0, {0: None}, {101: "telephone-event"})
    return made


def captured(path: Path) -> Iterator[tuple[float, bytes]]:
    """Times and UDP payloads of a capture (pcap, Ethernet, IPv4)."""
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at = 24
    while at < len(data):
        seconds, fraction, size, _ = struct.unpack_from(order + "IIII", data, at)
        frame = data[at + 16 : at + 16 + size]
        at += 16 + size
        if frame[12:14] == b"\x08\x00" and frame[23] == 17:
            ip = 14 + 4 * (frame[14] & 0x0F)
            length = struct.unpack_from("!H", frame, ip + 4)[0]
            yield seconds + fraction / 1e6, frame[ip + 8 : ip + length]
