"""A bad network between two UDP peers: seeded loss, copies, delay, reordering, bursts, and a cut.

`Impairment` decides the fate of each datagram, without clock or socket. `Relay` carries datagrams
between two addresses through it and rewrites nothing. `SipPath` puts a caller behind such a network
for signalling and media alike: the caller calls the path's address instead of the daemon's. Since
both name their addresses within their messages, the path replaces them there, each by its own, as
plain text; RTP and RTCP pass as they are. A digest would not survive that: its URI is part of it.
"""

from __future__ import annotations

import random
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

__all__ = ["Impairment", "Network", "Relay", "SipPath", "impaired", "sip_path"]

Address = tuple[str, int]

_QUEUE: Final = 4096  # datagrams on their way; more are lost, as in any router
_MEDIA: Final = re.compile(rb"(m=audio )(\d+)( )")
_LENGTH: Final = re.compile(rb"(?im)^(Content-Length|l)([ \t]*:[ \t]*)\d+")


@dataclass(frozen=True, slots=True)
class Network:
    """What one direction does to datagrams; shares from 0 to 1, times in seconds.

    A burst is a run of losses: it begins with `burst` probability at any datagram that is not lost
    otherwise and takes `burst_length` of them. A reordered datagram comes `reorder_s` later than it
    would have; what comes out of jitter alone keeps its order.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.03
    delay_s: float = 0.0
    jitter_s: float = 0.0
    burst: float = 0.0
    burst_length: int = 5


@dataclass
class Impairment:
    """One direction. The same seed and the same sequence of calls give the same fates."""

    network: Network
    seed: int = 0
    cut: bool = False  # while it is, everything is lost
    passed: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    _last_s: float = field(default=0.0, init=False)
    _burst_left: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def arrivals(self, now_s: float) -> list[float]:
        """When a datagram that is sent now arrives: never, once, or twice."""
        network, draw = self.network, self._rng.random
        # As many draws whatever comes of them: one fate does not shift those after it.
        lost, burst, twice, late, share = draw(), draw(), draw(), draw(), draw()
        if self._burst_left:
            self._burst_left -= 1
            self.lost += 1
            return []
        if self.cut or lost < network.loss:
            self.lost += 1
            return []
        if burst < network.burst:
            self._burst_left = network.burst_length - 1
            self.lost += 1
            return []
        at = max(self._last_s, now_s + network.delay_s + share * network.jitter_s)
        self.passed += 1
        if late < network.reorder:
            self.reordered += 1
            at += network.reorder_s
        else:
            self._last_s = at
        if twice < network.duplicate:
            self.duplicated += 1
            return [at, at]
        return [at]


class _Way:
    """One direction: what came goes through an impairment and is sent on when its time has come."""

    def __init__(
        self,
        source: trio.socket.SocketType,
        impairment: Impairment,
        forward: Callable[[bytes, Address], tuple[trio.socket.SocketType, bytes, Address] | None],
    ) -> None:
        self._source = source
        self._impairment = impairment
        self._forward = forward
        self._queue: list[tuple[float, int, bytes, Address]] = []  # _QUEUE
        self._count = 0
        self._kick = trio.Event()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive)
            nursery.start_soon(self._deliver)

    async def _receive(self) -> None:
        while True:
            try:
                data, address = await self._source.recvfrom(65536)
            except ConnectionError:  # an ICMP answer to something sent before
                continue
            for at in self._impairment.arrivals(trio.current_time()):
                if len(self._queue) < _QUEUE:
                    self._count += 1
                    self._queue.append((at, self._count, data, address[:2]))
            self._queue.sort()
            self._kick.set()

    async def _deliver(self) -> None:
        while True:
            due = self._queue[0][0] if self._queue else float("inf")
            with trio.move_on_at(due):
                self._kick = trio.Event()
                await self._kick.wait()
            while self._queue and self._queue[0][0] <= trio.current_time():
                _, _, data, address = self._queue.pop(0)
                onward = self._forward(data, address)
                if onward is not None:
                    sock, data, to = onward
                    try:
                        await sock.sendto(data, to)
                    except OSError:
                        continue


async def _udp() -> trio.socket.SocketType:
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await sock.bind(("127.0.0.1", 0))
    return sock


class Relay:
    """Two sockets between two peers; what comes in at one goes out of the other.

    `left` and `right` are the peers' addresses; a peer that is not known yet is learnt from the
    first datagram of its side. Sending to `left_port` means sending to the right peer.
    """

    def __init__(
        self,
        sockets: tuple[trio.socket.SocketType, trio.socket.SocketType],
        rightward: Impairment,
        leftward: Impairment,
    ) -> None:
        self._left, self._right = sockets
        self.left: Address | None = None
        self.right: Address | None = None
        self.rightward = rightward
        self.leftward = leftward
        self.left_port = int(self._left.getsockname()[1])
        """Where the left peer reaches this relay."""
        self.right_port = int(self._right.getsockname()[1])

    async def run(self) -> None:
        """Carry datagrams until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_Way(self._left, self.rightward, self._to_right).run)
            nursery.start_soon(_Way(self._right, self.leftward, self._to_left).run)

    def _to_right(
        self, data: bytes, source: Address
    ) -> tuple[trio.socket.SocketType, bytes, Address] | None:
        self.left = self.left or source
        return None if self.right is None else (self._right, data, self.right)

    def _to_left(
        self, data: bytes, source: Address
    ) -> tuple[trio.socket.SocketType, bytes, Address] | None:
        self.right = self.right or source
        return None if self.left is None else (self._left, data, self.left)

    def close(self) -> None:
        """Close both sockets."""
        self._left.close()
        self._right.close()


class SipPath:
    """The network between one caller and a daemon; made by `sip_path`.

    `uri(number)` is what the caller calls. `to_daemon` and `to_caller` hold the fates of
    signalling, `rtp_to_daemon` and `rtp_to_caller` those of RTP; RTCP meets the same network.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        stack: ExitStack,
        daemon: Address,
        sockets: tuple[trio.socket.SocketType, trio.socket.SocketType],
        to_daemon: Network,
        to_caller: Network,
        media: tuple[Network, Network],
        seed: int,
    ) -> None:
        self._nursery, self._stack = nursery, stack
        self._daemon = daemon
        self._caller: Address | None = None
        self._near, self._far = sockets  # towards the caller, towards the daemon
        self._media, self._seed = media, seed
        self._relays: list[tuple[Relay, Relay]] = []  # RTP and RTCP
        self._ports: dict[tuple[str, int], int] = {}  # (whose, port in SDP) -> ours in its place
        self.to_daemon = Impairment(to_daemon, seed)
        self.to_caller = Impairment(to_caller, seed + 1)
        self.rtp_to_daemon = Impairment(media[0], seed + 2)
        self.rtp_to_caller = Impairment(media[1], seed + 3)
        self.near: Address = self._near.getsockname()[:2]
        self.far: Address = self._far.getsockname()[:2]

    def uri(self, number: str) -> str:
        """Where `number` is reached through this path."""
        return f"sip:{number}@{self.near[0]}:{self.near[1]}"

    def cut(self, cut: bool = True) -> None:
        """Break the media of both directions, or mend it."""
        self.rtp_to_daemon.cut = self.rtp_to_caller.cut = cut

    async def run(self) -> None:
        """Carry signalling until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_Way(self._near, self.to_daemon, self._from_caller).run)
            nursery.start_soon(_Way(self._far, self.to_caller, self._from_daemon).run)

    def _from_caller(
        self, data: bytes, source: Address
    ) -> tuple[trio.socket.SocketType, bytes, Address]:
        self._caller = source
        pairs = ((source, self.far), (self.near, self._daemon))
        return self._far, self._rewritten(data, pairs, "caller"), self._daemon

    def _from_daemon(
        self, data: bytes, source: Address
    ) -> tuple[trio.socket.SocketType, bytes, Address] | None:
        if self._caller is None:
            return None
        pairs = ((self._daemon, self.near), (self.far, self._caller))
        return self._near, self._rewritten(data, pairs, "daemon"), self._caller

    def _rewritten(
        self, data: bytes, pairs: tuple[tuple[Address, Address], ...], whose: str
    ) -> bytes:
        head, blank, body = data.partition(b"\r\n\r\n")
        for (host, port), (new_host, new_port) in pairs:
            head = re.sub(
                rf"{re.escape(host)}:{port}(?!\d)".encode(), f"{new_host}:{new_port}".encode(), head
            )
        body = _MEDIA.sub(lambda m: m[1] + b"%d" % self._port(whose, int(m[2])) + m[3], body)
        head = _LENGTH.sub(lambda m: m[1] + m[2] + b"%d" % len(body), head)
        return head + blank + body

    def _port(self, whose: str, port: int) -> int:
        """What stands for a media port of `whose` in the other's eyes; a refusal stays one."""
        if not port:
            return 0
        known = self._ports.get((whose, port))
        if known is None:
            rtp, rtcp = self._relay(whose)
            side, address = ("left", self._caller) if whose == "caller" else ("right", self._daemon)
            assert address is not None
            for relay, at in ((rtp, port), (rtcp, port + 1)):
                setattr(relay, side, (address[0], at))
            known = rtp.right_port if whose == "caller" else rtp.left_port
            self._ports[whose, port] = known
        return known

    def _relay(self, whose: str) -> tuple[Relay, Relay]:
        """The relays of the call that is being set up: those that lack this side."""
        side = "left" if whose == "caller" else "right"
        for rtp, rtcp in self._relays:
            if getattr(rtp, side) is None:
                return rtp, rtcp
        left, right = _pair(), _pair()
        rtp = Relay((left[0], right[0]), self.rtp_to_daemon, self.rtp_to_caller)
        seeds = self._seed + 4, self._seed + 5
        rtcp = Relay(
            (left[1], right[1]),
            Impairment(self._media[0], seeds[0]),
            Impairment(self._media[1], seeds[1]),
        )
        for relay in (rtp, rtcp):
            self._stack.callback(relay.close)
            self._nursery.start_soon(relay.run)
        self._relays.append((rtp, rtcp))
        return rtp, rtcp


def _pair() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """An even port and the one above; binding to a numeric address never waits."""
    while True:
        first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        try:
            if port % 2 == 0:
                second.bind(("127.0.0.1", port + 1))
                return trio.socket.from_stdlib_socket(first), trio.socket.from_stdlib_socket(second)
        except OSError:
            pass
        first.close()
        second.close()


@asynccontextmanager
async def sip_path(
    daemon: Address,
    *,
    signalling: Network = Network(),
    media: Network = Network(),
    media_back: Network | None = None,
    seed: int = 0,
) -> AsyncIterator[SipPath]:
    """A path to a daemon's SIP address, the same both ways unless `media_back` says otherwise."""
    with ExitStack() as stack:
        near, far = await _udp(), await _udp()
        stack.callback(near.close)
        stack.callback(far.close)
        async with trio.open_nursery() as nursery:
            networks = media, media_back or media
            path = SipPath(
                nursery, stack, daemon, (near, far), signalling, signalling, networks, seed
            )
            nursery.start_soon(path.run)
            yield path
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def impaired(
    right: Address, network: Network, *, back: Network | None = None, seed: int = 0
) -> AsyncIterator[Relay]:
    """A relay before the peer at `right`: what is sent to its `left_port` meets the network."""
    left_socket, right_socket = await _udp(), await _udp()
    with left_socket, right_socket:
        rightward, leftward = Impairment(network, seed), Impairment(back or network, seed + 1)
        relay = Relay((left_socket, right_socket), rightward, leftward)
        relay.right = right
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            yield relay
            nursery.cancel_scope.cancel()
