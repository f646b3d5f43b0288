"""The simulated caller's own reading of SIP, SDP and digest challenges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.simulate.sip_digest import Credentials, answer
from voiced.simulate.sip_message import (
    BadMessage,
    Message,
    host_and_port,
    parameter,
    parse,
    parse_address,
    split,
    uri_of,
    write,
)
from voiced.simulate.sip_sdp import SdpError, agree, describe, read

HEADERS = [
    ("Via", "SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1"),
    ("From", '"A, B" <sip:a@b>;tag=1'),
    ("To", "<sip:c@d>"),
    ("Call-ID", "x"),
    ("CSeq", "7 OPTIONS"),
]


def test_a_message_survives() -> None:
    message = parse(write("OPTIONS sip:c@d SIP/2.0", HEADERS, b"hello"))
    assert (message.method, message.uri, message.body) == ("OPTIONS", "sip:c@d", b"hello")
    assert (message.cseq, message.branch) == ((7, "OPTIONS"), "z9hG4bK1")
    assert (message.from_tag, message.to_tag) == ("1", None)


def test_compact_names_and_folded_lines_are_read() -> None:
    data = (
        b"SIP/2.0 200 OK\r\nv: SIP/2.0/UDP a;branch=z9hG4bK2,\r\n SIP/2.0/UDP b\r\n"
        b"f: <sip:a@b>;tag=1\r\nt : <sip:c@d>;tag=2\r\ni: x\r\nCSeq: 1 INVITE\r\nl: 0\r\n\r\n"
    )
    message = parse(data)
    assert (message.status, message.reason, message.to_tag) == (200, "OK", "2")
    assert message.all("via") == ["SIP/2.0/UDP a;branch=z9hG4bK2", "SIP/2.0/UDP b"]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"\r\n\r\n", b"", "blank line"),
        (b"OPTIONS sip:c@d SIP/2.0", b"OPTIONS sip:c@d SIP/3.0", "first line"),
        (b"Content-Length: 5", b"Content-Length: 4", "has 5 bytes"),
        (b"Content-Length: 5", b"Content-Length: five", "five"),
        (b"7 OPTIONS", b"7 INVITE", "does not belong"),
        (b"7 OPTIONS", b"x OPTIONS", "no number"),
        (b"z9hG4bK1", b"1", "magic cookie"),
        (b"Call-ID: x\r\n", b"", "no call-id"),
        (b"To: <", b"To <", "header line"),
        (b"Call-ID: x\r\n", b"Call-ID: x\n", "CRLF"),
        (b"<sip:c@d>", b"<sip:\xff@d>", "UTF-8"),
    ],
)
def test_what_breaks_the_rules_is_refused(old: bytes, new: bytes, why: str) -> None:
    data = write("OPTIONS sip:c@d SIP/2.0", HEADERS, b"hello")
    with pytest.raises(BadMessage, match=why):
        parse(data.replace(old, new, 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        parse(data)
    except BadMessage as error:
        assert str(error)  # noqa: PT017 (another exception would be the failure)


def test_lists_and_parameters() -> None:
    value = '"a, \\"b" <sip:x@y;p=1,2>;q=0.5;lr, <sip:z@w>;tag="t"'
    assert split(value) == ['"a, \\"b" <sip:x@y;p=1,2>;q=0.5;lr', '<sip:z@w>;tag="t"']
    first = split(value)[0]
    assert [parameter(first, name) for name in ("q", "lr", "p")] == ["0.5", "", None]
    assert uri_of(first) == "sip:x@y;p=1,2"
    assert parameter("SIP/2.0/UDP h;rport;branch=b", "branch") == "b"


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("sip:+1555@127.0.0.1:5070", ("+1555", "127.0.0.1", 5070, "udp")),
        ("sip:[::1];transport=TCP", (None, "::1", None, "tcp")),
        ("sips:a@b.test", ("a", "b.test", None, "tls")),
    ],
)
def test_addresses(uri: str, parts: tuple[object, ...]) -> None:
    address = parse_address(uri)
    assert (address.user, address.host, address.port, address.transport) == parts


@pytest.mark.parametrize("uri", ["", "tel:+1555", "sip:", "sip:a@b:70000", "sip:a@b:0"])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(BadMessage):
        parse_address(uri)


def test_ipv6_is_written_in_brackets() -> None:
    assert host_and_port("::1", 5060) == "[::1]:5060"


# RFC 7616 section 3.9.1; the RFC's own challenge and answers.
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_rfc_s_own_digest(algorithm: str, response: str) -> None:
    challenge = (
        f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, '
        f'nonce="{NONCE}", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    message = Message((("www-authenticate", challenge),), status=401)
    found = answer(
        message,
        "GET",
        "/dir/index.html",
        Credentials("Mufasa", "Circle of Life"),
        cnonce=CNONCE,
    )
    assert found is not None
    (name, value), stale = found
    assert (name, stale) == ("Authorization", False)
    assert f'response="{response}"' in value


def test_a_proxy_without_qop() -> None:
    challenge = 'Digest realm="r", nonce="n", stale=TRUE'
    message = Message((("proxy-authenticate", challenge),), status=407)
    found = answer(message, "INVITE", "sip:a@b", Credentials("u", "p"))
    assert found is not None
    (name, value), stale = found
    assert (name, stale) == ("Proxy-Authorization", True)
    assert "nc=" not in value
    other = Message((("proxy-authenticate", "Basic realm=r"),), status=407)
    assert answer(other, "INVITE", "sip:a@b", Credentials("u", "p")) is None


def test_a_description_survives() -> None:
    media = read(describe("::1", 4000, session=1, version=2, direction="sendonly"))
    assert (media.address, media.port, media.formats) == ("::1", 4000, (0, 8, 101))
    assert (media.direction, media.ptime, media.events, media.codec) == ("sendonly", 20, 101, 0)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"v=0\r\n", b"", "begin with"),
        (b"m=audio", b"m=video", "no audio"),
        (b"RTP/AVP", b"RTP/SAVP", "RTP/SAVP"),
        (b"c=IN IP4 127.0.0.1\r\n", b"", "no c= line"),
        (b"a=ptime:20\r\n", b"a=ptime:20\n", "the line"),
        (b"4000", b"port", "the line"),
    ],
)
def test_bad_descriptions_are_refused(old: bytes, new: bytes, why: str) -> None:
    with pytest.raises(SdpError, match=why):
        read(describe("127.0.0.1", 4000, session=1, version=1).replace(old, new, 1))


def test_hold_by_address() -> None:
    media = read(describe("0.0.0.0", 4000, session=1, version=1))
    assert media.direction == "inactive"


def test_a_direction_must_fit_the_offer() -> None:
    held = read(describe("127.0.0.1", 4000, session=1, version=1, direction="sendonly"))
    answered = read(describe("127.0.0.1", 4000, session=1, version=1))
    agree(answered, held)
    with pytest.raises(SdpError, match="sendonly is answered with sendrecv"):
        agree(held, answered)
