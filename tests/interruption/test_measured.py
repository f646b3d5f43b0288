"""A part of what `python -m tests.interruption.measure` prints, held to what was measured."""

from __future__ import annotations

import pytest

from tests.interruption import sounds
from tests.interruption.clause import LENGTHS, LEVELS, Clause
from tests.interruption.lines import PATHS
from tests.interruption.measure import NO_ECHO_DB, Bench
from voiced.formats import PCM16_16K

BENCH = Bench()


@pytest.mark.parametrize("echo_db", [-20, -15, -12])
def test_nothing_but_a_caller_cuts_the_agent_on_a_line_that_copies_what_is_played(
    echo_db: float,
) -> None:
    """The requirement as it is worded: an echo alone, and coughs, with it; see clause.py."""
    alone, coughs = Clause().echo(echo_db, 3), Clause().coughs(echo_db, 5)
    assert (alone.asked, alone.cut) == (3, 0)
    assert coughs.asked >= 4
    assert coughs.cut == 0


@pytest.mark.parametrize("echo_db", [-20, -12, -6])
@pytest.mark.parametrize("caller_db", LEVELS)
@pytest.mark.parametrize("length", LENGTHS)
def test_nobody_who_interrupts_is_missed_on_such_a_line(
    echo_db: float, caller_db: float, length: str
) -> None:
    tally = Clause().interruptions(echo_db, caller_db, length, 3)
    assert (tally.asked, tally.ignored, tally.early) == (3, 0, 0)


@pytest.mark.parametrize("path", PATHS)
def test_an_echo_does_not_cut_the_agent(path: str) -> None:
    """Through a pause, its end, and seconds of listening on."""
    tally = BENCH.echo(path, -12, 2)
    assert tally.asked == 2
    assert tally.cut == 0


@pytest.mark.parametrize("hole_ms", [20, 40, 100])
def test_an_echo_whose_delay_grows_in_mid_speech_does_not_cut_the_agent(hole_ms: int) -> None:
    """As where a buffer of the caller's side grows, or stalls."""
    tally = BENCH.moving(hole_ms, 0, -12, 5)
    assert tally.asked == 5
    assert tally.cut == 0


@pytest.mark.parametrize(
    ("echo_db", "caller_db"), [(NO_ECHO_DB, 0), (NO_ECHO_DB, -12), (-12, 0), (-12, -6)]
)
@pytest.mark.parametrize("short", [False, True])
def test_a_caller_is_not_missed(echo_db: float, caller_db: float, short: bool) -> None:
    """Words of 200 to 600 ms, and longer speech."""
    tally = BENCH.speech(echo_db, caller_db, 8, short=short)
    assert (tally.asked, tally.ignored, tally.early) == (8, 0, 0)
    softly = (echo_db, caller_db) == (NO_ECHO_DB, -12)  # it may take all of the window
    assert tally.percentile(50) <= (500 if softly else 320)


def test_a_short_word_on_a_line_without_echo_is_not_taken_for_one() -> None:
    """So many taps explain much of it by chance, where the agent has spoken for a moment only."""
    tally = Bench("tuning").speech(NO_ECHO_DB, -6, 9, short=True, seed=7)
    assert (tally.asked, tally.ignored) == (9, 0)


@pytest.mark.parametrize("name", ["cough", "breath", "rumble"])
@pytest.mark.parametrize("echo_db", [NO_ECHO_DB, -12])
def test_a_sound_that_is_no_speech_does_not_cut_the_agent(name: str, echo_db: float) -> None:
    tally = BENCH.sound({**sounds.COUGHS, **sounds.OTHERS}[name], echo_db, 3)
    assert tally.cut == 0
    assert tally.verdicts["cough"] > 0


def test_wide_band_legs_hear_the_same() -> None:
    wide = Bench(leg_format=PCM16_16K)
    assert wide.echo("hybrid", -12, 1).cut == 0
    tally = wide.speech(-12, 0, 3, short=False)
    assert (tally.asked, tally.ignored) == (3, 0)
