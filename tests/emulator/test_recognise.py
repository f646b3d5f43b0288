from __future__ import annotations

import random
from array import array

import pytest
import trio

from voiced import audio, clips
from voiced.emulator.recognise import (
    SIMILAR,
    SIMILAR_WITHOUT_GAPS,
    Ear,
    likeness,
    likeness_without_gaps,
    recognise,
)
from voiced.formats import PCM16_8K, PCM16_24K, PCMU_8K, AudioFormat

CALLERS = clips.names("caller")


def through(pcm: bytes, fmt: AudioFormat) -> bytes:
    there, back = audio.converter(PCM16_8K, fmt), audio.converter(fmt, PCM16_8K)
    assert there is not None
    assert back is not None
    coded = there.convert(pcm) + there.flush()
    return bytes(back.convert(coded) + back.flush())


def padded(pcm: bytes, offset: int = 77) -> bytes:
    return bytes(2 * (2400 + offset)) + pcm + bytes(8000)


def scaled(pcm: bytes, gain: float) -> bytes:
    return array("h", (max(-32768, min(32767, round(s * gain))) for s in array("h", pcm))).tobytes()


def noisy(pcm: bytes, dbfs: float) -> bytes:
    draw, sigma = random.Random(3), 32768 * 10 ** (dbfs / 20)
    return array(
        "h", (max(-32768, min(32767, round(s + draw.gauss(0, sigma)))) for s in array("h", pcm))
    ).tobytes()


def lossy(pcm: bytes, share: float) -> bytes:
    draw = random.Random(4)
    return b"".join(
        bytes(320) if draw.random() < share else pcm[i : i + 320] for i in range(0, len(pcm), 320)
    )


def halting(pcm: bytes, seed: int, gaps: int) -> bytes:
    """What a sender makes of it that is kept from its processor now and then."""
    draw = random.Random(seed)
    for _ in range(gaps):
        at = 320 * draw.randrange(len(pcm) // 320)
        pcm = pcm[:at] + bytes(320 * draw.randint(3, 10)) + pcm[at:]
    return pcm


@pytest.mark.parametrize("name", CALLERS)
async def test_a_line_is_known_however_the_line_sounds(name: str) -> None:
    pcm = clips.load(name).pcm
    assert await recognise(pcm) == name
    for heard in (
        through(padded(pcm), PCMU_8K),
        through(padded(pcm, 40), PCM16_24K),
        through(scaled(padded(pcm), 0.1), PCMU_8K),
        scaled(padded(pcm), 3.0),  # clipped
        through(noisy(padded(pcm), -45), PCMU_8K),
        through(lossy(padded(pcm), 0.05), PCMU_8K),
    ):
        assert await recognise(heard) == name


@pytest.mark.parametrize("name", CALLERS)
async def test_a_line_is_known_where_the_sender_halts(name: str) -> None:
    pcm = clips.load(name).pcm
    for gaps in (1, 2, 4):
        for seed in range(5):
            assert await recognise(through(padded(halting(pcm, seed, gaps)), PCMU_8K)) == name
    middle = len(pcm) // 640 * 320
    assert await recognise(pcm[:middle] + bytes(320 * 20) + pcm[middle:]) == name


async def test_other_speech_is_only_speech() -> None:
    for clip in (*clips.all_clips("agent"), *clips.all_clips("prompt")):
        assert await recognise(clip.pcm) is None, clip.name
    whole = clips.load("appointment").pcm
    assert await recognise(whole[: len(whole) // 2]) is None
    backwards = array("h", whole)
    backwards.reverse()
    assert await recognise(backwards.tobytes()) is None


@pytest.mark.parametrize("pcm", [b"", b"\0", bytes(320), bytes(32000), b"\1\0" * 40000])
async def test_silence_and_scraps_are_nothing(pcm: bytes) -> None:
    assert await recognise(pcm) is None


def test_lines_are_far_apart() -> None:
    known = []
    for clip in clips.all_clips("caller"):
        ear = Ear()
        ear.feed(clip.pcm)
        known.append(ear.envelope())
    worst = max(likeness(a, b) for a in known for b in known if a is not b)
    assert worst < SIMILAR - 0.1
    worst = max(likeness_without_gaps(a, b) for a in known for b in known if a is not b)
    assert worst < SIMILAR_WITHOUT_GAPS - 0.04


async def test_others_have_their_turn_meanwhile() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await recognise(clips.load("appointment").pcm)
        nursery.cancel_scope.cancel()
    assert turns >= 5


async def test_nothing_is_analysed_for_minutes() -> None:
    assert await recognise(clips.load("hello").pcm * 20) is None
