"""Building requests, and what a response repeats of its request."""

from __future__ import annotations

import pytest

from tests.sip.samples import INVITE, edited, minimal
from voiced.sip.message import REASONS, NameAddr, Request, parse, request, response_to
from voiced.sip.uri import parse_uri


def _received(data: bytes) -> Request:
    message = parse(data)
    assert isinstance(message, Request)
    return message


def test_a_request() -> None:
    built = request(
        "INVITE",
        parse_uri("sip:b@example.org"),
        from_=NameAddr("Ann", parse_uri("sip:a@example.org"), {"tag": "1"}),
        to=NameAddr(None, parse_uri("sip:b@example.org")),
        call_id="x@y",
        cseq=3,
        contact=NameAddr(None, parse_uri("sip:a@192.0.2.1")),
        routes=[NameAddr(None, parse_uri("sip:p1;lr")), NameAddr(None, parse_uri("sip:p2;lr"))],
        headers=[("Supported", "timer")],
        content_type="application/sdp",
        body=b"v=0\r\n",
    )
    assert bytes(built).split(b"\r\n") == [
        b"INVITE sip:b@example.org SIP/2.0",
        b"Route: <sip:p1;lr>",
        b"Route: <sip:p2;lr>",
        b"Max-Forwards: 70",
        b'From: "Ann" <sip:a@example.org>;tag=1',
        b"To: <sip:b@example.org>",
        b"Call-ID: x@y",
        b"CSeq: 3 INVITE",
        b"Contact: <sip:a@192.0.2.1>",
        b"Supported: timer",
        b"Content-Type: application/sdp",
        b"Content-Length: 5",
        b"",
        b"v=0",
        b"",
    ]


def test_a_response_repeats_what_it_has_to() -> None:
    response = response_to(
        _received(INVITE), 180, to_tag="t9", headers=[("Contact", "<sip:u@192.0.2.8>")]
    )
    assert bytes(response).decode().split("\r\n") == [
        "SIP/2.0 180 Ringing",
        "Record-Route: <sip:192.0.2.1;lr;ftag=a>, <sip:192.0.2.2;lr>",
        "Via: SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bK1;rport",
        "Via: SIP/2.0/TCP [2001:db8::5];branch=z9hG4bK0;received=192.0.2.77",
        'From: "A. Caller" <sip:+15551@trunk.example>;tag=a1',
        "To: <sip:+493011@198.51.100.2>;tag=t9",
        "Call-ID: 8a1b2c3d@trunk.example",
        "CSeq: 1 INVITE",
        "Contact: <sip:u@192.0.2.8>",
        "Content-Length: 0",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("status", "routes", "timestamp", "tag"),
    [
        (100, False, True, None),
        (183, True, False, "t"),
        (200, True, False, "t"),
        (302, False, False, "t"),
        (486, False, False, "t"),
    ],
)
def test_what_depends_on_the_status(
    status: int, routes: bool, timestamp: bool, tag: str | None
) -> None:
    response = response_to(_received(INVITE), status, to_tag="t")
    assert bool(response.record_routes) == routes
    assert ("Timestamp" in response.headers) == timestamp
    assert response.to.tag == tag
    assert response.reason == REASONS[status]


def test_only_requests_that_create_dialogs_have_their_route_recorded() -> None:
    message = _received(minimal("Record-Route: <sip:p;lr>"))
    assert response_to(message, 200).record_routes == []


def test_a_to_tag_is_never_replaced() -> None:
    tagged = _received(edited("To: <sip:a@b.example>", "To: sip:a@b.example;tag=old"))
    assert response_to(tagged, 200, to_tag="new").to.tag == "old"
    bare = _received(edited("To: <sip:a@b.example>", "t: sip:a@b.example "))
    assert response_to(bare, 200, to_tag="new").headers.items()[2] == (
        "t",
        "sip:a@b.example;tag=new",
    )


def test_reason_and_body_of_our_choice() -> None:
    response = response_to(
        _received(minimal()), 299, "As you like", content_type="text/plain", body=b"hi"
    )
    assert bytes(response).startswith(b"SIP/2.0 299 As you like\r\n")
    assert bytes(response).endswith(b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi")
    assert response_to(_received(minimal()), 299).reason == ""


def test_nothing_from_outside_can_add_a_field() -> None:
    with pytest.raises(ValueError, match="line break"):
        response_to(_received(minimal()), 200, headers=[("Reason", "x\r\nEvil: y")])
