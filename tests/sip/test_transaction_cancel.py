"""CANCEL, the late 100 of other requests, and what cannot be sent."""

from __future__ import annotations

import pytest

from tests.sip.nets import Net, raw
from tests.sip.recorders import Client, Side, make, reply
from tests.sip.wire import Wire
from voiced.sip.message import Request
from voiced.sip.transaction import State
from voiced.sip.transport import Target, TransportName

# --- CANCEL ----------------------------------------------------------------------------------


def test_cancel_waits_for_a_provisional_response() -> None:
    net = Net()
    client = Client()
    tx = net.alice.layer.request(
        make("INVITE", headers=(("Route", "<sip:p;lr>"),)), net.target, client
    )
    assert tx.cancel(headers=[("Reason", 'SIP ;cause=200 ;text="done"')])
    assert tx.cancel()
    net.wire.run(0.1)
    assert net.wire.trace() == ["alice>bob INVITE"]
    reply(net.bob.server.last, 180)
    net.wire.run(1)
    assert net.wire.trace()[1:] == [
        "bob>alice 180 INVITE",
        "alice>bob CANCEL",
        "bob>alice 200 CANCEL",
        "bob>alice 487 INVITE",
        "alice>bob ACK",
    ]
    cancel = net.wire.log[2].message
    assert isinstance(cancel, Request)
    assert [str(via) for via in cancel.vias] == [str(tx.request.via)]
    assert cancel.cseq.number == 1
    assert str(cancel.uri) == str(tx.request.uri)
    assert cancel.to.tag is None
    assert [str(route) for route in cancel.routes] == ["<sip:p;lr>"]
    assert cancel.headers.get("Reason") == 'SIP ;cause=200 ;text="done"'
    answers = [net.wire.log[3].message, net.wire.log[4].message]
    assert answers[0].to.tag == answers[1].to.tag is not None
    assert client.statuses == [180, 487]
    assert not tx.cancel(), "too late"
    net.end()
    assert net.bob.server.cancelled == [net.bob.server.requests[0]]
    assert len(net.bob.server.requests) == 1


def test_cancel_at_once_when_it_rings() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 180)
    tx = net.alice.layer.request(make("INVITE"), net.target, Client())
    net.wire.run(0.1)
    assert tx.cancel()
    assert net.wire.trace()[-1] == "alice>bob CANCEL"
    net.end()


def test_one_cancel_however_often_it_rings() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 180)
    net.bob.server.cancel = lambda tx: (reply(tx, 183), reply(tx, 180))
    client = Client()
    tx = net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(0.1)
    tx.cancel()
    net.wire.run(0.4)
    assert client.statuses == [180, 183, 180]
    assert net.wire.trace().count("alice>bob CANCEL") == 1
    reply(net.bob.server.last, 487)
    net.end()


def test_a_lost_cancel_is_repeated_and_cancels_once() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 180)
    client = Client()
    tx = net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(0.1)
    net.lose("alice>bob CANCEL", "bob>alice 200 CANCEL")
    tx.cancel()
    net.wire.run(1)
    net.lose("bob>alice 200 CANCEL")
    net.wire.run(3)
    net.heal()
    net.end()
    assert client.statuses == [180, 487]
    assert len(net.bob.server.cancelled) == 1


def test_a_2xx_that_is_faster_than_the_cancel() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 180)
    client = Client()
    tx = net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(0.1)
    reply(net.bob.server.last, 200)
    tx.cancel()
    net.wire.run(1)
    assert client.statuses == [180, 200]
    assert net.bob.server.cancelled == [], "a final response has gone out: no effect"
    assert "bob>alice 200 CANCEL" in net.wire.trace()
    net.end()


def test_a_cancelled_call_that_nobody_confirms_ends_after_32_s() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 180)
    client = Client()
    tx = net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(0.1)
    net.lose("bob>")
    tx.cancel()
    net.wire.run(31)
    assert client.failures == []
    net.wire.run(2)
    assert client.failures == [("timeout", "no answer in time")]
    net.end()


def test_a_cancel_that_matches_nothing_gets_481() -> None:
    net = Net()
    net.inject(raw("CANCEL"))
    net.inject(raw("CANCEL"))
    assert net.wire.trace() == ["bob>alice 481 CANCEL", "bob>alice 481 CANCEL"]
    assert net.wire.log[0].data == net.wire.log[1].data
    assert net.bob.server.requests == []
    net.wire.run_until_idle(200)
    assert net.bob.idle


def test_a_strangers_cancel_is_not_answered_where_the_owner_says_so() -> None:
    wire = Wire()
    wire.node("192.0.2.1", name="alice")
    bob = Side(wire, wire.node("192.0.2.2", name="bob"), answers=lambda request, flow: False)
    bob.node.deliver(raw("CANCEL"), ("192.0.2.1", 5060))
    assert wire.log == []
    assert bob.idle
    bob.node.deliver(raw("INVITE"), ("192.0.2.1", 5060))
    bob.node.deliver(raw("CANCEL"), ("192.0.2.1", 5060))
    assert wire.trace() == ["bob>alice 200 CANCEL", "bob>alice 487 INVITE"]


def test_other_requests_are_not_cancelled() -> None:
    net = Net()
    tx = net.alice.layer.request(make(), net.target, Client())
    assert not tx.cancel()
    net.inject(raw("OPTIONS"))
    net.inject(raw("CANCEL"))
    assert net.wire.trace()[-1] == "bob>alice 481 CANCEL"
    assert net.bob.server.cancelled == []


# --- RFC 4320 --------------------------------------------------------------------------------


def test_a_slow_answer_to_a_non_invite_request_gets_a_late_100() -> None:
    net = Net()
    client = Client()
    net.alice.layer.request(make(), net.target, client)
    net.wire.run(3.4)
    bob = net.bob.server.last
    assert not reply(bob, 100), "too early over UDP"
    assert not reply(bob, 180), "never"
    assert client.statuses == []
    net.wire.run(0.2)
    assert client.statuses == [100]
    assert bob.state is State.PROCEEDING
    assert reply(bob, 100)
    assert reply(bob, 200)
    net.end()
    assert len(net.bob.server.requests) == 1


def test_over_tcp_100_may_come_at_any_time() -> None:
    net = Net("tcp")
    net.bob.server.answer = lambda tx: reply(tx, 100)
    client = Client()
    net.alice.layer.request(make(), net.target, client)
    net.wire.run(1)
    assert client.statuses == [100]
    reply(net.bob.server.last, 200)
    net.end()


def test_nothing_answers_a_non_invite_request_after_its_time() -> None:
    net = Net()
    client = Client()
    net.alice.layer.request(make(), net.target, client)
    net.wire.run(1)
    bob = net.bob.server.last
    assert not reply(bob, 408)
    assert bob.state is State.TRYING
    net.end()
    assert bob.ended
    assert client.failures == [("timeout", "no answer in time")]
    sent = len(net.wire.log)
    assert not reply(bob, 200)
    assert len(net.wire.log) == sent


# --- what cannot be sent ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_request_that_cannot_be_sent_fails_at_once(method: str, transport: TransportName) -> None:
    net = Net(transport)
    client = Client()
    net.alice.layer.request(make(method), Target(transport, "192.0.2.77", 5060), client)
    assert client.failures == []
    net.wire.run(0.1)
    assert client.failures == [("transport", "nobody there")]
    net.end()


def test_a_transport_that_fails_from_within_send_is_survived() -> None:
    net = Net()
    client = Client()
    send = net.alice.node.send

    def refuse(data: bytes, to: object, failed: object = None) -> None:
        assert callable(failed)
        failed("queue full")

    net.alice.node.send = refuse  # type: ignore[method-assign]
    tx = net.alice.layer.request(make(), net.target, client)
    assert client.failures == []
    assert not tx.ended
    net.alice.node.send = send  # type: ignore[method-assign]
    net.wire.run(0)
    assert client.failures == [("transport", "queue full")]
    net.end()


def test_an_answer_to_a_closed_connection_opens_one_to_where_via_says() -> None:
    net = Net("tcp")
    client = Client()
    net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(0.1)
    bob = net.bob.server.last
    # The connection has ended, but Alice still listens.
    gone = bob._reply_to
    assert gone == bob.flow
    bob._failed("connection closed")
    net.wire.run(1)
    assert bob._reply_to == Target("tcp", "192.0.2.1", 5060, name="192.0.2.1")
    reply(bob, 486)
    net.wire.run(1)
    assert client.statuses == [100, 486]
    net.end()
    assert net.bob.server.unsent == []


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("status", [180, 200, 486])
def test_an_answer_to_an_invite_that_cannot_be_sent(transport: TransportName, status: int) -> None:
    net = Net(transport)
    net.alice.layer.request(make("INVITE"), net.target, Client())
    net.wire.run(0.05)
    net.alice.node.up = False
    bob = net.bob.server.last
    reply(bob, status)
    net.wire.run(0.1)
    assert net.bob.server.unsent[0] == "nobody there"
    assert not bob.ended, "RFC 6026: it goes on absorbing"
    if status == 180:
        reply(bob, 480)
    net.wire.run(33)
    assert bob.ended


def test_an_answer_to_another_request_that_cannot_be_sent_ends_it() -> None:
    net = Net()
    net.alice.layer.request(make(), net.target, Client())
    net.wire.run(0.05)
    net.alice.node.up = False
    bob = net.bob.server.last
    reply(bob, 200)
    net.wire.run(0.1)
    assert net.bob.server.unsent == ["nobody there"]
    assert bob.ended
