"""Greetings that are kept: found again, made anew where something differs, bounded, never torn."""

from __future__ import annotations

import datetime
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog.testing
import trio
from hypothesis import given
from hypothesis import strategies as st
from voiced_plugins import greeting_cache
from voiced_plugins.greeting_cache import (
    GreetingCache,
    GreetingCacheSettings,
    Greetings,
    key_of,
    trimmed,
)

from tests.plugins.standin import StandInCall
from tests.plugins.test_recorder import StandInHost
from voiced.plugin import (
    PCM16_8K,
    PCM16_24K,
    Audio,
    AudioFormat,
    Encoding,
    Greeting,
    PluginError,
    convert,
    wav_header,
)

PCMU = AudioFormat(Encoding.PCMU, 8000)


def tone(ms: int, form: AudioFormat = PCM16_24K, before_ms: int = 0, after_ms: int = 0) -> bytes:
    wide = AudioFormat(Encoding.PCM16, form.rate)
    time = np.arange(form.rate * ms // 1000) / form.rate
    sound = (8000 * np.sin(2 * np.pi * 500 * time)).astype("<i2").tobytes()
    return convert(wide.silence(before_ms) + sound + wide.silence(after_ms), wide, form)


def audio(ms: int = 1000, text: str = "Guten Tag, was kann ich für Sie tun? 山田") -> Audio:
    return Audio(tone(ms), PCM16_24K, text)


class Stage:
    """A service, and calls that it greets."""

    def __init__(self, nursery: trio.Nursery, state_dir: Path, **settings: Any) -> None:
        self._nursery = nursery
        self.config = msgspec.convert(settings, GreetingCacheSettings, dec_hook=lambda t, v: t(v))
        self.service = Greetings(self.config, StandInHost(state_dir, "greeting_cache"))

    def call(self, **shaping: str) -> GreetingCache:
        call = StandInCall(self._nursery)
        call.shaping = {"voice": "marin"} | shaping
        return GreetingCache(call, self.config, self.service)


@pytest.fixture
async def stage(tmp_path: Path, nursery: trio.Nursery) -> Stage:
    return await staged(nursery, tmp_path)


async def staged(nursery: trio.Nursery, state_dir: Path, **settings: Any) -> Stage:
    stage = Stage(nursery, state_dir, **settings)
    await stage.service.open()
    return stage


def name_of(voice: str) -> str:
    return key_of({"voice": voice, "format": "8000"})


async def greets(plugin: GreetingCache) -> Audio | None:
    greeting = await plugin.greeting(Greeting(("hello",)))
    if greeting is None:
        return None
    assert greeting.before == ("hello",)
    assert plugin.call.facts == {"greeting_cached": True}  # type: ignore[attr-defined]
    assert greeting.audio is not None
    assert greeting.audio.format == plugin.call.format
    await plugin.on_media()
    return greeting.audio


async def test_second_caller_hears_what_the_model_said_to_the_first(stage: Stage) -> None:
    first = stage.call()
    assert await greets(first) is None
    await first.on_greeting_made(audio())
    heard = await greets(stage.call())
    assert heard is not None
    assert heard.text == audio().text
    assert heard.format == PCMU  # as the call speaks: nothing is converted in the way of media
    assert len(heard.payload) == pytest.approx(8 * 1000, abs=200)


async def test_it_outlives_the_daemon(stage: Stage, nursery: trio.Nursery, tmp_path: Path) -> None:
    await stage.call().on_greeting_made(audio())
    before = await greets(stage.call())
    later = await staged(nursery, tmp_path)
    assert len(later.service._ready) == 1  # read before the first call
    assert await greets(later.call()) == before


async def test_another_daemon_has_made_it_meanwhile(
    stage: Stage, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """As `voiced greeting make` does."""
    other = await staged(nursery, tmp_path)
    await other.call().on_greeting_made(audio())
    assert await greets(stage.call()) is not None


@given(
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=4),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=4),
)
def test_a_key_is_all_that_shapes(first: Mapping[str, str], second: Mapping[str, str]) -> None:
    assert (key_of(first) == key_of(second)) == (first == second)
    assert key_of(first) == key_of(dict(reversed(list(first.items()))))


async def test_another_voice_is_another_greeting(stage: Stage) -> None:
    await stage.call().on_greeting_made(audio())
    assert await greets(stage.call(voice="cedar")) is None
    assert await greets(stage.call(instructions="x")) is None


async def test_another_encoding_is_not(stage: Stage) -> None:
    await stage.call().on_greeting_made(audio())
    german = stage.call()
    german.call.format = AudioFormat(Encoding.PCMA, 8000)  # type: ignore[misc]
    heard = await greets(german)
    assert heard is not None
    assert heard.text == audio().text


async def test_another_rate_is(nursery: trio.Nursery, stage: Stage) -> None:
    await stage.call().on_greeting_made(audio())
    call = StandInCall(nursery)
    call.shaping, call.format = {"voice": "marin"}, PCM16_24K
    assert await greets(GreetingCache(call, stage.config, stage.service)) is None


async def test_what_the_fallback_engine_said_is_not_kept(stage: Stage) -> None:
    plugin = stage.call()
    plugin.call.engine = "spare"  # type: ignore[misc]
    await plugin.on_greeting_made(audio())
    assert await greets(stage.call()) is None


async def test_what_another_plugin_supplies_stays(stage: Stage) -> None:
    await stage.call().on_greeting_made(audio())
    assert await stage.call().greeting(Greeting(audio=audio(200))) is None


async def test_two_first_calls_at_once(stage: Stage) -> None:
    """Both are made, one is kept; whichever it is, it is whole."""
    made = [audio(500 + 10 * each, f"number {each}") for each in range(8)]
    async with trio.open_nursery() as nursery:
        for each in made:
            nursery.start_soon(stage.call().on_greeting_made, each)
    heard = await greets(stage.call())
    assert heard is not None
    each = next(each for each in made if each.text == heard.text)
    assert len(heard.payload) == pytest.approx(len(each.payload) / 6, abs=200)
    stage.service._ready.clear()
    on_disk = await greets(stage.call())
    assert on_disk in [
        trimmed(Audio(convert(m.payload, m.format, PCMU), PCMU, m.text)) for m in made
    ]
    assert [path.suffix for path in stage.service.folder.iterdir()] == [".wav"]


@pytest.mark.parametrize("keep", [0, 11, 50, 200, -1])
async def test_a_file_that_is_not_whole_is_a_miss(
    stage: Stage, nursery: trio.Nursery, tmp_path: Path, keep: int
) -> None:
    await stage.call().on_greeting_made(audio())
    (path,) = tmp_path.glob("*.wav")
    path.write_bytes(path.read_bytes()[:keep])
    later = await staged(nursery, tmp_path)
    with structlog.testing.capture_logs() as logs:
        assert await greets(later.call()) is None
    assert [line["log_level"] for line in logs] == ["warning"]
    await later.call().on_greeting_made(audio())
    again = await staged(nursery, tmp_path)
    assert await greets(again.call()) is not None


@given(st.binary(max_size=200), st.integers(0, 120))
def test_no_content_of_a_file_hurts(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, place: int
) -> None:
    """Random bytes, put over a good header."""
    good = wav_header(PCMU, 1, 80, {"ICRD": "2024-01-01T00:00:00+00:00", "ICMT": "text"}) + bytes(
        80
    )
    changed = good[:place] + content + good[place + len(content) :]
    host = StandInHost(Path())
    service = Greetings(GreetingCacheSettings(), host)
    path = tmp_path_factory.getbasetemp() / "changed.wav"
    path.write_bytes(changed)
    read = service._read(path)
    if read is not None:
        assert struct.unpack_from("<I", changed, 4)[0] + 8 == len(changed)
        assert isinstance(read[0].text, str)


async def test_the_one_that_was_used_longest_ago_goes(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    stage = await staged(nursery, tmp_path, max_greetings=3)
    for place, voice in enumerate("abc"):
        await stage.call(voice=voice).on_greeting_made(audio())
        os.utime(stage.service._path(name_of(voice)), (1000 + place,) * 2)
    assert await greets(stage.call(voice="a")) is not None  # and is the newest now
    await stage.call(voice="d").on_greeting_made(audio())
    left = {path.stem for path in tmp_path.glob("*.wav")}
    assert left == {name_of(voice) for voice in "acd"}


async def test_no_more_bytes_than_allowed(nursery: trio.Nursery, tmp_path: Path) -> None:
    stage = await staged(nursery, tmp_path, max_mb=1)
    (tmp_path / "mine.wav").write_bytes(bytes(2 * 2**20))  # nobody's business
    for voice in range(10):
        await stage.call(voice=str(voice)).on_greeting_made(audio(29_000))
    sizes = [path.stat().st_size for path in tmp_path.glob(f"{'?' * 64}.wav")]
    assert len(sizes) == 4
    assert sum(sizes) <= 2**20
    assert (tmp_path / "mine.wav").exists()


async def test_memory_is_bounded_and_the_disk_has_the_rest(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeting_cache, "MEMORY_BYTES", 20_000)
    for voice in range(5):
        await stage.call(voice=str(voice)).on_greeting_made(audio())
    assert len(stage.service._ready) == 2
    for voice in range(5):
        assert await greets(stage.call(voice=str(voice))) is not None
    assert stage.service._size == sum(
        len(each.payload) for each, _ in stage.service._ready.values()
    )


async def test_an_old_greeting_is_made_anew(nursery: trio.Nursery, tmp_path: Path) -> None:
    stage = await staged(nursery, tmp_path, keep_days=7)
    await stage.call().on_greeting_made(audio())
    key = name_of("marin")
    sound, made = stage.service._ready[key]
    stage.service._ready[key] = sound, made - datetime.timedelta(days=8)
    assert await greets(stage.call()) is None
    await stage.call().on_greeting_made(audio(500))
    heard = await greets(stage.call())
    assert heard is not None
    assert len(heard.payload) < 8 * 800


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (audio(31_000), "too long"),
        (Audio(bytes(48_000), PCM16_24K, "text"), "silent"),
        (Audio(tone(500), PCM16_24K, ""), "words"),
    ],
)
async def test_what_is_no_greeting_is_not_kept(stage: Stage, made: Audio, says: str) -> None:
    with structlog.testing.capture_logs() as logs:
        await stage.call().on_greeting_made(made)
    assert says in logs[0]["event"]
    assert await greets(stage.call()) is None


async def test_exact_words_need_no_transcript(stage: Stage) -> None:
    words = {"greeting_text": "Guten Tag."}
    await stage.call(**words).on_greeting_made(Audio(tone(500), PCM16_24K, ""))
    heard = await greets(stage.call(**words))
    assert heard is not None
    assert heard.text == "Guten Tag."


def test_the_wait_before_the_first_word_is_left_out() -> None:
    cut = trimmed(Audio(tone(500, PCM16_8K, before_ms=400, after_ms=900), PCM16_8K, "x"))
    assert cut is not None
    assert len(cut.payload) / 16 == pytest.approx(20 + 500 + 200, abs=10)
    loud = np.flatnonzero(np.abs(np.frombuffer(cut.payload, "<i2")) > 100)
    assert loud[0] / 8 == pytest.approx(20, abs=10)
    short = Audio(tone(500, PCM16_8K), PCM16_8K, "x")
    assert trimmed(short) == short


async def test_a_disk_that_is_full_costs_the_next_start_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with structlog.testing.capture_logs() as logs:
        await stage.call().on_greeting_made(audio())
    assert [line["log_level"] for line in logs] == ["error"]
    assert await greets(stage.call()) is not None
    assert not list(stage.service.folder.iterdir())


async def test_what_a_crash_left_is_removed(nursery: trio.Nursery, tmp_path: Path) -> None:
    old, new = tmp_path / f".{'0' * 64}.tmp", tmp_path / f".{'1' * 64}.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    await staged(nursery, tmp_path)
    assert list(tmp_path.iterdir()) == [new]  # another daemon may be writing it


async def test_a_folder_that_cannot_be_is_said_at_start(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match="folder: /proc/nowhere"):
        await staged(nursery, tmp_path, folder="/proc/nowhere")
