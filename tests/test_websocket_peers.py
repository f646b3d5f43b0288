"""WebSockets that are connected over TCP and TLS, and peers that share no code with ours."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trio_websocket
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server

from tests.websockets import echo_server, gather
from voiced.frames import BinaryMessage
from voiced.opening import ConnectError, ConnectRefused, connect


@pytest.fixture(params=["tcp", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tls")


# ---- connecting


@pytest.mark.parametrize("url", ["http://h/", "ws://", "ws://h/#x", "h:80"])
async def test_urls_that_cannot_be_right(url: str) -> None:
    with pytest.raises(ValueError, match="not a WebSocket URL"):
        await connect(url)


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[int]:
    async def connection(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.receive_some()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, connection, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_refusal_comes_with_its_body() -> None:
    answer = b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 17\r\nX-A: b\r\n\r\n{"error": "no!!"}'
    async with raw_server(answer) as port:
        with pytest.raises(ConnectRefused) as caught:
            await connect(f"ws://127.0.0.1:{port}/")
    assert caught.value.status == 401
    assert caught.value.headers.get("x-a") == "b"
    assert caught.value.body == b'{"error": "no!!"}'


@pytest.mark.parametrize(
    ("answer", "message", "patience_s"),
    [
        (b"HTTP/1.1 101 Sure\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "Accept", 20),
        (b"SSH-2.0-x\r\n\r\n", "status line", 20),
        (b"", "no WebSocket within", 0.05),
    ],
)
async def test_servers_that_speak_otherwise(answer: bytes, message: str, patience_s: float) -> None:
    async with raw_server(answer) as port:
        with pytest.raises(ConnectError, match=message):
            await connect(f"ws://127.0.0.1:{port}/", connect_timeout=patience_s)


async def test_nobody_there_and_wrong_certificates(server_tls: ssl.SSLContext) -> None:
    before = open_files()
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    sock.close()
    with pytest.raises(ConnectError, match="all attempts to connect"):
        await connect(f"ws://127.0.0.1:{port}/")
    strangers = ssl.create_default_context()
    async with echo_server(server_tls) as url:
        with pytest.raises(ConnectError, match="certificate verify failed"):
            await connect(url, ssl_context=strangers)
    assert open_files() == before


def open_files() -> int:
    gc.collect()  # what earlier tests left for the collector
    return len(list(Path("/proc/self/fd").iterdir()))


# ---- independent peers

MESSAGES = ["", "short", "ü" * 200, "x" * 70_000, "y" * 300_000]


async def test_trio_websocket_client_to_our_server(
    secure: bool, client_tls: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    async with (
        echo_server(server_tls if secure else None) as url,
        trio_websocket.open_websocket_url(url, ssl_context=client_tls if secure else None) as peer,
    ):
        for message in MESSAGES:
            await peer.send_message(message)
            assert await peer.get_message() == message
            await peer.send_message(message.encode())
            assert await peer.get_message() == message.encode()
        await peer.ping(b"hello")
        await peer.aclose(1000, "bye")
        assert peer.closed is not None
        assert peer.closed.code == 1000


async def test_our_client_to_a_trio_websocket_server(
    secure: bool, client_tls: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    async def echo(request: trio_websocket.WebSocketRequest) -> None:
        assert ("x-test", b"yes") in [(k.decode(), v) for k, v in request.headers]
        ws = await request.accept()
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            while True:
                await ws.send_message(await ws.get_message())

    async with trio.open_nursery() as nursery:
        server: trio_websocket.WebSocketServer = await nursery.start(
            trio_websocket.serve_websocket, echo, "127.0.0.1", 0, server_tls if secure else None
        )
        url = f"{'wss' if secure else 'ws'}://localhost:{server.port}/a?b=c"
        await echo_through(url, client_tls)
        nursery.cancel_scope.cancel()


async def echo_through(url: str, client_tls: ssl.SSLContext) -> None:
    async with await connect(url, headers={"X-Test": "yes"}, ssl_context=client_tls) as ws:
        for message in MESSAGES:
            await ws.send(message.encode())
            await ws.send(message.encode(), binary=True)
            text, binary = await gather(ws, 2)
            assert text == message.encode()
            assert binary == BinaryMessage(message.encode())
        await ws.drain()
        answered = ws.ping()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ws.receive)
                await answered.wait()
                scope.cancel()
        assert ws.pings.latency is not None


async def test_websockets_client_to_our_server(
    secure: bool, client_tls: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    def client(url: str) -> None:
        with websockets.sync.client.connect(url, ssl=client_tls if secure else None) as peer:
            assert peer.response is not None
            assert "Sec-WebSocket-Extensions" not in peer.response.headers  # deflate declined
            for message in MESSAGES:
                peer.send(message)
                assert peer.recv() == message
                peer.send(iter([message[:3] or "a", message[3:] or "b"]))  # in fragments
                assert peer.recv() == (message[:3] or "a") + (message[3:] or "b")
            assert peer.ping().wait(5)

    async with echo_server(server_tls if secure else None) as url:
        await trio.to_thread.run_sync(client, url)


@pytest.fixture
def websockets_server(secure: bool, server_tls: ssl.SSLContext) -> Iterator[str]:
    def echo(peer: websockets.sync.server.ServerConnection) -> None:
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            for message in peer:
                peer.send(message)

    with websockets.sync.server.serve(
        echo, "127.0.0.1", 0, ssl=server_tls if secure else None
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        yield f"{'wss' if secure else 'ws'}://localhost:{port}/"
        server.shutdown()
        thread.join()


async def test_our_client_to_a_websockets_server(
    websockets_server: str, client_tls: ssl.SSLContext
) -> None:
    await echo_through(websockets_server, client_tls)


async def test_many_connections_leave_no_file_behind(server_tls: ssl.SSLContext) -> None:
    before = open_files()
    async with echo_server() as url, trio.open_nursery() as nursery:

        async def one(number: int) -> None:
            with trio.move_on_after(0.001 * number):
                async with await connect(url) as ws:
                    while True:
                        ws.send_nowait(b"hello")
                        await ws.receive()

        for number in range(40):
            nursery.start_soon(one, number)
    assert open_files() == before
