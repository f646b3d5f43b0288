"""Who calls whom, as INVITEs say it."""

from __future__ import annotations

import pytest

from voiced.sip.identity import is_number, parties, uri_of
from voiced.sip.message import Request, parse


def invite(uri: str, *headers: str) -> Request:
    lines = [
        f"INVITE {uri} SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1",
        "Max-Forwards: 70",
        "Call-ID: c",
        "CSeq: 1 INVITE",
        *headers,
        *(["To: <sip:x@example.net>"] if not any(h.startswith("To:") for h in headers) else []),
        *(["From: <sip:+491@t.example>;tag=a"] if not any("From:" in h for h in headers) else []),
        "",
        "",
    ]
    request = parse("\r\n".join(lines).encode())
    assert isinstance(request, Request)
    return request


@pytest.mark.parametrize(
    ("uri", "called", "called_uri"),
    [
        ("sip:+4930123456@voice.example.net", "+4930123456", "sip:+4930123456@voice.example.net"),
        ("sip:030123;phone-context=+49@h;user=phone", "030123", "sip:030123;phone-context=+49@h"),
        ("sip:%2B49-30.1(2)@h:5070;transport=tcp", "+493012", "sip:%2B49-30.1(2)@h"),
        ("sip:sales@example.net", "sip:sales@example.net", "sip:sales@example.net"),
        ("sip:example.net", "sip:example.net", "sip:example.net"),
        ("sips:a@[2001:db8::1]:5061", "sips:a@[2001:db8::1]", "sips:a@[2001:db8::1]"),
        ("tel:+49-30-123", "+4930123", "tel:+49-30-123"),
    ],
)
def test_called(uri: str, called: str, called_uri: str) -> None:
    who = parties(invite(uri))
    assert (who.called, who.called_uri) == (called, called_uri)


def test_a_call_to_our_contact_is_for_the_number_in_to() -> None:
    request = invite("sip:voiced@192.0.2.1:5060", "To: <sip:+4930123456@provider.example>")
    assert parties(request).called == "sip:voiced@192.0.2.1"
    assert parties(request, ["voiced"]).called == "+4930123456"


@pytest.mark.parametrize(
    ("headers", "caller"),
    [
        (['From: "A" <sip:+4930@h>;tag=1'], "+4930"),
        (["From: sip:bob@h;tag=1"], "sip:bob@h"),
        (["From: <sip:anonymous@anonymous.invalid>;tag=1"], "anonymous"),
        (["From: <sip:Anonymous@h>;tag=1"], "anonymous"),
        (["From: <tel:+1-201>;tag=1"], "+1201"),
        (["From: <sip:x@h>;tag=1", "P-Asserted-Identity: <sip:+4930@h;user=phone>"], "+4930"),
        (["From: <sip:x@h>;tag=1", 'P-Asserted-Identity: "N" <tel:+4931>, <sip:y@h>'], "+4931"),
        (["From: <sip:x@h>;tag=1", "P-Asserted-Identity: <<"], "sip:x@h"),
    ],
)
def test_caller(headers: list[str], caller: str) -> None:
    assert parties(invite("sip:a@b", *headers)).caller == caller


def test_headers_that_are_facts() -> None:
    request = invite(
        "sip:a@b",
        "X-Tenant: acme",
        "x-tenant: again",
        "Diversion: <sip:+49@h>;reason=unconditional",
        "User-to-User: 56a3;encoding=hex",
        "Authorization: Digest secret",
        "User-Agent: phone",
    )
    assert parties(request).headers == {
        "X-Tenant": "acme",
        "x-tenant": "again",
        "Diversion": "<sip:+49@h>;reason=unconditional",
        "User-to-User": "56a3;encoding=hex",
    }


def test_short_forms_are_the_same_headers() -> None:
    request = invite("sip:a@b", "s: Lunch", "b: <sip:boss@h>", "y: eyJ.x.y;info=<sip:z>", "x: 90")
    assert parties(request).headers == {
        "Subject": "Lunch",
        "Referred-By": "<sip:boss@h>",
        "Identity": "eyJ.x.y;info=<sip:z>",
    }


def test_headers_are_bounded() -> None:
    many = [f"X-{number}: v" for number in range(90)]
    assert len(parties(invite("sip:a@b", *many)).headers) == 64


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        ("+49 (30) 123-4", "sip:+49301234@trunk.example:5070"),
        ("110", "sip:110@trunk.example:5070"),
        ("tel:+49-30", "sip:+4930@trunk.example:5070"),
        ("sip:bob@example.org;transport=tcp", "sip:bob@example.org;transport=tcp"),
    ],
)
def test_targets(target: str, uri: str) -> None:
    assert str(uri_of(target, "trunk.example:5070")) == uri


@pytest.mark.parametrize(
    "target", ["", "bob", "mailto:a@b", "sip:", "sip:a@b?Replaces=x", "sip:a b@c", "+49x"]
)
def test_what_is_no_target(target: str) -> None:
    with pytest.raises(ValueError, match="is "):
        uri_of(target, "trunk.example")


def test_numbers() -> None:
    assert is_number("+49 30 123")
    assert not is_number("sip:a@b")
