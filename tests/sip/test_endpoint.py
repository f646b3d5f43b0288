from __future__ import annotations

import errno
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
import trustme

from voiced.sip import connection as connection_module
from voiced.sip import connections as connections_module
from voiced.sip import message as message_module
from voiced.sip.endpoint import Endpoint
from voiced.sip.errors import ParseError
from voiced.sip.guard import BURST, RATE, Guard
from voiced.sip.message import Message, Request, Response
from voiced.sip.resolver import Resolver
from voiced.sip.socket import ListenAddress, ListenError
from voiced.sip.tls import client_context, names_server
from voiced.sip.transport import Flow, Target, TransportName

LOCAL = "127.0.0.1"
UDP = ListenAddress("udp", LOCAL, 0)
TCP = ListenAddress("tcp", LOCAL, 0)
TLS = ListenAddress("tls", LOCAL, 0)
LOOPBACK = (("127.0.0.0/8", "lan"), ("::1", "lan"))


class Node:
    """An endpoint and what came to it."""

    def __init__(self, endpoint: Endpoint, counted: Counter[tuple[str, str]]) -> None:
        self.endpoint = endpoint
        self.counted = counted
        self.serving = trio.CancelScope()
        self.send_message, self._messages = trio.open_memory_channel[tuple[Message, Flow]](1000)
        self.send_malformed, self._malformed = trio.open_memory_channel[tuple[ParseError, Flow]](
            1000
        )
        self.send_failure, self._failures = trio.open_memory_channel[str](1000)

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.serving:
            await self.endpoint.serve(task_status=task_status)

    async def next(self) -> tuple[Message, Flow]:
        with trio.fail_after(5):
            return await self._messages.receive()

    async def malformed(self) -> tuple[ParseError, Flow]:
        with trio.fail_after(5):
            return await self._malformed.receive()

    async def failure(self) -> str:
        with trio.fail_after(5):
            return await self._failures.receive()

    def failed(self, why: str) -> None:
        self.send_failure.send_nowait(why)

    def nothing_more(self) -> bool:
        return not (
            self._messages.statistics().current_buffer_used
            or self._failures.statistics().current_buffer_used
        )

    def target(self, transport: TransportName, name: str | None = None) -> Target:
        (port,) = [each.port for each in self.endpoint.addresses if each.transport == transport]
        return Target(transport, LOCAL, port, name)

    def address(self, transport: TransportName) -> tuple[str, int]:
        return LOCAL, self.target(transport).port


@asynccontextmanager
async def node(
    *listen: ListenAddress,
    allow: Sequence[tuple[str, str]] = LOOPBACK,
    advertise: str | None = None,
    server_tls: ssl.SSLContext | None = None,
    client_tls: ssl.SSLContext | None = None,
    resolver: Resolver | None = None,
    mtu: int = 1300,
    on_message: Callable[[Message, Flow], None] | None = None,
) -> AsyncIterator[Node]:
    counted: Counter[tuple[str, str]] = Counter()

    def count(what: str, why: str) -> None:
        counted[what, why] += 1

    def deliver(message: Message, flow: Flow) -> None:
        if on_message is not None:
            on_message(message, flow)
        made.send_message.send_nowait((message, flow))

    endpoint = Endpoint(
        listen,
        guard=Guard(allow, now=trio.current_time, count=count),
        on_message=deliver,
        on_malformed=lambda error, flow: made.send_malformed.send_nowait((error, flow)),
        advertise=advertise,
        server_tls=server_tls,
        client_tls=client_tls,
        resolver=resolver,
        mtu=mtu,
        count=count,
    )
    made = Node(endpoint, counted)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.serve)
        yield made
        made.serving.cancel()


def request(
    method: str = "OPTIONS", *, branch: str = "z9hG4bK1", via: str = "UDP 127.0.0.1", size: int = 0
) -> bytes:
    return (
        f"{method} sip:voiced@127.0.0.1 SIP/2.0\r\n"
        f"Via: SIP/2.0/{via};rport;branch={branch}\r\n"
        "From: <sip:a@example.net>;tag=1\r\nTo: <sip:voiced@127.0.0.1>\r\n"
        f"Call-ID: call-{branch}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\n"
        f"Content-Length: {size}\r\n\r\n"
    ).encode() + b"x" * size


def response(via: str = "UDP 127.0.0.1", branch: str = "z9hG4bK1") -> bytes:
    return (
        "SIP/2.0 200 OK\r\n"
        f"Via: SIP/2.0/{via};branch={branch}\r\n"
        "From: <sip:a@example.net>;tag=1\r\nTo: <sip:voiced@127.0.0.1>;tag=2\r\n"
        f"Call-ID: call-{branch}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def udp_socket(host: str = LOCAL) -> trio.socket.SocketType:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return trio.socket.from_stdlib_socket(_bound(family, host))


def _bound(family: int, host: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


async def read_exactly(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    with trio.fail_after(5):
        while len(data) < size:
            received = await stream.receive_some(size - len(data))
            assert received, f"closed after {data!r}"
            data += received
    return data


async def read_to_end(stream: trio.abc.Stream) -> bytes:
    data = b""
    with trio.fail_after(5):
        try:
            while received := await stream.receive_some():
                data += received
        except trio.BrokenResourceError:
            pass
    return data


def free_port() -> int:
    """Free for UDP and TCP."""
    while True:
        with _bound(socket.AF_INET, LOCAL) as udp, socket.socket() as tcp:
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return int(tcp.getsockname()[1])


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.001)


@asynccontextmanager
async def tcp_listener() -> AsyncIterator[tuple[trio.SocketListener, Target]]:
    (listener,) = await trio.open_tcp_listeners(0, host=LOCAL)
    async with listener:
        yield listener, Target("tcp", *listener.socket.getsockname()[:2])


async def accept(listener: trio.SocketListener) -> trio.SocketStream:
    with trio.fail_after(5):
        return await listener.accept()


# UDP


async def test_udp_there_and_back() -> None:
    async with node(UDP) as one, node(UDP) as two:
        one.endpoint.send(request(), two.target("udp"), one.failed)
        message, flow = await two.next()
        assert isinstance(message, Request)
        assert bytes(message) == request()
        assert flow.remote == one.address("udp")
        assert flow.local == two.address("udp")
        assert not flow.reliable
        two.endpoint.send(response(), flow)
        message, _ = await one.next()
        assert isinstance(message, Response)
        assert one.nothing_more()
        assert one.endpoint.statistics().sent == 1
        assert one.endpoint.statistics().received == 1


async def test_response_goes_to_the_source_port_of_a_nat() -> None:
    """RFC 3581: the Via says one port, the datagram comes from another."""
    async with node(UDP) as one:
        with udp_socket() as peer:
            await peer.sendto(request(via="UDP 127.0.0.1:9"), one.address("udp"))
            _, flow = await one.next()
            one.endpoint.send(response(), flow)
            with trio.fail_after(5):
                data, source = await peer.recvfrom(65535)
            assert data == response()
            assert source == one.address("udp")
            # The same socket towards an address that a Via names.
            with udp_socket() as other:
                one.endpoint.send(response(), flow.towards(*other.getsockname()))
                with trio.fail_after(5):
                    assert await other.recvfrom(65535) == (response(), one.address("udp"))


async def test_ipv6() -> None:
    async with node(ListenAddress("udp", "::1", 0), ListenAddress("tcp", "::1", 0)) as one:
        with udp_socket("::1") as peer:
            await peer.sendto(request(), ("::1", one.target("udp").port))
            _, flow = await one.next()
            assert flow.remote == peer.getsockname()[:2]
            one.endpoint.send(response(), flow)
            with trio.fail_after(5):
                assert (await peer.recvfrom(65535))[0] == response()
        one.endpoint.send(request(), Target("tcp", "::1", one.target("tcp").port))
        _, flow = await one.next()
        assert flow.transport == "tcp"


async def test_no_socket_of_the_family() -> None:
    async with node(UDP) as one:
        calls: list[str] = []
        one.endpoint.send(request(), Target("udp", "::1", 5060), one.failed)
        one.endpoint.send(request(), Target("udp", "::1", 5060), calls.append)
        assert calls == []  # never from within send
        assert await one.failure() == "no UDP socket for ::1"


async def test_many_datagrams_in_one_wake_up() -> None:
    async with node(UDP) as one:
        with udp_socket() as peer:
            for number in range(300):
                await peer.sendto(request(branch=f"z9hG4bK{number}"), one.address("udp"))
            branches = [(await one.next())[0].call_id for _ in range(300)]
        assert branches == [f"call-z9hG4bK{number}" for number in range(300)]


async def test_keep_alives_and_garbage_over_udp() -> None:
    async with node(UDP) as one:
        with udp_socket() as peer, structlog.testing.capture_logs() as lines:
            for data in (b"\r\n\r\n", b"\0\0\0\0", b"\r\n", b"", b"\x80garbage", request()):
                await peer.sendto(data, one.address("udp"))
            await one.next()
            error, flow = await one.malformed()
            assert error.head is None
            assert flow.remote == peer.getsockname()
            assert one.endpoint.statistics().malformed == 1
        assert [line["event"] for line in lines] == ["malformed SIP"]


async def test_a_fault_of_the_parser_costs_one_datagram(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = message_module.parse

    def parse(data: bytes) -> Message:
        if data == b"poison":
            raise LookupError("a bug")
        return whole(data)

    monkeypatch.setattr(message_module, "parse", parse)
    async with node(UDP) as one:
        with udp_socket() as peer, structlog.testing.capture_logs() as lines:
            await peer.sendto(b"poison", one.address("udp"))
            await peer.sendto(request(), one.address("udp"))
            await one.next()
        assert [line["event"] for line in lines] == ["a SIP message could not be parsed"]


async def test_malformed_that_can_be_answered() -> None:
    async with node(UDP) as one:
        with udp_socket() as peer:
            await peer.sendto(request(size=10)[:-5], one.address("udp"))
            error, _ = await one.malformed()
            assert error.status == 400
            assert error.head is not None
            assert one.counted["malformed", error.reason] == 1


async def test_stranger_is_limited_and_banned_before_parsing() -> None:
    async with node(UDP, allow=()) as one:
        with udp_socket() as stranger, structlog.testing.capture_logs() as lines:
            begun = trio.current_time()
            for _ in range(600):
                await stranger.sendto(request(), one.address("udp"))
            with udp_socket("127.0.0.2") as other:
                await other.sendto(request("INVITE"), one.address("udp"))
            methods: list[str] = []
            while "INVITE" not in methods:
                message, _ = await one.next()
                assert isinstance(message, Request)
                methods.append(message.method)
            passed = len(methods) - 1
            # A slow machine takes long enough for some more.
            assert BURST <= passed <= BURST + RATE * (trio.current_time() - begun)
            assert list(one.endpoint.guard.banned()) == [LOCAL]
        assert one.counted["dropped", "flood"] + one.counted["dropped", "banned"] == 600 - passed
        assert [line["event"] for line in lines] == ["a stranger sends too much", "source banned"]


async def test_garbage_bans_its_source() -> None:
    async with node(UDP, allow=()) as one:
        with udp_socket() as stranger:
            for _ in range(6):
                await stranger.sendto(b"\x16\x03\x01 not SIP at all", one.address("udp"))
            for _ in range(6):
                await one.malformed()
            assert list(one.endpoint.guard.banned()) == [LOCAL]


async def test_answers_to_our_own_requests_are_no_flood() -> None:
    async with node(UDP, allow=()) as one:
        with udp_socket() as registrar:
            one.endpoint.send(request(), Target("udp", *registrar.getsockname()))
            for _ in range(100):
                await registrar.sendto(response(), one.address("udp"))
            for _ in range(100):
                await one.next()
        assert not one.counted["dropped", "flood"]


async def test_mistake_above_costs_one_message() -> None:
    def fail(message: Message, flow: Flow) -> None:
        if message.call_id == "call-bad":
            raise RuntimeError("a mistake")

    async with node(UDP, on_message=fail) as one:
        with udp_socket() as peer, structlog.testing.capture_logs() as lines:
            await peer.sendto(request(branch="bad"), one.address("udp"))
            await peer.sendto(request(branch="good"), one.address("udp"))
            message, _ = await one.next()
            assert message.call_id == "call-good"
        assert [line["event"] for line in lines] == ["a SIP message could not be handled"]


async def test_mistake_of_a_timer() -> None:
    def fail() -> None:
        raise RuntimeError("a mistake")

    async with node(UDP) as one:
        ran = trio.Event()
        with structlog.testing.capture_logs() as lines:
            one.endpoint.timers.call_later(0.0, fail)
            one.endpoint.timers.call_later(0.0, ran.set)
            with trio.fail_after(5):
                await ran.wait()
        assert [line["event"] for line in lines] == ["a SIP timer failed"]


async def test_timers_run_in_order_and_are_re_armed() -> None:
    async with node(UDP) as one:
        ran: list[str] = []
        done = trio.Event()
        one.endpoint.timers.call_later(0.02, done.set)
        await trio.testing.wait_all_tasks_blocked()
        one.endpoint.timers.call_later(0.0, lambda: ran.append("sooner"))
        with trio.fail_after(5):
            await done.wait()
        assert ran == ["sooner"]


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


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def trusting(authority: trustme.CA, path: Path) -> ssl.SSLContext:
    authority.cert_pem.write_to_path(str(path / "ca.pem"))
    return client_context(path / "ca.pem")


async def test_tls_there_and_back(authority: trustme.CA, tmp_path: Path) -> None:
    client = trusting(authority, tmp_path)
    server = server_tls(authority, "sip.example.net")
    async with node(UDP, client_tls=client) as one, node(TLS, server_tls=server) as two:
        target = two.target("tls", "sip.example.net")
        for branch in ("a", "b"):
            one.endpoint.send(request(branch=branch), target, one.failed)
            _, flow = await two.next()
            assert flow.transport == "tls"
            two.endpoint.send(response(branch=branch), flow)
            await one.next()
        assert two.endpoint.statistics().accepted == 1
        assert one.nothing_more()


async def test_tls_server_of_another_name(authority: trustme.CA, tmp_path: Path) -> None:
    client = trusting(authority, tmp_path)
    server = server_tls(authority, "other.example.net")
    async with node(UDP, client_tls=client) as one, node(TLS, server_tls=server) as two:
        one.endpoint.send(request(), two.target("tls", "sip.example.net"), one.failed)
        assert await one.failure() == "the certificate is not for sip.example.net"
        one.endpoint.send(request(), two.target("tls"), one.failed)
        assert await one.failure() == "the certificate is not for 127.0.0.1"
        assert two.nothing_more()


async def test_tls_server_of_another_authority(tmp_path: Path, authority: trustme.CA) -> None:
    client = trusting(authority, tmp_path)
    server = server_tls(trustme.CA(), "sip.example.net")
    async with node(UDP, client_tls=client) as one, node(TLS, server_tls=server) as two:
        one.endpoint.send(request(), two.target("tls", "sip.example.net"), one.failed)
        assert "certificate verify failed" in await one.failure()
        await until(lambda: bool(two.counted["connection", "handshake_failed"]))


async def test_plain_text_to_a_tls_port(authority: trustme.CA) -> None:
    server = server_tls(authority, "sip.example.net")
    async with node(TLS, server_tls=server) as one:
        async with await trio.open_tcp_stream(*one.address("tls")) as stream:
            await stream.send_all(request())
            await read_to_end(stream)
        assert one.nothing_more()
        assert one.endpoint.statistics().accepted == 0


@pytest.mark.parametrize(
    ("alternatives", "name", "speaks"),
    [
        ([("DNS", "Sip.Example.net")], "sip.example.NET", True),
        ([("DNS", "sip.example.net")], "example.net", False),
        ([("DNS", "*.example.net")], "sip.example.net", True),
        ([("DNS", "*.example.net")], "a.sip.example.net", False),
        ([("DNS", "*.example.net")], "example.net", False),
        ([("DNS", "*.net")], "example.net", False),
        ([("URI", "sip:example.net"), ("DNS", "x.example.net")], "example.net", True),
        ([("URI", "sip:example.net"), ("DNS", "x.example.net")], "x.example.net", False),
        ([("URI", "sip:bob@example.net")], "example.net", False),
        ([("URI", "https://example.net"), ("DNS", "example.net")], "example.net", True),
        ([("IP Address", "192.0.2.1")], "192.0.2.1", True),
        ([("IP Address", "2001:DB8:0:0:0:0:0:1")], "2001:db8::1", True),
        ([("DNS", "192.0.2.1")], "192.0.2.1", False),
        ([], "example.net", False),
    ],
)
def test_whom_a_certificate_speaks_for(
    alternatives: list[tuple[str, str]], name: str, speaks: bool
) -> None:
    assert names_server({"subjectAltName": tuple(alternatives)}, name) is speaks


# Names and addresses


async def test_names_are_looked_up(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 pbx.lan\n")
    resolver = Resolver([], hosts=hosts)
    async with node(UDP, TCP, resolver=resolver) as one:
        for transport in ("udp", "tcp"):
            target = one.target(transport)
            one.endpoint.send(request(), Target(transport, "pbx.lan", target.port), one.failed)
            _, flow = await one.next()
            assert flow.transport == transport


class SlowResolver(Resolver):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__([], hosts=Path("/nonexistent"))
        self.release = trio.Event()
        self.asked: list[str] = []

    async def addresses(self, host: str) -> list[str]:
        if self.cached(host):
            return self.cached(host)
        self.asked.append(host)
        await self.release.wait()
        return [LOCAL]


async def test_lookups_are_shared_and_bounded() -> None:
    slow = SlowResolver()
    async with node(UDP, resolver=slow) as one:
        port = one.target("udp").port
        for number in range(17):
            one.endpoint.send(
                request(branch=str(number)), Target("udp", "a.example", port), one.failed
            )
        assert await one.failure() == "too much waits for the address of a.example"
        for number in range(64):
            one.endpoint.send(request(), Target("udp", f"b{number}.example", 9), one.failed)
        assert await one.failure() == "too many names are being looked up"
        assert one.endpoint.statistics().lookups == 64
        await trio.testing.wait_all_tasks_blocked()
        slow.release.set()
        calls = {(await one.next())[0].call_id for _ in range(16)}
        assert calls == {f"call-{number}" for number in range(16)}
        assert slow.asked.count("a.example") == 1


async def test_name_without_address() -> None:
    resolver = Resolver([], hosts=Path("/nonexistent"))
    async with node(UDP, resolver=resolver) as one:
        for transport in ("udp", "tcp"):
            one.endpoint.send(request(), Target(transport, "gone.example", 5060), one.failed)
            assert "cannot look up gone.example" in await one.failure()


async def test_what_we_call_ourselves() -> None:
    async with node(UDP, TCP) as one:
        udp, tcp = one.target("udp").port, one.target("tcp").port
        assert one.endpoint.sent_by(Target("udp", LOCAL, 5060)) == ("UDP", LOCAL, udp)
        assert one.endpoint.sent_by(Target("tcp", LOCAL, 5060)) == ("TCP", LOCAL, tcp)
        assert one.endpoint.contact_address(Target("tls", LOCAL, 5061)) == (LOCAL, udp)
        assert one.endpoint.is_reliable(Target("tls", LOCAL, 5061))
        assert not one.endpoint.is_reliable(Target("udp", LOCAL, 5060))


async def test_wildcard_listener_has_the_address_of_the_route() -> None:
    async with node(ListenAddress("udp", "0.0.0.0", 0), ListenAddress("udp", "::", 0)) as one:
        four, six = (address.port for address in one.endpoint.addresses)
        assert one.endpoint.contact_address(Target("udp", "127.0.0.1", 1)) == ("127.0.0.1", four)
        assert one.endpoint.contact_address(Target("udp", "::1", 1)) == ("::1", six)
        host, port = one.endpoint.contact_address(Target("udp", "unknown.invalid", 1))
        assert port == four
        assert host != "0.0.0.0"
        with udp_socket() as peer:
            await peer.sendto(request(), ("127.0.0.1", four))
            _, flow = await one.next()
            assert one.endpoint.sent_by(flow) == ("UDP", "127.0.0.1", four)


async def test_advertised_to_the_world_but_not_to_the_neighbours() -> None:
    listen = ListenAddress("udp", "0.0.0.0", 0)
    async with node(listen, advertise="203.0.113.9:15060") as one:
        port = one.endpoint.addresses[0].port
        far = ("UDP", "203.0.113.9", 15060)
        assert one.endpoint.sent_by(Target("udp", "198.51.100.1", 5060)) == far
        assert one.endpoint.sent_by(Target("udp", "100.64.0.1", 5060)) == far
        assert one.endpoint.sent_by(Target("udp", "sip.example.invalid", 5060)) == far
        assert one.endpoint.sent_by(Target("udp", "127.0.0.1", 5060)) == ("UDP", "127.0.0.1", port)
        assert one.endpoint.sent_by(Target("udp", "10.1.2.3", 5060))[1] != "203.0.113.9"
        assert one.endpoint.contact_address(Target("tls", "198.51.100.1", 5061)) == (
            "203.0.113.9",
            port,
        )
    async with node(listen, advertise="sip.example.net") as one:
        port = one.endpoint.addresses[0].port
        contact = one.endpoint.contact_address(Target("udp", "198.51.100.1", 5060))
        assert contact == ("sip.example.net", port)
        contact = one.endpoint.contact_address(Target("udp", "2001:db8::1", 5060))
        assert contact == ("sip.example.net", port)


async def test_several_listeners_of_one_transport() -> None:
    async with node(ListenAddress("udp", "127.0.0.2", 0), UDP, allow=LOOPBACK) as one:
        with udp_socket() as peer:
            one.endpoint.send(request(), Target("udp", *peer.getsockname()))
            with trio.fail_after(5):
                _, source = await peer.recvfrom(65535)
            # The route to 127.0.0.1 comes from 127.0.0.1.
            assert source == (LOCAL, one.endpoint.addresses[1].port)
            assert one.endpoint.contact_address(Target("udp", LOCAL, 1)) == source
            await peer.sendto(request(), ("127.0.0.2", one.endpoint.addresses[0].port))
            _, flow = await one.next()
            one.endpoint.send(response(), flow)
            with trio.fail_after(5):
                assert (await peer.recvfrom(65535))[1][0] == "127.0.0.2"


async def test_ipv4_address_is_not_advertised_to_ipv6() -> None:
    listen = ListenAddress("udp", "0.0.0.0", 0), ListenAddress("udp", "::", 0)
    async with node(*listen, advertise="203.0.113.9") as one:
        four, six = (address.port for address in one.endpoint.addresses)
        contact = one.endpoint.contact_address(Target("udp", "198.51.100.1", 5060))
        assert contact == ("203.0.113.9", four)
        host, port = one.endpoint.contact_address(Target("udp", "2001:db8::1", 5060))
        assert port == six
        assert ":" in host


# Beginning and end


async def test_what_cannot_be_listened_on(authority: trustme.CA) -> None:
    guard = Guard(now=trio.current_time)

    def endpoint(*listen: ListenAddress) -> Endpoint:
        return Endpoint(listen, guard=guard, on_message=lambda message, flow: None)

    with pytest.raises(ListenError, match="nothing to listen on"):
        endpoint()
    with pytest.raises(ListenError, match=r"tls://127\.0\.0\.1:0: no certificate"):
        endpoint(TLS)
    with pytest.raises(ListenError, match="not an IP address"):
        endpoint(ListenAddress("udp", "localhost", 5060))
    async with node(UDP, TCP) as one:
        for transport in ("udp", "tcp"):
            taken = ListenAddress(transport, LOCAL, one.target(transport).port)
            with pytest.raises(ListenError, match="in use"):
                await endpoint(taken).serve()


async def test_what_is_queued_at_the_end_is_sent() -> None:
    """The BYEs of the last calls: by UDP at once, over TCP on a connection not open yet."""
    bye = request("BYE")
    with udp_socket() as peer:
        async with tcp_listener() as (listener, target):
            async with node(UDP) as one:
                one.endpoint.send(request(), target)
                stream = await accept(listener)
                await read_exactly(stream, len(request()))
                one.endpoint.send(bye * 1000, target)
                one.endpoint.send(bye, Target("udp", *peer.getsockname()))
                async with tcp_listener() as (late, late_target):
                    one.endpoint.send(bye, late_target)
                    async with trio.open_nursery() as nursery:
                        received: list[bytes] = []

                        async def take() -> None:
                            with trio.fail_after(5):
                                late_stream = await late.accept()
                            received.append(await read_to_end(late_stream))
                            await late_stream.aclose()

                        nursery.start_soon(take)
                        one.serving.cancel()
                        received.append(await read_to_end(stream))
                        await stream.aclose()
            assert sorted(received, key=len) == [bye, bye * 1000]
            with trio.fail_after(5):
                assert (await peer.recvfrom(65535))[0] == bye


async def test_peer_that_does_not_read_cannot_hold_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with tcp_listener() as (listener, target):
        async with node(UDP) as one:
            one.endpoint.send(b"x" * 200_000, target)
            stream = await accept(listener)
            begun = trio.current_time()
        assert trio.current_time() - begun < 3
        await stream.aclose()


async def test_nothing_is_sent_after_the_end() -> None:
    async with node(UDP) as one:
        target = one.target("udp")
    one.endpoint.send(request(), target, one.failed)
    one.endpoint.send(request(), Target("tcp", LOCAL, 9), one.failed)
    one.endpoint.send(request(), Target("udp", "name.example", 9), one.failed)
