"""A SIP telephone in the test's own hands: every message is sent when, and as, the test says.

One call at a time, over UDP. It shares no code with `voiced.sip`; messages are read and written as
the simulated callers do it. What came over RTP is kept packet by packet, so that what was heard
can be compared to the sample, however late this process was.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.e2e.house import SOON_S
from voiced.simulate import sip_sdp
from voiced.simulate.rtp_packets import BadPacket, RtpPacket, parse_rtp, rtp
from voiced.simulate.sip_message import (
    Message,
    host_and_port,
    parse,
    parse_address,
    uri_of,
    write,
)

__all__ = ["Peer", "sip_peer"]

REASONS = {
    100: "Trying",
    180: "Ringing",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    404: "Not Found",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    486: "Busy Here",
    487: "Request Terminated",
    603: "Decline",
}
FRAME_BYTES = 160
MISSING = b"\x55"  # neither mu-law nor A-law has this for silence


class Peer:
    """One end of a call. What comes again (same branch and method) is not told twice."""

    def __init__(
        self,
        sip: trio.socket.SocketType,
        media: trio.socket.SocketType,
        control: trio.socket.SocketType,
        host: str,
    ) -> None:
        self._sip, self._media, self.control = sip, media, control
        self.host = host
        self.port = int(sip.getsockname()[1])
        self.rtp_port = int(media.getsockname()[1])
        self.packets: dict[int, RtpPacket] = {}
        """What came over RTP, by sequence number."""
        self.log: list[Message] = []
        """What came over SIP, in order; nothing twice."""
        self._news = trio.Event()
        self._taken = 0
        self._seen: set[tuple[str, str, int]] = set()
        self._branches: set[str] = set()  # of requests of ours
        self._to: tuple[str, int] = ("", 0)
        self.call_id = self._tag = self.remote_tag = self.target = self._uri = ""
        self._cseq, self._version = 0, 1
        self._formats: tuple[int, ...] = ()
        self._invite: bytes = b""
        self._rtp_to: tuple[str, int] | None = None
        self.hang_up_on_bye = True

    @property
    def uri(self) -> str:
        """Where it is called."""
        return f"sip:bob@{host_and_port(self.host, self.port)}"

    @property
    def contact(self) -> str:
        """The same, as a header."""
        return f"<{self.uri}>"

    # ---- what came

    async def read_sip(self) -> None:
        """Take messages until cancelled; BYE and OPTIONS are answered here."""
        while True:
            data, source = await self._sip.recvfrom(65536)
            message = parse(data)
            if message.status and message.branch not in self._branches:
                continue  # to whoever had this port before: sent again, as no ACK had come yet
            key = message.branch, message.cseq[1], message.status
            known, self._seen = key in self._seen, self._seen | {key}
            self._to = source[:2]
            if message.method == "OPTIONS" or (message.method == "BYE" and self.hang_up_on_bye):
                await self.respond(message, 200)
            if not known and message.method != "OPTIONS":
                self.log.append(message)
                self._news.set()

    async def read_rtp(self) -> None:
        """Keep what comes over RTP until cancelled."""
        while True:
            data, _ = await self._media.recvfrom(2048)
            try:
                packet = parse_rtp(data)
            except BadPacket:
                continue
            self.packets.setdefault(packet.sequence, packet)

    async def next(self, limit_s: float = SOON_S) -> Message:
        """The next message that has not been taken."""
        with trio.fail_after(limit_s):
            while self._taken >= len(self.log):
                self._news = trio.Event()
                await self._news.wait()
        self._taken += 1
        return self.log[self._taken - 1]

    async def comes(self, method: str, limit_s: float = SOON_S) -> Message:
        """The next request with this method; what comes before it is passed over."""
        while True:
            message = await self.next(limit_s)
            if message.method == method:
                return message

    async def status(self, limit_s: float = SOON_S) -> Message:
        """The next final response."""
        while True:
            message = await self.next(limit_s)
            if message.status >= 200:
                return message

    def heard(self, payload_type: int = 0) -> bytes:
        """All payloads of a type in the order of their numbers; a lost packet is `MISSING`."""
        if not self.packets:
            return b""
        numbers = sorted(self.packets)
        if numbers[-1] - numbers[0] > 32768:  # they wrapped
            numbers.sort(key=lambda each: each + 65536 if each < 32768 else each)
        count = (numbers[-1] - numbers[0]) % 65536 + 1
        wanted = ((numbers[0] + step) % 65536 for step in range(count))
        lost = MISSING * FRAME_BYTES
        return b"".join(
            packet.payload
            if (packet := self.packets.get(number)) and packet.payload_type == payload_type
            else lost
            for number in wanted
        )

    # ---- calling

    async def invite(
        self,
        to: tuple[str, int],
        user: str = "+15550100",
        *,
        from_: str = "+15550199",
        headers: tuple[tuple[str, str], ...] = (),
        formats: tuple[int, ...] = (0,),
        offer: bytes | None = None,
    ) -> None:
        """Send an INVITE with an offer, by default of `formats`; a new call begins."""
        self._to = to
        self.call_id, self._tag = secrets.token_hex(10), secrets.token_hex(5)
        self.target = self._uri = f"sip:{user}@{host_and_port(*to)}"
        self.remote_tag, self._cseq, self._formats = "", 1, formats
        self._from = f"<sip:{from_}@{host_and_port(self.host, self.port)}>"
        branch = "z9hG4bK" + secrets.token_hex(8)
        more = (("Contact", self.contact), ("Content-Type", "application/sdp"), *headers)
        if offer is None:
            offer = sip_sdp.describe(
                self.host, self.rtp_port, session=1, version=1, formats=formats, events=101
            )
        self._invite = self._request("INVITE", branch, 1, more, offer)
        await self._sip.sendto(self._invite, to)

    async def cancel(self) -> None:
        """Take the INVITE back (RFC 3261 section 9.1)."""
        invite = parse(self._invite)
        await self._sip.sendto(self._request("CANCEL", invite.branch, invite.cseq[0]), self._to)

    async def ack(self, response: Message) -> None:
        """Acknowledge the final response to the INVITE; after a 2xx the call is up."""
        self.remote_tag = response.to_tag or ""
        invite = parse(self._invite)
        if response.status >= 300:
            data = self._request("ACK", invite.branch, invite.cseq[0])
        else:
            self.target = uri_of(response.get("contact") or "")
            media = sip_sdp.read(response.body)
            self._rtp_to = media.address, media.port
            data = self._request("ACK", "z9hG4bK" + secrets.token_hex(8), invite.cseq[0])
        await self._sip.sendto(data, self._to)

    async def call(self, to: tuple[str, int], user: str = "+15550100", **more: object) -> None:
        """Call, and be answered."""
        await self.invite(to, user, **more)  # type: ignore[arg-type]
        response = await self.status()
        assert response.status == 200, response
        await self.ack(response)

    # ---- being called

    async def called(self) -> Message:
        """Wait for an INVITE; the call is this one from now on."""
        invite = await self.comes("INVITE")
        self.call_id, self._tag = invite.get("call-id") or "", secrets.token_hex(5)
        self.remote_tag, self._cseq = invite.from_tag or "", 0
        self.target = uri_of(invite.get("contact") or "")
        self._uri = uri_of(invite.get("from") or "")
        self._from = (invite.get("to") or "").partition(";tag")[0]
        media = sip_sdp.read(invite.body)
        self._rtp_to = media.address, media.port
        self._formats = media.formats
        return invite

    async def answer(self, invite: Message) -> None:
        """200 with an answer; returns when it is acknowledged."""
        body = self.description()
        await self.respond(invite, 200, body=body)
        await self.comes("ACK")

    def description(self) -> bytes:
        """The answer to what was offered: the first codec of it."""
        formats = tuple(each for each in self._formats if each in sip_sdp.CODECS)[:1]
        return sip_sdp.describe(
            self.host, self.rtp_port, session=1, version=1, formats=formats, events=101
        )

    async def respond(
        self,
        request: Message,
        status: int,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
    ) -> None:
        """Answer a request."""
        copied: list[tuple[str, str]] = []
        for name, value in request.headers:
            if name in ("via", "from", "to", "call-id", "cseq", "record-route"):
                if name == "to" and request.to_tag is None and status > 100:
                    value = f"{value};tag={self._tag}"
                copied.append((name.title(), value))
        copied += [("Contact", self.contact), *headers]
        if body:
            copied.append(("Content-Type", "application/sdp"))
        data = write(f"SIP/2.0 {status} {REASONS[status]}", copied, body)
        await self._sip.sendto(data, self._to)

    # ---- within the call

    async def request(
        self, method: str, headers: tuple[tuple[str, str], ...] = (), body: bytes = b""
    ) -> None:
        """Send a request of the dialog."""
        self._cseq += 1
        branch = "z9hG4bK" + secrets.token_hex(8)
        data = self._request(method, branch, self._cseq, headers, body)
        await self._sip.sendto(data, self._to)

    async def reinvite(self, direction: sip_sdp.Direction) -> Message:
        """Offer the audio in another direction; returns the answer, acknowledged."""
        self._version += 1
        offer = sip_sdp.describe(
            self.host,
            self.rtp_port,
            session=1,
            version=self._version,
            formats=self._formats,
            direction=direction,
        )
        headers = ("Contact", self.contact), ("Content-Type", "application/sdp")
        self._cseq += 1
        branch = "z9hG4bK" + secrets.token_hex(8)
        self._invite = self._request("INVITE", branch, self._cseq, headers, offer)
        await self._sip.sendto(self._invite, self._to)
        response = await self.status()
        await self.ack(response)
        return response

    async def hang_up(self) -> Message:
        """BYE; returns its answer."""
        await self.request("BYE")
        return await self.status()

    async def takes_transfer(self, outcome: str = "200 OK") -> str:
        """Accept the REFER that comes, tell its outcome; returns the target."""
        refer = await self.comes("REFER")
        await self.respond(refer, 202)
        headers = (
            ("Event", "refer"),
            ("Subscription-State", "terminated;reason=noresource"),
            ("Contact", self.contact),
            ("Content-Type", "message/sipfrag"),
        )
        await self.request("NOTIFY", headers, f"SIP/2.0 {outcome}\r\n".encode())
        return uri_of(refer.get("refer-to") or "")

    async def speak(self, ulaw: bytes) -> None:
        """Send audio, 20 ms at a time, on a clock of its own."""
        assert self._rtp_to is not None
        began, ssrc = trio.current_time(), secrets.randbits(32)
        for index in range(0, len(ulaw), FRAME_BYTES):
            await trio.sleep_until(began + index / 8000)
            payload = ulaw[index : index + FRAME_BYTES]
            number = index // FRAME_BYTES
            packet = RtpPacket(self._formats[0], number == 0, number, index, ssrc, payload)
            await self._media.sendto(rtp(packet), self._rtp_to)

    def _request(
        self,
        method: str,
        branch: str,
        cseq: int,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
    ) -> bytes:
        self._branches.add(branch)
        to = f"<{self._uri}>"
        first = method in ("INVITE", "CANCEL") and not self.remote_tag
        lines = [
            ("Via", f"SIP/2.0/UDP {host_and_port(self.host, self.port)};rport;branch={branch}"),
            ("Max-Forwards", "70"),
            ("From", f"{self._from};tag={self._tag}"),
            ("To", to if first else f"{to};tag={self.remote_tag}"),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
            *headers,
        ]
        uri = self._uri if first or method == "CANCEL" else self.target
        return write(f"{method} {uri} SIP/2.0", lines, body)

    async def until_bye(self, limit_s: float = 30.0) -> Message:
        """Wait for the other side to hang up; what was sent over RTP before has been read."""
        bye = await self.comes("BYE", limit_s)
        await trio.sleep(0.05)
        return bye

    def aims_at(self, uri: str) -> bool:
        """Whether a URI is this peer's."""
        address = parse_address(uri)
        return (address.host, address.port) == (self.host, self.port)


@asynccontextmanager
async def sip_peer(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Peer]:
    """A telephone at this address; `port` 0 is any."""
    sip = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with sip:
        await sip.bind((host, port))
        media, control = _pair(host)
        with media, control:
            async with trio.open_nursery() as nursery:
                peer = Peer(sip, media, control, host)
                nursery.start_soon(peer.read_sip)
                nursery.start_soon(peer.read_rtp)
                yield peer
                nursery.cancel_scope.cancel()


def _pair(host: str) -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """An even port and the one above."""
    while True:
        first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        first.bind((host, 0))
        port = first.getsockname()[1]
        try:
            if port % 2 == 0:
                second.bind((host, port + 1))
                return trio.socket.from_stdlib_socket(first), trio.socket.from_stdlib_socket(second)
        except OSError:
            pass
        first.close()
        second.close()
