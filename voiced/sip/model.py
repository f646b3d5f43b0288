"""Requests and responses as values."""

from __future__ import annotations

from typing import Any

from voiced.sip.headers import Headers
from voiced.sip.uri import Uri
from voiced.sip.views import Views

__all__ = ["Message", "Request", "Response"]


class Message(Views):
    """A request or a response: a start line, header fields, a body.

    `bytes(message)` gives a parsed message back as it came for as long as nothing in it is
    changed. Otherwise the fields are written in their order, and Content-Length, last, is ours.

    Messages are equal when their start lines, bodies and fields are, names compared without
    regard to case and compact form, Content-Length left out.
    """

    __slots__ = ("_origin", "_raw", "body")

    body: bytes
    _raw: bytes | None
    _origin: tuple[Any, ...]

    def _start(self) -> tuple[Any, Any]:
        raise NotImplementedError

    def _start_line(self) -> str:
        raise NotImplementedError

    def _init(self, headers: Headers, body: bytes) -> None:
        self.headers = headers
        self.body = body
        self._views = {}
        self._viewed, self._revision = headers, headers.revision
        self._raw = None

    def remember(self, raw: bytes) -> None:
        """Say what this message was parsed from."""
        self._raw = raw
        self._origin = (*self._start(), self.body, self.headers, self.headers.revision)

    def __bytes__(self) -> bytes:
        if self._raw is not None:
            first, second = self._start()
            was = self._origin
            if (
                was[0] is first
                and was[1] is second
                and was[2] is self.body
                and was[3] is self.headers
                and was[4] == self.headers.revision
            ):
                return self._raw
        start_line = self._start_line()
        if "\r" in start_line or "\n" in start_line:
            raise ValueError("a line break in the start line")
        lines = [start_line]
        lines += [
            f"{name}: {value}"
            for key, name, value in self.headers.fields
            if key != "content-length"
        ]
        lines.append(f"Content-Length: {len(self.body)}\r\n\r\n")
        return "\r\n".join(lines).encode("utf-8", "surrogateescape") + self.body

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Message)
            and type(self) is type(other)
            and self._start() == other._start()
            and self.body == other.body
            and _comparable(self.headers) == _comparable(other.headers)
        )

    __hash__ = None  # type: ignore[assignment]  # mutable


def _comparable(headers: Headers) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in headers.fields if key != "content-length"]


class Request(Message):
    """A request; `method` as written, since methods are case-sensitive."""

    __slots__ = ("method", "uri")

    def __init__(self, method: str, uri: Uri, headers: Headers, body: bytes = b"") -> None:
        self.method = method
        self.uri = uri
        self._init(headers, body)

    def _start(self) -> tuple[Any, Any]:
        return self.method, self.uri

    def _start_line(self) -> str:
        return f"{self.method} {self.uri} SIP/2.0"

    def _answerable(self) -> Request | None:
        return None if self.method == "ACK" else self

    def copy(self) -> Request:
        """An independent copy; the body and URI, which cannot change, are shared."""
        return Request(self.method, self.uri, self.headers.copy(), self.body)

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {str(self.uri)!r}, {self.headers!r}, {self.body!r})"


class Response(Message):
    """A response; `status` from 100 to 699."""

    __slots__ = ("reason", "status")

    def __init__(self, status: int, reason: str, headers: Headers, body: bytes = b"") -> None:
        self.status = status
        self.reason = reason
        self._init(headers, body)

    def _start(self) -> tuple[Any, Any]:
        return self.status, self.reason

    def _start_line(self) -> str:
        return f"SIP/2.0 {self.status} {self.reason}"

    def copy(self) -> Response:
        """An independent copy."""
        return Response(self.status, self.reason, self.headers.copy(), self.body)

    def __repr__(self) -> str:
        return f"Response({self.status}, {self.reason!r}, {self.headers!r}, {self.body!r})"
