"""Typed views of header fields."""

from __future__ import annotations

import pytest

from tests.sip.samples import INVITE, edited, minimal
from voiced.sip.errors import ParseError
from voiced.sip.message import (
    CSeq,
    Headers,
    RAck,
    Replaces,
    Request,
    SessionExpires,
    SubscriptionState,
    Via,
    parse,
)
from voiced.sip.uri import parse_uri


def test_an_invite() -> None:
    message = parse(INVITE)
    assert message.via == Via("UDP", "192.0.2.9", 5062, {"branch": "z9hG4bK1", "rport": None})
    assert [via.host for via in message.vias] == ["192.0.2.9", "2001:db8::5"]
    assert message.vias[1].received == "192.0.2.77"
    assert message.from_.display == "A. Caller"
    assert message.from_.tag == "a1"
    assert message.to.tag is None
    assert message.call_id == "8a1b2c3d@trunk.example"
    assert message.cseq == CSeq(1, "INVITE")
    assert [str(contact) for contact in message.contacts] == [
        "<sip:+15551@192.0.2.9:5062;transport=udp>"
    ]
    assert [route.parameters for route in message.record_routes] == [{}, {}]
    assert message.record_routes[1].uri == parse_uri("sip:192.0.2.2;lr")
    assert message.max_forwards == 67
    assert message.allow == ("INVITE", "ACK", "CANCEL", "BYE")
    assert message.supported == ("timer", "100rel")
    assert message.content_type == "application/sdp"


def test_absent_fields_are_none_or_empty() -> None:
    message = parse(minimal())
    for name in (
        *("max_forwards", "expires", "min_expires", "content_type", "session_expires", "min_se"),
        *("rseq", "rack", "refer_to", "event", "subscription_state", "retry_after", "replaces"),
    ):
        assert getattr(message, name) is None, name
    for name in ("contacts", "routes", "record_routes"):
        assert getattr(message, name) == []
    for name in ("require", "proxy_require", "supported", "unsupported", "allow"):
        assert getattr(message, name) == ()
    assert not message.contact_is_star


def test_fields_without_which_there_is_no_message() -> None:
    message = Request("INVITE", parse_uri("sip:a@b"), Headers())
    assert message.vias == []
    for name in ("via", "from_", "to", "call_id", "cseq"):
        with pytest.raises(ParseError, match="no "):
            getattr(message, name)


@pytest.mark.parametrize(
    ("field", "view", "value"),
    [
        ("Expires: 3600", "expires", 3600),
        ("Expires: 99999999999999999999", "expires", 2**32 - 1),
        ("Expires: 4294967296", "expires", 2**32 - 1),
        ("Min-Expires: 007", "min_expires", 7),
        ("Min-SE: 90;x=y", "min_se", 90),
        ("x: 1800;refresher=UAS", "session_expires", SessionExpires(1800, "uas")),
        ("Session-Expires: 90 ; refresher = uac", "session_expires", SessionExpires(90, "uac")),
        ("Session-Expires: 90;refresher=else", "session_expires", SessionExpires(90)),
        ("Retry-After: 18 (soon) ;duration=2", "retry_after", 18),
        ("Retry-After: 5;duration=3600", "retry_after", 5),
        ("RSeq: 988789", "rseq", 988789),
        ("RAck: 776656 1 INVITE", "rack", RAck(776656, 1, "INVITE")),
        ("o: Refer;id=1", "event", "refer"),
        ("c: text/plain", "content_type", "text/plain"),
        ("Content-Type: text / plain ; a=b", "content_type", "text/plain"),
        (
            "Subscription-State: Terminated;reason=NoResource;retry-after=4;expires=0",
            "subscription_state",
            SubscriptionState("terminated", "noresource", 0, 4),
        ),
        ("Subscription-State: active", "subscription_state", SubscriptionState("active")),
        (
            "Replaces: 1@h;from-tag=f;to-tag=t;early-only",
            "replaces",
            Replaces("1@h", "t", "f", early_only=True),
        ),
        ("Require: A, b", "require", ("a", "b")),
        ("Unsupported: A", "unsupported", ("a",)),
        ("Proxy-Require: ", "proxy_require", ()),
        ("Contact: *", "contacts", []),
        ("m: *", "contact_is_star", True),
    ],
)
def test_single_views(field: str, view: str, value: object) -> None:
    assert getattr(parse(minimal(field)), view) == value


@pytest.mark.parametrize(
    ("field", "view"),
    [
        ("Expires: soon", "expires"),
        ("Expires: -1", "expires"),
        ("Session-Expires: ;refresher=uac", "session_expires"),
        ("Min-SE: x", "min_se"),
        ("RSeq: 4294967296", "rseq"),
        ("RAck: 1 INVITE", "rack"),
        ("RAck: 1 2147483648 INVITE", "rack"),
        ("Refer-To: sip:a@b?x=y", "refer_to"),
        ("Subscription-State: ;reason=x", "subscription_state"),
        ("Subscription-State: active;expires=x", "subscription_state"),
        ("Replaces: a;to-tag=t", "replaces"),
        ("Replaces: ;to-tag=t;from-tag=f", "replaces"),
        ("Retry-After: later", "retry_after"),
        ("Route: sip:a@b, <", "routes"),
        ("Record-Route: <sip:a@b>,", "record_routes"),
    ],
)
def test_malformed_fields_are_an_error_when_they_are_read(field: str, view: str) -> None:
    message = parse(minimal(field))
    with pytest.raises(ParseError) as caught:
        getattr(message, view)
    assert caught.value.status == 400
    assert caught.value.head is message


def test_a_malformed_field_of_an_ack_cannot_be_answered() -> None:
    message = parse(minimal("Expires: x").replace(b"OPTIONS", b"ACK"))
    with pytest.raises(ParseError) as caught:
        _ = message.expires
    assert caught.value.head is None


def test_views_follow_changes_of_the_fields() -> None:
    message = parse(minimal("Route: <sip:one>"))
    assert len(message.routes) == 1
    message.headers.add("Route", "<sip:two>")
    message.routes.clear()  # what is given out is the caller's own
    assert [str(route.uri) for route in message.routes] == ["sip:one", "sip:two"]
    message.headers.set("To", "<sip:a@b>;tag=z")
    assert message.to.tag == "z"
    message.headers = parse(minimal("Expires: 5")).headers
    assert message.to == parse(minimal()).to
    assert message.expires == 5


def test_via() -> None:
    via = parse(edited("rport", "rport=5080;ttl=1;Received=192.0.2.3")).via
    assert (via.rport, via.received, via.branch) == (5080, "192.0.2.3", "z9hG4bK1")
    asked = Via("TCP", "::1", None, {"rport": None})
    assert asked.rport == ""
    assert str(asked) == "SIP/2.0/TCP [::1];rport"
    answered = asked.replace(parameters={**asked.parameters, "rport": "9"})
    assert answered.rport == 9
    assert hash(answered) == hash(asked)
    assert Via("UDP", "a").rport is None
    assert Via("UDP", "a").received is None


def test_small_values_are_written_as_they_are_read() -> None:
    assert str(CSeq(1, "BYE")) == "1 BYE"
    assert str(RAck(1, 2, "INVITE")) == "1 2 INVITE"
    assert str(SessionExpires(90, "uac")) == "90;refresher=uac"
    assert str(SessionExpires(90)) == "90"
