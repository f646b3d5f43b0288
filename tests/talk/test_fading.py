"""What goes on in the midst of a sound rises from silence; all else is as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from voiced import clips
from voiced.audio import convert
from voiced.formats import PCM16_8K, PCM16_16K, PCMA_8K, PCMU_8K, AudioFormat, Encoding
from voiced.playout import Playout
from voiced.talk.fading import FADE_MS, fade_in, fade_samples
from voiced.talk.speaker import Speaker
from voiced.testing.leg import FakeLeg

FORMATS = [PCMU_8K, PCMA_8K, PCM16_8K, PCM16_16K]
SPOKEN = clips.load("opening_hours").pcm[: 2 * 8000 * 3]
TICK = 0.01

formats = pytest.mark.parametrize("form", FORMATS, ids=str)


def linear(sound: bytes, form: AudioFormat) -> list[int]:
    pcm = convert(sound, form, AudioFormat(Encoding.PCM16, form.rate))
    return [int(sample) for sample in np.frombuffer(pcm, "<i2")]


@given(st.sampled_from(FORMATS), st.lists(st.integers(-32768, 32767), max_size=200))
def test_what_rises_is_as_long_and_no_louder(form: AudioFormat, samples: list[int]) -> None:
    pcm = np.array(samples, "<i2").tobytes()
    sound = convert(pcm, AudioFormat(Encoding.PCM16, form.rate), form)
    faded = fade_in(sound, form)
    size = form.bytes_per_ms * FADE_MS
    assert len(faded) == len(sound)
    assert faded[size:] == sound[size:]
    was, now = linear(sound, form), linear(faded, form)
    for n, (before, after) in enumerate(zip(was, now, strict=True)):
        expected = before * min(1, (n + 1) / (fade_samples(form) + 1))
        # A-law has no zero, and the steps of both laws are a sixteenth of the level at most.
        assert abs(after - expected) <= 16 + abs(expected) / 16
        assert abs(after) <= max(abs(before), 8)


@given(
    st.sampled_from(FORMATS),
    st.lists(st.integers(1, 30), min_size=1, max_size=12),
)
def test_it_may_come_in_pieces(form: AudioFormat, sizes: list[int]) -> None:
    sound = convert(SPOKEN[16_000:17_000], PCM16_8K, form)
    pieces, at, risen = b"", 0, 0
    for size in sizes:
        piece = sound[at : at + size * form.sample_bytes]
        pieces += fade_in(piece, form, risen)
        at, risen = at + len(piece), risen + len(piece) // form.sample_bytes
    assert pieces == fade_in(sound, form)[:at]


class Nobody:
    """Hears of everything and does nothing (`voiced.talk.speaker.Listener`)."""

    def audio_started(self, item_id: str, in_s: float) -> None: ...

    def turn_over(self) -> None: ...

    def ran_dry(self) -> None: ...


@asynccontextmanager
async def speaking(form: AudioFormat, sound: bytes) -> AsyncIterator[tuple[Speaker, Sounded]]:
    leg = Sounded(form)
    playout = Playout(form.bytes_per_ms)
    playout.add("a", sound)
    playout.finish("a")
    speaker = Speaker(playout, leg, 0, Nobody())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(speaker.run)
        yield speaker, leg
        nursery.cancel_scope.cancel()


class Sounded(FakeLeg):
    """Knows what was heard, and where it was stopped."""

    def __init__(self, form: AudioFormat) -> None:
        super().__init__(form)
        self.sound = b""
        self.stops: list[int] = []

    def send(self, payload: bytes) -> None:
        super().send(payload)
        self.sound += payload

    def clear(self) -> int:
        unheard = self.sent() - self.heard()
        self.sound = self.sound[: len(self.sound) - unheard]
        self.stops.append(len(self.sound))
        return super().clear()


def largest_step(samples: list[int]) -> int:
    return max(abs(b - a) for a, b in pairwise(samples))


@formats
@pytest.mark.parametrize("after_ms", range(600, 2400, 150))
async def test_a_resumption_does_not_click(
    autojump_clock: object, form: AudioFormat, after_ms: int
) -> None:
    sound = convert(SPOKEN, PCM16_8K, form)
    async with speaking(form, sound) as (speaker, leg):
        await trio.sleep(after_ms / 1000)
        speaker.pause()
        await trio.sleep(0.5)
        speaker.resume()
        await trio.sleep(5)
    (stop,) = leg.stops
    size = FADE_MS * form.bytes_per_ms
    assert len(leg.sound) == len(sound)
    assert leg.sound[:stop] == sound[:stop]
    assert leg.sound[stop + size :] == sound[stop + size :]
    # From the silence of the pause: no larger step than there is in the voice about it.
    wide = 4 * size
    around = linear(sound[stop - wide : stop + wide], form)
    heard = linear(form.silence(1) + leg.sound[stop : stop + wide], form)
    assert largest_step(heard) <= 1.2 * largest_step(around) + 16


@formats
async def test_what_was_not_begun_begins_as_it_is(
    autojump_clock: object, form: AudioFormat
) -> None:
    """Paused before its first sample: nothing is torn."""
    sound = convert(SPOKEN[16_000:], PCM16_8K, form)
    async with speaking(form, sound) as (speaker, leg):
        speaker.pause()
        await trio.sleep(0.5)
        speaker.resume()
        await trio.sleep(5)
    assert leg.sound == sound


async def test_each_resumption_rises_and_an_interruption_ends_it(autojump_clock: object) -> None:
    sound = convert(SPOKEN, PCM16_8K, PCMU_8K)
    async with speaking(PCMU_8K, sound) as (speaker, leg):
        for _ in range(3):
            await trio.sleep(0.7)
            speaker.pause()
            await trio.sleep(0.1)
            speaker.resume()
        await trio.sleep(0.3)
        speaker.pause()
        speaker.interrupt()
        speaker.resume()
    rises = {at for stop in leg.stops for at in range(stop, stop + 40)}
    differ = {at for at, code in enumerate(leg.sound) if code != sound[at]}
    assert differ <= rises
    for stop in leg.stops[:3]:
        assert differ & set(range(stop, stop + 40))
