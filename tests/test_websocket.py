"""The WebSocket shell: over socket pairs with a raw peer, and against two independent peers."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trio_websocket
import trustme
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server

from voiced import frames, handshake, websocket
from voiced.frames import RECEIVE_BUFFER, BinaryMessage
from voiced.opening import ConnectError, ConnectRefused, accept, connect
from voiced.socket import TcpTransport, TlsTransport, transport_from_trio
from voiced.websocket import BacklogFull, WebSocket, WebSocketClosed

LIMIT = 1 << 20


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_tls(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


@pytest.fixture(params=["tcp", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tls")


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


# ---- messages


async def test_one_wake_up_brings_everything() -> None:
    async with server_and_peer() as (ws, peer):
        data = b"".join(bytes(frames.frame(0x81, b"%d" % i, masked=True)) for i in range(200))
        peer.transport.send_nowait(data)
        assert await ws.receive() == [b"%d" % i for i in range(200)]
        peer.send(frames.BINARY_FRAME, b"\xff")
        assert await ws.receive() == [BinaryMessage(b"\xff")]
        await close_as_peer(ws, peer)


async def close_as_peer(ws: WebSocket, peer: RawPeer, code: int = 1000) -> None:
    """Let the peer close, and the WebSocket find out."""
    peer.send(frames.CLOSE_FRAME, frames.close_payload(code, "bye"))
    with pytest.raises(WebSocketClosed) as caught:
        await ws.receive()
    assert (caught.value.code, caught.value.reason) == (code, "bye")
    peer.transport.socket.shutdown(socket.SHUT_WR)


async def test_control_frames_between_fragments() -> None:
    async with server_and_peer() as (ws, peer):
        peer.send(0x01, b"he")
        peer.send(frames.PING_FRAME, b"are you there")
        peer.send(0x00, b"ll")
        peer.send(frames.PONG_FRAME, b"unsolicited")
        peer.send(0x80, b"o")
        assert await ws.receive() == [b"hello"]
        assert await peer.receive() == [frames.Pong(b"are you there")]
        assert ws.last_pong is None  # an unsolicited pong answers nothing
        await close_as_peer(ws, peer)


async def test_both_sides_of_ours_echo_every_size() -> None:
    async with both_ours() as (client, server):
        for size in (0, 1, 125, 126, 65535, 65536, 500_000):
            message = b"x" * size
            for sender, receiver in ((client, server), (server, client)):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sender.send, message)
                    assert await gather(receiver, 1) == [message]
                    await sender.drain()
        assert client.backlog == server.backlog == 0


async def test_early_bytes_are_the_first_messages() -> None:
    one, other = socket.socketpair()
    early = bytes(frames.frame(frames.TEXT_FRAME, b"early", masked=False))
    peer = RawPeer(other, masks=False)
    async with WebSocket(TcpTransport(one), is_client=True, early=early) as ws:
        assert await ws.receive() == [b"early"]
        await close_as_peer(ws, peer)
    peer.transport.close()


async def test_a_cancelled_receive_loses_nothing() -> None:
    async with server_and_peer() as (ws, peer):
        whole = bytes(frames.frame(frames.TEXT_FRAME, b"whole", masked=True))
        for byte in whole:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ws.receive)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            peer.transport.send_nowait(bytes([byte]))
        assert await ws.receive() == [b"whole"]
        await close_as_peer(ws, peer)


async def test_an_interrupted_receive_returns_nothing_and_loses_nothing() -> None:
    async with server_and_peer() as (ws, peer):
        whole = bytes(frames.frame(frames.TEXT_FRAME, b"whole", masked=True))
        got: list[list[websocket.Message]] = []

        async def receive() -> None:
            got.append(await ws.receive())

        for byte in whole:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                ws.interrupt()
            peer.transport.send_nowait(bytes([byte]))
        assert got == [[]] * len(whole)
        assert await ws.receive() == [b"whole"]
        ws.interrupt()  # while nobody receives, and the peer closes meanwhile
        peer.send(frames.CLOSE_FRAME, frames.close_payload(1000, "bye"))
        assert await ws.receive() == []
        with pytest.raises(WebSocketClosed):
            await ws.receive()
        peer.transport.socket.shutdown(socket.SHUT_WR)


async def test_closing_after_an_interruption_waits_for_the_answer() -> None:
    async with server_and_peer() as (ws, peer):
        ws.interrupt()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.aclose)
            await trio.testing.wait_all_tasks_blocked()
            assert await peer.receive() == [frames.Close(1000, "")]
            peer.send(frames.CLOSE_FRAME, frames.close_payload(1000, ""))
            peer.transport.socket.shutdown(socket.SHUT_WR)


# ---- violations


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1\x80abcd", 1002),
        (b"\x81\x01x", 1002),
        (b"\x80\x80abcd", 1002),
        (b"\x81\x82\0\0\0\0\xc3\x28", 1007),
        (b"\x81\xff" + struct.pack("!Q", LIMIT + 1), 1009),
    ],
)
async def test_violations_close_with_their_code_after_what_came_before(
    data: bytes, code: int
) -> None:
    async with server_and_peer() as (ws, peer):
        peer.send(frames.TEXT_FRAME, b"good")
        peer.transport.send_nowait(data)
        assert await ws.receive() == [b"good"]
        for _ in range(2):
            with pytest.raises(WebSocketClosed) as caught:
                await ws.receive()
            assert caught.value.code == code
        with pytest.raises(WebSocketClosed):
            ws.send_nowait(b"too late")
        (close,) = await peer.receive()
        assert isinstance(close, frames.Close)
        assert close.code == code
        peer.transport.socket.shutdown(socket.SHUT_WR)
    assert ws.transport.socket.fileno() == -1


async def test_the_end_without_a_close_frame_is_1006() -> None:
    async with server_and_peer() as (ws, peer):
        peer.send(frames.TEXT_FRAME, b"last")
        peer.transport.close()
        assert await ws.receive() == [b"last"]
        with pytest.raises(WebSocketClosed) as caught:
            await ws.receive()
        assert caught.value.code == 1006


async def test_what_the_peer_said_before_it_vanished_is_still_read() -> None:
    async with server_and_peer() as (ws, peer):
        peer.send(frames.CLOSE_FRAME, frames.close_payload(4000, "why"))
        peer.transport.close()
        with pytest.raises(WebSocketClosed) as caught:
            ws.send_nowait(b"x")
        assert caught.value.code == 1006
        with pytest.raises(WebSocketClosed) as caught:
            await ws.receive()
        assert (caught.value.code, caught.value.reason) == (4000, "why")


# ---- backlog


async def fill(ws: WebSocket, message: bytes) -> int:
    """Send until the backlog is full; returns how many messages that took."""
    count = 0
    try:
        while True:
            ws.send_nowait(message)
            count += 1
    except BacklogFull:
        return count


async def test_a_peer_that_does_not_read_fills_the_backlog_and_no_more() -> None:
    async with server_and_peer(max_backlog=100_000) as (ws, peer):
        count = await fill(ws, b"x" * 1000)
        assert 90_000 < ws.backlog <= 101_000
        received = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.drain)
            while received < count:
                received += len(await peer.receive())
        assert ws.backlog == 0
        ws.send_nowait(b"and on it goes")
        assert await peer.receive() == [b"and on it goes"]
        await close_as_peer(ws, peer)


async def test_send_waits_above_the_high_water_mark() -> None:
    async with server_and_peer() as (ws, peer):
        total = 100 * 20_000
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(100):
                await ws.send(b"x" * 20_000)
                sent += 20_000

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            assert sent < total
            assert websocket.HIGH_WATER < ws.backlog <= websocket.HIGH_WATER + 20_100
            received = 0
            while received < total:
                for message in await peer.receive():
                    assert isinstance(message, bytes)
                    received += len(message)
        await close_as_peer(ws, peer)


async def test_a_single_message_may_exceed_the_backlog() -> None:
    async with server_and_peer(max_backlog=10) as (ws, peer):
        ws.send_nowait(b"x" * 900_000)
        with pytest.raises(BacklogFull):
            ws.send_nowait(b"y")
        assert await peer.receive() == [b"x" * 900_000]
        await close_as_peer(ws, peer)


async def test_send_waits_for_room_where_send_nowait_gives_up() -> None:
    async with server_and_peer(max_backlog=10_000) as (ws, peer):
        count = await fill(ws, b"x" * 100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.send, b"y" * 9_999)
            received: list[frames.Event] = []
            while len(received) <= count:
                received += await peer.receive()
        assert received[-1] == b"y" * 9_999
        await close_as_peer(ws, peer)


async def test_sending_fails_when_the_peer_vanishes_with_a_backlog() -> None:
    async with server_and_peer() as (ws, peer):
        await fill(ws, b"x" * 1000)
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(WebSocketClosed):
                    await ws.send(b"y")

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            peer.transport.close()
        with pytest.raises(WebSocketClosed):
            await ws.drain()


async def test_a_peer_that_pings_and_never_reads_is_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with server_and_peer(max_backlog=10_000) as (ws, peer):
        await fill(ws, b"x" * 1000)
        ping = bytes(frames.frame(frames.PING_FRAME, b"p" * 125, masked=True))

        async def flood() -> None:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                for _ in range(1000):
                    peer.transport.send_nowait(ping)
                    await peer.transport.flush()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            with pytest.raises(WebSocketClosed) as caught:
                await ws.receive()
            assert caught.value.code == 1008
            assert ws.backlog < 11_000
            nursery.cancel_scope.cancel()


# ---- closing


async def test_leaving_the_context_closes_with_1000_and_waits_for_the_answer() -> None:
    one, other = socket.socketpair()
    peer = RawPeer(other, masks=True)

    async def answer() -> None:
        assert await peer.receive() == [frames.Close(1000, "")]
        peer.send(frames.CLOSE_FRAME, frames.close_payload(1000, ""))
        assert await peer.receive() == []  # the server's end
        peer.transport.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with WebSocket(TcpTransport(one), is_client=False) as ws:
            pass
    assert one.fileno() == -1
    with pytest.raises(WebSocketClosed):
        await ws.receive()
    with pytest.raises(WebSocketClosed):
        ws.send_nowait(b"x")
    await ws.aclose()  # again is harmless


async def test_a_peer_that_never_answers_costs_one_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with server_and_peer() as (ws, _peer):
        start = trio.current_time()
        await ws.aclose(1001, "going away")
        assert trio.current_time() - start == pytest.approx(1.0)
        assert ws.transport.socket.fileno() == -1


async def test_close_with_a_stuck_backlog_costs_one_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with server_and_peer() as (ws, _peer):
        await fill(ws, b"x" * 1000)
        await trio.testing.wait_all_tasks_blocked()  # the flusher waits
        start = trio.current_time()
        await ws.aclose()
        assert trio.current_time() - start == pytest.approx(1.0)


async def test_the_backlog_is_delivered_before_the_close() -> None:
    async with both_ours() as (client, server):
        client.send_nowait(b"x" * 240_000)
        for _ in range(50):
            client.send_nowait(b"x" * 1000)
        assert client.backlog
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose, 1000, "done")
            assert len(await gather(server, 51)) == 51
            with pytest.raises(WebSocketClosed) as caught:
                await server.receive()
            assert caught.value.reason == "done"
            await server.aclose()


async def test_closing_while_another_task_receives() -> None:
    async with both_ours() as (client, server):
        codes = []

        async def receive(ws: WebSocket) -> None:
            with pytest.raises(WebSocketClosed) as caught:
                await ws.receive()
            codes.append(caught.value.code)
            await ws.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, client)
            nursery.start_soon(receive, server)
            await trio.testing.wait_all_tasks_blocked()
            await client.aclose(4001)
        assert codes == [4001, 4001]


async def test_both_sides_close_at_once() -> None:
    async with both_ours() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.aclose, 1000)
        nursery.start_soon(server.aclose, 1001)


async def test_messages_that_cross_the_close_are_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with server_and_peer() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.aclose)
        assert await peer.receive() == [frames.Close(1000, "")]
        for _ in range(500):
            peer.send(frames.TEXT_FRAME, b"crossing" * 100)
            await peer.transport.flush()
        peer.send(frames.PING_FRAME, b"not answered any more")
        peer.send(frames.CLOSE_FRAME, b"")
        await peer.transport.flush()
        assert await peer.receive() == []
        peer.transport.close()


async def test_cancelling_the_owner_says_going_away() -> None:
    one, other = socket.socketpair()
    peer = RawPeer(other, masks=True)
    events: list[frames.Event] = []

    async def run() -> None:
        async with WebSocket(TcpTransport(one), is_client=False) as ws:
            ws.send_nowait(b"x" * 900_000)  # the flusher is at work too
            await ws.receive()

    async def read_on() -> None:
        nonlocal events
        while got := await peer.receive():
            events += got
            if isinstance(got[-1], frames.Close):
                peer.send(frames.CLOSE_FRAME, b"")
                peer.transport.socket.shutdown(socket.SHUT_WR)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on)
        async with trio.open_nursery() as owner:
            owner.start_soon(run)
            await trio.testing.wait_all_tasks_blocked(0.01)
            owner.cancel_scope.cancel()
    assert events[0] == b"x" * 900_000
    assert events[1] == frames.Close(1001, "")
    peer.transport.close()


async def test_an_exception_passes_unwrapped_and_closes_with_1011() -> None:
    one, other = socket.socketpair()
    peer = RawPeer(other, masks=True)
    with pytest.raises(KeyError, match="'mistake'"):
        async with WebSocket(TcpTransport(one), is_client=False, close_timeout=0.01):
            raise KeyError("mistake")
    assert await peer.receive() == [frames.Close(1011, "")]
    peer.transport.close()


async def test_abort_is_at_once() -> None:
    async with server_and_peer() as (ws, peer):
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(WebSocketClosed, match="1006 enough"):
                    await ws.receive()

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            ws.abort("enough")
        assert await peer.receive() == []


async def test_it_must_be_entered() -> None:
    one, other = socket.socketpair()
    ws = WebSocket(TcpTransport(one), is_client=True)
    with pytest.raises(RuntimeError, match="async with"):
        ws.send_nowait(b"x")
    with pytest.raises(RuntimeError, match="async with"):
        await ws.receive()
    ws.transport.close()
    other.close()


# ---- keep-alive


async def test_pings_are_timed(autojump_clock: trio.testing.MockClock) -> None:
    async with server_and_peer() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.receive)
        answered = ws.ping()
        (ping,) = await peer.receive()
        assert isinstance(ping, frames.Ping)
        await trio.sleep(0.25)
        peer.send(frames.PONG_FRAME, ping.payload)
        await answered.wait()
        assert ws.latency == pytest.approx(0.25)
        assert ws.last_pong == pytest.approx(trio.current_time())
        nursery.cancel_scope.cancel()
        ws.abort("done")


async def test_a_half_open_connection_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with server_and_peer() as (ws, peer):
        start = trio.current_time()

        async def answer_twice() -> None:
            for _ in range(2):
                (ping,) = await peer.receive()
                assert isinstance(ping, frames.Ping)
                peer.send(frames.PONG_FRAME, ping.payload)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_twice)

            async def keep_alive() -> None:
                await ws.keep_alive(interval=20, timeout=5)

            nursery.start_soon(keep_alive)
            with pytest.raises(WebSocketClosed, match="did not answer a ping within 5 s"):
                await ws.receive()
        assert trio.current_time() - start == pytest.approx(65)


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
    ("answer", "message"),
    [
        (b"HTTP/1.1 101 Sure\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "Accept"),
        (b"SSH-2.0-x\r\n\r\n", "status line"),
        (b"", "no WebSocket within"),
    ],
)
async def test_servers_that_speak_otherwise(answer: bytes, message: str) -> None:
    async with raw_server(answer) as port:
        with pytest.raises(ConnectError, match=message):
            await connect(f"ws://127.0.0.1:{port}/", connect_timeout=0.05)


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
        assert ws.latency is not None


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
