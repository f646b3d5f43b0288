"""A whole call with a server that speaks the beta dialect: greeting, interruption, answer."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.house import agent, house
from tests.e2e.model import WORDS, Conversation, engine, serve_models
from voiced.audio import pcm_to_ulaw
from voiced.simulate import Script
from voiced.simulate.script import HangUp, WaitForAgentSilence, WaitForAgentSpeech

pytestmark = pytest.mark.usefixtures("virtual_time")

GREETS = 'greeting = "Greet the caller."\nsilence_prompt_s = 0\n'
ONCE = WaitForAgentSpeech(300), WaitForAgentSilence(700)
HEARS = Script("hears twice", "", (*ONCE, *ONCE, HangUp()))
AUDIO = pcm_to_ulaw(WORDS.pcm)


class Beta:
    """The server's side of one call, and all that it was sent."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []

    async def receive(self, session: Conversation, kind: str) -> dict[str, Any]:
        while True:
            event: dict[str, Any] = json.loads(await session.socket.get_message())
            self.got.append(event)
            if event["type"] == kind:
                return event

    async def say(self, session: Conversation, *, whole: bool = True) -> dict[str, Any]:
        """An answer in the names of the beta interface; returns what its events have in common."""
        place = await session.begin()
        for start in range(0, len(AUDIO), 1600):
            piece = base64.b64encode(AUDIO[start : start + 1600]).decode()
            await session.send("response.audio.delta", **place, delta=piece)
        await session.send("response.audio_transcript.delta", **place, delta=WORDS.text[:9])
        await session.send("response.audio_transcript.done", **place, transcript=WORDS.text)
        if whole:
            await session.send("response.audio.done", **place)
            done = {"id": session.response, "status": "completed"}
            await session.send("response.done", response=done)
        return place

    async def __call__(self, session: Conversation) -> None:
        await session.send("session.created", session={"id": "sess_1"})
        update = await self.receive(session, "session.update")
        await session.send("session.updated", session=update["session"])
        await self.receive(session, "response.create")
        await self.say(session, whole=False)
        for _ in range(40):  # 0.8 s of the caller's
            await self.receive(session, "input_audio_buffer.append")
        began = {"audio_start_ms": 0, "item_id": "item_caller"}
        await session.send("input_audio_buffer.speech_started", **began)
        with trio.move_on_after(1.0):  # until nothing more is said about the interruption
            await self.receive(session, "never")
        done = {"id": session.response, "status": "cancelled"}
        await session.send("response.done", response=done)
        over = {"audio_end_ms": 500, "item_id": "item_caller"}
        await session.send("input_audio_buffer.speech_stopped", **over)
        await session.send("input_audio_buffer.committed", item_id="item_caller")
        item = {"id": "item_caller", "type": "message", "role": "user"}
        await session.send("conversation.item.created", item=item)
        await session.send(
            "conversation.item.input_audio_transcription.completed",
            item_id="item_caller",
            content_index=0,
            transcript="Hello?",
        )
        await self.say(session)
        with trio.move_on_after(20):
            await self.receive(session, "never")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ('dialect = "beta"', ["response.cancel", "conversation.item.truncate"]),
        ('server = "speaches"\noutput_format = "pcmu"\ninput_format = "pcmu"', []),
    ],
    ids=["beta", "speaches"],
)
async def test_a_call(tmp_path: Path, nursery: trio.Nursery, setting: str, told: list[str]) -> None:
    server = Beta()
    port = await nursery.start(serve_models, {"beta": server})
    text = engine("beta", port, setting) + agent("beta", "beta", GREETS)
    if "server" in setting:
        text = text.replace('server = "other"\n', "")
    async with house(tmp_path, text) as here:
        result = await here.call(HEARS, "beta")
        assert result.failure is None
        assert not result.violations
        row = await here.row(result.call_sid)
        assert row["reason"] == "caller_hangup"
        assert not here.lines_of(result.call_sid)
    # It was cut off at once, and the second answer was heard whole.
    said = [(entry["role"], entry["cut"]) for entry in row["transcript"]]
    assert said == [("agent", True), ("caller", False), ("agent", False)]
    assert row["transcript"][2]["text"] == WORDS.text
    assert len(row["latencies"]["barge_ins_ms"]) == 1

    (session,) = [event["session"] for event in server.got if event["type"] == "session.update"]
    assert "type" not in session
    assert "audio" not in session
    assert session["input_audio_format"] == session["output_audio_format"] == "g711_ulaw"
    assert session["turn_detection"]["type"] == "server_vad"
    kinds = [event["type"] for event in server.got]
    quiet = ("session.update", "response.create", "input_audio_buffer.append")
    assert [kind for kind in kinds if kind not in quiet] == told
    for event in server.got:
        if event["type"] == "conversation.item.truncate":
            # Heard since the first delta, by the carrier's clock; never more than there was.
            assert 100 < event["audio_end_ms"] < WORDS.duration_ms
            (cut,) = [each for each in result.agent if each.cut]
            assert event["audio_end_ms"] == pytest.approx(
                cut.end_ms - cut.start_ms, abs=150 + result.lag_ms
            )
