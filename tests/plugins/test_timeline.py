"""Both sides of a call on one time line."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voiced_plugins._timeline import JOIN_MS, Timeline, Track

from voiced.plugin import PCM16_8K, PCM16_16K, PCM16_24K, AudioFormat, Encoding, convert
from voiced.talk.near_end import CallerClock

PCMU = AudioFormat(Encoding.PCMU, 8000)

Samples = np.ndarray[Any, np.dtype[np.int16]]


def pcm(*values: int, times: int = 1) -> bytes:
    return np.array(values * times, "<i2").tobytes()


def channels(data: bytes) -> tuple[Samples, Samples]:
    both = np.frombuffer(data, "<i2")
    return both[0::2], both[1::2]


def test_what_was_not_heard_is_silence() -> None:
    line = Timeline(PCM16_8K, PCM16_8K, 2)
    line.caller.add(pcm(1, times=80), 0)
    line.agent.add(pcm(2, times=80), 100)
    left, right = channels(line.take(200))
    assert len(left) == len(right) == 1600
    assert left[:80].tolist() == [1] * 80
    assert not left[80:].any()
    assert right[800:880].tolist() == [2] * 80
    assert np.count_nonzero(right) == 80


def test_mu_law_silence_is_zero_in_the_file() -> None:
    line = Timeline(PCMU, PCM16_8K, 2)
    assert line.take(1000) == bytes(32000)


@pytest.mark.parametrize("target", [PCM16_8K, PCM16_16K, PCM16_24K], ids=str)
def test_the_last_sound_is_kept_at_another_rate(target: AudioFormat) -> None:
    """What the filters hold back comes at the end, a millisecond late at most."""
    line = Timeline(PCM16_8K, target, 2)
    line.caller.add(pcm(0, times=7996) + pcm(9000, times=4), 0)
    left, _ = channels(line.take(700) + line.finish(1000))
    assert 0 <= len(left) - target.rate <= target.rate // 1000
    assert np.abs(left).max() > 4000


def test_a_pause_that_is_over_is_forgotten() -> None:
    line = Timeline(PCMU, PCM16_8K, 2)
    for at in range(0, 10_000, 100):
        line.pause(at)
        line.resume(at + 50)
        line.take(at)
    assert len(line._pauses) <= 2
    assert line.paused_ms == 99 * 50


@given(st.lists(st.integers(1, 400), max_size=20))
def test_cuts_change_nothing(steps: list[int]) -> None:
    sound = random.Random(1).randbytes(8000)
    whole, cut = (Timeline(PCMU, PCM16_16K, 2) for _ in range(2))
    for line in (whole, cut):
        line.caller.add(sound, 0)
        line.agent.add(sound[::-1], 0)
        line.pause(300)
        line.resume(500)
    at, parts = 0, b""
    for step in steps:
        at = min(at + step, 1000)
        parts += cut.take(at)
    assert parts + cut.finish(1000) == whole.finish(1000)


@given(
    st.lists(
        st.tuples(st.integers(-3000, 9000), st.integers(0, 60), st.integers(0, 3)), max_size=30
    )
)
def test_whatever_comes_the_length_is_that_of_the_call(
    pieces: list[tuple[int, int, int]],
) -> None:
    line = Timeline(PCMU, PCM16_8K, 2)
    until, total = 0, 0
    for at_ms, length_ms, what in pieces:
        side = line.agent if what % 2 else line.caller
        side.add(bytes(8 * length_ms), max(0, at_ms))
        if what == 3:
            until += 100
            total += len(line.take(until))
    total += len(line.finish(10_000))
    assert total == 10_000 * 32


def test_one_that_is_put_together_of_late_pieces_keeps_all_of_them() -> None:
    track = Track(PCM16_8K)
    track.add(pcm(1000, times=800), 0)
    track.add(pcm(2000, times=800), 40)  # said to have been heard while the first still was
    out = np.frombuffer(track.take(1600), "<i2")
    assert out[:800].tolist() == [1000] * 800
    assert np.count_nonzero(out == 2000) >= 790  # a sample in 20 ms makes up for it


@pytest.mark.parametrize("wrong_ms", [20, -20, -200])
def test_a_step_of_the_clock_is_made_up_for_without_a_click(wrong_ms: int) -> None:
    """A slow sine goes on through the step: nowhere does it jump."""
    time = np.arange(8 * 60_000) / 8000
    sine = (8000 * np.sin(2 * np.pi * 100 * time)).astype("<i2")
    track = Track(PCM16_8K)
    for start in range(0, len(sine), 160):
        at = start // 8 + (wrong_ms if start >= 8000 else 0) + 1000
        track.add(sine[start : start + 160].tobytes(), at)
    out = np.frombuffer(track.take(track.end), "<i2").astype(int)[8000:]
    assert np.abs(np.diff(out)).max() < 2 * 8000 * 2 * np.pi * 100 / 8000
    assert abs(len(out) - len(sine) - 8 * wrong_ms) < 8 * 3


@pytest.mark.parametrize("wrong_ms", [20, -20, -60])
def test_a_step_is_made_up_for_at_once_where_nobody_speaks(wrong_ms: int) -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 30, 8000).astype("<i2").tobytes()
    track = Track(PCM16_8K)
    track.add(pcm(9000, times=800), 0)
    for start in range(0, 1000, 20):
        track.add(noise[16 * start : 16 * start + 320], 100 + start + wrong_ms)
    track.add(pcm(9000, times=800), 1100 + wrong_ms)
    loud = np.flatnonzero(np.frombuffer(track.take(track.end), "<i2") == 9000)
    assert loud[800] == 8 * (1100 + wrong_ms)


def test_a_gap_is_kept() -> None:
    track = Track(PCM16_8K)
    track.add(pcm(1, times=160), 0)
    track.add(pcm(1, times=160), 20 + JOIN_MS + 1)
    assert track.end == 8 * (20 + JOIN_MS + 1 + 20)


def test_what_comes_after_its_time_is_counted() -> None:
    line = Timeline(PCM16_8K, PCM16_8K, 2)
    line.take(1000)
    line.agent.add(pcm(1, times=160), 500)
    line.agent.add(pcm(2, times=160), 990)
    assert line.late_ms == 30
    _, right = channels(line.take(1100))
    assert right.tolist() == [2] * 80 + [0] * 720


def test_nothing_is_kept_of_what_was_before_its_beginning() -> None:
    line = Timeline(PCM16_8K, PCM16_8K, 2, start_ms=1000)
    line.caller.add(pcm(1, times=1600), 900)
    line.agent.add(pcm(2, times=160), 500)
    left, right = channels(line.take(1200))
    assert left.tolist() == [1] * 800 + [0] * 800
    assert not right.any()
    assert line.late_ms == 0


@pytest.mark.parametrize("keep", [True, False])
def test_a_pause_is_in_no_file(keep: bool) -> None:
    """Nor is what was said before it ended and came after."""
    line = Timeline(PCM16_8K, PCM16_8K, 2, keep_pauses=keep)
    line.caller.add(pcm(1, times=8000), 0)
    line.pause(400)
    first = line.take(300) + line.take(500)
    line.resume(600)
    line.agent.add(pcm(2, times=4000), 500)
    left, right = channels(first + line.take(1000))
    assert line.paused_ms == 200
    if keep:
        assert len(left) == 8000
        assert not left[3200:4800].any()
        assert not right[:4800].any()
    else:
        assert len(left) == 6400
        assert left.all()
    assert np.count_nonzero(right) == 3200


def test_one_channel_has_both() -> None:
    line = Timeline(PCM16_8K, PCM16_8K, 1)
    line.caller.add(pcm(5, times=80), 0)
    line.agent.add(pcm(7, times=80), 5)
    mixed = np.frombuffer(line.take(15), "<i2").tolist()
    assert mixed == [5] * 40 + [12] * 40 + [7] * 40


def test_mu_law_both_ways_is_exact() -> None:
    line = Timeline(PCMU, PCMU, 2)
    sound = bytes(range(256)) * 10
    line.caller.add(sound, 0)
    out = line.take(320)
    again = convert(sound, PCMU, PCM16_8K)
    assert convert(out[0::2], PCMU, PCM16_8K) == again


BEEP_MS = 20


def beep(rate: float) -> bytes:
    """A burst that no other sound is."""
    time = np.arange(int(rate * BEEP_MS / 1000)) / rate
    return (12000 * np.sin(2 * np.pi * 1000 * time)).astype("<i2").tobytes()


@pytest.mark.parametrize("ppm", [-150, 0, 80, 300])
def test_an_hour_stays_an_hour(ppm: int) -> None:
    """A carrier whose clock is off, that stalls, bursts and once leaves out a minute.

    Both sides beep together once a minute, by our clock; so they do in the file, within a frame:
    less is not to be known of a clock that is read frame by frame, 4 ms late or not.
    """
    rng = random.Random(ppm)
    hour_s, frame_s = 3600, 0.02 * (1 - ppm / 1e6)
    line, clock = Timeline(PCM16_8K, PCM16_8K, 2), CallerClock(16000)
    out, quiet, burst = bytearray(), bytes(320), beep(8000)
    said_s, beeps, minute, late_until = 0.0, [], 1, 0.0
    next_write = 1
    while said_s + frame_s < hour_s:
        said_s += frame_s
        if 1000 < said_s < 1060:
            continue  # nothing comes, and nothing is counted
        frame = quiet
        if said_s >= 60 * minute:
            frame = burst
            beeps.append(said_s - frame_s)
            line.agent.add(burst, round(beeps[-1] * 1000))
            minute = int(said_s // 60) + 1
        if rng.random() < 0.0005:
            late_until = said_s + rng.uniform(0.05, 0.8)
        now = max(said_s + rng.uniform(0.0, 0.004), late_until)
        line.said(frame, max(0, round(clock.said(320, now) * 1000)), round(now * 1000))
        while said_s > next_write:
            out += line.take(next_write * 1000 - 3000)
            next_write += 1
    out += line.finish(hour_s * 1000)
    left, right = channels(bytes(out))
    assert len(left) == hour_s * 8000
    assert line.late_ms == 0
    for side in (left, right):
        loud = np.flatnonzero(np.abs(side) > 1000)
        starts = loud[np.flatnonzero(np.diff(loud, prepend=-8000) > 4000)] / 8000
        assert len(starts) == len(beeps)
        assert np.abs(starts - np.array(beeps)).max() < 0.025
