"""WebSockets (RFC 6455) on Trio: the lean codec's shell, for sockets with 50 messages a second.

    async with await opening.connect("wss://…", headers=…) as ws:
        ws.send_nowait(b'{"type": …}')
        for message in await ws.receive(): …

One wake-up is one `recv`, one call of the native parser and one list of messages; a message sent
is one call of the native framer and one `send`, without a checkpoint. What the kernel does not
take waits in a bounded backlog, which a task of the WebSocket's own nursery empties; that task
exists only while there is a backlog. One task may receive; any number may send.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, NoReturn, Self, cast

import trio

from voiced import frames, handshake
from voiced.flusher import Flusher
from voiced.frames import RECEIVE_BUFFER, BinaryMessage, Close, Event, Ping, Pong, Violation
from voiced.pings import Pings
from voiced.socket import TcpTransport

__all__ = [
    "MAX_BACKLOG",
    "MAX_MESSAGE",
    "BacklogFull",
    "BinaryMessage",
    "Message",
    "WebSocket",
    "WebSocketClosed",
]

Message = bytes | BinaryMessage
"""A whole message: `bytes` is text, known to be UTF-8."""

MAX_MESSAGE: Final = 1024 * 1024
"""Bytes. The largest sound one is a second of PCM16 at 24 kHz in base64, 64 KiB."""

MAX_BACKLOG: Final = 256 * 1024
"""Bytes: four seconds of PCM16 at 24 kHz in base64. A peer that has read nothing for so long,
beyond what the kernel's own buffers hold, has lost the conversation anyway."""

HIGH_WATER: Final = 64 * 1024
"""Bytes of backlog above which `send` waits: enough to keep a slow link busy."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the closing handshake, in which the owner's nursery cannot close."""

# Close codes (RFC 6455 section 7.4.1).
_NORMAL: Final = 1000
_GOING_AWAY: Final = 1001
_ABNORMAL: Final = 1006  # reported, never sent
_POLICY: Final = 1008
_INTERNAL_ERROR: Final = 1011

_VIOLATIONS: Final = {
    1002: "the peer broke the framing rules",
    1007: "the peer sent text that is not UTF-8",
    1009: "the peer sent a message above the limit",
}


class WebSocketClosed(Exception):
    """Nothing can be sent or received any more.

    `code` and `reason` are the peer's Close frame's (1005: it named none), or those that this side
    closed with; 1006 when the connection ended without a closing handshake.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class BacklogFull(Exception):
    """The peer has stopped reading: the message was not sent, none of it."""


class WebSocket:
    """An open WebSocket; from `connect` or `accept`, to be entered before use.

    Leaving the context closes it: with 1000, with 1001 when cancelled, with 1011 on an exception.
    """

    __slots__ = (
        "_close_sent",
        "_close_timeout",
        "_early",
        "_ended",
        "_finished",
        "_flusher",
        "_is_client",
        "_manager",
        "_max_backlog",
        "_nursery",
        "_reader",
        "_receiver_left",
        "_receiving",
        "_transport",
        "headers",
        "pings",
    )

    def __init__(
        self,
        transport: TcpTransport,
        *,
        is_client: bool,
        headers: handshake.Headers = handshake.Headers(),  # noqa: B008 (immutable)
        early: bytes = b"",
        max_message: int = MAX_MESSAGE,
        max_backlog: int = MAX_BACKLOG,
        close_timeout: float = CLOSE_TIMEOUT,
    ) -> None:
        """Speak over `transport`, whose handshake is done; `early` came right behind that."""
        self.headers = headers  # of the peer's handshake
        self.pings = Pings()
        self._transport = transport
        self._is_client = is_client
        self._reader = frames.FrameReader(expect_masked=not is_client, max_message=max_message)
        self._early = early
        self._max_backlog = max_backlog
        self._close_timeout = close_timeout
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None
        self._flusher: Flusher | None = None  # there while it is entered
        self._close_sent = False
        self._receiving = False
        self._ended: tuple[int, str] | None = None  # why nothing more is received
        self._receiver_left: trio.Event | None = None  # there while aclose waits for a receiver
        self._finished = False

    async def __aenter__(self) -> Self:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._flusher = Flusher(self._transport, self._nursery, self._cannot_send)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                await self.aclose(_NORMAL)
            elif isinstance(error, Exception):
                await self.aclose(_INTERNAL_ERROR)
            else:
                await self.aclose(_GOING_AWAY)
        finally:
            manager, self._manager, self._nursery = self._manager, None, None
            if manager is not None:
                # The flusher, the nursery's only task, ends with the transport and raises nothing:
                # so the body's exception need not pass through the nursery and become a group.
                await manager.__aexit__(None, None, None)

    @property
    def transport(self) -> TcpTransport:
        """What it speaks over."""
        return self._transport

    @property
    def backlog(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.backlog

    # ---- receiving

    async def receive(self) -> list[Message]:
        """Wait for messages; returns all that one wake-up brought, at least one.

        Pings are answered and fragments joined on the way. Raises WebSocketClosed; messages that
        came before the end are delivered first. When cancelled, nothing is lost. Nothing is
        returned where `interrupt` ended the wait.
        """
        if self._ended is not None or self._finished or self._nursery is None:
            await self._refuse_to_receive()
        self._receiving = True
        try:
            while True:
                if self._early:
                    await trio.lowlevel.checkpoint()
                    early, self._early = self._early, b""
                    events = self._reader.feed(early)
                else:
                    size = await self._transport.receive(RECEIVE_BUFFER)
                    if size <= 0:
                        if size:
                            return []
                        self._end(_ABNORMAL, "the peer ended the connection without closing it")
                        break
                    events = self._reader.received(size)
                    if len(events) == 1 and type(events[0]) is bytes:
                        return cast("list[Message]", events)
                messages = self._sort(events)
                if messages:
                    return messages
                if self._has_ended:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(_ABNORMAL, str(error))
        finally:
            self._receiving = False
            if self._receiver_left is not None:
                self._receiver_left.set()
        raise self._closed()

    def interrupt(self) -> None:
        """Have the `receive` that waits now, or else the next one, return nothing."""
        self._transport.interrupt()

    async def _refuse_to_receive(self) -> NoReturn:
        self._check_entered()
        await trio.lowlevel.checkpoint()
        raise self._closed()

    def _closed(self) -> WebSocketClosed:
        return WebSocketClosed(*(self._ended or (_NORMAL, "closing")))

    def _sort(self, events: list[Event]) -> list[Message]:
        """Act on control frames, return the messages."""
        messages: list[Message] = []
        for event in events:
            match event:
                case bytes() | BinaryMessage():
                    messages.append(event)
                case Ping(payload):
                    self._send_control(frames.PONG_FRAME, payload)
                case Pong(payload):
                    self.pings.answered(payload)
                case Close(code, reason):
                    self._end(code, reason)
                    self._send_close(code, "")
                case Violation(code):
                    self._end(code, _VIOLATIONS[code])
                    self._send_close(code, _VIOLATIONS[code])
        return messages

    @property
    def _has_ended(self) -> bool:
        return self._ended is not None

    def _end(self, code: int, reason: str) -> None:
        if self._ended is None:
            self._ended = code, reason

    def _check_entered(self) -> None:
        if self._nursery is None and not self._finished:
            raise RuntimeError("enter the WebSocket with `async with` first")

    # ---- sending

    def send_nowait(
        self, data: bytes | memoryview, *more: bytes | memoryview, binary: bool = False
    ) -> None:
        """Send a message, text (UTF-8, not checked) unless `binary`, without waiting.

        With `more`, so many messages, handed to the kernel in one call. Raises BacklogFull when the
        peer has stopped reading (then none is sent), WebSocketClosed.
        """
        transport = self._transport
        if self._close_sent or self._nursery is None:
            self._check_entered()
            raise self._closed()
        backlog = transport.backlog
        if backlog and backlog + len(data) > self._max_backlog:
            raise BacklogFull(f"{backlog} bytes wait for a peer that does not read")
        first = frames.BINARY_FRAME if binary else frames.TEXT_FRAME
        masked = self._is_client
        wire: bytes | memoryview = frames.frame(first, data, masked=masked)
        if more:  # a frame lies in a buffer that the next one is made in
            rest = (bytes(frames.frame(first, each, masked=masked)) for each in more)
            wire = b"".join([bytes(wire), *rest])
        try:
            transport.send_nowait(wire)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # Receiving goes on: the peer may have said why before it went.
            self._close_sent = True
            raise WebSocketClosed(_ABNORMAL, str(error)) from None
        if transport.backlog:
            self._start_flusher()

    async def send(self, data: bytes | memoryview, *, binary: bool = False) -> None:
        """Send one message, after waiting for a backlog above 64 KiB (or too full) to empty.

        A checkpoint only where it waits. When cancelled, nothing of `data` was sent.
        """
        room = min(HIGH_WATER, self._max_backlog - len(data))
        flusher = self._flusher
        while self._transport.backlog > room and flusher is not None and flusher.running:
            await flusher.wait()
        self.send_nowait(data, binary=binary)

    async def drain(self) -> None:
        """Wait until the kernel has taken everything. Raises WebSocketClosed if it cannot."""
        await trio.lowlevel.checkpoint()
        await self._flushing()
        if self._transport.backlog or self._finished:
            raise self._closed()

    def ping(self) -> trio.Event:
        """Send a ping; its answer sets the event, and what `pings` tells.

        Answers come in through `receive`. Raises WebSocketClosed.
        """
        if self._close_sent or self._nursery is None:
            self._check_entered()
            raise self._closed()
        payload, answered = self.pings.next()
        self._send_control(frames.PING_FRAME, payload)
        return answered

    def _send_control(self, first: int, payload: bytes) -> None:
        if self._close_sent:
            return
        if self._transport.backlog > self._max_backlog:
            # It sends pings and never reads: neither answering nor ignoring them is right.
            self._close_sent = True
            self._end(_POLICY, "the peer does not read")
            return
        try:
            self._transport.send_nowait(frames.frame(first, payload, masked=self._is_client))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # `receive` finds out, after what the peer may have said before
        if self._transport.backlog:
            self._start_flusher()

    def _send_close(self, code: int, reason: str) -> None:
        self._send_control(frames.CLOSE_FRAME, frames.close_payload(code, reason))
        self._close_sent = True

    def _start_flusher(self) -> None:
        if self._flusher is not None and self._nursery is not None:
            self._flusher.start()

    async def _flushing(self) -> None:
        while self._flusher is not None and self._flusher.running:
            await self._flusher.wait()

    def _cannot_send(self) -> None:
        self._close_sent = True

    # ---- closing

    async def aclose(self, code: int = _NORMAL, reason: str = "") -> None:
        """Close: the closing handshake within the close time-out, then the socket in any case.

        The time-out is shielded. What was sent before is flushed first, within the same time.
        """
        if self._finished:
            await trio.lowlevel.checkpoint()
            return
        self._finished = True
        try:
            with trio.move_on_after(self._close_timeout, shield=True):
                await self._close_handshake(code, reason)
        finally:
            self._transport.close()
            self._end(code, reason)

    async def _close_handshake(self, code: int, reason: str) -> None:
        self._send_close(code, reason)
        await self._flushing()
        try:
            if self._receiving:
                self._receiver_left = trio.Event()
                await self._receiver_left.wait()
            while self._ended is None:
                size = await self._transport.receive(RECEIVE_BUFFER)
                if not size:
                    return
                if size < 0:
                    continue
                self._sort(self._reader.received(size))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        await self._transport.finish()

    def abort(self, reason: str) -> None:
        """Close the socket at once, without a closing handshake: the peer is gone or hostile."""
        self._close_sent = True
        self._end(_ABNORMAL, reason)
        self._transport.close()
