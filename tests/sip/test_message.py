"""Parsing a datagram: what is taken, what is refused, and with which answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sip.samples import INVITE, VIA, edited, minimal
from voiced.sip.errors import ParseError
from voiced.sip.message import (
    MAX_FIELDS,
    MAX_HEAD,
    Headers,
    Request,
    Response,
    parse,
    response_to,
)
from voiced.sip.uri import OtherUri

_START = "OPTIONS sip:a@b.example SIP/2.0"


def _request(data: bytes) -> Request:
    message = parse(data)
    assert isinstance(message, Request)
    return message


def _refused(data: bytes) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse(data)
    return caught.value


def test_unmodified_bytes_come_back_unchanged() -> None:
    message = _request(INVITE)
    assert bytes(message) == INVITE
    assert message.headers.get("X-Own") == "a \udcff b"
    assert message.body == b"v=0\n"


def test_any_change_writes_the_message_anew() -> None:
    changes: list[Callable[[Request], object]] = [
        lambda message: message.headers.add("X", "y"),
        lambda message: setattr(message, "body", b"other"),
        lambda message: setattr(message, "method", "UPDATE"),
        lambda message: setattr(message, "uri", OtherUri("urn", "x")),
    ]
    for change in changes:
        message = _request(INVITE)
        change(message)
        written = bytes(message)
        assert written != INVITE
        head, _, body = written.partition(b"\r\n\r\n")
        assert head.endswith(b"\r\nContent-Length: %d" % len(body))
        assert body == message.body
        assert b"X-Own: a \xff b\r\n" in written


def test_a_copy_shares_nothing_that_changes() -> None:
    message = _request(INVITE)
    copy = message.copy()
    assert copy == message
    copy.headers.remove("Via")
    assert len(message.vias) == 2
    assert copy != message
    response = response_to(message, 200)
    assert response.copy() == response
    assert response != message


def test_equality_sees_values_and_not_spelling() -> None:
    assert parse(edited("To:", "t   :")) == parse(minimal())
    assert parse(edited("Content-Length: 0\n", "")) == parse(minimal())
    assert parse(edited("tag=1", "tag=2")) != parse(minimal())


def test_bytes_past_content_length_are_dropped() -> None:
    message = parse(minimal() + b"rest")
    assert message.body == b""
    assert bytes(message) == minimal()


def test_without_content_length_the_datagram_ends_the_body() -> None:
    message = parse(edited("Content-Length: 0\n", "") + b"\x00\r\n\r\n\xff")
    assert message.body == b"\x00\r\n\r\n\xff"


def test_line_breaks_before_the_start_line_are_skipped() -> None:
    assert bytes(parse(b"\r\n\r\n" + INVITE)) == INVITE


def test_folded_lines() -> None:
    message = parse(minimal("Subject: one\n \t two", "X-Empty:\n ", "X-Also:\n\tthree"))
    assert message.headers.get("Subject") == "one two"
    assert message.headers.get("X-Empty") == ""
    assert message.headers.get("X-Also") == "three"


def test_a_response() -> None:
    message = parse(edited(_START, "sip/2.0 486 Besetzt – später"))
    assert isinstance(message, Response)
    assert (message.status, message.reason) == (486, "Besetzt – später")
    assert repr(message).startswith("Response(486, 'Besetzt")


@pytest.mark.parametrize(
    ("data", "reason", "status"),
    [
        (
            edited(_START, "OPTIONS sip:a SIP/3.0"),
            "unsupported version",
            505,
        ),
        (edited("OPTIONS sip:a@b.example", "OPTIONS sip:a@b.example:99999"), "malformed port", 400),
        (edited("sip:a@b.example SIP", "sip:a@b.example?x=y SIP"), "headers in Request-URI", 400),
        (edited(" SIP/2.0\n", " SIP/2.0 \n"), "malformed start line", 400),
        (edited("CSeq: 7 OPTIONS", "CSeq: 7 INVITE"), "CSeq of another method", 400),
        (edited("CSeq: 7 OPTIONS", "CSeq: 2147483648 OPTIONS"), "CSeq out of range", 400),
        (edited("CSeq: 7 OPTIONS", "CSeq: -7 OPTIONS"), "malformed CSeq", 400),
        (edited("CSeq: 7 OPTIONS", "CSeq: 7"), "malformed CSeq", 400),
        (edited("Call-ID: x@y", "Call-ID: x y"), "malformed Call-ID", 400),
        (edited("<sip:c@d.example>;tag=1", "<sip:c@d.example;tag=1"), "malformed address", 400),
        (edited("To: <sip:a@b.example>", "To: nobody"), "malformed URI", 400),
        (edited("Content-Length: 0", "Content-Length: 1"), "body shorter than Content-Length", 400),
        (edited("Content-Length: 0", "Content-Length: +0"), "malformed Content-Length", 400),
        (edited("Content-Length: 0", "Content-Length: \u0660"), "malformed Content-Length", 400),
        (edited("Content-Length: 0", "Content-Length: 0\nl: 0"), "repeated header field", 400),
        (minimal("Call-ID: again"), "repeated header field", 400),
        (minimal("no colon"), "malformed header field", 400),
        (minimal("Bad Name: x"), "malformed header field", 400),
        (minimal("Subject: a\rb"), "line break in a header field", 400),
        (minimal("Max-Forwards: 256"), "malformed Max-Forwards", 400),
        (minimal("Contact: <sip:a@b>, ,<sip:c@d>"), "malformed address", 400),
        (minimal("Contact: *", "Contact: <sip:c@d>"), "malformed URI", 400),
        (minimal("Via: SIP/2.0/UDP 192.0.2.1;rport=x"), "malformed port", 400),
        (minimal(*["Q: y"] * (MAX_FIELDS - 5)), "too many header fields", 400),
        (minimal()[:-4], "head not ended", 400),
        (minimal()[:-2], "head not ended", 400),
    ],
)
def test_refused_with_an_answer(data: bytes, reason: str, status: int) -> None:
    error = _refused(data)
    assert (error.reason, error.status, error.fatal) == (reason, status, False)
    assert error.head is not None
    answer = response_to(error.head, error.status, to_tag="t")
    assert answer.headers.items()[0] == tuple(VIA.split(": ", 1))
    assert answer.headers.get_fields("CSeq") == error.head.headers.get_fields("CSeq")
    assert bytes(answer).startswith(f"SIP/2.0 {status} ".encode())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\r\n\r\n", "empty"),
        (b"\0" * 40, "malformed start line"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed start line"),
        (edited(f"{VIA}\n", ""), "no via"),
        (edited("From: <sip:c@d.example>;tag=1\n", ""), "no from"),
        (edited("To: <sip:a@b.example>\n", ""), "no to"),
        (edited("Call-ID: x@y\n", ""), "no call-id"),
        (edited("CSeq: 7 OPTIONS\n", ""), "no cseq"),
        (edited(VIA, "Via: nonsense"), "malformed Via"),
        (edited("192.0.2.9:5062", "[::1::2]"), "malformed IPv6 reference"),
        (edited(_START, "SIP/2.0 99 Low"), "malformed status"),
        (edited(_START, "SIP/2.0 700 High"), "malformed status"),
        (edited(_START, "SIP/2.0 200 O\nK"), "malformed header field"),
        (edited(_START, "SIP/2.0 200 O\rK"), "malformed start line"),
        (edited(_START, "SIP/1.0 200 OK"), "unsupported version"),
        (
            edited(_START, "ACK sip:a@b.example SIP/2.0"),
            "CSeq of another method",
        ),
        (minimal("X: " + "y" * MAX_HEAD), "head too long"),
    ],
)
def test_refused_in_silence(data: bytes, reason: str) -> None:
    error = _refused(data)
    assert error.reason == reason
    assert error.head is None


def test_a_via_too_broken_to_repeat_still_leads_back() -> None:
    error = _refused(edited(VIA, "Via: SIP/2.0/UDP 192.0.2.9:5062;;branch=z9hG4bK1;,"))
    assert error.head is not None
    assert str(error.head.via) == "SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bK1"


def test_a_message_of_our_own_cannot_have_a_line_break_in_its_start_line() -> None:
    with pytest.raises(ValueError, match="start line"):
        bytes(Response(200, "OK\r\nX: y", Headers()))
    with pytest.raises(ValueError, match="start line"):
        bytes(Request("A\n", OtherUri("x", "y"), Headers()))
