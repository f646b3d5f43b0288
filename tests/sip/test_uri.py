"""URIs and addresses: what is read, what is refused, and which are the same."""

from __future__ import annotations

import pytest

from voiced.sip.errors import ParseError
from voiced.sip.uri import (
    NameAddr,
    OtherUri,
    SipUri,
    TelUri,
    escape_user,
    parse_name_addr,
    parse_uri,
)


def _sip(text: str) -> SipUri:
    uri = parse_uri(text)
    assert isinstance(uri, SipUri)
    return uri


def test_every_part_of_a_sip_uri() -> None:
    uri = _sip("sip:al%69ce:se%20cret@Example.ORG:5070;Transport=TCP;lr?Subject=a%20b&X=")
    assert uri == SipUri(
        "sip",
        "al%69ce",
        "se%20cret",
        "example.org",
        5070,
        {"transport": "TCP", "lr": None},
        (("Subject", "a%20b"), ("X", "")),
    )
    assert uri.unescaped_user == "alice"
    assert uri.transport == "tcp"
    assert uri.lr
    assert str(uri) == "sip:al%69ce:se%20cret@example.org:5070;transport=TCP;lr?Subject=a%20b&X="


@pytest.mark.parametrize(
    ("text", "transport"),
    [
        ("sip:example.org", "udp"),
        ("sips:example.org", "tls"),
        ("sips:example.org;transport=tcp", "tls"),
        ("SIP:example.org;transport=SCTP", "sctp"),
        ("sip:example.org;transport", "udp"),
    ],
)
def test_transport(text: str, transport: str) -> None:
    assert _sip(text).transport == transport


def test_an_ipv6_host_has_brackets_only_in_writing() -> None:
    uri = _sip("sip:a@[2001:DB8::1]:5060")
    assert (uri.host, uri.port) == ("2001:db8::1", 5060)
    assert str(uri) == "sip:a@[2001:db8::1]:5060"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip:",
        "sip:@example.org",
        "sip:a@",
        "sip:a b@example.org",
        "sip:a@b@example.org",
        "sip:a%4@example.org",
        "sip:a%zz@example.org",
        "sip:a@example.org:65536",
        "sip:a@example.org:",
        "sip:a@example.org;",
        "sip:a@example.org;=x",
        "sip:a@example.org;x=1;X=2",
        "sip:a@example.org?",
        "sip:a@example.org?subject",
        "sip:a@example.org?a=1&",
        "sip:a@-example.org",
        "sip:a@2001:db8::1",
        "sip:a@[2001:db8:::1]",
        "sip:a@[192.0.2.1]",
        "sip:a@[::1%25eth0]",
        "sip:a@exämple.org",
        "sip:a@example.org\r\nX: y",
        "<sip:a@example.org>",
        "tel:",
        "tel:+",
        "tel:--",
        "tel:+1;x=\u00b9;",
        "noscheme",
        "1a:b",
        "http:",
        "http:a b",
    ],
)
def test_what_is_no_uri(text: str) -> None:
    with pytest.raises(ParseError):
        parse_uri(text)


# RFC 3261 section 19.1.4 has these pairs, or pairs like them, as examples.
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sip:%61lice@a.example;transport=TCP", "sip:alice@A.ExAmPlE;Transport=tcp"),
        ("sip:carol@c.example", "sip:carol@c.example;newparam=5"),
        ("sip:carol@c.example;security=on", "sip:carol@c.example;newparam=5"),
        (
            "sip:b.example;transport=tcp;method=REGISTER?to=sip:bob%40b.example",
            "sip:b.example;method=REGISTER;transport=tcp?to=sip:bob%40b.example",
        ),
        (
            "sip:alice@a.example?subject=project%20x&priority=urgent",
            "sip:alice@a.example?priority=urgent&subject=project%20x",
        ),
        ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]"),
    ],
)
def test_equivalent(one: str, other: str) -> None:
    assert _sip(one).equivalent(_sip(other))
    assert _sip(other).equivalent(_sip(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SIP:ALICE@a.example;Transport=udp", "sip:alice@a.example;Transport=UDP"),
        ("sip:bob@b.example", "sip:bob@b.example:5060"),
        ("sip:bob@b.example", "sip:bob@b.example;transport=udp"),
        ("sip:bob@b.example", "sip:bob@b.example:6000;transport=tcp"),
        ("sip:carol@c.example", "sip:carol@c.example?Subject=next%20meeting"),
        ("sip:bob@phone21.b.example", "sip:bob@192.0.2.4"),
        ("sip:carol@c.example;security=on", "sip:carol@c.example;security=off"),
        ("sip:carol@c.example", "sips:carol@c.example"),
        ("sip:carol@c.example", "sip:carol:@c.example"),
        ("sip:c.example", "sip:c@c.example"),
        ("sip:carol@c.example;maddr=192.0.2.1", "sip:carol@c.example"),
        ("sip:carol@c.example", "tel:+1"),
    ],
)
def test_not_equivalent(one: str, other: str) -> None:
    assert not _sip(one).equivalent(parse_uri(other))


def test_tel_uri() -> None:
    uri = parse_uri("tel:+1-201-555.01(23);phone-context=example.com")
    assert uri == TelUri("+1-201-555.01(23)", {"phone-context": "example.com"})
    assert uri.normalized == "+12015550123"
    assert str(uri) == "tel:+1-201-555.01(23);phone-context=example.com"
    assert parse_uri("TEL:*21#") == TelUri("*21#")


def test_other_schemes_are_kept_as_they_are() -> None:
    uri = parse_uri("URN:service:sos")
    assert uri == OtherUri("urn", "service:sos")
    assert str(uri) == "urn:service:sos"


def test_the_hash_sign_that_telephones_send() -> None:
    assert _sip("sip:*21#@example.org").unescaped_user == "*21#"
    assert escape_user("#31# a@é") == "%2331%23%20a%40%C3%A9"


def test_replacing_a_part() -> None:
    uri = _sip("sip:alice@example.org").replace(port=5080, parameters={"lr": None})
    assert str(uri) == "sip:alice@example.org:5080;lr"


@pytest.mark.parametrize(
    ("text", "display", "uri", "parameters"),
    [
        ("sip:a@b;tag=1", None, "sip:a@b", {"tag": "1"}),
        ("<sip:a@b;lr>;Tag = 1", None, "sip:a@b;lr", {"tag": "1"}),
        ('"A \\"B\\", <C>" <sip:a@b>', 'A "B", <C>', "sip:a@b", {}),
        ('""<sip:a@b>', "", "sip:a@b", {}),
        ("Jörg  Weber <sip:a@b>;x", "Jörg  Weber", "sip:a@b", {"x": None}),
        ("+49 30: 1@2 <sip:a@b>", "+49 30: 1@2", "sip:a@b", {}),
        ('<sip:a@b> ; x = "y;z, \\"" ; w', None, "sip:a@b", {"x": '"y;z, \\""', "w": None}),
        (
            "<tel:+1>;verstat=TN-Validation-Passed",
            None,
            "tel:+1",
            {"verstat": "TN-Validation-Passed"},
        ),
        (
            '<sip:a@b>;+sip.instance="<urn:uuid:1>"',
            None,
            "sip:a@b",
            {"+sip.instance": '"<urn:uuid:1>"'},
        ),
        ("<sip:a@b>;k=YWI=", None, "sip:a@b", {"k": "YWI="}),
    ],
)
def test_addresses(
    text: str, display: str | None, uri: str, parameters: dict[str, str | None]
) -> None:
    address = parse_name_addr(text)
    assert address == NameAddr(display, parse_uri(uri), parameters)
    assert parse_name_addr(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A B",
        "<sip:a@b",
        "sip:a@b>",
        "<sip:a@b>>",
        "<sip:a@b> x",
        "<sip:a@b>;",
        "<sip:a@b>;;x",
        "<sip:a@b>;tag=1;tag=2",
        "< sip:a@b>",
        "<>",
        '"A <sip:a@b>',
        '"A\\" <sip:a@b>',
        "Bell, A <sip:a@b>",
        "sip:a@b?x=y",
        '"A" sip:a@b',
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ParseError):
        parse_name_addr(text)


def test_tag_and_expires() -> None:
    address = parse_name_addr("<sip:a@b>;expires=60")
    assert address.tag is None
    assert address.with_tag("x1").tag == "x1"
    assert str(address.with_tag("x1")) == "<sip:a@b>;expires=60;tag=x1"
    assert address.expires == 60
    assert parse_name_addr("<sip:a@b>;expires=00000000000060").expires == 60
    assert parse_name_addr(f"<sip:a@b>;expires={10**40}").expires == 2**32 - 1
    for malformed in ("<sip:a@b>", "<sip:a@b>;expires=x", "<sip:a@b>;expires=\u00b2"):
        assert parse_name_addr(malformed).expires is None
