"""`Echo.analyse`: the path by which what was played came back. All at 4 kHz."""

from __future__ import annotations

import numpy as np

from tests.interruption.recordings import AGENT, CALLERS, Signal, prompts
from voiced import audio
from voiced.audio import Echo
from voiced.formats import PCM16_8K

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


def narrow(signal: Signal) -> Signal:
    """From 8 kHz."""
    converter = audio.converter(PCM16_8K, audio.ECHO_FORMAT)
    assert converter is not None
    pcm = converter.convert(np.rint(signal).astype("<i2").tobytes())
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def test_a_word_over_an_echo_is_not_taken_for_reflections_of_it() -> None:
    """Taps at other delays explain its loud frames, and all others worse."""
    agent = narrow(prompts(AGENT, "tuning", 2500, 60_000)[2])[:6000]
    word = narrow(prompts(CALLERS["tuning"][0], "tuning", 250, 600)[3]) / 2
    came = np.random.default_rng(1).normal(0, 20, 2 * Echo.SPAN)
    came[400 : 400 + len(agent)] += 0.35 * agent
    came[5600 : 5600 + len(word)] += word[: len(came) - 5600]
    echo = Echo()
    echo.far(0, agent.astype("<i2").tobytes())
    echo.near(came.astype("<i2").tobytes())
    before, _ = echo.analyse(5000 - Echo.SPAN, Echo.SPAN, 0, 0)
    over, frames = echo.analyse(Echo.SPAN, Echo.SPAN, 0, 0)
    assert (before.runs, over.runs) == (1, 1)
    assert not any(frame.echo > 4 * frame.near for frame in frames)


def test_the_loudest_that_was_played_is_told() -> None:
    path, frames = on(line(300)).analyse(Echo.SPAN, Echo.SPAN, 0, 0)
    loudest = max(frame.near for frame in frames)
    assert 0.05 < loudest / path.played < 0.3
    assert 0.05 < max(frame.low_near for frame in frames) / path.low_played < 0.3
    silent = Echo()
    silent.near(line(300).astype("<i2").tobytes())
    path, _ = silent.analyse(Echo.SPAN, Echo.SPAN, 0, 0)
    assert (path.played, path.low_played) == (0, 0)
