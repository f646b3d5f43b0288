"""RFC 4028: what is agreed, who refreshes, and what happens when nobody does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sip.calls import SDP, Phone, called, calling, quiet, sdp, state_of, talking
from tests.sip.wire import Wire
from voiced.sip.events import Ended
from voiced.sip.message import Headers, Request
from voiced.sip.options import Options
from voiced.sip.session_timer import (
    IntervalTooSmall,
    SessionInterval,
    SessionTimer,
    request_headers,
    response_headers,
    serve,
)
from voiced.sip.timers import Timers
from voiced.sip.uri import SipUri

LOCAL, REMOTE = "local", "remote"


def request(**fields: str) -> Request:
    headers = Headers((name.replace("_", "-"), value) for name, value in fields.items())
    return Request("INVITE", SipUri("sip", None, None, "x"), headers)


@pytest.mark.parametrize(
    ("fields", "interval"),
    [
        # Table 2 of RFC 4028, and who may lower what.
        ({"Supported": "timer"}, (1800, LOCAL)),
        ({"Supported": "timer", "Min_SE": "3600"}, (3600, LOCAL)),
        ({}, None),
        ({"Supported": "timer", "Session_Expires": "900"}, (900, REMOTE)),
        ({"Supported": "timer", "Session_Expires": "900;refresher=uac"}, (900, REMOTE)),
        ({"Supported": "timer", "Session_Expires": "900;refresher=uas"}, (900, LOCAL)),
        ({"Session_Expires": "900"}, (900, LOCAL)),
        ({"Session_Expires": "900;refresher=uac"}, (900, LOCAL)),
        ({"Supported": "timer", "Session_Expires": "7200"}, (1800, REMOTE)),
        ({"Supported": "timer", "Session_Expires": "7200", "Min_SE": "3000"}, (3000, REMOTE)),
        ({"Require": "timer", "x": "90;refresher=uas"}, (90, LOCAL)),
        ({"Session_Expires": "30"}, (90, LOCAL)),
    ],
)
def test_what_we_answer(fields: dict[str, str], interval: tuple[int, str] | None) -> None:
    agreed = serve(request(**fields), wanted=1800, min_se=90)
    assert (agreed and (agreed.seconds, agreed.refresher)) == interval


def test_too_small() -> None:
    with pytest.raises(IntervalTooSmall) as caught:
        serve(request(Supported="timer", Session_Expires="89"), wanted=1800, min_se=90)
    assert caught.value.min_se == 90


def test_switched_off() -> None:
    assert serve(request(Supported="timer", Session_Expires="30"), wanted=0, min_se=90) is None
    assert request_headers(0, 90) == []
    assert response_headers(None) == []


def test_what_we_ask() -> None:
    assert request_headers(1800, 90) == [("Session-Expires", "1800")]
    assert request_headers(1800, 2000) == [("Session-Expires", "2000"), ("Min-SE", "2000")]
    ours = SessionInterval(600, "local")
    assert request_headers(1800, 90, ours) == [("Session-Expires", "600;refresher=uac")]
    theirs = SessionInterval(600, "remote")
    assert request_headers(1800, 90, theirs) == [("Session-Expires", "600;refresher=uas")]


@given(seconds=st.integers(90, 10_000), local=st.booleans())
def test_the_refresh_comes_before_the_end_and_the_end_before_the_expiry(
    seconds: int, local: bool
) -> None:
    now = 0.0
    timers = Timers(lambda: now)
    calls: list[tuple[str, float]] = []
    timer = SessionTimer(
        timers, lambda: calls.append(("refresh", now)), lambda: calls.append(("expire", now))
    )
    timer.start(SessionInterval(seconds, "local" if local else "remote"))
    while (due := timers.next_deadline()) is not None:
        now = due
        timers.run_due()
    end = seconds - min(32, seconds / 3)
    tries = (seconds / 2, (seconds / 2 + end) / 2)
    assert calls == [("refresh", at) for at in tries if local] + [("expire", end)]
    timer.start(SessionInterval(seconds, "local"))
    timer.stop()
    assert len(timers) == 0


def test_the_peer_refreshes() -> None:
    wire, phone, peer = called(
        headers="Supported: timer\nSession-Expires: 180;refresher=uac\nAllow: UPDATE"
    )
    ok = peer.last("INVITE")
    assert ok.headers.get("Session-Expires") == "180;refresher=uac"
    assert "timer" in ok.require
    peer.send("ACK")
    wire.run(100)
    peer.send("UPDATE", "Supported: timer\nSession-Expires: 180;refresher=uac")
    assert peer.last("UPDATE").headers.get("Session-Expires") == "180;refresher=uac"
    wire.run(140)
    _, line = phone.calls[0]
    assert not peer.requests("BYE")
    wire.run(10)
    peer.answer(peer.requests("BYE")[0], 200)
    assert line.end() == Ended("session_expired")
    quiet(wire, phone)


def test_a_refresh_that_is_refused_is_tried_again() -> None:
    wire, _, peer, session, _ = talking(
        headers="Supported: timer\nSession-Expires: 180;refresher=uas\nAllow: INVITE, UPDATE"
    )
    wire.run(91)
    peer.answer(peer.requests("UPDATE")[0], 503)
    wire.run(30)
    assert len({each.cseq.number for each in peer.requests("UPDATE")}) == 2
    peer.answer(peer.requests("UPDATE")[-1], 200, "Session-Expires: 180;refresher=uac")
    wire.run(80)  # beyond the end of the first interval
    assert session.state == "confirmed"
    assert not peer.requests("BYE")


def test_we_refresh_by_update() -> None:
    wire, _, peer, session, _ = talking(
        headers="Supported: timer\nSession-Expires: 180;refresher=uas\nAllow: INVITE, UPDATE"
    )
    assert peer.last("INVITE").headers.get("Session-Expires") == "180;refresher=uas"
    for count in range(1, 4):
        wire.run(90)
        assert len(peer.requests("UPDATE")) == count
        update = peer.requests("UPDATE")[-1]
        assert not update.body
        assert update.headers.get("Session-Expires") == "180;refresher=uac"
        peer.answer(update, 200, "Session-Expires: 180;refresher=uac")
    assert session.state == "confirmed"


def test_we_refresh_by_reinvite_with_the_same_offer() -> None:
    wire, _, peer, _, line = talking(
        headers="Supported: timer\nSession-Expires: 180;refresher=uas\nAllow: INVITE, BYE"
    )
    described = line.media.exchanges[0][1]
    wire.run(90)
    (invite,) = peer.requests("INVITE")
    assert invite.body.split(b"m=")[0] == described.split(b"m=")[0]  # o= has the same version
    peer.answer(invite, 200, "Session-Expires: 180;refresher=uac", SDP)
    wire.run(85)
    assert len(peer.requests("INVITE")) == 1


def test_our_refresh_comes_to_nothing() -> None:
    wire, phone, peer, _, line = talking(
        headers="Supported: timer\nSession-Expires: 180;refresher=uas\nAllow: INVITE, UPDATE"
    )
    wire.run(90)
    peer.answer(peer.requests("UPDATE")[0], 500)
    wire.run(60)
    peer.answer(peer.requests("BYE")[0], 200)
    assert line.end() == Ended("session_expired")
    quiet(wire, phone)


def test_an_interval_that_is_too_small() -> None:
    _, phone, peer = called(headers="Supported: timer\nSession-Expires: 60")
    refusal = peer.last("INVITE")
    assert (refusal.status, refusal.min_se) == (422, 90)
    assert not phone.calls
    _, _, peer, session, _ = talking(headers="Supported: timer")
    peer.send("UPDATE", "Supported: timer\nSession-Expires: 60")
    assert (peer.last("UPDATE").status, peer.last("UPDATE").min_se) == (422, 90)
    assert session.state == "confirmed"


def test_a_caller_without_timers_has_none() -> None:
    wire, _, peer, session, _ = talking()
    assert "Session-Expires" not in peer.last("INVITE").headers
    wire.run(10_000)
    assert session.state == "confirmed"


def test_as_caller_we_ask_and_take_what_is_granted() -> None:
    wire, phone, peer, _, line, invite = calling()
    assert invite.headers.get("Session-Expires") == "1800"
    assert "timer" in invite.supported
    peer.answer(invite, 200, "Session-Expires: 120;refresher=uas\nRequire: timer", SDP)
    wire.run(87)
    assert not peer.requests("UPDATE")
    assert not peer.requests("BYE")
    wire.run(2)
    peer.answer(peer.requests("BYE")[0], 200)
    assert line.end() == Ended("session_expired")
    quiet(wire, phone)


def test_an_update_before_the_ack_sets_the_timer() -> None:
    wire, _, peer = called(headers="Supported: timer\nSession-Expires: 1800;refresher=uas")
    peer.send("UPDATE", "Supported: timer\nSession-Expires: 180;refresher=uas\nAllow: UPDATE")
    assert peer.last("UPDATE").status == 200
    peer.send("ACK", cseq=1)
    wire.run(89)
    assert not peer.requests("UPDATE")
    wire.run(2)
    assert peer.requests("UPDATE")


def test_as_caller_without_a_grant_there_is_no_timer() -> None:
    wire, _, peer, session, _, invite = calling()
    peer.answer(invite, 200, "", SDP)
    wire.run(10_000)
    assert session.state == "confirmed"


def test_as_caller_a_grant_below_the_least_is_waited_for_as_the_least() -> None:
    wire, _, peer, session, line, invite = calling()
    peer.answer(invite, 200, "Session-Expires: 1;refresher=uas", SDP)
    wire.run(59)
    assert state_of(session) == "confirmed"
    wire.run(2)
    peer.answer(peer.requests("BYE")[0], 200)
    assert line.end() == Ended("session_expired")


@pytest.mark.parametrize(("granted", "after"), [(60, 30), (1, 15)])
def test_as_caller_a_grant_below_the_least_is_refreshed(granted: int, after: int) -> None:
    """Before the peer that meant it ends the call, and not every second."""
    wire, _, peer, session, _, invite = calling()
    grant = f"Session-Expires: {granted};refresher=uac\nAllow: INVITE, UPDATE"
    peer.answer(invite, 200, grant, SDP)
    wire.run(after - 1)
    assert not peer.requests("UPDATE")
    wire.run(2)
    assert peer.requests("UPDATE")
    assert state_of(session) == "confirmed"


def test_as_caller_we_try_again_after_422() -> None:
    wire, phone, peer, session, line, invite = calling(Options(session_expires_s=300))
    assert invite.headers.get("Session-Expires") == "300"
    peer.answer(invite, 422, "Min-SE: 900")
    second = peer.requests("INVITE")[-1]
    assert second.cseq.number == invite.cseq.number + 1
    assert second.headers.get("Session-Expires") == "900"
    assert second.headers.get("Min-SE") == "900"
    peer.answer(second, 422, "Min-SE: 900")
    assert (line.end().reason, line.end().status) == ("rejected", 422)
    assert session.state == "ended"
    quiet(wire, phone)


def test_our_refresh_is_answered_422() -> None:
    wire, _, peer, _, _ = talking(
        headers="Supported: timer\nSession-Expires: 180;refresher=uas\nAllow: INVITE, UPDATE"
    )
    wire.run(90)
    peer.answer(peer.requests("UPDATE")[0], 422, "Min-SE: 600")
    assert peer.requests("UPDATE")[-1].headers.get("Session-Expires") == "600;refresher=uac"


def test_two_phones_keep_each_other_alive() -> None:
    wire = Wire()
    alice, bob = Phone(wire.node("192.0.2.1")), Phone(wire.node("192.0.2.2"))
    session, line = alice.call(bob.node)
    wire.run(20_000)
    assert session.state == bob.calls[0][0].state == "confirmed"
    refreshes = [packet for packet in wire.log if "UPDATE" in str(packet)]
    assert len(refreshes) == 2 * (20_000 // 900)
    bob.node.up = False
    wire.run_until_idle()
    assert line.end().reason in {"session_expired", "timeout", "transport"}


def test_a_peer_that_moves_keeps_its_timer() -> None:
    wire, phone, peer, session, _ = talking(
        headers="Supported: timer\nSession-Expires: 180;refresher=uas\nAllow: INVITE, UPDATE"
    )
    wire.run(60)
    peer.send("INVITE", "Supported: timer\nSession-Expires: 180;refresher=uas", sdp(2))
    peer.send("ACK")
    wire.run(80)
    assert not peer.requests("UPDATE")
    wire.run(11)
    assert {update.cseq.number for update in peer.requests("UPDATE")} == {1}
    assert session.state == "confirmed"
    assert phone.agent.sessions == 1
