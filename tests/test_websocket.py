"""The WebSocket shell: over socket pairs with a raw peer, and against two independent peers."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest
import trio
import trio.testing

from tests.websockets import LIMIT, RawPeer, both_ours, close_as_peer, gather, server_and_peer
from voiced import frames, websocket
from voiced.frames import BinaryMessage
from voiced.socket import TcpTransport
from voiced.websocket import BacklogFull, WebSocket, WebSocketClosed

# ---- messages


async def test_one_wake_up_brings_everything() -> None:
    async with server_and_peer() as (ws, peer):
        data = b"".join(bytes(frames.frame(0x81, b"%d" % i, masked=True)) for i in range(200))
        peer.transport.send_nowait(data)
        assert await ws.receive() == [b"%d" % i for i in range(200)]
        peer.send(frames.BINARY_FRAME, b"\xff")
        assert await ws.receive() == [BinaryMessage(b"\xff")]
        await close_as_peer(ws, peer)


async def test_control_frames_between_fragments() -> None:
    async with server_and_peer() as (ws, peer):
        peer.send(0x01, b"he")
        peer.send(frames.PING_FRAME, b"are you there")
        peer.send(0x00, b"ll")
        peer.send(frames.PONG_FRAME, b"unsolicited")
        peer.send(0x80, b"o")
        assert await ws.receive() == [b"hello"]
        assert await peer.receive() == [frames.Pong(b"are you there")]
        assert ws.pings.last_pong is None  # an unsolicited pong answers nothing
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


# ---- pings


async def test_pings_are_timed(autojump_clock: trio.testing.MockClock) -> None:
    async with server_and_peer() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ws.receive)
        answered = ws.ping()
        (ping,) = await peer.receive()
        assert isinstance(ping, frames.Ping)
        await trio.sleep(0.25)
        peer.send(frames.PONG_FRAME, ping.payload)
        await answered.wait()
        assert ws.pings.latency == pytest.approx(0.25)
        assert ws.pings.last_pong == pytest.approx(trio.current_time())
        nursery.cancel_scope.cancel()
        ws.abort("done")
