"""Re-INVITE and UPDATE from either side, and all else inside a call that stands."""

from __future__ import annotations

import pytest

from tests.sip.calls import (
    NO_CODEC,
    SDP,
    Phone,
    called,
    calling,
    quiet,
    sdp,
    state_of,
    talking,
)
from tests.sip.wire import Wire
from voiced.sip.events import Answered, Confirmed, Ended, Info, MediaChanged
from voiced.sip.session import InvalidState, Session
from voiced.sip.uri import SipUri

# --- the peer's ---


def test_the_peer_puts_us_on_hold_and_back() -> None:
    _, _, peer, session, line = talking()
    peer.send("INVITE", body=sdp(2, "sendonly"))
    ok = peer.last("INVITE")
    assert ok.status == 200
    assert b"a=recvonly" in ok.body
    assert line.events[-1] == MediaChanged()
    agreed = line.media.negotiator.agreed
    assert agreed is not None
    assert (agreed.send, agreed.receive) == (False, True)
    peer.send("ACK")
    peer.send("INVITE", body=sdp(3))
    peer.send("ACK")
    agreed = line.media.negotiator.agreed
    assert agreed is not None
    assert agreed.send
    assert line.of(Confirmed) == [Confirmed()]
    assert session.state == "confirmed"


def test_a_refused_reinvite_changes_nothing() -> None:
    wire, _, peer, session, line = talking()
    before = line.media.negotiator.agreed
    peer.send("INVITE", body=NO_CODEC)
    assert peer.last("INVITE").status == 488
    assert "305" in (peer.last("INVITE").headers.get("Warning") or "")
    peer.send("ACK", branch=f"z9hG4bK-peer-{peer.branches}")
    wire.run(40)
    assert session.state == "confirmed"
    assert line.media.negotiator.agreed == before


def test_a_reinvite_without_an_offer() -> None:
    _, _, peer, session, line = talking()
    peer.send("INVITE")
    assert peer.last("INVITE").content_type == "application/sdp"
    changes = len(line.of(MediaChanged))
    # While our offer waits for its answer there is no room for another one.
    peer.send("UPDATE", body=sdp(5))
    assert peer.statuses("UPDATE") == [491]
    peer.send("ACK", body=sdp(2, port=4100), cseq=peer.cseq - 1)
    assert len(line.of(MediaChanged)) == changes + 1
    agreed = line.media.negotiator.agreed
    assert agreed is not None
    assert agreed.remote_rtp_port == 4100
    assert session.state == "confirmed"


def test_a_reinvite_without_an_offer_and_an_ack_without_an_answer() -> None:
    _, _, peer, _, line = talking()
    peer.send("INVITE")
    peer.send("ACK")
    peer.answer(peer.requests("BYE")[0], 200)
    assert line.end().reason == "media_refused"


def test_a_reinvite_whose_ack_never_comes() -> None:
    wire, phone, peer, _, line = talking()
    peer.send("INVITE", body=sdp(2))
    wire.run(33)
    peer.answer(peer.requests("BYE")[0], 200)
    assert line.end() == Ended("ack_timeout")
    quiet(wire, phone)


def test_a_reinvite_while_our_2xx_waits_for_its_ack() -> None:
    _, phone, peer = called()
    peer.send("INVITE", body=sdp(2))
    assert peer.last("INVITE").status == 200
    peer.send("ACK", cseq=1)
    peer.send("ACK", cseq=2)
    assert phone.calls[0][0].state == "confirmed"


def test_a_second_invite_before_the_first_is_answered() -> None:
    wire, phone, peer = called(on_invite=lambda session: session.ring())
    peer.send("INVITE", body=sdp(2))
    refusal = peer.last("INVITE")
    assert refusal.status == 500
    assert refusal.retry_after is not None
    assert 0 <= refusal.retry_after <= 10
    phone.calls[0][0].accept()
    wire.run(0.1)
    assert peer.last("INVITE").cseq.number == 1


def test_an_update_before_the_offer_is_answered() -> None:
    _, _, peer = called(on_invite=lambda session: session.ring())
    peer.send("UPDATE", body=sdp(2))
    refusal = peer.last("UPDATE")
    assert refusal.status == 500
    assert refusal.retry_after is not None
    peer.send("UPDATE")
    assert peer.last("UPDATE").status == 200


def test_an_update_with_an_offer() -> None:
    _, _, peer, _, line = talking()
    peer.send("UPDATE", body=sdp(2, "inactive"))
    ok = peer.last("UPDATE")
    assert ok.status == 200
    assert b"a=inactive" in ok.body
    assert ok.contacts
    assert line.events[-1] == MediaChanged()
    peer.send("UPDATE", body=NO_CODEC)
    assert peer.last("UPDATE").status == 488


def test_the_target_is_refreshed() -> None:
    wire, phone, peer, session, _ = talking()
    desk = wire.node("192.0.2.8", name="desk")
    peer.send("UPDATE", "Contact: <sip:desk@192.0.2.8>", contact=False)
    session.bye()
    wire.run(0.1)
    assert [message.cseq.method for message in desk.received] == ["BYE"]
    assert session.dialog is not None
    assert session.dialog.remote_target == SipUri("sip", "desk", None, "192.0.2.8")
    assert phone.agent.sessions == 1


def test_a_refused_reinvite_does_not_refresh_the_target() -> None:
    wire, _, peer, session, _ = talking()
    peer.send("INVITE", "Contact: <sip:desk@192.0.2.8>", NO_CODEC, contact=False)
    session.bye()
    wire.run(0.1)
    assert len(peer.requests("BYE")) == 1


def test_cseq_must_rise() -> None:
    _, _, peer, session, line = talking()
    peer.send("OPTIONS", cseq=10)
    peer.send("OPTIONS", cseq=9)
    peer.send("OPTIONS", cseq=10)
    peer.send("OPTIONS", cseq=12)
    assert peer.statuses("OPTIONS") == [200, 500, 500, 200]
    peer.send("BYE", cseq=11)
    assert peer.statuses("BYE") == [500]
    assert session.state == "confirmed"
    assert not line.over()


def test_malformed_fields_are_answered_400() -> None:
    _, _, peer, session, _ = talking()
    peer.send("UPDATE", "Session-Expires: soon")
    assert peer.statuses("UPDATE") == [400]
    assert session.state == "confirmed"


# --- ours ---


def test_hold_and_resume() -> None:
    wire, _, peer, session, line = talking()
    session.hold(True)
    wire.run(0.1)
    (invite,) = peer.requests("INVITE")
    assert b"a=sendonly" in invite.body
    peer.answer(invite, 200, "", sdp(2, "recvonly"))
    assert peer.requests("ACK")[-1].cseq.number == invite.cseq.number
    assert line.events[-1] == MediaChanged()
    session.hold(False)
    wire.run(0.1)
    resume = peer.requests("INVITE")[-1]
    assert b"a=sendrecv" in resume.body
    peer.answer(resume, 200, "", sdp(3))
    peer.answer(resume, 200, "", sdp(3))
    assert len(peer.requests("ACK")) == 3
    assert session.state == "confirmed"


def test_the_answer_to_ours_refreshes_the_target_of_its_own_ack() -> None:
    wire, _, peer, session, _ = talking()
    desk = wire.node("192.0.2.8", name="desk")
    session.reinvite()
    wire.run(0.1)
    invite = peer.requests("INVITE")[0]
    peer.answer(invite, 200, "Contact: <sip:desk@192.0.2.8>", sdp(2), contact=False)
    session.bye()
    wire.run(0.1)
    assert [message.cseq.method for message in desk.received] == ["ACK", "BYE"]


def test_hold_refused_is_no_hold() -> None:
    wire, _, peer, session, line = talking()
    before = line.media.negotiator.agreed
    session.hold(True)
    wire.run(0.1)
    peer.answer(peer.requests("INVITE")[-1], 488)
    assert line.media.rollbacks == 1
    assert line.media.negotiator.agreed == before
    session.reinvite()
    wire.run(0.1)
    assert b"a=sendrecv" in peer.requests("INVITE")[-1].body
    assert session.state == "confirmed"


def test_what_is_asked_for_early_is_done_once_the_call_stands() -> None:
    wire, phone, peer = called()
    phone.calls[0][0].hold(True)
    wire.run(1)
    assert not peer.requests("INVITE")
    peer.send("ACK")
    assert len(peer.requests("INVITE")) == 1


def test_one_exchange_at_a_time() -> None:
    wire, _, peer, session, _ = talking()
    session.reinvite()
    session.reinvite()
    session.update()
    wire.run(0.1)
    (invite,) = peer.requests("INVITE")
    assert not peer.requests("UPDATE")
    peer.answer(invite, 200, "", sdp(2))
    assert len(peer.requests("INVITE")) == 2
    peer.answer(peer.requests("INVITE")[1], 200, "", sdp(3))
    wire.run(5)
    assert len(peer.requests("INVITE")) == 2


def test_update_where_the_peer_allows_it() -> None:
    wire, _, peer, session, line = talking()
    session.update()
    wire.run(0.1)
    (update,) = peer.requests("UPDATE")
    assert update.content_type == "application/sdp"
    peer.answer(update, 200, "", sdp(2))
    assert line.events[-1] == MediaChanged()


def test_reinvite_where_the_peer_does_not_allow_update() -> None:
    wire, _, peer, session, _ = talking(headers="Allow: INVITE, ACK, BYE")
    session.update()
    wire.run(0.1)
    assert len(peer.requests("INVITE")) == 1


def test_reinvite_where_update_fails() -> None:
    wire, _, peer, session, line = talking()
    session.update()
    wire.run(0.1)
    peer.answer(peer.requests("UPDATE")[0], 405)
    assert line.media.rollbacks == 1
    assert len(peer.requests("INVITE")) == 1


def test_an_answer_to_ours_that_does_not_fit() -> None:
    wire, phone, peer, session, line = talking()
    session.reinvite()
    wire.run(0.1)
    peer.answer(peer.requests("INVITE")[0], 200, "", "rubbish")
    assert len(peer.requests("ACK")) == 1
    peer.answer(peer.requests("BYE")[0], 200)
    assert line.end().reason == "media_refused"
    quiet(wire, phone)


@pytest.mark.parametrize(("status", "byes"), [(408, 1), (481, 0)])
@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "INFO"])
def test_a_dialog_that_is_gone(status: int, byes: int, method: str) -> None:
    wire, phone, peer, session, line = talking()
    if method == "INVITE":
        session.reinvite()
    elif method == "UPDATE":
        session.update()
    else:
        session.info(b"Signal=1", "application/dtmf-relay")
    wire.run(0.1)
    peer.answer(peer.requests(method)[0], status)
    assert (line.end().reason, line.end().status) == ("timeout", status)
    assert len(peer.requests("BYE")) == byes
    quiet(wire, phone)


def test_a_reinvite_that_nobody_answers() -> None:
    wire, phone, peer, session, line = talking()
    session.reinvite()
    wire.run(33)
    assert line.end() == Ended("timeout", 408, "no answer in time")
    assert peer.requests("BYE")
    quiet(wire, phone)


def test_a_reinvite_that_is_never_answered_finally_is_cancelled() -> None:
    wire, phone, peer, session, line = talking()
    session.reinvite()
    wire.run(0.1)
    invite = peer.requests("INVITE")[0]
    peer.answer(invite, 180)
    wire.run(32)
    peer.answer(peer.requests("CANCEL")[0], 200)
    peer.answer(invite, 487)
    assert line.media.rollbacks == 1
    assert state_of(session) == "confirmed"
    session.reinvite()
    wire.run(0.1)
    peer.answer(peer.requests("INVITE")[-1], 180)
    session.bye()
    quiet(wire, phone)


def test_infos_go_one_at_a_time() -> None:
    wire, _, peer, session, _ = talking()
    for key in (b"1", b"2"):
        session.info(b"Signal=" + key, "application/dtmf-relay")
    wire.run(0.1)
    (first,) = peer.requests("INFO")
    peer.answer(first, 200)
    assert [info.body for info in peer.requests("INFO")] == [b"Signal=1", b"Signal=2"]
    for _ in range(63):
        session.info(b"Signal=3", "application/dtmf-relay")
    with pytest.raises(InvalidState):
        session.info(b"Signal=4", "application/dtmf-relay")


def test_a_failed_info_is_no_end() -> None:
    wire, _, peer, session, line = talking()
    session.info(b"Signal=1", "application/dtmf-relay")
    wire.run(0.1)
    peer.answer(peer.requests("INFO")[0], 415)
    assert session.state == "confirmed"
    assert not line.over()


# --- both at once ---


def test_glare_the_peer_is_refused() -> None:
    wire, _, peer, session, _ = talking()
    session.reinvite()
    wire.run(0.1)
    peer.send("INVITE", body=sdp(2))
    assert peer.last("INVITE").status == 491
    peer.send("UPDATE", body=sdp(2))
    assert peer.last("UPDATE").status == 491
    peer.answer(peer.requests("INVITE")[0], 200, "", sdp(3))
    assert session.state == "confirmed"


@pytest.mark.parametrize("owner", [True, False])
def test_glare_ours_is_repeated(owner: bool) -> None:
    session: Session
    if owner:
        wire, _, peer, session, line, invite = calling()
        peer.answer(invite, 200, "", SDP)
        assert line.events[-1] == Answered()
        earliest, latest = 2.1, 4.0
    else:
        wire, _, peer, session, _ = talking()
        earliest, latest = 0.0, 2.0
    session.reinvite()
    wire.run(0.1)
    count = len(peer.requests("INVITE"))
    start = wire.clock.time
    peer.answer(peer.requests("INVITE")[-1], 491, run=0)
    while len(peer.requests("INVITE")) == count:
        wire.run(0.01)
        assert wire.clock.time < start + latest + 0.1
    assert wire.clock.time >= start + earliest
    peer.answer(peer.requests("INVITE")[-1], 200, "", sdp(2))
    assert session.state == "confirmed"


def test_glare_without_end_is_given_up() -> None:
    wire, _, peer, session, _ = talking()
    session.reinvite()
    for _ in range(8):
        wire.run(4.1)
        peer.answer(peer.requests("INVITE")[-1], 491)
    wire.run(60)
    assert len({invite.cseq.number for invite in peer.requests("INVITE")}) == 8
    assert session.state == "confirmed"


def test_glare_is_counted_from_the_last_success() -> None:
    wire, _, peer, session, _ = talking()
    for version in range(2, 12):
        session.reinvite()
        wire.run(0.1)
        peer.answer(peer.requests("INVITE")[-1], 491)
        wire.run(4.1)
        peer.answer(peer.requests("INVITE")[-1], 200, "", sdp(version))
    assert len({invite.cseq.number for invite in peer.requests("INVITE")}) == 20
    assert session.state == "confirmed"


def test_come_back_later() -> None:
    wire, _, peer, session, _ = talking()
    session.reinvite()
    wire.run(0.1)
    peer.answer(peer.requests("INVITE")[-1], 500, "Retry-After: 3")
    wire.run(2.9)
    assert len(peer.requests("INVITE")) == 1
    wire.run(0.2)
    assert len(peer.requests("INVITE")) == 2


def test_two_phones_reinvite_at_the_same_time() -> None:
    wire = Wire()
    alice, bob = Phone(wire.node("192.0.2.1")), Phone(wire.node("192.0.2.2"))
    ours, line = alice.call(bob.node)
    wire.run(1)
    theirs, their_line = bob.calls[0]
    ours.hold(True)
    theirs.hold(True)
    wire.run(10)
    assert line.media.exchanges == their_line.media.exchanges
    assert len(line.media.exchanges) == 3
    assert ours.state == theirs.state == "confirmed"
    ours.bye()
    quiet(wire, alice, bob)
    assert (line.end().reason, their_line.end().reason) == ("local_bye", "remote_bye")


def test_bye_crosses_a_reinvite_of_ours() -> None:
    wire, phone, peer, session, line = talking()
    session.reinvite()
    wire.run(0.1)
    peer.send("BYE")
    assert line.end().reason == "remote_bye"
    # The peer had accepted before it hung up: that 2xx is acknowledged all the same.
    peer.answer(peer.requests("INVITE")[0], 200, "", sdp(2))
    assert len(peer.requests("ACK")) == 1
    quiet(wire, phone)


def test_our_bye_crosses_a_reinvite_of_the_peer() -> None:
    wire, phone, peer, session, line = talking()
    session.bye()
    peer.send("INVITE", body=sdp(2))
    assert peer.last("INVITE").status == 481
    peer.send("ACK", branch=f"z9hG4bK-peer-{peer.branches}")
    peer.answer(peer.requests("BYE")[0], 200)
    assert line.end() == Ended("local_bye")
    quiet(wire, phone)


def test_bye_while_a_reinvite_of_ours_is_pending() -> None:
    wire, phone, peer, session, line = talking()
    session.reinvite()
    session.bye()
    wire.run(0.1)
    peer.answer(peer.requests("BYE")[0], 200)
    assert line.end() == Ended("local_bye")
    peer.answer(peer.requests("INVITE")[0], 487)
    quiet(wire, phone)


# --- INFO and others ---


@pytest.mark.parametrize("kind", ["application/dtmf-relay", "application/dtmf"])
def test_digits_by_info(kind: str) -> None:
    _, _, peer, _, line = talking()
    peer.send("INFO", body="Signal=5\r\nDuration=160\r\n", content_type=kind)
    assert peer.statuses("INFO") == [200]
    assert line.events[-1] == Info(kind, b"Signal=5\r\nDuration=160\r\n")


def test_other_infos() -> None:
    _, _, peer, _, line = talking()
    events = list(line.events)
    peer.send("INFO")
    assert peer.last("INFO").status == 200
    peer.send("INFO", body="x", content_type="application/isup")
    assert peer.last("INFO").status == 415
    assert "application/dtmf-relay" in (peer.last("INFO").headers.get("Accept") or "")
    peer.send("INFO", "Info-Package: foo", body="x", content_type="application/foo")
    assert peer.last("INFO").status == 469
    peer.send("INFO", "Content-Encoding: gzip", body="x", content_type="application/dtmf-relay")
    assert peer.last("INFO").status == 415
    assert peer.last("INFO").headers.get("Accept-Encoding") == "identity"
    peer.send("INFO", "Content-Disposition: x;handling=optional", body="x", content_type="a/b")
    assert peer.last("INFO").status == 200
    assert line.events == events


def test_unserved_methods_and_extensions_inside_a_dialog() -> None:
    _, _, peer, session, _ = talking()
    peer.send("MESSAGE", body="hi", content_type="text/plain")
    assert peer.last("MESSAGE").status == 405
    assert "INVITE" in peer.last("MESSAGE").allow
    peer.send("UPDATE", "Require: precondition, timer")
    assert peer.last("UPDATE").status == 420
    assert peer.last("UPDATE").unsupported == ("precondition",)
    peer.send("NOTIFY", "Event: refer\nSubscription-State: active")
    assert peer.last("NOTIFY").status == 481
    peer.send("PRACK", "RAck: 1 1 INVITE")
    assert peer.last("PRACK").status == 481
    peer.send("OPTIONS")
    assert peer.last("OPTIONS").status == 200
    assert state_of(session) == "confirmed"
