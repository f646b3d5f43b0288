"""What both ends of the load share: one epoll loop with timers, WebSockets on bare sockets.

The generator has to be lighter than what it measures, so there are no tasks here: a callback per
socket and per moment, framing by `voiced.frames`. One loop to a process.
"""

from __future__ import annotations

import heapq
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

from voiced import frames

__all__ = ["Loop", "Peer"]

MAX_BACKLOG: Final = 8 << 20
"""Bytes unsent on one connection: a bridge that is that far behind is lost for this call."""
MAX_TIMERS_AT_ONCE: Final = 64  # between two looks at the sockets
MAX_WAIT_NS: Final = 1_000_000_000
MAX_MESSAGE: Final = 4 << 20
CLOSE_NORMAL: Final = frames.close_payload(1000, "")


class Loop:
    """Sockets and moments, until `stop`."""

    def __init__(self, *, tick_ns: int) -> None:
        """`tick_ns`: how late a timer may be, so that one waking serves several of them."""
        self._tick_ns = tick_ns
        self._epoll = select.epoll()
        self._peers: dict[int, Peer | Callable[[], None]] = {}
        self._timers: list[tuple[int, int, Callable[[int], None]]] = []
        self._count = 0
        self._stopped = False

    def at(self, due_ns: int, action: Callable[[int], None]) -> None:
        """Call `action(due_ns)` at that moment of the monotonic clock."""
        self._count += 1
        heapq.heappush(self._timers, (due_ns, self._count, action))

    def watch(self, fd: int, target: Peer | Callable[[], None]) -> None:
        """Tell `target` when `fd` is readable."""
        self._peers[fd] = target
        self._epoll.register(fd, select.EPOLLIN)

    def want_write(self, fd: int, wanted: bool) -> None:
        """Tell the peer of `fd` when it is writable too."""
        self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def forget(self, fd: int) -> None:
        """Stop watching; before the socket is closed."""
        del self._peers[fd]
        self._epoll.unregister(fd)

    def stop(self, _due_ns: int = 0) -> None:
        """Let `run` return."""
        self._stopped = True

    def run(self) -> None:
        """Serve sockets and timers."""
        timers, peers, clock = self._timers, self._peers, time.monotonic_ns
        tick_ns, poll = self._tick_ns, self._epoll.poll
        while not self._stopped:
            now = clock()
            for _ in range(MAX_TIMERS_AT_ONCE):
                if not timers or timers[0][0] > now:
                    break
                due, _, action = heapq.heappop(timers)
                action(due)
                now = clock()
            wait = (min(timers[0][0] - now, MAX_WAIT_NS) if timers else MAX_WAIT_NS) / 1e9
            if wait <= 0:
                events = poll(0)
            elif tick_ns >= 1_000_000:
                events = poll(wait)  # counts in whole milliseconds, rounded up
            else:
                ready, _, _ = select.select([self._epoll], [], [], max(wait, tick_ns / 1e9))
                events = poll(0) if ready else []
            for fd, mask in events:
                target = peers.get(fd)
                if isinstance(target, Peer):
                    if mask & select.EPOLLOUT:
                        target.flush()
                    if mask & ~select.EPOLLOUT and not target.closed:
                        target.readable()
                elif target is not None:
                    target()


class Peer:
    """One connection: an HTTP head first, then WebSocket messages."""

    def __init__(self, loop: Loop, sock: socket.socket, *, client: bool) -> None:
        self.loop = loop
        self.socket = sock
        self.closed = False
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._client = client
        self._out = bytearray()
        self._head: bytearray | None = bytearray()
        self._reader = frames.FrameReader(expect_masked=not client, max_message=MAX_MESSAGE)
        loop.watch(sock.fileno(), self)

    # --- for subclasses -------------------------------------------------------------------------

    def received_head(self, head: bytes) -> None:
        """The peer's head with its blank line."""

    def received(self, message: bytes, now_ns: int) -> None:
        """A text message, and when its last byte was read."""

    def lost(self, why: str) -> None:
        """The connection is over; not called after our own `close`."""

    # --------------------------------------------------------------------------------------------

    def send_text(self, message: bytes) -> None:
        """One unfragmented text message."""
        self.send(frames.frame(frames.TEXT_FRAME, message, masked=self._client))

    def send(self, data: bytes | memoryview) -> None:
        """Bytes now, or as soon as the socket takes them."""
        if self.closed:
            return
        if self._out:
            self._out += data
            if len(self._out) > MAX_BACKLOG:
                self._fail("it takes nothing any more")
            return
        try:
            sent = self.socket.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        except OSError:  # met again, and reported, by the next read
            return
        if sent < len(data):
            self._out += data[sent:]
            self.loop.want_write(self.socket.fileno(), True)

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._out = self._out, bytearray()
        self.loop.want_write(self.socket.fileno(), False)
        if waiting:
            self.send(bytes(waiting))

    def readable(self) -> None:
        """Take what has come; TLS may hold more than one read's worth without saying so."""
        while not self.closed:
            try:
                size = self.socket.recv_into(frames.RECEIVE_BUFFER)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                size = 0
            now = time.monotonic_ns()
            if not size:
                self._fail("the connection ended")
                return
            if self._head is None:
                self._events(self._reader.received(size), now)
            else:
                self._head += frames.RECEIVE_BUFFER[:size]
                head, blank, rest = bytes(self._head).partition(b"\r\n\r\n")
                if blank:
                    self._head = None
                    self.received_head(head + blank)
                    if rest and not self.closed:
                        self._events(self._reader.feed(rest), now)
            if not self._tls:
                return

    def close(self, *, politely: bool = False) -> None:
        """End it; `politely` with a Close frame."""
        if self.closed:
            return
        if politely and not self._out:
            self.send(frames.frame(frames.CLOSE_FRAME, CLOSE_NORMAL, masked=self._client))
        self.closed = True
        self.loop.forget(self.socket.fileno())
        self.socket.close()

    def _events(self, events: list[frames.Event], now: int) -> None:
        for event in events:
            if self.closed:
                return
            if isinstance(event, bytes):
                self.received(event, now)
            elif isinstance(event, frames.Ping):
                pong = frames.frame(frames.PONG_FRAME, event.payload, masked=self._client)
                self.send(pong)
            elif isinstance(event, frames.Close):
                self._fail(f"closed with {event.code} {event.reason}".rstrip())
            elif isinstance(event, frames.Violation):
                self._fail("it broke the WebSocket protocol")

    def _fail(self, why: str) -> None:
        if not self.closed:
            self.close(politely=self._head is None)
            self.lost(why)
