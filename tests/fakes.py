"""A leg and an engine for tests of the call: they keep the protocols on a virtual clock."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import trio

from voiced.engine import EngineEvent, Plan, Session, ToolSpec
from voiced.formats import PCMU_8K, AudioFormat
from voiced.leg import (
    CallerAudio,
    CallFacts,
    Digit,
    Held,
    LegClosed,
    LegEvent,
    Stopped,
    Transferred,
    Unsupported,
)

FACTS = CallFacts("call-1", "twilio", "CA1", "+15550199", "+15550100")


class FakeLeg:
    """A carrier without a network: it plays what it is sent, at once, in real (virtual) time."""

    format: AudioFormat = PCMU_8K
    lead_ms = 2000

    def __init__(self) -> None:
        self._to_call, self._inbound = trio.open_memory_channel[LegEvent](math.inf)
        self._sent = 0
        self._heard_final: list[int] = []
        self._play_until = trio.current_time()  # the buffer runs dry then
        self.played: list[tuple[float, bytes]] = []  # (sent at, payload), all generations
        self.clears: list[float] = []
        self.hung_up = False
        self.closed = False
        self.transfers: list[str] = []
        self.pressed: list[str] = []
        self.stalled: trio.Event | None = None

    # what a test does as the caller

    def say(self, payload: bytes) -> None:
        self._to_call.send_nowait(CallerAudio(payload))

    def press(self, digit: str) -> None:
        self._to_call.send_nowait(Digit(digit))

    def hold(self, held: bool) -> None:
        self._to_call.send_nowait(Held(held))

    def hang_up_as_caller(self) -> None:
        self._to_call.send_nowait(Stopped("stop", hung_up=True))

    def drop(self) -> None:
        self.closed = True
        self._to_call.close()

    def bytes_played(self) -> int:
        return sum(len(payload) for _, payload in self.played)

    # the Leg protocol

    async def receive(self) -> Sequence[LegEvent]:
        try:
            return [await self._inbound.receive()]
        except trio.EndOfChannel:
            raise LegClosed from None

    def send(self, payload: bytes) -> None:
        if self.closed:
            raise LegClosed
        now = trio.current_time()
        self.played.append((now, payload))
        self._play_until = max(now, self._play_until) + len(payload) / 8000
        self._sent += len(payload)

    async def ready(self) -> None:
        if self.closed:
            raise LegClosed
        if self.stalled is not None:
            await self.stalled.wait()

    def sent(self) -> int:
        return self._sent

    def heard(self) -> int:
        left = max(0.0, self._play_until - trio.current_time())
        return max(0, self._sent - math.ceil(round(left * 8000, 6)))

    def seconds_until(self, position: int) -> float:
        return max(0, position - self.heard()) / 8000

    def clear(self) -> int:
        heard = self.heard()
        self.clears.append(trio.current_time())
        self._heard_final.append(heard)
        self._sent = 0
        self._play_until = trio.current_time()
        return heard

    async def drained(self) -> None:
        await trio.sleep(max(0.0, self._play_until - trio.current_time()))

    async def transfer(self, target: str) -> Transferred:
        self.transfers.append(target)
        return await self.outcome(target)

    async def outcome(self, target: str) -> Transferred:
        """What becomes of a transfer; a test replaces it."""
        raise Unsupported("nowhere to go")

    def send_digits(self, digits: str) -> None:
        self.pressed.append(digits)

    def facts(self) -> dict[str, int | float | str | bool | None]:
        return {"sent": self._sent}

    async def hang_up(self) -> None:
        self.hung_up = True


class FakeSession:
    """A model that says what the test has it say, and remembers what it was told."""

    def __init__(
        self, plan: Plan, input_format: AudioFormat = PCMU_8K, output_format: AudioFormat = PCMU_8K
    ) -> None:
        self.plan = plan
        self.input_format = input_format
        self.output_format = output_format
        self._to_call, self._events = trio.open_memory_channel[EngineEvent](math.inf)
        self.heard = bytearray()
        self.commands: list[tuple[object, ...]] = []
        self.closed = False

    def emit(self, *events: EngineEvent) -> None:
        for event in events:
            self._to_call.send_nowait(event)

    async def receive(self) -> Sequence[EngineEvent]:
        return [await self._events.receive()]

    def send_audio(self, payload: bytes) -> None:
        self.heard += payload

    def respond(self, instructions: str | None = None) -> None:
        self.commands.append(("respond", instructions))

    def add_message(self, role: Literal["user", "assistant", "system"], text: str) -> None:
        self.commands.append(("add_message", role, text))

    def cancel(self) -> None:
        self.commands.append(("cancel",))

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        self.commands.append(("truncate", item_id, content_index, audio_end_ms))

    def delete(self, item_id: str) -> None:
        self.commands.append(("delete", item_id))

    def set_tools(self, tools: Sequence[ToolSpec]) -> None:
        self.commands.append(("set_tools", *(tool.name for tool in tools)))

    def tool_result(self, call_id: str, output: str) -> None:
        self.commands.append(("tool_result", call_id, output))


class FakeEngine:
    """Opens one `FakeSession` a call."""

    name = "fake"
    model = "model"

    def __init__(self, **formats: AudioFormat) -> None:
        self._formats = formats
        self.sessions: list[FakeSession] = []

    @asynccontextmanager
    async def open(self, plan: Plan) -> AsyncIterator[Session]:
        session = FakeSession(plan, **self._formats)
        self.sessions.append(session)
        try:
            yield session
        finally:
            session.closed = True
