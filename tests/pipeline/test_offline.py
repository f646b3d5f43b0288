"""A pipeline on the emulator: over real sockets, alone and in whole calls through a daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.ears import find, heard_ms
from tests.e2e.house import (
    TRUNK,
    House,
    Outcomes,
    Scenes,
    agent,
    house,
    judge,
    nothing_is_left,
    played,
)
from tests.e2e.test_sip_calls import WORDS, place
from tests.pipeline.house import House as Ear
from tests.pipeline.house import Stt, Thinker, Voice, plan
from voiced import audio, clips
from voiced.config import types
from voiced.config.types import Agent, OwnVad
from voiced.emulator.options import EmulatorOptions, Faults
from voiced.emulator.server import serve
from voiced.engine import (
    AgentAudio,
    AgentTranscript,
    CallerTranscript,
    EngineFault,
    Ready,
    ResponseDone,
    ToolCall,
    ToolSpec,
)
from voiced.formats import PCMU_8K
from voiced.pipeline import PipelineEngine, at_emulator
from voiced.simulate import SCRIPTS, CallResult, Script
from voiced.simulate.script import (
    HangUp,
    Say,
    SayWhileAgentSpeaks,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
)

NO_FAULTS = Faults()
OFFLINE = types.PipelineEngine(
    stt=types.SpeechToText(provider="emulator"),
    chat=types.Chat(provider="emulator"),
    tts=types.TextToSpeech(provider="emulator"),
)


@asynccontextmanager
async def talking(faults: Faults = NO_FAULTS, **agent: Any) -> AsyncIterator[Ear]:
    async with trio.open_nursery() as nursery:
        options = EmulatorOptions(speech="clips", realtime_factor=50, think_ms=10, faults=faults)
        port = await nursery.start(serve, "127.0.0.1", 0, options)
        engine = PipelineEngine("test", at_emulator(OFFLINE, f"http://127.0.0.1:{port}/v1"))
        settings = Agent(turn_detection=OwnVad(silence_ms=400), **agent)
        async with engine.open(plan(settings)) as session:
            ear = Ear(session, Stt(), Thinker(), Voice())
            nursery.start_soon(ear.listen)
            await ear.until(Ready)
            yield ear
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("language", ["en", "tr", "ja"])
async def test_a_question_is_understood_and_answered(language: str) -> None:
    ending = "" if language == "en" else f"_{language}"
    asked, answered = clips.load(f"hours{ending}"), clips.load(f"opening_hours{ending}")
    async with talking(language=language) as ear:
        ear.session.send_audio(audio.pcm_to_ulaw(asked.pcm) + PCMU_8K.silence(600))
        await ear.until(ResponseDone)
    assert [event.text for event in ear.of(CallerTranscript)] == [asked.text]
    assert ear.of(AgentTranscript)[-1].text == answered.text
    assert ear.of(ResponseDone)[0].usage.text_out > 0
    spoken_ms = sum(len(event.payload) for event in ear.of(AgentAudio)) / 48
    assert spoken_ms >= answered.duration_ms * 0.8


@pytest.mark.parametrize(
    "faults",
    [
        Faults(stt_status=503, faulty_requests=1),
        Faults(chat_status=500, faulty_requests=1),
        Faults(tts_status=429, faulty_requests=1),
        Faults(tts_cut_bytes=30_000, faulty_requests=1),
    ],
)
async def test_a_fault_of_a_step_is_not_heard(faults: Faults) -> None:
    async with talking(faults) as ear:
        ear.session.send_audio(audio.pcm_to_ulaw(clips.load("hours").pcm) + PCMU_8K.silence(600))
        await ear.until(ResponseDone)
    assert [fault.action for fault in ear.of(EngineFault)] == ["retry"]
    answered = clips.load("opening_hours")
    assert ear.of(AgentTranscript)[-1].text == answered.text
    spoken_ms = sum(len(event.payload) for event in ear.of(AgentAudio)) / 48
    assert spoken_ms >= answered.duration_ms * 0.8


async def test_a_tool_is_called_and_its_result_spoken() -> None:
    hours = ToolSpec("opening_hours", "The opening hours of the shop", {"type": "object"})
    async with talking() as ear:
        ear.session.set_tools([hours])
        ear.session.send_audio(audio.pcm_to_ulaw(clips.load("hours").pcm) + PCMU_8K.silence(600))
        await ear.until(ToolCall)
        (call,) = ear.of(ToolCall)
        assert (call.name, call.arguments) == ("opening_hours", "{}")
        ear.session.tool_result(call.call_id, clips.load("opening_hours").text)
        ear.session.respond()
        await ear.until(ResponseDone, count=2)
    assert ear.of(AgentTranscript)[-1].text == clips.load("opening_hours").text


# --- whole calls

CONFIG = """
[engine.legacy]
kind = "pipeline"
stt = { provider = "emulator" }
chat = { provider = "emulator" }
tts = { provider = "emulator" }

[price.gpt-4o-mini]
text_in = 1.0
"""
HEARS: tuple[Step, ...] = (WaitForAgentSpeech(300), WaitForAgentSilence(1200))
scenes: Scenes[House] = Scenes()


async def held(here: House, name: str, *steps: Step) -> tuple[CallResult, dict[str, Any]]:
    result = await here.call(Script(name, "", (*steps, HangUp())), name)
    assert result.failure is None, result.failure
    assert not result.violations
    row = await here.row(result.call_sid)
    assert row["reason"] == "caller_hangup"
    assert not here.lines_of(result.call_sid), here.lines_of(result.call_sid)
    return result, row


@scenes
async def conversation(here: House) -> None:
    """Greeting, question, answer, in the order of any call."""
    result, row = await held(here, "talks", *HEARS, Say("hours"), *HEARS)
    said = [(entry["role"], entry["text"]) for entry in row["transcript"]]
    assert [role for role, _ in said] == ["agent", "caller", "agent"]
    assert said[1:] == [
        ("caller", clips.load("hours").text),
        ("agent", clips.load("opening_hours").text),
    ]
    assert [state for state, _ in row["states"]] == [
        "ringing", "answering", "media_ready", "greeting", "listening", "caller_speaking",
        "committing", "thinking", "speaking", "listening", "ended",
    ]  # fmt: skip
    assert row["latencies"]["answers_ms"][0] < 3000
    assert row["usage"]["text_in"] > 0
    assert heard_ms(result) > 3000


@scenes
async def interruption(here: House) -> None:
    """The caller speaks into an answer: it ends, and what was not heard is not said to be."""
    steps = (*HEARS, Say("hours"), SayWhileAgentSpeaks("interrupt", 900), *HEARS)
    result, row = await held(here, "interrupted", *steps)
    cut = [entry for entry in row["transcript"] if entry["cut"]]
    assert len(cut) == 1
    whole = clips.load("opening_hours").text
    assert whole.startswith(cut[0]["text"])
    assert len(cut[0]["text"]) < len(whole)
    assert find(result, "opening_hours") is None
    assert row["transcript"][-1]["role"] == "agent"


@scenes
async def confirmed(here: House) -> None:
    """As above, where the call decides what an interruption is."""
    steps = (*HEARS, Say("hours"), *HEARS)
    _, row = await held(here, "confirms", *steps)
    assert row["transcript"][-1]["text"] == clips.load("opening_hours").text


def went_well(result: CallResult, row: Mapping[str, Any]) -> None:
    assert (result.failure, result.violations) == (None, ())
    assert result.heard_greeting()
    assert result.heard_answer()
    assert result.clean_barge_in()
    assert [entry["text"] for entry in row["transcript"] if entry["role"] == "caller"] == WORDS


@scenes
async def a_whole_conversation_over_twilio(here: House) -> None:
    result = await here.call(SCRIPTS["conversation"], "talks")
    went_well(result, await here.row(result.call_sid))


@scenes
async def a_whole_conversation_over_sip(here: House) -> None:
    result = await place(here, SCRIPTS["conversation"])
    row = await here.row(result.call_sid)
    went_well(result, row)
    assert row["carrier"] == "sip"


async def all_of_it(folder: Path) -> Outcomes:
    everybody = agent("reception", "legacy").replace('"sip:reception@voiced.test"', '"*"')
    text = (
        CONFIG
        + TRUNK
        + "".join(
            agent(name, "legacy", more)
            for name, more in (
                ("talks", ""),
                ("interrupted", ""),
                ("confirms", 'barge_in = "confirm"'),
            )
        )
    )
    async with house(folder, text + everybody) as here:
        return await scenes.play(here, nothing_is_left)


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_whole_calls(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
