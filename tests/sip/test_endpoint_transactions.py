"""The endpoint under the transaction layer that it is made for, over real sockets."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from voiced.sip.endpoint import Endpoint, ListenAddress
from voiced.sip.guard import Guard
from voiced.sip.message import Message, Request, Response, request, response_to
from voiced.sip.tls import client_context
from voiced.sip.transaction import Timing
from voiced.sip.transactions import ClientTransaction, Failure, ServerTransaction, TransactionLayer
from voiced.sip.transport import Flow, Target, TransportName
from voiced.sip.uri import parse_name_addr, parse_uri

LOCAL = "127.0.0.1"


class Element:
    """Answers whatever is asked with 200, and records what is answered to it."""

    def __init__(self, *listen: ListenAddress, t1: float, **tls: ssl.SSLContext) -> None:
        guard = Guard([("127.0.0.0/8", "lan")], now=trio.current_time)
        self.endpoint = Endpoint(
            listen,
            guard=guard,
            on_message=self.receive,
            server_tls=tls.get("server"),
            client_tls=tls.get("client"),
        )
        timing = Timing(t1=t1, t2=4 * t1, t4=4 * t1)
        self.layer = TransactionLayer(self.endpoint, self.endpoint.timers, timing, self)
        self.requests: list[tuple[Request, Flow]] = []
        self.ignores = 0
        self.send, self.outcomes = trio.open_memory_channel[Response | str](100)

    def receive(self, message: Message, flow: Flow) -> None:
        if self.ignores:  # lost on the way
            self.ignores -= 1
            return
        self.layer.receive(message, flow)

    def on_request(self, tx: ServerTransaction, request: Request, flow: Flow) -> None:
        self.requests.append((request, flow))
        tx.respond(response_to(request, 486 if request.method == "INVITE" else 200, to_tag="t"))

    def on_ack(self, request: Request, flow: Flow) -> None:
        raise AssertionError("the ACK to a 486 belongs to its transaction")

    def on_cancel(self, invite_tx: ServerTransaction, request: Request) -> None:
        raise AssertionError("nobody cancels")

    def on_stray_response(self, response: Response, flow: Flow) -> None:
        raise AssertionError("no response may be without transaction")

    def on_response(self, tx: ClientTransaction, response: Response) -> None:
        self.send.send_nowait(response)

    def on_failure(self, tx: ClientTransaction, why: Failure, text: str) -> None:
        self.send.send_nowait(f"{why}: {text}")

    async def ask(self, method: str, target: Target, body: bytes = b"") -> Response | str:
        uri = parse_uri("sip:voiced@127.0.0.1")
        from_ = parse_name_addr("<sip:a@example.net>;tag=1")
        to = parse_name_addr("<sip:voiced@127.0.0.1>")
        made = request(
            method, uri, from_=from_, to=to, call_id=f"c{len(body)}{method}", cseq=1, body=body
        )
        self.layer.request(made, target, self)
        with trio.fail_after(5):
            return await self.outcomes.receive()


@asynccontextmanager
async def two_elements(
    listen: ListenAddress, *, t1: float = 0.05
) -> AsyncIterator[tuple[Element, Element]]:
    authority = trustme.CA()
    with authority.cert_pem.tempfile() as path:
        client = client_context(Path(path))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("sip.example.net").configure_cert(server)
    one = Element(ListenAddress("udp", LOCAL, 0), t1=t1, client=client)
    two = Element(listen, t1=t1, server=server)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.endpoint.serve)
        await nursery.start(two.endpoint.serve)
        yield one, two
        nursery.cancel_scope.cancel()


def target_of(element: Element, name: str | None = None) -> Target:
    address = element.endpoint.addresses[0]
    return Target(address.transport, LOCAL, address.port, name)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_request_and_response(transport: TransportName) -> None:
    async with two_elements(ListenAddress(transport, LOCAL, 0)) as (one, two):
        answer = await one.ask("OPTIONS", target_of(two, "sip.example.net"))
        assert isinstance(answer, Response)
        assert answer.status == 200
        received, flow = two.requests[0]
        assert flow.transport == transport
        assert received.via.transport == transport.upper()
        assert received.via.received == LOCAL
        assert received.via.rport == flow.remote[1]


async def test_invite_that_is_lost_twice_is_answered_and_acknowledged() -> None:
    async with two_elements(ListenAddress("udp", LOCAL, 0)) as (one, two):
        two.ignores = 2
        answer = await one.ask("INVITE", target_of(two))
        assert isinstance(answer, Response)
        assert answer.status == 486
        with trio.fail_after(5):
            while two.layer.server_transactions:  # ends by the ACK, and timer I
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert len(two.requests) == 1


async def test_big_invite_and_its_ack_go_over_tcp() -> None:
    async with two_elements(ListenAddress("tcp", LOCAL, 0)) as (one, two):
        tcp = target_of(two)
        answer = await one.ask("INVITE", Target("udp", tcp.host, tcp.port), b"v" * 1300)
        assert isinstance(answer, Response)
        assert answer.status == 486
        assert two.requests[0][1].transport == "tcp"
        with trio.fail_after(5):
            while two.layer.server_transactions:
                await trio.testing.wait_all_tasks_blocked(0.001)


async def test_nobody_there() -> None:
    async with two_elements(ListenAddress("tcp", LOCAL, 0), t1=0.005) as (one, two):
        answer = await one.ask("OPTIONS", Target("tcp", LOCAL, 1))
        assert isinstance(answer, str)
        assert answer.startswith("transport")
        assert "Connection refused" in answer
        answer = await one.ask("OPTIONS", Target("udp", LOCAL, 1))
        assert isinstance(answer, str)
        assert answer.startswith("timeout")
        assert two.requests == []
