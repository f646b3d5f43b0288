"""Opening hours: a weekly table, holidays, a time zone. Pure; the time is an argument."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import Final, Literal

__all__ = ["DAYS", "Calendar", "Kind"]

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Kind = Literal["open", "closed", "holiday"]

_SPAN: Final = re.compile(r"([01]\d|2[0-4]):([0-5]\d)\s*-\s*([01]\d|2[0-4]):([0-5]\d)")
_DAY: Final = 24 * 60  # minutes


class Calendar:
    """When somebody is there.

    `hours`: by day of the week, spans such as `"09:00-12:30"`; one that ends before it begins, or
    at the same minute, goes on into the next day, whatever that is. `holidays`: `"2026-12-24"`, or
    `"12-25"` for every year. Raises ValueError for what is neither.
    """

    def __init__(
        self, hours: Mapping[str, Sequence[str]], holidays: Iterable[str], zone: tzinfo
    ) -> None:
        self._zone = zone
        self._hours = {day: [_span(text) for text in hours.get(day, ())] for day in DAYS}
        self._always = not hours
        self._dates: set[date] = set()
        self._yearly: set[tuple[int, int]] = set()
        for text in holidays:
            try:
                if len(text) == 5:
                    leap = date.fromisoformat(f"2000-{text}")  # has a 29 February
                    self._yearly.add((leap.month, leap.day))
                else:
                    self._dates.add(date.fromisoformat(text))
            except ValueError:
                raise ValueError(f'"{text}" is no day; write "2026-12-24" or "12-25"') from None

    def at(self, moment: datetime) -> Kind:
        """What a moment (with its time zone) is."""
        local = moment.astimezone(self._zone)
        today, minute = local.date(), local.hour * 60 + local.minute
        if not self._is_holiday(today - timedelta(days=1)):
            for _, end in self._spans(today - timedelta(days=1)):
                if minute < end - _DAY:
                    return "open"
        if self._is_holiday(today):
            return "holiday"
        if self._always or any(begin <= minute < end for begin, end in self._spans(today)):
            return "open"
        return "closed"

    def _spans(self, day: date) -> list[tuple[int, int]]:
        return self._hours[DAYS[day.weekday()]]

    def _is_holiday(self, day: date) -> bool:
        return day in self._dates or (day.month, day.day) in self._yearly


def _span(text: str) -> tuple[int, int]:
    """Minutes of the day; an end beyond midnight is more than a day."""
    found = _SPAN.fullmatch(text.strip())
    if found is not None:
        begin, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
        if begin < _DAY and end <= _DAY:
            return begin, end if end > begin else end + _DAY
    raise ValueError(f'"{text}" are no hours; write "09:00-17:30"')
