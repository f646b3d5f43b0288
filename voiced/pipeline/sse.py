"""Server-sent events: bytes in, the data of each event out. Sans-I/O.

Source: WHATWG HTML, section 9.2 "Server-sent events", as far as OpenAI's API uses it: `event`, `id`
and `retry` fields and comments are passed over.
"""

from __future__ import annotations

from typing import Final, final

__all__ = ["MAX_EVENT", "SseError", "SseParser"]

MAX_EVENT: Final = 1024 * 1024
"""Bytes of one event. A piece of an answer has some 300; arguments of a tool come in pieces too."""


class SseError(Exception):
    """An event is larger than `MAX_EVENT`."""


@final
class SseParser:
    """Feed it what comes; it does not matter where that is cut."""

    def __init__(self) -> None:
        self._rest = bytearray()  # a line without its end
        self._data: list[bytes] = []  # of the event that is open
        self._size = 0
        self._first = True
        self._after_cr = False  # a line feed that follows belongs to it

    def feed(self, received: bytes) -> list[str]:
        """Return the data of the events that are complete now. Raises SseError."""
        if not received:
            return []
        if self._after_cr and received[:1] == b"\n":
            received = received[1:]
        if received:
            self._after_cr = received[-1:] == b"\r"
        elif self._after_cr:
            self._after_cr = False
        events: list[str] = []
        first, *more = received.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest += first
        for line in more:
            data = self._line(bytes(self._rest))
            self._rest[:] = line
            if data is not None:
                events.append(data)
        if len(self._rest) + self._size > MAX_EVENT:
            raise SseError(f"an event has more than {MAX_EVENT} bytes")
        return events

    def _line(self, line: bytes) -> str | None:
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")  # "one leading U+FEFF ... must be ignored"
        if not line:
            data, self._data, self._size = self._data, [], 0
            return b"\n".join(data).decode("utf-8", "replace") if data else None
        field, _, value = line.partition(b":")
        if field == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._size += len(value) + 1
            if self._size > MAX_EVENT:
                raise SseError(f"an event has more than {MAX_EVENT} bytes")
        return None
