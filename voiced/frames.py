"""RFC 6455 framing, sans-I/O: received bytes in, messages and control frames out, and back.

The parsing is native (`native/frames.c`): 50 messages a second pass in each direction of a call.
Received bytes are parsed where they were received, in one buffer for the whole process, so that an
idle connection holds none: there is no checkpoint between filling it and `FrameReader.received`.
No extension is supported, permessage-deflate neither (section 7.2.2 of RFC 7692 would cost a
window of 32 KiB and 20 us a message, for audio that base64 has already made hard to compress).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from voiced._native import ffi, lib

__all__ = [
    "BINARY_FRAME",
    "CLOSE_FRAME",
    "MAX_CONTROL_PAYLOAD",
    "PING_FRAME",
    "PONG_FRAME",
    "RECEIVE_BUFFER",
    "TEXT_FRAME",
    "BinaryMessage",
    "Close",
    "Event",
    "FrameReader",
    "Ping",
    "Pong",
    "Violation",
    "close_payload",
    "frame",
]

# The first byte of an unfragmented frame: FIN and the opcode (section 5.2).
TEXT_FRAME: Final = 0x81
BINARY_FRAME: Final = 0x82
CLOSE_FRAME: Final = 0x88
PING_FRAME: Final = 0x89
PONG_FRAME: Final = 0x8A

_FIN: Final = 0x80
_OPCODE: Final = 0x0F

MAX_CONTROL_PAYLOAD: Final = 125
"""Bytes of a ping's, pong's or close's payload (section 5.5)."""

NO_STATUS: Final = 1005
"""What a Close frame without a code stands for (section 7.1.5)."""

# One wake-up takes at most this much from one connection, which is also what keeps one flooding
# peer from starving the others. 64 KiB holds 170 media messages, or all of a 200 ms PCM16 delta.
#
# cffi is always given the bytearray, never a memoryview of it: CPython 3.11 crashes when the
# collector clears a memoryview whose own buffer is still lent out.
_received_bytes: Final = bytearray(64 * 1024)
_received: Final[Any] = ffi.from_buffer(_received_bytes)
RECEIVE_BUFFER: Final = memoryview(_received_bytes)

_SEND_ROOM: Final = 64 * 1024
_send_bytes: Final = bytearray(_SEND_ROOM)
_send: Final[Any] = ffi.from_buffer(_send_bytes)
_send_buffer: Final = memoryview(_send_bytes)
_MAX_HEADER: Final = 14

_found: Final[Any] = ffi.new("voiced_frames *")
_found_bytes: Final = memoryview(ffi.buffer(_found))
_HEAD: Final = struct.Struct("=II")  # consumed, error
_FRAME: Final = struct.Struct("=III")  # offset, length, first byte
_HEAD_AND_FRAME: Final = struct.Struct("=IIIII")
_MAX_FRAMES: Final[int] = lib.VOICED_FRAMES


@dataclass(frozen=True, slots=True)
class BinaryMessage:
    """A whole binary message; a whole text message is plain `bytes`, valid UTF-8."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """Must be answered with a pong of the same payload (section 5.5.2)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping, or unsolicited (section 5.5.3)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's Close frame; nothing follows. `code` is 1005 when it named none."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol; nothing follows. `code` is what to close with (section 7.4.1).

    1002: a malformed frame or one out of place; 1007: text that is not UTF-8; 1009: a message
    above the bound.
    """

    code: int


Event = bytes | BinaryMessage | Ping | Pong | Close | Violation


class FrameReader:
    """The receiving direction of one connection."""

    __slots__ = ("_message", "_opcode", "_reader", "_tail")

    def __init__(self, *, expect_masked: bool, max_message: int) -> None:
        """`expect_masked`: we are the server (section 5.1). `max_message`: bytes, under 2**30."""
        if not 0 < max_message < 2**30:
            raise ValueError(f"max_message must be between 1 and 2**30 - 1, not {max_message}")
        self._reader: Any = ffi.new("voiced_frame_reader *")
        self._reader.expect_masked = expect_masked
        self._reader.max_message = max_message
        # The beginning of a frame whose end is still to come: at most one frame, and the reader
        # refuses one above max_message by its header.
        self._tail = bytearray()
        # The fragments so far: at most max_message, the native reader counts.
        self._message = bytearray()
        self._opcode = 0

    def received(self, size: int) -> list[Event]:
        """Take the first `size` bytes of `RECEIVE_BUFFER`, which are overwritten (unmasked).

        Returns what they completed, possibly nothing. `Close` and `Violation` are last; what
        comes after them is ignored.
        """
        if not self._tail:
            events, used = self._parse(_received, RECEIVE_BUFFER, size)
            if used < size:
                self._tail += RECEIVE_BUFFER[used:size]
            return events
        # Parsing unmasks in place, whole frames only: an incomplete one stays as it was received.
        buffer = self._tail
        buffer += RECEIVE_BUFFER[:size]
        with memoryview(buffer) as view, ffi.from_buffer(buffer) as pointer:
            events, used = self._parse(pointer, view, len(buffer))
        del buffer[:used]
        if not buffer:
            self._tail = bytearray()  # give back what a large message needed
        return events

    def feed(self, data: bytes) -> list[Event]:
        """`received` for bytes that come from elsewhere, any number of them."""
        events: list[Event] = []
        for at in range(0, len(data), len(RECEIVE_BUFFER)):
            part = data[at : at + len(RECEIVE_BUFFER)]
            RECEIVE_BUFFER[: len(part)] = part
            events += self.received(len(part))
        return events

    def _parse(self, pointer: Any, view: memoryview, size: int) -> tuple[list[Event], int]:
        """Return the events in the buffer's first `size` bytes, and how many bytes they took."""
        events: list[Event] = []
        at = 0
        while True:
            count = lib.voiced_frames_read(self._reader, pointer + at, size - at, _found)
            if count == 1:  # the usual case by far
                consumed, error, offset, length, first = _HEAD_AND_FRAME.unpack_from(_found_bytes)
                offset += at
                if first == TEXT_FRAME:
                    events.append(bytes(view[offset : offset + length]))
                else:
                    self._frame(first, bytes(view[offset : offset + length]), events)
            else:
                consumed, error = _HEAD.unpack_from(_found_bytes)
                frames = _FRAME.iter_unpack(_found_bytes[8 : 8 + 12 * count])
                for offset, length, first in frames:
                    start = at + offset
                    if first == TEXT_FRAME:
                        events.append(bytes(view[start : start + length]))
                    else:
                        self._frame(first, bytes(view[start : start + length]), events)
            at += consumed
            if count < _MAX_FRAMES:
                break
        if error:
            events.append(Violation(error))
        return events, at

    def _frame(self, first: int, payload: bytes, events: list[Event]) -> None:
        """Everything but an unfragmented text message. The native reader has checked it all."""
        opcode = first & _OPCODE
        if opcode == PING_FRAME & _OPCODE:
            events.append(Ping(payload))
        elif opcode == PONG_FRAME & _OPCODE:
            events.append(Pong(payload))
        elif opcode == CLOSE_FRAME & _OPCODE:
            code = int.from_bytes(payload[:2], "big") if payload else NO_STATUS
            events.append(Close(code, payload[2:].decode()))
        elif first == BINARY_FRAME:
            events.append(BinaryMessage(payload))
        else:
            self._fragment(opcode, bool(first & _FIN), payload, events)

    def _fragment(self, opcode: int, final: bool, payload: bytes, events: list[Event]) -> None:
        if opcode:
            self._opcode = opcode
        self._message += payload
        if final:
            message = bytes(self._message)
            self._message = bytearray()
            is_text = self._opcode == TEXT_FRAME & _OPCODE
            events.append(message if is_text else BinaryMessage(message))


def _masking_keys() -> Iterator[int]:
    """Masking keys from the system's source of strong entropy (section 5.3), 1,024 at a time.

    One system call a frame would be a tenth of the cost of sending it.
    """
    while True:
        for (key,) in struct.iter_unpack("=I", os.urandom(4096)):
            yield key


_keys: Final = _masking_keys()
_next_key: Final = _keys.__next__


def frame(first: int, payload: bytes | bytearray | memoryview, *, masked: bool) -> memoryview:
    """One whole frame: `first` is one of the `…_FRAME` constants, `masked` true for a client.

    The result is valid until the next call; what must outlive that is to be copied.
    """
    source = payload if type(payload) is bytes else bytes(payload)
    size = len(source)
    if size <= _SEND_ROOM - _MAX_HEADER:
        key = _next_key() if masked else 0
        written = lib.voiced_frame_write(_send, _SEND_ROOM, source, size, first, masked, key)
        return _send_buffer[:written]
    large = bytearray(size + _MAX_HEADER)
    with ffi.from_buffer(large) as target:
        key = _next_key() if masked else 0
        written = lib.voiced_frame_write(target, len(large), source, size, first, masked, key)
    return memoryview(large)[:written]


def close_payload(code: int, reason: str) -> bytes:
    """Build a Close frame's payload; reasons above 123 bytes are cut at a character."""
    if code == NO_STATUS:
        return b""
    cut = reason.encode()[: MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore")
    return code.to_bytes(2, "big") + cut.encode()
