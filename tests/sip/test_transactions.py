"""What two transaction layers do over a wire: retransmission, loss, matching, CANCEL, overload."""

from __future__ import annotations

import pytest

from tests.sip.nets import Net
from tests.sip.recorders import Client, make, reply
from voiced.sip.message import Request, response_to
from voiced.sip.transaction import State
from voiced.sip.transport import TransportName

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
