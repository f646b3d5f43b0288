"""All TCP and TLS connections of an endpoint: accepted and opened, limited, found again, closed."""

from __future__ import annotations

import contextlib
import errno
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog
import trio

from voiced.sip import message as sip
from voiced.sip.addressing import Addressing
from voiced.sip.connection import IDLE_S, Connection, Outgoing, is_response
from voiced.sip.errors import ParseError
from voiced.sip.guard import Guard, LineBudget
from voiced.sip.hosts import DEFAULT_PORTS, ResolveError
from voiced.sip.message import Message
from voiced.sip.resolver import Resolver
from voiced.sip.socket import (
    CONNECT_TIMEOUT,
    ListenAddress,
    SipTls,
    connect,
    keep_alive,
    new_key,
    shake_hands,
)
from voiced.sip.tls import client_context
from voiced.sip.transport import Flow, Target, TransportName
from voiced.socket import TcpTransport, transport_from_trio

__all__ = ["Connections"]

_log = structlog.get_logger("voiced.sip.endpoint")

MAX_ACCEPTED: Final = 1024
"""Connections accepted: a trunk needs one to ten, telephones one each."""

MAX_OPENED: Final = 256
"""Connections opened, one per proxy, registrar or TCP Contact that we send to."""

MAX_PER_STRANGER: Final = 16
"""Connections of one source that is on no allow list; a NAT with some telephones behind it."""

MAX_PER_TRUNK: Final = 256
"""Connections of one allowed source: a proxy that opens one per call does exist."""

IDLE_TRUNK_S: Final = 3600.0
"""Seconds without a byte on an accepted connection of an allowed source, or of one that has proved
itself: long calls may be on it without keep-alive, and the kernel notices who has vanished."""

# As trio.serve_listeners: accept(2) reports overload, which passes; retry after a breath.
_ACCEPT_OVERLOAD: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_ACCEPT_RETRY: Final = 0.1


class _Start(Protocol):
    def __call__(self, task: Callable[..., Awaitable[object]], *arguments: object) -> bool: ...


class Connections:
    """Sends over streams, opening what it needs; `accept` serves a listener.

    Requests to one `Target` share a connection; responses, and requests to a `Flow`, go where that
    flow is. An accepted connection carries no other requests of ours: that it comes from an address
    does not prove that whoever listens there is meant (RFC 5923 section 5).
    """

    def __init__(
        self,
        *,
        guard: Guard,
        resolver: Resolver,
        addressing: Addressing,
        server_tls: ssl.SSLContext | None,
        client_tls: ssl.SSLContext | None,
        on_message: Callable[[Message, Flow], None],
        on_malformed: Callable[[ParseError, Flow], None],
        fail: Callable[[Outgoing, str], None],
        start: _Start,
        stopping: trio.Event,
        lines: LineBudget,
        count: Callable[[str, str], None],
    ) -> None:
        """`start` begins a task, False when it is too late; after `stopping` all finish."""
        self._guard = guard
        self._resolver = resolver
        self._addressing = addressing
        self._server_tls = server_tls
        self._client_tls = client_tls
        self._on_message = on_message
        self._on_malformed = on_malformed
        self._fail = fail
        self._start = start
        self._stopping = stopping
        self._lines = lines
        self._count = count
        self._by_key: dict[int, Connection] = {}
        self._by_target: dict[tuple[str, str, int, str | None], Connection] = {}
        self._sources: Counter[str] = Counter()  # accepted connections by source
        self._accepted = 0

    @property
    def accepted(self) -> int:
        """How many accepted ones there are."""
        return self._accepted

    @property
    def opened(self) -> int:
        """How many opened ones there are, those on the way included."""
        return len(self._by_target)

    def holds(self, data: bytes, to: Target) -> bool:
        """Whether these bytes are on their way to `to`, or wait for their answer."""
        connection = self._by_target.get(_reuse_key(to))
        return connection is not None and connection.holds(data)

    def send_flow(self, message: Outgoing, flow: Flow) -> None:
        """Send on the connection of a flow; a response whose connection has gone by a new one."""
        connection = self._by_key.get(flow.key)
        if connection is not None and connection.usable:
            connection.send(message)
        elif is_response(message.data):
            self.send(message, _way_back(message.data, flow))
        else:
            self._fail(message, "the connection is closed")

    def send(
        self, message: Outgoing, to: Target, *, connect_timeout: float = CONNECT_TIMEOUT
    ) -> None:
        """Send on the connection to `to`, which is opened if there is none."""
        key = _reuse_key(to)
        connection = self._by_target.get(key)
        if connection is None or not connection.usable:
            if len(self._by_target) >= MAX_OPENED:
                self._fail(message, "too many connections are open")
                return
            connection = self._connection(to.transport, to)
            if not self._start(self._run_opened, connection, to, connect_timeout):
                self._fail(message, "the endpoint has stopped")
                return
            self._by_target[key] = connection
            self._by_key[connection.key] = connection
        connection.send(message)

    async def accept(self, address: ListenAddress, listener: trio.SocketListener) -> None:
        """Accept until cancelled."""
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _ACCEPT_OVERLOAD:
                    raise
                self._count("accept", "overload")
                if self._lines.take():
                    _log.error("cannot accept SIP connections", error=error.strerror)
                await trio.sleep(_ACCEPT_RETRY)
                continue
            transport = transport_from_trio(stream)
            source = transport.peer
            why = "gone" if source is None else self._turned_away(source)
            self._count("accept", why or "accepted")
            if why is not None or not self._start(self._run_accepted, transport, address, source):
                transport.close()
                continue
            assert source is not None
            self._sources[source] += 1
            self._accepted += 1

    def _turned_away(self, source: str) -> str | None:
        if self._guard.judge(source, 0) == "drop":
            return "dropped"
        limit = MAX_PER_STRANGER if self._guard.trunk_of(source) is None else MAX_PER_TRUNK
        if self._accepted >= MAX_ACCEPTED or self._sources[source] >= limit:
            if self._lines.take():
                _log.warning("too many SIP connections", source=source)
            return "limit"
        return None

    def _connection(
        self, transport: TransportName, to: Target | None, source: str = ""
    ) -> Connection:
        def lost(message: Outgoing, stale: bool, why: str) -> None:
            if to is not None and stale and not message.again and not self._stopping.is_set():
                # It had been idle, and the peer closed it just then: HTTP has the same race
                # (RFC 9112 section 9.3.1). The branch makes a second copy harmless.
                self.send(Outgoing(message.data, message.failed, again=True), to)
            else:
                self._fail(message, why)

        def admit(size: int) -> bool:
            return to is not None or self._guard.judge(source, size) == "pass"

        trunk = to is None and self._guard.trunk_of(source) is not None
        return Connection(
            transport,
            new_key(),
            accepted=to is None,
            on_message=self._on_message,
            on_malformed=self._on_malformed,
            admit=admit,
            lost=lost,
            idle_s=IDLE_TRUNK_S if trunk else IDLE_S,
            served_idle_s=IDLE_TRUNK_S,
        )

    async def _run_opened(self, connection: Connection, to: Target, timeout: float) -> None:  # noqa: ASYNC109  for each address of several
        why = "the endpoint stops"
        try:
            addresses = await self._resolver.addresses(to.host)
            for address in addresses:
                self._guard.expect(address)
            tls = None
            if to.transport == "tls":
                if self._client_tls is None:  # reads every certificate that the system trusts
                    self._client_tls = await trio.to_thread.run_sync(client_context)
                tls = self._client_tls, to.name or to.host
            transport = await connect(
                addresses,
                to.port,
                source=self._addressing.bound_to(addresses[0], to.transport),
                tls=tls,
                timeout=timeout,
            )
            self._count("connection", "opened")
            await self._run(connection, transport)
        except (ResolveError, OSError, trio.BrokenResourceError) as error:
            why = str(error) or type(error).__name__
        except trio.TooSlowError:
            why = "no connection in time"
        finally:
            del self._by_key[connection.key]
            key = _reuse_key(to)
            if self._by_target.get(key) is connection:
                del self._by_target[key]
            connection.fail(why)

    async def _run_accepted(
        self, transport: TcpTransport, address: ListenAddress, source: str
    ) -> None:
        connection = self._connection(address.transport, None, source)
        self._by_key[connection.key] = connection
        try:
            if address.transport == "tls":
                assert self._server_tls is not None
                transport = SipTls(transport.socket, self._server_tls, server_side=True)
                await shake_hands(transport, None)
            await self._run(connection, transport)
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            self._count("connection", "handshake_failed")
            if self._lines.take():
                _log.info("no TLS with a peer", source=source, error=str(error))
        finally:
            transport.close()
            del self._by_key[connection.key]
            self._accepted -= 1
            self._sources[source] -= 1
            if not self._sources[source]:
                del self._sources[source]

    async def _run(self, connection: Connection, transport: TcpTransport) -> None:
        keep_alive(transport)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._finish_when_stopping, connection)
            await connection.run(transport)
            nursery.cancel_scope.cancel()
        _log.debug("connection ended", peer=str(connection.flow), why=connection.why)

    async def _finish_when_stopping(self, connection: Connection) -> None:
        await self._stopping.wait()
        connection.finish()


def _reuse_key(to: Target) -> tuple[str, str, int, str | None]:
    """Targets of one key share a connection; over TLS only those of the same name."""
    return to.transport, to.host, to.port, (to.name or to.host) if to.transport == "tls" else None


def _way_back(response: bytes, flow: Flow) -> Target:
    """Where a response goes whose connection has closed (RFC 3261 section 18.2.2)."""
    via = None
    with contextlib.suppress(ParseError):  # ours are well-formed
        via = sip.parse(response).via
    if via is None:
        return Target(flow.transport, *flow.remote)
    port = via.port or DEFAULT_PORTS[flow.transport]
    return Target(flow.transport, via.received or via.host, port, via.host)
