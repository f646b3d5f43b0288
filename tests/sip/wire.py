"""A network in memory for tests: a clock that is set by hand, and nodes that send over a wire.

    wire = Wire()
    alice, bob = wire.node("192.0.2.1", name="alice"), wire.node("192.0.2.2", name="bob")
    alice.attach(layer.receive)           # layer = TransactionLayer(alice, wire.timers, ...)
    layer.request(request, bob.target(), listener)
    wire.run(1.0)                         # one second passes: deliveries and timers, in order
    assert wire.trace() == ["alice>bob INVITE", "bob>alice 100 INVITE"]

Nothing is random but what `Wire.fate` makes so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from voiced.sip.errors import ParseError
from voiced.sip.message import Message, Request, Response, parse
from voiced.sip.timers import Timers
from voiced.sip.transport import Flow, Target, TransportName

Fate = Callable[["Packet"], Sequence[float]]
"""Seconds that each copy of a packet takes longer than the latency; () is a lost packet."""


class Clock:
    """Seconds, moved by hand."""

    def __init__(self, start: float = 1000.0) -> None:
        self.time = start

    def __call__(self) -> float:
        return self.time


@dataclass(frozen=True)
class Packet:
    """What one node sent to another, delivered or not."""

    at: float
    source: str  # a node's name
    destination: str  # a node's name, or the address where there is none
    data: bytes

    @property
    def message(self) -> Request | Response:
        return parse(self.data)

    def __str__(self) -> str:
        message = self.message
        if isinstance(message, Request):
            what = message.method
        else:
            what = f"{message.status} {message.cseq.method}"
        return f"{self.source}>{self.destination} {what}"


def straight(packet: Packet) -> Sequence[float]:
    """Every packet arrives once, in order."""
    return (0.0,)


class Node:
    """One host's transport, of one kind: the `Transport` that a transaction layer is given."""

    def __init__(
        self, wire: Wire, name: str, host: str, port: int, transport: TransportName
    ) -> None:
        self.wire = wire
        self.name = name
        self.host = host
        self.port = port
        self.transport: TransportName = transport
        self.up = True  # set False: what is sent there fails, after a latency
        self.received: list[Message] = []
        self.malformed: list[ParseError] = []
        self.on_malformed: Callable[[ParseError, Flow], None] | None = None
        self._receive: Callable[[Message, Flow], None] | None = None

    def attach(self, receive: Callable[[Message, Flow], None]) -> None:
        """Have every message that arrives handed over, parsed anew."""
        self._receive = receive

    def target(self) -> Target:
        return Target(self.transport, self.host, self.port)

    def flow_to(self, other: Node) -> Flow:
        """The flow by which `other`'s messages come to this node."""
        return self.wire.flow(self, (other.host, other.port))

    def deliver(self, data: bytes, source: tuple[str, int]) -> None:
        try:
            message = parse(data)
        except ParseError as error:
            # A node that nothing is attached to may be answered with what it sent malformed.
            if self.on_malformed is not None:
                self.on_malformed(error, self.wire.flow(self, source))
                return
            if self._receive is not None:
                raise
            self.malformed.append(error)
            return
        self.received.append(message)
        if self._receive is not None:
            self._receive(message, self.wire.flow(self, source))

    # --- Transport ---

    def send(
        self, data: bytes, to: Target | Flow, failed: Callable[[str], None] | None = None
    ) -> None:
        host, port = (to.host, to.port) if isinstance(to, Target) else to.remote
        self.wire.carry(self, host, port, data, failed)

    def sent_by(self, to: Target | Flow) -> tuple[str, str, int]:
        return to.transport.upper(), self.host, self.port

    def contact_address(self, to: Target | Flow) -> tuple[str, int]:
        return self.host, self.port

    def is_reliable(self, to: Target | Flow) -> bool:
        return to.transport != "udp"


class Wire:
    """Joins nodes. `timers` is for the machines under test: `len(wire.timers)` counts theirs only.

    Over "tcp" and "tls" `fate` is not asked: everything arrives in order, or fails.
    """

    def __init__(
        self, *, latency: float = 0.01, fate: Fate = straight, start: float = 1000.0
    ) -> None:
        self.clock = Clock(start)
        self.timers = Timers(self.clock)
        self.latency = latency
        self.fate = fate
        self.log: list[Packet] = []
        self._deliveries = Timers(self.clock)
        self._nodes: dict[tuple[str, int], Node] = {}
        self._flows: dict[tuple[int, tuple[str, int]], Flow] = {}

    def node(
        self,
        host: str,
        port: int = 5060,
        *,
        name: str | None = None,
        transport: TransportName = "udp",
    ) -> Node:
        node = Node(self, name or host, host, port, transport)
        self._nodes[host, port] = node
        return node

    def flow(self, node: Node, remote: tuple[str, int]) -> Flow:
        """`remote` as `node` sees it: one key a node over UDP, one a peer otherwise."""
        number = list(self._nodes.values()).index(node) + 1
        reliable = node.transport != "udp"
        known = self._flows.get((number, remote))
        if known is None:
            key = number * 1000 + (len(self._flows) + 1 if reliable else 0)
            known = Flow(node.transport, (node.host, node.port), remote, key, reliable)
            self._flows[number, remote] = known
        return known

    def carry(
        self,
        source: Node,
        host: str,
        port: int,
        data: bytes,
        failed: Callable[[str], None] | None,
    ) -> None:
        destination = self._nodes.get((host, port))
        name = destination.name if destination is not None else f"{host}:{port}"
        packet = Packet(self.clock.time, source.name, name, data)
        self.log.append(packet)
        if destination is None or not destination.up:
            if failed is not None:
                refuse = failed
                self._deliveries.call_later(self.latency, lambda: refuse("nobody there"))
            return
        there = destination
        delays = (0.0,) if source.transport != "udp" else self.fate(packet)
        for delay in delays:
            self._deliveries.call_later(
                self.latency + delay, lambda: there.deliver(data, (source.host, source.port))
            )

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        end = self.clock.time + seconds
        while True:
            due = self._next()
            if due is None or due > end:
                break
            self._advance(due)
        self.clock.time = end

    def run_until_idle(self, limit: float = 100_000.0) -> None:
        """Let time pass until no timer is armed and nothing is under way; `limit` in seconds."""
        end = self.clock.time + limit
        while (due := self._next()) is not None:
            assert due <= end, f"not idle after {limit} s: {len(self.timers)} timers armed"
            self._advance(due)

    def _next(self) -> float | None:
        times = (self.timers.next_deadline(), self._deliveries.next_deadline())
        return min((time for time in times if time is not None), default=None)

    def _advance(self, due: float) -> None:
        self.clock.time = max(self.clock.time, due)
        self._deliveries.run_due()
        self.timers.run_due()

    def trace(self, since: int = 0) -> list[str]:
        """The log as short lines: "alice>bob INVITE", "bob>alice 180 INVITE"."""
        return [str(packet) for packet in self.log[since:]]
