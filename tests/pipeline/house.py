"""A pipeline whose three steps do as a test says, and a call's ear at its end."""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from voiced.config.types import Agent, Chat, PipelineEngine, SpeechToText, TextToSpeech
from voiced.engine import (
    AgentAudio,
    EngineEvent,
    Plan,
    Ready,
    ResponseDone,
    Session,
    ToolSpec,
    Usage,
)
from voiced.formats import PCMU_8K, AudioFormat, Encoding
from voiced.pipeline import PipelineEngine as Engine
from voiced.pipeline.providers import ChatPiece, Message, Transcription

RATE = 16000
BYTES_PER_MS = 32  # of the speech
USED = Usage(text_in=20, text_out=10)


@dataclass
class Stt:
    """Hears the texts that it is told, one a turn, each after `delay_s`."""

    texts: list[str | Exception] = field(default_factory=list)
    delay_s: float = 0.2
    heard: list[tuple[int, int, str | None]] = field(default_factory=list)  # ms, rate, language

    async def transcribe(self, pcm16: bytes, rate: int, language: str | None) -> Transcription:
        self.heard.append((len(pcm16) // (rate // 500), rate, language))
        text = self.texts.pop(0) if self.texts else "Hello?"
        await trio.sleep(self.delay_s)
        if isinstance(text, Exception):
            raise text
        return Transcription(text)


@dataclass
class Thinker:
    """Answers with what it is told, piece by piece, `gap_s` before each."""

    answers: list[list[ChatPiece | Exception]] = field(default_factory=list)
    gap_s: float = 0.05
    asked: list[tuple[Sequence[Message], Sequence[ToolSpec]]] = field(default_factory=list)
    finished: int = 0
    cancelled: int = 0

    def say(self, text: str, *more: ChatPiece | Exception) -> None:
        """A word at a time."""
        self.answers.append([*(word + " " for word in text.split()), *more])

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[ChatPiece, None]:
        self.asked.append((list(messages), list(tools)))
        pieces = self.answers.pop(0) if self.answers else ["Certainly. "]
        try:
            for piece in pieces:
                await trio.sleep(self.gap_s)
                if isinstance(piece, Exception):
                    raise piece
                yield piece
            yield USED
            self.finished += 1
        except (trio.Cancelled, GeneratorExit):
            self.cancelled += 1
            raise

    def conversation(self, at: int = -1) -> list[tuple[str, str]]:
        return [(message.role, message.content) for message in self.asked[at][0]]


@dataclass
class Voice:
    """Speaks 50 ms a character, in pieces of 100 ms that come four times as fast as they sound."""

    delay_s: float = 0.3
    rate: int = RATE
    failures: list[tuple[int, Exception]] = field(default_factory=list)  # (after pieces, what)
    said: list[tuple[str, float]] = field(default_factory=list)  # text, asked at
    voices: set[tuple[str, str | None]] = field(default_factory=set)
    running: int = 0
    most: int = 0
    cancelled: int = 0

    async def stream(
        self, text: str, *, voice: str, language: str | None
    ) -> AsyncGenerator[bytes, None]:
        self.said.append((text, trio.current_time()))
        self.voices.add((voice, language))
        after, failure = self.failures.pop(0) if self.failures else (0, None)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(self.delay_s)
            for at in range(max(1, len(text) // 2)):
                if failure is not None and at == after:
                    raise failure
                # The value tells the piece, so that what is lost or doubled can be seen.
                yield struct.pack("<h", at) * (RATE // 10)
                await trio.sleep(0.025)
        except (trio.Cancelled, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def tone(ms: int, audio: AudioFormat = PCMU_8K) -> bytes:
    """Speech, as far as the detector can tell."""
    if audio.encoding is Encoding.PCMU:
        return bytes([0x10] * 8 + [0x90] * 8) * (ms // 2)
    wave = (int(8000 * math.sin(i * 0.3)) for i in range(ms * audio.rate // 1000))
    return b"".join(struct.pack("<h", sample) for sample in wave)


class House:
    """One session and its three steps."""

    def __init__(self, session: Session, stt: Stt, chat: Thinker, tts: Voice) -> None:
        self.session = session
        self.stt = stt
        self.chat = chat
        self.tts = tts
        self.events: list[tuple[float, EngineEvent]] = []
        self._awaited = 0
        self.frame = session.input_format.frame_bytes

    async def listen(self) -> None:
        """Take events as a call does, at once."""
        while True:
            taken = await self.session.receive()
            assert taken
            self.events += [(trio.current_time(), event) for event in taken]

    async def talk(self, payload: bytes) -> None:
        """Send audio in real time."""
        for at in range(0, len(payload), self.frame):
            self.session.send_audio(payload[at : at + self.frame])
            await trio.sleep(0.02)

    async def turn(self, ms: int = 600, quiet_ms: int = 600) -> None:
        """Speak, and be quiet for long enough."""
        audio = self.session.input_format
        await self.talk(tone(ms, audio) + audio.silence(quiet_ms))

    async def until(self, *kinds: type[Any], count: int = 1) -> None:
        """Wait for events of these kinds, the next after those that were waited for before."""
        with trio.fail_after(120):
            while count:
                while len(self.events) == self._awaited:
                    await trio.sleep(0.005)
                count -= isinstance(self.events[self._awaited][1], kinds)
                self._awaited += 1

    def of(self, *kinds: type[Any]) -> list[Any]:
        return [event for _, event in self.events if isinstance(event, kinds)]

    def at(self, kind: type[Any]) -> list[float]:
        return [time for time, event in self.events if isinstance(event, kind)]

    def kinds(self) -> list[str]:
        """Names of the events in order, runs of the same as one."""
        names = [type(event).__name__ for _, event in self.events]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]

    def sound(self) -> bytes:
        return b"".join(event.payload for event in self.of(AgentAudio))

    def item(self) -> str:
        """The last item that sounded."""
        item_id: str = self.of(AgentAudio)[-1].item_id
        return item_id

    def done(self) -> list[str]:
        return [event.status for event in self.of(ResponseDone)]


def plan(agent: Agent | None = None, **fields: Any) -> Plan:
    settings: dict[str, Any] = {"instructions": "Be brief.", "leg_format": PCMU_8K, **fields}
    return Plan("call-1", agent or Agent(), **settings)


def engine_of(
    stt: Stt,
    chat: Thinker,
    tts: Voice,
    *,
    name: str = "test",
    max_history: int = 40,
    detector: Any = None,
    max_utterance_s: float = 30.0,
) -> Engine:
    """An engine whose steps are plugged in."""
    config = PipelineEngine(
        stt=SpeechToText(provider="own", timeout_s=5),
        chat=Chat(provider="own", timeout_s=5, max_history=max_history, model=f"{name}-model"),
        tts=TextToSpeech(provider="own", timeout_s=5),
        max_utterance_s=max_utterance_s,
        detector="own" if detector else "energy",
    )
    made = {"stt": lambda _: stt, "chat": lambda _: chat, "tts": lambda _: tts}
    if detector:
        made["detector"] = detector
    return Engine(name, config, {"own": made})


@asynccontextmanager
async def house(
    agent: Agent | None = None,
    *,
    listen: bool = True,
    stt: Stt | None = None,
    chat: Thinker | None = None,
    tts: Voice | None = None,
    detector: Any = None,
    max_utterance_s: float = 30.0,
    **fields: Any,
) -> AsyncIterator[House]:
    """A session of plugged-in steps, ready."""
    stt, chat, tts = stt or Stt(), chat or Thinker(), tts or Voice()
    engine = engine_of(stt, chat, tts, detector=detector, max_utterance_s=max_utterance_s)
    async with engine.open(plan(agent, **fields)) as session:
        built = House(session, stt, chat, tts)
        async with trio.open_nursery() as nursery:
            if listen:
                nursery.start_soon(built.listen)
                await built.until(Ready)
            yield built
            nursery.cancel_scope.cancel()
