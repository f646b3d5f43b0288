"""A model server that misbehaves: the call goes on, or ends with a message, and one log line."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e.house import (
    SOON_S,
    House,
    Outcomes,
    Scenes,
    agent,
    house,
    judge,
    nothing_is_left,
    played,
)
from tests.e2e.model import WORDS, Behaviour, Conversation, engine, serve_models
from voiced import clips
from voiced.audio import pcm_to_ulaw
from voiced.realtime import client
from voiced.simulate import CallResult, Script
from voiced.simulate.script import (
    HangUp,
    Pause,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)
from voiced.simulate.wire import Identifiers, Narrator

# What each loss is; that a lost model is tried again is tested elsewhere.
GREETS = 'greeting = "Greet the caller."\nno_answer_s = 0.8\nreconnect_s = 0\n'
HEARS = Script("hears", "", (WaitForAgentSpeech(1000), WaitForAgentSilence(500), HangUp()))
WAITS = Script("waits", "", (WaitForHangUp(),))
SORRY_MS = clips.load("unavailable").duration_ms

behaviours: dict[str, Behaviour] = {}
scenes: Scenes[House] = Scenes()


def speech_ms(result: CallResult) -> float:
    return sum(said.end_ms - said.start_ms for said in result.agent)


# ---- nonsense that harms nothing


async def nonsense(session: Conversation, messages: Sequence[str | bytes]) -> None:
    """Everything before, within and behind the answer."""

    async def rubbish() -> None:
        for message in messages:
            await session.socket.send_message(message)

    await session.configure()
    await rubbish()
    await session.until("response.create")
    place = await session.begin()
    audio = pcm_to_ulaw(WORDS.pcm)
    await session.delta(place, audio[:8000])
    await rubbish()
    await session.delta(place, audio[8000:])
    await session.send("response.output_audio.done", **place)
    await session.send("response.done", response={"id": session.response, "status": "completed"})
    await rubbish()
    await session.listen()


async def harmless(here: House, name: str, faults: int) -> None:
    result = await here.call(HEARS, name)
    assert result.failure is None
    assert not result.violations
    assert speech_ms(result) > WORDS.duration_ms - 400
    assert (await here.row(result.call_sid))["reason"] == "caller_hangup"
    lines = [line for line in here.logs if line.get("code") == "malformed_event"]
    mine = {line["call"] for line in here.logs if line.get("carrier_call") == result.call_sid}
    assert sum(line["call"] in mine for line in lines) == faults
    assert not here.lines_of(result.call_sid)


for name, messages, faults in (
    ("no_json", ["", "no", "{", '{"type":"response.done"', "[" * 100_000], 1),
    (
        "wrong_types",
        [
            "7",
            "[]",
            "{}",
            '{"type":7}',
            '{"type":"response.done","response":7}',
            '{"type":"response.created"}',
            '{"type":"response.output_audio.delta","response_id":1,"item_id":[],"delta":{}}',
            '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"!!"}',
            '{"type":"input_audio_buffer.speech_started","audio_start_ms":"x"}',
            '{"type":"error"}',
            '{"type":"error","error":7}',
        ],
        1,
    ),
    ("binary", [b"\x00\x01\xff", b"{}"], 1),
    ("unknown", ['{"type":"weather.changed","deep":{"x":[1]}}'] * 20, 0),
    ("large", ['{"type":"weather.changed","x":"' + "x" * 2_000_000 + '"}'], 0),
):
    behaviours[name] = partial(nonsense, messages=messages)
    scenes[name] = partial(harmless, name=name, faults=faults)


# ---- the end of the model: a message, and a clean end of the call


async def lost(here: House, name: str, reason: str, code: str) -> None:
    result = await here.call(WAITS, name)
    assert result.failure is None
    assert result.ended_by == "agent"
    assert result.unheard_ms == 0
    assert speech_ms(result) > SORRY_MS - 1500  # with the pauses between its sentences
    assert result.agent[0].start_ms < 1000 * SOON_S / 2
    row = await here.row(result.call_sid)
    assert (row["reason"], row["states"][-2][0]) == (reason, "ending")
    (line,) = here.lines_of(result.call_sid)
    assert (line["event"], line["code"]) == ("model lost", code)


async def closes(session: Conversation, code: int, reason: str = "") -> None:
    await session.configure()
    await session.until("response.create")
    await session.socket.aclose(code, reason)


async def closes_at_once(session: Conversation, code: int) -> None:
    await session.socket.aclose(code)


async def closes_in_answer(session: Conversation) -> None:
    await session.configure()
    await session.until("response.create")
    place = await session.begin()
    await session.delta(place, pcm_to_ulaw(WORDS.pcm)[:8000])
    await session.socket.aclose(1011)


async def never_creates(session: Conversation) -> None:
    await session.listen()


async def never_updates(session: Conversation) -> None:
    await session.send("session.created", session={})
    await session.listen()


async def sends_too_much(session: Conversation) -> None:
    await session.configure()
    await session.socket.send_message("x" * (client.MAX_MESSAGE + 1))
    await session.listen()


async def stays_mute(session: Conversation) -> None:
    await session.configure()
    await session.listen()


for name, behaviour, reason, code in (
    ("normal_close", partial(closes, code=1000), "model_lost", "close_1000"),
    ("server_error", partial(closes, code=1011), "model_lost", "close_1011"),
    ("strange_close", partial(closes, code=4999, reason="type.code"), "model_lost", "close_4999"),
    ("key_refused", partial(closes_at_once, code=3000), "model_unreachable", "close_3000"),
    ("in_answer", closes_in_answer, "model_lost", "close_1011"),
    ("never_creates", never_creates, "model_unreachable", "no_session"),
    ("never_updates", never_updates, "model_unreachable", "no_session"),
    ("sends_too_much", sends_too_much, "model_lost", "close_1009"),
):
    behaviours[name] = behaviour
    scenes[name] = partial(lost, name=name, reason=reason, code=code)


behaviours["stays_mute"] = stays_mute


@scenes
async def mute(here: House) -> None:
    """Nothing ever comes: a filler, then the message."""
    result = await here.call(WAITS, "stays_mute")
    assert (result.failure, result.ended_by, result.unheard_ms) == (None, "agent", 0)
    row = await here.row(result.call_sid)
    assert row["reason"] == "model_silent"
    assert 500 < result.agent[0].start_ms < 1000 * SOON_S / 2  # no_answer_s is 0.8
    assert speech_ms(result) > SORRY_MS - 1500 + 500


# ---- no WebSocket at all


async def says_nothing(stream: trio.SocketStream) -> None:
    async with stream:
        while await stream.receive_some():
            pass


async def speaks_http(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")


async def speaks_nonsense(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some()
        await stream.send_all(b"\x00" * 40_000)


PEERS = {
    "says_nothing": (says_nothing, "unreachable"),
    "speaks_http": (speaks_http, "http_200"),
    "speaks_nonsense": (speaks_nonsense, "unreachable"),
}
for name, (_, code) in PEERS.items():
    scenes[name] = partial(lost, name=name, reason="model_unreachable", code=code)
scenes["nobody"] = partial(lost, name="nobody", reason="model_unreachable", code="unreachable")


# ---- bad frames, audio at the wrong time


async def breaks_framing(session: Conversation) -> None:
    await session.configure()
    await session.socket._stream.send_all(b"\xf1\x02{}")
    await session.listen()


behaviours["breaks_framing"] = breaks_framing
scenes["breaks_framing"] = partial(
    lost, name="breaks_framing", reason="model_lost", code="close_1002"
)


async def speaks_for_ever(session: Conversation) -> None:
    """An answer without end, whether or not it is listened to."""
    await session.configure()
    place = await session.begin()
    while True:
        await session.delta(place, pcm_to_ulaw(WORDS.pcm))
        await trio.sleep(0.02)


behaviours["speaks_for_ever"] = speaks_for_ever


@scenes
async def a_hundred_times_real_time(here: House) -> None:
    """Audio without end, much too fast: heard in time and order, and a hang-up ends it."""
    script = Script("hears", "", (WaitForAgentSpeech(200), Pause(3000), HangUp()))
    result = await here.call(script, "speaks_for_ever")
    assert result.failure is None
    assert not result.gaps
    assert result.unheard_ms < 3000
    assert (await here.row(result.call_sid))["reason"] == "caller_hangup"
    assert not here.lines_of(result.call_sid)


async def speaks_early(session: Conversation) -> None:
    await session.greet()
    await session.listen()


behaviours["speaks_early"] = speaks_early


async def heard_late(here: House, name: str, at_least_ms: int) -> list[str]:
    """Connect the stream half a second after the webhook, hear so much; the states of the call."""
    ids = Identifiers()
    url = await here.admit(name, ids)
    await trio.sleep(0.5)
    async with here.network.open_media(url, timeout_s=SOON_S) as socket:
        await socket.send(Narrator(ids).start({}))
        size = 0
        with trio.fail_after(SOON_S):
            while size < 8 * at_least_ms:
                message = json.loads(await socket.receive())
                if message["event"] == "media":
                    size += len(base64.b64decode(message["media"]["payload"]))
    return [state for state, _ in (await here.row(ids.call_sid))["states"]]


@scenes
async def audio_before_media(here: House) -> None:
    """The whole greeting comes while the carrier still connects: it is heard, not lost."""
    states = await heard_late(here, "speaks_early", WORDS.duration_ms - 20)
    assert states == ["ringing", "answering", "media_ready", "greeting", "ended"]


@scenes
async def lost_before_media(here: House) -> None:
    """Half an answer and the loss of the model, both while the carrier still connects."""
    states = await heard_late(here, "in_answer", 2000)
    assert states == ["ringing", "answering", "media_ready", "ending", "ended"]


async def all_of_it(folder: Path) -> Outcomes:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_models, behaviours)
        text = ""
        for name in behaviours:
            text += engine(name, port, "connect_timeout_s = 1.0") + agent(name, name, GREETS)
        for name, (peer, _) in PEERS.items():
            listeners = await nursery.start(trio.serve_tcp, peer, 0)
            own = listeners[0].socket.getsockname()[1]
            text += engine(name, own, "connect_timeout_s = 1.0") + agent(name, name, GREETS)
        text += engine("nobody", 1) + agent("nobody", "nobody", GREETS)
        async with house(folder, text) as here:
            outcomes = await scenes.play(here, nothing_is_left)
        nursery.cancel_scope.cancel()
    return outcomes


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_model_input(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
