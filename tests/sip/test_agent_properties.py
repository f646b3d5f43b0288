"""A peer that says anything at all: each request gets one answer at most, and nothing is left."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sip.calls import NO_CODEC, SDP, Peer, Phone, quiet, sdp
from tests.sip.wire import Wire
from voiced.sip.message import Request, Response
from voiced.sip.options import ALLOW, Options
from voiced.sip.session import Session
from voiced.sip.uas import ServerSession

METHODS = [*ALLOW, "MESSAGE"]
FIELDS = [
    "",
    "Require: 100rel",
    "Require: timer, nothing",
    "Supported: timer\nSession-Expires: 90;refresher=uas",
    "Supported: timer\nSession-Expires: 1",
    "Session-Expires: soon",
    "Expires: 1",
    "Expires: never",
    "RAck: 1 1 INVITE",
    "RAck: x",
    "Event: refer\nSubscription-State: terminated",
    "Event: refer;id=x\nSubscription-State: ;",
    "Refer-To: <sip:x@y>",
    "Refer-To: <<",
    "Refer-Sub: false\nRefer-To: sip:x@y",
    "Record-Route: <sip:192.0.2.9>",
    "Record-Route: <<",
    "Route: <<",
    "Allow: INVITE\nRSeq: -1",
    "Content-Encoding: gzip",
    "Content-Disposition: x;handling=optional",
    "Info-Package: x",
]
BODIES = ["", SDP, sdp(2, "inactive"), NO_CODEC, "v=0", "SIP/2.0 200 OK\r\n", "Signal=1"]
TYPES = ["application/sdp", "message/sipfrag", "application/dtmf-relay", "text/plain", "/;"]

OWNER = ("ring", "early", "accept", "reject", "bye")
CHANGES = ("hold", "update", "reinvite", "refer", "info")

requests = st.tuples(
    st.just("request"),
    st.sampled_from(METHODS),
    st.sampled_from(FIELDS),
    st.sampled_from(BODIES),
    st.sampled_from(TYPES),
    st.sampled_from([None, None, 1, 2, 50]),
    st.sampled_from([None, False]),
)
owners = st.tuples(
    st.just("owner"),
    st.sampled_from(
        ["ring", "early", "accept", "reject", "bye", "hold", "update", "reinvite", "refer", "info"]
    ),
)
answers = st.tuples(
    st.just("answer"),
    st.sampled_from([180, 200, 202, 302, 401, 404, 408, 422, 481, 487, 491, 500]),
    st.sampled_from(FIELDS),
    st.sampled_from(BODIES),
)
waits = st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 20.0, 40.0]))


def own(session: Session, what: str) -> None:
    if what in {"refer", "info"} and session.state != "confirmed":
        return
    if isinstance(session, ServerSession):
        match what:
            case "ring":
                session.ring()
            case "early":
                session.ring(183, early_media=True)
            case "accept":
                session.accept()
            case "reject":
                session.reject(486)
    match what:
        case "hold":
            session.hold(True)
        case "update":
            session.update()
        case "reinvite":
            session.reinvite()
        case "refer" if not session.transfers.asked:
            session.refer("sip:desk@192.0.2.8")
        case "info":
            session.info(b"x", "application/dtmf")
        case "bye":
            session.bye()


def do(step: tuple[object, ...], peer: Peer, wire: Wire) -> None:
    match step:
        case ("request", str(method), str(fields), str(body), str(kind), cseq, inside):
            peer.send(
                method,
                fields,
                body,
                content_type=kind,
                cseq=cseq if isinstance(cseq, int) else None,
                in_dialog=inside if isinstance(inside, bool) else None,
            )
        case ("answer", int(status), str(fields), str(body)):
            asked = [m for m in peer.got if isinstance(m, Request) and m.method != "ACK"]
            if asked:
                peer.answer(asked[-1], status, fields, body)
        case ("wait", float(seconds)):
            wire.run(seconds)


@settings(max_examples=100, deadline=None)
@given(
    first=st.sampled_from(FIELDS),
    offered=st.booleans(),
    accepted=st.booleans(),
    steps=st.lists(st.one_of(requests, requests, answers, owners, waits), max_size=25),
)
def test_anything(
    first: str, offered: bool, accepted: bool, steps: list[tuple[object, ...]]
) -> None:
    wire = Wire()

    def start(session: ServerSession) -> None:
        if accepted:
            session.accept()

    phone = Phone(wire.node("192.0.2.1", name="phone"), on_invite=start)
    peer = Peer(wire.node("192.0.2.9", name="peer"), phone.node)
    peer.invite(first, SDP if offered else "")
    if accepted:
        peer.send("ACK", body="" if offered else SDP)
    for step in steps:
        match step:
            case ("owner", str(what)):
                for session, _ in phone.calls:
                    own(session, what)
            case _:
                do(step, peer, wire)
    for session, _ in phone.calls:
        session.bye()
    quiet(wire, phone)
    assert all(line.over() for _, line in phone.calls)
    answered: dict[str, bytes] = {}
    for packet in wire.log:
        response = packet.message
        if packet.source != "phone" or not isinstance(response, Response):
            continue
        if response.status == 100:
            continue
        assert response.to.tag
        if response.status >= 200:
            key = f"{response.via.branch} {response.cseq}"
            assert answered.setdefault(key, packet.data) == packet.data


early_answers = st.tuples(
    st.just("early"),
    st.sampled_from([100, 180, 183, 199, 200, 200, 302, 407, 422, 486]),
    st.sampled_from(
        [
            "",
            "Require: 100rel\nRSeq: 1",
            "Require: 100rel\nRSeq: 2",
            "Require: 100rel\nRSeq: x",
            "Session-Expires: 90;refresher=uac",
            "Session-Expires: x",
            "Min-SE: 100",
            "Min-SE: 4000",
            "Min-SE: x",
            "Record-Route: <sip:192.0.2.9;lr>",
            "Record-Route: <<",
        ]
    ),
    st.sampled_from(BODIES),
    st.sampled_from(["a", "b"]),
    st.booleans(),
)


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.one_of(early_answers, early_answers, requests, answers, owners, waits)))
def test_any_answer(steps: list[tuple[object, ...]]) -> None:
    """The same of a call of ours."""
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone"), Options(follow_redirects=1))
    peer = Peer(wire.node("192.0.2.9", name="peer"), phone.node)
    session, line = phone.call(peer.node)
    wire.run(0.1)
    peer.adopt(peer.requests("INVITE")[0])
    for step in steps:
        match step:
            case ("early", int(status), str(fields), str(body), str(tag), bool(contact)):
                invite = peer.requests("INVITE")[-1]
                peer.answer(invite, status, fields, body, tag=tag, contact=contact)
                peer.tag = tag
            case ("owner", str(what)) if what not in {"ring", "early", "accept", "reject"}:
                own(session, what)
            case _:
                do(step, peer, wire)
    session.bye()
    quiet(wire, phone)
    assert line.over()
