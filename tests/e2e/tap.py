"""A wire between the daemon and a Realtime server that listens in: who said what, in which order.

Sessions are known by the `model` that they ask for. Nothing is changed on the way.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import trio

__all__ = ["Heard", "Session", "Tap"]

_MODEL: Final = re.compile(rb"[?&]model=([^& ]+)")
_HEAD_BYTES: Final = 16_384
_RESET: Final = struct.pack("ii", 1, 0)
_AUDIO: Final = "response.output_audio.delta"
_APPENDED: Final = b"input_audio_buffer.append"
_LOOKED_AT: Final = 64  # of a message: its type comes first
_CONTINUED, _TEXT = 0, 1  # opcodes

Side = Literal["daemon", "model"]


@dataclass(frozen=True, slots=True)
class Heard:
    """One event but for audio, and when it passed (Trio's clock)."""

    at_s: float
    side: Side
    event: dict[str, Any]

    @property
    def kind(self) -> str:
        """Its type."""
        return str(self.event["type"])


@dataclass
class Session:
    """One connection of the daemon's."""

    model: str
    heard: list[Heard] = field(default_factory=list)
    audio: dict[str, bytearray] = field(default_factory=dict)
    """The model's, by item, as it is on the wire; in the order in which the items were begun."""
    sever: Callable[[], None] = lambda: None
    """Break the connection, as a failing network does."""
    _news: trio.Event = field(default_factory=trio.Event)

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """All events of these types, in order."""
        return [each.event for each in self.heard if each.kind in kinds]

    async def until(self, kind: str, count: int = 1) -> None:
        """Wait until so many events of a type have passed."""
        while len(self.of(kind)) < count:
            await self._news.wait()

    def note(self, side: Side, text: str) -> None:
        """An event has passed."""
        event = json.loads(text)
        if event["type"] == _AUDIO:
            self.audio.setdefault(event["item_id"], bytearray()).extend(
                base64.b64decode(event["delta"])
            )
            return
        self.heard.append(Heard(trio.current_time(), side, event))
        self._news.set()
        self._news = trio.Event()


class Tap:
    """TCP from a port of its own to `target`, for any number of connections."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.sessions: list[Session] = []
        self._target = target

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Relay until cancelled; the started value is the port."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._relay, listeners)
            task_status.started(self.port)

    def of(self, model: str) -> list[Session]:
        """The sessions that asked for a model, in order."""
        return [session for session in self.sessions if session.model == model]

    async def _relay(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", self._target)
        async with client, server:
            head = await _head(client)
            named = _MODEL.search(head)
            await server.send_all(head)
            answer = await _head(server)
            await client.send_all(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
            session = Session(named[1].decode() if named else "")
            self.sessions.append(session)
            async with trio.open_nursery() as nursery:

                def sever() -> None:
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    nursery.cancel_scope.cancel()

                session.sever = sever
                rest = answer.partition(b"\r\n\r\n")[2]
                nursery.start_soon(_pump, client, server, session, "daemon", b"", nursery)
                nursery.start_soon(_pump, server, client, session, "model", rest, nursery)


async def _head(stream: trio.SocketStream) -> bytes:
    """An HTTP head, with what came along."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
        data = await stream.receive_some()
        if not data:
            break
        head += data
    return head


async def _pump(
    source: trio.SocketStream,
    sink: trio.SocketStream,
    session: Session,
    side: Side,
    data: bytes,
    nursery: trio.Nursery,
) -> None:
    """One direction; its end is that of the connection."""
    messages = Messages()
    try:
        while True:
            if data:
                for text in messages.feed(data):
                    session.note(side, text)
                await sink.send_all(data)
            data = await source.receive_some()
            if not data:
                break
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    nursery.cancel_scope.cancel()


class Messages:
    """The text messages in one direction of a WebSocket (RFC 6455 section 5.2), but for audio in.

    A caller's audio passes fifty times a second: it is told by its first bytes, and not unmasked.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._text = b""

    def feed(self, data: bytes) -> list[str]:
        """Take bytes of any number; returns the messages that they complete."""
        self._data += data
        found = []
        while (frame := self._frame()) is not None:
            last, opcode, payload = frame
            if opcode in (_TEXT, _CONTINUED):
                self._text += payload
                if last:
                    text, self._text = self._text, b""
                    if text:
                        found.append(text.decode())
        return found

    def _frame(self) -> tuple[bool, int, bytes] | None:
        """Take a frame off; empty where it is audio of the caller's."""
        data, at = self._data, 2
        if len(data) < at:
            return None
        length = data[1] & 0x7F
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[2 : 2 + size], "big")
            at += size
        masked = bool(data[1] & 0x80)
        mask = bytes(data[at : at + 4]) if masked else bytes(4)
        at += 4 * masked
        if len(data) < at + length:
            return None
        payload = bytes(data[at : at + length])
        last, opcode = bool(data[0] & 0x80), data[0] & 0x0F
        del data[: at + length]
        if masked:
            if last and _APPENDED in _unmasked(payload[:_LOOKED_AT], mask):
                return last, opcode, b""
            payload = _unmasked(payload, mask)
        return last, opcode, payload


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
