from __future__ import annotations

import math
import random
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiced.vad import Vad, VadEvent, VadStarted, VadStopped


def noise(ms: int, dbfs: float, *, seed: int = 1, rate: int = 8000) -> bytes:
    draw = random.Random(seed)
    sigma = 32768 * 10 ** (dbfs / 20)
    return array(
        "h",
        (max(-32768, min(32767, round(draw.gauss(0, sigma)))) for _ in range(ms * rate // 1000)),
    ).tobytes()


def words(ms: int, dbfs: float, *, gaps_dbfs: float = -90, seed: int = 2) -> bytes:
    """Noise in syllables of 160 ms with gaps of 60 ms, as speech has."""
    out = b""
    while len(out) < ms * 16:
        out += noise(160, dbfs, seed=seed + len(out)) + noise(60, gaps_dbfs, seed=seed)
    return out[: ms * 16]


def test_speech_between_silences_with_padding_and_silence() -> None:
    events = Vad().feed(bytes(1000 * 16) + noise(400, -20) + bytes(2000 * 16))
    assert events == [VadStarted(700), VadStopped(1000 + 400 + 500)]


def test_speech_from_the_first_sample_is_heard_and_padding_ends_at_zero() -> None:
    assert Vad().feed(noise(400, -20) + bytes(1000 * 16)) == [VadStarted(0), VadStopped(900)]


@pytest.mark.parametrize("ms", [1, 20, 40])
def test_clicks_do_not_start_speech(ms: int) -> None:
    assert Vad().feed(bytes(1000 * 16) + noise(ms, -6) + bytes(1000 * 16)) == []


def test_clicks_do_not_prolong_speech() -> None:
    tail = bytes(200 * 16) + noise(20, -6) + bytes(1000 * 16)
    assert Vad().feed(noise(400, -20) + tail) == [VadStarted(0), VadStopped(920)]


def test_a_pause_within_speech_shorter_than_silence_ms_does_not_end_it() -> None:
    audio = noise(400, -20) + bytes(480 * 16) + noise(400, -20) + bytes(1000 * 16)
    assert Vad().feed(audio) == [VadStarted(0), VadStopped(400 + 480 + 400 + 500)]


def test_padding_does_not_reach_into_the_speech_before() -> None:
    vad = Vad(silence_ms=100, prefix_padding_ms=800)
    audio = noise(200, -20) + bytes(400 * 16) + noise(200, -20) + bytes(400 * 16)
    assert vad.feed(audio) == [VadStarted(0), VadStopped(300), VadStarted(300), VadStopped(900)]


def test_steady_noise_is_learnt_and_speech_above_it_still_heard() -> None:
    vad = Vad()
    vad.feed(noise(3000, -38))
    assert not vad.speaking
    assert vad.feed(noise(5000, -38, seed=9)) == []
    assert [type(e) for e in vad.feed(words(1500, -15, gaps_dbfs=-38) + noise(1500, -38))] == [
        VadStarted,
        VadStopped,
    ]


def test_long_speech_is_one_piece() -> None:
    events = Vad().feed(words(20_000, -20) + bytes(1000 * 16))
    assert [type(e) for e in events] == [VadStarted, VadStopped]


@pytest.mark.parametrize(("dbfs", "heard"), [(-26, True), (-38, False)])
def test_threshold_decides_what_is_loud_enough(dbfs: float, heard: bool) -> None:
    assert bool(Vad(threshold=0.9).feed(noise(300, dbfs))) is heard
    assert Vad(threshold=0.3).feed(noise(300, dbfs))


def test_rates_agree() -> None:
    eight = noise(400, -20)
    triple = array("h", (s for s in array("h", eight) for _ in range(3))).tobytes()
    silence = 900 * 16
    assert Vad().feed(eight + bytes(silence)) == Vad(rate=24000).feed(triple + bytes(silence * 3))


def test_reset_forgets_the_speech_but_not_the_position() -> None:
    vad = Vad()
    vad.feed(noise(400, -20))
    vad.reset()
    assert (vad.speaking, vad.position_ms) == (False, 400)
    assert vad.feed(bytes(1000 * 16) + noise(400, -20)) == [VadStarted(1100)]


def test_configure_applies_from_the_next_frame() -> None:
    vad = Vad()
    vad.feed(noise(400, -20))
    vad.configure(threshold=0.5, prefix_padding_ms=0, silence_ms=1500)
    assert vad.feed(bytes(2000 * 16)) == [VadStopped(1900)]


@pytest.mark.parametrize(
    "bad",
    [{"rate": 11025}, {"threshold": 1.1}, {"silence_ms": -1}, {"prefix_padding_ms": -1}],
)
def test_impossible_settings_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        Vad(**bad)


segments = st.lists(
    st.tuples(st.integers(1, 600), st.sampled_from([-90, -60, -45, -40, -33, -25, -12])),
    min_size=1,
    max_size=12,
)


def audio_of(parts: list[tuple[int, int]]) -> bytes:
    return b"".join(noise(ms, dbfs, seed=i) for i, (ms, dbfs) in enumerate(parts))


@settings(max_examples=40, deadline=None)
@given(segments, st.lists(st.integers(1, 3000), max_size=20))
def test_events_do_not_depend_on_how_the_audio_is_cut(
    parts: list[tuple[int, int]], cuts: list[int]
) -> None:
    audio = audio_of(parts)
    whole = Vad().feed(audio)
    vad, pieces, at = Vad(), list[VadEvent](), 0
    for cut in cuts:
        pieces += vad.feed(audio[at : at + cut])
        at += cut
    assert pieces + vad.feed(audio[at:]) == whole


@settings(max_examples=40, deadline=None)
@given(segments, st.floats(0, 1), st.integers(0, 900), st.integers(0, 900))
def test_events_alternate_and_never_go_back(
    parts: list[tuple[int, int]], threshold: float, prefix: int, silence: int
) -> None:
    audio = audio_of(parts)
    events = Vad(threshold=threshold, prefix_padding_ms=prefix, silence_ms=silence).feed(audio)
    assert all(isinstance(e, VadStarted) for e in events[::2])
    assert all(isinstance(e, VadStopped) for e in events[1::2])
    times = [e.at_ms for e in events]
    assert times == sorted(times)
    assert all(0 <= t <= len(audio) // 16 for t in times)


@settings(max_examples=40, deadline=None)
@given(segments, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_hears_speech_earlier(
    parts: list[tuple[int, int]], one: float, other: float
) -> None:
    low, high = sorted((one, other))

    def first(threshold: float) -> float:
        events = Vad(threshold=threshold, prefix_padding_ms=0).feed(audio_of(parts))
        return events[0].at_ms if events else math.inf

    assert first(low) <= first(high)
