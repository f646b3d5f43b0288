"""Sessions that begin with our INVITE: RFC 3261 13.2, 9.1, 8.1.3.4, forks and races."""

from __future__ import annotations

import pytest

from tests.sip.calls import NO_CODEC, SDP, Line, Media, Peer, Phone, calling, quiet, sdp, state_of
from tests.sip.wire import Wire
from voiced.sip.digest import Authenticator, Credentials
from voiced.sip.events import Answered, Ended, MediaChanged, Progress
from voiced.sip.message import Request
from voiced.sip.options import Options
from voiced.sip.uri import NameAddr, SipUri


def test_a_call_that_is_answered_and_hung_up() -> None:
    wire, phone, peer, session, line, invite = calling()
    assert invite.content_type == "application/sdp"
    assert invite.from_.tag
    assert invite.contacts
    assert "PRACK" in invite.allow
    peer.answer(invite, 100)
    assert state_of(session) == "calling"
    peer.answer(invite, 180)
    assert state_of(session) == "early"
    peer.answer(invite, 200, "Record-Route: <sip:192.0.2.9:5060;lr>", SDP)
    assert line.events == [Progress(180, False, "Whatever"), MediaChanged(), Answered()]
    (ack,) = peer.requests("ACK")
    assert ack.cseq.number == invite.cseq.number
    assert not ack.body
    assert str(ack.uri) == "sip:peer@192.0.2.9:5060"
    assert [str(route.uri) for route in ack.routes] == ["sip:192.0.2.9:5060;lr"]
    session.bye()
    wire.run(0.1)
    (bye,) = peer.requests("BYE")
    assert bye.cseq.number == invite.cseq.number + 1
    assert bye.to.tag == "peer"
    peer.answer(bye, 200)
    assert line.end() == Ended("local_bye")
    quiet(wire, phone)


def test_every_2xx_is_acknowledged() -> None:
    _, _, peer, _, line, invite = calling()
    for _ in range(3):
        peer.answer(invite, 200, "", SDP)
    acks = peer.requests("ACK")
    assert len(acks) == 3
    assert len({ack.to.tag for ack in acks}) == 1
    assert not peer.requests("BYE")
    assert line.of(Answered) == [Answered()]


def test_early_media_is_no_answer() -> None:
    _, _, peer, session, line, invite = calling()
    peer.answer(invite, 183, "", SDP)
    assert line.events == [MediaChanged(), Progress(183, True, "Whatever")]
    assert line.media.earlies == 1
    assert state_of(session) == "early"
    peer.answer(invite, 183, "", SDP)
    assert line.of(MediaChanged) == [MediaChanged()]
    peer.answer(invite, 200, "", SDP)
    assert line.of(MediaChanged) == [MediaChanged()]
    assert line.events[-1] == Answered()


def test_an_answer_that_changes_between_183_and_200() -> None:
    _, _, peer, _, line, invite = calling()
    peer.answer(invite, 183, "", SDP)
    peer.answer(invite, 200, "", sdp(2, port=4444))
    assert len(line.of(MediaChanged)) == 2
    agreed = line.media.negotiator.agreed
    assert agreed is not None
    assert agreed.remote_rtp_port == 4444


def test_requests_of_a_fork_that_was_not_taken() -> None:
    _, _, peer, session, _, invite = calling()
    peer.answer(invite, 183, tag="a")
    peer.answer(invite, 200, "", SDP, tag="b")
    peer.tag = "a"
    peer.send("OPTIONS")
    peer.tag = "b"
    peer.send("OPTIONS")
    assert peer.statuses("OPTIONS") == [481, 200]
    assert session.state == "confirmed"


def test_the_answer_of_the_fork_that_is_answered_holds_in_the_end() -> None:
    _, _, peer, _, line, invite = calling()
    peer.answer(invite, 183, "", sdp(1, port=4002), tag="a")
    peer.answer(invite, 183, "", sdp(1, port=4004), tag="b")
    peer.answer(invite, 200, "", sdp(1, port=4002), tag="a")
    agreed = line.media.negotiator.agreed
    assert agreed is not None
    assert agreed.remote_rtp_port == 4002
    assert len(line.of(MediaChanged)) == 3


def test_a_2xx_without_sdp_after_a_183_with_it() -> None:
    _, _, peer, session, _, invite = calling()
    peer.answer(invite, 183, "", SDP)
    peer.answer(invite, 200)
    assert session.state == "confirmed"


def test_forks_the_one_that_answers_counts() -> None:
    wire, phone, peer, session, line, invite = calling()
    peer.answer(invite, 183, "", sdp(1, port=4002), tag="a")
    peer.answer(invite, 180, tag="b")
    peer.answer(invite, 200, "", sdp(1, port=4004), tag="b")
    (ack,) = peer.requests("ACK")
    assert ack.to.tag == "b"
    agreed = line.media.negotiator.agreed
    assert agreed is not None
    assert agreed.remote_rtp_port == 4004
    # The other one answers too: it is acknowledged and hung up, and the call goes on.
    peer.answer(invite, 200, "", sdp(1, port=4002), tag="a")
    assert [ack.to.tag for ack in peer.requests("ACK")] == ["b", "a"]
    (bye,) = peer.requests("BYE")
    assert bye.to.tag == "a"
    peer.answer(bye, 200)
    peer.answer(invite, 200, "", sdp(1, port=4002), tag="a")
    assert [ack.to.tag for ack in peer.requests("ACK")] == ["b", "a", "a"]
    assert len(peer.requests("BYE")) == 1
    assert session.state == "confirmed"
    session.bye()
    wire.run(0.1)
    assert peer.requests("BYE")[-1].to.tag == "b"
    quiet(wire, phone)


def test_a_fork_that_answers_after_the_call_is_over() -> None:
    wire, phone, peer, _, line, invite = calling()
    peer.answer(invite, 486)
    assert line.end().reason == "rejected"
    peer.answer(invite, 200, "", SDP, tag="late")
    assert peer.requests("ACK")[-1].to.tag == "late"
    assert peer.requests("BYE")[-1].to.tag == "late"
    quiet(wire, phone)


def test_an_unsolicited_2xx_is_not_believed() -> None:
    _, _, peer, _, _, invite = calling()
    foreign = invite.copy()
    foreign.headers.set("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK-unknown")
    foreign.headers.set("Call-ID", "of-somebody-else")
    peer.answer(foreign, 200, "", SDP)
    assert not peer.requests("ACK")
    assert not peer.requests("BYE")


@pytest.mark.parametrize("status", [300, 404, 486, 480, 503, 600, 603])
def test_refusals_are_told_apart(status: int) -> None:
    wire, phone, peer, _, line, invite = calling()
    peer.answer(invite, status, "Retry-After: 5", reason="No")
    ended = line.end()
    assert (ended.reason, ended.status, ended.text) == ("rejected", status, "No")
    assert ("Retry-After", "5") in ended.headers
    assert len(peer.requests("ACK")) == 1
    quiet(wire, phone)


def test_nobody_answers() -> None:
    wire, phone, _, _, line, _ = calling()
    wire.run(33)
    assert (line.end().reason, line.end().status) == ("timeout", 408)
    quiet(wire, phone)


def test_nobody_there() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", transport="tcp"))
    gone = wire.node("192.0.2.9", transport="tcp")
    gone.up = False
    _, line = phone.call(gone)
    wire.run(0.1)
    assert (line.end().reason, line.end().status) == ("transport", 503)
    quiet(wire, phone)


def test_rung_out() -> None:
    wire, phone, peer, _, line, invite = calling(timeout_s=20)
    peer.answer(invite, 180)
    wire.run(20)
    (cancel,) = peer.requests("CANCEL")
    peer.answer(cancel, 200)
    assert not line.over()
    peer.answer(invite, 487)
    assert (line.end().reason, line.end().status) == ("timeout", 408)
    quiet(wire, phone)


def test_cancelled() -> None:
    wire, phone, peer, session, line, invite = calling()
    session.bye([("Reason", "SIP;cause=487")])
    wire.run(0.1)
    assert not peer.requests("CANCEL")
    peer.answer(invite, 100)
    (cancel,) = peer.requests("CANCEL")
    assert cancel.headers.get("Reason") == "SIP;cause=487"
    peer.answer(cancel, 200)
    peer.answer(invite, 487)
    assert (line.end().reason, line.end().status) == ("cancelled", 487)
    quiet(wire, phone)


def test_a_cancel_that_nobody_confirms() -> None:
    wire, phone, peer, session, line, invite = calling()
    peer.answer(invite, 180)
    session.bye()
    wire.run(33)
    assert line.end().reason == "cancelled"
    quiet(wire, phone)


def test_an_answer_that_crosses_the_cancel() -> None:
    wire, phone, peer, session, line, invite = calling()
    peer.answer(invite, 180)
    session.bye()
    peer.answer(invite, 200, "", SDP)
    assert len(peer.requests("ACK")) == 1
    (bye,) = peer.requests("BYE")
    assert not line.over()
    peer.answer(bye, 200)
    assert line.end().reason == "cancelled"
    assert Answered() not in line.events
    quiet(wire, phone)


@pytest.mark.parametrize("answer", ["", NO_CODEC, "rubbish"])
def test_an_answer_that_does_not_fit_is_acknowledged_and_hung_up(answer: str) -> None:
    wire, phone, peer, _, line, invite = calling()
    peer.answer(invite, 200, "", answer)
    assert len(peer.requests("ACK")) == 1
    peer.answer(peer.requests("BYE")[0], 200)
    assert line.end().reason == "media_refused"
    assert Answered() not in line.events
    quiet(wire, phone)


def test_a_provisional_answer_that_does_not_fit_is_passed_over() -> None:
    _, _, peer, session, line, invite = calling()
    peer.answer(invite, 183, "", NO_CODEC)
    assert line.events == [Progress(183, False, "Whatever")]
    peer.answer(invite, 200, "", SDP)
    assert session.state == "confirmed"


def test_redirections_are_reported_unless_followed() -> None:
    _, _, peer, _, line, invite = calling()
    peer.answer(invite, 302, "Contact: <sip:desk@192.0.2.8>", contact=False)
    ended = line.end()
    assert ended.status == 302
    assert ("Contact", "<sip:desk@192.0.2.8>") in ended.headers


def test_a_redirection_that_is_followed() -> None:
    wire, phone, peer, session, line, invite = calling(Options(follow_redirects=2))
    desk = Peer(wire.node("192.0.2.8", name="desk"), phone.node)
    peer.answer(invite, 180)
    peer.answer(invite, 302, "Contact: <sip:desk@192.0.2.8?X=y>", contact=False)
    (second,) = desk.requests("INVITE")
    assert str(second.uri) == "sip:desk@192.0.2.8"
    assert second.cseq.number == invite.cseq.number + 1
    assert (second.call_id, second.from_.tag) == (invite.call_id, invite.from_.tag)
    assert second.to.tag is None
    desk.answer(second, 200, "", SDP)
    assert session.state == "confirmed"
    assert not line.over()


def test_redirections_in_a_circle() -> None:
    wire, phone, peer, _, line, invite = calling(Options(follow_redirects=9))
    desk = Peer(wire.node("192.0.2.8", name="desk"), phone.node)
    peer.answer(invite, 302, "Contact: <sip:desk@192.0.2.8>", contact=False)
    desk.answer(desk.requests("INVITE")[0], 302, "Contact: <sip:bob@192.0.2.9:5060>", contact=False)
    assert line.end().status == 302
    assert len(peer.requests("INVITE")) == 1


def test_redirections_end() -> None:
    wire, phone, peer, _, line, invite = calling(Options(follow_redirects=1))
    desk = Peer(wire.node("192.0.2.8", name="desk"), phone.node)
    peer.answer(invite, 302, "Contact: <sip:desk@192.0.2.8>", contact=False)
    desk.answer(desk.requests("INVITE")[0], 302, "Contact: <sip:x@192.0.2.7>", contact=False)
    assert line.end().status == 302


def test_a_challenge_is_answered_and_the_ack_repeats_the_credentials() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone"))
    peer = Peer(wire.node("192.0.2.9", name="peer"), phone.node)
    line_media = Media("192.0.2.1")
    line = Line(line_media)
    uri = SipUri("sip", "bob", None, "192.0.2.9", 5060)
    phone.agent.invite(
        uri,
        targets=[peer.node.target()],
        from_=NameAddr(None, SipUri("sip", "alice", None, "192.0.2.1")),
        media=line_media,
        observer=line,
        authenticator=Authenticator(Credentials("alice", "s3cret")),
    )
    wire.run(0.1)
    peer.answer(
        peer.requests("INVITE")[0],
        407,
        'Proxy-Authenticate: Digest realm="x", nonce="n", algorithm=MD5, qop="auth"',
    )
    first, second = peer.requests("INVITE")
    assert second.cseq.number == first.cseq.number + 1
    peer.answer(second, 200, "", SDP)
    ack = peer.requests("ACK")[-1]
    assert ack.cseq.number == second.cseq.number
    assert ack.headers.get("Proxy-Authorization") == second.headers.get("Proxy-Authorization")
    assert line.events[-1] == Answered()


def test_another_try_knows_nothing_of_the_forks_of_the_one_before() -> None:
    """A peer may use its tag again: CSeq, RSeq and answer begin anew all the same."""
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone"))
    peer = Peer(wire.node("192.0.2.9", name="peer"), phone.node)
    line = Line(Media("192.0.2.1"))
    session = phone.agent.invite(
        SipUri("sip", "bob", None, "192.0.2.9", 5060),
        targets=[peer.node.target()],
        from_=NameAddr(None, SipUri("sip", "alice", None, "192.0.2.1")),
        media=line.media,
        observer=line,
        authenticator=Authenticator(Credentials("alice", "s3cret")),
    )
    wire.run(0.1)
    first = peer.requests("INVITE")[0]
    peer.answer(first, 183, "Require: 100rel\nRSeq: 9", SDP)
    peer.answer(peer.requests("PRACK")[0], 200)
    challenge = 'WWW-Authenticate: Digest realm="x", nonce="n", algorithm=MD5, qop="auth"'
    peer.answer(first, 401, challenge)
    second = peer.requests("INVITE")[-1]
    peer.answer(second, 183, "Require: 100rel\nRSeq: 1", sdp(2, port=4100))
    peer.answer(second, 200, "", sdp(2, port=4100))
    assert peer.requests("PRACK")[-1].headers.get("RAck") == f"1 {second.cseq.number} INVITE"
    assert line.media.exchanges[-1][1] == sdp(2, port=4100).encode()
    session.bye()
    wire.run(0.1)
    assert peer.requests("BYE")[0].cseq.number > peer.requests("PRACK")[-1].cseq.number


def test_a_2xx_without_contact_goes_to_the_request_uri() -> None:
    _, _, peer, session, _, invite = calling()
    peer.answer(invite, 200, "", SDP, contact=False)
    assert session.state == "confirmed"
    assert str(peer.requests("ACK")[0].uri) == "sip:bob@192.0.2.9:5060"


def test_unreadable_optional_fields_do_not_cost_the_call() -> None:
    _, _, peer, session, _, invite = calling()
    peer.answer(invite, 180, "RSeq: many\nRequire: 100rel")
    peer.answer(invite, 200, "Session-Expires: soon\nContact: <<", SDP, contact=False)
    assert session.state == "confirmed"


def test_requests_inside_an_early_dialog() -> None:
    _, _, peer, session, line, invite = calling()
    peer.answer(invite, 180)
    peer.send("OPTIONS")
    assert peer.statuses("OPTIONS") == [200]
    peer.send("INVITE", body=SDP)
    assert peer.statuses("INVITE") == [491]
    peer.send("UPDATE", body=SDP)
    assert peer.statuses("UPDATE") == [491]
    peer.send("BYE")
    assert peer.statuses("BYE") == [481]
    assert state_of(session) == "early"
    assert not line.over()


def test_an_invite_within_an_early_dialog_is_too_early() -> None:
    """Offer and answer are complete; the INVITE that made the dialog is not."""
    _, _, peer, session, _, invite = calling()
    peer.answer(invite, 183, "Require: 100rel\nRSeq: 1", SDP)
    peer.answer(peer.requests("PRACK")[0], 200)
    peer.send("INVITE", body=sdp(2))
    assert peer.statuses("INVITE") == [491]
    peer.send("UPDATE", body=sdp(2))
    assert peer.statuses("UPDATE") == [200]
    session.bye()
    peer.send("UPDATE", body=sdp(3))
    assert peer.statuses("UPDATE") == [200, 481]


def test_headers_and_route_of_the_owner() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone"))
    peer = wire.node("192.0.2.9", name="peer")
    phone.call(peer, headers=[("X-Ticket", "42")])
    wire.run(0.1)
    invite = peer.received[0]
    assert isinstance(invite, Request)
    assert invite.headers.get("X-Ticket") == "42"


def test_no_address_at_all() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1"))
    line = Line(Media("192.0.2.1"))
    phone.agent.invite(
        SipUri("sip", "bob", None, "nowhere.example"),
        targets=[],
        from_=NameAddr(None, SipUri("sip", "alice", None, "192.0.2.1")),
        media=line.media,
        observer=line,
    )
    wire.run(0.1)
    assert (line.end().reason, line.end().status) == ("transport", 503)
    quiet(wire, phone)


def test_forks_are_bounded() -> None:
    wire, phone, peer, session, line, invite = calling()
    for number in range(20):
        peer.answer(invite, 180, "Require: 100rel\nRSeq: 1", tag=f"t{number}", run=0)
    wire.run(0.1)
    assert len({prack.to.tag for prack in peer.requests("PRACK")}) == 16
    peer.answer(invite, 200, "", SDP, tag="t3")
    assert session.state == "confirmed"
    session.bye()
    quiet(wire, phone)
    assert line.end().reason == "local_bye"


def test_the_next_address_is_tried_and_the_first_one_is_not_forgotten() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone"))
    slow = Peer(wire.node("192.0.2.8", name="slow"), phone.node)
    peer = Peer(wire.node("192.0.2.9", name="peer"), phone.node)
    line = Line(Media("192.0.2.1"))
    session = phone.agent.invite(
        SipUri("sip", "bob", None, "pbx.example"),
        targets=[slow.node.target(), peer.node.target()],
        from_=NameAddr(None, SipUri("sip", "alice", None, "192.0.2.1")),
        media=line.media,
        observer=line,
    )
    wire.run(0.1)
    slow.answer(slow.requests("INVITE")[0], 183, "", sdp(1, port=4008), tag="slow")
    slow.answer(slow.requests("INVITE")[0], 503)
    peer.answer(peer.requests("INVITE")[0], 200, "", SDP)
    assert state_of(session) == "confirmed"
    agreed = line.media.negotiator.agreed
    assert agreed is not None
    assert agreed.remote_rtp_port == 4000
    slow.answer(slow.requests("INVITE")[0], 200, "", SDP, tag="late")
    assert slow.requests("ACK")[-1].cseq.number == slow.requests("INVITE")[0].cseq.number
    assert slow.requests("BYE") or peer.requests("BYE")
    assert state_of(session) == "confirmed"


def test_a_silent_address_is_left_while_the_caller_still_waits() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone"))
    dead = Peer(wire.node("192.0.2.8", name="dead"), phone.node)
    peer = Peer(wire.node("192.0.2.9", name="peer"), phone.node)
    line = Line(Media("192.0.2.1"))
    session = phone.agent.invite(
        SipUri("sip", "bob", None, "pbx.example"),
        targets=[dead.node.target(), peer.node.target()],
        from_=NameAddr(None, SipUri("sip", "alice", None, "192.0.2.1")),
        media=line.media,
        observer=line,
    )
    wire.run(7.9)
    assert not peer.requests("INVITE")
    wire.run(0.2)
    peer.answer(peer.requests("INVITE")[0], 200, "", SDP)
    assert state_of(session) == "confirmed"
    dead.answer(dead.requests("INVITE")[0], 200, "", SDP, tag="late")
    assert dead.requests("BYE")
    assert state_of(session) == "confirmed"
