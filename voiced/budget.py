"""The cost guard: what calls have cost today, and when one has to end because of it.

A call is told to end shortly before a cap strikes, with as much left as its farewell will cost at
the rate at which it spends. What has been spent is kept in the journal as it is spent, so that a
crash forgets a few seconds of it, not the day.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from msgspec import UNSET

from voiced.config.numbers import normalised
from voiced.config.types import Cost, Number
from voiced.journal import Spent

__all__ = ["FAREWELL_S", "Budget", "Cap", "Meter", "day_of"]

Cap = Literal["call", "number", "day"]

FAREWELL_S: Final = 15.0
"""What a call may still go on after it has been told to end: a sentence, and a model's delay."""

RATE_S: Final = 60.0
"""The time over which a call's spending is averaged: several turns."""

KEEP_S: Final = 5.0  # between two entries of one call in the journal ...
KEEP_USD: Final = 0.05  # ... unless it has spent so much meanwhile


def day_of(unix: float) -> str:
    """The day, in UTC, of a time: `2026-11-21`."""
    return time.strftime("%Y-%m-%d", time.gmtime(unix))


@dataclass(frozen=True, slots=True)
class _Caps:
    call: float | None
    number: float | None
    day: float | None


class Budget:
    """What a day's calls have cost. A new day begins with nothing, at midnight UTC."""

    def __init__(
        self, keep: Callable[[Spent], None], *, clock: Callable[[], float] = time.time
    ) -> None:
        """`keep` writes down what a call has spent on a day; `clock` gives Unix time."""
        self.cost = Cost()
        self._keep = keep
        self._clock = clock
        self._day = day_of(clock())
        self._numbers: dict[str, float] = {}
        self._total = 0.0
        self._struck: dict[str | None, float] = {}
        """Caps that have ended calls today, of a called number or (None) of all calls. What is left
        below them is less than one more farewell."""
        self._meters: set[Meter] = set()

    def remember(self, spent: list[Spent]) -> None:
        """Take over what was spent before this start."""
        for each in spent:
            if each.day == self._day:
                self._add(each.called, each.usd)

    def spent_today(self, called: str | None = None) -> float:
        """US dollars, of all calls or of those of one called number."""
        self._turn_day()
        return self._total if called is None else self._numbers.get(normalised(called), 0.0)

    def exhausted(self, called: str, number: Number | None) -> Cap | None:
        """Which cap leaves nothing for another call, if any."""
        caps = self._caps(number)
        self._turn_day()
        if self._leaves_nothing(None, caps.day):
            return "day"
        return "number" if self._leaves_nothing(normalised(called), caps.number) else None

    def _leaves_nothing(self, called: str | None, cap: float | None) -> bool:
        """Whether a cap leaves nothing; one that was raised since it struck may leave something."""
        if cap is None:
            return False
        spent = self._total if called is None else self._numbers.get(called, 0.0)
        return spent + self._reserved(called) >= cap or self._struck.get(called, -1.0) >= cap

    def open(self, call_id: str, called: str, number: Number | None) -> Meter | None:
        """Make the meter of a call; None where nothing limits it. It has to be closed."""
        caps = self._caps(number)
        if caps == _Caps(None, None, None):
            return None
        meter = Meter(self, call_id, normalised(called), caps)
        meter._past.append((self._clock(), 0.0))
        self._meters.add(meter)
        return meter

    def _caps(self, number: Number | None) -> _Caps:
        call, of_number = self.cost.call_usd, self.cost.number_usd
        if number is not None:
            call = call if number.call_usd is UNSET else number.call_usd
            of_number = of_number if number.number_usd is UNSET else number.number_usd
        return _Caps(call, of_number, self.cost.day_usd)

    def _turn_day(self) -> None:
        today = day_of(self._clock())
        if today != self._day:
            self._day = today
            self._numbers.clear()
            self._total = 0.0
            self._struck.clear()
            for meter in self._meters:
                meter.turn_day()

    def _add(self, called: str, usd: float) -> None:
        self._numbers[called] = self._numbers.get(called, 0.0) + usd
        self._total += usd

    def _reserved(self, called: str | None = None) -> float:
        """What the farewells of the live calls will cost."""
        return sum(
            meter.reserve for meter in self._meters if called is None or meter.called == called
        )


@dataclass(eq=False, slots=True)
class Meter:
    """What one call spends, as it goes on."""

    budget: Budget
    call_id: str
    called: str
    caps: _Caps
    usd: float = 0.0
    """Spent by the whole call."""
    reserve: float = 0.0
    """What ending it will cost."""
    _today: float = 0.0
    _kept: float = 0.0
    _kept_at: float = 0.0
    _past: deque[tuple[float, float]] = field(default_factory=deque)

    def update(self, usd: float) -> Cap | None:
        """The call has spent `usd` by now; the cap that is about to strike, if one is."""
        budget, now = self.budget, self.budget._clock()
        budget._turn_day()
        grown = max(0.0, usd - self.usd)
        self.usd += grown
        self._today += grown
        budget._add(self.called, grown)
        self._past.append((now, self.usd))
        while self._past[0][0] < now - RATE_S and len(self._past) > 1:
            self._past.popleft()
        since, before = self._past[0]
        rate = (self.usd - before) / max(now - since, FAREWELL_S)
        self.reserve = rate * FAREWELL_S
        self._write(now, last=False)
        return self._struck()

    def close(self) -> None:
        """The call is over."""
        self._write(self.budget._clock(), last=True)
        self.budget._meters.discard(self)

    def turn_day(self) -> None:
        """What is spent from now on belongs to another day."""
        self._today = self._kept = 0.0

    def _struck(self) -> Cap | None:
        caps, budget = self.caps, self.budget
        if caps.call is not None and self.usd + self.reserve >= caps.call:
            return "call"
        if caps.number is not None:
            spent = budget._numbers.get(self.called, 0.0) + budget._reserved(self.called)
            if spent >= caps.number:
                budget._struck[self.called] = caps.number
                return "number"
        if caps.day is not None and budget._total + budget._reserved() >= caps.day:
            budget._struck[None] = caps.day
            return "day"
        return None

    def _write(self, now: float, *, last: bool) -> None:
        grown = self._today - self._kept
        if grown > 0 and (last or grown >= KEEP_USD or now - self._kept_at >= KEEP_S):
            self._kept, self._kept_at = self._today, now
            self.budget._keep(Spent(self.budget._day, self.call_id, self.called, self._today))
