"""Transfer by REFER, RFC 3515 and RFC 4488, asked by us and by the peer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sip.calls import Peer, Phone, called, quiet, state_of, talking
from tests.sip.wire import Wire
from voiced.sip.errors import ParseError
from voiced.sip.events import Confirmed, ReferProgress, ReferRequested, SessionEvent
from voiced.sip.message import Request
from voiced.sip.refer import parse_sipfrag
from voiced.sip.session import InvalidState


def notify(
    peer: Peer, state: str, body: str = "", *, event: str = "Event: refer", run: float = 0.05
) -> int:
    """Send a NOTIFY; the status of its answer."""
    fields = f"{event}\nSubscription-State: {state}"
    peer.send("NOTIFY", fields, body, content_type="message/sipfrag;version=2.0", run=run)
    return peer.last("NOTIFY").status


def test_a_transfer_that_works() -> None:
    wire, phone, peer, session, line = talking()
    session.refer("sip:desk@192.0.2.8;user=phone", [("X-Why", "asked")])
    wire.run(0.1)
    (refer,) = peer.requests("REFER")
    assert refer.headers.get("Refer-To") == "<sip:desk@192.0.2.8;user=phone>"
    assert refer.headers.get("Referred-By") is not None
    assert refer.headers.get("X-Why") == "asked"
    assert refer.contacts
    with pytest.raises(InvalidState):
        session.refer("sip:other@192.0.2.8")
    peer.answer(refer, 202)
    assert notify(peer, "active;expires=60", "SIP/2.0 100 Trying\r\n") == 200
    assert notify(peer, "active", "SIP/2.0 180 Ringing\r\n") == 200
    assert notify(peer, "terminated;reason=noresource", "SIP/2.0 200 OK\r\n") == 200
    assert line.of(ReferProgress) == [
        ReferProgress(100, "Trying", False),
        ReferProgress(180, "Ringing", False),
        ReferProgress(200, "OK", True),
    ]
    # The call itself is still there, and so is a NOTIFY that comes too late: unknown.
    assert session.state == "confirmed"
    assert notify(peer, "terminated", "SIP/2.0 200 OK\r\n") == 481
    session.bye()
    wire.run(0.1)
    peer.answer(peer.requests("BYE")[0], 200)
    quiet(wire, phone)


def test_a_final_status_is_final_whatever_the_subscription_says() -> None:
    wire, _, peer, session, line = talking()
    session.refer("sip:desk@192.0.2.8")
    wire.run(0.1)
    peer.answer(peer.requests("REFER")[0], 202)
    notify(peer, "active;expires=60", "SIP/2.0 486 Busy Here\r\n")
    assert line.of(ReferProgress) == [ReferProgress(486, "Busy Here", True)]
    wire.run(200)
    assert line.of(ReferProgress) == [ReferProgress(486, "Busy Here", True)]
    session.refer("sip:other@192.0.2.8")


@pytest.mark.parametrize("status", [200, 486])
def test_the_end_of_the_subscription_may_be_told_by_itself(status: int) -> None:
    """481 to it would mean that there is no such call, to some peers."""
    wire, _, peer, session, line = talking()
    session.refer("sip:desk@192.0.2.8")
    wire.run(0.1)
    peer.answer(peer.requests("REFER")[0], 202)
    assert notify(peer, "active;expires=60", f"SIP/2.0 {status} x\r\n") == 200
    assert notify(peer, "active;expires=60", f"SIP/2.0 {status} x\r\n") == 200
    assert notify(peer, "terminated;reason=noresource", f"SIP/2.0 {status} x\r\n") == 200
    assert notify(peer, "terminated;reason=noresource", f"SIP/2.0 {status} x\r\n") == 481
    assert line.of(ReferProgress) == [ReferProgress(status, "x", True)]
    assert state_of(session) == "confirmed"


def test_terminated_without_a_final_status() -> None:
    wire, _, peer, session, line = talking()
    session.refer("sip:desk@192.0.2.8")
    wire.run(0.1)
    peer.answer(peer.requests("REFER")[0], 202)
    notify(peer, "terminated;reason=timeout")
    assert line.of(ReferProgress) == [ReferProgress(100, "Trying", True)]


def test_a_notify_that_overtakes_the_202() -> None:
    wire, _, peer, session, line = talking()
    session.refer("sip:desk@192.0.2.8")
    wire.run(0.1)
    refer = peer.requests("REFER")[0]
    event = f"Event: refer;id={refer.cseq.number}"
    assert notify(peer, "active;expires=60", "SIP/2.0 100 Trying\r\n", event=event) == 200
    assert notify(peer, "active", "SIP/2.0 200 OK\r\n", event="Event: refer;id=77") == 481
    assert notify(peer, "active", "SIP/2.0 200 OK\r\n", event="Event: presence") == 481
    wire.run(1)
    peer.answer(refer, 202)
    wire.run(50)
    notify(peer, "terminated", "SIP/2.0 200 OK\r\n", event=event)
    assert line.of(ReferProgress) == [
        ReferProgress(100, "Trying", False),
        ReferProgress(200, "OK", True),
    ]


@pytest.mark.parametrize("status", [403, 405, 603])
def test_refused(status: int) -> None:
    wire, _, peer, session, line = talking()
    session.refer("sip:desk@192.0.2.8")
    wire.run(0.1)
    peer.answer(peer.requests("REFER")[0], status, reason="No")
    assert line.of(ReferProgress) == [ReferProgress(status, "No", True)]
    assert session.state == "confirmed"


def test_a_peer_that_says_nothing() -> None:
    wire, _, peer, session, line = talking()
    session.refer("sip:desk@192.0.2.8")
    wire.run(0.1)
    peer.answer(peer.requests("REFER")[0], 202)
    wire.run(31)
    assert not line.of(ReferProgress)
    wire.run(2)
    assert line.of(ReferProgress) == [ReferProgress(408, "timeout", True)]


def test_a_peer_that_falls_silent() -> None:
    wire, _, peer, session, line = talking()
    session.refer("sip:desk@192.0.2.8")
    wire.run(0.1)
    peer.answer(peer.requests("REFER")[0], 202)
    notify(peer, "active;expires=60", "SIP/2.0 100 Trying\r\n")
    wire.run(61)
    assert line.of(ReferProgress)[-1] == ReferProgress(408, "timeout", True)


def test_no_subscription() -> None:
    wire, _, peer, session, line = talking()
    session.refer("sip:desk@192.0.2.8")
    wire.run(0.1)
    peer.answer(peer.requests("REFER")[0], 200, "Refer-Sub: false")
    assert line.of(ReferProgress) == [ReferProgress(200, "Whatever", True)]


def test_the_peer_hangs_up_while_transferring() -> None:
    wire, phone, peer, session, line = talking()
    session.refer("sip:desk@192.0.2.8")
    wire.run(0.1)
    peer.answer(peer.requests("REFER")[0], 202)
    peer.send("BYE")
    assert line.end().reason == "remote_bye"
    quiet(wire, phone)


def test_a_notify_without_a_state() -> None:
    wire, _, peer, session, _ = talking()
    session.refer("sip:desk@192.0.2.8")
    wire.run(0.1)
    peer.send("NOTIFY", "Event: refer")
    assert peer.statuses("NOTIFY") == [400]


# --- the peer's ---


def test_accepted_and_told() -> None:
    _, _, peer, session, line = talking()
    peer.send("REFER", "Refer-To: <sip:desk@192.0.2.8>\nReferred-By: <sip:boss@x>")
    (asked,) = line.of(ReferRequested)
    assert str(asked.refer_to.uri) == "sip:desk@192.0.2.8"
    assert asked.referred_by == "<sip:boss@x>"
    assert not peer.responses("REFER")
    notify_peer = asked.accept()
    peer.node.wire.run(0.1)
    assert peer.statuses("REFER") == [202]
    (first,) = peer.requests("NOTIFY")
    assert first.body == b"SIP/2.0 100 Trying\r\n"
    assert first.headers.get("Event") == f"refer;id={peer.cseq}"
    assert first.subscription_state is not None
    assert first.subscription_state.state == "active"
    peer.answer(first, 200)
    notify_peer(200, "OK")
    notify_peer(486, "too late")
    peer.node.wire.run(0.1)
    last = peer.requests("NOTIFY")[-1]
    assert len(peer.requests("NOTIFY")) == 2
    assert last.body == b"SIP/2.0 200 OK\r\n"
    assert last.subscription_state is not None
    assert last.subscription_state.state == "terminated"
    # 481 to a NOTIFY is the end of the subscription only.
    peer.answer(last, 481)
    assert state_of(session) == "confirmed"


def test_rejected() -> None:
    _, _, peer, _, line = talking()
    line.react = lambda event: event.reject(488) if isinstance(event, ReferRequested) else None
    peer.send("REFER", "Refer-To: <sip:desk@192.0.2.8>")
    assert peer.statuses("REFER") == [488]
    line.of(ReferRequested)[0].accept()
    assert peer.statuses("REFER") == [488]


def test_undecided_is_declined() -> None:
    wire, _, peer, session, _ = talking()
    peer.send("REFER", "Refer-To: <sip:desk@192.0.2.8>")
    wire.run(17)
    assert peer.statuses("REFER")[-1] == 603
    assert session.state == "confirmed"


def test_undecided_at_the_end_is_declined() -> None:
    wire, phone, peer, _, line = talking()
    peer.send("REFER", "Refer-To: <sip:desk@192.0.2.8>")
    peer.send("BYE")
    assert peer.statuses("REFER") == [603]
    line.of(ReferRequested)[0].accept()(200, "OK")
    quiet(wire, phone)


def test_without_a_subscription() -> None:
    wire, _, peer, _, line = talking()
    peer.send("REFER", "Refer-To: <sip:desk@192.0.2.8>\nRefer-Sub: false\nRequire: norefersub")
    line.of(ReferRequested)[0].accept()(200, "OK")
    wire.run(0.1)
    assert peer.last("REFER").status == 202
    assert peer.last("REFER").headers.get("Refer-Sub") == "false"
    assert not peer.requests("NOTIFY")


@pytest.mark.parametrize("fields", ["", "Refer-To: <sip:"])
def test_without_a_usable_target(fields: str) -> None:
    _, _, peer, _, line = talking()
    peer.send("REFER", fields)
    assert peer.statuses("REFER") == [400]
    assert not line.of(ReferRequested)


def test_too_many_at_a_time() -> None:
    _, _, peer, _, line = talking()
    for _ in range(6):
        peer.send("REFER", "Refer-To: <sip:desk@192.0.2.8>")
    assert len(line.of(ReferRequested)) == 4
    assert peer.statuses("REFER") == [500, 500]


def test_before_the_call_stands() -> None:
    _, _, peer = called()
    peer.send("REFER", "Refer-To: <sip:desk@192.0.2.8>")
    assert peer.statuses("REFER") == [481]


def test_two_phones() -> None:
    wire = Wire()
    alice, bob = Phone(wire.node("192.0.2.1")), Phone(wire.node("192.0.2.2"))
    _, line = alice.call(bob.node)
    wire.run(1)
    session, their_line = bob.calls[0]
    assert Confirmed() in their_line.events

    def transfer(event: SessionEvent) -> None:
        if isinstance(event, ReferRequested):
            event.accept()(486, "Busy Here")

    line.react = transfer
    session.refer("sip:desk@192.0.2.8")
    wire.run(1)
    assert their_line.of(ReferProgress)[-1] == ReferProgress(486, "Busy Here", True)
    session.bye()
    quiet(wire, alice, bob)


def test_sipfrags() -> None:
    assert parse_sipfrag(b"SIP/2.0 200 OK") == (200, "OK")
    assert parse_sipfrag(b"\r\nsip/2.0 503\r\nVia: x") == (503, "")
    assert parse_sipfrag("SIP/2.0 486 Besetzt \u00fc\r\n".encode()) == (486, "Besetzt \u00fc")
    assert parse_sipfrag(b"") is None
    assert parse_sipfrag(b"SIP/2.0 700 No") is None
    assert parse_sipfrag(b"BYE sip:x SIP/2.0") is None


@given(st.binary(max_size=80))
def test_sipfrags_of_anything(body: bytes) -> None:
    told = parse_sipfrag(body)
    assert told is None or 100 <= told[0] <= 699


def test_what_cannot_be_sent_is_the_callers_mistake() -> None:
    _, _, peer, session, _ = talking()
    with pytest.raises(ParseError):
        session.refer("nowhere")
    with pytest.raises(ValueError, match="line break"):
        session.refer("sip:desk@192.0.2.8", [("X-Why", "a\r\nb: c")])
    assert not [m for m in peer.got if isinstance(m, Request) and m.method == "REFER"]
