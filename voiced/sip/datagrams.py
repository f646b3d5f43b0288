"""SIP over UDP: an endpoint's sockets, one turn of reading at a time, and names still looked up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NoReturn, Protocol, final

import structlog
import trio

from voiced.sip import message as sip
from voiced.sip.addressing import Addressing
from voiced.sip.connection import Outgoing, is_response
from voiced.sip.errors import ParseError
from voiced.sip.guard import Guard
from voiced.sip.hosts import ResolveError
from voiced.sip.message import Message
from voiced.sip.resolver import Resolver
from voiced.sip.socket import ListenAddress, UdpSocket
from voiced.sip.transport import Flow, Target

__all__ = ["Datagrams"]

_log = structlog.get_logger("voiced.sip.endpoint")

TURN_S: Final = 0.001
"""Seconds of handling datagrams before others may run: RTP's clock ticks in the same thread."""

TURN_DATAGRAMS: Final = 100
"""Datagrams of one turn, most of them dropped unparsed, which takes a few microseconds each."""

MAX_LOOKUPS: Final = 64
"""Names being looked up for UDP at once."""

MAX_WAITING: Final = 16
"""Messages waiting for one name: the calls begun within its lookup."""

_DATAGRAM: Final = memoryview(bytearray(65536))  # one for all: nothing runs while it is in use


class Start(Protocol):
    """Starts a task."""

    def __call__(self, task: Callable[..., Awaitable[object]], *arguments: object) -> bool:
        """Return False if it is too late for that."""


@final
class Datagrams:
    """The UDP sockets of one endpoint, whose callbacks these are.

    `fail` may be called within `send`: it puts off what it has to tell.
    """

    def __init__(
        self,
        *,
        guard: Guard,
        resolver: Resolver,
        addressing: Addressing,
        on_message: Callable[[Message, Flow], None],
        on_malformed: Callable[[ParseError, Flow], None],
        fail: Callable[[Outgoing, str], None],
        start: Start,
    ) -> None:
        self._guard = guard
        self._resolver = resolver
        self._addressing = addressing
        self._on_message = on_message
        self._on_malformed = on_malformed
        self._fail = fail
        self._start = start
        self._sockets: dict[int, UdpSocket] = {}
        self._waiting: dict[str, list[tuple[Outgoing, Target]]] = {}

    def open(self, address: ListenAddress) -> ListenAddress:
        """Bind a socket; returns its real address. Raises ListenError."""
        udp = UdpSocket(address)
        self._sockets[udp.key] = udp
        return udp.address

    @property
    def sockets(self) -> Iterable[UdpSocket]:
        """All that are open, each to be given to a task of `read`."""
        return self._sockets.values()

    @property
    def lookups(self) -> int:
        """Names being looked up."""
        return len(self._waiting)

    def close(self) -> None:
        """Close the sockets."""
        for udp in self._sockets.values():
            udp.close()

    # What goes out

    def send(self, message: Outgoing, to: Target) -> None:
        """Send one datagram, once the name has been looked up."""
        known = self._resolver.cached(to.host)
        if not known:
            self._look_up(message, to)
            return
        ip = known[0]
        udp = self._addressing.socket_for(ip, self._sockets.values())
        if udp is None:
            self._fail(message, f"no UDP socket for {ip}")
            return
        if not is_response(message.data):
            self._guard.expect(ip)  # its answers are not a stranger's datagrams
        self._send_from(udp, message, (ip, to.port))

    def send_flow(self, message: Outgoing, flow: Flow) -> None:
        """Send one datagram back to where another came from."""
        udp = self._sockets.get(flow.key)
        if udp is None:
            self._fail(message, "the socket is closed")
        else:
            self._send_from(udp, message, flow.remote)

    def _send_from(self, udp: UdpSocket, message: Outgoing, remote: tuple[str, int]) -> None:
        why = udp.send(message.data, remote)
        if why is not None:
            self._fail(message, why)

    def _look_up(self, message: Outgoing, to: Target) -> None:
        waiting = self._waiting.get(to.host)
        if waiting is not None:
            if len(waiting) >= MAX_WAITING:
                self._fail(message, f"too much waits for the address of {to.host}")
            else:
                waiting.append((message, to))
            return
        if len(self._waiting) >= MAX_LOOKUPS:
            self._fail(message, "too many names are being looked up")
            return
        self._waiting[to.host] = [(message, to)]
        if not self._start(self._resolve, to.host):
            del self._waiting[to.host]
            self._fail(message, "the endpoint has stopped")

    async def _resolve(self, host: str) -> None:
        addresses: list[str] = []
        why = ""
        try:
            addresses = await self._resolver.addresses(host)
        except ResolveError as error:
            why = str(error)
        for message, to in self._waiting.pop(host):
            if not addresses:
                self._fail(message, why)
                continue
            self.send(message, Target("udp", addresses[0], to.port, to.name))

    # What comes in

    async def read(self, udp: UdpSocket) -> NoReturn:
        """Take what comes to a socket until cancelled."""
        sock = udp.socket
        receive = sock.recvfrom_into
        judge = self._guard.judge
        local = udp.address.host, udp.address.port
        key = udp.key
        while True:
            await trio.lowlevel.wait_readable(sock)  # a checkpoint, whatever it finds
            end = trio.current_time() + TURN_S
            for _ in range(TURN_DATAGRAMS):
                try:
                    size, peer = receive(_DATAGRAM)
                except (BlockingIOError, InterruptedError):
                    break
                except OSError:
                    continue  # an ICMP error about something sent; nothing of it is lost here
                source = peer[0]
                if judge(source, size) == "drop":
                    continue
                data = bytes(_DATAGRAM[:size])
                if size <= 4 and not data.strip(b"\r\n\0"):
                    continue  # keeps a NAT's binding alive (RFC 5626 section 3.5.1 over UDP)
                flow = Flow("udp", local, (source, peer[1]), key, reliable=False)
                try:
                    message = sip.parse(data)
                except ParseError as error:
                    self._on_malformed(error, flow)
                except Exception:  # one datagram must not end every call
                    _log.exception("a SIP message could not be parsed", peer=str(flow))
                else:
                    self._on_message(message, flow)
                if trio.current_time() >= end:
                    break
