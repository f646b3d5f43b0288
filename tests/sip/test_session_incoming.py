"""Sessions that begin with an INVITE to us: RFC 3261 13.3, 9.2, 14 and 15."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.sip.calls import NO_CODEC, SDP, Peer, Phone, called, quiet, state_of, talking
from tests.sip.wire import Packet, Wire
from voiced.sip.digest import Authenticator, Credentials
from voiced.sip.events import Confirmed, Ended, MediaChanged
from voiced.sip.policy import Admit
from voiced.sip.session import InvalidState, Session
from voiced.sip.uas import ServerSession


def ring(session: ServerSession) -> None:
    session.ring()


def leave(session: ServerSession) -> None:
    """Decide later."""


def test_answer_and_hang_up_by_the_peer() -> None:
    wire, phone, peer = called()
    session, line = phone.calls[0]
    assert session.peer == "trunk"
    ok = peer.last("INVITE")
    assert ok.status == 200
    assert ok.content_type == "application/sdp"
    assert str(ok.contacts[0].uri) == "sip:voiced@192.0.2.1:5060"
    assert "UPDATE" in ok.allow
    assert line.events == [MediaChanged()]
    assert session.state == "accepted"
    peer.send("ACK")
    assert line.events == [MediaChanged(), Confirmed()]
    peer.send("BYE", "Reason: Q.850;cause=16")
    assert peer.statuses("BYE") == [200]
    assert line.end().reason == "remote_bye"
    assert ("Reason", "Q.850;cause=16") in line.end().headers
    quiet(wire, phone)


def test_every_answer_but_100_has_our_tag() -> None:
    wire, phone, peer = called(on_invite=leave)
    wire.run(0.5)
    session, _ = phone.calls[0]
    session.ring()
    session.reject(486)
    wire.run(0.1)
    assert peer.statuses("INVITE") == [100, 180, 486]
    tags = [response.to.tag for response in peer.responses("INVITE")]
    assert tags[0] is None
    assert tags[1] == tags[2] is not None


def test_record_routes_are_repeated_and_followed() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone"))
    proxy = wire.node("192.0.2.7", name="proxy")
    peer = Peer(wire.node("192.0.2.9", name="peer"), phone.node)
    peer.invite("Record-Route: <sip:192.0.2.7;lr>, <sip:192.0.2.8;lr>")
    ok = peer.last("INVITE")
    assert [str(route.uri) for route in ok.record_routes] == [
        "sip:192.0.2.7;lr",
        "sip:192.0.2.8;lr",
    ]
    peer.send("ACK")
    phone.calls[0][0].bye()
    wire.run(0.1)
    bye = proxy.received[-1]
    assert [str(route.uri) for route in bye.routes] == ["sip:192.0.2.7;lr", "sip:192.0.2.8;lr"]


def test_the_2xx_is_repeated_until_the_ack() -> None:
    wire, phone, peer = called()
    wire.run(12)
    times = [p.at for p in wire.log if str(p) == "phone>peer 200 INVITE"]
    gaps = [round(after - before, 3) for before, after in pairwise(times)]
    assert gaps == [0.5, 1.0, 2.0, 4.0, 4.0]
    peer.send("ACK")
    count = len(peer.responses("INVITE"))
    wire.run(40)
    assert len(peer.responses("INVITE")) == count
    assert phone.calls[0][0].state == "confirmed"


def test_the_2xx_is_repeated_over_tcp_too() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone", transport="tcp"))
    peer = Peer(wire.node("192.0.2.9", name="peer", transport="tcp"), phone.node)
    peer.invite()
    wire.run(1.0)
    assert peer.statuses("INVITE") == [200, 200]


def test_no_ack_ends_with_bye() -> None:
    wire, phone, peer = called()
    wire.run(31.8)
    assert not peer.requests("BYE")
    wire.run(0.5)
    peer.answer(peer.requests("BYE")[0], 200)
    _, line = phone.calls[0]
    assert line.end() == Ended("ack_timeout")
    quiet(wire, phone)


def test_the_owner_learns_at_once_that_no_ack_came() -> None:
    """A peer that sends none is mostly gone: its answer to the BYE would take another 32 s."""
    wire, phone, peer = called()
    ((_, line),) = phone.calls
    wire.run(31)
    assert not line.over()
    wire.run(2)
    assert line.end() == Ended("ack_timeout")
    assert len(peer.requests("BYE")) >= 1
    assert phone.agent.sessions == 0
    wire.run(40)
    assert len(peer.requests("BYE")) > 5  # repeated all the same
    quiet(wire, phone)


def test_a_bye_of_ours_waits_for_the_ack() -> None:
    wire, phone, peer = called()
    session, line = phone.calls[0]
    session.bye([("Reason", "SIP;cause=200")])
    wire.run(3)
    assert not peer.requests("BYE")
    assert not line.over()
    peer.send("ACK")
    bye = peer.requests("BYE")[0]
    assert bye.headers.get("Reason") == "SIP;cause=200"
    assert Confirmed() not in line.events
    peer.answer(bye, 200)
    assert line.end() == Ended("local_bye")
    quiet(wire, phone)


def test_an_ack_of_another_number_does_not_release_our_bye() -> None:
    wire, phone, peer = called()
    phone.calls[0][0].bye()
    peer.send("ACK", cseq=7)
    assert not peer.requests("BYE")
    peer.send("ACK")
    wire.run(0.1)
    assert len(peer.requests("BYE")) == 1


def test_a_bye_of_ours_waits_no_longer_than_64_t1() -> None:
    wire, phone, peer = called()
    session, line = phone.calls[0]
    session.bye()
    wire.run(32.5)
    peer.answer(peer.requests("BYE")[0], 481)
    assert line.end() == Ended("local_bye")


def test_a_bye_from_the_peer_before_its_ack() -> None:
    wire, phone, peer = called()
    peer.send("BYE")
    assert peer.statuses("BYE") == [200]
    ended = phone.calls[0][1].end()
    assert ended.reason == "remote_bye"
    wire.run(40)
    assert not peer.requests("BYE")
    quiet(wire, phone)


def test_bye_twice_is_one_bye() -> None:
    wire, phone, peer, session, line = talking()
    session.bye()
    session.bye()
    wire.run(0.1)
    (bye,) = peer.requests("BYE")
    peer.answer(bye, 200)
    session.bye()
    assert line.end() == Ended("local_bye")
    quiet(wire, phone)


def test_a_bye_without_an_answer_ends_after_64_t1() -> None:
    wire, phone, _, session, line = talking()
    session.bye()
    wire.run(31)
    assert not line.over()
    wire.run(2)
    assert line.end() == Ended("local_bye")
    quiet(wire, phone)


def test_byes_that_cross() -> None:
    wire, phone, peer, session, line = talking()
    session.bye()
    peer.send("BYE")
    assert peer.statuses("BYE") == [200]
    assert line.end() == Ended("local_bye")
    peer.answer(peer.requests("BYE")[0], 200)
    quiet(wire, phone)


def test_cancel() -> None:
    wire, phone, peer = called(on_invite=ring)
    _, line = phone.calls[0]
    branch = "z9hG4bK-peer-1"
    peer.send("CANCEL", "Reason: SIP;cause=200;text=elsewhere", branch=branch)
    assert peer.statuses("CANCEL") == [200]
    assert peer.statuses("INVITE") == [180, 487]
    assert peer.last("CANCEL").to.tag == peer.last("INVITE").to.tag
    assert (line.end().reason, line.end().status) == ("cancelled", 487)
    assert ("Reason", "SIP;cause=200;text=elsewhere") in line.end().headers
    peer.send("ACK", branch=branch)
    quiet(wire, phone)


def test_cancel_after_the_answer_changes_nothing() -> None:
    _, phone, peer = called()
    peer.send("CANCEL", branch="z9hG4bK-peer-1")
    assert peer.statuses("CANCEL") == [200]
    assert set(peer.statuses("INVITE")) == {200}
    peer.send("ACK")
    assert phone.calls[0][0].state == "confirmed"


def test_cancel_of_nothing() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1"))
    peer = Peer(wire.node("192.0.2.9"), phone.node)
    peer.send("CANCEL", branch="z9hG4bK-none", cseq=5)
    assert peer.statuses("CANCEL") == [481]


def test_an_early_dialog_ended_with_bye() -> None:
    _, phone, peer = called(on_invite=ring)
    peer.send("BYE")
    assert peer.statuses("BYE") == [200]
    assert peer.statuses("INVITE") == [180, 487]
    ended = phone.calls[0][1].end()
    assert ended.reason == "remote_bye"


def test_reject() -> None:
    wire, phone, peer = called(
        on_invite=lambda session: session.reject(503, "Full", [("Retry-After", "7")])
    )
    refusal = peer.last("INVITE")
    assert (refusal.status, refusal.reason, refusal.retry_after) == (503, "Full", 7)
    assert phone.calls[0][1].end() == Ended("rejected", 503, "Full")
    peer.send("ACK", branch="z9hG4bK-peer-1")
    quiet(wire, phone)


def test_hanging_up_before_answering_declines() -> None:
    _, phone, peer = called(on_invite=lambda session: session.bye())
    assert peer.statuses("INVITE") == [603]
    assert phone.calls[0][1].end() == Ended("rejected", 603, "Decline")


def test_after_the_end_nothing_can_be_answered() -> None:
    wire, phone, peer = called(on_invite=lambda session: session.reject(486))
    session, _ = phone.calls[0]
    session.accept()
    session.ring()
    session.reject(603)
    wire.run(0.1)
    assert peer.statuses("INVITE")[0] == 486
    assert set(peer.statuses("INVITE")) == {486}


def test_no_codec_in_common() -> None:
    wire, phone, peer = called(body=NO_CODEC)
    refusal = peer.last("INVITE")
    assert refusal.status == 488
    assert (refusal.headers.get("Warning") or "").startswith("305 ")
    ended = phone.calls[0][1].end()
    assert (ended.reason, ended.status) == ("media_refused", 488)
    peer.send("ACK", branch="z9hG4bK-peer-1")
    quiet(wire, phone)


def test_an_offer_that_is_no_sdp() -> None:
    _, phone, peer = called(body="hello")
    assert peer.last("INVITE").status == 400
    ended = phone.calls[0][1].end()
    assert ended.reason == "media_refused"


def test_early_media_and_the_same_answer_in_the_2xx() -> None:
    wire, phone, peer = called(on_invite=lambda session: session.ring(183, early_media=True))
    session, line = phone.calls[0]
    early = peer.last("INVITE")
    assert (early.status, early.content_type) == (183, "application/sdp")
    assert line.events == [MediaChanged()]
    session.accept()
    wire.run(0.1)
    assert peer.last("INVITE").body == early.body
    assert line.events == [MediaChanged()]


def test_a_provisional_is_repeated_every_minute() -> None:
    wire, phone, peer = called(on_invite=ring)
    wire.run(130)
    assert peer.statuses("INVITE") == [180, 180, 180]
    phone.calls[0][0].accept()
    wire.run(0.1)
    peer.send("ACK")
    wire.run(130)
    assert peer.statuses("INVITE") == [180, 180, 180, 200]


def test_an_invite_that_expires() -> None:
    wire, phone, peer = called(on_invite=ring, headers="Expires: 20")
    wire.run(19)
    assert peer.statuses("INVITE") == [180]
    wire.run(2)
    assert 487 in peer.statuses("INVITE")
    assert phone.calls[0][1].end() == Ended("timeout", 487, "INVITE expired")


def test_an_expiry_does_not_touch_an_answered_call() -> None:
    wire, _, peer = called(headers="Expires: 20")
    peer.send("ACK")
    wire.run(30)
    assert set(peer.statuses("INVITE")) == {200}


def test_late_offer() -> None:
    wire, phone, peer = called(body="")
    _, line = phone.calls[0]
    assert peer.last("INVITE").content_type == "application/sdp"
    assert line.events == []
    peer.send("ACK", body=SDP)
    assert line.events == [MediaChanged(), Confirmed()]
    assert line.media.negotiator.agreed is not None
    peer.send("BYE")
    quiet(wire, phone)


@pytest.mark.parametrize("answer", ["", NO_CODEC, "rubbish"])
def test_late_offer_without_a_usable_answer(answer: str) -> None:
    wire, phone, peer = called(body="")
    peer.send("ACK", body=answer)
    peer.answer(peer.requests("BYE")[0], 200)
    _, line = phone.calls[0]
    assert line.end().reason == "media_refused"
    assert Confirmed() not in line.events
    quiet(wire, phone)


def test_a_repeated_ack_says_nothing_new() -> None:
    _, phone, peer = called()
    peer.send("ACK")
    peer.send("ACK")
    assert phone.calls[0][1].of(Confirmed) == [Confirmed()]


def test_an_ack_of_another_number_or_tag_is_not_ours() -> None:
    _, phone, peer = called()
    peer.send("ACK", cseq=7)
    peer.send("ACK", to_tag="else")
    tag, peer.tag = peer.tag, "stranger"
    peer.send("ACK")
    assert state_of(phone.calls[0][0]) == "accepted"
    peer.tag = tag
    peer.send("ACK")
    assert state_of(phone.calls[0][0]) == "confirmed"


def test_a_lost_2xx_is_seen_in_its_repetition() -> None:
    wire = Wire()
    lost: list[Packet] = []

    def fate(packet: Packet) -> tuple[float, ...]:
        if "200 INVITE" in str(packet) and not lost:
            lost.append(packet)
            return ()
        return (0.0,)

    wire.fate = fate
    alice, bob = Phone(wire.node("192.0.2.1")), Phone(wire.node("192.0.2.2"))
    session, _ = alice.call(bob.node)
    wire.run(1)
    assert lost
    assert session.state == "confirmed"
    assert bob.calls[0][0].state == "confirmed"


def test_a_call_without_media_or_observer() -> None:
    def accept_without_media(session: ServerSession) -> None:
        session.media = None
        with pytest.raises(InvalidState):
            session.accept()
        with pytest.raises(InvalidState):
            session.ring(183, early_media=True)
        session.observer = None

    _, _, peer = called(on_invite=accept_without_media)
    assert peer.statuses("INVITE") == [500]


def test_what_needs_a_call_that_stands() -> None:
    _, phone, _ = called()
    session: Session = phone.calls[0][0]
    with pytest.raises(InvalidState):
        session.info(b"Signal=1", "application/dtmf-relay")
    with pytest.raises(InvalidState):
        session.refer("sip:desk@192.0.2.9")


def test_sips_gets_a_sips_contact() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1"))
    peer = Peer(wire.node("192.0.2.9"), phone.node)
    peer.remote_uri = "sips:voiced@192.0.2.1"
    peer.invite()
    assert str(peer.last("INVITE").contacts[0].uri).startswith("sips:")


def test_a_peer_that_challenges_our_bye() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1"))
    phone.admission = Admit("trunk", Authenticator(Credentials("alice", "s3cret")))
    peer = Peer(wire.node("192.0.2.9"), phone.node)
    peer.invite()
    peer.send("ACK")
    session, line = phone.calls[0]
    session.bye()
    wire.run(0.1)
    peer.answer(
        peer.requests("BYE")[0],
        401,
        'WWW-Authenticate: Digest realm="x", nonce="n", algorithm=MD5, qop="auth"',
    )
    first, second = peer.requests("BYE")
    assert second.cseq.number == first.cseq.number + 1
    assert "Authorization" in second.headers
    peer.answer(second, 200)
    assert line.end() == Ended("local_bye")
