"""A plugin that does all four steps of a pipeline: a file in `plugin_dir`, and a whole call."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.ears import tone
from tests.e2e.house import house, nothing_is_left
from tests.e2e.virtual import run_virtually
from voiced.simulate import Script
from voiced.simulate.script import HangUp, Say, WaitForAgentSilence, WaitForAgentSpeech

PLUGIN = '''
"""Hears everything as one question, answers from its table, and speaks in tones."""

import math
import struct

from voiced.pipeline.providers import ProviderError, Transcription, Usage
from voiced.plugin import Plugin, Service, Settings, Vad


class Config(Settings, frozen=True):
    hertz: int = 1000
    answer: str = ""


class Notes(Service):
    def note(self, *words):
        with (self.host.state_dir / "notes").open("a") as file:
            print(*words, file=file)


class Ears:
    def __init__(self, settings, service):
        self.settings, self.service = settings, service

    async def transcribe(self, pcm16, rate, language):
        if not self.service.config.answer:
            raise ProviderError("deaf", "no answer is configured", "terminal")
        self.service.note("stt", self.settings.model, rate, language)
        return Transcription("Is anybody there?")


class Mind:
    def __init__(self, settings, service):
        self.service = service

    async def stream(self, messages, tools):
        self.service.note("chat", messages[-1].role, messages[-1].content)
        yield self.service.config.answer
        yield Usage(text_in=100, text_out=10)


class Voice:
    rate = 16000

    def __init__(self, settings, service):
        self.service = service

    async def stream(self, text, *, voice, language):
        self.service.note("tts", text, voice)
        step = 2 * math.pi * self.service.config.hertz / self.rate
        wave = (int(9000 * math.sin(step * n)) for n in range(self.rate))
        yield b"".join(struct.pack("<h", sample) for sample in wave)


def detector(settings, service):
    service.note("detector", settings.rate, settings.silence_ms)
    return Vad(
        rate=settings.rate,
        threshold=settings.threshold,
        prefix_padding_ms=settings.prefix_padding_ms,
        silence_ms=settings.silence_ms,
    )


class Local(Plugin):
    Config = Config
    Service = Notes
    providers = {"stt": Ears, "chat": Mind, "tts": Voice, "detector": detector}
'''

FILE = """
[plugins.own]
plugin = "local"
hertz = 1500
answer = "Somebody is."

[price.own]
text_in = 10.0
text_out = 100.0
per_minute = 6.0

[price.tones]
characters = 1000.0

[engine.local]
kind = "pipeline"
detector = "own"
stt = { provider = "own", model = "ears" }
chat = { provider = "own" }
tts = { provider = "own", model = "tones" }

[agent.reception]
engine = "local"
greeting = ""
language = "tr"
turn_detection = { kind = "none", silence_ms = 400 }

[[number]]
match = "*"
agent = "reception"

[price.ears]
per_minute = 0.6
"""

ASKS = Script(
    "asks",
    "",
    (Say("hours"), WaitForAgentSpeech(300), WaitForAgentSilence(), HangUp()),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins" / "local.py").write_text(PLUGIN)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "plugins.toml").write_text(f'daemon.plugin_dir = "{tmp_path}/plugins"\n')
    return tmp_path


def test_all_steps_are_a_plugins_and_know_its_table(folder: Path) -> None:
    async def main() -> None:
        async with house(folder, FILE) as here:
            result = await here.call(ASKS, "+15550100")
            assert (result.failure, result.violations) == (None, ())
            row = await here.row(result.call_sid)
            assert [(each["role"], each["text"]) for each in row["transcript"]] == [
                ("caller", "Is anybody there?"),
                ("agent", "Somebody is."),
            ]
            assert tone(result, 1500, 900) is not None, "its table says how high it speaks"
            assert tone(result, 1000, 900) is None
            notes = (here.state_dir / "plugins" / "own" / "notes").read_text().splitlines()
            assert notes == [
                "detector 8000 400",
                "stt ears 8000 tr",
                "chat user Is anybody there?",
                "tts Somebody is. marin",
            ]
            heard_s = row["usage"]["transcription_s"]
            chat = 100 * 10e-6 + 10 * 100e-6 + 0.1 * row["media_ms"] / 1000
            assert row["cost_usd"] == pytest.approx(chat + 12e-3 + heard_s / 100, abs=0.01)
            assert not here.lines_of(result.call_sid)
            await nothing_is_left(here)

    run_virtually(main)


def test_what_a_step_raises_ends_as_its_verdict_says(folder: Path) -> None:
    async def main() -> None:
        silent = FILE.replace('answer = "Somebody is."\n', "")
        async with house(folder, silent) as here:
            result = await here.call(ASKS, "+15550100")
            row = await here.row(result.call_sid)
            assert row["reason"] == "model_lost"
            await nothing_is_left(here)

    run_virtually(main)
