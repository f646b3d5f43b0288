"""Reliable provisional responses, RFC 3262, as callee and as caller."""

from __future__ import annotations

from tests.sip.calls import NO_CODEC, SDP, Phone, called, calling, quiet, sdp
from tests.sip.wire import Wire
from voiced.sip.events import Answered, MediaChanged, Progress
from voiced.sip.message import Response
from voiced.sip.options import Options
from voiced.sip.prack import ProvisionalOrder
from voiced.sip.uas import ServerSession

REQUIRE = "Require: 100rel"


def ring(session: ServerSession) -> None:
    session.ring()


def early(session: ServerSession) -> None:
    session.ring(183, early_media=True)


def rack(response: Response, add: int = 0) -> str:
    return f"RAck: {(response.rseq or 0) + add} {response.cseq.number} INVITE"


def test_not_reliable_unless_required() -> None:
    _, _, peer = called(on_invite=ring, headers="Supported: 100rel")
    assert peer.statuses("INVITE") == [180]
    assert "RSeq" not in peer.last("INVITE").headers
    peer.send("PRACK", "RAck: 1 1 INVITE")
    assert peer.statuses("PRACK") == [481]


def test_repeated_until_the_prack() -> None:
    wire, phone, peer = called(on_invite=ring, headers=REQUIRE)
    wire.run(4)
    assert peer.statuses("INVITE") == [180, 180, 180, 180]  # 0, 0.5, 1.5, 3.5 s
    ringing = peer.last("INVITE")
    assert "100rel" in ringing.require
    peer.send("PRACK", rack(ringing, 1))
    peer.send("PRACK", f"RAck: {ringing.rseq} 9 INVITE")
    peer.send("PRACK", rack(ringing))
    peer.send("PRACK", rack(ringing))
    assert peer.statuses("PRACK") == [481, 481, 200, 481]
    wire.run(40)
    assert len(peer.responses("INVITE")) == 4
    phone.calls[0][0].accept()
    wire.run(0.1)
    assert peer.statuses("INVITE")[-1] == 200
    assert peer.last("INVITE").body
    peer.send("ACK")
    peer.send("BYE")
    quiet(wire, phone)


def test_the_answer_waits_for_the_prack_and_is_given_once() -> None:
    _, phone, peer = called(on_invite=early, headers=REQUIRE)
    session, line = phone.calls[0]
    session.accept()
    progress = peer.last("INVITE")
    assert progress.body
    assert line.events == [MediaChanged()]
    assert 200 not in peer.statuses("INVITE")
    peer.send("PRACK", rack(progress))
    assert peer.statuses("PRACK") == [200]
    assert peer.last("INVITE").status == 200
    assert not peer.last("INVITE").body
    peer.send("ACK", cseq=1)
    assert session.state == "confirmed"
    assert line.of(MediaChanged) == [MediaChanged()]


def test_the_next_one_waits_for_the_prack() -> None:
    wire, phone, peer = called(on_invite=ring, headers=REQUIRE)
    session, _ = phone.calls[0]
    session.ring(183, early_media=True)
    first = peer.last("INVITE")
    peer.send("PRACK", rack(first))
    second = peer.last("INVITE")
    assert (second.status, second.rseq) == (183, (first.rseq or 0) + 1)
    assert second.body
    peer.send("PRACK", rack(second))
    session.ring(183, early_media=True)
    wire.run(0.1)
    third = peer.last("INVITE")
    assert third.rseq == (second.rseq or 0) + 1
    assert not third.body
    peer.send("PRACK", rack(third))
    session.accept()
    wire.run(0.1)
    assert not peer.last("INVITE").body


def test_the_answer_waits_for_every_prack() -> None:
    def ring_and_say_more(session: ServerSession) -> None:
        ring(session)
        early(session)
        session.accept()

    _, _, peer = called(on_invite=ring_and_say_more, headers=REQUIRE)
    peer.send("PRACK", rack(peer.last("INVITE")), run=0.3)
    assert peer.statuses("INVITE") == [180, 183]
    peer.send("PRACK", rack(peer.last("INVITE")), run=0.3)
    assert peer.statuses("INVITE") == [180, 183, 200]


def test_no_prack_at_all() -> None:
    wire, phone, peer = called(on_invite=ring, headers=REQUIRE)
    wire.run(33)
    assert peer.last("INVITE").status == 504
    assert (phone.calls[0][1].end().reason, phone.calls[0][1].end().status) == ("timeout", 504)
    quiet(wire, phone)


def test_straight_to_the_answer_needs_no_prack() -> None:
    _, phone, peer = called(headers=REQUIRE)
    peer.send("ACK")
    assert phone.calls[0][0].state == "confirmed"


def test_cancel_stops_the_repetition() -> None:
    wire, phone, peer = called(on_invite=ring, headers=REQUIRE)
    peer.send("CANCEL", branch="z9hG4bK-peer-1")
    assert phone.calls[0][1].end().reason == "cancelled"
    peer.send("ACK", branch="z9hG4bK-peer-1")
    quiet(wire, phone)


def test_a_late_offer_in_the_provisional_and_its_answer_in_the_prack() -> None:
    _, phone, peer = called(on_invite=ring, headers=REQUIRE, body="")
    session, line = phone.calls[0]
    ringing = peer.last("INVITE")
    assert ringing.content_type == "application/sdp"
    peer.send("UPDATE", body=SDP)
    assert peer.statuses("UPDATE") == [491]
    peer.send("PRACK", rack(ringing), SDP)
    assert line.events == [MediaChanged()]
    session.accept()
    peer.send("OPTIONS")
    assert not peer.last("INVITE").body
    peer.send("ACK", cseq=1)
    assert session.state == "confirmed"


def test_a_late_offer_that_is_not_answered() -> None:
    _, phone, peer = called(on_invite=ring, headers=REQUIRE, body="")
    peer.send("PRACK", rack(peer.last("INVITE")), NO_CODEC)
    assert peer.statuses("PRACK") == [488]
    assert peer.last("INVITE").status == 488
    assert phone.calls[0][1].end().reason == "media_refused"


def test_a_new_offer_in_the_prack() -> None:
    _, phone, peer = called(on_invite=early, headers=REQUIRE)
    peer.send("PRACK", rack(peer.last("INVITE")), sdp(2, port=4010))
    answer = peer.last("PRACK")
    assert (answer.status, answer.content_type) == (200, "application/sdp")
    _, line = phone.calls[0]
    assert len(line.of(MediaChanged)) == 2
    agreed = line.media.negotiator.agreed
    assert agreed is not None
    assert agreed.remote_rtp_port == 4010
    peer.send("UPDATE", body=sdp(3, port=4012))
    assert peer.last("UPDATE").status == 200


def test_switched_off() -> None:
    _, _, peer = called(Options(reliable_provisionals=False), headers=REQUIRE)
    assert peer.last("INVITE").status == 420
    assert peer.last("INVITE").unsupported == ("100rel",)


# --- as caller ---


def test_we_acknowledge_in_order_and_once() -> None:
    _, _, peer, session, line, invite = calling()
    assert "100rel" in invite.supported
    peer.answer(invite, 180, "Require: 100rel\nRSeq: 7")
    (prack,) = peer.requests("PRACK")
    assert prack.headers.get("RAck") == f"7 {invite.cseq.number} INVITE"
    assert prack.to.tag == "peer"
    assert prack.cseq.number == invite.cseq.number + 1
    peer.answer(prack, 200)
    for rseq in (7, 9, 6):
        peer.answer(invite, 183, f"Require: 100rel\nRSeq: {rseq}", SDP)
    assert len(peer.requests("PRACK")) == 1
    assert line.events == [Progress(180, False, "Whatever")]
    peer.answer(invite, 183, "Require: 100rel\nRSeq: 8", SDP)
    second = peer.requests("PRACK")[-1]
    assert second.headers.get("RAck") == f"8 {invite.cseq.number} INVITE"
    peer.answer(second, 200)
    assert line.of(MediaChanged) == [MediaChanged()]
    peer.answer(invite, 200)
    assert line.events[-1] == Answered()
    assert session.state == "confirmed"


def test_a_reliable_answer_is_final() -> None:
    _, _, peer, session, line, invite = calling()
    peer.answer(invite, 183, "Require: 100rel\nRSeq: 1", SDP)
    peer.answer(invite, 183, "Require: 100rel\nRSeq: 2", sdp(2, port=4030))
    peer.answer(invite, 200, "", sdp(2, port=4030))
    assert session.state == "confirmed"
    agreed = line.media.negotiator.agreed
    assert agreed is not None
    assert agreed.remote_rtp_port == 4000


def test_each_fork_counts_for_itself() -> None:
    _, _, peer, _, _, invite = calling()
    peer.answer(invite, 180, "Require: 100rel\nRSeq: 7", tag="a")
    peer.answer(invite, 180, "Require: 100rel\nRSeq: 3", tag="b")
    assert [prack.to.tag for prack in peer.requests("PRACK")] == ["a", "b"]


def test_a_failed_prack_does_not_end_the_call() -> None:
    _, _, peer, session, line, invite = calling()
    peer.answer(invite, 180, "Require: 100rel\nRSeq: 7")
    peer.answer(peer.requests("PRACK")[0], 481)
    peer.answer(invite, 200, "", SDP)
    assert session.state == "confirmed"
    assert not line.over()


def test_update_in_an_early_dialog_once_the_answer_is_reliable() -> None:
    _, _, peer, session, line, invite = calling()
    peer.answer(invite, 183, "Require: 100rel\nRSeq: 1", SDP)
    peer.answer(peer.requests("PRACK")[0], 200)
    peer.send("UPDATE", body=sdp(2, port=4020))
    assert peer.statuses("UPDATE") == [200]
    peer.answer(invite, 200)
    assert session.state == "confirmed"
    agreed = line.media.negotiator.agreed
    assert agreed is not None
    assert agreed.remote_rtp_port == 4020


def test_two_phones_that_require_it() -> None:
    wire = Wire()
    alice = Phone(wire.node("192.0.2.1"))
    bob = Phone(wire.node("192.0.2.2"), on_invite=early)
    session, line = alice.call(bob.node, headers=[("Require", "100rel")])
    wire.run(1)
    assert line.of(Progress) == [Progress(183, True, "Session Progress")]
    bob.calls[0][0].accept()
    wire.run(1)
    assert session.state == bob.calls[0][0].state == "confirmed"
    assert line.media.exchanges == bob.calls[0][1].media.exchanges
    session.bye()
    quiet(wire, alice, bob)


def test_order_takes_any_beginning() -> None:
    order = ProvisionalOrder()
    assert [order.accept(n) for n in (5, 5, 7, 6, 7)] == [True, False, False, True, True]
