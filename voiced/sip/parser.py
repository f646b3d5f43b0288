"""From bytes to a message: the checks every element makes before a transaction exists.

These are RFC 3261 sections 8.1.1, 8.2, 16.3 and 18.3, with the judgements of RFC 4475: what a
response must repeat is there once and can be read, the method agrees with CSeq, the body is as
long as it says. All other fields are read by the views, when somebody asks.
"""

from __future__ import annotations

import re
from typing import Final

from voiced.sip.errors import ParseError
from voiced.sip.grammar import HOST, TOKEN, WHITE, is_token, parse_number
from voiced.sip.headers import KEYS, Headers, header_key
from voiced.sip.model import Request, Response
from voiced.sip.uri import OtherUri, SipUri, Uri, parse_uri

__all__ = [
    "MAX_BODY",
    "MAX_FIELDS",
    "MAX_HEAD",
    "answerable",
    "assemble",
    "content_length",
    "parse",
    "parse_head",
    "salvage_length",
]

MAX_HEAD: Final = 16_384
"""Bytes of a start line with its header fields; what trunks send is under 3,000."""

MAX_FIELDS: Final = 128
"""Header fields of a message."""

MAX_BODY: Final = 65_536
"""Bytes of a body: no datagram can carry more."""

_REQUEST_LINE = re.compile(rf"({TOKEN}) ([^ ]+) (SIP/[0-9]+\.[0-9]+)", re.IGNORECASE)
_STATUS_LINE = re.compile(r"(SIP/[0-9]+\.[0-9]+) ([0-9]+) ([^\r\n]*)", re.IGNORECASE)
_FOLD = re.compile(r"\r\n[ \t]+")
_SINGLE: Final = frozenset(
    [
        "from",
        "to",
        "call-id",
        "cseq",
        "max-forwards",
        "content-length",
        "content-type",
        "expires",
        "min-expires",
        "session-expires",
        "min-se",
        "rseq",
        "rack",
        "refer-to",
        "event",
        "subscription-state",
        "replaces",
    ]
)
_REPEATED: Final = ("via", "from", "to", "call-id", "cseq")
_SALVAGE_VIA = re.compile(rf"SIP/[0-9.]+/{TOKEN} (?:{HOST})(?::[0-9]{{1,5}})?", re.IGNORECASE)
_LENGTH_NAME = re.compile(rb"\r\n(?:content-length|l)[ \t]*:", re.IGNORECASE)
_LENGTH = re.compile(
    rb"\r\n(?:content-length|l)[ \t]*:[ \t]*([0-9]{1,9})[ \t]*(?=\r\n[^ \t]|$)", re.IGNORECASE
)
_BRANCH = re.compile(rf";[ \t]*(branch[ \t]*=[ \t]*{TOKEN})", re.IGNORECASE)


def parse(datagram: bytes) -> Request | Response:
    """The one message of a UDP datagram.

    Line breaks before it are skipped (RFC 3261 section 7.5), bytes past Content-Length dropped
    (section 18.3).

    Raises:
        ParseError: see there for what to do.
    """
    data = datagram.lstrip(b"\r\n")
    if not data:
        raise ParseError("empty")
    end = data.find(b"\r\n\r\n")
    if end < 0:
        message = parse_head(data[:MAX_HEAD].removesuffix(b"\r\n"))
        raise ParseError("head not ended", head=answerable(message))
    message = parse_head(data[:end])
    length = content_length(message)
    start = end + 4
    if length is None:
        length = len(data) - start
    elif length > len(data) - start:
        raise ParseError("body shorter than Content-Length", head=answerable(message))
    return assemble(message, data[: start + length], data[start : start + length])


def parse_head(head: bytes) -> Request | Response:
    """A message without its body, from the bytes before the blank line.

    Raises:
        ParseError: malformed, or too long.
    """
    if len(head) > MAX_HEAD:
        raise ParseError("head too long", 513)
    text = head.decode("utf-8", "surrogateescape")
    if "\r\n " in text or "\r\n\t" in text:
        text = _FOLD.sub(" ", text)
    start_line, _, rest = text.partition("\r\n")
    fields, wrong = _parse_fields(rest)
    headers = Headers.parsed(fields)
    try:
        message = _parse_start_line(start_line, headers)
        if wrong is not None:
            raise ParseError(wrong)
        _check(message)
    except ParseError as error:
        error.head = _head_of(start_line, headers)
        raise
    return message


def content_length(message: Request | Response) -> int | None:
    """The value of Content-Length, None where there is none.

    Raises:
        ParseError: not a number.
    """
    value = message.headers.get("content-length")
    if value is None:
        return None
    try:
        return parse_number(value, 2**31, "malformed Content-Length")
    except ParseError as error:
        error.head = answerable(message)
        raise


def salvage_length(head: bytes) -> int | None:
    """The one well-formed Content-Length of a head that is otherwise malformed, or None."""
    lengths = _LENGTH_NAME.findall(head)
    length = _LENGTH.search(head)
    return int(length[1]) if length is not None and len(lengths) == 1 else None


def assemble(message: Request | Response, raw: bytes, body: bytes) -> Request | Response:
    """A parsed head with its body, and with the bytes that both came from."""
    message.body = body
    message.remember(raw)
    return message


def answerable(message: Request | Response) -> Request | None:
    """The request a response may be sent to, or None."""
    return message if isinstance(message, Request) and message.method != "ACK" else None


def _parse_fields(text: str) -> tuple[list[tuple[str, str, str]], str | None]:
    """The fields, and what is wrong with the first line that is none."""
    fields: list[tuple[str, str, str]] = []
    wrong = None
    seen = set()
    if not text:
        return fields, None
    for line in text.split("\r\n"):
        name, colon, value = line.partition(":")
        key = KEYS.get(name)
        if key is None or not colon:
            name = name.rstrip(WHITE)
            if not colon or not is_token(name):
                wrong = wrong or "malformed header field"
                continue
            key = header_key(name)
        value = value.strip(WHITE)
        if "\n" in value or "\r" in value:
            wrong = wrong or "line break in a header field"
            continue
        if key in _SINGLE:
            if key in seen:
                wrong = wrong or "repeated header field"
                continue
            seen.add(key)
        if len(fields) >= MAX_FIELDS:
            return fields, wrong or "too many header fields"
        fields.append((key, name, value))
    return fields, wrong


def _parse_start_line(line: str, headers: Headers) -> Request | Response:
    match = _REQUEST_LINE.fullmatch(line)
    if match is not None:
        method, uri, version = match.groups()
        if version.upper() != "SIP/2.0":
            raise ParseError("unsupported version", 505)
        target = parse_uri(uri)
        if isinstance(target, SipUri) and target.headers:
            raise ParseError("headers in Request-URI")  # RFC 3261 section 19.1.1
        return Request(method, target, headers)
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise ParseError("malformed start line")
    version, status, reason = match.groups()
    if version.upper() != "SIP/2.0":
        raise ParseError("unsupported version", 505)
    if len(status) != 3 or not "100" <= status <= "699":
        raise ParseError("malformed status")
    return Response(int(status), reason, headers)


def _check(message: Request | Response) -> None:
    """Read what every transaction needs, so that no later layer meets it malformed."""
    vias, cseq = message.vias, message.cseq
    _ = message.from_, message.to, message.call_id
    if not vias:
        raise ParseError("no via")
    if isinstance(message, Request):
        if cseq.method != message.method:
            raise ParseError("CSeq of another method")
        _ = message.contacts, message.max_forwards


def _head_of(start_line: str, headers: Headers) -> Request | None:
    """What a 400 needs of a request that is otherwise unreadable."""
    method, _, rest = start_line.partition(" ")
    if not is_token(method) or method == "ACK" or not rest:
        return None
    fields = [each for each in headers.fields if each[0] in _REPEATED]
    if {key for key, _, _ in fields} != set(_REPEATED):
        return None
    head = Request(method, _uri_of(rest), Headers.parsed(fields))
    for _ in range(2):
        try:
            return head if head.via else None
        except ParseError:
            head.headers = _with_salvaged_via(head.headers)
    return None


def _with_salvaged_via(headers: Headers) -> Headers:
    """The first Via field reduced to what leads a response back to the element that wrote it."""
    fields = headers.fields.copy()
    index = next(index for index, (key, _, _) in enumerate(fields) if key == "via")
    key, name, value = fields[index]
    sent_by = _SALVAGE_VIA.match(value)
    branch = _BRANCH.search(value)
    if sent_by is not None:
        fields[index] = key, name, sent_by[0] + (f";{branch[1]}" if branch else "")
    return Headers.parsed(fields)


def _uri_of(rest: str) -> Uri:
    try:
        return parse_uri(rest.partition(" ")[0])
    except ParseError:
        return OtherUri("unreadable", "")
