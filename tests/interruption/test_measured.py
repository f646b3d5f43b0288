"""A part of what `python -m tests.interruption.measure` prints, held to what was measured."""

from __future__ import annotations

import pytest

from tests.interruption import sounds
from tests.interruption.lines import PATHS
from tests.interruption.measure import NO_ECHO_DB, Bench
from voiced.formats import PCM16_16K

BENCH = Bench()


@pytest.mark.parametrize("path", PATHS)
def test_an_echo_does_not_cut_the_agent(path: str) -> None:
    """Through a pause, its end, and seconds of listening on."""
    tally = BENCH.echo(path, -12, 2)
    assert tally.asked == 2
    assert tally.cut == 0


@pytest.mark.parametrize("echo_db", [NO_ECHO_DB, -12])
def test_a_caller_is_not_missed(echo_db: float) -> None:
    tally = BENCH.speech(echo_db, 0, 8, short=False)
    assert (tally.asked, tally.ignored, tally.early) == (8, 0, 0)
    assert tally.percentile(50) <= 400


def test_a_word_is_not_missed() -> None:
    tally = BENCH.speech(NO_ECHO_DB, 0, 8, short=True)
    assert (tally.asked, tally.ignored) == (8, 0)


def test_a_cough_over_an_echo_does_not_cut_the_agent() -> None:
    tally = BENCH.sound(sounds.COUGHS["cough"], -12, 3)
    assert tally.cut == 0
    assert tally.verdicts["cough"] > 0


def test_wide_band_legs_hear_the_same() -> None:
    wide = Bench(leg_format=PCM16_16K)
    assert wide.echo("hybrid", -12, 1).cut == 0
    tally = wide.speech(-12, 0, 3, short=False)
    assert (tally.asked, tally.ignored) == (3, 0)
