"""None"""

from __future__ import annotations

import pytest
import structlog
import trio
import trio.testing

from tests.sip.nodes import LOCAL, UDP, node, request, response, udp_socket
from voiced.sip import message as message_module
from voiced.sip.guard import BURST, RATE
from voiced.sip.message import Message, Request, Response
from voiced.sip.socket import ListenAddress
from voiced.sip.transport import Flow, Target

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
