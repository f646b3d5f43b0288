"""Which transaction a message belongs to, and where its answers go (RFC 3261 sec. 17 and 18)."""

from __future__ import annotations

import pytest

from tests.sip.nets import Net, raw
from tests.sip.recorders import Client, make, reply
from voiced.sip.message import response_to
from voiced.sip.transaction import State

# --- matching responses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"branch=z9hG4bKalice0", b"branch=z9hG4bKalice1"),
        (b"branch=z9hG4bKalice0", b"x=y"),
        (b"CSeq: 1 OPTIONS", b"CSeq: 1 INFO"),
        (b"Via:", b"Via: SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKother\r\nVia:"),
    ],
    ids=["branch", "no branch", "method", "two Vias"],
)
def test_a_response_that_matches_nothing_is_ignored(old: bytes, new: bytes) -> None:
    net = Net()
    client = Client()
    net.alice.layer.request(make(), net.target, client)
    net.wire.run(0.05)
    data = bytes(response_to(net.bob.server.last.request, 200, to_tag="b"))
    assert old in data
    net.alice.node.deliver(data.replace(old, new, 1), ("192.0.2.2", 5060))
    assert client.statuses == []
    assert net.alice.counts["stray", "response"] == 1
    net.alice.node.deliver(data, ("192.0.2.2", 5060))
    assert client.statuses == [200]
    assert net.alice.server.strays == []
    net.end()


# --- matching requests -----------------------------------------------------------------------


def test_the_top_via_tells_where_a_request_came_from() -> None:
    net = Net()
    net.inject(
        raw("OPTIONS", sent_by="host.example:5070", via=";branch=z9hG4bK1;rport"), port=40_000
    )
    via = net.bob.server.last.request.via
    assert via.received == "192.0.2.1"
    assert via.rport == 40_000
    assert str(via).startswith("SIP/2.0/UDP host.example:5070;")
    reply(net.bob.server.last, 200)
    assert net.wire.log[-1].destination == "stranger"
    net.end()


@pytest.mark.parametrize(
    ("sent_by", "port"), [("192.0.2.1:5070", 5070), ("192.0.2.1", 5060), ("h.example:5071", 5071)]
)
def test_without_rport_the_answer_goes_to_the_port_of_via(sent_by: str, port: int) -> None:
    net = Net()
    there = net.wire.node("192.0.2.1", port, name="named")
    net.bob.node.deliver(
        raw("OPTIONS", sent_by=sent_by, via=";branch=z9hG4bK1"), ("192.0.2.1", 40_001)
    )
    via = net.bob.server.last.request.via
    assert via.received == (None if sent_by.startswith("192") else "192.0.2.1")
    reply(net.bob.server.last, 200)
    net.wire.run(1)
    assert [type(message).__name__ for message in there.received] == ["Response"]


def test_a_received_or_maddr_that_the_sender_wrote_is_not_followed() -> None:
    net = Net()
    net.inject(
        raw("OPTIONS", via=";branch=z9hG4bK1;received=203.0.113.5;maddr=203.0.113.6"), port=5060
    )
    assert net.bob.server.last.request.via.received is None
    reply(net.bob.server.last, 200)
    assert net.wire.log[-1].destination == "alice"
    net.end()


def test_only_the_top_via_is_stamped_and_the_others_keep_their_order() -> None:
    net = Net()
    more = ", SIP/2.0/TCP p2.example;branch=z9hG4bK2\r\nv: SIP/2.0/UDP p3.example;branch=z9hG4bK3"
    net.inject(raw("OPTIONS", via=";branch=z9hG4bK1;rport" + more))
    vias = net.bob.server.last.request.vias
    assert [via.host for via in vias] == ["192.0.2.1", "p2.example", "p3.example"]
    assert [via.received for via in vias] == ["192.0.2.1", None, None]
    reply(net.bob.server.last, 200)
    assert [via.host for via in net.wire.log[-1].message.vias] == [via.host for via in vias]


def test_one_branch_from_two_senders_is_two_transactions() -> None:
    net = Net()
    net.inject(raw("OPTIONS", sent_by="192.0.2.1:5060"))
    net.inject(raw("OPTIONS", sent_by="192.0.2.1:5062"))
    net.inject(raw("OPTIONS", sent_by="192.0.2.1:5062"))
    assert len(net.bob.server.requests) == 2


def test_one_branch_with_two_methods_is_two_transactions() -> None:
    net = Net()
    net.inject(raw("OPTIONS"))
    net.inject(raw("INFO"))
    assert [tx.request.method for tx in net.bob.server.requests] == ["OPTIONS", "INFO"]


@pytest.mark.parametrize("via", [";branch=1", "", ";branch=z9hG4bK", ";rport;branch=7"])
def test_requests_of_rfc_2543_are_matched_by_their_parts(via: str) -> None:
    net = Net()
    net.inject(raw("INVITE", via=via))
    net.inject(raw("INVITE", via=via))
    assert len(net.bob.server.requests) == 1
    first = net.bob.server.last
    reply(first, 486)
    net.inject(raw("INVITE", via=via, cseq=2))
    assert len(net.bob.server.requests) == 2, "another CSeq is another request"
    net.inject(raw("ACK", via=via, to=";tag=somebody-else"))
    assert first.state == "completed"
    assert len(net.bob.server.acks) == 1
    net.inject(raw("ACK", via=via, to=f";tag={first.to_tag}"))
    assert first.state == "confirmed"
    assert len(net.bob.server.acks) == 1
    net.inject(raw("CANCEL", via=via, cseq=2))
    assert net.bob.server.cancelled == [net.bob.server.last]
    net.wire.run_until_idle(200)


def test_an_in_dialog_invite_of_rfc_2543_is_acknowledged_too() -> None:
    net = Net()
    net.inject(raw("INVITE", via="", to=";tag=b1"))
    reply(net.bob.server.last, 488)
    net.inject(raw("ACK", via="", to=";tag=b1"))
    assert net.bob.server.last.state is State.CONFIRMED


def test_an_ack_that_comes_early_or_twice_is_absorbed() -> None:
    net = Net()
    net.inject(raw("INVITE"))
    bob = net.bob.server.last
    net.inject(raw("ACK"))
    assert bob.state == "proceeding"
    reply(bob, 486)
    net.inject(raw("ACK", to=f";tag={bob.to_tag}"))
    net.inject(raw("ACK", to=f";tag={bob.to_tag}"))
    assert bob.state == "confirmed"
    assert net.bob.server.acks == []


def test_a_request_that_came_by_two_ways_is_merged_and_a_spiral_is_not() -> None:
    net = Net()
    net.inject(raw("INVITE", via=";branch=z9hG4bK1"))
    net.inject(raw("INVITE", via=";branch=z9hG4bK2"))
    spiral = raw("INVITE", via=";branch=z9hG4bK3").replace(b"sip:bob@", b"sip:carol@", 1)
    net.inject(spiral)
    net.inject(raw("INVITE", via=";branch=z9hG4bK4", cseq=2))
    net.inject(raw("INVITE", via=";branch=z9hG4bK5", to=";tag=b1"))
    assert [tx.merged for tx in net.bob.server.requests] == [False, True, False, False, False]
    for tx in net.bob.server.requests:
        reply(tx, 480)
    net.wire.run_until_idle(200)
    net.inject(raw("INVITE", via=";branch=z9hG4bK6"))
    assert not net.bob.server.last.merged, "what is over is not merged with"
