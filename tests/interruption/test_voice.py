"""`Echo.voice`: what a pitch is, and what is none. All at 4 kHz."""

from __future__ import annotations

import numpy as np
import pytest

from tests.interruption.recordings import Signal
from voiced.audio import Echo

FRAMES = Echo.SPAN // Echo.FRAME


def heard(signal: Signal, counts: list[int] | None = None, played: Signal | None = None) -> float:
    """The voice in 1.1 s that end with `signal`, of all frames or as `counts` says."""
    echo = Echo()
    came = np.zeros(2 * Echo.SPAN)
    came[len(came) - len(signal) :] = signal
    if played is not None:
        echo.far(0, played.astype("<i2").tobytes())
    echo.near(came.astype("<i2").tobytes())
    echo.analyse(Echo.SPAN, Echo.SPAN, 0, 0)
    return echo.voice(bytes(counts or [2] * FRAMES))


def pulses(ms: int, first_hz: float, last_hz: float) -> Signal:
    """A pitch that glides, through a formant at 600 Hz."""
    length = 4 * ms
    phase = np.cumsum(np.linspace(first_hz, last_hz, length) / 4000)
    out = (np.diff(np.floor(phase), prepend=0) > 0) * 1.0
    t = np.arange(60)
    formant = np.exp(-t / 12) * np.cos(2 * np.pi * 600 * t / 4000)
    return 6000 * np.convolve(out, formant)[:length]


@pytest.mark.parametrize(("first", "last"), [(100, 100), (220, 130), (130, 90), (200, 300)])
def test_a_tenth_of_a_second_of_pitch_is_a_voice_glide_or_not(first: float, last: float) -> None:
    assert heard(pulses(120, first, last)) > 3
    assert heard(pulses(400, first, last)) > heard(pulses(120, first, last))


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_none(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 3000, Echo.SPAN)
    assert heard(noise) < 2.7


def test_silence_is_none() -> None:
    assert heard(np.zeros(Echo.SPAN)) == 0


def test_frames_that_do_not_count_add_nothing() -> None:
    voice = pulses(1100, 120, 120)
    assert heard(voice, [0] * FRAMES) == 0
    half = heard(voice, [2] * (FRAMES // 2) + [0] * (FRAMES - FRAMES // 2))
    assert half == pytest.approx(heard(voice) / 2, rel=0.1)


def test_what_has_the_echos_pitch_counts_where_it_is_asked_for_alone() -> None:
    """An echo that is distorted leaves its pitch."""
    draw = np.random.default_rng(1)
    said = pulses(1100, 180, 110) + draw.normal(0, 400, Echo.SPAN)
    played = np.concatenate([np.zeros(Echo.SPAN), said])
    came = 0.2 * said + 1e-4 * said**2
    assert heard(came, [2] * FRAMES, played) > 3
    assert heard(came, [1] * FRAMES, played) < 1.5


def high_pass(signal: Signal) -> Signal:
    """Without the band of pitch: what is left above 1.2 kHz."""
    t = np.arange(-32, 33)
    taps = -0.6 * np.sinc(0.6 * t) * np.hamming(65)
    taps[32] += 1
    return np.convolve(signal, taps, "same")


@pytest.mark.parametrize(("first", "last"), [(130, 90), (220, 130), (200, 300)])
def test_pulses_are_heard_in_the_envelope_where_the_band_of_pitch_holds_none(
    first: float, last: float
) -> None:
    phase = np.cumsum(np.linspace(first, last, 1200) / 4000)
    t = np.arange(60)
    formant = np.exp(-t / 8) * np.cos(2 * np.pi * 1600 * t / 4000)
    vowel = np.convolve((np.diff(np.floor(phase), prepend=0) > 0) * 1.0, formant)[:1200]
    hidden = 6000 * high_pass(vowel)
    assert heard(hidden, [3] * FRAMES) > 6


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_no_pitch_in_its_envelope(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 3000, Echo.SPAN)
    assert heard(noise, [3] * FRAMES) < 2.7
