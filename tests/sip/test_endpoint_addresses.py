"""Names that the endpoint looks up, what it calls itself, and how it begins and ends."""

from __future__ import annotations

from pathlib import Path

import trio
import trio.testing

from tests.sip.nodes import (
    LOCAL,
    LOOPBACK,
    TCP,
    UDP,
    accept,
    node,
    read_exactly,
    read_to_end,
    request,
    response,
    tcp_listener,
    udp_socket,
)
from voiced.sip.resolver import Resolver
from voiced.sip.socket import ListenAddress
from voiced.sip.transport import Target

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
