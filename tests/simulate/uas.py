"""The least that answers a simulated SIP caller: a UAS on UDP, an RTP socket, no state machine.

Times are virtual where the test's clock is: loopback delivers a datagram before the clock moves.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from voiced.simulate.rtp_packets import RtpPacket, parse_rtp, rtp
from voiced.simulate.sip_message import Message, parse, uri_of, write

SILENCE = b"\xff" * 160
Address = tuple[str, int]


async def udp() -> trio.socket.SocketType:
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await sock.bind(("127.0.0.1", 0))
    return sock


def sdp(port: int, formats: str = "0 101", direction: str = "sendrecv", more: str = "") -> bytes:
    lines = [
        "v=0",
        "o=- 7 1 IN IP4 127.0.0.1",
        "s=-",
        "c=IN IP4 127.0.0.1",
        "t=0 0",
        f"m=audio {port} RTP/AVP {formats}",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:101 telephone-event/8000",
        f"a={direction}",
        more,
    ]
    return "".join(f"{line}\r\n" for line in lines if line).encode()


@dataclass
class Uas:
    """Answers what the test tells it to; `got` is all that came, with times."""

    sip: trio.socket.SocketType
    rtp: trio.socket.SocketType
    got: list[tuple[float, Message]] = field(default_factory=list)
    peer: Address = ("", 0)
    tag: str = "uas-tag"
    cseq: int = 100
    invite: Message | None = None
    media_to: Address = ("", 0)
    sequence: int = 1000
    timestamp: int = 160_000
    heard: list[tuple[float, RtpPacket]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.sip.getsockname()[1])

    @property
    def uri(self) -> str:
        return f"sip:agent@127.0.0.1:{self.port}"

    @property
    def media_port(self) -> int:
        return int(self.rtp.getsockname()[1])

    async def receive(self) -> Message:
        data, source = await self.sip.recvfrom(65536)
        message = parse(data)
        self.peer = source[0], source[1]
        self.got.append((trio.current_time(), message))
        if message.method == "INVITE" and self.invite is None:
            self.invite = message
            port = int(message.body.partition(b"m=audio ")[2].partition(b" ")[0])
            self.media_to = source[0], port
        return message

    async def until(self, what: str | int) -> Message:
        """The next request of that method, or response of that status."""
        while True:
            message = await self.receive()
            if what in (message.method, message.status):
                return message

    async def nothing_for(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            raise AssertionError(f"came: {await self.receive()}")

    async def answer(
        self,
        request: Message,
        status: int,
        reason: str = "So",
        body: bytes = b"",
        more: tuple[tuple[str, str], ...] = (),
        *,
        tag: str | None = None,
        contact: bool = True,
    ) -> None:
        headers = []
        for name, value in request.headers:
            if name == "to" and request.to_tag is None and status > 100:
                value += f";tag={tag or self.tag}"
            if name in ("via", "from", "to", "call-id", "cseq"):
                headers.append((name, value))
        if contact and status < 300:
            headers.append(("Contact", f"<{self.uri}>"))
        if body:
            headers.append(("Content-Type", "application/sdp"))
        await self.sip.sendto(
            write(f"SIP/2.0 {status} {reason}", [*headers, *more], body), self.peer
        )

    async def accept(self, **changes: str) -> Message:
        """Take a call: 180, 200, ACK."""
        invite = await self.until("INVITE")
        await self.answer(invite, 100)
        await self.answer(invite, 180)
        await self.answer(invite, 200, "OK", sdp(self.media_port, **changes))
        return await self.until("ACK")

    async def ask(
        self,
        method: str,
        body: bytes = b"",
        more: tuple[tuple[str, str], ...] = (),
        *,
        tag: str | None = None,
        repeat: int = 1,
        cseq: int | None = None,
    ) -> None:
        """Send a request within the dialog."""
        assert self.invite is not None
        self.cseq += 1
        target = uri_of(self.invite.get("contact") or "")
        number = cseq or self.cseq
        headers = [
            ("Via", f"SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{method}{number}"),
            ("From", f"{self.invite.get('to')};tag={tag or self.tag}"),
            ("To", self.invite.get("from") or ""),
            ("Call-ID", self.invite.get("call-id") or ""),
            ("CSeq", f"{number} {method}"),
            ("Contact", f"<{self.uri}>"),
            *more,
        ]
        if body:
            headers.append(("Content-Type", "application/sdp"))
        for _ in range(repeat):
            await self.sip.sendto(write(f"{method} {target} SIP/2.0", headers, body), self.peer)

    # --- media ----------------------------------------------------------------------------------

    async def send(self, payload: bytes, *, marker: bool = False, payload_type: int = 0) -> None:
        packet = RtpPacket(payload_type, marker, self.sequence, self.timestamp, 77, payload)
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.timestamp += len(payload)
        await self.rtp.sendto(rtp(packet), self.media_to)

    async def hear(self) -> RtpPacket:
        data, _ = await self.rtp.recvfrom(2048)
        packet = parse_rtp(data)
        self.heard.append((trio.current_time(), packet))
        return packet

    async def listen(self) -> None:
        while True:
            await self.hear()


class Voice:
    """The agent's RTP clock: silence, or what it is told to say, one frame every 20 ms."""

    def __init__(self, uas: Uas) -> None:
        self._uas = uas
        self.frames: list[bytes] = []

    def say(self, frame: bytes, ms: int) -> None:
        self.frames += [frame] * (ms // 20)

    async def run(self) -> None:
        due = trio.current_time()
        while True:
            await self._uas.send(self.frames.pop(0) if self.frames else SILENCE)
            due += 0.02
            await trio.sleep_until(due)


def report(ssrc: int, about: int, lost: int) -> bytes:
    """An RR about the caller's stream with a CNAME behind it."""
    block = struct.pack(">IIIIII", about, 128 << 24 | lost, 9, 16, 0, 0)
    head = struct.pack(">BBHI", 0x81, 201, 7, ssrc) + block
    return head + struct.pack(">BBHIBB", 0x81, 202, 2, ssrc, 1, 1) + b"x\0"


@asynccontextmanager
async def uas() -> AsyncIterator[Uas]:
    with await udp() as sip, await udp() as media:
        yield Uas(sip, media)
