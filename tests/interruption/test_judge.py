from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voiced.audio import EchoFrame
from voiced.interruption.judge import find

QUIET = EchoFrame(
    near=100.0, echo=0.0, rest=100.0, voice=0.2, alike=0.0, tone=0.0, period=30, digit=0
)
VOICE = EchoFrame(near=1e6, echo=0.0, rest=1e6, voice=0.9, alike=0.0, tone=0.0, period=30, digit=0)
HISS = VOICE._replace(voice=0.3)
TONE = VOICE._replace(tone=0.95)
ECHO = EchoFrame(near=1e6, echo=1e6, rest=2e4, voice=0.9, alike=0.0, tone=0.0, period=30, digit=0)
START = [QUIET] * 10


def test_a_voice_counts_from_its_second_frame_on_with_the_first() -> None:
    assert find([*START, VOICE], 0).voiced_ms == 0
    assert find([*START, VOICE, VOICE], 0).voiced_ms == 40
    assert find([*START, *[VOICE] * 5], 0).voiced_ms == 100


def test_what_lies_before_the_window_does_not_count() -> None:
    assert find([*START, *[VOICE] * 5, *START], 15).voiced_ms == 0


def test_a_pitch_that_jumps_is_no_voice_but_an_octave_is_an_error() -> None:
    other = VOICE._replace(period=40)
    octave = VOICE._replace(period=57)
    assert find([*START, VOICE, other], 0).voiced_ms == 0
    assert find([*START, VOICE, octave, VOICE], 0).voiced_ms == 60


def test_hiss_and_tones_are_no_voice() -> None:
    assert find([*START, *[HISS] * 10], 0).voiced_ms == 0
    found = find([*START, *[TONE] * 10], 0)
    assert (found.voiced_ms, found.tone_ms) == (0, 200)


def test_what_an_echo_leaves_unexplained_is_no_voice() -> None:
    found = find([*START, *[ECHO] * 20], 0)
    assert found.voiced_ms == 0
    assert found.echo_share > 0.95


def test_a_voice_over_an_echo_counts() -> None:
    over = ECHO._replace(near=2e6, rest=1e6)
    found = find([*START, *[ECHO] * 20, *[over] * 5, *[ECHO] * 5], 0)
    assert found.voiced_ms == 100


def test_a_voice_after_the_echo_is_clear() -> None:
    found = find([*START, *[ECHO] * 20, *[QUIET] * 10, *[VOICE] * 5], 0)
    assert found.clear_ms == 100


def test_a_room_that_rings_on_is_no_voice() -> None:
    tail = [QUIET._replace(near=p, rest=p, voice=0.9) for p in (3e5, 1e5, 3e4, 1e4)]
    assert find([*START, *[ECHO._replace(rest=1e5)] * 20, *tail], 0).clear_ms == 0


power = st.floats(0, 2.0**30, width=32)
frames = st.lists(
    st.builds(
        EchoFrame,
        near=power,
        echo=power,
        rest=power,
        voice=st.floats(0, 1),
        alike=st.floats(0, 1),
        tone=st.floats(0, 1),
        period=st.integers(0, 57),
        digit=st.integers(0, 15),
    ),
    max_size=55,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames, st.integers(0, 60))
def test_any_frames_are_judged_within_their_length(some: list[EchoFrame], count_from: int) -> None:
    found = find(some, count_from)
    most = 20 * max(0, len(some) - count_from)
    assert 0 <= found.clear_ms <= found.voiced_ms <= most
    assert found.voiced_ms + found.tone_ms <= found.rest_ms + 20
    assert 0 <= found.echo_share <= 1


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames)
def test_a_louder_rest_is_never_less_voice(some: list[EchoFrame]) -> None:
    alone = [f._replace(echo=0.0, tone=0.0, near=max(f.rest, 1.0)) for f in some]
    louder = [f._replace(rest=2 * f.rest, near=2 * f.near) for f in alone]
    assert find([*START, *louder], 10).voiced_ms >= find([*START, *alone], 10).voiced_ms
