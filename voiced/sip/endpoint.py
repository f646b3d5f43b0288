"""The network side of SIP: listeners, connections and timers, as a `Transport` (RFC 3261 sec. 18).

Everything that SIP does in this process happens in callbacks of this endpoint's tasks: a message
has come, a timer is due, something could not be sent. They are synchronous and run one at a time,
so that the machines above need no locks; what they raise costs a log line and nothing else.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import structlog
import trio

from voiced.sip.addressing import Addressing
from voiced.sip.connection import Outgoing
from voiced.sip.connections import Connections
from voiced.sip.datagrams import Datagrams
from voiced.sip.errors import ParseError
from voiced.sip.guard import Guard, LineBudget
from voiced.sip.hosts import is_address
from voiced.sip.message import Message
from voiced.sip.oversize import Oversize
from voiced.sip.resolver import Resolver
from voiced.sip.socket import ListenAddress, ListenError
from voiced.sip.timers import Timers
from voiced.sip.transport import Flow, Target

__all__ = ["Endpoint", "EndpointStatistics", "ListenAddress", "ListenError"]

_log = structlog.get_logger("voiced.sip.endpoint")

MTU: Final = 1300
"""Bytes of the largest request over UDP where the path's MTU is unknown (RFC 3261 sec. 18.1.1)."""

STOP_GRACE_S: Final = 1.0
"""Seconds at the end for what is queued: the BYEs of the last calls."""

REPORT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class EndpointStatistics:
    """What happened since the start, and what there is now."""

    received: int
    sent: int
    malformed: int
    accepted: int  # connections there are
    opened: int  # connections there are
    lookups: int  # names being looked up


class Endpoint:
    """Listens, connects, sends; satisfies `voiced.sip.transport.Transport`.

    `listen` names at least one address; `addresses` has them with their real ports once `serve`
    has started. `advertise` (`host` or `host:port`) is what peers outside local networks are told
    instead of our own address. `server_tls` is needed for tls listeners; `client_tls` None trusts
    what the system does. `mtu` 0 never turns to TCP because of size.

    `on_message` gets what was parsed, `on_malformed` what could not be, if only to answer it
    (`ParseError.head`). The guard is asked about every datagram, and about every read of an
    accepted connection, before anything is parsed; malformed input counts against its source.

    `count` is called with ("received" | "sent" | "malformed" | "connection" | "send_failed" |
    "accept", detail), besides what the guard counts.
    """

    def __init__(
        self,
        listen: Sequence[ListenAddress],
        *,
        guard: Guard,
        on_message: Callable[[Message, Flow], None],
        on_malformed: Callable[[ParseError, Flow], None] = lambda error, flow: None,
        resolver: Resolver | None = None,
        advertise: str | None = None,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        mtu: int = MTU,
        count: Callable[[str, str], None] = lambda what, why: None,
    ) -> None:
        """Prepare; raises ListenError, ResolveError (`advertise` is not a host and port)."""
        if not listen:
            raise ListenError("nothing to listen on")
        for address in listen:
            if not is_address(address.host):
                raise ListenError(f"cannot listen on {address}: not an IP address")
            if address.transport == "tls" and server_tls is None:
                raise ListenError(f"cannot listen on {address}: no certificate is set")
        self.guard = guard
        self.resolver = resolver or Resolver()
        self.timers = Timers(trio.current_time)
        self.addresses: tuple[ListenAddress, ...] = tuple(listen)
        self._on_message = on_message
        self._on_malformed = on_malformed
        self._addressing = Addressing(self.addresses, advertise, self.resolver)
        self._count = count
        self._oversize = Oversize(mtu, trio.current_time)
        self._lines = LineBudget()
        self._received = self._sent = self._malformed = 0
        self._work: trio.Nursery | None = None
        self._stopping = trio.Event()
        self._datagrams = Datagrams(
            guard=guard,
            resolver=self.resolver,
            addressing=self._addressing,
            on_message=self._deliver,
            on_malformed=self._deliver_malformed,
            fail=self._fail,
            start=self._start,
        )
        self._connections = Connections(
            guard=guard,
            resolver=self.resolver,
            addressing=self._addressing,
            server_tls=server_tls,
            client_tls=client_tls,
            on_message=self._deliver,
            on_malformed=self._deliver_malformed,
            fail=self._fail,
            start=self._start,
            stopping=self._stopping,
            lines=self._lines,
            count=count,
        )

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled, then send what is queued, for at most `STOP_GRACE_S`.

        Raises ListenError; `started` is called when everything listens. To be called once.
        """
        listeners: list[tuple[ListenAddress, trio.SocketListener]] = []
        try:
            self.addresses = tuple([await self._open(each, listeners) for each in self.addresses])
            self._addressing.listen(self.addresses)
            async with trio.open_nursery() as nursery:
                self._work = await nursery.start(self._shelter)
                try:
                    nursery.start_soon(self._run_timers)
                    for udp in self._datagrams.sockets:
                        nursery.start_soon(self._datagrams.read, udp)
                    for address, listener in listeners:
                        nursery.start_soon(self._connections.accept, address, listener)
                    self.timers.call_later(REPORT_S, self._report)
                    task_status.started()
                    await trio.sleep_forever()
                finally:
                    self._stopping.set()
        finally:
            self._stopping.set()
            self._datagrams.close()
            for _, listener in listeners:
                listener.socket.close()

    def statistics(self) -> EndpointStatistics:
        """Counts for the metrics."""
        return EndpointStatistics(
            received=self._received,
            sent=self._sent,
            malformed=self._malformed,
            accepted=self._connections.accepted,
            opened=self._connections.opened,
            lookups=self._datagrams.lookups,
        )

    # What the transaction layer asks for: see `Transport`.

    def send(
        self, data: bytes, to: Target | Flow, failed: Callable[[str], None] | None = None
    ) -> None:
        """Send one whole message, or queue it; never blocks, never raises. See `Transport`."""
        self._sent += 1
        self._count("sent", to.transport)
        outgoing = Outgoing(data, failed)
        if isinstance(to, Flow):
            carrier = self._connections if to.reliable else self._datagrams
            carrier.send_flow(outgoing, to)
        elif to.transport == "udp":
            tcp = self._oversize.instead(data, to)
            if tcp is None:
                self._datagrams.send(outgoing, to)
            else:
                self._send_oversize(outgoing, to, tcp)
        else:
            self._connections.send(outgoing, to)

    def sent_by(self, to: Target | Flow) -> tuple[str, str, int]:
        """Of the Via of a request sent there: transport token, host, port."""
        host, port = self._addressing.towards(to)
        return to.transport.upper(), host, port

    def contact_address(self, to: Target | Flow) -> tuple[str, int]:
        """Host and port at which a peer there can reach us, for Contact; the host also for SDP."""
        return self._addressing.towards(to)

    def is_reliable(self, to: Target | Flow) -> bool:
        """Whether what is sent there arrives or fails; a request too big for UDP does not count."""
        return to.transport != "udp"

    def _send_oversize(self, message: Outgoing, udp: Target, tcp: Target) -> None:
        data = self._oversize.converted(message.data)
        if self._connections.holds(data, tcp):
            return  # a retransmission of what is on its way over a transport that loses nothing

        def fall_back(why: str) -> None:
            # RFC 3261 section 18.1.1: the peer may have no TCP; better fragmented than not at all.
            self._oversize.refused(message.data, tcp)
            if self._lines.take():
                _log.warning("a big request goes by UDP, TCP failed", to=str(udp), why=why)
            self._datagrams.send(message, udp)

        self._connections.send(
            Outgoing(data, fall_back), tcp, connect_timeout=self._oversize.connect_timeout
        )

    # What comes in

    def _deliver(self, message: Message, flow: Flow) -> None:
        self._received += 1
        self._count("received", flow.transport)
        try:
            self._on_message(message, flow)
        except Exception:
            _log.exception("a SIP message could not be handled", peer=str(flow))

    def _deliver_malformed(self, error: ParseError, flow: Flow) -> None:
        self._malformed += 1
        self._count("malformed", error.reason)
        self.guard.refused(flow.remote[0], "malformed")
        if self._lines.take():
            _log.info("malformed SIP", peer=str(flow), reason=error.reason)
        try:
            self._on_malformed(error, flow)
        except Exception:
            _log.exception("malformed SIP could not be answered", peer=str(flow))

    # Timers, beginning, end

    async def _run_timers(self) -> None:
        moved = trio.Event()

        def changed() -> None:
            moved.set()

        self.timers.changed = changed
        while True:
            moved = trio.Event()
            deadline = self.timers.next_deadline()
            with trio.CancelScope(deadline=inf if deadline is None else deadline):
                await moved.wait()
            try:
                self.timers.run_due()
            except Exception:
                _log.exception("a SIP timer failed")

    def _report(self) -> None:
        self.timers.call_later(REPORT_S, self._report)
        self.guard.report()
        withheld = self._lines.refill()
        if withheld:
            _log.info("more lines about SIP peers were withheld", lines=withheld)

    def _fail(self, message: Outgoing, why: str) -> None:
        self._count("send_failed", "again" if message.again else "once")
        failed = message.failed
        if failed is not None:
            # Never from within `send`: its caller is in the midst of a change of state.
            self.timers.call_later(0.0, lambda: failed(why))

    def _start(self, task: Callable[..., Awaitable[object]], *arguments: object) -> bool:
        """Start a task that may outlive the end of `serve` for a moment; False: too late."""
        if self._work is None or self._stopping.is_set():
            return False
        self._work.start_soon(self._run, task, *arguments)
        return True

    async def _run(self, task: Callable[..., Awaitable[object]], *arguments: object) -> None:
        try:
            await task(*arguments)
        except Exception:  # a mistake of ours must not take the other connections with it
            _log.exception("a SIP connection failed")

    async def _shelter(self, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """Hold connections and lookups, which a cancelled `serve` does not cut off at once."""
        with trio.CancelScope(shield=True) as scope:
            async with trio.open_nursery() as nursery:
                task_status.started(nursery)
                await self._stopping.wait()
                scope.deadline = trio.current_time() + STOP_GRACE_S

    async def _open(
        self, address: ListenAddress, listeners: list[tuple[ListenAddress, trio.SocketListener]]
    ) -> ListenAddress:
        if address.transport == "udp":
            return self._datagrams.open(address)
        try:
            (listener,) = await trio.open_tcp_listeners(address.port, host=address.host)
        except OSError as error:
            raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from error
        bound = ListenAddress(address.transport, address.host, listener.socket.getsockname()[1])
        listeners.append((bound, listener))
        return bound
