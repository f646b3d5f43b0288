"""Who answers which number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.config import Asked, number_for
from voiced.config.numbers import covers, is_pattern
from voiced.config.types import Agent, Config, Number

CONFIG = Config(
    agent={"sales": Agent(greeting_text="Sales"), "all": Agent(greeting_delay_ms=5)},
    number=(
        Number(match="+49 (30) 1234-0", agent="sales", max_duration_s=60),
        Number(match="+4930*", agent="sales"),
        Number(match="sip:Help@Example.net", agent="all", greeting_delay_ms=0),
        Number(match="sip:*", agent="sales", greeting_delay_ms=7),
        Number(match="+1*", agent="all"),
    ),
)


@pytest.mark.parametrize(
    ("called", "index"),
    [
        ("+493012340", 0),
        ("+49 30 12340", 0),
        ("+4930123400", 1),
        ("+4930", 1),
        ("sip:help@example.net", 2),
        ("sip:help@example.net;transport=tls", 2),
        ("SIP:HELP@EXAMPLE.NET?x=y", 2),
        ("sip:helper@example.net", 3),
        ("+15550100", 4),
    ],
)
def test_the_first_block_that_matches_wins(called: str, index: int) -> None:
    found = number_for(CONFIG, Asked(called))
    assert found is not None
    assert found[0] is CONFIG.number[index]


@pytest.mark.parametrize("called", ["+44", "", "anonymous", "49301234", "sips:help@example.net"])
def test_a_number_that_is_not_ours_is_none(called: str) -> None:
    assert number_for(CONFIG, Asked(called)) is None


def test_a_block_overrides_its_agent() -> None:
    found = number_for(CONFIG, Asked("+493012340"))
    assert found is not None
    assert found[1] == Agent(greeting_text="Sales", max_duration_s=60)
    found = number_for(CONFIG, Asked("sip:help@example.net"))
    assert found is not None
    assert found[1] == Agent(greeting_delay_ms=0)  # 0 is a value, not an absence


CONDITIONS = Config(
    agent={"any": Agent()},
    number=(
        Number(match="*", agent="any", trunk="pbx", caller="+49*"),
        Number(match="+49*", agent="any", headers={"X-Tier": "gold*", "x-lang": "tr"}),
        Number(match="sip:desk@*", agent="any"),
    ),
)


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        (Asked("+1", caller="+4930", trunk="pbx"), 0),
        (Asked("+1", caller="+4430", trunk="pbx"), None),
        (Asked("+1", caller="+4930", trunk="provider"), None),
        (Asked("+491", headers={"x-tier": "golden", "X-Lang": "tr"}), 1),
        (Asked("+491", headers={"X-Tier": "gold", "X-Lang": "tri"}), None),
        (Asked("+491", headers={"X-Tier": "gold"}), None),
        (Asked("+491", also="sip:desk@example.net"), 2),
    ],
)
def test_a_block_can_ask_who_calls_over_what_with_which_headers(
    asked: Asked, index: int | None
) -> None:
    found = number_for(CONDITIONS, asked)
    assert (found and found[0]) is (None if index is None else CONDITIONS.number[index])


@pytest.mark.parametrize("match", ["*", "+*", "+49*", "+4930123", "sip:*", "sips:a@b", "sip:a*"])
def test_patterns(match: str) -> None:
    assert is_pattern(match)


@pytest.mark.parametrize(
    "match", ["", "030123", "+", "+49*30", "**", "+1234567890123456", "sip:", "tel:+1", "+٣", "a*"]
)
def test_what_is_no_pattern(match: str) -> None:
    assert not is_pattern(match)


NUMBERS = st.from_regex(r"\+[0-9]{1,15}", fullmatch=True)


@given(NUMBERS, st.integers(0, 16))
def test_a_number_is_covered_by_itself_and_by_its_prefixes(number: str, length: int) -> None:
    assert covers(number, number)
    assert covers(number[:length] + "*", number)
    assert not covers(number + "0", number)
    assert covers("*", number[:length] + "*")


@pytest.mark.parametrize(
    ("match", "called"),
    [
        ("sip:danışma@voiced.test", "sip:dan%C4%B1%C5%9Fma@voiced.test"),
        ("sip:danışma@voiced.test", "sip:DANIŞMA@voiced.test"),
        ("sip:İzmir@voiced.test", "sip:izmir@voiced.test"),
        ("sip:IŞIK@voiced.test", "sip:%c4%b1%c5%9f%c4%b1k@voiced.test;transport=tls"),
        ("sip:受付*", "sip:%E5%8F%97%E4%BB%982@voiced.test"),
        ("sip:ka\u0301va@voiced.test", "sip:káva@voiced.test"),
    ],
)
def test_names_in_other_scripts_match_as_they_are_written(match: str, called: str) -> None:
    assert is_pattern(match)
    assert covers(match, called)


def test_escapes_of_what_separates_stay_escapes() -> None:
    assert not covers("sip:a@b", "sip:a%40b")
    assert not covers("sip:受付", "sip:受付%3B")
