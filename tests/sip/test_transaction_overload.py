"""Overload, mistakes of the user above, and the end."""

from __future__ import annotations

from tests.sip.nets import Net, raw
from tests.sip.recorders import Client, Side, make, reply
from tests.sip.wire import Wire
from voiced.sip.errors import ParseError
from voiced.sip.message import parse, response_to
from voiced.sip.transactions import ServerTransaction

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
