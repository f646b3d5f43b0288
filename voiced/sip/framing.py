"""Messages out of a stream of TCP or TLS bytes (RFC 3261 section 18.3, RFC 5626 section 4.4.1)."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from voiced.sip.errors import ParseError
from voiced.sip.model import Request, Response
from voiced.sip.parser import (
    MAX_BODY,
    MAX_HEAD,
    answerable,
    assemble,
    content_length,
    parse_head,
    salvage_length,
)

__all__ = ["Framed", "KeepAlive", "StreamParser"]


class KeepAlive(Enum):
    """Line breaks between messages."""

    PING = "ping"  # CRLF CRLF: answer with one CRLF
    PONG = "pong"  # one CRLF: the answer to ours


Framed: TypeAlias = Request | Response | KeepAlive | ParseError


class StreamParser:
    """Bytes in, messages out, wherever the bytes were cut.

    Only keep-alives depend on the cuts: a CRLF at the end of what has come is a PONG at once,
    for a peer of ours waits for it, and if another CRLF follows, the two are a PING as well.

    A `ParseError` is among the results, not raised. Where it is not `fatal`, the message's end
    was known and the stream goes on after it; after a fatal one nothing more is read, and the
    connection must close. The buffer holds at most one head and one body beyond what was fed.
    """

    def __init__(self, max_head: int = MAX_HEAD, max_body: int = MAX_BODY) -> None:
        self._max_head = max_head
        self._max_body = max_body
        self._buffer = bytearray()
        self._searched = 0  # no blank line begins before this index
        self._pending: Request | Response | ParseError | None = None
        self._head_size = 0
        self._needed = 0
        self._said_pong = False
        self._dead = False

    def feed(self, data: bytes) -> list[Framed]:
        """Whatever these bytes complete, in order."""
        if self._dead:
            return []
        self._buffer += data
        results: list[Framed] = []
        while not self._dead:
            item = self._next()
            if item is None:
                break
            results.append(item)
        return results

    def _next(self) -> Framed | None:
        if self._pending is None:
            keep_alive = self._keep_alive()
            if keep_alive is not None:
                return keep_alive
            failed = self._head()
            if failed is not None:
                self._dead = True
                self._buffer.clear()
                return failed
            if self._pending is None:
                return None
        if len(self._buffer) < self._needed:
            return None
        message, self._pending = self._pending, None
        raw = bytes(self._buffer[: self._needed])
        del self._buffer[: self._needed]
        self._searched = 0
        if isinstance(message, ParseError):
            return message
        return assemble(message, raw, raw[self._head_size :])

    def _keep_alive(self) -> KeepAlive | None:
        buffer = self._buffer
        if buffer[:2] != b"\r\n":
            if buffer and buffer[:1] != b"\r":
                self._said_pong = False
            return None
        if self._said_pong:
            self._said_pong = False
            del buffer[:2]
            return KeepAlive.PING
        if buffer[:4] == b"\r\n\r\n":
            del buffer[:4]
            return KeepAlive.PING
        del buffer[:2]
        # A CRLF cut in its middle is waited for no less than one not begun.
        self._said_pong = len(buffer) < 2 and b"\r\n".startswith(bytes(buffer))
        return KeepAlive.PONG

    def _head(self) -> ParseError | None:
        """Read the head if it is whole; the result is a fatal error."""
        end = self._buffer.find(b"\r\n\r\n", self._searched)
        if end < 0:
            if len(self._buffer) > self._max_head:
                return ParseError("head too long", 513, fatal=True)
            self._searched = max(0, len(self._buffer) - 3)
            return None
        if end > self._max_head:
            return ParseError("head too long", 513, fatal=True)
        head = bytes(self._buffer[:end])
        message: Request | Response | ParseError
        try:
            message = parse_head(head)
            length = content_length(message)
        except ParseError as error:
            message, length = error, salvage_length(head)
        if length is None or length > self._max_body:
            return _fatal(message, length)
        self._pending = message
        self._head_size = end + 4
        self._needed = end + 4 + length
        return None


def _fatal(message: Request | Response | ParseError, length: int | None) -> ParseError:
    """Why the stream cannot go on after this head."""
    if isinstance(message, ParseError):
        message.fatal = True
        return message
    if length is None:
        return ParseError("no Content-Length on a stream", head=answerable(message), fatal=True)
    return ParseError("body too long", 513, answerable(message), fatal=True)
