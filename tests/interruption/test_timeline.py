from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interruption.lines import ulaw
from voiced.formats import PCM16_16K, PCMA_8K, PCMU_8K, AudioFormat
from voiced.interruption.timeline import MS, Timeline

FRAME_S = 0.02


def noise(frames: int, level: float = 4000) -> list[bytes]:
    """The same at any level."""
    draw = np.random.default_rng(1)
    return [ulaw(draw.normal(0, level, 160)) for _ in range(frames)]


ECHO = 1000.0  # 12 dB below


def delay_found(line: Timeline) -> int | None:
    """In ms, of an echo in the last second; None where there is none."""
    start = line.echo.near_end - line.echo.SPAN
    path, _ = line.echo.analyse(start, line.echo.SPAN, line.offset, -120 * MS)
    return round(path.lag / MS) if path.runs else None


def echoed(line: Timeline, delay: int, heard: list[float], came: list[float]) -> None:
    """What is told to be heard at `heard` comes back `delay` frames later, arriving at `came`."""
    frames, weaker = noise(len(heard)), noise(len(heard), ECHO)
    told = 0
    for tick, arrival in enumerate(came):
        while told < len(heard) and told <= tick + 50:
            line.played(frames[told], heard[told])
            told += 1
        back = weaker[tick - delay] if 0 <= tick - delay < len(frames) else b"\xff" * 160
        line.caller(back, arrival)


def steady(frames: int, start: float = 100.0) -> list[float]:
    return [start + FRAME_S * i for i in range(frames)]


def test_an_echo_lies_where_the_told_times_say() -> None:
    line = Timeline(PCMU_8K)
    echoed(line, 10, steady(100), steady(100, 100 + FRAME_S))
    assert delay_found(line) == 200


def test_audio_told_two_seconds_ahead_has_its_place() -> None:
    line = Timeline(PCMU_8K)
    frames, weaker = noise(150), noise(150, ECHO)
    for tick in range(150):
        for ahead in range(100) if tick == 0 else [99]:
            if tick + ahead < 150:
                line.played(frames[tick + ahead], 7 + FRAME_S * (tick + ahead))
        line.caller(weaker[tick - 5] if tick >= 5 else b"\xff" * 160, 7 + FRAME_S * (tick + 1))
    assert delay_found(line) == 100


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_jitter_of_either_side_moves_nothing(seed: int) -> None:
    draw = np.random.default_rng(seed)
    line = Timeline(PCMU_8K)
    heard = [at + draw.uniform(-0.015, 0.015) for at in steady(100)]
    late = draw.exponential(0.03, 100)
    late[::20] = 0  # one in twenty travels as fast as it can
    echoed(line, 8, heard, list(np.maximum.accumulate(steady(100, 100 + FRAME_S) + late)))
    found = delay_found(line)
    assert found is not None
    assert abs(found - 160) <= 60


def test_what_was_cleared_was_not_heard() -> None:
    line = Timeline(PCMU_8K)
    frames, weaker = noise(100), noise(100, ECHO)
    for tick in range(100):
        line.played(frames[tick], 1 + FRAME_S * tick)
    line.cleared(1 + FRAME_S * 30)
    for tick in range(100):
        line.caller(weaker[tick - 5] if tick >= 5 else b"\xff" * 160, 1 + FRAME_S * (tick + 1))
    assert delay_found(line) is None
    assert line.echo.far_end <= (1000 + 30 * 20) * MS


def test_audio_after_a_clear_begins_where_it_is_told() -> None:
    line = Timeline(PCMU_8K)
    for frame in noise(50):
        line.played(frame, 1)
    line.cleared(1.1)
    line.played(noise(1)[0], 1.2)
    line.caller(noise(1)[0], 3)
    assert line.echo.far_end == (1000 + 200 + 20) * MS


def test_a_pause_in_the_callers_stream_is_a_pause() -> None:
    line = Timeline(PCMU_8K)
    for at in steady(20):
        line.caller(b"\xff" * 160, at)
    before = line.offset
    for at in steady(20, 103):
        line.caller(b"\xff" * 160, at)
    assert line.offset - before == pytest.approx((3000 - 400) * MS, abs=1)


@pytest.mark.parametrize("leg_format", [PCMU_8K, PCMA_8K, PCM16_16K], ids=str)
def test_every_leg_format_passes_at_the_echos_rate(leg_format: AudioFormat) -> None:
    line = Timeline(leg_format)
    for at in steady(50):
        line.caller(leg_format.silence(20), at)
        line.played(leg_format.silence(20), at)
    line.caller(leg_format.silence(20), 110)
    assert line.echo.near_end == 51 * 20 * MS
    assert line.echo.far_end == (1000 + 50 * 20) * MS


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["played", "cleared", "caller"]),
            st.floats(0, 60, allow_nan=False),
            st.integers(0, 400),
        ),
        max_size=40,
    )
)
def test_any_order_of_any_times_is_taken(script: list[tuple[str, float, int]]) -> None:
    line = Timeline(PCMU_8K)
    for what, at, size in script:
        if what == "played":
            line.played(b"\x10" * size, at)
        elif what == "cleared":
            line.cleared(at)
        else:
            line.caller(b"\x10" * size, at)
    delay_found(line)
