"""What two transaction layers do over a wire: retransmission, loss, matching, CANCEL, overload."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.sip.recorders import Client, Side, make, reply
from tests.sip.wire import Packet, Wire, straight
from voiced.sip.errors import ParseError
from voiced.sip.message import Request, parse, response_to
from voiced.sip.transaction import State
from voiced.sip.transactions import ServerTransaction
from voiced.sip.transport import Target, TransportName


class Net:
    """Alice calls Bob."""

    def __init__(self, transport: TransportName = "udp", **limits: int) -> None:
        self.wire = Wire()
        self.alice = Side(self.wire, self.wire.node("192.0.2.1", name="alice", transport=transport))
        self.bob = Side(
            self.wire,
            self.wire.node("192.0.2.2", name="bob", transport=transport),
            **limits,  # type: ignore[arg-type]
        )
        self.target = self.bob.node.target()

    def lose(self, *whats: str) -> None:
        """Packets that begin like this never arrive ("alice>bob ACK")."""

        def fate(packet: Packet) -> Sequence[float]:
            return () if str(packet).startswith(whats) else (0.0,)

        self.wire.fate = fate

    def heal(self) -> None:
        self.wire.fate = straight

    def inject(self, data: bytes, *, port: int = 5060, host: str = "192.0.2.1") -> None:
        """Bob receives these bytes from that address."""
        if (host, port) != ("192.0.2.1", 5060):
            self.wire.node(host, port, name="stranger")
        self.bob.node.deliver(data, (host, port))

    def end(self) -> None:
        """All ends by itself, and nothing is left."""
        self.wire.run_until_idle(200)
        assert self.alice.idle
        assert self.bob.idle
        assert len(self.wire.timers) == 0


RAW = (
    "{method} sip:bob@example.org SIP/2.0\r\n"
    "Via: SIP/2.0/UDP {sent_by}{via}\r\n"
    "From: <sip:alice@example.com>;tag=a1\r\n"
    "To: <sip:bob@example.org>{to}\r\n"
    "Call-ID: raw\r\n"
    "CSeq: {cseq} {method}\r\n"
    "Content-Length: 0\r\n\r\n"
)


def raw(
    method: str,
    *,
    via: str = ";branch=z9hG4bKraw;rport",
    sent_by: str = "192.0.2.1",
    to: str = "",
    cseq: int = 1,
) -> bytes:
    return RAW.format(method=method, via=via, sent_by=sent_by, to=to, cseq=cseq).encode()


# --- the plain cases -------------------------------------------------------------------------


def test_a_request_and_its_answer_over_udp() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 200)
    client = Client()
    asked = make()
    tx = net.alice.layer.request(asked, net.target, client)
    net.wire.run(1)
    assert client.statuses == [200]
    assert tx.state is State.COMPLETED
    assert tx.final is client.responses[0]
    assert tx.flow == net.alice.node.flow_to(net.bob.node)
    assert "Via" not in asked.headers, "the caller's request is not touched"
    net.end()
    assert net.wire.trace() == ["alice>bob OPTIONS", "bob>alice 200 OPTIONS"]


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_over_a_connection_nothing_lingers(transport: TransportName) -> None:
    net = Net(transport)
    net.bob.server.answer = lambda tx: reply(tx, 486)
    client = Client()
    tx = net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(0.025)
    assert client.statuses == [486]
    assert tx.ended
    net.wire.run(0.025)
    assert net.alice.idle
    assert net.bob.idle, "timer I is 0"
    assert net.wire.trace() == ["alice>bob INVITE", "bob>alice 486 INVITE", "alice>bob ACK"]


def test_an_invite_is_repeated_doubling_and_given_up_after_32_s() -> None:
    net = Net()
    net.lose("alice>")
    client = Client()
    net.alice.layer.request(make("INVITE"), net.target, client)
    net.end()
    sent = [packet.at - 1000 for packet in net.wire.log]
    assert sent == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert client.failures == [("timeout", "no answer in time")]
    assert net.wire.clock.time == pytest.approx(1032)


def test_other_requests_are_repeated_up_to_every_4_s() -> None:
    net = Net()
    net.lose("alice>")
    client = Client()
    net.alice.layer.request(make(), net.target, client)
    net.end()
    sent = [packet.at - 1000 for packet in net.wire.log]
    assert sent == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert client.failures == [("timeout", "no answer in time")]
    assert net.alice.counts["retransmitted", "request"] == 10


def test_over_tcp_nothing_is_repeated_and_silence_still_ends() -> None:
    net = Net("tcp")
    client = Client()
    net.alice.layer.request(make("INVITE"), net.target, client)
    net.bob.server.answer = lambda tx: tx.drop()
    net.wire.run_until_idle()
    assert net.wire.trace() == ["alice>bob INVITE"]
    assert client.failures == [("timeout", "no answer in time")]


def test_a_refusal_is_repeated_until_the_ack() -> None:
    net = Net()
    net.lose("alice>bob ACK")
    net.bob.server.answer = lambda tx: reply(tx, 486)
    client = Client()
    net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(4)
    refusals = [p.at - 1000.01 for p in net.wire.log if str(p) == "bob>alice 486 INVITE"]
    assert refusals == pytest.approx([0, 0.5, 1.5, 3.5])
    assert client.statuses == [486], "repetitions are not the user's business"
    acks = [packet.data for packet in net.wire.log if str(packet) == "alice>bob ACK"]
    assert len(set(acks)) == 1
    assert len(acks) == 4
    net.heal()
    net.wire.run(4)
    assert net.bob.server.last.state is State.CONFIRMED
    net.end()
    assert net.bob.server.acks == [], "the ACK to a refusal is the transaction's"


def test_a_refusal_nobody_acknowledges_is_given_up() -> None:
    net = Net()
    net.lose("alice>bob ACK")
    net.bob.server.answer = lambda tx: reply(tx, 503)
    net.alice.layer.request(make("INVITE"), net.target, Client())
    net.end()
    refusals = [p.at - 1000.01 for p in net.wire.log if str(p) == "bob>alice 503 INVITE"]
    assert refusals == pytest.approx([0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5])


def test_the_ack_to_a_refusal() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 404)
    asked = make("INVITE", cseq=7, headers=(("Route", "<sip:p1;lr>"), ("Route", "<sip:p2;lr>")))
    tx = net.alice.layer.request(asked, net.target, Client())
    net.wire.run(1)
    ack = net.wire.log[-1].message
    assert isinstance(ack, Request)
    assert ack.method == "ACK"
    assert str(ack.uri) == str(asked.uri)
    assert ack.cseq.number == 7
    assert ack.cseq.method == "ACK"
    assert [str(via) for via in ack.vias] == [str(tx.request.via)]
    assert str(ack.from_) == str(asked.from_)
    assert ack.to.tag == net.bob.server.last.to_tag
    assert ack.call_id == asked.call_id
    assert [str(route) for route in ack.routes] == ["<sip:p1;lr>", "<sip:p2;lr>"]
    assert not ack.body


def test_100_is_sent_when_the_user_takes_longer_than_200_ms() -> None:
    net = Net()
    client = Client()
    net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(0.2)
    assert client.statuses == []
    net.wire.run(0.1)
    assert client.statuses == [100]
    assert client.responses[0].to.tag is None
    net.wire.run(20)
    assert net.wire.trace() == ["alice>bob INVITE", "bob>alice 100 INVITE"]
    assert reply(net.bob.server.last, 480)
    net.end()


def test_no_100_when_the_user_was_quick() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 180)
    client = Client()
    net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(3)
    assert client.statuses == [180]
    assert reply(net.bob.server.last, 480)
    net.end()


def test_a_repeated_invite_gets_the_last_provisional_response_again() -> None:
    net = Net()
    net.lose("bob>alice")
    net.bob.server.answer = lambda tx: (reply(tx, 100), reply(tx, 183))
    client = Client()
    net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(0.4)
    net.heal()
    net.wire.run(0.4)
    assert client.statuses == [183]
    assert len(net.bob.server.requests) == 1
    reply(net.bob.server.last, 480)
    net.end()


def test_a_repeated_invite_gets_the_2xx_again_and_the_user_may_repeat_it_too() -> None:
    net = Net()
    net.lose("bob>alice")
    net.bob.server.answer = lambda tx: reply(tx, 200)
    client = Client()
    net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(0.4)
    net.heal()
    net.wire.run(0.4)
    assert client.statuses == [200], "the copy that the second INVITE brought"
    bob = net.bob.server.last
    assert bob.state is State.ACCEPTED
    assert reply(bob, 200)
    net.wire.run(0.1)
    assert client.statuses == [200, 200], "each wants an ACK"
    assert not reply(bob, 486)
    assert not reply(bob, 180)
    net.end()
    assert len(net.bob.server.requests) == 1


def test_the_ack_to_a_2xx_passes_to_the_user_whatever_its_branch() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 200)
    tx = net.alice.layer.request(make("INVITE"), net.target, Client())
    net.wire.run(0.1)
    ack = make("ACK", to_tag=net.bob.server.last.to_tag)
    net.alice.layer.send_ack(ack, net.target)
    net.wire.run(0.1)
    assert len(net.bob.server.acks) == 1
    assert net.bob.server.acks[0].via.branch != tx.branch
    # Some callers use the branch of the INVITE for it.
    data = bytes(net.bob.server.acks[0]).replace(
        str(net.bob.server.acks[0].via.branch).encode(), tx.branch.encode()
    )
    net.inject(data)
    assert len(net.bob.server.acks) == 2
    net.end()


def test_2xx_after_the_transaction_is_a_stray() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 200)
    client = Client()
    net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(1)
    answer = response_to(net.bob.server.last.request, 200, to_tag="fork")
    net.wire.run(40)
    assert net.alice.idle
    net.alice.layer.receive(answer, net.alice.node.flow_to(net.bob.node))
    assert net.alice.server.strays == [answer]
    assert client.statuses == [200]


def test_a_fork_that_answers_after_another_refused_is_a_stray() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 486)
    client = Client()
    net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(1)
    answer = response_to(net.bob.server.last.request, 200, to_tag="fork")
    net.alice.layer.receive(answer, net.alice.node.flow_to(net.bob.node))
    assert net.alice.server.strays == [answer]
    assert client.statuses == [486]
    net.end()


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


# --- bounds, strangers, malformed ------------------------------------------------------------


def test_overload_refuses_strangers_statelessly_and_still_lets_calls_end() -> None:
    net = Net(max_server_transactions=2)
    for number in range(4):
        net.inject(raw("INVITE", via=f";branch=z9hG4bK{number};rport", cseq=number))
    assert len(net.bob.server.requests) == 2
    assert net.wire.trace() == ["bob>alice 503 INVITE"] * 2
    refusal = net.wire.log[0].message
    assert refusal.headers.get("Retry-After") == "10"
    assert refusal.to.tag
    assert refusal.via.rport == 5060
    net.inject(raw("ACK", via=";branch=z9hG4bK2"))
    net.inject(raw("CANCEL", via=";branch=z9hG4bK0;rport", cseq=0))
    assert len(net.bob.server.cancelled) == 1
    net.inject(raw("BYE", via=";branch=z9hG4bK9", to=";tag=b"))
    assert net.bob.server.last.request.method == "BYE"
    for number in range(10, 30):
        net.inject(raw("BYE", via=f";branch=z9hG4bK{number}", to=";tag=b"))
    assert net.bob.layer.server_transactions == 4
    assert net.bob.counts["overload", "INVITE"] == 2
    net.inject(raw("INVITE", via=";branch=z9hG4bK0;rport", cseq=0))
    assert net.wire.trace()[-1] == "bob>alice 487 INVITE", "those there are still served"
    for tx in net.bob.server.requests:
        reply(tx, 480)
    net.wire.run_until_idle(200)
    assert net.bob.idle


def test_overload_says_nothing_to_whom_the_owner_does_not_answer() -> None:
    wire = Wire()
    bob = Side(
        wire,
        wire.node("192.0.2.2", name="bob"),
        max_server_transactions=0,
        answers=lambda request, flow: False,
    )
    bob.node.deliver(raw("INVITE"), ("192.0.2.1", 5060))
    assert wire.log == []
    assert bob.counts["overload", "INVITE"] == 1


def test_dropped_and_statelessly_refused_requests_leave_nothing() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: tx.drop()
    net.inject(raw("INVITE"))
    assert net.bob.idle
    assert len(net.wire.timers) == 0

    def refuse(tx: ServerTransaction) -> None:
        tx.respond_stateless(response_to(tx.request, 403, to_tag="s"))
        tx.respond_stateless(response_to(tx.request, 403, to_tag="s"))
        assert not reply(tx, 200)

    net.bob.server.answer = refuse
    net.inject(raw("INVITE"))
    assert net.bob.idle
    net.wire.run_until_idle()
    assert net.wire.trace() == ["bob>alice 403 INVITE"], "no retransmission to who did not ask"
    net.inject(raw("ACK", to=";tag=s"))
    assert len(net.bob.server.acks) == 1


def test_a_header_that_the_user_cannot_read_is_answered_400() -> None:
    net = Net()

    def read(tx: ServerTransaction) -> None:
        raise ParseError("malformed Contact")

    net.bob.server.answer = read
    client = Client()
    net.alice.layer.request(make("INVITE"), net.target, client)
    net.wire.run(1)
    assert client.statuses == [400]
    assert client.responses[0].reason == "malformed Contact"
    net.end()


def test_close_forgets_everything() -> None:
    net = Net()
    net.alice.layer.request(make("INVITE"), net.target, Client())
    net.alice.layer.request(make(), net.target, Client())
    net.wire.run(0.05)
    net.alice.layer.close()
    net.bob.layer.close()
    assert len(net.wire.timers) == 0
    assert net.alice.idle
    assert net.bob.idle


def test_details_that_are_counted_are_few() -> None:
    net = Net()
    for method in ("OPTIONS", "HAXX1", "HAXX2"):
        data = raw(method, via=f";branch=z9hG4bK{method}")
        net.inject(data)
        net.inject(data)
    assert net.bob.counts == {("received_again", "OPTIONS"): 1, ("received_again", "other"): 2}


def test_what_is_sent_can_be_parsed_by_the_other_side() -> None:
    net = Net()
    net.bob.server.answer = lambda tx: reply(tx, 486)
    body = b"x" * 100
    net.alice.layer.request(make("INVITE", body=body), net.target, Client())
    net.wire.run(1)
    assert [bytes(parse(packet.data)) for packet in net.wire.log] == [
        packet.data for packet in net.wire.log
    ]
    assert net.bob.server.last.request.body == body
