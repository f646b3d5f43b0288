"""`voiced greeting make`: greetings without a telephone, found by the daemon."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from tests.e2e.house import house
from voiced.cli import main
from voiced.simulate.script import HangUp, Script, WaitForAgentSilence, WaitForAgentSpeech

CONFIG = """
[engine.emulated]
kind = "emulator"

[engine.deaf]
kind = "realtime"
url = "ws://127.0.0.1:1/v1/realtime"
api_key = "none"

[agent.reception]
engine = "emulated"
greeting_text = "Hello, this is the reception."

[agent.files]
engine = "emulated"
greeting = ""

[agent.forms]
engine = "emulated"
facts = ["caller"]

[agent.lost]
engine = "deaf"
greeting_text = "Nobody hears this."
reconnect_s = 0

[plugins.greeting_cache]

[plugins.recorder]
"""
NUMBERS = "".join(
    f'[[number]]\nmatch = "sip:{name}@voiced.test"\nagent = "{name}"\n'
    for name in ("reception", "files", "forms")
)


def write(folder: Path, more: str = NUMBERS) -> Path:
    path = folder / "voiced.toml"
    path.write_text(f'[daemon]\nstate_dir = "{folder}/state"\n' + CONFIG + more, "utf-8")
    path.chmod(0o600)
    return path


def make(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["greeting", "make", "-c", str(path), *arguments])


@pytest.mark.parametrize("wide", [False, True])
def test_made_once(tmp_path: Path, wide: bool) -> None:
    trunk = '[[sip.trunk]]\nname = "t"\nhost = "192.0.2.1"\ncodecs = ["g722"]\n'
    listen = '[sip]\nlisten = ["udp://127.0.0.1:0"]\n'
    path = write(tmp_path, NUMBERS + (listen + trunk if wide else ""))
    done = make(path)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert "files: not made, its greeting is not the model's to speak" in lines
    assert any(line.startswith("forms: not made, it is told of each caller") for line in lines)
    made = [line for line in lines if ": made, " in line]
    assert [line.partition(":")[0] for line in made] == [
        "reception, 8000 Hz",
        *(["reception, 16000 Hz"] if wide else []),
    ]
    assert "“Hello, this is the reception.”" in made[0]
    again = make(path, "--agent", "reception")
    assert again.exit_code == 0, again.output
    assert all(": there already, " in line for line in again.output.splitlines())
    files = list((tmp_path / "state" / "plugins" / "greeting_cache").iterdir())
    assert len(files) == 1 + wide
    assert not list((tmp_path / "state").rglob("journal*"))
    assert not (tmp_path / "state" / "plugins" / "recorder").exists()


def test_the_daemon_finds_it(tmp_path: Path) -> None:
    assert make(write(tmp_path)).exit_code == 0

    async def first_call() -> None:
        script = Script("", "", (WaitForAgentSpeech(300), WaitForAgentSilence(), HangUp()))
        async with house(tmp_path, CONFIG + NUMBERS) as here:
            result = await here.call(script, "reception")
            assert result.failure is None
            row = await here.row(result.call_sid)
        assert row["facts"]["greeting_cached"] is True
        assert row["latencies"]["greeting_ms"] <= 100

    trio.run(first_call)


def test_a_model_that_cannot_be_reached(tmp_path: Path) -> None:
    path = write(tmp_path, '[[number]]\nmatch = "*"\nagent = "lost"\n')
    done = make(path)
    assert done.exit_code == 1
    assert "lost, 8000 Hz: failed, " in done.output
    assert "Traceback" not in done.output


def test_nothing_to_do(tmp_path: Path) -> None:
    path = write(tmp_path, '[[number]]\nmatch = "*"\nagent = "reception"\nplugins = []\n')
    done = make(path)
    assert done.exit_code == 1
    assert "[plugins.greeting_cache]" in done.output
    other = make(write(tmp_path), "--agent", "nobody")
    assert other.exit_code == 2
    assert "reception" in other.output


VOICE = """
from voiced.plugin import Plugin, Settings


class Config(Settings, frozen=True):
    pitch: int = 20


class Speech:
    rate = 8000

    async def transcribe(self, pcm16, rate, language):
        raise AssertionError("nobody speaks")

    async def stream(self, text, *, voice, language):
        yield bytes([0, 32] * 20 + [0, 224] * 20) * 200


class Voice(Plugin):
    Config = Config
    providers = dict.fromkeys(("stt", "chat", "tts"), lambda settings, *service: Speech())

    async def on_call_start(self):
        raise AssertionError("takes part in no call of the studio")
"""
PIPELINE = """
[daemon]
plugin_dir = "own"
state_dir = "state"
[engine.own]
kind = "pipeline"
tts = { provider = "voice" }
stt = { provider = "voice" }
chat = { provider = "voice" }
[agent.reception]
engine = "own"
greeting_text = "Hello."
[plugins.voice]
pitch = %d
[plugins.greeting_cache]
"""


def test_a_voice_that_a_plugin_supplies_and_its_settings(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o755)
    (tmp_path / "own" / "voice.py").write_text(VOICE)
    path = tmp_path / "voiced.toml"
    for pitch, outcome in ((20, "made"), (20, "there already"), (30, "made")):
        path.write_text(PIPELINE % pitch)
        path.chmod(0o600)
        done = make(path)
        assert done.exit_code == 0, done.output
        assert f"reception, 8000 Hz: {outcome}" in done.output


def test_what_is_wrong_with_a_step_is_said(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o755)
    (tmp_path / "own" / "voice.py").write_text(VOICE.replace("transcribe", "scribble"))
    path = tmp_path / "voiced.toml"
    path.write_text(PIPELINE % 20)
    path.chmod(0o600)
    done = make(path)
    assert done.exit_code == 1
    assert "must have a coroutine function `transcribe`" in done.output
