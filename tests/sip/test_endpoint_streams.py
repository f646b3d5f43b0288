"""The endpoint over TCP: connections that are shared, idle, lost, stuck and hostile."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest
import structlog
import trio
import trio.testing

from tests.sip.nodes import (
    LOCAL,
    LOOPBACK,
    TCP,
    UDP,
    accept,
    free_port,
    node,
    read_exactly,
    read_to_end,
    request,
    response,
    tcp_listener,
    until,
)
from voiced.sip import connection as connection_module
from voiced.sip import connections as connections_module
from voiced.sip.endpoint import Endpoint
from voiced.sip.errors import ParseError
from voiced.sip.guard import Guard
from voiced.sip.message import Request
from voiced.sip.socket import ListenAddress
from voiced.sip.transport import Flow

# TCP


async def test_tcp_there_and_back_on_one_connection() -> None:
    async with node(TCP) as one, node(TCP) as two:
        for branch in ("a", "b"):
            one.endpoint.send(request(branch=branch), two.target("tcp"), one.failed)
            _, flow = await two.next()
            assert flow.reliable
            two.endpoint.send(response(branch=branch), flow, two.failed)
            _, back = await one.next()
            assert back.remote == two.address("tcp")
        assert one.endpoint.statistics().opened == 1
        assert two.endpoint.statistics().accepted == 1
        assert one.nothing_more()
        assert two.nothing_more()


async def test_requests_begun_while_connecting_share_the_connection() -> None:
    async with node(TCP) as one, node(TCP) as two:
        for number in range(20):
            one.endpoint.send(request(branch=str(number)), two.target("tcp"))
        calls = [(await two.next())[0].call_id for _ in range(20)]
        assert calls == [f"call-{number}" for number in range(20)]
        assert two.endpoint.statistics().accepted == 1


async def test_stream_in_pieces_and_two_messages_in_one() -> None:
    async with node(TCP) as one:
        stream = await trio.open_tcp_stream(*one.address("tcp"))
        async with stream:
            for byte in request(size=3):
                await stream.send_all(bytes([byte]))
            message, flow = await one.next()
            assert message.body == b"xxx"
            await stream.send_all(request(branch="a") + request(branch="b"))
            assert [(await one.next())[0].call_id for _ in "ab"] == ["call-a", "call-b"]
            one.endpoint.send(response(), flow)
            assert await read_exactly(stream, len(response())) == response()


async def test_ping_is_answered() -> None:
    async with node(TCP) as one:
        stream = await trio.open_tcp_stream(*one.address("tcp"))
        async with stream:
            await stream.send_all(b"\r\n\r\n")
            assert await read_exactly(stream, 2) == b"\r\n"
            await stream.send_all(request() + b"\r\n\r\n\r\n\r\n")
            assert await read_exactly(stream, 4) == b"\r\n\r\n"
            await one.next()


async def test_stream_that_cannot_be_framed_is_answered_and_closed() -> None:
    async with node(TCP) as one:
        stream = await trio.open_tcp_stream(*one.address("tcp"))
        async with stream:
            await stream.send_all(request().replace(b"Content-Length: 0\r\n", b""))
            error, flow = await one.malformed()
            assert error.fatal
            assert await read_to_end(stream) == b""
            assert flow.transport == "tcp"
        await until(lambda: not one.endpoint.statistics().accepted)


async def test_answer_to_what_ends_a_stream_is_still_sent() -> None:
    async with trio.open_nursery() as nursery:

        def answer(error: ParseError, flow: Flow) -> None:
            endpoint.send(response(), flow)

        endpoint = Endpoint(
            [TCP],
            guard=Guard(LOOPBACK, now=trio.current_time),
            on_message=lambda message, flow: None,
            on_malformed=answer,
        )
        await nursery.start(endpoint.serve)
        stream = await trio.open_tcp_stream(LOCAL, endpoint.addresses[0].port)
        async with stream:
            await stream.send_all(b"A" * 20_000)
            assert await read_to_end(stream) == response()
        nursery.cancel_scope.cancel()


async def test_message_that_is_never_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "UNFINISHED_S", 0.01)
    async with node(TCP) as one:
        stream = await trio.open_tcp_stream(*one.address("tcp"))
        async with stream:
            await stream.send_all(request()[:40])
            assert await read_to_end(stream) == b""
        assert one.nothing_more()


@pytest.mark.parametrize(("allow", "limit"), [(LOOPBACK, "IDLE_TRUNK_S"), ((), "IDLE_S")])
async def test_idle_accepted_connection_is_closed(
    monkeypatch: pytest.MonkeyPatch, allow: Sequence[tuple[str, str]], limit: str
) -> None:
    monkeypatch.setattr(connections_module, limit, 0.01)
    async with (
        node(TCP, allow=allow) as one,
        await trio.open_tcp_stream(*one.address("tcp")) as stream,
    ):
        assert await read_to_end(stream) == b""


@pytest.mark.parametrize("served", [True, False])
async def test_a_connection_that_may_have_a_call_on_it_is_kept(
    mock_clock: trio.testing.MockClock, served: bool
) -> None:
    """A telephone that proved its name, from anywhere: it cannot be called back for a BYE."""
    async with (
        node(TCP, allow=()) as one,
        await trio.open_tcp_stream(*one.address("tcp")) as stream,
    ):
        await stream.send_all(request(via="TCP 127.0.0.1"))
        _, flow = await one.next()
        answer = response(via="TCP 127.0.0.1")
        one.endpoint.send(answer if served else answer.replace(b"200 OK", b"401 No"), flow)
        await read_exactly(stream, len(answer))
        mock_clock.jump(connection_module.IDLE_S + 1)
        await trio.testing.wait_all_tasks_blocked()
        assert one.endpoint.statistics().accepted == served
        mock_clock.jump(connections_module.IDLE_TRUNK_S + 1)
        assert await stream.receive_some(1) == b""


async def test_opened_connection_is_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "PING_S", 0.01)
    monkeypatch.setattr(connection_module, "PONG_S", 0.01)
    async with node(UDP) as one, tcp_listener() as (listener, target):
        one.endpoint.send(request(), target)
        stream = await accept(listener)
        async with stream:
            await read_exactly(stream, len(request()))
            for _ in range(2):  # whoever has never answered is not expected to
                assert await read_exactly(stream, 4) == b"\r\n\r\n"
            await stream.send_all(b"\r\n")
            # One who has, and does no longer, is dead.
            assert set(await read_to_end(stream)) <= set(b"\r\n")
        await until(lambda: one.endpoint.statistics().opened == 0)


async def test_peer_that_does_not_read() -> None:
    async with node(UDP) as one, tcp_listener() as (listener, target):
        one.endpoint.send(request(), target, one.failed)
        stream = await accept(listener)
        async with stream:
            await read_exactly(stream, len(request()))
            await stream.send_all(response())
            _, flow = await one.next()
            sent = 0
            while one.endpoint.statistics().opened and sent < 100_000_000:
                one.endpoint.send(request(size=60_000), flow, one.failed)
                sent += 60_000
                await trio.lowlevel.checkpoint()
            assert sent < 100_000_000
            assert "the peer does not read" in {await one.failure() for _ in range(4)}


async def test_connection_refused() -> None:
    async with node(UDP) as one:
        async with tcp_listener() as (_, target):
            pass
        one.endpoint.send(request(), target, one.failed)
        one.endpoint.send(request(branch="2"), target, one.failed)
        assert "refused" in await one.failure()
        assert "refused" in await one.failure()
        one.endpoint.send(request(), target)  # whoever does not want to know need not
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert one.endpoint.statistics().opened == 0


async def test_connection_lost_before_the_answer() -> None:
    async with node(UDP) as one, tcp_listener() as (listener, target):
        one.endpoint.send(request(), target, one.failed)
        stream = await accept(listener)
        await read_exactly(stream, len(request()))
        await stream.aclose()
        assert await one.failure() == "the peer closed the connection"
        assert one.nothing_more()


async def test_answered_request_does_not_fail_with_its_connection() -> None:
    async with node(UDP) as one, tcp_listener() as (listener, target):
        one.endpoint.send(request(), target, one.failed)
        stream = await accept(listener)
        await read_exactly(stream, len(request()))
        await stream.send_all(response())
        await one.next()
        one.endpoint.send(request("ACK"), target, one.failed)
        await read_exactly(stream, len(request("ACK")))
        await stream.aclose()
        await until(lambda: not one.endpoint.statistics().opened)
        assert one.nothing_more()


async def test_idle_connection_that_the_peer_closes_meanwhile() -> None:
    """The request that met the closing is sent once more, on a new connection."""
    async with node(UDP) as one, tcp_listener() as (listener, target):
        one.endpoint.send(request(), target, one.failed)
        first = await accept(listener)
        await read_exactly(first, len(request()))
        await first.send_all(response())
        await one.next()
        again = request(branch="again")
        one.endpoint.send(again, target, one.failed)
        await first.aclose()  # unread: the peer's kernel resets
        second = await accept(listener)
        assert await read_exactly(second, len(again)) == again
        await second.aclose()
        assert await one.failure()  # but only once
        assert one.nothing_more()


async def test_response_whose_connection_has_gone() -> None:
    """RFC 3261 section 18.2.2: to the address of the Via, on a new connection."""
    async with node(TCP) as one, tcp_listener() as (listener, target):
        stream = await trio.open_tcp_stream(*one.address("tcp"))
        await stream.send_all(request())
        _, flow = await one.next()
        await stream.aclose()
        await until(lambda: not one.endpoint.statistics().accepted)
        data = response(via=f"TCP client.invalid:{target.port};received={LOCAL}")
        one.endpoint.send(data, flow, one.failed)
        back = await accept(listener)
        assert await read_exactly(back, len(data)) == data
        await back.aclose()
        one.endpoint.send(request(), flow, one.failed)
        assert await one.failure() == "the connection is closed"


async def test_strangers_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "MAX_PER_STRANGER", 2)
    async with node(TCP, allow=()) as one:
        streams = [await trio.open_tcp_stream(*one.address("tcp")) for _ in range(3)]
        assert await read_to_end(streams[2]) == b""
        await streams[2].aclose()
        assert one.endpoint.statistics().accepted == 2
        assert one.counted["accept", "limit"] == 1
        await streams[0].aclose()
        await until(lambda: one.endpoint.statistics().accepted == 1)
        async with await trio.open_tcp_stream(*one.address("tcp")) as fourth:
            await fourth.send_all(request())
            await one.next()
        await streams[1].aclose()


async def test_no_file_descriptors_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    accept_one = trio.SocketListener.accept
    errors = [OSError(errno.EMFILE, "Too many open files")] * 2

    async def accept(self: trio.SocketListener) -> trio.SocketStream:
        if errors:
            raise errors.pop()
        return await accept_one(self)

    monkeypatch.setattr(trio.SocketListener, "accept", accept)
    monkeypatch.setattr(connections_module, "_ACCEPT_RETRY", 0.001)
    with structlog.testing.capture_logs() as lines:
        async with node(TCP) as one, node(UDP) as two:
            two.endpoint.send(request(), one.target("tcp"))
            await one.next()
            assert one.counted["accept", "overload"] == 2
    assert "cannot accept SIP connections" in [line["event"] for line in lines]


async def test_banned_source_cannot_connect() -> None:
    async with node(TCP, allow=()) as one:
        one.endpoint.guard.refused(LOCAL, "stranger", "friendly-scanner")
        async with await trio.open_tcp_stream(*one.address("tcp")) as stream:
            assert await read_to_end(stream) == b""
        assert one.counted["accept", "dropped"] == 1


async def test_stranger_who_sends_too_much_is_cut_off() -> None:
    async with node(TCP, allow=()) as one:
        async with await trio.open_tcp_stream(*one.address("tcp")) as stream:
            with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
                await stream.send_all(request(size=30_000) * 1000)
        assert one.counted["dropped", "flood"]


# Too big for UDP


async def test_big_request_goes_over_tcp() -> None:
    port = free_port()
    async with (
        node(UDP) as one,
        node(ListenAddress("udp", LOCAL, port)) as two,
        node(ListenAddress("tcp", LOCAL, port)) as tcp,
    ):
        big = request("INVITE", size=1300, via=f"UDP {LOCAL}:{one.target('udp').port}")
        one.endpoint.send(big, two.target("udp"), one.failed)
        message, flow = await tcp.next()
        assert isinstance(message, Request)
        assert message.via is not None
        assert message.via.transport == "TCP"
        assert message.via.port == one.target("udp").port
        assert message.body == b"x" * 1300
        # A retransmission adds nothing, the ACK of the transaction goes the same way.
        one.endpoint.send(big, two.target("udp"), one.failed)
        one.endpoint.send(request("ACK"), two.target("udp"))
        message, ack_flow = await tcp.next()
        assert isinstance(message, Request)
        assert (message.method, ack_flow.key) == ("ACK", flow.key)
        # Another transaction is small enough.
        one.endpoint.send(request(branch="z9hG4bKother"), two.target("udp"))
        await two.next()
        assert two.nothing_more()


async def test_big_request_without_tcp_goes_by_udp() -> None:
    async with node(UDP) as one, node(UDP) as two:
        big = request("INVITE", size=1300)
        for _ in range(2):
            one.endpoint.send(big, two.target("udp"), one.failed)
            message, flow = await two.next()
            assert flow.transport == "udp"
            assert bytes(message) == big
        assert one.counted["connection", "opened"] == 0
        one.endpoint.send(request("ACK"), two.target("udp"))
        assert (await two.next())[1].transport == "udp"


async def test_big_responses_and_a_switched_off_rule() -> None:
    async with node(UDP, mtu=0) as one, node(UDP) as two:
        one.endpoint.send(request("INVITE", size=2000), two.target("udp"))
        _, flow = await two.next()
        assert flow.transport == "udp"
        big = response() + b"x" * 2000
        two.endpoint.send(big, flow)
        two.endpoint.send(big, one.target("udp"))
        assert [(await one.next())[1].transport for _ in range(2)] == ["udp", "udp"]
