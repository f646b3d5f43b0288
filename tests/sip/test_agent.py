"""The user agent core: requests outside dialogs, RFC 3261 section 8.2."""

from __future__ import annotations

import pytest

from tests.sip.calls import SDP, Peer, Phone, called, quiet, talking
from tests.sip.wire import Wire
from voiced.sip.errors import ParseError
from voiced.sip.message import Request, Response, parse
from voiced.sip.options import Options, targets_of
from voiced.sip.policy import Drop, Refuse
from voiced.sip.uac import ClientSession
from voiced.sip.uri import SipUri, parse_uri


def lone(options: Options | None = None) -> tuple[Wire, Phone, Peer]:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone"), options)
    return wire, phone, Peer(wire.node("192.0.2.9", name="peer"), phone.node)


def test_options() -> None:
    wire, phone, peer = lone()
    peer.send("OPTIONS")
    ok = peer.last("OPTIONS")
    assert ok.status == 200
    assert ok.to.tag
    assert {"INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE"} <= set(ok.allow)
    assert ok.headers.get_all("Accept") == ["application/sdp"]
    assert {"timer", "100rel"} <= set(ok.supported)
    assert "Server" not in ok.headers
    phone.retry_after = 30
    peer.send("OPTIONS")
    assert (peer.last("OPTIONS").status, peer.last("OPTIONS").retry_after) == (503, 30)
    quiet(wire, phone)


def test_busy_and_full() -> None:
    _, phone, peer = lone(Options(max_sessions=1, retry_after_s=9))
    phone.retry_after = 30
    peer.invite()
    assert (peer.last("INVITE").status, peer.last("INVITE").retry_after) == (503, 30)
    phone.retry_after = None
    peer.call_id, peer.remote_tag = "call-2", None
    peer.invite()
    assert peer.last("INVITE").status == 200
    peer.send("ACK")
    peer.call_id, peer.remote_tag = "call-3", None
    peer.invite()
    assert (peer.last("INVITE").status, peer.last("INVITE").retry_after) == (503, 9)
    assert len(phone.calls) == 1


@pytest.mark.parametrize("method", ["BYE", "INFO", "UPDATE", "NOTIFY", "PRACK"])
def test_what_needs_a_dialog(method: str) -> None:
    _, _, peer = lone()
    peer.send(method)
    assert peer.statuses(method) == [481]
    peer.send(method, to_tag="unknown")
    assert peer.statuses(method) == [481, 481]


def test_an_unknown_dialog() -> None:
    _, phone, peer = talking()[:3]
    for method in ("INVITE", "OPTIONS", "BYE", "REFER"):
        peer.send(method, to_tag="unknown")
        assert peer.last(method).status == 481
    tag, peer.tag = peer.tag, "somebody-else"
    peer.send("BYE")
    assert peer.last("BYE").status == 481
    peer.tag = tag
    assert phone.agent.sessions == 1


def test_refer_outside_a_dialog() -> None:
    _, _, peer = lone()
    peer.send("REFER", "Refer-To: <sip:x@y>")
    assert peer.statuses("REFER") == [403]


@pytest.mark.parametrize("method", ["MESSAGE", "REGISTER", "SUBSCRIBE", "PUBLISH", "NEWMETHOD"])
def test_methods_not_served(method: str) -> None:
    _, _, peer = lone()
    peer.send(method)
    assert peer.last(method).status == 405
    assert "INVITE" in peer.last(method).allow
    assert peer.last(method).to.tag


def test_schemes_extensions_and_bodies() -> None:
    _, phone, peer = lone()
    peer.send("INVITE", "Require: nothing", SDP, uri="urn:service:sos")
    assert peer.last("INVITE").status == 416
    peer.send("INVITE", "Require: sec-agree, 100rel", SDP)
    assert peer.last("INVITE").status == 420
    assert peer.last("INVITE").unsupported == ("sec-agree",)
    peer.send("INVITE", body="<x/>", content_type="application/xml")
    assert peer.last("INVITE").status == 415
    assert peer.last("INVITE").headers.get_all("Accept") == ["application/sdp", "multipart/mixed"]
    peer.send("INVITE", "Content-Encoding: gzip", SDP)
    assert peer.last("INVITE").status == 415
    assert peer.last("INVITE").headers.get("Accept-Encoding") == "identity"
    peer.send("INVITE", "Contact: <tel:+4930>", SDP, contact=False)
    assert peer.last("INVITE").status == 400
    peer.send("INVITE", "Expires: soon", SDP)
    assert peer.last("INVITE").status == 400
    assert not phone.calls
    assert phone.agent.sessions == 0
    peer.send("INVITE", "Content-Encoding: identity\nProxy-Require: x", SDP)
    assert peer.last("INVITE").status == 200


def test_a_tel_uri_is_a_number_like_any() -> None:
    _, phone, peer = lone()
    peer.send("INVITE", body=SDP, uri="tel:+493012345")
    assert len(phone.calls) == 1


def test_max_forwards_of_0_is_still_answered() -> None:
    _, _, peer = lone()
    peer.write(
        "OPTIONS sip:voiced@192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx;rport\n"
        "Max-Forwards: 0\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>\nCall-ID: x\nCSeq: 1 OPTIONS\n\n"
    )
    peer.node.wire.run(0.1)
    assert peer.statuses("OPTIONS") == [200]


def test_merged_requests() -> None:
    _, phone, peer = lone()
    peer.send("INVITE", body=SDP, branch="z9hG4bK-a", cseq=5)
    peer.send("INVITE", body=SDP, branch="z9hG4bK-b", cseq=5, in_dialog=False)
    assert peer.statuses("INVITE") == [200, 482]
    assert len(phone.calls) == 1


def test_a_spiral_is_another_call() -> None:
    _, phone, peer = lone()
    peer.send("INVITE", body=SDP, branch="z9hG4bK-a", cseq=5)
    peer.send("INVITE", body=SDP, branch="z9hG4bK-b", cseq=5, uri="sip:else@192.0.2.1")
    assert peer.statuses("INVITE") == [200, 200]
    assert len({response.to.tag for response in peer.responses("INVITE")}) == 2
    assert phone.agent.sessions == 2


def test_our_own_call_may_come_back_to_us() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1"))
    session, line = phone.call(phone.node)
    wire.run(1)
    assert session.state == phone.calls[0][0].state == "confirmed"
    session.bye()
    quiet(wire, phone)
    assert line.end().reason == "local_bye"
    assert phone.calls[0][1].end().reason == "remote_bye"


def test_strangers_hear_nothing() -> None:
    wire, phone, peer = lone()
    phone.admission = Drop()
    for method in ("INVITE", "OPTIONS", "BYE", "REGISTER"):
        peer.send(method, to_tag="x" if method == "BYE" else None)
    peer.send("CANCEL", branch="z9hG4bK-q", cseq=1)
    wire.run(5)
    assert not peer.got
    assert phone.agent.layer.server_transactions == 0
    assert not phone.calls


def test_refused_by_the_policy() -> None:
    _, phone, peer = lone()
    phone.admission = Refuse(401, [("WWW-Authenticate", 'Digest realm="x", nonce="n"')])
    peer.send("INVITE", body=SDP)
    assert peer.last("INVITE").status == 401
    assert "WWW-Authenticate" in peer.last("INVITE").headers
    assert not phone.calls


def test_the_policy_is_not_asked_about_dialogs() -> None:
    _, phone, peer, session, _ = talking()
    phone.admission = Drop()
    peer.send("BYE")
    assert peer.statuses("BYE") == [200]
    assert session.state == "ended"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("OPTIONS sip:v@192.0.2.1 SIP/7.0", 505),
        ("OPTIONS <sip:v@192.0.2.1> SIP/2.0", 400),
        ("OPTIONS sip:v@192.0.2.1 SIP/2.0\nMax-Forwards: many", 400),
    ],
)
def test_malformed_requests_are_answered_as_far_as_they_can_be(line: str, status: int) -> None:
    wire, phone, peer = lone()
    text = (
        f"{line}\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKx;rport\nFrom: <sip:a@b>;tag=1\n"
        "To: <sip:c@d>\nCall-ID: x\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n"
    )
    flow = phone.node.flow_to(peer.node)
    with pytest.raises(ParseError) as caught:
        parse(text.replace("\n", "\r\n").encode())
    phone.agent.malformed(caught.value, flow)
    wire.run(0.1)
    (response,) = peer.got
    assert isinstance(response, Response)
    assert response.status == status
    # RFC 3581 section 4 knows no exception for requests that are malformed elsewhere.
    assert (response.via.rport, response.via.received) == (flow.remote[1], flow.remote[0])
    assert response.to.tag
    phone.admission = Drop()
    phone.agent.malformed(caught.value, flow)
    phone.agent.malformed(ParseError("empty"), flow)
    wire.run(0.1)
    assert len(peer.got) == 1
    quiet(wire, phone)


def test_asking_whether_a_peer_is_there() -> None:
    wire, phone, peer = lone()
    answers: list[Response | None] = []
    uri = SipUri("sip", None, None, "192.0.2.9", 5060)
    phone.agent.options(uri, [peer.node.target()], answers.append)
    wire.run(0.1)
    (options,) = peer.requests("OPTIONS")
    assert isinstance(options, Request)
    assert options.contacts
    peer.answer(options, 200)
    assert [answer.status for answer in answers if answer] == [200]
    phone.agent.options(uri, [peer.node.target()], answers.append)
    wire.run_until_idle()
    assert answers[1:] == [None]
    quiet(wire, phone)


def test_shutdown() -> None:
    wire, phone, peer = called()
    peer.send("ACK")
    there = wire.node("192.0.2.8", name="there")
    _, line = phone.call(there)
    phone.agent.shutdown([("Reason", "SIP;cause=503")])
    wire.run(0.1)
    (bye,) = peer.requests("BYE")
    assert bye.headers.get("Reason") == "SIP;cause=503"
    peer.answer(bye, 200)
    peer.call_id, peer.remote_tag = "call-2", None
    peer.send("INVITE", body=SDP)
    assert peer.last("INVITE").status == 503
    quiet(wire, phone)
    assert phone.calls[0][1].end().reason == "local_bye"
    assert line.end().reason == "cancelled"


def test_over_tcp_requests_go_back_by_the_connection() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone", transport="tcp"))
    peer = Peer(wire.node("192.0.2.9", 40000, name="peer", transport="tcp"), phone.node)
    peer.send("INVITE", "Contact: <sip:peer@10.0.0.1;transport=tcp>", SDP, contact=False)
    peer.follow()
    assert str(peer.last("INVITE").contacts[0].uri) == "sip:voiced@192.0.2.1:5060;transport=tcp"
    peer.send("ACK")
    phone.calls[0][0].bye()
    wire.run(0.1)
    assert len(peer.requests("BYE")) == 1


def test_a_flood_of_forgotten_calls_is_bounded() -> None:
    wire, phone, _ = lone()
    gone = wire.node("192.0.2.8", transport="tcp")
    gone.up = False
    sessions: list[ClientSession] = [phone.call(gone)[0] for _ in range(1200)]
    wire.run_until_idle()
    assert all(session.state == "ended" for session in sessions)
    assert len(phone.agent._remembered) == 1000
    assert all(session.media is None for session in sessions)


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("sip:a@192.0.2.9", "udp:192.0.2.9:5060"),
        ("sip:a@192.0.2.9:5070;transport=tcp", "tcp:192.0.2.9:5070"),
        ("sips:a@pbx.example", "tls:pbx.example:5061"),
        ("sip:a@pbx.example;maddr=192.0.2.5", "udp:192.0.2.5:5060"),
        ("sip:a@pbx.example;transport=ws", "udp:pbx.example:5060"),
    ],
)
def test_next_hops(uri: str, target: str) -> None:
    parsed = parse_uri(uri)
    assert isinstance(parsed, SipUri)
    assert [str(each) for each in targets_of(parsed)] == [target]


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
def test_who_is_refused_entry_holds_no_memory(method: str) -> None:
    """A flood of forged addresses must neither fill the table nor be answered more than once."""
    wire, phone, peer = lone()
    phone.admission = Refuse(403)
    for number in range(20):
        peer.call_id = f"call-{number}"
        peer.send(method)
    wire.run(40)
    assert peer.statuses(method) == [403] * 20
    assert phone.agent.layer.server_transactions == 0
    peer.send("ACK")
    assert phone.agent.sessions == 0


def test_a_fault_of_ours_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, phone, peer = lone()

    def fail(*_: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(phone, "busy", fail)
    with pytest.raises(LookupError):
        peer.send("OPTIONS")
    wire.run(40)
    assert peer.statuses("OPTIONS") == [500]
    monkeypatch.setattr(phone, "admit", fail)
    with pytest.raises(LookupError):
        peer.send("OPTIONS")
    wire.run(40)
    assert peer.statuses("OPTIONS") == [500]
    assert phone.agent.layer.server_transactions == 0
