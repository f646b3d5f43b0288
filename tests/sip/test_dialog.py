"""Dialogs, RFC 3261 section 12: routes, targets, numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.sip.dialog import Dialog
from voiced.sip.errors import ParseError
from voiced.sip.message import Headers, Request, Response, request, response_to
from voiced.sip.uri import NameAddr, SipUri, parse_name_addr, parse_uri

OURS = parse_name_addr("<sip:voiced@192.0.2.1>")


def invite(*routes: str, contact: str = "<sip:peer@192.0.2.9:5070>") -> Request:
    headers = [("Record-Route", route) for route in routes]
    if contact:
        headers.append(("Contact", contact))
    return request(
        "INVITE",
        parse_uri("sip:voiced@192.0.2.1"),
        from_=parse_name_addr('"P" <sip:peer@a.example>;tag=theirs'),
        to=parse_name_addr("<sip:voiced@b.example>"),
        call_id="c1",
        cseq=41,
        headers=headers,
    )


def answer(*routes: str, contact: str = "<sip:peer@192.0.2.9:5070>") -> tuple[Request, Response]:
    sent = request(
        "INVITE",
        parse_uri("sip:bob@b.example"),
        from_=parse_name_addr("<sip:voiced@a.example>;tag=ours"),
        to=parse_name_addr("<sip:bob@b.example>"),
        call_id="c2",
        cseq=7,
        contact=OURS,
    )
    headers = [("Record-Route", route) for route in routes]
    if contact:
        headers.append(("Contact", contact))
    return sent, response_to(sent, 180, to_tag="theirs", headers=headers)


def uris(routes: list[NameAddr]) -> list[str]:
    return [str(route.uri) for route in routes]


def test_as_callee() -> None:
    dialog = Dialog.uas(invite("<sip:p1;lr>, <sip:p2;lr>"), "ours", OURS)
    assert (dialog.call_id, dialog.local_tag, dialog.remote_tag) == ("c1", "ours", "theirs")
    assert uris(list(dialog.route_set)) == ["sip:p1;lr", "sip:p2;lr"]
    bye = dialog.request("BYE", headers=[("Reason", "x")])
    assert str(bye.uri) == "sip:peer@192.0.2.9:5070"
    assert uris(bye.routes) == ["sip:p1;lr", "sip:p2;lr"]
    assert (bye.from_.tag, bye.to.tag) == ("ours", "theirs")
    assert (bye.to.display, bye.cseq.number, bye.max_forwards) == ("P", 1, 70)
    assert not bye.contacts
    assert bye.headers.get("Reason") == "x"
    assert dialog.request("UPDATE").cseq.number == 2
    assert str(dialog.request("INVITE").contacts[0].uri) == "sip:voiced@192.0.2.1"
    assert str(dialog.next_hop()) == "sip:p1;lr"


def test_as_caller_routes_are_reversed() -> None:
    dialog = Dialog.uac(*answer("<sip:p2;lr>", "<sip:p1;lr>"), OURS)
    assert uris(list(dialog.route_set)) == ["sip:p1;lr", "sip:p2;lr"]
    assert (dialog.local_tag, dialog.remote_tag, dialog.confirmed) == ("ours", "theirs", False)
    assert dialog.request("PRACK").cseq.number == 8
    assert dialog.request("ACK", cseq=7).cseq.number == 7
    assert dialog.request("BYE").cseq.number == 9


def test_a_2xx_computes_the_routes_anew() -> None:
    sent, ringing = answer("<sip:p2;lr>", "<sip:p1;lr>")
    dialog = Dialog.uac(sent, ringing, OURS)
    ok = response_to(
        sent,
        200,
        to_tag="theirs",
        headers=[("Record-Route", "<sip:p3;lr>"), ("Contact", "<sip:desk@192.0.2.8>")],
    )
    dialog.confirm(ok)
    assert dialog.confirmed
    assert uris(list(dialog.route_set)) == ["sip:p3;lr"]
    assert str(dialog.remote_target) == "sip:desk@192.0.2.8"


def test_no_routes() -> None:
    dialog = Dialog.uas(invite(), "ours", OURS)
    bye = dialog.request("BYE")
    assert "Route" not in bye.headers
    assert str(dialog.next_hop()) == "sip:peer@192.0.2.9:5070"


def test_a_strict_router_takes_the_request_uri() -> None:
    dialog = Dialog.uas(invite("<sip:p1;x=y;method=INVITE?a=b>", "<sip:p2;lr>"), "ours", OURS)
    bye = dialog.request("BYE")
    assert str(bye.uri) == "sip:p1;x=y"
    assert uris(bye.routes) == ["sip:p2;lr", "sip:peer@192.0.2.9:5070"]
    next_hop = dialog.next_hop()
    assert next_hop.host == "p1"


def test_the_target_follows_contact() -> None:
    dialog = Dialog.uas(invite(), "ours", OURS)
    dialog.refresh(invite(contact="<sip:desk@192.0.2.8>"))
    assert str(dialog.remote_target) == "sip:desk@192.0.2.8"
    for useless in ("", "<tel:+4930>"):
        dialog.refresh(invite(contact=useless))
        assert str(dialog.remote_target) == "sip:desk@192.0.2.8"


def test_what_a_request_uri_must_not_have_is_left_out() -> None:
    """RFC 3261 section 19.1.1, table 1: headers and method are for the one who makes a call."""
    contact = "<sip:peer@192.0.2.9:5070;ob;method=REGISTER?X-Evil=1&Route=%3Csip:evil%3E>"
    dialog = Dialog.uas(invite(contact=contact), "ours", OURS)
    assert str(dialog.request("BYE").uri) == "sip:peer@192.0.2.9:5070;ob"
    dialog.refresh(invite(contact="<sip:other@192.0.2.9?Subject=x>"))
    assert str(dialog.request("BYE").uri) == "sip:other@192.0.2.9"


def test_a_callee_needs_a_contact() -> None:
    for useless in ("<tel:+4930>", "*"):
        with pytest.raises(ParseError):
            Dialog.uas(invite(contact=useless), "ours", OURS)


def test_a_callee_makes_do_with_from() -> None:
    dialog = Dialog.uas(invite(contact=""), "ours", OURS)
    assert str(dialog.remote_target) == "sip:peer@a.example"
    number = invite(contact="")
    number.headers.set("From", "<tel:+4930>;tag=theirs")
    with pytest.raises(ParseError):
        Dialog.uas(number, "ours", OURS)


def test_a_caller_does_without() -> None:
    dialog = Dialog.uac(*answer(contact=""), OURS)
    assert str(dialog.remote_target) == "sip:bob@b.example"


def test_secure() -> None:
    secure = invite()
    secure.uri = parse_uri("sips:voiced@192.0.2.1")
    dialog = Dialog.uas(secure, "ours", OURS)
    assert dialog.secure
    dialog.refresh(invite(contact="<sip:desk@192.0.2.8>"))
    assert str(dialog.remote_target) == "sip:peer@192.0.2.9:5070"
    dialog.refresh(invite(contact="<sips:desk@192.0.2.8>"))
    assert str(dialog.remote_target) == "sips:desk@192.0.2.8"
    assert not Dialog.uas(invite(), "ours", OURS).secure


def test_what_belongs_to_it() -> None:
    dialog = Dialog.uas(invite(), "ours", OURS)
    bye = Request("BYE", SipUri("sip", None, None, "x"), Headers())
    fields = {"From": "<sip:p@a>;tag=theirs", "To": "<sip:v@b>;tag=ours", "Call-ID": "c1"}
    for name, value in fields.items():
        bye.headers.add(name, value)
    assert dialog.matches(bye)
    for name, value in {
        "From": "<sip:p@a>",
        "To": "<sip:v@b>;tag=Ours",
        "Call-ID": "C1",
    }.items():
        other = bye.copy()
        other.headers.set(name, value)
        assert not dialog.matches(other)


def test_a_peer_of_rfc_2543_has_no_tag() -> None:
    old = invite()
    old.headers.set("From", "<sip:peer@a.example>")
    dialog = Dialog.uas(old, "ours", OURS)
    bye = dialog.request("BYE")
    assert bye.to.tag is None
    mine = Request("BYE", SipUri("sip", None, None, "x"), Headers())
    for name, value in (("From", "<sip:p@a>"), ("To", "<sip:v@b>;tag=ours"), ("Call-ID", "c1")):
        mine.headers.add(name, value)
    assert dialog.matches(mine)


@given(st.lists(st.tuples(st.sampled_from(["BYE", "INFO", "ACK"]), st.integers(0, 99))))
def test_numbers_rise(requests: list[tuple[str, int]]) -> None:
    dialog = Dialog.uas(invite(), "ours", OURS)
    highest = 41
    for method, number in requests:
        message = request(
            method,
            SipUri("sip", None, None, "x"),
            from_=OURS,
            to=OURS,
            call_id="c1",
            cseq=number,
        )
        status = dialog.accepts(message)
        if method == "ACK":
            assert status is None
        elif number > highest:
            assert status is None
            highest = number
        else:
            assert status == 500
    assert dialog.remote_seq == highest
