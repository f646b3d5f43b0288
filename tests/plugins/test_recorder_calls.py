"""The recorder at real calls between a fake telephone and a fake model, on a virtual clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock
from voiced_plugins import _recording
from voiced_plugins.recorder import Recorder

from tests.plugins.test_wavfile import read_stereo
from voiced.config.types import Agent
from voiced.engine import AgentAudio, AgentAudioDone, ResponseDone, ResponseStarted, SpeechStarted
from voiced.testing import Scene, call_with, virtual_time
from voiced.testing import clock as scene_clock

PATIENT = Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0, max_duration_s=7200.0)
SECOND = 8000
SETTINGS: dict[str, Any] = {"min_free_mb": 0}

Samples = np.ndarray[Any, np.dtype[np.int16]]


def recording(scene: Scene) -> tuple[Samples, Samples]:
    path = Path(str(scene.facts["recording"]))
    assert scene.facts["recording_bytes"] == path.stat().st_size
    rate, sound = read_stereo(path)
    both = np.frombuffer(sound, "<i2")
    assert abs(len(both) / 2 / rate * 1000 - scene.summary.media_ms) <= 20
    return both[0::2], both[1::2]


def starts(side: Samples) -> list[float]:
    """When sounds begin that follow at least 100 ms of silence, in s."""
    loud = np.flatnonzero(np.abs(side) > 500)
    return [float(at) / SECOND for at in loud[np.diff(loud, prepend=-SECOND) > SECOND / 10]]


def speak(scene: Scene, seconds: float, item: str) -> None:
    """The model's answer, all at once."""
    payload = b"\x31" * int(SECOND * seconds)
    scene.model.emit(
        ResponseStarted(f"r{item}"),
        AgentAudio(f"r{item}", item, 0, payload),
        AgentAudioDone(f"r{item}", item),
        ResponseDone(f"r{item}", "completed"),
    )


@virtual_time
async def test_both_sides_when_they_were_heard() -> None:
    async with call_with(Recorder, SETTINGS, agent=PATIENT) as scene:
        await scene.caller_waits(1000)
        await scene.caller_says("hello", 500)
        await scene.agent_says("good day", 1500)
        await scene.caller_waits(500)
        await scene.hang_up()
        await scene.until(lambda: "recording" in scene.facts)
        left, right = recording(scene)
    (said,), (heard,) = starts(left), starts(right)
    assert said == pytest.approx(1.0, abs=0.04)
    assert heard == pytest.approx(1.53, abs=0.06)
    assert np.count_nonzero(np.abs(left) > 500) == pytest.approx(4000, abs=8)
    assert np.count_nonzero(np.abs(right) > 500) == pytest.approx(12000, abs=8)


@virtual_time
async def test_what_an_interruption_cut_off_is_not_in_it() -> None:
    async with call_with(Recorder, SETTINGS, agent=PATIENT) as scene:
        began = trio.current_time()
        speak(scene, 10.0, "long")
        await scene.caller_waits(3000)
        scene.model.emit(SpeechStarted("i", 0))
        at = trio.current_time() - began
        await scene.caller_waits(3000)
        await scene.hang_up()
        await scene.until(lambda: "recording" in scene.facts)
        _, right = recording(scene)
    assert np.count_nonzero(np.abs(right) > 500) / SECOND == pytest.approx(at, abs=0.03)


@virtual_time
async def test_a_caller_who_is_never_heard() -> None:
    """No audio of the caller's comes at all."""
    async with call_with(Recorder, SETTINGS, agent=PATIENT) as scene:
        await scene.agent_says("hello", 1000)
        await trio.sleep(9)
        await scene.hang_up()
        await scene.until(lambda: "recording" in scene.facts)
        left, right = recording(scene)
    assert not left.any()
    assert np.count_nonzero(np.abs(right) > 500) == pytest.approx(SECOND, abs=8)


@virtual_time
async def test_held_for_a_minute() -> None:
    async with call_with(Recorder, SETTINGS, agent=PATIENT) as scene:
        await scene.caller_says("one", 500)
        scene.leg.hold(True)
        await trio.sleep(60)
        scene.leg.hold(False)
        began = trio.current_time()
        await scene.settle()
        await scene.caller_says("two", 500)
        await scene.hang_up()
        await scene.until(lambda: "recording" in scene.facts)
        left, _ = recording(scene)
        late = trio.current_time() - began
    first, second = starts(left)
    assert second - first == pytest.approx(60.5, abs=0.2)
    assert late < 5


@pytest.mark.parametrize("keep_days", ["forever", 0])
@virtual_time
async def test_who_hangs_up_while_the_longest_recording_is_closed(
    keep_days: str | int, tmp_path: Path
) -> None:
    """By a disk that takes its time: the journal knows of the recording all the same."""
    closing, slow = trio.Event(), _Slow()
    settings = {**SETTINGS, "max_duration_s": 5, "folder": str(tmp_path), "keep_days": keep_days}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_clock, "HANGS_S", 0.2)
        patch.setattr(_recording.Recording, "_close_file", slow.closing(closing))
        async with call_with(Recorder, settings, agent=PATIENT) as scene:
            await scene.caller_says("hello", 4000)
            await scene.caller_waits(4000)
            await closing.wait()
            scene.leg.hang_up_as_caller()
            await trio.sleep(1)  # more than tasks have to end
            slow.go_on.set()
            await scene.ended()
            await scene.until(lambda: "recording_ended" in scene.facts)
    assert scene.facts["recording_ended"] == "max_duration"
    assert scene.facts["recording_ms"] == 5000
    if keep_days == "forever":
        path = Path(str(scene.facts["recording"]))
        rate, sound = read_stereo(path)
        assert (len(sound) / 4 / rate, scene.facts["recording_bytes"]) == (5, path.stat().st_size)
    else:
        assert not list(tmp_path.rglob("*.wav"))


class _Slow:
    """A disk on which a file is closed when it is told so."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def closing(self, begun: trio.Event) -> Callable[[_recording.Recording], _recording.Made]:
        close = _recording.Recording._close_file

        def wait(recording: _recording.Recording) -> _recording.Made:
            trio.from_thread.run_sync(begun.set)
            assert self.go_on.wait(10)
            return close(recording)

        return wait


def test_an_hour(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A carrier whose clock is off: both sides beep together by ours, so in the file too."""
    monkeypatch.setattr(_recording, "MAX_BEHIND_MS", 10**9)  # threads do not know of this clock

    @virtual_time
    async def call() -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        async with call_with(Recorder, SETTINGS, agent=PATIENT, state_dir=tmp_path) as scene:
            clock.autojump_threshold = 0
            beeps = await talk_for_an_hour(scene, 100)
            clock.autojump_threshold = 0.05
            await scene.hang_up()
            await scene.until(lambda: "recording" in scene.facts)
            left, right = recording(scene)
        assert scene.summary.media_ms == pytest.approx(3_600_000, abs=2000)
        for side in (left, right):
            found = starts(side)
            assert len(found) == len(beeps)
            assert np.abs(np.array(found) - np.array(beeps)).max() < 0.045

    call()


async def talk_for_an_hour(scene: Scene, ppm: int) -> list[float]:
    """Returns when both began to beep, in s since media."""
    began, beeps, pieces = trio.current_time(), [], 0
    length_s = 1 - ppm / 1e6
    while (now := trio.current_time() - began) < 3600:
        pieces += 1
        beep = pieces % 60 == 0
        if beep:
            speak(scene, 0.4, f"beep{pieces}")
            beeps.append(now)
        await trio.sleep_until(began + pieces * length_s)
        scene.leg.say((b"\x31" if beep else b"\xff") * 4000 + b"\xff" * 4000)
    return beeps
