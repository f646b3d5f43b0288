"""A model that says what a test has it say."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import trio

from voiced.config.types import Agent
from voiced.engine import Billed, EngineEvent, Plan, Session, ToolSpec
from voiced.formats import PCMU_8K, AudioFormat

__all__ = ["FakeEngine", "FakeSession"]


class FakeSession:
    """A conversation (`voiced.engine.Session`): remembers the caller's audio and every command.

    `commands` holds tuples: the method's name, then its arguments; `heard` the caller's audio.
    """

    def __init__(
        self, plan: Plan, input_format: AudioFormat = PCMU_8K, output_format: AudioFormat = PCMU_8K
    ) -> None:
        self.plan = plan
        self.input_format = input_format
        self.output_format = output_format
        # Unbounded: a test sends what it likes, and ends.
        self._to_call, self._events = trio.open_memory_channel[EngineEvent](math.inf)
        self.heard = bytearray()
        self.commands: list[tuple[object, ...]] = []
        self.tools: tuple[ToolSpec, ...] = plan.tools
        self.closed = False

    def emit(self, *events: EngineEvent) -> None:
        """Have the model tell the call something."""
        for event in events:
            self._to_call.send_nowait(event)

    # ---- the Session protocol ----

    async def receive(self) -> Sequence[EngineEvent]:
        """What the test emitted."""
        return [await self._events.receive()]

    def send_audio(self, payload: bytes) -> None:
        """The caller's audio."""
        self.heard += payload

    def respond(self, instructions: str | None = None) -> None:
        """Noted, as all that follows."""
        self.commands.append(("respond", instructions))

    def add_message(self, role: Literal["user", "assistant", "system"], text: str) -> None:
        """A text for the conversation."""
        self.commands.append(("add_message", role, text))

    def cancel(self) -> None:
        """The answer is to stop."""
        self.commands.append(("cancel",))

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Only so much of an item was heard."""
        self.commands.append(("truncate", item_id, content_index, audio_end_ms))

    def delete(self, item_id: str) -> None:
        """Nothing of an item was heard."""
        self.commands.append(("delete", item_id))

    def set_tools(self, tools: Sequence[ToolSpec]) -> None:
        """The functions that the model may call."""
        self.tools = tuple(tools)
        self.commands.append(("set_tools", *(tool.name for tool in tools)))

    def tool_result(self, call_id: str, output: str) -> None:
        """What a function returned."""
        self.commands.append(("tool_result", call_id, output))


class FakeEngine:
    """Opens one `FakeSession` a call (`voiced.engine.Engine`); `formats` as `FakeSession` has."""

    name = "fake"
    model = "model"

    def __init__(self, **formats: AudioFormat) -> None:
        self._formats = formats
        self.sessions: list[FakeSession] = []

    def billed(self, agent: Agent) -> Billed:
        """Only the model costs something, if there is a price for it."""
        return Billed(self.model)

    @asynccontextmanager
    async def open(self, plan: Plan) -> AsyncIterator[Session]:
        """A session that is not ready until the test emits `Ready`."""
        session = FakeSession(plan, **self._formats)
        self.sessions.append(session)
        try:
            yield session
        finally:
            session.closed = True
