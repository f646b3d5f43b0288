"""When the caller said what."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from voiced.talk.near_end import OVERHEARD_S, SHIFT_S, WINDOW_S, CallerClock, Overheard

RATE = 8000


@given(st.lists(st.floats(0, 0.3), min_size=10, max_size=300), st.floats(-200, 200))
def test_a_callers_audio_keeps_its_place(delays: list[float], ppm: float) -> None:
    """Frames that come late and in bursts are placed by their number; clocks that differ, too."""
    clock = CallerClock(RATE)
    now = 0.0
    for index, delay in enumerate(delays):
        spoken = (index + 1) * 0.02 * (1 + ppm / 1e6)
        now = max(now, spoken + delay)
        said = clock.said(160, now)
        late = min(0.3, max(delays[: index + 1]))
        assert -SHIFT_S - 0.001 <= said - (spoken - 0.02) <= late + SHIFT_S + 0.001


def test_an_hour_with_a_clock_that_is_off() -> None:
    clock = CallerClock(RATE)
    for index in range(180_000):
        now = (index + 1) * 0.02 * 1.0001
        said = clock.said(160, now)
        assert abs(said - (now - 0.02)) <= SHIFT_S + 0.001


def test_a_pause_is_found() -> None:
    clock = CallerClock(RATE)
    for index in range(50):
        clock.said(160, 1 + index * 0.02)
    clock.reset()
    assert abs(clock.said(160, 60.0) - 59.98) < 1e-9
    # And one that nobody announces, within two windows.
    for index in range(round(2 * WINDOW_S / 0.02) + 5):
        said = clock.said(160, 80.0 + index * 0.02)
    assert abs(said - (80.0 + index * 0.02 - 0.02)) <= SHIFT_S


@given(st.lists(st.integers(0, 400), max_size=60))
def test_what_is_overheard_is_whole_and_in_its_time(sizes: list[int]) -> None:
    heard: list[tuple[bytes, float]] = []
    overheard = Overheard(RATE, CallerClock(RATE), lambda *piece: heard.append(piece))
    said = bytes(itertools.islice(itertools.cycle(range(251)), sum(sizes)))
    at = 0
    for size in sizes:
        piece, at = said[at : at + size], at + size
        overheard.add(piece, 10 + at / RATE)
        assert at - sum(len(payload) for payload, _ in heard) < OVERHEARD_S * RATE
    overheard.flush(10 + at / RATE)
    overheard.flush(99.0)  # nothing is left
    assert b"".join(payload for payload, _ in heard) == said
    position = 0
    for payload, at_s in heard:
        assert abs(at_s - (10 + position / RATE)) < 1e-6
        position += len(payload)
