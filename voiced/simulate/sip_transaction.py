"""What the simulated caller sends again until it is answered (RFC 3261 section 17.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from voiced.simulate.sip_message import Message

__all__ = ["T1_S", "T2_S", "ClientTransaction", "Outgoing", "Repeated"]

T1_S: Final = 0.5
T2_S: Final = 4.0
LIFE: Final = 64  # in T1: timers B, F and H

Outgoing = tuple[bytes, tuple[str, int] | None]
"""A message and where to; None: to the peer that was called."""


@dataclass(slots=True)
class Repeated:
    """Something that is sent at once and then again, at growing intervals, until it is stopped."""

    data: bytes
    to: tuple[str, int] | None
    began_s: float
    reliable: bool  # TCP: sent once
    most_s: float  # the intervals double up to this: T2, or without limit for an INVITE
    interval_s: float = T1_S
    next_s: float = field(init=False)
    sent: int = 0  # how often
    stopped: bool = False

    def __post_init__(self) -> None:
        self.next_s = self.began_s

    @property
    def expires_s(self) -> float:
        """When waiting has been long enough."""
        return self.began_s + LIFE * T1_S

    def due(self, now_s: float) -> Outgoing | None:
        """What is to be sent at this moment."""
        if self.stopped or now_s < self.next_s or (self.reliable and self.sent):
            return None
        self.sent += 1
        if self.sent > 1:
            self.interval_s = min(2 * self.interval_s, self.most_s)
        self.next_s = max(self.next_s + self.interval_s, now_s)
        return self.data, self.to

    def next_at(self) -> float:
        """When to look again."""
        if self.stopped or (self.reliable and self.sent):
            return self.expires_s
        return min(self.next_s, self.expires_s)


@dataclass(slots=True)
class ClientTransaction:
    """A request of ours. `done` gets every response but those that the transaction absorbs."""

    method: str
    branch: str
    cseq: int
    request: Message
    sending: Repeated
    done: Callable[[float, Message | None], None]
    """Called with the time and a response, None for a timeout; after a final one never again."""
    answered: bool = False  # provisionally, at least
    final: int = 0

    def receive(self, now_s: float, response: Message) -> None:
        """Take a response with our branch."""
        if self.final:
            return
        self.answered = True
        if response.status >= 200:
            self.final = response.status
            self.sending.stopped = True
        elif self.method == "INVITE":
            self.sending.stopped = True
        else:
            self.sending.interval_s = T2_S  # timer E, section 17.1.2.2
        self.done(now_s, response)

    def expired(self, now_s: float) -> bool:
        """Whether nothing came in time; an INVITE that rings has no such time of its own."""
        if self.final or (self.method == "INVITE" and self.answered):
            return False
        if now_s < self.sending.expires_s:
            return False
        self.final = 408
        self.sending.stopped = True
        self.done(now_s, None)
        return True
