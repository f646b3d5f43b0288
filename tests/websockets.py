"""WebSockets under test: a raw peer, both ends ours, and servers that echo."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from voiced import frames, handshake, websocket
from voiced.frames import RECEIVE_BUFFER, BinaryMessage
from voiced.opening import accept
from voiced.socket import TcpTransport, TlsTransport, transport_from_trio
from voiced.websocket import WebSocket, WebSocketClosed

__all__ = [
    "LIMIT",
    "RawPeer",
    "both_ours",
    "close_as_peer",
    "echo_server",
    "gather",
    "read_request",
    "server_and_peer",
]


LIMIT = 1 << 20


class RawPeer:
    """The other end of a socket pair, speaking frames byte by byte."""

    def __init__(self, sock: socket.socket, *, masks: bool) -> None:
        self.transport = TcpTransport(sock)
        self.reader = frames.FrameReader(expect_masked=not masks, max_message=LIMIT)
        self.masks = masks

    def send(self, first: int, payload: bytes = b"") -> None:
        self.transport.send_nowait(frames.frame(first, payload, masked=self.masks))

    async def receive(self) -> list[frames.Event]:
        while size := await self.transport.receive(RECEIVE_BUFFER):
            if events := self.reader.received(size):
                return events
        return []


@asynccontextmanager
async def server_and_peer(
    max_backlog: int = websocket.MAX_BACKLOG,
) -> AsyncIterator[tuple[WebSocket, RawPeer]]:
    """A server side of ours, entered, and a raw client."""
    one, other = socket.socketpair()
    peer = RawPeer(other, masks=True)
    ws = WebSocket(TcpTransport(one), is_client=False, max_backlog=max_backlog)
    try:
        async with ws:
            yield ws, peer
    finally:
        peer.transport.close()


@asynccontextmanager
async def both_ours() -> AsyncIterator[tuple[WebSocket, WebSocket]]:
    one, other = socket.socketpair()
    client = WebSocket(TcpTransport(one), is_client=True)
    server = WebSocket(TcpTransport(other), is_client=False)
    async with client, server:
        yield client, server
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            nursery.start_soon(server.aclose)


async def gather(ws: WebSocket, count: int) -> list[websocket.Message]:
    messages: list[websocket.Message] = []
    while len(messages) < count:
        messages += await ws.receive()
    return messages


async def read_request(transport: TcpTransport) -> handshake.RequestHead:
    data = bytearray()
    while (parsed := handshake.parse_request(data)) is None:
        size = await transport.receive(RECEIVE_BUFFER)
        if not size:
            raise trio.BrokenResourceError
        data += RECEIVE_BUFFER[:size]
    assert parsed[1] == len(data)
    return parsed[0]


@asynccontextmanager
async def echo_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Ours, echoing whatever comes; yields its URL."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def connection(stream: trio.SocketStream) -> None:
        transport = transport_from_trio(stream)
        try:
            if tls is not None:
                transport = TlsTransport(transport.socket, tls, server_side=True)
                await transport.handshake()
            ws = await accept(transport, await read_request(transport))
        except trio.BrokenResourceError:
            transport.close()  # the client has gone
            return
        except trio.Cancelled:
            transport.close()
            raise
        async with ws:
            with contextlib.suppress(WebSocketClosed):
                while True:
                    for message in await ws.receive():
                        if isinstance(message, BinaryMessage):
                            await ws.send(message.payload, binary=True)
                        else:
                            await ws.send(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, connection, listeners)
        port = listeners[0].socket.getsockname()[1]
        yield f"{'wss' if tls else 'ws'}://localhost:{port}/echo"
        nursery.cancel_scope.cancel()


async def close_as_peer(ws: WebSocket, peer: RawPeer, code: int = 1000) -> None:
    """Let the peer close, and the WebSocket find out."""
    peer.send(frames.CLOSE_FRAME, frames.close_payload(code, "bye"))
    with pytest.raises(WebSocketClosed) as caught:
        await ws.receive()
    assert (caught.value.code, caught.value.reason) == (code, "bye")
    peer.transport.socket.shutdown(socket.SHUT_WR)
