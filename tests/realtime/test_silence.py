"""A server that owes an answer and says nothing, and the limit of a session."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio

from tests.realtime.script import Script
from tests.realtime.test_client import Peer, server, session, until
from voiced.config.types import Agent, RealtimeEngine
from voiced.engine import EngineEvent, Lost, Ready
from voiced.realtime import client
from voiced.realtime.client import RealtimeSession

BUFFER = "input_audio_buffer"


def owing(script: Script) -> bool:
    return script.machine.owing


def test_an_answer_is_owed_from_the_ask_to_its_end() -> None:
    script = Script()
    script.machine.respond()
    assert not owing(script)  # connecting has a time limit of its own
    script.ready()
    assert owing(script)
    script.created()
    assert owing(script)
    script.done()
    assert not owing(script)


def test_a_cancelled_answer_is_owed_to_nobody() -> None:
    script = Script().ready()
    script.machine.respond()
    script.machine.cancel()
    assert not owing(script)
    script.created()
    assert not owing(script)
    script.machine.respond()  # waits for the end of the cancelled one
    assert owing(script)


def test_a_turn_is_owed_an_answer_where_the_server_gives_it() -> None:
    script = Script().ready().says(f"{BUFFER}.speech_started", item_id="i")
    assert not owing(script)
    script.says(f"{BUFFER}.speech_stopped", item_id="i")
    assert owing(script)
    script.says(f"{BUFFER}.speech_started", item_id="i")  # they go on
    assert not owing(script)
    script.says(f"{BUFFER}.speech_stopped", item_id="i").created()
    assert owing(script)
    script.done()
    assert not owing(script)


def test_a_turn_that_held_no_speech_is_owed_nothing() -> None:
    script = Script().ready().says(f"{BUFFER}.speech_stopped", item_id="i")
    told = "conversation.item.input_audio_transcription.completed"
    script.says(told, item_id="i", transcript="")
    assert not owing(script)


@pytest.mark.parametrize("barge_in", ["confirm", "off"])
def test_a_turn_that_the_server_does_not_answer_is_not_its_debt(barge_in: str) -> None:
    agent = Agent(barge_in="confirm" if barge_in == "confirm" else "off")
    script = Script(agent=agent).ready().says(f"{BUFFER}.speech_stopped", item_id="i")
    assert not owing(script)


async def only_configures(peer: Peer) -> None:
    await peer.configure()
    await peer.last()


async def test_a_server_that_owes_and_is_silent_is_lost() -> None:
    async with server(only_configures) as port, session(port, silent_s=0.05) as opened:
        await until(opened, Ready)
        with trio.move_on_after(0.15) as quiet:
            await opened.receive()
        assert quiet.cancelled_caught  # nothing is owed yet
        opened.respond()
        started = trio.current_time()
        (event,) = await until(opened, Lost)
        assert trio.current_time() - started >= 0.05
    assert isinstance(event, Lost)
    assert (event.code, event.retryable) == ("silent", True)


async def test_any_event_is_a_sign_of_life() -> None:
    async def handler(peer: Peer) -> None:
        await peer.configure()
        await peer.hear("response.create")
        for _ in range(8):
            await trio.sleep(0.03)
            await peer.say("rate_limits.updated", rate_limits=[])
        await peer.say("response.created", response={"id": "r", "conversation_id": "c"})
        await peer.say("response.done", response={"id": "r", "status": "completed"})
        await peer.last()

    kinds: list[type[EngineEvent]] = []
    async with server(handler) as port, session(port, silent_s=0.15) as opened:
        opened.respond()
        with trio.move_on_after(0.6):
            while True:
                kinds += [type(event) for event in await opened.receive()]
    assert Lost not in kinds
    assert len(kinds) == 3


async def test_a_call_that_takes_no_events_hears_no_silence() -> None:
    async def handler(peer: Peer) -> None:
        await peer.configure()
        await peer.hear("response.create")
        await peer.say("response.created", response={"id": "r", "conversation_id": "c"})
        await peer.say("response.done", response={"id": "r", "status": "completed"})
        await peer.last()

    async with server(handler) as port, session(port, silent_s=0.02) as opened:
        await until(opened, Ready)
        opened.respond()
        await trio.sleep(0.1)
        assert not any(isinstance(event, Lost) for event in await opened.receive())


async def test_what_waits_to_be_read_is_no_silence() -> None:
    """The call takes events again in the moment in which the server would have been too silent."""

    async def handler(peer: Peer) -> None:
        await peer.configure()
        await peer.hear("response.create")
        await peer.say("response.created", response={"id": "r", "conversation_id": "c"})
        await peer.say("response.done", response={"id": "r", "status": "completed"})
        await peer.last()

    for _ in range(10):  # which of two tasks that are due goes first is left to chance
        async with server(handler) as port, session(port, silent_s=0.05) as opened:
            await until(opened, Ready)
            opened.respond()
            await trio.sleep(0.02)
            time.sleep(0.1)  # noqa: ASYNC251 (the whole process stands still)
            assert not any(isinstance(event, Lost) for event in await opened.receive())


async def expiry(server_says: float | None, **settings: Any) -> float | None:
    """The `expires_in_s` of a session whose server names `server_says` seconds."""

    async def handler(peer: Peer) -> None:
        given = {} if server_says is None else {"expires_at": int(time.time()) + int(server_says)}
        await peer.say("session.created", session=given)
        update = await peer.hear("session.update")
        await peer.say("session.updated", session={**update["session"], **given})
        await peer.last()

    async with server(handler) as port, session(port, **settings) as opened:
        assert isinstance(opened, RealtimeSession)
        assert opened.expires_in_s is None
        await until(opened, Ready)
        return opened.expires_in_s


@pytest.mark.parametrize(
    ("says", "configured", "kind", "expected"),
    [
        (None, None, "other", None),
        (None, None, "openai", 3600),
        (None, 900.0, "openai", 900),
        (1800, None, "openai", 1800),
        (1800, 900.0, "other", 900),
        (7200, None, "openai", 3600),
        (-5, None, "openai", 3600),  # a clock is wrong
        (-5, None, "other", None),
        (10**400, 900.0, "other", 900),  # no float holds it
        (1e300, None, "other", None),
    ],
)
async def test_the_least_limit_counts(
    says: float | None, configured: float | None, kind: str, expected: float | None
) -> None:
    left = await expiry(says, max_session_s=configured, server=kind)
    assert (left is None) == (expected is None)
    if left is not None and expected is not None:
        assert expected - 3 < left <= expected


def test_the_engine_names_its_model() -> None:
    assert client.RealtimeEngine("x", RealtimeEngine(model="m")).model == "m"
