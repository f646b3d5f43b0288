"""The engine and the offline server with each other, over real sockets: what both promise."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from voiced import audio, clips
from voiced.config.types import Agent, OwnVad, RealtimeEngine
from voiced.emulator.options import EmulatorOptions, Faults
from voiced.emulator.server import serve
from voiced.engine import (
    DEAF,
    AgentAudio,
    AgentTranscript,
    Committed,
    EngineEvent,
    EngineFault,
    Lost,
    Plan,
    Ready,
    ResponseDone,
    SpeechStarted,
    ToolCall,
    ToolSpec,
)
from voiced.formats import PCM16_8K, PCMU_8K
from voiced.realtime import client
from voiced.realtime.client import RealtimeSession

HOURS = ToolSpec("opening_hours", "Looks up when we are open.", {"type": "object"})


class Talk:
    """A session, and the events that it has brought."""

    def __init__(self, session: RealtimeSession) -> None:
        self.session = session
        self.events: list[EngineEvent] = []

    async def until(self, kind: type[EngineEvent]) -> Any:
        while True:
            for index, event in enumerate(self.events):
                if isinstance(event, kind):
                    del self.events[: index + 1]
                    return event
            self.events = list(await self.session.receive())

    def say(self, name: str) -> None:
        sound = audio.convert(clips.load(name).pcm, PCM16_8K, PCMU_8K)
        spoken = PCMU_8K.silence(400) + sound + PCMU_8K.silence(700)
        for start in range(0, len(spoken), 160):
            self.session.send_audio(spoken[start : start + 160])

    async def hears_silence(self, seconds: int) -> None:
        """Let the caller be silent, in less time than that."""
        for _ in range(seconds):
            for _ in range(50):
                self.session.send_audio(PCMU_8K.silence(20))
            await trio.sleep(0.005)

    async def words(self) -> str:
        """The words of the next answer."""
        while True:
            told: AgentTranscript = await self.until(AgentTranscript)
            if told.final:
                await self.until(ResponseDone)
                return told.text


@asynccontextmanager
async def talk(
    agent: Agent | None = None,
    tools: Sequence[ToolSpec] = (),
    faults: Faults | None = None,
    session_s: float = 3600.0,
    **settings: Any,
) -> AsyncIterator[Talk]:
    options = EmulatorOptions(
        speech="clips",
        realtime_factor=50,
        think_ms=5,
        transcription_ms=5,
        session_s=session_s,
        faults=faults or Faults(),
    )
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(serve, "127.0.0.1", 0, options)
            url = f"ws://127.0.0.1:{port}/v1/realtime"
            config = RealtimeEngine(url=url, server="other", **settings)
            plan = Plan("call-1", agent or Agent(), "Answer.", PCMU_8K, tuple(tools))
            async with client.RealtimeEngine("x", config).open(plan) as session:
                yield Talk(session)
            nursery.cancel_scope.cancel()


async def test_a_function_is_called_answered_and_replaced() -> None:
    async with talk(tools=[HOURS]) as call:
        await call.until(Ready)
        call.say("hours")
        wanted: ToolCall = await call.until(ToolCall)
        assert (wanted.name, wanted.arguments) == ("opening_hours", "{}")
        told = clips.load("go_ahead").text
        call.session.tool_result(wanted.call_id, json.dumps({"text": told}))
        call.session.respond()
        await call.until(ResponseDone)
        assert await call.words() == told
        call.session.set_tools([])
        call.say("hours")
        assert await call.words() == clips.load("opening_hours").text


async def test_with_confirm_the_call_decides() -> None:
    async with talk(Agent(barge_in="confirm")) as call:
        await call.until(Ready)
        call.say("hours")
        turn: Committed = await call.until(Committed)
        with trio.move_on_after(0.3) as quiet:
            await call.until(AgentAudio)
        assert quiet.cancelled_caught
        call.session.respond()
        assert await call.words() == clips.load("opening_hours").text
        call.session.delete(turn.item_id)
        call.say("appointment")
        await call.until(Committed)
        call.session.respond()
        assert await call.words() == clips.load("appointment_made").text
        assert not [event for event in call.events if isinstance(event, EngineFault)]


async def test_with_confirm_and_our_own_endpointing_it_decides_too() -> None:
    agent = Agent(barge_in="confirm", turn_detection=OwnVad())
    async with talk(agent) as call:
        await call.until(Ready)
        call.say("hours")
        await call.until(SpeechStarted)
        await call.until(Committed)
        call.session.respond()
        assert await call.words() == clips.load("opening_hours").text


async def test_a_server_that_answers_nothing_is_lost_after_silent_s() -> None:
    async with talk(faults=Faults(silent=True), silent_s=0.3) as call:
        await call.until(Ready)
        call.session.respond()
        lost: Lost = await call.until(Lost)
        assert (lost.code, lost.retryable) == ("silent", True)


async def test_refused_truncations_do_not_silence_it() -> None:
    async with talk(faults=Faults(reject_truncate=True)) as call:
        await call.until(Ready)
        for _ in range(3):
            call.session.respond("Greet the caller.")
            spoken: AgentAudio = await call.until(AgentAudio)
            call.session.cancel()
            call.session.truncate(spoken.item_id, 0, 10)
            await call.until(ResponseDone)
        call.session.respond("Greet the caller.")
        assert await call.words() == clips.load("greeting").text


async def test_the_announced_end_is_known_and_comes() -> None:
    async with talk(session_s=2.5) as call:
        await call.until(Ready)
        left = call.session.expires_in_s
        assert left is not None
        assert 0 < left <= 2.5
        lost: Lost = await call.until(Lost)
        assert (lost.code, lost.retryable) == ("session_expired", True)


@pytest.mark.parametrize("code", ["insufficient_quota", "rate_limit_exceeded"])
async def test_answers_that_fail_for_good(code: str) -> None:
    async with talk(faults=Faults(fail_all=True, fail_code=code)) as call:
        await call.until(Ready)
        call.session.respond()
        call.session.respond("Again.")
        lost: Lost = await call.until(Lost)
        assert (lost.code, lost.retryable) == (code, code != "insufficient_quota")


async def test_a_handshake_for_want_of_money_is_final() -> None:
    async with talk(faults=Faults(quota=True)) as call:
        lost: Lost = await call.until(Lost)
        assert (lost.code, lost.retryable) == ("http_429", False)


async def test_a_server_that_goes_deaf_is_lost_once_the_caller_has_spoken() -> None:
    async with talk(faults=Faults(deaf_after_ms=600)) as call:
        await call.until(Ready)
        call.say("hours")
        await call.words()
        await trio.sleep(0.6)
        call.session.respond("Greet the caller.")
        assert await call.words(), "all else works"
        await call.hears_silence(20)  # until the answers would have been heard
        call.say("appointment")
        await call.hears_silence(3)
        lost: Lost = await call.until(Lost)
        assert (lost.code, lost.retryable) == (DEAF, True)
