"""The recorder, at a call that the test plays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog
import structlog.testing
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding as PemEncoding
from cryptography.hazmat.primitives.serialization import PublicFormat
from voiced_plugins import _recording
from voiced_plugins._sealed import unseal
from voiced_plugins.recorder import Recorder, RecorderSettings, Recordings

from tests.plugins.standin import StandInCall
from tests.plugins.test_wavfile import read_stereo, sox_ms
from voiced.plugin import (
    PCM16_8K,
    Greeting,
    Json,
    PluginError,
    Summary,
    convert,
    wav_header,
)

SECOND = 8000  # bytes of mu-law


@dataclass
class StandInHost:
    state_dir: Path
    name: str = "recorder"
    log: Any = field(default_factory=lambda: structlog.get_logger("tests"))
    annotated: list[tuple[str, str, Json]] = field(default_factory=list)

    def annotate(self, call_id: str, name: str, value: Json) -> None:
        self.annotated.append((call_id, name, value))

    async def complete(self, engine: str, messages: object, *, call_id: str | None = None) -> str:
        raise PluginError("no chat model")


class Stage:
    """A service, a call and its recorder; time is what the test says it is."""

    def __init__(self, nursery: trio.Nursery, state_dir: Path, **settings: Any) -> None:
        self.host = StandInHost(state_dir)
        settings.setdefault("min_free_mb", 0)
        self.config = msgspec.convert(settings, RecorderSettings, dec_hook=lambda t, v: t(v))
        self.service = Recordings(self.config, self.host)
        self.call = StandInCall(nursery)
        self.plugin = Recorder(self.call, self.config, self.service)

    def part(self) -> Path:
        """The file that grows."""
        (path,) = self.host.state_dir.rglob("*.part.wav")
        return path

    async def talk(self, seconds: float, caller: int = 0x10, agent: int = 0x90) -> None:
        """Both speak, in pieces of 200 ms; each is heard as it is said."""
        for _ in range(round(seconds * 5)):
            at = self.call.media_ms
            self.call.media_ms += 200
            await self.plugin.on_caller_audio(bytes([caller]) * 1600, at)
            await self.plugin.on_agent_audio(bytes([agent]) * 1600, at)

    async def write(self) -> None:
        """What the recorder's own task does once a second."""
        recording = self.plugin._recording
        assert recording is not None
        await recording.write(self.call.media_ms - _recording.WINDOW_MS)

    async def end(self) -> dict[str, object]:
        await self.plugin.on_call_end(summary(self.call.media_ms))
        return self.call.facts

    def file(self) -> Path:
        """The recording, which has ended."""
        return Path(str(self.call.facts["recording"]))


def summary(media_ms: int) -> Summary:
    return Summary(
        call_id="00000000000000aa",
        reason="caller_hangup",
        started_at=0,
        ended_at=0,
        duration_ms=media_ms,
        media_ms=media_ms,
        states=(),
        latencies={},
        usage={},
        cost_usd=None,
        transcript=(),
        facts={},
    )


@asynccontextmanager
async def staged(state_dir: Path, **settings: Any) -> AsyncIterator[Stage]:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, state_dir, **settings)
        await stage.service.open()
        yield stage
        nursery.cancel_scope.cancel()


def level(code: int) -> int:
    """What a mu-law code is in the file."""
    return int.from_bytes(convert(bytes([code]), PCMU, PCM16_8K), "little", signed=True)


PCMU = StandInCall.format


def sides(path: Path) -> tuple[list[int], list[int]]:
    """The level of each second, left and right: one that is not even is 99999."""
    rate, sound = read_stereo(path)
    both = np.frombuffer(sound, "<i2").reshape(-1, 2)
    seconds = [both[start : start + rate] for start in range(0, len(both), rate)]
    left, right = (
        [
            int(each[0, side]) if (each[:, side] == each[0, side]).all() else 99999
            for each in seconds
        ]
        for side in (0, 1)
    )
    return left, right


async def test_both_sides_of_a_call(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.plugin.on_media()
        await stage.talk(4)
        await stage.write()
        assert sides(stage.part()) == ([level(0x10)], [level(0x90)])  # the rest may change yet
        await stage.talk(2, caller=0x20)
        facts = await stage.end()
    assert sides(stage.file()) == (
        [level(0x10)] * 4 + [level(0x20)] * 2,
        [level(0x90)] * 6,
    )
    assert facts == {
        "recording": str(stage.file()),
        "recording_bytes": stage.file().stat().st_size,
        "recording_ms": 6000,
    }
    assert stage.file().parent.parent == tmp_path / "+15550100"
    assert stage.file().name.endswith("-+15550199-00000000000000aa.wav")


async def test_the_task_writes_once_a_second(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(tmp_path) as stage:
        await stage.plugin.on_media()
        await stage.talk(10)
        await trio.sleep(1.5)
        await wait_until(lambda: any(tmp_path.rglob("*.part.wav")))
        assert sox_ms(stage.part()) == 7000


async def wait_until(true: Callable[[], bool]) -> None:
    while not true():
        await trio.sleep(0.1)


async def test_agent_audio_that_comes_two_seconds_late(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.plugin.on_media()
        for second in range(8):
            await stage.plugin.on_caller_audio(b"\x10" * SECOND, second * 1000)
            stage.call.media_ms += 1000
            if second >= 2:
                await stage.plugin.on_agent_audio(b"\x90" * SECOND, (second - 2) * 1000)
            await stage.write()
        await stage.end()
    assert sides(stage.file()) == ([level(0x10)] * 8, [level(0x90)] * 6 + [0, 0])


async def test_a_call_without_a_sound_is_silence_of_its_length(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.plugin.on_media()
        stage.call.media_ms = 2500
        await stage.end()
    assert sides(stage.file()) == ([0, 0, 0], [0, 0, 0])
    assert sox_ms(stage.file()) == 2500


async def test_a_call_without_media_leaves_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        assert await stage.end() == {}
        assert not list(tmp_path.rglob("*.wav"))


@pytest.mark.parametrize(
    ("settings", "seconds_bytes", "header"),
    [
        ({"rate": 16000}, 64000, (1, 2, 16000)),
        ({"rate": 24000, "channels": "mono"}, 48000, (1, 1, 24000)),
        ({"encoding": "pcmu"}, 16000, (7, 2, 8000)),
        ({"encoding": "pcmu", "channels": "mono"}, 8000, (7, 1, 8000)),
    ],
)
async def test_other_kinds_of_file(
    tmp_path: Path, settings: dict[str, Any], seconds_bytes: int, header: tuple[int, int, int]
) -> None:
    async with staged(tmp_path, **settings) as stage:
        await stage.plugin.on_media()
        await stage.talk(5)
        await stage.write()
        assert sox_ms(stage.part()) == pytest.approx(2000, abs=2)
        await stage.end()
    assert sox_ms(stage.file()) == pytest.approx(5000, abs=2)
    head = stage.file().read_bytes()[:36]
    assert (head[20], head[22], int.from_bytes(head[24:28], "little")) == header
    assert stage.call.facts["recording_ms"] == pytest.approx(5000, abs=2)
    assert stage.file().stat().st_size == pytest.approx(5 * seconds_bytes, abs=300)


# ---- consent, pause ----


async def test_announcement_is_heard_first(tmp_path: Path) -> None:
    clip = tmp_path / "announcement.wav"
    clip.write_bytes(wav_header(PCM16_8K, 1, 320) + bytes(320))
    async with staged(tmp_path / "state", announcement=str(clip)) as stage:
        planned = await stage.plugin.greeting(Greeting(("hello",)))
        assert planned == Greeting((clip, "hello"))
    async with staged(tmp_path / "state") as stage:
        assert await stage.plugin.greeting(Greeting()) is None


async def test_nothing_is_kept_before_consent(tmp_path: Path) -> None:
    async with staged(tmp_path, start="consent") as stage:
        await stage.plugin.on_media()
        await stage.talk(3, caller=0x20)
        assert await stage.plugin.on_digit("2") is None
        assert await stage.plugin.on_digit("1") is True
        await stage.talk(3)
        assert await stage.plugin.on_digit("1") is None
        await stage.end()
    assert sides(stage.file()) == ([level(0x10)] * 3, [level(0x90)] * 3)
    assert stage.call.facts["recording_ms"] == 3000


async def test_without_consent_there_is_no_file(tmp_path: Path) -> None:
    async with staged(tmp_path, start="consent") as stage:
        await stage.plugin.on_media()
        await stage.talk(5)
        assert await stage.end() == {}
        assert not list(tmp_path.rglob("*.wav"))


async def test_the_model_starts_pauses_and_resumes(tmp_path: Path) -> None:
    async with staged(tmp_path, start="consent", tools=True) as stage:
        await stage.plugin.on_call_start()
        await stage.plugin.on_media()
        await stage.talk(1)
        await stage.call.run_tool("start_recording", {})
        await stage.talk(1)
        await stage.call.run_tool("pause_recording", {})
        await stage.talk(2, caller=0x20)
        await stage.call.run_tool("resume_recording", {})
        await stage.talk(1)
        await stage.end()
    assert sides(stage.file())[0] == [level(0x10), 0, 0, level(0x10)]
    assert stage.call.facts["recording_paused_ms"] == 2000


async def test_what_is_paused_before_it_begins_begins_paused(tmp_path: Path) -> None:
    async with staged(tmp_path, start="consent", tools=True) as stage:
        await stage.plugin.on_call_start()
        await stage.plugin.on_media()
        await stage.call.run_tool("pause_recording", {})
        await stage.call.run_tool("start_recording", {})
        await stage.talk(2, caller=0x20)
        await stage.call.run_tool("resume_recording", {})
        await stage.talk(1)
        await stage.end()
    assert sides(stage.file())[0] == [0, 0, level(0x10)]
    assert stage.call.facts["recording_paused_ms"] == 2000


@pytest.mark.parametrize("pause", ["silence", "gap"])
async def test_keys_pause_and_resume(tmp_path: Path, pause: str) -> None:
    async with staged(tmp_path, pause_digits="*1", resume_digits="*2", pause=pause) as stage:
        await stage.plugin.on_media()
        await stage.talk(2)
        assert [await stage.plugin.on_digit(key) for key in "5*1"] == [None, None, True]
        await stage.talk(4, caller=0x20, agent=0x30)
        await stage.write()
        assert [await stage.plugin.on_digit(key) for key in "*1"] == [None, None]
        assert [await stage.plugin.on_digit(key) for key in "*2"] == [None, True]
        await stage.talk(1)
        await stage.end()
    quiet = [0] * 4 if pause == "silence" else []
    assert sides(stage.file()) == (
        [level(0x10)] * 2 + quiet + [level(0x10)],
        [level(0x90)] * 2 + quiet + [level(0x90)],
    )
    assert stage.call.facts["recording_ms"] == (7000 if pause == "silence" else 3000)


async def test_one_sequence_that_does_both_and_keys_that_are_too_slow(tmp_path: Path) -> None:
    async with staged(tmp_path, pause_digits="##") as stage:
        await stage.plugin.on_media()
        await stage.plugin.on_digit("#")
        await stage.talk(6)
        assert await stage.plugin.on_digit("#") is None
        assert await stage.plugin.on_digit("#") is True
        await stage.talk(1)
        assert [await stage.plugin.on_digit(key) for key in "##"] == [None, True]
        await stage.talk(1)
        await stage.end()
    assert sides(stage.file())[0] == [level(0x10)] * 6 + [0, level(0x10)]


# ---- limits and trouble ----


@pytest.mark.parametrize("rate", [8000, 16000])
async def test_there_is_one_recording_a_call(tmp_path: Path, rate: int) -> None:
    settings = {"start": "consent", "tools": True, "max_duration_s": 2, "rate": rate}
    async with staged(tmp_path, **settings) as stage:
        await stage.plugin.on_call_start()
        await stage.plugin.on_media()
        await stage.call.run_tool("start_recording", {})
        await stage.talk(3)
        await stage.plugin._end(stage.call.media_ms)
        await stage.call.run_tool("start_recording", {})
        await stage.talk(3)
        await stage.end()
    (path,) = tmp_path.rglob("*.wav")
    assert path == stage.file()
    assert stage.call.facts["recording_ended"] == "max_duration"
    assert 2000 <= sox_ms(path) <= 2001


async def test_the_longest_recording(tmp_path: Path) -> None:
    async with staged(tmp_path, max_duration_s=2.5) as stage:
        await stage.plugin.on_media()
        with structlog.testing.capture_logs() as logs:
            for _ in range(8):
                await stage.talk(1)
                if stage.plugin._recording is not None:
                    await stage.write()
            await stage.end()
    assert sox_ms(stage.file()) == 2500
    assert stage.call.facts["recording_ended"] == "max_duration"
    assert [line["event"] for line in logs] == ["recording ended before its call", "call recorded"]


async def test_the_largest_recording(tmp_path: Path) -> None:
    async with staged(tmp_path, max_mb=1) as stage:
        await stage.plugin.on_media()
        for _ in range(5):
            await stage.talk(10)
            await stage.write()
        await stage.end()
    assert stage.call.facts["recording_ended"] == "max_size"
    assert stage.file().stat().st_size == pytest.approx(2**20, abs=200)
    assert sox_ms(stage.file()) == pytest.approx(2**20 / 32, abs=1)


async def test_too_little_room_on_the_disk(tmp_path: Path) -> None:
    async with staged(tmp_path, min_free_mb=10**9) as stage:
        await stage.plugin.on_media()
        await stage.talk(5)
        with structlog.testing.capture_logs() as logs:
            await stage.write()
            await stage.end()
    assert stage.call.facts["recording_ended"] == "disk_full"
    assert "recording" not in stage.call.facts
    assert sum(line["log_level"] == "warning" for line in logs) == 1
    assert not list(tmp_path.rglob("*.wav"))


async def test_room_is_looked_for_again_while_a_call_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []

    def full_later(folder: Path) -> Any:
        looked.append(folder)
        return SimpleNamespace(free=0 if len(looked) > 1 else 2**40)

    monkeypatch.setattr("shutil.disk_usage", full_later)
    async with staged(tmp_path, min_free_mb=1) as stage:
        await stage.plugin.on_media()
        for _ in range(40):
            await stage.talk(2)
            await stage.write()
        await stage.end()
    assert len(looked) == 2
    assert stage.call.facts["recording_ended"] == "disk_full"
    assert 20_000 < int(str(stage.call.facts["recording_ms"])) < 40_000


async def test_a_disk_that_fails_ends_the_recording_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had been written plays; there is one line; the call's own task goes on and ends."""
    async with staged(tmp_path) as stage:
        await stage.plugin.on_media()
        await stage.talk(5)
        await stage.write()

        def full(fd: int, data: memoryview, at: int) -> int:
            raise OSError(28, "No space left on device")

        with structlog.testing.capture_logs() as logs, monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            await stage.talk(5)
            await stage.write()
            await stage.talk(5)
            await stage.write()
            await stage.end()
    assert [line["log_level"] for line in logs] == ["warning", "info"]
    assert "No space left" in str(logs[0]["error"])
    assert sox_ms(stage.file()) == 2000
    assert stage.call.facts["recording_ended"] == "disk_full"


async def test_what_follows_a_piece_that_was_refused_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording with a hole would run ahead of its call from there on."""
    real, refused = os.pwrite, 0

    def once(fd: int, data: memoryview, at: int) -> int:
        nonlocal refused
        if len(data) > 10_000 and not refused:
            refused = len(data)
            raise OSError(5, "Input/output error")
        return real(fd, data, at)

    async with staged(tmp_path) as stage:
        await stage.plugin.on_media()
        await stage.talk(5)
        await stage.write()
        recording = stage.plugin._recording
        assert recording is not None
        recording._waiting += [bytes(20_000), bytes(40_000)]  # of writes that were cancelled
        monkeypatch.setattr(os, "pwrite", once)
        await stage.talk(2)
        await stage.write()
        await stage.end()
    assert refused == 20_000
    assert sox_ms(stage.file()) == 2000
    assert stage.call.facts["recording_ended"] == "disk_error"


async def test_a_disk_that_hangs_does_not_fill_the_memory(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.plugin.on_media()
        recording = stage.plugin._recording
        assert recording is not None
        await stage.talk(60)  # and nothing is written
        assert len(recording.timeline.caller._data) < 31 * SECOND
        assert recording.ended == "disk_slow"
        await stage.end()
    assert stage.call.facts["recording_ended"] == "disk_slow"


async def test_a_disk_that_hangs_holds_up_no_call_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call's task ends at once; what it was about to write is written by the last one."""
    real, hang, hanging = os.pwrite, threading.Event(), threading.Event()

    def pwrite(fd: int, data: memoryview, at: int) -> int:
        hanging.set()
        hang.wait(10)
        return real(fd, data, at)

    async with staged(tmp_path) as stage:
        await stage.plugin.on_media()
        await stage.talk(5)
        monkeypatch.setattr(os, "pwrite", pwrite)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.write)
            while not hanging.is_set():
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        assert not hang.is_set()
        await stage.talk(3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.end)
            await trio.testing.wait_all_tasks_blocked()
            hang.set()
    assert sides(stage.file()) == ([level(0x10)] * 8, [level(0x90)] * 8)


async def test_it_is_named_after_the_call_s_beginning(tmp_path: Path) -> None:
    """As what other plugins write of it is, however long it rang."""
    async with staged(tmp_path, pattern="{date}/{time}") as stage:
        await stage.plugin.on_media()
        stage.call.media_ms = 100
        await stage.end()
    assert stage.file().parts[-2:] == ("2023-11-14", "221320.wav")


async def test_two_calls_of_one_name(tmp_path: Path) -> None:
    paths = set()
    for _ in range(3):
        async with staged(tmp_path, pattern="same/{caller}") as stage:
            await stage.plugin.on_media()
            stage.call.media_ms = 100
            await stage.end()
        paths.add(stage.file().name)
    assert paths == {"+15550199.wav", "+15550199-2.wav", "+15550199-3.wav"}


async def test_nothing_is_left_behind_where_nothing_is_kept(tmp_path: Path) -> None:
    async with staged(tmp_path, keep_days=0) as stage:
        await stage.plugin.on_media()
        await stage.talk(5)
        await stage.write()
        assert stage.part()
        facts = await stage.end()
    assert not list(tmp_path.iterdir())
    assert facts == {"recording_bytes": facts["recording_bytes"], "recording_ms": 5000}


async def test_the_service_removes_what_is_old(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged(tmp_path, keep_days=1) as stage:
        await stage.plugin.on_media()
        stage.call.media_ms = 100
        await stage.end()
        path = stage.file()
        with trio.move_on_after(5000):
            await stage.service.run()
        assert path.exists()
        os.utime(path, (0, 0))
        with trio.move_on_after(5000):
            await stage.service.run()
        assert not path.exists()


async def test_what_is_kept_forever_is_never_too_old(tmp_path: Path) -> None:
    async with staged(tmp_path, keep_days="forever") as stage:
        await stage.plugin.on_media()
        stage.call.media_ms = 100
        await stage.end()
        os.utime(stage.file(), (0, 0))
        await stage.service.sweep()
        assert stage.file().exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"encrypt_to": "/nowhere.pem"}, "encrypt_to: /nowhere.pem cannot be read"),
        ({"folder": "/proc/nowhere"}, "folder: /proc/nowhere"),
    ],
)
async def test_what_cannot_work_is_said_at_start(
    tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    async with trio.open_nursery() as nursery:
        service = Stage(nursery, tmp_path, **settings).service
        with pytest.raises(PluginError, match=says):
            await service.open()


@pytest.mark.parametrize(
    "settings",
    [
        {"pattern": "../x"},
        {"encoding": "pcmu", "rate": 16000},
        {"resume_digits": "1"},
        {"pause_digits": "1,2"},
        {"keep_days": -1},
        {"keep_days": "for ever"},
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(settings, RecorderSettings)


async def test_sealed_to_a_public_key(tmp_path: Path) -> None:
    key, pem = X25519PrivateKey.generate(), tmp_path / "pub.pem"
    pem.write_bytes(
        key.public_key().public_bytes(PemEncoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    async with staged(tmp_path / "state", encrypt_to=str(pem)) as stage:
        await stage.plugin.on_media()
        await stage.talk(5)
        await stage.write()
        await stage.end()
    assert stage.file().name.endswith(".wav.sealed")
    out = tmp_path / "out.wav"
    with stage.file().open("rb") as source, out.open("w+b") as target:
        assert unseal(source, target, key).whole
    assert sides(out) == ([level(0x10)] * 5, [level(0x90)] * 5)


# ---- a crash ----


KILLED = """
import sys
from pathlib import Path
import trio
from tests.plugins.test_recorder import staged

async def main():
    async with staged(Path(sys.argv[1])) as stage:
        await stage.plugin.on_media()
        while True:
            await stage.talk(1)
            await stage.write()
            print("second", flush=True)

trio.run(main)
"""


def kill_in_mid_call(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, folder], stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout is not None
        for _ in range(9):
            daemon.stdout.readline()
        daemon.send_signal(signal.SIGKILL)


async def test_a_killed_daemon_leaves_recordings_that_the_next_one_finds(tmp_path: Path) -> None:
    await trio.to_thread.run_sync(kill_in_mid_call, tmp_path)
    (left,) = tmp_path.rglob("*.part.wav")
    assert sox_ms(left) >= 6000  # plays as it is
    async with staged(tmp_path) as stage:
        pass
    (found,) = tmp_path.rglob("*.wav")
    assert found.name.endswith("aa.wav")
    assert set(sides(found)[0]) == {level(0x10)}
    size = found.stat().st_size
    assert stage.host.annotated == [
        ("00000000000000aa", "recording", str(found)),
        ("00000000000000aa", "recording_bytes", size),
        ("00000000000000aa", "recording_ended", "crash"),
    ]


async def test_an_hour_of_a_call(tmp_path: Path) -> None:
    """Through the plugin and the disk: the file is as long as the call, within 20 ms."""
    async with staged(tmp_path, encoding="pcmu") as stage:
        await stage.plugin.on_media()
        frame = b"\x10" * 1600
        for piece in range(5 * 3600):
            at = 200 * piece - piece // 50  # a carrier that is 100 ppm fast
            stage.call.media_ms = at + 200
            await stage.plugin.on_caller_audio(frame, at)
            if piece % 50 == 0:
                await stage.plugin.on_agent_audio(frame * 5, at)
            if piece % 5 == 0:
                await stage.write()
        stage.call.media_ms = 3_600_000
        await stage.end()
    assert sox_ms(stage.file()) == pytest.approx(3_600_000, abs=20)
    assert stage.call.facts["recording_ms"] == pytest.approx(3_600_000, abs=20)
