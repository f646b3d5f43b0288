"""The engine with the providers that ship, over HTTP through memory, on a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from tests.pipeline.house import House, Stt, Thinker, Voice, plan
from tests.pipeline.peer import URL, Peer, Reply, Request, hours
from voiced.completing import Completer, Used
from voiced.config import types
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    Billed,
    CallerTranscript,
    EngineEvent,
    EngineFault,
    Lost,
    Ready,
    ResponseDone,
    ResponseStarted,
    Usage,
)
from voiced.formats import PCM16_24K
from voiced.pipeline import PipelineEngine, at_emulator
from voiced.pipeline.client import Http
from voiced.pipeline.providers import ChatPiece

CONFIG = types.PipelineEngine(
    stt=types.SpeechToText(url=URL, timeout_s=5),
    chat=types.Chat(url=URL, timeout_s=5, model="thinker"),
    tts=types.TextToSpeech(url=URL, timeout_s=5, voice="onyx"),
)


@asynccontextmanager
async def talking(
    peer: Peer, agent: Agent | None = None, *, ready: bool = True
) -> AsyncIterator[House]:
    """A session at this server, ready."""
    async with peer.http() as http:
        engine = PipelineEngine("test", CONFIG, http=http)
        async with engine.open(plan(agent)) as session:
            h = House(session, Stt(), Thinker(), Voice())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(h.listen)
                if ready:
                    await h.until(Ready)
                yield h
                nursery.cancel_scope.cancel()


async def test_a_turn_is_answered_over_http(autojump_clock: MockClock) -> None:
    peer = Peer()
    async with talking(peer, Agent(language="de")) as h:
        assert h.session.output_format == PCM16_24K
        await h.turn()
        await h.until(ResponseDone)
    (words,) = h.of(CallerTranscript)
    assert (words.text, words.usage) == ("When are you open?", Usage(transcription_s=2))
    assert h.of(ResponseDone)[0].usage == Usage(
        text_in=20, text_out=10, speech_characters=67, speech_s=2.0
    )
    assert h.sound() == b"\x01\x02" * 24000 * 2
    assert all(len(event.payload) % 2 == 0 for event in h.of(AgentAudio))
    assert [request.json["input"] for request in peer.of("/audio/speech")] == [
        "We are open from nine to five.",
        "Shall I book a table for you tonight?",
    ]
    assert {request.json["voice"] for request in peer.of("/audio/speech")} == {"onyx"}
    assert b'name="language"\r\n\r\nde\r\n' in peer.of("/audio/transcriptions")[0].body
    assert peer.connections <= 3  # chat and two voices at a time


async def test_first_sound_comes_before_the_answer_is_written(autojump_clock: MockClock) -> None:
    written: list[float] = []

    async def handler(request: Request, reply: Reply) -> None:
        if request.path.endswith("/chat/completions"):
            await reply.words("We are open from nine to five. " + "And so on. " * 40, gap_s=0.1)
            written.append(trio.current_time())
        else:
            await hours(request, reply)

    async with talking(Peer(handler)) as h:
        h.session.respond()
        await h.until(ResponseDone)
        # Seven words and one more, which shows that the sentence has ended.
        assert h.at(AgentAudio)[0] - h.at(ResponseStarted)[0] == pytest.approx(0.7, abs=0.05)
        assert written[0] - h.at(ResponseStarted)[0] > 10


async def test_an_interruption_hangs_up_on_the_servers(autojump_clock: MockClock) -> None:
    async def handler(request: Request, reply: Reply) -> None:
        if request.path.endswith("/chat/completions"):
            await reply.words("We are open from nine to five. " * 50, gap_s=0.1)
        elif request.path.endswith("/audio/speech"):
            await reply.sound(60_000, gap_s=0.05)
        else:
            await hours(request, reply)

    peer = Peer(handler)
    async with talking(peer) as h:
        h.session.respond()
        await h.until(AgentAudio, count=40)
        h.session.cancel()
        await trio.sleep(1)
        assert h.done() == ["cancelled"]
        assert peer.cut == 3  # the chat, this sentence and the next
        count = len(peer.requests)
        await trio.sleep(10)
        assert len(peer.requests) == count


async def test_sound_that_breaks_off_goes_on(autojump_clock: MockClock) -> None:
    tries: list[None] = []

    async def handler(request: Request, reply: Reply) -> None:
        if request.path.endswith("/audio/speech") and not tries:
            tries.append(None)
            await reply.head(content_type="audio/pcm")
            await reply.part(b"\x01\x02" * 5000 + b"\x01")  # and hangs up
        else:
            await hours(request, reply)

    async with talking(Peer(handler)) as h:
        h.session.respond()
        await h.until(ResponseDone)
    assert h.sound() == b"\x01\x02" * 24000 * 2
    assert [fault.code for fault in h.of(EngineFault)] == ["connection_lost"]


async def lost(peer: Peer) -> Lost:
    """How a session ends that never becomes ready."""
    async with talking(peer, ready=False) as h:
        await h.until(Lost)
        (only,) = h.events
        assert isinstance(only[1], Lost)
        return only[1]


async def test_servers_that_are_not_there_cost_the_session_at_once(
    autojump_clock: MockClock,
) -> None:
    assert await lost(Peer(down=True)) == Lost("unreachable", "Connection refused", True)


async def test_a_wrong_key_is_known_at_once(autojump_clock: MockClock) -> None:
    async def handler(_: Request, reply: Reply) -> None:
        error = {"message": "Incorrect API key", "code": "invalid_api_key"}
        await reply.json({"error": error}, status=401)

    assert await lost(Peer(handler)) == Lost("invalid_api_key", "Incorrect API key", False)


async def test_a_wrong_key_says_more_than_a_server_that_is_away(autojump_clock: MockClock) -> None:
    """Though that is found out first: another attempt is of no use."""

    async def handler(_: Request, reply: Reply) -> None:
        await trio.sleep(1)
        await reply.json({"error": {"message": "No", "code": "invalid_api_key"}}, status=401)

    away = types.SpeechToText(url="http://away.test/v1", timeout_s=5)
    config = types.PipelineEngine(stt=away, chat=CONFIG.chat, tts=CONFIG.tts)
    async with (
        Peer(handler, away="away.test").http() as http,
        PipelineEngine("test", config, http=http).open(plan()) as session,
    ):
        (event,) = await session.receive()
    assert event == Lost("invalid_api_key", "No", retryable=False)


async def test_a_slow_list_of_models_keeps_nobody_waiting(autojump_clock: MockClock) -> None:
    async def handler(request: Request, reply: Reply) -> None:
        if request.path.endswith("/models"):
            await trio.sleep(60)
        await hours(request, reply)

    async with talking(Peer(handler)) as h:
        h.session.respond()
        await h.until(ResponseDone)
    assert h.at(Ready)[0] < 5
    assert h.done() == ["completed"]


async def test_servers_are_asked_once_a_minute(autojump_clock: MockClock) -> None:
    peer = Peer()
    async with peer.http() as http:
        engine = PipelineEngine("test", CONFIG, http=http)

        async def ready() -> None:
            async with engine.open(plan()) as session:
                assert list(await session.receive()) == [Ready()]

        for _ in range(3):
            await ready()
        assert len(peer.of("/models")) == 1
        await trio.sleep(61)
        await ready()
    assert len(peer.of("/models")) == 2


async def test_servers_that_failed_are_asked_again(autojump_clock: MockClock) -> None:
    async def handler(request: Request, reply: Reply) -> None:
        if request.path.endswith("/chat/completions"):
            await reply.json({}, status=503)
        else:
            await hours(request, reply)

    peer = Peer(handler)
    async with peer.http() as http:
        engine = PipelineEngine("test", CONFIG, http=http)
        for _ in range(2):
            async with engine.open(plan()) as session:
                session.respond()
                events: list[EngineEvent] = []
                while not any(isinstance(event, Lost) for event in events):
                    events += await session.receive()
    assert len(peer.of("/models")) == 2


async def test_a_rate_limit_is_waited_for(autojump_clock: MockClock) -> None:
    busy = [None, None]

    async def handler(request: Request, reply: Reply) -> None:
        if request.path.endswith("/chat/completions") and busy:
            busy.pop()
            error = {"message": "Slow down", "code": "rate_limit_exceeded"}
            await reply.json({"error": error}, status=429, retry_after="1")
        else:
            await hours(request, reply)

    async with talking(Peer(handler)) as h:
        busy.pop()
        h.session.respond()
        await h.until(ResponseDone)
        assert h.at(AgentAudio)[0] - h.at(ResponseStarted)[0] >= 0.999
        busy.extend([None, None])
        h.session.respond()
        await h.until(Lost)
    assert h.of(Lost) == [Lost("rate_limit_exceeded", "Slow down", True)]


async def test_connections_do_not_outlive_the_last_call(autojump_clock: MockClock) -> None:
    peer = Peer()
    async with peer.http() as outer:
        http = Http(outer._transport)
        engine = PipelineEngine("test", CONFIG, http=http)
        for count in (1, 2):
            async with engine.open(plan()) as first, engine.open(plan()) as second:
                for session in (first, second):
                    session.respond()
                    events: list[EngineEvent] = []
                    while not any(isinstance(event, ResponseDone) for event in events):
                        events += await session.receive()
            assert http._open is None
            assert peer.connections <= 3 * count


async def test_a_text_for_a_plugin(autojump_clock: MockClock) -> None:
    peer = Peer()
    bills: list[tuple[str, Usage]] = []
    async with peer.http() as http:
        engine = PipelineEngine("test", CONFIG, http=http)
        asked = [{"role": "user", "content": "Sum it up."}]
        text = await engine.complete(asked, lambda *bill: bills.append(bill))
        assert text.startswith("We are open from nine")
        assert peer.requests[0].json["messages"] == asked
        ((model, usage),) = bills
        assert model == "thinker"
        assert usage.text_in > 0
        assert usage.text_out > 0
        bills.clear()
        peer.handler = broken
        with pytest.raises(OSError, match="http_500"):
            await engine.complete(asked, lambda *bill: bills.append(bill))
        assert bills == []  # nothing was made


async def test_a_text_that_is_broken_off_is_billed_once_as_estimated(
    autojump_clock: MockClock,
) -> None:
    class Slow:
        async def stream(self, messages: object, tools: object) -> AsyncGenerator[ChatPiece, None]:
            yield "We are open"
            await trio.sleep(2)

    config = types.PipelineEngine(
        stt=types.SpeechToText(provider="openai"),
        chat=types.Chat(provider="mine", model="own"),
        tts=types.TextToSpeech(provider="openai"),
    )
    engine = PipelineEngine("test", config, {"mine": {"chat": lambda settings: Slow()}})
    completer = Completer()
    completer.models = {"test": engine.complete}
    used: list[Used] = []
    completer.used = used.append
    with trio.move_on_after(1):
        await completer("test", [{"role": "user", "content": "Sum it up."}], "c1")
    ((one),) = used
    assert (one.call_id, one.model) == ("c1", "own")
    assert (one.usage.text_in, one.usage.text_out) == (7, 3)  # four bytes to a token, and a frame


async def broken(_: Request, reply: Reply) -> None:
    await reply.json({}, status=500)


def test_an_engine_has_a_name_and_a_model() -> None:
    engine = PipelineEngine("legacy", CONFIG)
    assert (engine.name, engine.model) == ("legacy", "thinker")


def test_steps_of_the_emulator_are_placed() -> None:
    own = types.TextToSpeech(url="http://own.test/v1", provider="openai")
    config = types.PipelineEngine(
        stt=types.SpeechToText(provider="emulator", api_key="k"),
        chat=types.Chat(provider="emulator", model="m"),
        tts=own,
    )
    placed = at_emulator(config, "http://127.0.0.1:7/v1")
    assert placed.tts is own
    assert placed.chat == types.Chat(url="http://127.0.0.1:7/v1", model="emulator")
    assert PipelineEngine("e", placed).billed(Agent()) == Billed(
        "emulator", "emulator", "gpt-4o-mini-tts"
    )
    assert (placed.stt.provider, placed.stt.api_key) == ("openai", None)
    assert at_emulator(CONFIG, "http://127.0.0.1:7/v1") is CONFIG


class NoGenerator:
    async def stream(self, *_: Any) -> None: ...


def raises(_: Any) -> None:
    raise RuntimeError("no model file")


@pytest.mark.parametrize(
    ("changes", "providers", "why"),
    [
        ({"stt": types.SpeechToText(provider="whisper")}, {}, "whisper"),
        ({"detector": "silero"}, {"silero": {"stt": Stt}}, "silero"),
        (
            {"chat": types.Chat(provider="mine")},
            {"mine": {"chat": lambda _: NoGenerator()}},
            "async generator",
        ),
        (
            {"stt": types.SpeechToText(provider="mine")},
            {"mine": {"stt": lambda _: NoGenerator()}},
            "coroutine function `transcribe`",
        ),
        (
            {"tts": types.TextToSpeech(provider="mine")},
            {"mine": {"tts": lambda _: Voice(rate=22050)}},
            "22050 Hz",
        ),
        (
            {"tts": types.TextToSpeech(provider="mine")},
            {"mine": {"tts": raises}},
            "'mine' cannot make its tts: RuntimeError: no model file",
        ),
    ],
)
def test_a_provider_that_is_none_is_refused(
    changes: dict[str, Any], providers: Any, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        PipelineEngine("legacy", msgspec.structs.replace(CONFIG, **changes), providers)
