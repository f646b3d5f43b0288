"""The engine and the offline server that does as others do: dialect, order, half calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

import pytest
import trio

from tests.realtime.test_emulator import HOURS, Talk, talk
from voiced import clips
from voiced.emulator.options import Faults, Order
from voiced.emulator.response import Response
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    EngineEvent,
    EngineFault,
    Lost,
    Ready,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    ToolCall,
)

ORDERS = get_args(Order)
GREETS = "Greet the caller."


async def told(call: Talk, kind: type[EngineEvent]) -> Sequence[EngineEvent]:
    """All events up to the next of this kind."""
    events: list[EngineEvent] = []
    while True:
        while call.events:
            events.append(call.events.pop(0))
            if isinstance(events[-1], kind):
                return events
        call.events = list(await call.session.receive())


def of(events: Sequence[EngineEvent], kind: type[EngineEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("dialect", ["ga", "beta"])
@pytest.mark.parametrize("order", ORDERS)
async def test_an_answer_is_the_same_in_any_order(order: Order, dialect: Any) -> None:
    async with talk(faults=Faults(order=order, dialect=dialect), dialect=dialect) as call:
        await call.until(Ready)
        call.session.respond(GREETS)
        events = await told(call, ResponseDone)
        assert isinstance(events[0], ResponseStarted)
        (started,), (done,) = of(events, ResponseStarted), of(events, ResponseDone)
        assert (done.response_id, done.status) == (started.response_id, "completed")
        assert done.usage is not None
        greeting = clips.load("greeting")
        audio = b"".join(event.payload for event in of(events, AgentAudio))
        assert len(audio) == len(greeting.pcm) // 2
        assert len(of(events, AgentAudioDone)) == 1
        words = of(events, AgentTranscript)
        assert "".join(each.text for each in words if not each.final) == greeting.text
        assert [each.text for each in words if each.final] == [greeting.text]
        assert not of(events, EngineFault)
        # The next is asked for, and comes.
        call.session.respond(GREETS)
        assert await call.words() == greeting.text


@pytest.mark.parametrize("order", ORDERS)
async def test_a_function_is_called_once_in_any_order(order: Order) -> None:
    async with talk(tools=[HOURS], faults=Faults(order=order, unnamed_calls=True)) as call:
        await call.until(Ready)
        call.say("hours")
        events = await told(call, ResponseDone)
        (wanted,) = of(events, ToolCall)
        assert (wanted.name, wanted.arguments) == ("opening_hours", "{}")
        call.session.tool_result(wanted.call_id, json.dumps({"text": clips.load("go_ahead").text}))
        call.session.respond()
        events = await told(call, ResponseDone)
        assert [each.text for each in of(events, AgentTranscript) if each.final] == [
            clips.load("go_ahead").text
        ]
        assert not of(events, ToolCall)
        assert not of(events, EngineFault)


@pytest.mark.parametrize("order", ORDERS)
async def test_an_interrupted_answer_is_over_in_any_order(order: Order) -> None:
    """By the caller, whose turn is answered; what was cut is cut at the server too."""
    faults = Faults(order=order, answer_ms=60_000)
    async with talk(faults=faults) as call:
        await call.until(Ready)
        call.session.respond(GREETS)
        spoken: AgentAudio = await call.until(AgentAudio)
        call.say("hours")
        await call.until(SpeechStarted)
        call.session.cancel()
        call.session.truncate(spoken.item_id, 0, 100)
        events = await told(call, ResponseDone)
        (done,) = of(events, ResponseDone)
        assert (done.response_id, done.status) == (spoken.response_id, "cancelled")
        assert not of(events, AgentAudio)
        started: ResponseStarted = await call.until(ResponseStarted)
        events = await told(call, AgentAudio)
        (next_spoken,) = of(events, AgentAudio)
        assert next_spoken.response_id == started.response_id != spoken.response_id
        assert not [each for each in of(events, EngineFault) if each.action != "ignore"]


@pytest.mark.parametrize("arguments", ["{}", '{"day": "Sunday"}', "", "null"])
@pytest.mark.parametrize("cancels", ["caller", "voiced"])
async def test_a_call_that_was_cut_is_not_run(
    arguments: str, cancels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, half_sent = Response.call, trio.Event()

    def call_function(self: Response, name: str, given: str, *, half: bool = False) -> None:
        whole(self, name, given, half=half)
        half_sent.set()

    monkeypatch.setattr(Response, "call", call_function)
    faults = Faults(function_calls=1, function_arguments=arguments, half_calls=1)
    async with talk(tools=[HOURS], faults=faults) as call:
        await call.until(Ready)
        call.session.respond()
        await call.until(ResponseStarted)
        await half_sent.wait()
        if cancels == "caller":
            call.say("hours")
        else:
            call.session.cancel()
        events = await told(call, ResponseDone)
        assert of(events, ResponseDone)[0].status == "cancelled"
        assert not of(events, ToolCall)
        if cancels == "voiced":
            call.session.respond()
        # The whole one is run, and there is no other.
        events = await told(call, ResponseDone)
        assert [each.arguments for each in of(events, ToolCall)] == [arguments or "{}"]
        assert not of(events, EngineFault)


async def test_a_conversation_in_the_beta_dialect() -> None:
    """A tool, words both ways, an interruption with all that is sent for it; the tools change."""
    faults = Faults(dialect="beta")
    async with talk(tools=[HOURS], faults=faults, dialect="beta") as call:
        await call.until(Ready)
        call.session.add_message("system", "The caller is known.")
        call.session.add_message("assistant", "Good day.")
        call.say("hours")
        events = await told(call, ToolCall)
        assert not of(events, EngineFault)
        (wanted,) = of(events, ToolCall)
        assert (wanted.name, wanted.arguments) == ("opening_hours", "{}")
        text = clips.load("go_ahead").text
        call.session.tool_result(wanted.call_id, json.dumps({"text": text}))
        call.session.respond()
        await call.until(ResponseDone)
        spoken: AgentAudio = await call.until(AgentAudio)
        call.session.cancel()
        call.session.truncate(spoken.item_id, 0, 10)
        events = await told(call, ResponseDone)
        assert not of(events, EngineFault)
        call.session.set_tools([])
        call.say("hours")
        asked: CallerTranscript = await call.until(CallerTranscript)
        while not asked.final:
            asked = await call.until(CallerTranscript)
        assert asked.text == clips.load("hours").text
        events = await told(call, ResponseDone)
        assert not of(events, EngineFault)
        assert not of(events, ToolCall)


@pytest.mark.parametrize(
    ("ours", "theirs", "code"),
    [("ga", "beta", "missing_beta_header"), ("beta", "ga", "beta_api_shape_disabled")],
)
async def test_the_wrong_dialect_is_final(ours: Any, theirs: Any, code: str) -> None:
    async with talk(faults=Faults(dialect=theirs), dialect=ours) as call:
        lost: Lost = await call.until(Lost)
        assert (lost.code, lost.retryable) == (code, False)
