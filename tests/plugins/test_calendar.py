"""Opening hours."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voiced_plugins._calendar import DAYS, Calendar

BERLIN = ZoneInfo("Europe/Berlin")
SHOP = Calendar(
    {"mon": ["09:00-12:00", "13:00-17:30"], "fri": ["22:00-06:00"], "sun": ["00:00-24:00"]},
    ["12-25", "2026-06-01", "02-29"],
    BERLIN,
)


@pytest.mark.parametrize(
    ("moment", "kind"),
    [
        ("2026-06-08 08:59", "closed"),  # a Monday
        ("2026-06-08 09:00", "open"),
        ("2026-06-08 11:59", "open"),
        ("2026-06-08 12:00", "closed"),
        ("2026-06-08 17:29", "open"),
        ("2026-06-08 17:30", "closed"),
        ("2026-06-09 10:00", "closed"),
        ("2026-06-12 21:59", "closed"),
        ("2026-06-12 22:00", "open"),
        ("2026-06-13 05:59", "open"),
        ("2026-06-13 06:00", "closed"),
        ("2026-06-14 00:00", "open"),
        ("2026-06-14 23:59", "open"),
        ("2026-06-15 00:00", "closed"),
        ("2026-06-01 10:00", "holiday"),
        ("2027-06-01 10:00", "closed"),
        ("2026-12-25 22:30", "holiday"),
        ("2026-12-26 05:00", "closed"),  # the holiday's night shift is off, too
        ("2028-02-29 10:00", "holiday"),
    ],
)
def test_what_a_moment_is(moment: str, kind: str) -> None:
    assert SHOP.at(datetime.fromisoformat(moment).replace(tzinfo=BERLIN)) == kind


def test_moments_are_those_of_the_time_zone_in_summer_and_winter() -> None:
    assert SHOP.at(datetime(2026, 6, 8, 7, 0, tzinfo=UTC)) == "open"
    assert SHOP.at(datetime(2026, 12, 7, 7, 0, tzinfo=UTC)) == "closed"
    assert SHOP.at(datetime(2026, 12, 7, 8, 0, tzinfo=UTC)) == "open"


def test_without_hours_it_is_open_but_for_holidays() -> None:
    calendar = Calendar({}, ["01-01"], UTC)
    assert calendar.at(datetime(2026, 6, 8, 3, 0, tzinfo=UTC)) == "open"
    assert calendar.at(datetime(2027, 1, 1, 3, 0, tzinfo=UTC)) == "holiday"


@pytest.mark.parametrize("text", ["9-17", "09:00-25:00", "24:00-24:00", "09:60-10:00", "", "x"])
def test_hours_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="are no hours"):
        Calendar({"mon": [text]}, [], UTC)


@pytest.mark.parametrize("text", ["2026-02-30", "13-01", "Christmas", "02-30", ""])
def test_days_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no day"):
        Calendar({}, [text], UTC)


MINUTES = st.integers(0, 1439)


@given(st.integers(0, 6), MINUTES, MINUTES, st.integers(0, 20_000))
def test_a_span_is_open_for_exactly_its_minutes(
    day: int, begin: int, end: int, minute: int
) -> None:
    text = f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"
    calendar = Calendar({DAYS[day]: [text]}, [], UTC)
    length = (end - begin) % 1440 or 1440
    monday = datetime.combine(date(2026, 6, 8), time(), UTC)
    opens = monday + timedelta(days=day, minutes=begin)
    moment = monday + timedelta(minutes=minute)
    weeks = (moment - opens) % timedelta(weeks=1)
    assert (calendar.at(moment) == "open") == (weeks < timedelta(minutes=length))
