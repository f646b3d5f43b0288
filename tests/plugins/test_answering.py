"""Beeps and the ends of announcements, on bundled speech and on tones with noise and mu-law."""

from __future__ import annotations

import math
import random
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from voiced_plugins._answering import Announcement, Beep

from voiced import clips
from voiced.audio import pcm_to_ulaw, ulaw_to_pcm

RATE = 8000
CHANCE = random.Random(7)
NOISE = [CHANCE.gauss(0, 1) for _ in range(7919)]
SPEECH = [name for name in clips.names() if clips.load(name).duration_ms > 700]


def tone(hz: float, ms: int, dbfs: float = -12.0, phase: float = 0.0) -> list[float]:
    level = 32767 * 10 ** (dbfs / 20)
    return [level * math.sin(math.tau * hz * n / RATE + phase) for n in range(RATE * ms // 1000)]


def silence(ms: int) -> list[float]:
    return [0.0] * (RATE * ms // 1000)


def line(samples: list[float], noise_dbfs: float = -60.0) -> bytes:
    """What the telephone makes of it: noise, and G.711."""
    chance = random.Random(7)
    level = 32767 * 10 ** (noise_dbfs / 20)
    noisy = [max(-32768, min(32767, round(sample + chance.gauss(0, level)))) for sample in samples]
    return ulaw_to_pcm(pcm_to_ulaw(struct.pack(f"<{len(noisy)}h", *noisy)))


def spoken(name: str) -> list[float]:
    pcm = clips.load(name).pcm
    return [float(sample) for sample in struct.unpack(f"<{len(pcm) // 2}h", pcm)]


def ends_at(beep: Beep, pcm: bytes, step: int = 320) -> list[int]:
    """When beeps ended, in ms, fed in pieces of `step` bytes."""
    return [
        (at + step) * 1000 // (2 * RATE)
        for at in range(0, len(pcm), step)
        if beep.feed(pcm[at : at + step])
    ]


@pytest.mark.parametrize("hz", [400, 850, 1000, 2000])
@pytest.mark.parametrize("dbfs", [-6, -20, -30])
@pytest.mark.parametrize("ms", [200, 500, 1500])
def test_a_beep_is_heard_when_it_ends(hz: int, dbfs: int, ms: int) -> None:
    pcm = line([*silence(300), *tone(hz, ms, dbfs), *silence(500)])
    (found,) = ends_at(Beep(RATE), pcm)
    assert 300 + ms <= found <= 300 + ms + 60


def test_a_beep_is_heard_through_noise() -> None:
    pcm = line([*silence(300), *tone(1000, 400, -12), *silence(500)], noise_dbfs=-40)
    assert len(ends_at(Beep(RATE), pcm)) == 1


@pytest.mark.parametrize("name", SPEECH)
def test_speech_is_no_beep(name: str) -> None:
    assert ends_at(Beep(RATE), line(spoken(name))) == []


@pytest.mark.parametrize("name", SPEECH[:4])
def test_a_beep_after_speech_is_one(name: str) -> None:
    said = [*spoken(name), *silence(400)]
    pcm = line([*said, *tone(1400, 300, -15), *silence(600)])
    (found,) = ends_at(Beep(RATE), pcm)
    assert 0 <= found - (len(said) * 1000 // RATE + 300) <= 60


def test_what_never_ends_is_no_beep() -> None:
    assert ends_at(Beep(RATE), line([*tone(440, 4000), *silence(500)])) == []


@settings(max_examples=30, deadline=None)
@given(
    st.floats(400, 2100),
    st.floats(-30, -3),
    st.integers(180, 2500),
    st.floats(0, math.tau),
    st.integers(100, 400),
    st.integers(20, 700).map(lambda n: 2 * n),
)
@example(821.7109375, -3.0, 180, 5.2109375, 185, 40)  # its first frame has another pitch
def test_any_beep_is_found_however_it_comes(
    hz: float, dbfs: float, ms: int, phase: float, before: int, step: int
) -> None:
    pcm = line([*silence(before), *tone(hz, ms, dbfs, phase), *silence(300)])
    assert len(ends_at(Beep(RATE), pcm, step)) == 1


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=4000).map(lambda data: data[: len(data) // 2 * 2]))
def test_any_bytes_are_taken(data: bytes) -> None:
    Beep(RATE).feed(data)
    Announcement(RATE, 1000).feed(data)


def verdicts(pcm: bytes, silence_ms: int = 2000) -> list[tuple[int, str]]:
    announcement = Announcement(RATE, silence_ms)
    return [
        ((at + 320) * 1000 // (2 * RATE), verdict)
        for at in range(0, len(pcm), 320)
        if (verdict := announcement.feed(pcm[at : at + 320])) is not None
    ]


def test_an_announcement_ends_with_its_beep() -> None:
    pcm = line([*silence(500), *spoken("opening_hours"), *silence(800), *tone(1000, 400)])
    end = len(pcm) * 1000 // (2 * RATE)
    found = verdicts(pcm + line(silence(3000)))
    assert found[0][1] == "beep"
    assert end <= found[0][0] <= end + 60


def test_an_announcement_without_a_beep_ends_with_silence() -> None:
    pcm = line([*silence(500), *spoken("opening_hours")])
    end = len(pcm) * 1000 // (2 * RATE)
    ((found, verdict),) = verdicts(pcm + line(silence(4000)))
    assert verdict == "silence"
    assert end + 1500 <= found <= end + 2200


def test_silence_alone_is_no_announcement() -> None:
    assert verdicts(line(silence(5000))) == []
