"""What the journal is given to keep: rows of calls, facts that come later, what has been spent."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from voiced.text import encodable
from voiced.transcript import Entry

__all__ = [
    "STRUCTURES",
    "Added",
    "Annotation",
    "Charge",
    "Fact",
    "Note",
    "Row",
    "Spent",
    "Struck",
    "Sums",
    "checked_fact",
    "day_of",
    "summed",
]

Fact = str | int | float | bool | None

STRUCTURES: Final = ("states", "latencies", "usage", "transcript", "media", "facts")
"""Columns of JSON."""

_LARGEST: Final = 2**63
"""Whole numbers beyond are none to those who read the JSON."""


def day_of(unix: float) -> str:
    """The day, in UTC, of a time: `2026-11-21`."""
    return time.strftime("%Y-%m-%d", time.gmtime(unix))


def summed(usage: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """Two usages, field by field."""
    return {name: usage.get(name, 0) + more.get(name, 0) for name in {**usage, **more}}


@dataclass(slots=True)
class Row:
    """What the journal keeps of a call; the columns' comments in the schema give the units."""

    call_id: str
    carrier: str
    carrier_call_id: str
    direction: str
    caller: str
    called: str
    agent: str
    engine: str
    model: str
    started_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    reason: str | None = None
    duration_ms: int | None = None
    media_ms: int | None = None
    states: list[tuple[str, int]] = field(default_factory=list)
    latencies: Mapping[str, object] = field(default_factory=dict)
    usage: Mapping[str, float] = field(default_factory=dict)
    cost_usd: float | None = None
    transcript: list[Entry] = field(default_factory=list)
    trunk: str | None = None
    media: Mapping[str, object] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)

    def add(self, added: Added) -> None:
        """What was used for the call since its row was complete; no cost stays none."""
        self.usage = summed(self.usage, added.usage)
        if self.cost_usd is not None:
            self.cost_usd += added.usd

    def values(self) -> dict[str, object]:
        """Column to value, structures as JSON text."""
        row: dict[str, object] = {name: getattr(self, name) for name in self.__slots__}
        row["transcript"] = [
            {"role": entry.role, "text": entry.text, "cut": entry.cut} for entry in self.transcript
        ]
        for name in STRUCTURES:
            row[name] = json.dumps(row[name], ensure_ascii=False)
        # What a peer said need not be UTF-8, and a row that cannot be stored takes others with it.
        return {name: encodable(v) if isinstance(v, str) else v for name, v in row.items()}


@dataclass(frozen=True, slots=True)
class Spent:
    """What a call had cost on one day, so far."""

    day: str  # "2026-11-21", UTC
    call_id: str
    called: str
    usd: float


@dataclass(frozen=True, slots=True)
class Charge:
    """What something more has cost, beside what `Spent` says of a call: it adds."""

    day: str  # as in Spent
    call_id: str  # empty: of no call
    usd: float
    told: Callable[[str], None]
    """Is told, once it is written, which number the call had called; empty where none is known."""


@dataclass(frozen=True, slots=True)
class Added:
    """What was used for a call after its row was complete: it adds to what stands there."""

    call_id: str
    usage: Mapping[str, float]
    usd: float


@dataclass(frozen=True, slots=True)
class Struck:
    """A cap that has ended a call: it takes no other on that day."""

    day: str  # as in Spent
    called: str | None  # whose cap; None: that of all calls
    usd: float  # the cap


@dataclass(frozen=True, slots=True)
class Sums:
    """What a day's calls have cost by now, for a file that has lost some of what made it up.

    What the file lacks of it, once it has all that was said before, is added.
    """

    day: str  # as in Spent
    numbers: Mapping[str, float]  # US dollars by called number


@dataclass(frozen=True, slots=True)
class Annotation:
    """A fact that became known after its call's row was complete."""

    call_id: str
    name: str
    value: Fact


Note = Row | Annotation | Added | Spent | Charge | Struck | Sums
"""What can be written down."""


def checked_fact(value: object) -> Fact:
    """A fact, if it is one; ValueError for what a row could not hold, whoever says it is typed."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a fact is no infinity, and no NaN")
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError("a fact is a number of at most 64 bits")
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"a fact is a text, a number, true, false or None, not {type(value).__name__}")
