from __future__ import annotations

import random
import struct
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from voiced.sip import stub_resolver
from voiced.sip.resolver import (
    ResolveError,
    Resolver,
    order_services,
    split_host_port,
)
from voiced.sip.stub_resolver import Srv, StubResolver
from voiced.sip.transport import Target
from voiced.sip.uri import SipUri, parse_uri

NOTHING = Path("/nonexistent")


class NameServer:
    """A real one, on a loopback port, for the zone that a test writes."""

    def __init__(self) -> None:
        self.zone: dict[tuple[str, str], list[str]] = {}
        self.ttl = 60
        self.asked: list[tuple[str, str, str]] = []  # name, type, protocol
        self.rcode: dict[tuple[str, str], dns.rcode.Rcode] = {}
        self.silent = False
        self.follows_aliases = True
        self.truncates = False
        self.noise: list[bytes] = []  # sent before each answer
        self.address = ("127.0.0.1", 0)

    def add(self, name: str, kind: str, *records: str) -> None:
        self.zone.setdefault((name, kind), []).extend(records)

    def answer(self, wire: bytes, protocol: str) -> bytes:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, protocol))
        reply = dns.message.make_response(query)
        if self.truncates and protocol == "udp":
            reply.flags |= dns.flags.TC
            return reply.to_wire()
        if (name, kind) in self.rcode:
            reply.set_rcode(self.rcode[name, kind])
            return reply.to_wire()
        while (name, "CNAME") in self.zone:
            alias = self.zone[name, "CNAME"][0]
            reply.answer.append(dns.rrset.from_text(name + ".", self.ttl, "IN", "CNAME", alias))
            if not self.follows_aliases:
                return reply.to_wire()
            name = alias.rstrip(".")
        records = self.zone.get((name, kind))
        if records:
            reply.answer.append(dns.rrset.from_text(name + ".", self.ttl, "IN", kind, *records))
        elif not any(known == name for known, _ in self.zone):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire(max_size=65535)

    async def serve_udp(self, sock: trio.socket.SocketType) -> None:
        while True:
            wire, peer = await sock.recvfrom(4096)
            answer = self.answer(wire, "udp")
            if not self.silent:
                for noise in self.noise:
                    await sock.sendto(noise, peer)
                await sock.sendto(answer, peer)

    async def serve_tcp(self, stream: trio.SocketStream) -> None:
        data = await stream.receive_some()
        (size,) = struct.unpack_from("!H", data)
        assert len(data) == 2 + size
        answer = self.answer(data[2:], "tcp")
        wire = struct.pack("!H", len(answer)) + answer
        await stream.send_all(wire[:5])
        await stream.send_all(wire[5:])


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    server = NameServer()
    async with trio.open_nursery() as nursery:
        while True:  # until a port is free for both protocols
            sock = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
            await sock.bind(("127.0.0.1", 0))
            server.address = sock.getsockname()
            try:
                listeners = await trio.open_tcp_listeners(server.address[1], host="127.0.0.1")
                break
            except OSError:
                sock.close()
        with sock:
            nursery.start_soon(server.serve_udp, sock)
            nursery.start_soon(trio.serve_listeners, server.serve_tcp, listeners)
            yield server
            nursery.cancel_scope.cancel()


def resolver(*servers: NameServer, seed: int = 1) -> Resolver:
    return Resolver(
        [server.address for server in servers],
        hosts=NOTHING,
        resolv_conf=NOTHING,
        rng=random.Random(seed),
    )


def uri(text: str) -> SipUri:
    parsed = parse_uri(text)
    assert isinstance(parsed, SipUri)
    return parsed


async def test_numbers_and_ports_need_no_srv() -> None:
    async with name_server() as server:
        server.add("sip.example", "A", "192.0.2.1")
        look = resolver(server)
        assert await look.resolve("192.0.2.7", "udp") == [
            Target("udp", "192.0.2.7", 5060, "192.0.2.7")
        ]
        assert await look.resolve(uri("sips:[2001:db8::1]")) == [
            Target("tls", "2001:db8::1", 5061, "2001:db8::1")
        ]
        assert server.asked == []
        assert await look.resolve("sip.example:5070", "tcp") == [
            Target("tcp", "192.0.2.1", 5070, "sip.example")
        ]
        assert {kind for _, kind, _ in server.asked} == {"A", "AAAA"}


async def test_srv_priority_is_the_order_of_failover() -> None:
    async with name_server() as server:
        server.add("_sip._udp.example.net", "SRV", "20 1 5060 b.example.net.")
        server.add("_sip._udp.example.net", "SRV", "10 1 5080 a.example.net.")
        server.add("_sip._udp.example.net", "SRV", "30 1 5060 gone.example.net.")
        server.add("a.example.net", "A", "192.0.2.1", "192.0.2.2")
        server.add("b.example.net", "AAAA", "2001:db8::1")
        targets = await resolver(server).resolve(uri("sip:example.net;transport=udp"))
        assert sorted(targets[:2], key=str) == [
            Target("udp", "192.0.2.1", 5080, "example.net"),
            Target("udp", "192.0.2.2", 5080, "example.net"),
        ]
        assert targets[2:] == [Target("udp", "2001:db8::1", 5060, "example.net")]


async def test_transport_unsaid_is_what_the_zone_offers() -> None:
    async with name_server() as server:
        server.add("_sip._tcp.example.net", "SRV", "10 1 5070 a.example.net.")
        server.add("a.example.net", "A", "192.0.2.1")
        targets = await resolver(server).resolve(uri("sip:example.net"))
        assert targets == [Target("tcp", "192.0.2.1", 5070, "example.net")]
        assert [name for name, kind, _ in server.asked if kind == "SRV"] == [
            "_sip._udp.example.net",
            "_sip._tcp.example.net",
        ]


async def test_sips_asks_for_sips() -> None:
    async with name_server() as server:
        server.add("_sips._tcp.example.net", "SRV", "10 1 5071 a.example.net.")
        server.add("a.example.net", "A", "192.0.2.1")
        targets = await resolver(server).resolve(uri("sips:bob@example.net"))
        assert targets == [Target("tls", "192.0.2.1", 5071, "example.net")]


async def test_without_srv_the_address_of_the_name() -> None:
    async with name_server() as server:
        server.add("example.net", "A", "192.0.2.1")
        look = resolver(server)
        assert await look.resolve("example.net", "udp") == [
            Target("udp", "192.0.2.1", 5060, "example.net")
        ]
        assert await look.resolve("example.net", "tls") == [
            Target("tls", "192.0.2.1", 5061, "example.net")
        ]


async def test_server_that_refuses_srv() -> None:
    async with name_server() as server:
        server.add("example.net", "A", "192.0.2.1")
        server.rcode["_sip._udp.example.net", "SRV"] = dns.rcode.SERVFAIL
        targets = await resolver(server).resolve("example.net", "udp")
        assert [target.host for target in targets] == ["192.0.2.1"]


async def test_name_that_is_none() -> None:
    async with name_server() as server:
        look = resolver(server)
        with pytest.raises(ResolveError, match=r"nobody\.example has no address"):
            await look.resolve("nobody.example", "udp")
        with pytest.raises(ResolveError, match="not a name"):
            await look.addresses("a..example")


async def test_service_that_is_said_not_to_exist() -> None:
    async with name_server() as server:
        server.add("_sip._udp.example.net", "SRV", "0 0 0 .")
        server.add("example.net", "A", "192.0.2.1")
        with pytest.raises(ResolveError, match=r"has no _sip\._udp"):
            await resolver(server).resolve("example.net", "udp")


async def test_srv_without_any_address() -> None:
    async with name_server() as server:
        server.add("_sip._udp.example.net", "SRV", "0 0 5060 a.example.net.")
        with pytest.raises(
            ResolveError, match=r"no target of _sip\._udp\.example\.net: a\.example"
        ):
            await resolver(server).resolve("example.net", "udp")


@pytest.mark.parametrize("follows", [True, False])
async def test_alias(follows: bool) -> None:
    async with name_server() as server:
        server.follows_aliases = follows
        server.add("www.example.net", "CNAME", "real.example.net.")
        server.add("real.example.net", "CNAME", "host.example.net.")
        server.add("host.example.net", "A", "192.0.2.1")
        assert await resolver(server).addresses("www.example.net") == ["192.0.2.1"]


async def test_alias_of_itself() -> None:
    async with name_server() as server:
        server.follows_aliases = False
        server.add("a.example.net", "CNAME", "b.example.net.")
        server.add("b.example.net", "CNAME", "a.example.net.")
        with pytest.raises(ResolveError, match="too many aliases"):
            await resolver(server).addresses("a.example.net")


async def test_cut_answer_is_asked_for_over_tcp() -> None:
    async with name_server() as server:
        server.truncates = True
        server.add("example.net", "A", *(f"192.0.2.{number}" for number in range(1, 200)))
        look = Resolver([server.address], hosts=NOTHING, families=(4,))
        assert len(await look.addresses("example.net")) == 16
        assert [protocol for _, _, protocol in server.asked] == ["udp", "tcp"]


async def test_families_in_the_order_of_preference() -> None:
    async with name_server() as server:
        server.add("example.net", "A", "192.0.2.1")
        server.add("example.net", "AAAA", "2001:db8::1")
        server.add("six.example.net", "AAAA", "2001:db8::6")
        six_first = Resolver([server.address], hosts=NOTHING, families=(6, 4))
        assert await six_first.addresses("example.net") == ["2001:db8::1", "192.0.2.1"]
        assert await six_first.addresses("six.example.net") == ["2001:db8::6"]
        four = Resolver([server.address], hosts=NOTHING, families=(4,))
        assert await four.addresses("example.net") == ["192.0.2.1"]
        with pytest.raises(ResolveError, match="no address"):
            await four.addresses("six.example.net")


async def test_answers_are_kept_for_their_time(mock_clock: MockClock) -> None:
    async with name_server() as server:
        server.add("example.net", "A", "192.0.2.1")
        look = Resolver([server.address], hosts=NOTHING, families=(4,))
        assert look.cached("example.net") == []
        await look.addresses("example.net")
        mock_clock.jump(59.9)
        await look.addresses("Example.NET")
        assert look.cached("example.net") == ["192.0.2.1"]
        assert len(server.asked) == 1
        mock_clock.jump(0.2)
        assert look.cached("example.net") == []
        await look.addresses("example.net")
        assert len(server.asked) == 2


async def test_that_there_is_none_is_kept_briefly(mock_clock: MockClock) -> None:
    async with name_server() as server:
        look = Resolver([server.address], hosts=NOTHING, families=(4,))
        for _ in range(2):
            with pytest.raises(ResolveError):
                await look.addresses("example.net")
        assert len(server.asked) == 1
        mock_clock.jump(31.0)
        server.add("example.net", "A", "192.0.2.1")
        assert await look.addresses("example.net") == ["192.0.2.1"]


async def test_old_answer_when_no_server_answers(mock_clock: MockClock) -> None:
    async with name_server() as server:
        server.add("example.net", "A", "192.0.2.1")
        look = Resolver([server.address], hosts=NOTHING, families=(4,))
        await look.addresses("example.net")
        mock_clock.jump(100.0)
        server.rcode["example.net", "A"] = dns.rcode.SERVFAIL
        assert await look.addresses("example.net") == ["192.0.2.1"]
        mock_clock.jump(25 * 3600.0)
        with pytest.raises(ResolveError, match="SERVFAIL"):
            await look.addresses("example.net")


async def test_cache_has_a_bound() -> None:
    async with name_server() as server:
        look = Resolver([server.address], hosts=NOTHING, families=(4,))
        for number in range(600):
            server.add(f"h{number}.example", "A", "192.0.2.1")
            await look.addresses(f"h{number}.example")
        assert look.cached("h599.example")
        assert not look.cached("h0.example")


async def test_silent_server_is_given_up_and_the_next_asked(mock_clock: MockClock) -> None:
    async with name_server() as silent, name_server() as server:
        silent.silent = True
        server.add("example.net", "A", "192.0.2.1")
        found: list[str] = []

        async def look() -> None:
            both = Resolver([silent.address, server.address], hosts=NOTHING, families=(4,))
            found.extend(await both.addresses("example.net"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            while not silent.asked:
                await trio.testing.wait_all_tasks_blocked(0.001)
            mock_clock.jump(2.0)
        assert found == ["192.0.2.1"]


async def test_nobody_answers(mock_clock: MockClock) -> None:
    async with name_server() as silent:
        silent.silent = True
        failed: list[str] = []

        async def look() -> None:
            with pytest.raises(ResolveError, match="no answer") as caught:
                await Resolver([silent.address], hosts=NOTHING, families=(4,)).addresses(
                    "a.example"
                )
            failed.append(str(caught.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            for question in (1, 2):
                while len(silent.asked) < question:
                    await trio.testing.wait_all_tasks_blocked(0.001)
                assert not failed
                mock_clock.jump(2.0)
        assert failed


async def test_forged_answers_are_passed_over() -> None:
    async with name_server() as server:
        server.add("example.net", "A", "192.0.2.1")
        other = dns.message.make_response(dns.message.make_query("example.net", "A"))
        other.answer.append(dns.rrset.from_text("example.net.", 60, "IN", "A", "203.0.113.66"))
        server.noise = [b"", b"\xff" * 30, other.to_wire()]
        assert await resolver(server).addresses("example.net") == ["192.0.2.1"]


async def test_hosts_file_comes_first(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# x\n192.0.2.9 pbx.lan PBX # comment\n2001:db8::9 pbx\nnonsense here\n\n")
    async with name_server() as server:
        look = Resolver([server.address], hosts=hosts)
        assert await look.resolve("pbx", "tcp") == [
            Target("tcp", "192.0.2.9", 5060, "pbx"),
            Target("tcp", "2001:db8::9", 5060, "pbx"),
        ]
        assert look.cached("pbx.lan") == ["192.0.2.9"]
        assert await look.addresses("localhost") == ["127.0.0.1", "::1"]
        assert server.asked == []
        hosts.write_text("192.0.2.10 pbx\n")
        assert await look.addresses("pbx") == ["192.0.2.10"]


async def test_name_servers_of_resolv_conf(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("search example\nnameserver 127.0.0.1\nnameserver x\noptions ndots:1\n")
    look = Resolver(hosts=NOTHING, resolv_conf=conf)
    assert look._servers._resolv_conf.read() == {"nameserver": ["127.0.0.1"]}


async def test_modules_that_somebody_has_begun_to_load_are_loaded_to_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a thread; `dns.message` alone, which this test has, is not all of them."""
    monkeypatch.delitem(sys.modules, stub_resolver._MODULES[-1], raising=False)
    by: list[threading.Thread] = []
    monkeypatch.setattr(stub_resolver, "_load", lambda: by.append(threading.current_thread()))
    with pytest.raises(ResolveError, match="no answer"):
        await StubResolver([], NOTHING).query("sip.example", "SRV")
    assert len(by) == 1
    assert by[0] is not threading.main_thread()


def test_weights_are_chances() -> None:
    services = [Srv(1, weight, 5060, str(weight)) for weight in (60, 30, 10, 0)]
    rng = random.Random(4)
    first = Counter(order_services(services, rng)[0].target for _ in range(10_000))
    assert 5700 < first["60"] < 6200
    assert 2700 < first["30"] < 3200
    assert 800 < first["10"] < 1200
    assert 20 < first["0"] < 300  # seldom, but not never


@given(
    st.lists(
        st.builds(
            Srv, st.integers(0, 3), st.integers(0, 65535), st.integers(1, 65535), st.just("a")
        ),
        max_size=12,
    ),
    st.integers(0, 1000),
)
def test_every_record_once_and_priorities_in_order(services: list[Srv], seed: int) -> None:
    ordered = order_services(services, random.Random(seed))
    assert Counter(ordered) == Counter(services)
    assert [record.priority for record in ordered] == sorted(r.priority for r in services)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.net", ("example.net", None)),
        ("example.net:5070", ("example.net", 5070)),
        ("[2001:db8::1]:5070", ("2001:db8::1", 5070)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("2001:db8::1", ("2001:db8::1", None)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
    ],
)
def test_host_and_port(text: str, expected: tuple[str, int | None]) -> None:
    assert split_host_port(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":5060", "a:", "a:0", "a:65536", "a:x", "[a]:1", "[::1", "[::1]x"]
)
def test_not_a_host_and_port(text: str) -> None:
    with pytest.raises(ResolveError):
        split_host_port(text)


async def test_transport_that_we_have_not() -> None:
    with pytest.raises(ResolveError, match="transport sctp is not supported"):
        await Resolver([], hosts=NOTHING).resolve(uri("sip:192.0.2.1;transport=sctp"))
