"""The cost guard: what calls have cost today, and when one has to end because of it.

A call is told to end shortly before a cap strikes, with as much left as its farewell will cost at
the rate at which it spends. What has been spent is kept in the journal as it is spent, so that a
crash forgets a few seconds of it, not the day; and so are the caps that have struck.

What live calls may spend yet is set aside, FAREWELL_S of each, from its first moment on: at the
price that its models have by the second until it has talked for so long, then at what it has cost.
So a cap that leaves room for the farewells of two calls is passed by no more than what the live
calls cost in the second that each takes to notice, in what a farewell takes beyond FAREWELL_S (the
call cuts one off 5 s later), and by what no price by the second foresees: the text of a long
conversation, read again for each answer.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from msgspec import UNSET

from voiced.config.numbers import normalised
from voiced.config.types import Cost, Number
from voiced.journal_rows import Charge, Spent, Struck, Sums, day_of

__all__ = ["DAYS", "DAY_S", "FAREWELL_S", "Budget", "Cap", "Meter", "day_of"]

Cap = Literal["call", "number", "day"]

FAREWELL_S: Final = 15.0
"""What a call may still go on after it has been told to end: a sentence, and a model's delay."""

RATE_S: Final = 60.0
"""The time over which a call's spending is averaged: several turns."""

KEEP_S: Final = 5.0  # between two entries of one call in the journal ...
KEEP_USD: Final = 0.05  # ... unless it has spent so much meanwhile

DAY_S: Final = 86_400.0

DAYS: Final = 4
"""Days whose sums are known at a time: a clock that is set may make it yesterday again, or have
made it some day of another year for a while, and none of that is a day with nothing spent."""


@dataclass(frozen=True, slots=True)
class _Caps:
    call: float | None
    number: float | None
    day: float | None


@dataclass(slots=True)
class _Day:
    """What one day's calls have cost."""

    total: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)
    struck: dict[str | None, float] = field(default_factory=dict)
    """Caps that have ended calls, of a called number or (None) of all calls. What is left below
    them is less than one more farewell."""

    def add(self, called: str, usd: float) -> None:
        self.total += usd
        self.numbers[called] = self.numbers.get(called, 0.0) + usd

    def spent(self, called: str | None) -> float:
        return self.total if called is None else self.numbers.get(called, 0.0)


class Budget:
    """What a day's calls have cost. A new day begins with nothing, at midnight UTC."""

    def __init__(
        self,
        keep: Callable[[Spent | Charge | Struck | Sums], None],
        *,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """`keep` writes down what is spent and which cap strikes.

        `clock` gives Unix time, which says what day it is; `elapsed` seconds that nobody sets, from
        which follows how fast a call spends.
        """
        self.cost = Cost()
        self._keep = keep
        self._clock = clock
        self._elapsed = elapsed
        self._days: dict[str, _Day] = {}
        self._meters: set[Meter] = set()

    def remember(self, spent: Sequence[Spent], struck: Sequence[Struck] = ()) -> None:
        """Take over what was spent, and which caps struck, before this start."""
        for each in spent:
            self._on(each.day).add(normalised(each.called), each.usd)
        for cap in struck:
            self._on(cap.day).struck[cap.called] = cap.usd

    def write_down(self) -> None:
        """Write everything down again, for a journal that has lost it."""
        for meter in self._meters:  # first: what is the live calls' is not taken for earlier ones'
            meter.write_down()
        for day, known in self._days.items():
            self._keep(Sums(day, dict(known.numbers)))
            for called, cap in known.struck.items():
                self._keep(Struck(day, called, cap))

    def charge(self, call_id: str | None, usd: float) -> None:
        """A call that has ended, or none at all, has cost so much more.

        The day's sum has it at once; the called number's once the journal has said which that is.
        """
        day, today = self._today()
        today.total += usd
        self._keep(Charge(day, call_id or "", usd, partial(self._charge_number, today, usd)))

    def _charge_number(self, day: _Day, usd: float, called: str) -> None:
        number = normalised(called)
        day.numbers[number] = day.numbers.get(number, 0.0) + usd

    def spent_today(self, called: str | None = None) -> float:
        """US dollars, of all calls or of those of one called number."""
        return self._today()[1].spent(None if called is None else normalised(called))

    def exhausted(self, called: str, number: Number | None, usd_s: float = 0.0) -> Cap | None:
        """Which cap leaves nothing for another call, if any.

        `usd_s`: what a second of it is expected to cost.
        """
        caps = self._caps(number)
        if self._leaves_nothing(None, caps.day, usd_s):
            return "day"
        return "number" if self._leaves_nothing(normalised(called), caps.number, usd_s) else None

    def _leaves_nothing(self, called: str | None, cap: float | None, usd_s: float) -> bool:
        """Whether a cap leaves nothing; one that was raised since it struck may leave something."""
        if cap is None:
            return False
        if self._today()[1].struck.get(called, -1.0) >= cap:
            return True
        newcomer = _set_aside(0.0, usd_s * FAREWELL_S, cap)
        return self._committed(called, cap) + newcomer >= cap

    def open(self, call_id: str, called: str, number: Number | None, usd_s: float = 0.0) -> Meter:
        """Make the meter of a call. It has to be closed.

        `usd_s`: what a second of it is expected to cost.
        """
        caps = self._caps(number)
        meter = Meter(self, call_id, normalised(called), caps, usd_s, foreseen=usd_s * FAREWELL_S)
        meter._past.append((self._elapsed(), 0.0))
        self._meters.add(meter)
        return meter

    def _caps(self, number: Number | None) -> _Caps:
        call, of_number = self.cost.call_usd, self.cost.number_usd
        if number is not None:
            call = call if number.call_usd is UNSET else number.call_usd
            of_number = of_number if number.number_usd is UNSET else number.number_usd
        return _Caps(call, of_number, self.cost.day_usd)

    def _today(self) -> tuple[str, _Day]:
        day = day_of(self._clock())
        return day, self._on(day)

    def _on(self, day: str) -> _Day:
        known = self._days.get(day)
        if known is None:
            while len(self._days) >= DAYS:
                del self._days[next(iter(self._days))]  # the one that was begun first
            known = self._days[day] = _Day()
        return known

    def _committed(self, called: str | None, cap: float) -> float:
        """What was spent today, of a called number or of all, and the live calls' farewells."""
        return self._today()[1].spent(called) + sum(
            meter.reserve(cap) for meter in self._meters if called in (None, meter.called)
        )

    def _strike(self, called: str | None, cap: float) -> None:
        day, today = self._today()
        if cap > today.struck.get(called, -1.0):
            today.struck[called] = cap
            self._keep(Struck(day, called, cap))


def _set_aside(seen: float, foreseen: float, cap: float) -> float:
    """A farewell's cost, as it was `seen` and as it is `foreseen` for the time without any sight.

    What is only foreseen takes no more than half of a cap: the other half is there to talk.
    """
    return seen + min(foreseen, max(0.0, cap / 2 - seen))


@dataclass(eq=False, slots=True)
class Meter:
    """What one call spends, as it goes on."""

    budget: Budget
    call_id: str
    called: str
    caps: _Caps
    usd_s: float
    """What a second is expected to cost."""
    foreseen: float
    """Of a farewell's cost, the part that no experience stands for yet."""
    seen: float = 0.0
    """Of a farewell's cost, the part at the rate at which the call spends."""
    usd: float = 0.0
    """Spent by the whole call."""
    _days: dict[str, float] = field(default_factory=dict)
    _kept: dict[str, float] = field(default_factory=dict)
    _kept_at: float = -math.inf
    _past: deque[tuple[float, float]] = field(default_factory=deque)

    @property
    def capped(self) -> bool:
        """Whether anything limits the call."""
        return self.caps != _Caps(None, None, None)

    def update(self, usd: float) -> Cap | None:
        """The call has spent `usd` by now; the cap that is about to strike, if one is."""
        budget, now = self.budget, self.budget._elapsed()
        grown = usd - self.usd
        if grown > 0:  # an estimate may turn out to have been too high
            day, today = budget._today()
            self.usd += grown
            self._days[day] = self._days.get(day, 0.0) + grown
            today.add(self.called, grown)
        self._past.append((now, self.usd))
        while self._past[0][0] < now - RATE_S and len(self._past) > 1:
            self._past.popleft()
        since, before = self._past[0]
        if self.usd > 0:  # until a model costs something, nothing is known of what it costs
            self.seen = (self.usd - before) / max(now - since, FAREWELL_S) * FAREWELL_S
            self.foreseen = max(0.0, FAREWELL_S - (now - since)) * self.usd_s
        else:
            self._past = deque([(now, 0.0)])
        self._write(now, last=False)
        return self._struck()

    def write_down(self) -> None:
        """Write down what was spent on all days, as if none of it had been."""
        self._kept = {}
        self._write(self.budget._elapsed(), last=True)

    def close(self) -> None:
        """The call is over."""
        self._write(self.budget._elapsed(), last=True)
        self.budget._meters.discard(self)

    def reserve(self, cap: float) -> float:
        """What of a cap is set aside for the end of this call."""
        return _set_aside(self.seen, self.foreseen, cap)

    def _struck(self) -> Cap | None:
        caps, budget = self.caps, self.budget
        if caps.call is not None and self.usd + self.reserve(caps.call) >= caps.call:
            return "call"
        if caps.number is not None and budget._committed(self.called, caps.number) >= caps.number:
            budget._strike(self.called, caps.number)
            return "number"
        if caps.day is not None and budget._committed(None, caps.day) >= caps.day:
            budget._strike(None, caps.day)
            return "day"
        return None

    def _write(self, now: float, *, last: bool) -> None:
        """Write down what was spent since the last time, on each day on which it was."""
        grown = {day: usd for day, usd in self._days.items() if usd > self._kept.get(day, 0.0)}
        much = self.usd - sum(self._kept.values()) >= KEEP_USD
        if grown and (last or much or now - self._kept_at >= KEEP_S):
            self._kept, self._kept_at = dict(self._days), now
            for day, usd in grown.items():
                self.budget._keep(Spent(day, self.call_id, self.called, usd))
