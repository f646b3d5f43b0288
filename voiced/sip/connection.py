"""One TCP or TLS connection: framing, the queue of what is to be sent, keep-alive, its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from voiced.sip.errors import ParseError
from voiced.sip.framing import KeepAlive, StreamParser
from voiced.sip.message import Message
from voiced.sip.transport import Flow, TransportName
from voiced.socket import TcpTransport

__all__ = ["Connection", "Outgoing", "is_response"]

MAX_BACKLOG: Final = 256 * 1024
"""Bytes that a peer may leave unread: hundreds of messages, or minutes of a call's signalling."""

UNFINISHED_S: Final = 10.0
"""Seconds to finish a message once begun: a head and an SDP are one segment or two."""

IDLE_S: Final = 300.0
"""Seconds without a byte after which an accepted connection is closed. Its peer keeps it alive
with CRLF CRLF (RFC 5626 section 3.5.1: every two minutes) or asks with OPTIONS."""

PING_S: Final = 100.0
"""Seconds without a byte after which we ping on a connection that we opened: within RFC 5626's
95 to 120 s, and below the five minutes of common NATs."""

PONG_S: Final = 10.0
"""Seconds for the answer (RFC 5626 section 4.4.1), where the peer has answered one before."""

ANSWER_S: Final = 32.0
"""64*T1: so long the sender of a request still cares whether it arrived."""

MAX_UNANSWERED: Final = 256
"""Requests on one connection of which we would say that they were lost with it."""

LINGER_S: Final = 1.0
"""Seconds for a peer whom we close on to read why."""

_RECEIVE: Final = memoryview(bytearray(64 * 1024))  # one for all: nothing runs while it is in use


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way; `again` is set once it was sent on a connection that was lost."""

    data: bytes
    failed: Callable[[str], None] | None = None
    again: bool = False


def is_response(data: bytes) -> bool:
    """Whether the message is a response (of ours, so that the version is in capitals)."""
    return data.startswith(b"SIP/2.0 ")


class Connection:
    """Queues until `run` has a transport, then sends at once; `run` ends with the connection.

    `lost` gets what was queued or sent and cannot have arrived: everything that the kernel has not
    taken, and requests after which nothing more came from the peer, who may have closed before he
    read them. ACKs are not among these, as nothing answers them.
    """

    def __init__(
        self,
        transport: TransportName,
        key: int,
        *,
        accepted: bool,
        on_message: Callable[[Message, Flow], None],
        on_malformed: Callable[[ParseError, Flow], None],
        admit: Callable[[int], bool],
        lost: Callable[[Outgoing, bool, str], None],
        idle_s: float,
        served_idle_s: float = 0.0,
    ) -> None:
        """`admit(size)` says whether bytes received may be parsed; False closes.

        `lost(message, stale, why)`: `stale` when the connection was one that had been in use
        before, so that a new one may well carry the message. `idle_s` is for accepted ones,
        `served_idle_s` from when we have answered the peer with a 2xx: it may have a call on it.
        """
        self.key = key
        self.accepted = accepted
        self.flow: Flow | None = None
        self.why = "the connection is closed"
        self._name: TransportName = transport
        self._on_message = on_message
        self._on_malformed = on_malformed
        self._admit = admit
        self._lost = lost
        self._idle_s = idle_s
        self._served_idle_s = served_idle_s
        self._parser = StreamParser()
        self._transport: TcpTransport | None = None
        self._queue: deque[Outgoing] = deque()  # until there is a transport
        self._queued = 0
        self._unflushed: deque[Outgoing] = deque()
        self._unanswered: deque[tuple[float, bool, Outgoing]] = deque(maxlen=MAX_UNANSWERED)
        self._to_flush = trio.Event()
        self._reading = trio.CancelScope()
        self._closed = False
        self._active = 0.0
        self._begun: float | None = None  # since when a message is unfinished
        self._pinged: float | None = None
        self._ponged = False

    @property
    def usable(self) -> bool:
        """Whether `send` makes sense."""
        return not self._closed

    def holds(self, data: bytes) -> bool:
        """Whether the same bytes wait here, or for their answer: they need not be sent again."""
        return any(message.data == data for message in self._queue) or any(
            message.data == data for _, _, message in self._unanswered
        )

    def send(self, message: Outgoing) -> None:
        """Send, or queue until connected; what cannot go is given to `lost`."""
        if self._closed:
            self._lost(message, False, self.why)
        elif self._transport is not None:
            self._write(message, stale=True)
        elif self._queued + len(message.data) > MAX_BACKLOG:
            self._lost(message, False, "too much waits for the connection")
        else:
            self._queue.append(message)
            self._queued += len(message.data)

    def finish(self) -> None:
        """End `run` when everything has been sent."""
        self._reading.cancel()

    def fail(self, why: str, *, peer_lives: bool = False) -> None:
        """There will be no transport, or no more: report what has not been sent.

        A peer who lives but does not read would not read on another connection either.
        """
        if self._closed:
            return
        self._closed = True
        self.why = why
        now = trio.current_time()
        stranded = {id(message): (message, False) for message in self._queue}
        for message in self._unflushed:
            stranded[id(message)] = message, False
        for since, stale, message in self._unanswered:
            if now - since < ANSWER_S:
                stranded[id(message)] = message, stale and not peer_lives
        self._queue.clear()
        self._unflushed.clear()
        self._unanswered.clear()
        for message, stale in stranded.values():
            self._lost(message, stale, why)

    async def run(self, transport: TcpTransport) -> None:
        """Drive the connection until its end; closes the transport."""
        why = "the endpoint stops"
        try:
            local = transport.socket.getsockname()[:2]
            remote = transport.socket.getpeername()[:2]
            self.flow = Flow(self._name, local, remote, self.key, reliable=True)
            self._transport = transport
            self._active = trio.current_time()
            while self._queue and not self._closed:
                self._write(self._queue.popleft(), stale=False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._flush)
                with self._reading:
                    why = await self._read()
                nursery.cancel_scope.cancel()
            # Stopped by `finish`, ended by the peer or by us: what is queued still goes out.
            with trio.move_on_after(LINGER_S):
                await transport.flush()
                self._unflushed.clear()
                await transport.finish()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as group:
            why = self.why if self._closed else str(_first(group))
        finally:
            transport.close()
            self.fail(why)

    def _write(self, message: Outgoing, *, stale: bool) -> None:
        transport = self._transport
        assert transport is not None
        if transport.backlog + len(message.data) > MAX_BACKLOG:
            self._unflushed.append(message)
            self._break("the peer does not read", peer_lives=True)
            return
        if message.data.startswith(b"SIP/2.0 2"):
            self._idle_s = max(self._idle_s, self._served_idle_s)
        now = self._active = trio.current_time()
        if message.failed is not None and _is_answered(message.data):
            self._unanswered.append((now, stale, message))
        try:
            transport.send_nowait(message.data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._unflushed.append(message)
            self._break(str(error))
            return
        if transport.backlog:
            self._unflushed.append(message)
            self._to_flush.set()

    def _break(self, why: str, *, peer_lives: bool = False) -> None:
        """Give up at once; whoever waits for the transport is woken."""
        if self._transport is not None:
            self._transport.close()
        self.fail(why, peer_lives=peer_lives)

    async def _flush(self) -> None:
        transport = self._transport
        assert transport is not None
        while True:
            await self._to_flush.wait()
            await transport.flush()
            self._unflushed.clear()
            self._to_flush = trio.Event()

    async def _read(self) -> str:
        """Until the end, whose reason is returned; ClosedResourceError after `_break`."""
        transport = self._transport
        assert transport is not None
        while True:
            size = -1
            with trio.CancelScope(deadline=self._deadline()):
                size = await transport.receive(_RECEIVE)
            now = trio.current_time()
            if size < 0:
                self._overdue(now)
                continue
            if size == 0:
                return "the peer closed the connection"
            self._active = now
            if not self._admit(size):
                self._break("the peer sends too much")
                continue
            if not self._take(bytes(_RECEIVE[:size]), now):
                return "the peer does not speak SIP"

    def _take(self, data: bytes, now: float) -> bool:
        """Hand on what `data` completes; False: the connection cannot go on."""
        assert self.flow is not None
        assert self._transport is not None
        results = self._parser.feed(data)
        if results:
            self._begun = None
        elif self._begun is None:
            self._begun = now
        pongs = 0
        for result in results:
            if isinstance(result, KeepAlive):
                if result is KeepAlive.PING:
                    pongs += 1
                elif self._pinged is not None:
                    self._pinged = None
                    self._ponged = True
                continue
            self._pinged = None
            self._unanswered.clear()  # the peer reads and lives
            if isinstance(result, ParseError):
                self._on_malformed(result, self.flow)
                if result.fatal:
                    return False
            else:
                self._on_message(result, self.flow)
            if self._closed:
                return False
        if pongs:
            self._write(Outgoing(b"\r\n" * pongs), stale=True)
        return not self._closed

    def _deadline(self) -> float:
        if self._begun is not None:
            return self._begun + UNFINISHED_S
        if self.accepted:
            return self._active + self._idle_s
        if self._pinged is not None and self._ponged:
            return self._pinged + PONG_S
        return self._active + PING_S

    def _overdue(self, now: float) -> None:
        """Act at the deadline."""
        if now < self._deadline():
            return  # something was sent meanwhile
        if self._begun is not None:
            self._break("the peer does not finish its message")
        elif self.accepted:
            self._break("nothing came for long")
        elif self._pinged is not None and self._ponged:
            self._break("the peer does not answer a ping")
        else:
            self._pinged = now
            self._write(Outgoing(b"\r\n\r\n"), stale=True)


def _is_answered(data: bytes) -> bool:
    return not is_response(data) and not data.startswith(b"ACK ")


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
