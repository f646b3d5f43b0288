"""The opening handshake of a WebSocket (RFC 6455 section 4), sans-I/O, both sides.

Heads are read strictly and within bounds: CRLF line ends, no folded lines, no control characters.
What this module refuses never reaches the HTTP server behind the listener either.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "MAX_HEAD",
    "MAX_HEADERS",
    "HandshakeError",
    "Headers",
    "RequestHead",
    "ResponseHead",
    "accept_token",
    "check_response",
    "check_upgrade",
    "new_key",
    "parse_request",
    "parse_response",
    "refusal",
    "request",
    "switching_protocols",
]

MAX_HEAD: Final = 16 * 1024
"""Bytes of a head with its blank line; the HTTP server behind the listener has the same bound."""

MAX_HEADERS: Final = 100

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 section 5.6.2
_REQUEST_LINE: Final = re.compile(rb"(%b) ([!-~]+) HTTP/1\.([01])" % _TOKEN)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?")
_HEADER: Final = re.compile(rb"(%b):[ \t]*([\t -~\x80-\xff]*)" % _TOKEN)
_NOT_IN_FIRST_LINE: Final = re.compile(rb"[^ -~\r]")


class HandshakeError(Exception):
    """The peer's handshake is not acceptable. `status` is the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Headers(tuple[tuple[str, str], ...]):
    """Name and value pairs in their order; names in lower case, values as latin-1."""

    __slots__ = ()

    def get(self, name: str) -> str | None:
        """Return a field's value, several joined by commas; None if it is absent."""
        values = [value for field, value in self if field == name]
        return ", ".join(values) if values else None

    def tokens(self, name: str) -> set[str]:
        """Return the comma-separated tokens of a field, in lower case."""
        return {part.strip().lower() for part in (self.get(name) or "").split(",")} - {""}


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's first line and header fields."""

    method: str
    target: str  # as it stood in the request line: path and query, percent-encoded
    headers: Headers
    minor_version: int = 1  # of HTTP/1
    client: str | None = None  # the TCP peer's address; set by the listener
    secure: bool = False  # it came over TLS; set by the listener

    @property
    def path(self) -> str:
        """The target without its query, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def wants_websocket(self) -> bool:
        """It asks for an upgrade to WebSocket, rightly or not (`check_upgrade`)."""
        return "websocket" in self.headers.tokens("upgrade")


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response's status line and header fields."""

    status: int
    reason: str
    headers: Headers


def _split_head(data: bytes | bytearray) -> tuple[list[bytes], int] | None:
    """Return the lines of a head and its size, or None while it is incomplete."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0:
        first_line = bytes(data[:MAX_HEAD]).partition(b"\r\n")[0]
        if _NOT_IN_FIRST_LINE.search(first_line):
            # A TLS hello, another protocol, or bare newlines: nothing better will follow.
            raise HandshakeError(400, "this is not HTTP/1.1")
        if len(data) >= MAX_HEAD:
            raise HandshakeError(431, f"the request head is larger than {MAX_HEAD} bytes")
        return None
    return bytes(data[:end]).split(b"\r\n"), end + 4


def _parse_headers(lines: list[bytes]) -> Headers:
    if len(lines) > MAX_HEADERS:
        raise HandshakeError(431, f"more than {MAX_HEADERS} header fields")
    pairs = []
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise HandshakeError(400, "malformed header field")
        name, value = match.groups()
        pairs.append((name.decode("ascii").lower(), value.rstrip(b" \t").decode("latin-1")))
    return Headers(pairs)


def parse_request(data: bytes | bytearray) -> tuple[RequestHead, int] | None:
    """Read a request head from the start of `data`.

    Returns it with the number of bytes it took, or None when more is needed. Raises
    HandshakeError (400, 431, 505) as soon as it cannot become acceptable.
    """
    split = _split_head(data)
    if split is None:
        return None
    (first, *lines), size = split
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        if re.fullmatch(rb"%b [!-~]+ HTTP/[0-9]\.[0-9]" % _TOKEN, first):
            raise HandshakeError(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        raise HandshakeError(400, "malformed request line")
    method, target, minor = match.groups()
    head = RequestHead(
        method.decode("ascii"), target.decode("ascii"), _parse_headers(lines), int(minor)
    )
    return head, size


def parse_response(data: bytes | bytearray) -> tuple[ResponseHead, int] | None:
    """`parse_request` for a response head."""
    split = _split_head(data)
    if split is None:
        return None
    (first, *lines), size = split
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise HandshakeError(400, "malformed status line")
    status, reason = match.groups()
    head = ResponseHead(int(status), (reason or b"").decode("latin-1"), _parse_headers(lines))
    return head, size


def accept_token(key: str) -> str:
    """Return the `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (section 4.2.2)."""
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def check_upgrade(head: RequestHead) -> str:
    """Hold a request to section 4.2.1; returns its key. Raises HandshakeError (400, 405, 426)."""
    if head.method != "GET":
        raise HandshakeError(405, "a WebSocket is opened by GET")
    if "websocket" not in head.headers.tokens("upgrade"):
        raise HandshakeError(426, "this address speaks WebSocket only")
    if "upgrade" not in head.headers.tokens("connection") or head.minor_version < 1:
        raise HandshakeError(400, "the upgrade lacks Connection: Upgrade")
    if head.headers.get("host") is None:
        raise HandshakeError(400, "the upgrade lacks a Host field")
    if "transfer-encoding" in dict(head.headers) or head.headers.get("content-length") not in (
        None,
        "0",
    ):
        raise HandshakeError(400, "an upgrade has no body")
    if head.headers.get("sec-websocket-version") != "13":
        raise HandshakeError(426, "only WebSocket version 13 is spoken here")
    key = head.headers.get("sec-websocket-key") or ""
    try:
        sound = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        sound = False
    if not sound:
        raise HandshakeError(400, "Sec-WebSocket-Key is not 16 bytes in base64")
    return key


def switching_protocols(key: str) -> bytes:
    """Build the response that opens the WebSocket; extensions and subprotocols are passed over."""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_token(key)}\r\n\r\n"
    ).encode("ascii")


def refusal(status: int, reason: str) -> bytes:
    """Build a whole response that refuses and announces the end of the connection."""
    body = f"{reason}\n".encode()
    extra = "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n" if status == 426 else ""
    return (
        f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n{extra}"
        "Connection: close\r\n\r\n"
    ).encode("ascii") + body


def new_key() -> str:
    """Make a fresh `Sec-WebSocket-Key` (section 4.1, 7)."""
    return base64.b64encode(os.urandom(16)).decode("ascii")


def request(
    host: str,
    target: str,
    key: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
) -> bytes:
    """Build the client's upgrade request. `host` with its port where that is not the scheme's.

    Raises ValueError for a header field or target that would break the head apart.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in pairs),
    ]
    encoded = [line.encode("latin-1") for line in lines]
    if not _REQUEST_LINE.fullmatch(encoded[0]):
        raise ValueError(f"not a request target: {target!r}")
    for line, text in zip(encoded[1:], lines[1:], strict=True):
        if not _HEADER.fullmatch(line):
            raise ValueError(f"malformed header field {text.partition(':')[0]!r}")
    return b"\r\n".join([*encoded, b"", b""])


def check_response(head: ResponseHead, key: str) -> None:
    """Hold a 101 to section 4.1; raises HandshakeError (502) where it fails."""
    fields = head.headers
    if head.status != 101:
        raise HandshakeError(502, f"the server answered {head.status}, not 101")
    if "websocket" not in fields.tokens("upgrade") or "upgrade" not in fields.tokens("connection"):
        raise HandshakeError(502, "the server's 101 does not switch to WebSocket")
    if fields.get("sec-websocket-accept") != accept_token(key):
        raise HandshakeError(502, "Sec-WebSocket-Accept does not answer our key")
    if fields.get("sec-websocket-extensions") is not None:
        raise HandshakeError(502, "the server uses an extension that was not offered")
