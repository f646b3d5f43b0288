"""What hypercorn sees of a connection whose first request head the listener has read.

Between two requests of a kept-alive connection the stream reads the next head itself, and where
that is for the listener (a reverse proxy that opens a WebSocket on a connection it used before)
hypercorn's side ends and the connection goes back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState

from voiced.frames import RECEIVE_BUFFER
from voiced.handshake import HandshakeError, RequestHead, parse_request
from voiced.socket import TcpTransport

__all__ = ["Request", "serve_http"]

HTTP_STALL: Final = 30.0
"""Seconds in which a client must take some of a response; hypercorn shields its sends."""

LINGER: Final = 1.0
"""Seconds that a client has to read the end of a response whose request is still unread."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request head as it was read: `data` begins with it and may hold more behind `size`."""

    head: RequestHead
    data: bytes
    size: int


class _HandedBack(Exception):
    """Unwinds hypercorn's tasks."""


class _HttpStream(trio.abc.Stream):
    """A `trio.SocketStream` as far as hypercorn's TCPServer asks."""

    def __init__(
        self,
        transport: TcpTransport,
        early: bytes,
        is_ours: Callable[[RequestHead], bool],
        idlers: set[trio.CancelScope],
        keep_alive: float,
    ) -> None:
        self.begins_request: Callable[[], bool] = lambda: False
        self.idle = trio.Event()  # set while no response is being made
        self.handed_back: Request | None = None
        self.socket = transport.socket
        self._transport = transport
        self._early = early
        self._is_ours = is_ours
        self._idlers = idlers
        self._keep_alive = keep_alive  # seconds
        self._reading = False
        self._closing = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._transport.send_nowait(memoryview(data))
        while self._transport.backlog:
            with trio.move_on_after(HTTP_STALL) as stalled:
                await self._transport.flush_some()
            if stalled.cancelled_caught:
                self._transport.close()
                raise trio.BrokenResourceError("the client does not take its response")

    async def wait_send_all_might_not_block(self) -> None:
        await self._transport.flush()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """All that is there, at least what `max_bytes` asks: hypercorn takes any amount."""
        if self._closing:
            # hypercorn reads on after its own close, while that still waits for the client's end.
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError
        if self._early:
            await trio.lowlevel.checkpoint()
            early, self._early = self._early, b""
            return early
        self._reading = True
        scope = trio.CancelScope()
        try:
            if not self.begins_request():
                return bytes(await self._receive())
            # hypercorn's own keep-alive timer dies with the app's nursery, from within which it
            # is started, when the framework cancels that at the end of a response.
            await self.idle.wait()
            scope.deadline = trio.current_time() + self._keep_alive
            self._idlers.add(scope)
            with scope:
                data = await self._receive()
                if data:
                    await self._look_at_head(data)
            return b"" if scope.cancelled_caught else bytes(data)
        finally:
            self._reading = False
            self._idlers.discard(scope)

    async def _receive(self) -> bytearray:
        size = await self._transport.receive(RECEIVE_BUFFER)
        return bytearray(RECEIVE_BUFFER[:size])

    async def _look_at_head(self, data: bytearray) -> None:
        """Complete the head in `data`."""
        try:
            while (parsed := parse_request(data)) is None:
                more = await self._receive()
                if not more:
                    return
                data += more
        except HandshakeError:
            return  # hypercorn says so
        if self._is_ours(parsed[0]):
            self.handed_back = Request(parsed[0], bytes(data), parsed[1])
            raise _HandedBack

    async def aclose(self) -> None:
        if self.handed_back is not None:
            await trio.lowlevel.checkpoint()
        elif self._reading:
            self.idle.set()
            self._transport.close()
            await trio.lowlevel.checkpoint()
        else:
            self._closing = True
            with trio.move_on_after(LINGER):
                await self._transport.finish()


class _TlsHttpStream(_HttpStream):
    """A `trio.SSLStream` as far as hypercorn's TCPServer asks."""

    async def do_handshake(self) -> None:
        """Done already."""
        await trio.lowlevel.checkpoint()

    def selected_alpn_protocol(self) -> str:
        return "http/1.1"

    @property
    def transport_stream(self) -> _HttpStream:
        return self


async def _stays(_request: h11.Request) -> None:
    """In place of hypercorn's look at whether a request asks for HTTP/2."""


class _HttpServer(TCPServer):
    """hypercorn's connection, telling its stream where it is between two requests."""

    stream: _HttpStream  # type: ignore[assignment]

    @property
    def protocol(self) -> ProtocolWrapper:
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: ProtocolWrapper) -> None:
        """Keep the connection at HTTP/1.1, whatever the client would rather speak.

        A proxy that passes upgrades on, as media streams need it, would pass `Upgrade: h2c` on too:
        behind it the client speaks HTTP/2 with us past the proxy's rules, and writes the header
        fields that the proxy is trusted with. A server may always ignore Upgrade (RFC 9110, 7.8).
        """
        protocol.protocol._check_protocol = _stays  # type: ignore[method-assign, union-attr]
        self._protocol = protocol

    async def run(self) -> None:
        self.stream.begins_request = self._begins_request
        await super().run()

    def _begins_request(self) -> bool:
        """The bytes that come next are the first of a request, which h11 has none of yet."""
        protocol = self.protocol.protocol
        if not isinstance(protocol, H11Protocol):
            return False
        connection = protocol.connection
        return (
            isinstance(connection, h11.Connection)
            and connection.their_state in (h11.IDLE, h11.DONE)
            and not connection.trailing_data[0]
        )

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            if event.idle:
                self.stream.idle.set()
            else:
                self.stream.idle = trio.Event()
        await super().protocol_send(event)


async def serve_http(
    transport: TcpTransport,
    request: Request,
    is_ours: Callable[[RequestHead], bool],
    *,
    idlers: set[trio.CancelScope],
    app: AppWrapper,
    config: Config,
    context: WorkerContext,
    state: ConnectionState,
) -> Request | None:
    """Let hypercorn serve the connection from `request` on.

    Returns None when it has ended, or a later request that `is_ours`. A connection that waits for
    its next request has a scope in `idlers`, whose cancellation ends it.
    """
    kind = _TlsHttpStream if transport.secure else _HttpStream
    stream = kind(transport, request.data, is_ours, idlers, config.keep_alive_timeout)
    try:
        await _HttpServer(app, config, context, state, stream).run()  # type: ignore[arg-type]
    except* _HandedBack:
        pass
    return stream.handed_back
