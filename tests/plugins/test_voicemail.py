"""Messages taken and left, on real calls."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from voiced_plugins import _message
from voiced_plugins._message import Message, clean_up
from voiced_plugins.voicemail import Voicemail, VoicemailSettings, beep_tone

from tests.plugins.sounds import a_wav
from voiced import clips
from voiced.audio import convert, energy, pcm_to_ulaw
from voiced.config.types import Agent
from voiced.formats import PCM16_8K, PCM16_16K, PCMU_8K, AudioFormat
from voiced.leg import CallFacts
from voiced.testing import Scene, call_with, virtual_time
from voiced.testing import clock as scene_clock
from voiced.wav import parse, read

SPEECH = pcm_to_ulaw(clips.load("hours").pcm)
SPEECH_MS = len(SPEECH) // 8
BEEP = convert(beep_tone().payload, PCM16_8K, PCMU_8K)
OUTBOUND = CallFacts("00000000000000b2", "twilio", "CA2", "+15550199", "+15550100", "outbound")


async def speak(scene: Scene, audio: bytes = SPEECH) -> None:
    form = scene.leg.format
    if form != PCMU_8K:
        audio = convert(audio, PCMU_8K, form)
    step = 100 * form.bytes_per_ms
    for at in range(0, len(audio), step):
        piece = audio[at : at + step]
        scene.leg.say(piece)
        await trio.sleep(len(piece) / form.bytes_per_ms / 1000)


async def be_quiet(scene: Scene, ms: int) -> None:
    await speak(scene, PCMU_8K.silence(ms))


def heard_nothing(scene: Scene) -> bool:
    """The model's time goes on while a plugin has the call, in silence."""
    heard, form = bytes(scene.model.heard), scene.leg.format
    return heard == form.silence(len(heard) // form.bytes_per_ms)


def messages(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.wav"))


@pytest.mark.parametrize("form", [PCMU_8K, PCM16_16K], ids=str)
@virtual_time
async def test_a_message_is_taken_after_announcement_and_beep(
    tmp_path: Path, form: AudioFormat
) -> None:
    folder = tmp_path / "messages"
    settings = {
        "always": True,
        "announcement": a_wav(tmp_path, "announcement.wav", 1500),
        "goodbye": a_wav(tmp_path, "goodbye.wav", 700),
        "folder": str(folder),
    }
    agent = Agent(greeting="Greet them.", silence_prompt_s=1, silence_hangup_s=2)
    async with call_with(Voicemail, settings, agent=agent, form=form) as call:
        await be_quiet(call, 2200)  # announcement, beep
        assert messages(folder) == []
        await speak(call)
        await be_quiet(call, 6000)
        summary = await call.ended()
        assert call.asked == []  # the model neither greeted nor answered
        assert heard_nothing(call)
        played = len(call.played) / form.bytes_per_ms
    assert summary.reason == "voicemail"
    (path,) = messages(folder)
    assert summary.facts["voicemail_file"] == str(path)
    kept = read(path)
    assert kept.format == PCM16_8K
    assert summary.facts["voicemail_ms"] == kept.duration_ms
    assert SPEECH_MS + 4000 <= kept.duration_ms <= SPEECH_MS + 4800
    assert energy(kept.data) > 0.2 * energy(clips.load("hours").pcm)
    assert played == pytest.approx(20 + 1500 + 400 + 700, abs=25)


@virtual_time
async def test_a_caller_who_hangs_up_leaves_what_was_said(tmp_path: Path) -> None:
    async with call_with(Voicemail, {"always": True, "folder": str(tmp_path)}) as call:
        await be_quiet(call, 600)
        await speak(call)
        await call.hang_up()
    (path,) = messages(tmp_path)
    assert call.summary.facts["voicemail_file"] == str(path)
    assert read(path).duration_ms == pytest.approx(SPEECH_MS, abs=300)


@virtual_time
async def test_a_message_that_is_asked_for_twice_is_taken_once(tmp_path: Path) -> None:
    """By the model and by a key, say."""
    async with call_with(Voicemail, {"folder": str(tmp_path), "beep": False}) as call:
        await call.model_calls("take_message")
        await be_quiet(call, 200)
        await speak(call)
        await call.call.toolbox.run("take_message", {})
        await be_quiet(call, 200)
        await speak(call)
        await call.hang_up()
    (path,) = messages(tmp_path)
    assert call.summary.facts["voicemail_ms"] == read(path).duration_ms
    assert read(path).duration_ms >= 2 * SPEECH_MS


@virtual_time
async def test_a_key_ends_a_message_and_others_do_nothing(tmp_path: Path) -> None:
    async with call_with(Voicemail, {"always": True, "folder": str(tmp_path)}) as call:
        await be_quiet(call, 600)
        await speak(call)
        await call.press("5")
        assert call.state != "ended"
        await call.press("#")
        summary = await call.ended()
        assert call.told == []
    assert summary.reason == "voicemail"
    assert len(messages(tmp_path)) == 1


@virtual_time
async def test_silence_is_no_message(tmp_path: Path) -> None:
    async with call_with(Voicemail, {"always": True, "folder": str(tmp_path)}) as call:
        await be_quiet(call, 9500)
        summary = await call.ended()
    assert summary.facts["voicemail_ms"] == 0
    assert "voicemail_file" not in summary.facts
    assert messages(tmp_path) == []


@virtual_time
async def test_a_message_has_a_longest_time(tmp_path: Path) -> None:
    settings = {"always": True, "folder": str(tmp_path), "max_s": 2}
    async with call_with(Voicemail, settings) as call:
        await be_quiet(call, 600)
        await speak(call, (SPEECH * 3)[: 8 * 4000])
        await call.ended()
    assert read(messages(tmp_path)[0]).duration_ms == 2000


@virtual_time
async def test_the_model_can_have_a_message_taken(tmp_path: Path) -> None:
    async with call_with(Voicemail, {"folder": str(tmp_path)}) as call:
        await call.caller_says("I want to leave a message.")
        del call.model.heard[:]
        assert "message" in await call.model_calls("take_message")
        await be_quiet(call, 800)
        await speak(call)
        await call.press("#")
        await call.ended()
        assert heard_nothing(call)
    assert len(messages(tmp_path)) == 1


@virtual_time
async def test_a_folder_that_is_gone_costs_the_message_not_the_call(tmp_path: Path) -> None:
    folder = tmp_path / "messages"
    async with call_with(Voicemail, {"always": True, "folder": str(folder)}) as call:
        folder.rmdir()
        await be_quiet(call, 600)
        await speak(call)
        summary = await call.ended()
    assert summary.reason == "voicemail"
    assert "voicemail_file" not in summary.facts


@virtual_time
async def test_a_disk_that_fills_up_keeps_what_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, left = os.pwrite, 3 * 16_000

    def fills_up(fd: int, data: bytes, at: int) -> int:
        nonlocal left
        written = min(left, len(data))
        if data and not written:
            raise OSError(28, "No space left on device")
        left -= written
        return pwrite(fd, data[:written], at)

    async with call_with(Voicemail, {"always": True, "folder": str(tmp_path)}) as call:
        monkeypatch.setattr(os, "pwrite", fills_up)
        await be_quiet(call, 600)
        await speak(call, (SPEECH * 5)[:48_000])
        summary = await call.ended()
    assert summary.reason == "voicemail"
    assert summary.facts["voicemail_ended"] == "disk_error"
    assert summary.facts["voicemail_ms"] == read(messages(tmp_path)[0]).duration_ms == 2000
    assert summary.facts["voicemail_file"] == str(messages(tmp_path)[0])


async def test_a_disk_that_hangs_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, again, pwrite = threading.Event(), threading.Event(), os.pwrite

    def hangs(fd: int, data: bytes, at: int) -> int:
        stuck.set()
        again.wait(10)
        return pwrite(fd, data, at)

    monkeypatch.setattr(os, "pwrite", hangs)
    message = Message(tmp_path, "c1", 60, 4, trio.CapacityLimiter(1))
    with trio.move_on_after(0.1) as limit:
        await message.add(clips.load("opening_hours").pcm)
    assert limit.cancelled_caught
    assert stuck.is_set()
    assert message.over.is_set()
    assert message.failed
    again.set()


@pytest.mark.parametrize("keep_days", ["forever", 0])
@virtual_time
async def test_who_hangs_up_while_the_message_is_written_has_left_it(
    keep_days: str | int, tmp_path: Path
) -> None:
    writing, go_on, append = trio.Event(), threading.Event(), _message._append

    def slow(path: Path, written: int, data: bytes) -> None:
        if plugin_ends.is_set():
            trio.from_thread.run_sync(writing.set)
            assert go_on.wait(10)
        append(path, written, data)

    plugin_ends = threading.Event()
    settings = {"always": True, "folder": str(tmp_path), "beep": False, "keep_days": keep_days}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_clock, "HANGS_S", 0.2)
        patch.setattr(_message, "_append", slow)
        async with call_with(Voicemail, settings) as call:
            await be_quiet(call, 200)
            await speak(call)
            plugin_ends.set()
            await call.press("#")
            await writing.wait()
            call.leg.hang_up_as_caller()
            await trio.sleep(1)  # more than tasks have to end
            go_on.set()
            await call.ended()
            await call.until(lambda: "voicemail_ms" in call.facts)
    assert call.facts["voicemail_ms"] == pytest.approx(SPEECH_MS, abs=400)
    assert "voicemail_ended" not in call.facts
    if keep_days == "forever":
        (path,) = messages(tmp_path)
        assert call.facts["voicemail_file"] == str(path)
        assert read(path).duration_ms == call.facts["voicemail_ms"]
    else:
        assert messages(tmp_path) == []


# ---- left ----


def answered_by(kind: str) -> CallFacts:
    """A call of ours of which the carrier says who answered it."""
    return replace(OUTBOUND, parameters={"AnsweredBy": kind} if kind else {})


@virtual_time
async def test_a_message_is_left_after_the_beep(tmp_path: Path) -> None:
    settings = {"leave": {"message": a_wav(tmp_path, "message.wav", 3000)}}
    async with call_with(Voicemail, settings, facts=answered_by("machine_start")) as call:
        await be_quiet(call, 500)
        await speak(call)
        await be_quiet(call, 600)
        assert call.played == b""
        await speak(call, BEEP)
        await be_quiet(call, 200)
        assert call.played != b""
        summary = await call.ended()
        assert heard_nothing(call)
    assert summary.reason == "voicemail_left"
    assert summary.facts["voicemail_left"] is True
    assert len(call.played) == 8 * 3000


@virtual_time
async def test_a_carrier_that_waited_for_the_beep_is_believed() -> None:
    settings = {"leave": {"text": "Please call us back."}}
    async with call_with(Voicemail, settings, facts=answered_by("machine_end_beep")) as call:
        await call.until(lambda: call.asked)
        assert "Please call us back." in (call.asked[0] or "")
        await call.agent_says("Please call us back.", 1500)
        summary = await call.ended()
    assert summary.reason == "voicemail_left"
    assert len(call.played) == 8 * 1500


@virtual_time
async def test_who_answered_may_be_known_later(tmp_path: Path) -> None:
    settings = {"leave": {"message": a_wav(tmp_path, "message.wav", 1000)}}
    async with call_with(Voicemail, settings, facts=answered_by("")) as call:
        await be_quiet(call, 3000)
        assert call.played == b""
        await call.carrier_says(CallStatus="in-progress")
        await call.carrier_says(AnsweredBy="machine_end_beep")
        summary = await call.ended()
    assert summary.reason == "voicemail_left"
    assert len(call.played) == 8 * 1000


@pytest.mark.parametrize("kind", ["human", "unknown", ""])
@virtual_time
async def test_people_are_talked_to(kind: str, tmp_path: Path) -> None:
    settings = {"leave": {"message": a_wav(tmp_path, "message.wav", 1000)}}
    async with call_with(Voicemail, settings, facts=answered_by(kind)) as call:
        await be_quiet(call, 12_000)
        await call.caller_says("Hello?")
        assert not heard_nothing(call)
        assert call.played == b""


@virtual_time
async def test_an_announcement_that_never_ends_is_talked_over(tmp_path: Path) -> None:
    settings = {"leave": {"message": a_wav(tmp_path, "m.wav", 500), "when": "always", "wait_s": 5}}
    async with call_with(Voicemail, settings, facts=OUTBOUND) as call:
        await speak(call, (SPEECH * 4)[: 8 * 5200])
        summary = await call.ended()
    assert summary.reason == "voicemail_left"


# ---- files and settings ----


async def test_who_has_not_begun_to_speak_has_twice_the_time(tmp_path: Path) -> None:
    silence, speech = bytes(1600), clips.load("opening_hours").pcm[:32_000]
    for words, patience_s in ((b"", 8), (speech, 4)):
        message = Message(tmp_path, "c1", max_s=60, silence_s=4)
        await message.add(words)
        for _ in range(10 * patience_s - 5):
            await message.add(silence)
            assert not message.over.is_set()
        for _ in range(10):
            await message.add(silence)
        assert message.over.is_set()
        await message.finish(0.0)


async def test_a_message_can_be_played_at_any_moment(tmp_path: Path) -> None:
    message = Message(tmp_path, "c1", max_s=60, silence_s=4)
    pcm = clips.load("opening_hours").pcm * 2
    for at in range(0, len(pcm), 320):
        await message.add(pcm[at : at + 320])
        if message.path.exists():
            found = parse(message.path.read_bytes()).data
            assert pcm.startswith(found)
            assert at + 320 - len(found) < 16_000 + 320
    assert await message.finish(1.0)
    assert read(message.path).data == pcm
    assert message.path.stat().st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_old_messages_and_too_many_are_deleted(tmp_path: Path) -> None:
    now = time.time()
    names = [f"20261121T00000{n}Z-00000000000000a1.wav" for n in range(4)]
    for age, name in enumerate(names):
        path = tmp_path / name
        path.write_bytes(b"x" * 100)
        os.utime(path, (now - age * 86400 - 60,) * 2)
    for name in ("notes.txt", "announcement.wav"):
        (tmp_path / name).write_text("not ours" * 100)
        os.utime(tmp_path / name, (0, 0))
    assert clean_up(tmp_path, None, 10**6) == 0
    assert clean_up(tmp_path, 2.5 * 86400, 10**6) == 1
    assert clean_up(tmp_path, None, 250) == 1
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [names[0], names[1], "announcement.wav", "notes.txt"]
    os.utime(tmp_path / names[0], (now - 30,) * 2)  # a message that is being taken grows
    assert clean_up(tmp_path, 0, 10**6) == 1
    assert sorted(tmp_path.glob("*Z-*.wav")) == [tmp_path / names[0]]


@virtual_time
@pytest.mark.parametrize(("keep_days", "stays"), [(0, False), (1, True), ("forever", True)])
async def test_a_message_stays_as_long_as_it_is_to(
    tmp_path: Path, keep_days: float | str, stays: bool
) -> None:
    settings = {"always": True, "folder": str(tmp_path), "keep_days": keep_days}
    async with call_with(Voicemail, settings) as call:
        await be_quiet(call, 600)
        await speak(call)
        await call.hang_up()
    assert bool(messages(tmp_path)) is stays
    assert ("voicemail_file" in call.summary.facts) is stays
    assert call.summary.facts["voicemail_ms"] == pytest.approx(SPEECH_MS, abs=300)


@pytest.mark.parametrize("leave", [{}, {"message": "m.wav", "text": "Hello."}])
def test_a_message_that_is_left_has_one_form(leave: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match="write one of them"):
        msgspec.convert(
            {"leave": leave}, VoicemailSettings, dec_hook=lambda kind, value: kind(value)
        )
