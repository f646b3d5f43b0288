"""A pipeline as one of the engines of a call that must not end in silence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import MockClock

from tests.pipeline.house import House, Stt, Thinker, Voice, engine_of, plan
from voiced.config.types import Agent, OwnVad
from voiced.engine import (
    AgentAudio,
    CallerTranscript,
    Lost,
    Ready,
    Reconnecting,
    ResponseDone,
    Resumed,
    Said,
)
from voiced.pipeline.providers import ProviderError
from voiced.steady import Guard, Guarded, SteadyEngine

BUSY = ProviderError("http_503", "busy")
QUOTA = ProviderError("insufficient_quota", "pay", "terminal")


@asynccontextmanager
async def steady(first: Thinker, second: Thinker | None = None) -> AsyncIterator[House]:
    """A call's session over one pipeline, or two; its history is what was transcribed."""
    sides = [
        Guarded(engine_of(Stt(), chat, Voice(), name=name), Guard(name))
        for name, chat in (("first", first), ("second", second))
        if chat is not None
    ]
    said: list[Said] = []
    agent = Agent(turn_detection=OwnVad(silence_ms=300))
    async with SteadyEngine(*sides).open(plan(agent, history=lambda: said)) as session:
        h = House(session, Stt(), first, Voice())
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                while True:
                    for event in await session.receive():
                        h.events.append((trio.current_time(), event))
                        if isinstance(event, CallerTranscript) and event.text:
                            said.append(Said("user", event.text))

            nursery.start_soon(listen)
            await h.until(Ready)
            yield h
            nursery.cancel_scope.cancel()


def last(chat: Thinker) -> Any:
    return chat.conversation()[1:]


async def test_a_chat_that_comes_back_answers_what_was_asked(autojump_clock: MockClock) -> None:
    chat = Thinker([[BUSY], [BUSY]])
    async with steady(chat) as h:
        await h.turn()
        await h.until(Reconnecting)
        await h.until(Resumed)
        await h.until(AgentAudio)
        await h.until(ResponseDone)
    assert not h.of(Lost)
    assert last(chat) == [("user", "Hello?")]
    assert h.at(AgentAudio)[0] - h.at(Reconnecting)[0] < 3


async def test_another_pipeline_takes_over(autojump_clock: MockClock) -> None:
    first, second = Thinker([["Certainly. "], [QUOTA]]), Thinker()
    async with steady(first, second) as h:
        await h.turn()
        await h.until(ResponseDone)
        await h.turn()
        await h.until(Resumed)
        assert (h.of(Resumed)[0].engine, h.of(Resumed)[0].model) == ("second", "second-model")
        await h.until(AgentAudio)
        await h.until(ResponseDone)
    assert last(second) == [("user", "Hello?"), ("user", "Hello?")]
    items = {event.item_id for event in h.of(AgentAudio)}
    assert len(items) == 2


async def test_a_pipeline_that_stays_away_is_lost_in_the_end(autojump_clock: MockClock) -> None:
    async with steady(Thinker([[BUSY]] * 200)) as h:
        began = trio.current_time()
        await h.turn()
        await h.until(Lost)
        assert trio.current_time() - began < 30
