"""Engines that do what a test says, on a virtual clock, and notice what is done to them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import trio

from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    Billed,
    CallerTranscript,
    Committed,
    EngineEvent,
    Lost,
    Plan,
    Ready,
    ResponseDone,
    ResponseStarted,
    Said,
    Session,
    SpeechStarted,
    SpeechStopped,
    ToolSpec,
)
from voiced.formats import PCMU_8K, AudioFormat
from voiced.steady import Guard, Guarded, SteadyEngine

REFUSED = Lost("http_503", "refused", retryable=True)
BAD_KEY = Lost("invalid_api_key", "no", retryable=False)

HELLO = b"\x11" * 160
"""20 ms of what a caller says."""


def tool(name: str) -> ToolSpec:
    """A function that a model may call."""
    return ToolSpec(name, "does it", {"type": "object"})


class Misused(BaseException):
    """What no session may be used for. No Exception: those cost a session, and a test goes on."""


class FakeSession:
    """Ready after its engine's `connect_s`, or what the engine has in stock instead."""

    def __init__(self, engine: FakeEngine, plan: Plan) -> None:
        self.engine = engine
        self.plan = plan
        self.opened_at = trio.current_time()
        self.expires_in_s = engine.expires_in_s
        self.retry_after_s = engine.retry_after_s
        self.input_format = engine.input_format
        self.output_format = engine.output_format
        self._to_call, self._events = trio.open_memory_channel[EngineEvent](math.inf)
        self.heard = bytearray()
        self.commands: list[tuple[object, ...]] = []
        self.closed = False
        self._receiving = False
        self.interrupt = self._interrupt if engine.interruptible else None
        self._wait = trio.CancelScope()

    def _interrupt(self) -> None:
        self._wait.cancel()

    # what a test has the model do

    def emit(self, *events: EngineEvent) -> None:
        for event in events:
            self._to_call.send_nowait(event)

    def lose(self, code: str = "close_1006", *, retryable: bool = True) -> None:
        self.emit(Lost(code, "gone", retryable))

    def start(self, response_id: str = "r1") -> None:
        self.emit(ResponseStarted(response_id))

    def speak(self, ms: int, words: str = "", item_id: str = "i1", response_id: str = "r1") -> None:
        if words:
            self.emit(AgentTranscript(item_id, words, final=False))
        self.emit(AgentAudio(response_id, item_id, 0, b"\x7f" * (8 * ms)))

    def end(self, item_id: str = "i1", response_id: str = "r1") -> None:
        self.emit(AgentAudioDone(response_id, item_id), ResponseDone(response_id, "completed"))

    def answer(self, ms: int = 500, words: str = "Yes.") -> None:
        self.start()
        self.speak(ms, words)
        self.end()

    def hears(self, item_id: str = "c1", words: str | None = "What is it?") -> None:
        """A whole turn of the caller, written down unless `words` is None."""
        self.emit(SpeechStarted(item_id, 0), SpeechStopped(item_id, 500), Committed(item_id))
        if words is not None:
            self.emit(CallerTranscript(item_id, words, final=True))

    # the protocol

    def _check(self) -> None:
        if self.closed:
            raise Misused("used after it was closed")

    async def receive(self) -> Sequence[EngineEvent]:
        self._check()
        if self._receiving:
            raise Misused("two receive at a time")
        self._receiving = True
        events: list[EngineEvent] = []
        try:
            with trio.CancelScope() as self._wait:
                events.append(await self._events.receive())
            while True:
                try:
                    events.append(self._events.receive_nowait())
                except trio.WouldBlock:
                    return events
        finally:
            self._receiving = False

    def send_audio(self, payload: bytes) -> None:
        self._check()
        self.heard += payload

    def respond(self, instructions: str | None = None) -> None:
        self._check()
        self.commands.append(("respond", instructions))

    def add_message(self, role: Literal["user", "assistant", "system"], text: str) -> None:
        self._check()
        self.commands.append(("message", role, text))

    def cancel(self) -> None:
        self._check()
        self.commands.append(("cancel",))

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        self._check()
        self.commands.append(("truncate", item_id, content_index, audio_end_ms))

    def delete(self, item_id: str) -> None:
        self._check()
        self.commands.append(("delete", item_id))

    def set_tools(self, tools: Sequence[ToolSpec]) -> None:
        self._check()
        self.commands.append(("tools", [tool.name for tool in tools]))

    def tool_result(self, call_id: str, output: str) -> None:
        self._check()
        self.commands.append(("result", call_id, output))

    def texts(self) -> list[tuple[object, object]]:
        return [(each[1], each[2]) for each in self.commands if each[0] == "message"]

    def asked(self) -> list[object]:
        return [each[1] for each in self.commands if each[0] == "respond"]


class FakeEngine:
    """`fails` are taken one by one; with `down` every attempt fails with it."""

    def __init__(
        self,
        name: str = "one",
        *,
        connect_s: float = 0.05,
        down: Lost | None = None,
        fails: Sequence[Lost] = (),
        expires_in_s: float | None = None,
        input_format: AudioFormat = PCMU_8K,
        output_format: AudioFormat = PCMU_8K,
        interruptible: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        self.retry_after_s = retry_after_s
        self.interruptible = interruptible
        self.name = name
        self.model = f"model-{name}"
        self.connect_s = connect_s
        self.down = down
        self.fails = list(fails)
        self.expires_in_s = expires_in_s
        self.input_format = input_format
        self.output_format = output_format
        self.sessions: list[FakeSession] = []
        self.open_now = 0
        self.most_open = 0

    def billed(self, agent: Agent) -> Billed:
        return Billed(self.model)

    @property
    def newest(self) -> FakeSession:
        return self.sessions[-1]

    @asynccontextmanager
    async def open(self, plan: Plan) -> AsyncIterator[Session]:
        session = self._session(plan)
        self.sessions.append(session)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run, session)
                try:
                    yield session
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            session.closed = True
            self.open_now -= 1

    def _session(self, plan: Plan) -> FakeSession:
        return FakeSession(self, plan)

    async def _run(self, session: FakeSession) -> None:
        """What a connection does in a task of its own."""
        await self._connect(session)

    async def _connect(self, session: FakeSession) -> None:
        await trio.sleep(self.connect_s)
        loss = self.fails.pop(0) if self.fails else self.down
        session.emit(Ready() if loss is None else loss)


class Call:
    """The call's side: takes events as a call does, keeps the history as it was told."""

    def __init__(
        self,
        primary: FakeEngine,
        fallback: FakeEngine | None = None,
        *,
        agent: Agent | None = None,
        tools: tuple[ToolSpec, ...] = (),
        guards: Sequence[Guard] = (),
    ) -> None:
        engines = [primary] if fallback is None else [primary, fallback]
        self.guards = list(guards) or [Guard(engine.name) for engine in engines]
        sides = [Guarded(engine, guard) for engine, guard in zip(engines, self.guards, strict=True)]
        self.engine = SteadyEngine(*sides)
        self.history: list[Said] = []
        self.events: list[EngineEvent] = []
        self.times: list[float] = []
        agent = agent or Agent()
        self.plan = Plan("call-1", agent, "Be brief.", PCMU_8K, tools, lambda: self.history)
        self.session: Session

    @asynccontextmanager
    async def talk(self) -> AsyncIterator[Call]:
        """Inside, events are taken as they come."""
        async with self.engine.open(self.plan) as self.session, trio.open_nursery() as nursery:
            nursery.start_soon(self._take)
            yield self
            nursery.cancel_scope.cancel()

    async def _take(self) -> None:
        while True:
            for event in await self.session.receive():
                self.events.append(event)
                self.times.append(trio.current_time())
                self.on_event(event)

    def on_event(self, event: EngineEvent) -> None:
        if isinstance(event, CallerTranscript) and event.final:
            self.history.append(Said("user", event.text))
        elif isinstance(event, AgentTranscript):
            self.history.append(Said("assistant", event.text))

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def of(self, kind: type[EngineEvent]) -> list[EngineEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    def at(self, kind: type[EngineEvent]) -> float:
        """When the last of them came."""
        return max(
            at for at, event in zip(self.times, self.events, strict=True) if isinstance(event, kind)
        )
