"""The daemon's own listener: media WebSockets to their handlers, all other HTTP to hypercorn.

A media socket carries 100 messages a second; through an HTTP framework each costs 100 us, over
`websocket` 15. So this listener reads the first request head of a connection itself. A path of a
media route becomes a WebSocket here; anything else goes to hypercorn's Trio server with the bytes
read so far. Between two requests of a kept-alive connection the same question is asked again,
because reverse proxies open WebSockets on connections that they have used before.
"""

from __future__ import annotations

import errno
import inspect
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, Framework
from hypercorn.utils import wrap_app

from voiced import handshake, opening, websocket
from voiced.frames import RECEIVE_BUFFER
from voiced.handover import Request, serve_http
from voiced.handshake import HandshakeError, RequestHead
from voiced.socket import TcpTransport, TlsTransport, transport_from_trio
from voiced.websocket import WebSocket, WebSocketClosed

__all__ = ["MediaRoute", "Server", "server_tls"]

_log = structlog.get_logger("voiced.server")

HEAD_TIMEOUT: Final = 10.0
"""Seconds from the connection's start to the end of its first request head, TLS included."""

LINGER: Final = 1.0
"""Seconds that a refused client has to read why."""

MAX_CONNECTIONS: Final = 2048
"""More than every call of a process can use; one connection too many is closed at once."""

# As trio.serve_listeners: accept(2) reports overload, which passes; retry after a breath.
_ACCEPT_OVERLOAD: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_ACCEPT_RETRY: Final = 0.1


@dataclass(frozen=True, slots=True)
class MediaRoute:
    """A path whose WebSockets are served here: every path that begins with `prefix`.

    `authorize` sees the request head before anything is answered and returns None or the HTTP
    status of the refusal, which it has logged; `handler` gets the entered WebSocket, which is
    closed when it returns.
    """

    prefix: str
    authorize: Callable[[RequestHead], int | Awaitable[int | None] | None]
    handler: Callable[[WebSocket, RequestHead], Awaitable[None]]
    max_message: int = websocket.MAX_MESSAGE


def server_tls(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS for a listener, from PEM files. Raises OSError, ssl.SSLError (they do not match)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(cert, key)
    return context


class Server:
    """Serves an ASGI or WSGI app and media routes on the same listeners.

    Counts for the metrics: `accepted`, `refused` (at the connection limit), `rejected` (malformed
    or unauthorised requests), `overloaded` (accept failed).
    """

    def __init__(
        self,
        app: Framework,
        routes: Sequence[MediaRoute] = (),
        *,
        config: Config | None = None,
        tls: ssl.SSLContext | None = None,
        max_connections: int = MAX_CONNECTIONS,
        head_timeout: float = HEAD_TIMEOUT,
    ) -> None:
        """Prepare; `config` is hypercorn's, of which what concerns listening is not used."""
        self.config = config or Config()
        self.accepted = self.refused = self.rejected = self.overloaded = 0
        self._app: AppWrapper = wrap_app(app, self.config.wsgi_max_body_size, "asgi")
        self._routes = tuple(routes)
        self._tls = tls
        self._max_connections = max_connections
        self._head_timeout = head_timeout
        self._context = WorkerContext(None)
        self._state: dict[str, Any] = {}
        self._connections = 0
        self._one_ended = trio.Event()
        self._idlers: set[trio.CancelScope] = set()
        self._http: set[TcpTransport] = set()  # those that hypercorn serves

    @property
    def connections(self) -> int:
        """How many there are now."""
        return self._connections

    async def serve(
        self,
        listeners: Sequence[trio.abc.Listener[trio.SocketStream]],
        *,
        stop: trio.Event,
        grace: float = 3.0,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop` is set, then let connections end, at most `grace` seconds.

        Closes the listeners. `started` is called when the app has started up and connections are
        accepted. Raises what the app's start-up raises; a failing handler costs one log line.
        """
        lifespan = Lifespan(self._app, self.config, self._state)
        async with trio.open_nursery() as lifespan_nursery:
            await lifespan_nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            async with trio.open_nursery() as connections:
                try:
                    async with trio.open_nursery() as accepting:
                        for listener in listeners:
                            accepting.start_soon(self._accept_loop, listener, connections)
                        task_status.started()
                        await stop.wait()
                        accepting.cancel_scope.cancel()
                    await self._context.terminated.set()  # hypercorn keeps none alive any more
                    for idler in tuple(self._idlers):
                        idler.cancel()
                    with trio.move_on_after(grace):
                        await self._all_ended()
                finally:
                    # hypercorn shields its sends: only a closed socket ends one that is stuck.
                    for transport in tuple(self._http):
                        transport.close()
                connections.cancel_scope.cancel()
            await lifespan.wait_for_shutdown()
            lifespan_nursery.cancel_scope.cancel()

    async def _all_ended(self) -> None:
        while self._connections:
            self._one_ended = trio.Event()
            await self._one_ended.wait()

    async def _accept_loop(
        self, listener: trio.abc.Listener[trio.SocketStream], nursery: trio.Nursery
    ) -> None:
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in _ACCEPT_OVERLOAD:
                        raise
                    self.overloaded += 1
                    _log.error("cannot accept connections", error=error.strerror)
                    await trio.sleep(_ACCEPT_RETRY)
                    continue
                self.accepted += 1
                if self._connections >= self._max_connections:
                    self.refused += 1
                    _log.warning("too many connections", limit=self._max_connections)
                    await trio.aclose_forcefully(stream)
                    continue
                self._connections += 1
                nursery.start_soon(self._connection, transport_from_trio(stream))

    async def _connection(self, transport: TcpTransport) -> None:
        try:
            if self._tls is not None:
                transport = TlsTransport(transport.socket, self._tls, server_side=True)
            await self._serve(transport)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it went away, or never spoke TLS
        except Exception:
            _log.exception("a connection failed")
        finally:
            transport.close()
            self._connections -= 1
            self._one_ended.set()

    async def _serve(self, transport: TcpTransport) -> None:
        request: Request | None = None
        try:
            with trio.move_on_after(self._head_timeout):
                if isinstance(transport, TlsTransport):
                    await transport.handshake()
                request = await _read_request(transport)
        except HandshakeError as error:
            await self._refuse(transport, error.status, error.reason)
            return
        if request is None:
            await self._refuse(transport, 408, "no whole request head came in time")
            return
        while (route := self._route(request.head)) is None:
            self._http.add(transport)
            try:
                request = await serve_http(
                    transport,
                    request,
                    lambda head: self._route(head) is not None,
                    idlers=self._idlers,
                    app=self._app,
                    config=self.config,
                    context=self._context,
                    state=ConnectionState(self._state.copy()),
                )
            finally:
                self._http.discard(transport)
            if request is None:
                return
        await self._serve_media(transport, request, route)

    def _route(self, head: RequestHead) -> MediaRoute | None:
        for route in self._routes:
            if head.path.startswith(route.prefix):
                return route
        return None

    async def _serve_media(
        self, transport: TcpTransport, request: Request, route: MediaRoute
    ) -> None:
        head = replace(request.head, client=transport.peer, secure=transport.secure)
        # The path is a secret (a token): only the route's prefix is logged.
        try:
            handshake.check_upgrade(head)
            status = route.authorize(head)
            if inspect.isawaitable(status):
                status = await status
        except HandshakeError as error:
            await self._refuse(transport, error.status, error.reason, route.prefix)
            return
        if status is not None:
            await self._turn_away(transport, status, "not authorised")
            return
        ws = await opening.accept(
            transport,
            head,
            early=request.data[request.size :],
            max_message=route.max_message,
        )
        try:
            async with ws:
                await route.handler(ws, head)
        except WebSocketClosed as closed:
            _log.info("media socket closed", route=route.prefix, code=closed.code)
        except Exception:
            _log.exception("media handler failed", route=route.prefix)

    async def _refuse(
        self, transport: TcpTransport, status: int, reason: str, route: str | None = None
    ) -> None:
        _log.warning("request refused", status=status, reason=reason, route=route)
        await self._turn_away(transport, status, reason)

    async def _turn_away(self, transport: TcpTransport, status: int, reason: str) -> None:
        self.rejected += 1
        with trio.move_on_after(LINGER):
            transport.send_nowait(handshake.refusal(status, reason))
            await transport.finish()


async def _read_request(transport: TcpTransport) -> Request:
    """Raises HandshakeError; BrokenResourceError when the peer leaves before its head is whole."""
    data = bytearray()
    while (parsed := handshake.parse_request(data)) is None:
        size = await transport.receive(RECEIVE_BUFFER)
        if not size:
            raise trio.BrokenResourceError("no request came")
        data += RECEIVE_BUFFER[:size]
    return Request(parsed[0], bytes(data), parsed[1])
