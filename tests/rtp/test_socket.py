"""Ports and sockets, on loopback."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.rtp.peer import audio, digits, parameters, rtp, voice
from voiced.rtp import packet
from voiced.rtp.media import Address
from voiced.rtp.pacer import SLOTS
from voiced.rtp.socket import NoPortsLeft, RtpHub, RtpPorts, RtpSocketPair
from voiced.rtp.stream import MediaStream


def free_range(pairs: int) -> str:
    """A stretch of ports that nobody has."""
    for first in range(41000, 60000, 2 * pairs):
        taken: list[socket.socket] = []
        try:
            for port in range(first, first + 2 * pairs):
                taken.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                taken[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        else:
            return f"{first}-{first + 2 * pairs - 1}"
        finally:
            for each in taken:
                each.close()
    raise AssertionError("no free ports")


@asynccontextmanager
async def running(pairs: int = 20) -> AsyncIterator[RtpHub]:
    async with trio.open_nursery() as nursery:
        hub = RtpHub(RtpPorts(free_range(pairs)))
        await nursery.start(hub.run)
        yield hub
        nursery.cancel_scope.cancel()


def stream_at(hub: RtpHub, host: str = "127.0.0.1") -> tuple[MediaStream, RtpSocketPair]:
    pair = hub.open(host)
    stream = MediaStream(pair, now=trio.current_time)
    pair.sink = stream
    return stream, pair


@asynccontextmanager
async def talking(hub: RtpHub) -> AsyncIterator[tuple[MediaStream, MediaStream]]:
    """Two streams that send to each other."""
    (a, at_a), (b, at_b) = stream_at(hub), stream_at(hub)
    a.configure(parameters(remote_rtp=("127.0.0.1", at_b.rtp_port)))
    b.configure(parameters(remote_rtp=("127.0.0.1", at_a.rtp_port)))
    a.begin()
    b.begin()
    yield a, b
    a.close()
    b.close()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.005)


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(5)
        yield opened


def address(pair: RtpSocketPair) -> Address:
    return ("127.0.0.1", pair.rtp_port)


# ---- ports


@pytest.mark.parametrize(
    "text",
    ["", "20000", "20000-", "a-b", "30000-20000", "20001-20001", "0-9", "65535-65536", "5-6"],
)
def test_ranges_that_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match="port"):
        RtpPorts(text)


@pytest.mark.parametrize(
    ("text", "ports"),
    [("20000-20005", {20000, 20002, 20004}), ("20001-20004", {20002}), ("20001-20003", {20002})],
)
def test_pairs_begin_at_even_ports(text: str, ports: set[int]) -> None:
    found = list(RtpPorts(text).candidates())
    assert set(found) == ports
    assert len(found) == len(ports) == len(RtpPorts(text))


async def test_ports_are_used_up_and_given_back() -> None:
    async with running(pairs=3) as hub:
        pairs = [hub.open("127.0.0.1") for _ in range(3)]
        assert len({pair.rtp_port for pair in pairs}) == 3
        assert all(pair.rtp_port % 2 == 0 and pair.rtcp_port == pair.rtp_port + 1 for pair in pairs)
        with pytest.raises(NoPortsLeft, match="3 pairs"):
            hub.open("127.0.0.1")
        pairs[1].close()
        pairs[1].close()
        assert hub.in_use == 2
        assert hub.open("127.0.0.1").rtp_port == pairs[1].rtp_port


async def test_a_port_that_another_has_is_passed_over() -> None:
    async with running(pairs=2) as hub:
        pair = hub.open("127.0.0.1")
        pair.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", pair.rtcp_port))
            assert hub.open("127.0.0.1").rtp_port != pair.rtp_port
            with pytest.raises(NoPortsLeft):
                hub.open("127.0.0.1")


async def test_an_address_that_is_not_ours() -> None:
    async with running() as hub:
        with pytest.raises(OSError, match="annot assign"):
            hub.open("192.0.2.1")
        assert hub.in_use == 0


async def test_everything_is_closed_with_the_hub() -> None:
    async with running() as hub:
        stream, pair = stream_at(hub)
        stream.configure(parameters())
        stream.begin()
    assert hub.in_use == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(address(pair))
    stream.close()


# ---- traffic, in real time


async def test_two_streams_talk() -> None:
    async with running() as hub, talking(hub) as (a, b):
        sound = bytes(n % 199 for n in range(4000))
        a.send(sound)
        b.send_digits("5")
        heard = b""
        pressed = ""

        def done() -> bool:
            nonlocal heard, pressed
            heard += audio(b.take())
            pressed += digits(a.take())
            # On a busy machine silence may have been put in for packets that came late.
            return sound in heard.replace(b"\xff", b"") and pressed == "5"

        await until(done)
        assert a.heard() == 4000
        a.close()
        await until(lambda: b.said_bye)
        assert sum(count for _, count in hub.lateness()) >= a.statistics().sent_packets > 20


async def test_while_many_are_paced_one_task_reads_for_all() -> None:
    async with running() as hub, AsyncExitStack() as stack:
        streams: list[MediaStream] = []
        for _ in range(SLOTS // 2 + 1):
            streams += await stack.enter_async_context(talking(hub))
        await until(lambda: all(one.statistics().packets > 10 for one in streams))
        for one in streams[2:]:
            one.close()
        left = streams[:2]
        before = [one.statistics().packets for one in left]
        await until(
            lambda: all(
                one.statistics().packets > count + 5
                for one, count in zip(left, before, strict=True)
            )
        )
        assert hub.in_use == 2


async def test_a_plain_peer(peer: socket.socket) -> None:
    async with running() as hub:
        stream, pair = stream_at(hub)
        stream.configure(parameters(remote_rtp=peer.getsockname()))
        told = trio.Event()
        stream.on_media = told.set
        peer.sendto(rtp(0, voice(0)), address(pair))
        with trio.fail_after(5):
            await told.wait()
        assert audio(stream.take()) == voice(0)
        stream.begin()
        got = packet.parse(await trio.to_thread.run_sync(peer.recv, 2048))
        assert (got.ssrc, len(got.payload)) == (stream.ssrc, 160)


async def test_datagrams_of_any_size(peer: socket.socket) -> None:
    async with running() as hub:
        stream, pair = stream_at(hub)
        stream.configure(parameters(remote_rtp=peer.getsockname()))
        for data in (b"", b"\x80", bytes(9000), rtp(0, bytes(9000)), rtp(1, voice(1))):
            peer.sendto(data, address(pair))
        await until(lambda: stream.statistics().packets >= 2)
        assert stream.statistics().malformed == 3


async def test_what_cannot_be_sent_is_counted() -> None:
    async with running() as hub:
        _, pair = stream_at(hub)
        pair.send_rtp(b"x", ("::1", 9))
        pair.send_rtp(bytes(70_000), ("127.0.0.1", 9))
        pair.send_rtcp(b"x", ("127.0.0.1", 0))
        assert pair.unsent == 3


async def test_over_ipv6() -> None:
    async with running() as hub:
        (a, at_a), (b, at_b) = stream_at(hub, "::1"), stream_at(hub, "::1")
        a.configure(parameters(remote_rtp=("::1", at_b.rtp_port)))
        b.configure(parameters(remote_rtp=("::1", at_a.rtp_port)))
        a.begin()
        await until(lambda: b.statistics().packets > 3)
        assert b.remote == ("::1", at_a.rtp_port)
        assert b.statistics().strangers == 0


class Faulty(MediaStream):
    """One of ours that fails."""

    def rtp_received(self, data: bytes, source: Address, now: float) -> None:
        raise RuntimeError("in")

    def tick(self, due: float, now: float) -> float:
        raise RuntimeError("out")


async def test_a_fault_in_one_stream_stays_there(peer: socket.socket) -> None:
    async with running() as hub:
        pair = hub.open("127.0.0.1")
        pair.sink = bad = Faulty(pair, now=trio.current_time)
        bad.configure(parameters(remote_rtp=peer.getsockname()))
        bad.begin()
        async with talking(hub) as (a, b):
            for n in range(5):
                peer.sendto(rtp(n, voice(n)), address(pair))
            await until(lambda: min(a.statistics().packets, b.statistics().packets) > 5)
        assert hub.in_use == 1


# ---- time, on a clock of the test's


async def test_a_minute_on_the_hub(autojump_clock: MockClock) -> None:
    async with running() as hub:
        stream, _ = stream_at(hub)
        stream.configure(parameters(remote_rtp=("127.0.0.1", 9)))
        stream.begin()
        began = trio.current_time()
        await trio.sleep(60)
        sent = stream.statistics().sent_packets
        assert sent == pytest.approx((trio.current_time() - began) / 0.02, abs=1)
        assert stream.statistics().skipped_ms == 0


async def test_a_deaf_clock_is_passed_over(autojump_clock: MockClock) -> None:
    async with running() as hub:
        stream, _ = stream_at(hub)
        stream.configure(parameters(remote_rtp=("127.0.0.1", 9)))
        stream.begin()
        await trio.sleep(1)
        before = stream.statistics().sent_packets
        autojump_clock.jump(5.0)
        await trio.sleep(0.001)
        assert stream.statistics().sent_packets <= before + 2
        assert stream.statistics().skipped_ms == pytest.approx(5000, abs=40)
