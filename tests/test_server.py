"""The listener with a small Quart app behind it: what goes where, what is refused, what is left."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing
import trio_websocket
import trustme
from hypercorn.config import Config
from quart import request, websocket
from quart_trio import QuartTrio

from voiced.handshake import RequestHead
from voiced.opening import ConnectRefused, connect
from voiced.server import MediaRoute, Server, server_tls
from voiced.websocket import WebSocket, WebSocketClosed


def quart_app() -> QuartTrio:
    app = QuartTrio("test")

    @app.post("/echo")
    async def echo() -> bytes:
        data = await request.get_data(as_text=False)
        assert isinstance(data, bytes)
        return data

    @app.get("/hello")
    async def hello() -> str:
        return f"hello {request.scheme} {request.remote_addr}"

    @app.get("/large")
    async def large() -> bytes:
        return bytes(20_000_000)

    @app.websocket("/slow")
    async def slow() -> NoReturn:
        while True:
            await websocket.send(await websocket.receive())

    return app


LAST_REQUEST = b"GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


class Media:
    """A media route that echoes and keeps notes."""

    def __init__(self) -> None:
        self.heads: list[RequestHead] = []
        self.codes: list[int] = []

    def authorize(self, head: RequestHead) -> int | None:
        return None if head.path == "/media/good" else 403

    async def handle(self, ws: WebSocket, head: RequestHead) -> None:
        self.heads.append(head)
        try:
            while True:
                for message in await ws.receive():
                    if message == b"fail":
                        raise KeyError("a mistake")
                    assert isinstance(message, bytes)
                    await ws.send(message)
        except WebSocketClosed as closed:
            self.codes.append(closed.code)
            raise


class Running:
    """A served app: its port, its media route and its ways to stop."""

    def __init__(self, tls: ssl.SSLContext | None, max_connections: int) -> None:
        self.media = Media()
        config = Config()
        config.errorlog = logging.getLogger("test.hypercorn")
        route = MediaRoute("/media/", self.media.authorize, self.media.handle)
        self.server = Server(
            quart_app(), [route], config=config, tls=tls, max_connections=max_connections
        )
        self.stop = trio.Event()
        self.port = 0

    async def open(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def say(self, data: bytes) -> bytes:
        """One connection: send, then read to its end."""
        stream = await self.open()
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)
        return await read_all(stream)


@asynccontextmanager
async def running(
    tls: ssl.SSLContext | None = None, *, max_connections: int = 100, grace: float = 1.0
) -> AsyncIterator[Running]:
    instance = Running(tls, max_connections)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    instance.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            await instance.server.serve(
                listeners, stop=instance.stop, grace=grace, task_status=task_status
            )

        await nursery.start(serve)
        yield instance
        instance.stop.set()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    with contextlib.suppress(trio.BrokenResourceError):
        while part := await stream.receive_some():
            data += part
    await stream.aclose()
    return data


async def read_response(stream: trio.SocketStream) -> tuple[int, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = await stream.receive_some()
        assert part, data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    while len(body) < length:
        part = await stream.receive_some()
        assert part, body
        body += part
    return int(head.split()[1]), body


def media_upgrade(path: str = "/media/good") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


# ---- HTTP


async def test_requests_kept_alive() -> None:
    async with running() as instance:
        stream = await instance.open()
        for _ in range(3):
            await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
            assert await read_response(stream) == (200, b"hello http 127.0.0.1")
        await stream.send_all(b"GET /missing HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await read_response(stream))[0] == 404
        await stream.aclose()
        assert instance.server.accepted == 1


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)


async def test_nobody_is_led_past_a_proxy_into_http_2() -> None:
    """By `Upgrade: h2c`, or by HTTP/2's preface behind a first request."""
    hello = b"GET /hello HTTP/1.1\r\nHost: h\r\n"
    async with running() as instance:
        stream = await instance.open()
        for _ in range(2):
            await stream.send_all(hello + H2C + b"\r\n")
            assert await read_response(stream) == (200, b"hello http 127.0.0.1")
        await stream.aclose()
        for apart in (False, True):
            stream = await instance.open()
            if apart:
                await stream.send_all(hello + b"\r\n")
                assert (await read_response(stream))[0] == 200
                await stream.send_all(PREFACE)
            else:
                await stream.send_all(hello + b"\r\n" + PREFACE)
            answer = await read_all(stream)
            await stream.aclose()
            assert answer.count(b"HTTP/1.1 200") == (0 if apart else 1)
            assert answer.count(b"HTTP/1.1 40") >= 1
            assert b"\0\0" not in answer, "a frame of HTTP/2"


async def test_an_idle_connection_is_ended(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as instance:
        stream = await instance.open()
        await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
        await read_response(stream)
        start = trio.current_time()
        await stream.send_all(b"GET /he")  # and never the rest
        assert await read_all(stream) == b""
        assert trio.current_time() - start < 6


async def test_a_body_in_many_packets() -> None:
    body = b"".join(b"%05d," % i for i in range(20_000))
    head = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with running() as instance:
        stream = await instance.open()
        for byte in head:
            await stream.send_all(bytes([byte]))
        for at in range(0, len(body), 7001):
            await stream.send_all(body[at : at + 7001])
        assert await read_response(stream) == (200, body)
        # Head and body at once, then the next request pipelined behind it.
        small = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
        await stream.send_all(small + LAST_REQUEST)
        rest = await read_all(stream)
        assert b"\r\n\r\nhi" in rest
        assert rest.endswith(b"hello http 127.0.0.1")


async def test_a_body_that_looks_like_an_upgrade_is_a_body() -> None:
    fake = media_upgrade()
    head = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(fake)
    async with running() as instance:
        stream = await instance.open()
        for _ in range(2):  # the first request's body, then a kept-alive one's
            await stream.send_all(head)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await stream.send_all(fake)
            assert await read_response(stream) == (200, fake)
        await stream.aclose()
        assert instance.media.heads == []


async def test_websockets_elsewhere_belong_to_the_app() -> None:
    async with (
        running() as instance,
        trio_websocket.open_websocket_url(f"ws://127.0.0.1:{instance.port}/slow") as ws,
    ):
        await ws.send_message("over quart")
        assert await ws.get_message() == "over quart"


# ---- media


async def test_media_goes_to_its_handler() -> None:
    async with running() as instance:
        url = f"ws://127.0.0.1:{instance.port}/media/good"
        async with await connect(url) as ws:
            await ws.send(b"hello")
            assert await ws.receive() == [b"hello"]
        async with trio_websocket.open_websocket_url(url) as peer:
            await peer.send_message("hello")
            assert await peer.get_message() == "hello"
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert instance.media.codes == [1000, 1000]
        head = instance.media.heads[0]
        assert (head.client, head.secure) == ("127.0.0.1", False)
        assert instance.server.connections == 0


async def test_media_on_a_connection_that_served_http_before() -> None:
    async with running() as instance:
        stream = await instance.open()
        await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await read_response(stream))[0] == 200
        upgrade = media_upgrade()
        await stream.send_all(upgrade[:30])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.send_all(upgrade[30:] + b"\x81\x82\0\0\0\0hi")  # a frame right behind it
        answer = b""
        while not answer.endswith(b"\x81\x02hi"):
            part = await stream.receive_some()
            assert part, answer
            answer += part
        assert answer.startswith(b"HTTP/1.1 101 ")
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert instance.media.codes == [1006]
        assert instance.server.connections == 0


async def test_refusals_before_the_upgrade() -> None:
    async with running() as instance:
        with pytest.raises(ConnectRefused) as caught:
            await connect(f"ws://127.0.0.1:{instance.port}/media/bad")
        assert caught.value.status == 403
        plain = await instance.say(b"GET /media/good HTTP/1.1\r\nHost: h\r\n\r\n")
        assert plain.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
        old = media_upgrade().replace(b"Version: 13", b"Version: 8")
        assert (await instance.say(old)).startswith(b"HTTP/1.1 426 ")
        assert instance.server.rejected == 3
        assert instance.media.heads == []


async def test_an_asynchronous_authorize() -> None:
    async with running() as instance:

        async def authorize(head: RequestHead) -> int | None:
            await trio.lowlevel.checkpoint()
            return 401

        route = MediaRoute("/", authorize, instance.media.handle)
        instance.server._routes = (route,)
        assert (await instance.say(media_upgrade())).startswith(b"HTTP/1.1 401 ")


async def test_a_failing_handler_ends_its_connection_alone() -> None:
    async with running() as instance:
        url = f"ws://127.0.0.1:{instance.port}/media/good"
        async with await connect(url) as other, await connect(url) as ws:
            ws.send_nowait(b"fail")
            with pytest.raises(WebSocketClosed) as caught:
                await ws.receive()
            assert caught.value.code == 1011
            other.send_nowait(b"still here")
            assert await other.receive() == [b"still here"]


# ---- bad input


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\nbroken\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /" + b"a" * 200_000, b"HTTP/1.1 431 "),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"HTTP/1.1 431 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 505 "),
    ],
)
async def test_garbage_is_refused(data: bytes, answer: bytes) -> None:
    async with running() as instance:
        assert (await instance.say(data)).startswith(answer)
        assert instance.server.rejected == 1


async def test_a_head_that_never_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as instance:
        stream = await instance.open()
        start = trio.current_time()
        answer = b""
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                with contextlib.suppress(trio.BrokenResourceError):
                    for byte in b"GET / HTTP/1.1\r\nHost: h\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyy":
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(1)

            nursery.start_soon(drip)
            while part := await stream.receive_some():
                answer += part
            nursery.cancel_scope.cancel()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert trio.current_time() - start == pytest.approx(10, abs=1.5)
        await stream.aclose()


async def test_connections_that_say_nothing_leave_nothing() -> None:
    async with running() as instance:
        before = open_files()
        for data in (b"", b"GET", b"\x16"):
            stream = await instance.open()
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(data)
            await stream.aclose()
        with trio.fail_after(20):
            while instance.server.accepted < 3 or instance.server.connections:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert open_files() == before


async def test_one_connection_too_many_is_closed_at_once() -> None:
    async with running(max_connections=2) as instance:
        first, second = await instance.open(), await instance.open()
        assert await instance.say(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n") == b""
        assert instance.server.refused == 1
        await first.aclose()
        await second.aclose()
        with trio.fail_after(20):
            while instance.server.connections:
                await trio.testing.wait_all_tasks_blocked(0.01)
        answer = await instance.say(LAST_REQUEST)
        assert answer.startswith(b"HTTP/1.1 200 ")


class ExhaustedListener(trio.abc.Listener[trio.SocketStream]):
    """A listener that runs out of descriptors twice."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self.listener = listener
        self.failures = 2

    async def accept(self) -> trio.SocketStream:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return await self.listener.accept()

    async def aclose(self) -> None:
        await self.listener.aclose()


async def test_accepting_survives_exhausted_descriptors(
    autojump_clock: trio.testing.MockClock,
) -> None:
    instance = Running(None, 100)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    instance.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await instance.server.serve([ExhaustedListener(listener)], stop=instance.stop)

        nursery.start_soon(serve)
        answer = await instance.say(LAST_REQUEST)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert instance.server.overloaded == 2
        instance.stop.set()


# ---- TLS


@pytest.fixture(scope="module")
def listener_tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("tls")
    cert = authority.issue_cert("localhost")
    cert.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    cert.private_key_pem.write_to_path(str(folder / "key.pem"))
    return server_tls(folder / "cert.pem", folder / "key.pem")


async def test_https_and_wss(authority: trustme.CA, listener_tls: ssl.SSLContext) -> None:
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with running(listener_tls) as instance:
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", instance.port, ssl_context=client, https_compatible=True
        )
        for _ in range(2):
            await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = b""
            while not answer.endswith(b"hello https 127.0.0.1"):
                part = await stream.receive_some()
                assert part, answer
                answer += part
        await stream.aclose()
        url = f"wss://localhost:{instance.port}/media/good"
        async with await connect(url, ssl_context=client) as ws:
            await ws.send(b"x" * 100_000)
            received = await ws.receive()
            assert received == [b"x" * 100_000]
        assert instance.media.heads[0].secure
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\xff" * 99):
            await instance.say(garbage + b"\r\n")
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", instance.port, ssl_context=client, https_compatible=True
        )
        await stream.send_all(b"\xff\xfe\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 400 ")
        await stream.aclose()


def test_certificate_files_that_are_wrong(authority: trustme.CA, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        server_tls(tmp_path / "none.pem", tmp_path / "none.pem")
    one, other = authority.issue_cert("a"), authority.issue_cert("b")
    one.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    other.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    with pytest.raises(ssl.SSLError, match="MISMATCH"):
        server_tls(tmp_path / "cert.pem", tmp_path / "key.pem")


# ---- stopping


async def test_stopping_lets_connections_end_within_the_grace() -> None:
    async with running(grace=5) as instance:
        idle = await instance.open()
        await idle.send_all(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
        await read_response(idle)
        async with await connect(f"ws://127.0.0.1:{instance.port}/media/good") as ws:
            ws.send_nowait(b"one")
            assert await ws.receive() == [b"one"]
            instance.stop.set()
            assert await read_all(idle) == b""  # what is idle ends at once
            with pytest.raises(OSError, match="connect"):
                await instance.open()
            ws.send_nowait(b"two")
            assert await ws.receive() == [b"two"]
    assert instance.media.codes == [1000]


async def test_stopping_ends_what_outlasts_the_grace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A caller who stays is told to go; a client that does not take its response is cut off."""
    start = trio.current_time()
    async with running(grace=2) as instance:
        stuck = await instance.open()
        await stuck.send_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        await stuck.receive_some()
        async with await connect(f"ws://127.0.0.1:{instance.port}/media/good") as ws:
            instance.stop.set()
            with pytest.raises(WebSocketClosed) as caught:
                await ws.receive()
            assert caught.value.code == 1001
    assert trio.current_time() - start < 5
    await stuck.aclose()


async def test_cancelling_the_server_ends_everything(
    autojump_clock: trio.testing.MockClock,
) -> None:
    before = open_files()
    start = trio.current_time()
    with trio.CancelScope() as scope:
        async with running() as instance:
            stuck = await instance.open()
            await stuck.send_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
            await stuck.receive_some()
            ws = await connect(f"ws://127.0.0.1:{instance.port}/media/good")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert trio.current_time() - start < 2
    ws.transport.close()
    await stuck.aclose()
    assert open_files() == before


def open_files() -> int:
    gc.collect()  # what earlier tests left for the collector
    return len(list(Path("/proc/self/fd").iterdir()))
