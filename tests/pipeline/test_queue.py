"""Events on their way to the call."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from voiced.engine import AgentAudio, AgentTranscript, EngineEvent, SpeechStarted
from voiced.pipeline.queue import AHEAD_MS, EventQueue

SECOND = bytes(8000)


def sound(item_id: str) -> AgentAudio:
    return AgentAudio("r1", item_id, 0, SECOND)


async def test_what_is_taken_back_makes_room(autojump_clock: MockClock) -> None:
    queue = EventQueue(8)
    for _ in range(AHEAD_MS // 1000):
        queue.put(sound("i1"))
    with trio.move_on_after(1) as full:
        await queue.room()
    assert full.cancelled_caught
    assert queue.withdraw("i1") == 0
    for _ in range(AHEAD_MS // 1000 - 1):
        queue.put(sound("i2"))
    with trio.fail_after(1):
        await queue.room()


async def test_what_was_seen_of_an_item(autojump_clock: MockClock) -> None:
    queue = EventQueue(8)
    started: EngineEvent = SpeechStarted("c1", 0)
    queue.put(sound("i1"))
    queue.put(sound("i1"))
    await queue.take()
    queue.put(sound("i1"))
    queue.put(AgentTranscript("i1", "Yes.", final=False))
    queue.put(started)
    assert queue.withdraw("i2") == 0, "another one's"
    assert queue.withdraw("i1") == 2 * len(SECOND)
    assert await queue.take() == [started]


async def test_only_what_is_withdrawn_is_taken_back() -> None:
    """The end of the answer before it is still to be told."""
    queue = EventQueue(8)
    mine, other = AgentAudio("r2", "mine", 0, bytes(80)), AgentAudio("r1", "other", 0, bytes(80))
    queue.put(other)
    queue.put(mine)
    assert queue.withdraw("mine") == 0
    assert await queue.take() == [other]
