"""`Echo.analyse`: the path by which what was played came back. All at 4 kHz."""

from __future__ import annotations

import numpy as np

from tests.interruption.recordings import Signal
from voiced.audio import Echo

PLAYED: Signal = np.random.default_rng(1).normal(0, 3000, 2 * Echo.SPAN)


def line(delay: int) -> Signal:
    """What comes back, -10 dB and some noise, so many samples later."""
    came = np.random.default_rng(delay).normal(0, 200, len(PLAYED))
    came[delay:] += 0.3 * PLAYED[: len(PLAYED) - delay]
    return came


def on(came: Signal) -> Echo:
    echo = Echo()
    echo.far(0, PLAYED.astype("<i2").tobytes())
    echo.near(came.astype("<i2").tobytes())
    return echo


def test_what_one_call_is_judged_by_is_nothing_of_anothers() -> None:
    """They share their working memory; a call's first look has no earlier path to fall back on."""
    late, moved = line(600), line(100)
    moved[-800:] = late[-800:]
    other = on(late)
    for _ in range(2):  # by its second look the other line's path is known
        other.analyse(Echo.SPAN, Echo.SPAN, 0, 0)
    after_late = on(moved).analyse(Echo.SPAN, Echo.SPAN, 0, 0)
    other = on(line(300))
    for _ in range(2):
        other.analyse(Echo.SPAN, Echo.SPAN, 0, 0)
    assert on(moved).analyse(Echo.SPAN, Echo.SPAN, 0, 0) == after_late
