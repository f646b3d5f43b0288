"""The pings of one WebSocket and their answers (RFC 6455 section 5.5.2)."""

from __future__ import annotations

from typing import final

import trio

__all__ = ["Pings"]


@final
class Pings:
    """Only the newest one's answer counts."""

    __slots__ = ("_answer", "_count", "_sent_at", "last_pong", "latency")

    def __init__(self) -> None:
        self.last_pong: float | None = None
        """trio.current_time() of the last answer."""
        self.latency: float | None = None
        """Seconds that it took."""
        self._count = 0
        self._sent_at = 0.0
        self._answer: trio.Event | None = None

    def next(self) -> tuple[bytes, trio.Event]:
        """The payload of a ping that is sent now, and what its answer sets."""
        self._count += 1
        self._sent_at = trio.current_time()
        self._answer = trio.Event()
        return self._count.to_bytes(8, "big"), self._answer

    def answered(self, payload: bytes) -> None:
        """A pong has come; unasked ones mean nothing."""
        if self._answer is not None and payload == self._count.to_bytes(8, "big"):
            self.last_pong = trio.current_time()
            self.latency = self.last_pong - self._sent_at
            self._answer.set()
