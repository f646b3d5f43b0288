"""Which engine is tried when, and when there is nothing left to try. Pure; times are handed in.

A loss begins an episode: the engine that talked is tried again until `patience_s` is over, then the
other one for as long, then that is the end. The episode is over when a session has proved itself;
one that is lost before that goes on with what is left of the patience, so that a server which
takes every session and drops it does not keep a caller for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from voiced.engine import Lost
from voiced.steady.backoff import Backoff

__all__ = ["PROVEN_S", "Course", "GiveUp", "Pause", "Step", "Try"]

PROVEN_S: Final = 10.0  # a session that lived so long, or gave an answer, has proved itself
ATTEMPT_S: Final = 3.0
"""For the first attempt; then twice that. Connections into a hole are better begun anew than waited
for: the kernel repeats its own attempts after 1, 3 and 7 s only."""
FIRST_S: Final = 4.0
"""For the engine of a call that nobody has talked to yet, while another one is free: a server needs
a second, and what leads into a hole would be waited for until it times out. Its time comes again
where that one fails."""
WAIT_S: Final = 2.0
"""A server that wants to be left alone for longer is left for another engine that is free: the
caller hears nothing but fillers meanwhile. Its time comes again where that one fails."""
LEAST_S: Final = 0.3  # less than this is not worth an attempt


@dataclass(frozen=True, slots=True)
class Try:
    """Make a session with the engine `side`; `limit_s` None: as long as its own limits say."""

    side: int
    limit_s: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Ask again after so long, or when something has changed."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing is left; this is why."""

    loss: Lost


Step = Try | Pause | GiveUp

NOTHING: Final = Lost("no_session", "no session of the engine is free", retryable=True)


@final
class Course:
    """Sides are 0 for the agent's engine, 1 for its fallback."""

    def __init__(self, sides: int, patience_s: float, backoff: Backoff) -> None:
        self._sides = sides
        self._patience_s = patience_s
        self._backoff = backoff
        self._side = 0  # of the session that talks or talked
        self._hopeless: set[int] = set()
        self._not_before: dict[int, float] = {}  # as the servers of this episode say
        self._order: list[int] = []
        self._phase = 0
        self._deadline = self._hurry_until = 0.0
        self._least = 0  # attempts that this phase has whatever the time
        self._attempts = 0  # of this phase
        self._retry_at = 0.0
        self._fresh = False  # nobody has talked yet: the better engine, not the same one
        self._loss = NOTHING

    @property
    def loss(self) -> Lost:
        """Why nobody talks: the last failure."""
        return self._loss

    def start(self, now: float) -> None:
        """The first connection of a call."""
        self._hurry_until = now + FIRST_S
        self._begin(now, list(range(self._sides)), least=1)
        self._fresh = True

    def lost(self, now: float, loss: Lost, *, proven: bool) -> None:
        """The session that talked is lost."""
        if proven or self._fresh:
            self._backoff.reset()
            self._begin(now, self._others_last(self._side), least=0)
        self._fresh = False
        self._note(now, self._side, loss)

    def leave(self, now: float, loss: Lost) -> None:
        """The engine that talks cannot for now, but works: the other one first."""
        self._loss = loss
        self._fresh = False
        self._backoff.reset()
        order = self._others_last(self._side)
        self._begin(now, order[1:] + order[:1], least=1)

    def begun(self) -> None:
        """The attempt that `next` told to make is being made."""
        self._attempts += 1
        self._least = 0

    def failed(self, now: float, side: int, loss: Lost, retry_after_s: float = 0.0) -> None:
        """An attempt has failed; the server takes none for `retry_after_s`, or does not say.

        Where that is longer than there is patience for, the other one's time has come.
        """
        self._note(now, side, loss)
        self._not_before[side] = now + retry_after_s

    def adopted(self, side: int) -> None:
        """A session of `side` talks now."""
        self._side = side

    def usable(self, side: int) -> bool:
        """Whether that engine exists and may work."""
        return side < self._sides and side not in self._hopeless

    def next(self, now: float, wait_s: Callable[[int, bool], float]) -> Step:
        """What to do now. `wait_s(side, alternative)` is how long its guard has one wait.

        Where that is `Try`, `begun` has to follow if it is done.
        """
        while self._phase < len(self._order):
            side = self._order[self._phase]
            if side not in self._hopeless:
                free = self._other_is_free(now, wait_s)
                hurry = free and self._fresh and not self._phase
                leave = free and self._not_before.get(side, now) - now > WAIT_S
                step = None if leave else self._at(now, side, wait_s, hurry=hurry)
                if step is not None:
                    return step
                if (leave or hurry) and self._patience_s and self._order.count(side) == 1:
                    self._order.append(side)  # once
            self._phase += 1
            self._enter(now, least=1)
        return GiveUp(self._loss)

    def _at(
        self, now: float, side: int, wait_s: Callable[[int, bool], float], *, hurry: bool
    ) -> Step | None:
        """What to do with this side; None: no more."""
        left = (min(self._deadline, self._hurry_until) if hurry else self._deadline) - now
        if not self._least and left < LEAST_S:
            return None
        rest = any(other not in self._hopeless for other in self._order[self._phase + 1 :])
        alternative = rest and self._fresh
        waiting = wait_s(side, alternative)
        if waiting and alternative:
            return None
        pause = max(waiting, self._retry_at - now, self._not_before.get(side, now) - now)
        if pause <= 0:
            return Try(side, self._limit(left, hurry=hurry))
        if pause <= left:
            return Pause(pause)
        if math.isinf(pause) and left > 0:  # until a place is free, or another call's attempt done
            return Pause(left)
        return None

    def _other_is_free(self, now: float, wait_s: Callable[[int, bool], float]) -> bool:
        """Whether another engine, whose turn is later, would take the call now."""
        return any(
            other not in self._hopeless
            and self._not_before.get(other, now) <= now
            and not wait_s(other, True)
            for other in self._order[self._phase + 1 :]
        )

    def _limit(self, left: float, *, hurry: bool) -> float | None:
        if self._least:
            if self._fresh and not self._attempts:
                return FIRST_S if hurry else None
            left = max(left, ATTEMPT_S)
        limit: float = min(ATTEMPT_S * (1 << min(self._attempts, 4)), left)
        return limit

    def _note(self, now: float, side: int, loss: Lost) -> None:
        self._loss = loss
        if not loss.retryable:
            self._hopeless.add(side)
        self._retry_at = now + self._backoff.next_s()

    def _others_last(self, side: int) -> list[int]:
        return [side, *(other for other in range(self._sides) if other != side)]

    def _begin(self, now: float, order: list[int], least: int) -> None:
        self._order = order
        self._not_before.clear()  # what they said is long ago
        self._phase = 0
        self._enter(now, least)

    def _enter(self, now: float, least: int) -> None:
        self._deadline = now + self._patience_s
        self._least = least
        self._attempts = 0
        self._retry_at = now
