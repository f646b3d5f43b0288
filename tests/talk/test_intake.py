"""The model's audio in another format: what the converter carries belongs to its part alone."""

from __future__ import annotations

import random
from pathlib import Path

import structlog

from tests.fakes import FACTS, FakeSession
from voiced import audio
from voiced.config.types import Agent
from voiced.engine import AgentAudio, Plan
from voiced.formats import PCM16_24K, PCMU_8K
from voiced.playout import Playout
from voiced.prompts import Prompts
from voiced.talk.intake import Intake
from voiced.talk.sounds import Sounds
from voiced.talk.voice import Voice

SOUND = b"".join(random.Random(1).randbytes(2) for _ in range(4800))  # 200 ms


async def made() -> tuple[Intake, Playout]:
    agent = Agent()
    session = FakeSession(Plan(FACTS.call_id, agent, "", PCMU_8K), PCMU_8K, PCM16_24K)
    playout = Playout(PCMU_8K.bytes_per_ms)
    sounds = Sounds(Prompts(), agent, PCMU_8K, structlog.get_logger(Path(__file__).stem))
    intake = Intake(session, Voice(playout, sounds), PCMU_8K, agent)
    intake.begin()
    return intake, playout


def more(intake: Intake, item: str, sound: bytes) -> None:
    assert intake.add(AgentAudio("r1", item, 0, sound))


def heard(playout: Playout, item: str) -> bytes:
    """All of it, as it would go out next."""
    sound = b""
    while (chunk := playout.next_chunk(1 << 20)) is not None:
        playout.sent(chunk)
        if chunk.item_id == item:
            sound += chunk.payload
    return sound


def converted(sound: bytes) -> bytes:
    step = audio.converter(PCM16_24K, PCMU_8K, Agent().resampler)
    assert step is not None
    return step.convert(sound) + step.flush()


async def test_a_part_begins_without_what_was_before_it(autojump_clock: object) -> None:
    intake, playout = await made()
    more(intake, "a", SOUND[:3333])
    more(intake, "b", SOUND)
    intake.finish("b")
    assert heard(playout, "b") == converted(SOUND)


async def test_the_end_of_one_part_is_not_that_of_another(autojump_clock: object) -> None:
    intake, playout = await made()
    more(intake, "a", SOUND[:4800])
    intake.finish("b")
    more(intake, "a", SOUND[4800:])
    intake.finish("a")
    assert heard(playout, "a") == converted(SOUND)


async def test_what_was_made_before_another_session_is_whole(autojump_clock: object) -> None:
    intake, playout = await made()
    more(intake, "a", SOUND)
    intake.begin()
    assert heard(playout, "a") == converted(SOUND)
