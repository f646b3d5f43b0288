"""How a call begins to be heard: tone, delay, what plugins put before, and the greeting itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from voiced import wav
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    AgentTranscript,
    EngineEvent,
    ResponseDone,
    ResponseStarted,
    Session,
    exactly,
)
from voiced.formats import AudioFormat
from voiced.hooks.calls import CallHooks
from voiced.plugin import Audio, Clip, Greeting
from voiced.prompts import Prompts, tone

__all__ = ["CLIP", "GREETING", "LOCAL", "GreetingCapture", "ModelGreeting", "Opening"]

LOCAL: Final = "local:"  # item ids of what voiced plays itself; the model knows nothing of them
CLIP: Final = f"{LOCAL}clip:"  # of these, what plugins have played
GREETING: Final = f"{LOCAL}greeting:"  # and of these, a recorded greeting

CAPTURED_S: Final = 30
"""A greeting that is longer is not one; it is not handed on to be kept."""

MAX_ITEMS: Final = 16
MAX_TEXT: Final = 4000
"""Nor is one of more parts than that, or of more characters in one of them."""

Queue = Callable[[str, bytes], None]
"""Has audio heard after all that was queued before; the item's id first."""


class Opening:
    """Puts everything that stands before the caller's first word into the playout, in order."""

    def __init__(
        self,
        agent: Agent,
        form: AudioFormat,
        read: Callable[[Clip], Awaitable[bytes]],
        prompts: Prompts,
        queue: Queue,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`read` gives the audio of a plugin's clip, and raises WavError or KeyError."""
        self._agent = agent
        self._form = form
        self._read = read
        self._prompts = prompts
        self._queue = queue
        self._log = log
        self.recorded = False
        """The greeting is in the playout, whatever made it."""
        self.supplied = False
        """It is a plugin's."""

    async def prepare(self, planned: Greeting) -> None:
        """Read and queue. What cannot be read is left out, and said so in the log."""
        agent, form = self._agent, self._form
        if agent.connection_tone:
            self._queue(f"{LOCAL}tone", tone(form))
        if agent.greeting_delay_ms:
            # Silence that is played, not a timer: exact on the carrier's own clock.
            self._queue(f"{LOCAL}delay", form.silence(agent.greeting_delay_ms))
        for place, clip in enumerate(planned.before):
            try:
                self._queue(f"{LOCAL}before:{place}", await self._read(clip))
            except (wav.WavError, KeyError) as error:
                self._log.error("clip left out", clip=str(clip)[:200], error=str(error))
        if planned.audio is not None:
            try:
                self._queue(f"{GREETING}0", await self._read(planned.audio))
            except wav.WavError as error:
                self._log.error("plugin's greeting left out", error=str(error))
            else:
                self.recorded = self.supplied = True
                return
        for place, path in enumerate(agent.greeting_files):  # one file may stand there twice
            try:
                self._queue(f"{GREETING}{place}", await self._prompts.file(path, form))
                self.recorded = True
            except wav.WavError as error:
                self._log.error("greeting file left out", file=str(path), error=str(error))


class GreetingCapture:
    """Collects the model's greeting as it is made, for a plugin that keeps it."""

    def __init__(self, form: AudioFormat, made: Callable[[Audio], None]) -> None:
        """`form` is the session's, `made` gets the whole greeting, once."""
        self._form = form
        self._made = made
        self._response: str | None = None
        self._audio = bytearray()
        self._texts: dict[str, str] = {}
        self.over = False

    @property
    def begun(self) -> bool:
        """Whether the model has begun to make it."""
        return self._response is not None

    def observe(self, event: EngineEvent) -> None:
        """Take what belongs to the first response of the session."""
        match event:
            case ResponseStarted(response_id) if self._response is None:
                self._response = response_id
            case AgentAudio(response_id, _, _, payload) if response_id == self._response:
                self._audio += payload
                self.over = len(self._audio) > CAPTURED_S * 1000 * self._form.bytes_per_ms
            case AgentTranscript(item_id, text, final):
                known = "" if final else self._texts.get(item_id, "")
                self._texts[item_id] = words = known + text
                self.over = len(words) > MAX_TEXT or len(self._texts) > MAX_ITEMS
            case ResponseDone(response_id, status) if response_id == self._response:
                self.over = True
                if status == "completed" and self._audio:
                    text = " ".join(self._texts.values()).strip()
                    self._made(Audio(bytes(self._audio), self._form, text))
            case _:
                pass


class ModelGreeting:
    """A greeting that is the model's to speak. While nobody is meant by it, it may be kept."""

    def __init__(self, agent: Agent, hooks: CallHooks) -> None:
        self._agent = agent
        self._hooks = hooks
        self._for_anybody = True  # the model knows nothing of this caller that others may not hear
        self.due = False
        """The model is to greet as soon as it is ready."""
        self.capture: GreetingCapture | None = None
        """Collects it, while it is made, for plugins."""

    def ask(self, ask: Callable[[str | None], None], session: Session) -> None:
        """Have it spoken: `ask` asks for an answer, which `session` gives."""
        self.due = False
        kept = self._for_anybody and "on_greeting_made" in self._hooks.wants
        text = self._agent.greeting_text
        ask(self._agent.greeting if text is None else exactly(text))
        if kept:
            self.capture = GreetingCapture(session.output_format, self._made)

    def made_personal(self) -> None:
        """What the model says from here on may be meant for this caller alone: none else hears it.

        An answer that has begun is made of what was there before.
        """
        self._for_anybody = False
        if self.capture is not None and not self.capture.begun:
            self.capture = None

    def observe(self, capture: GreetingCapture, event: EngineEvent) -> None:
        """Show the `capture` what the model does."""
        capture.observe(event)
        if capture.over:
            self.capture = None

    def lost(self) -> None:
        """The model is gone: what it had made is no whole greeting."""
        self.capture = None

    def _made(self, sound: Audio) -> None:
        self._hooks.emit("on_greeting_made", sound)
