"""An endpoint under test, and raw sockets that talk to it."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio
import trio.testing

from voiced.sip.endpoint import Endpoint
from voiced.sip.errors import ParseError
from voiced.sip.guard import Guard
from voiced.sip.message import Message
from voiced.sip.resolver import Resolver
from voiced.sip.socket import ListenAddress
from voiced.sip.transport import Flow, Target, TransportName

__all__ = [
    "LOCAL",
    "LOOPBACK",
    "TCP",
    "TLS",
    "UDP",
    "Node",
    "accept",
    "free_port",
    "node",
    "read_exactly",
    "read_to_end",
    "request",
    "response",
    "tcp_listener",
    "udp_socket",
    "until",
]


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
