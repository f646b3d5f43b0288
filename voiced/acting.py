"""The call as plugins see it (`voiced.plugin.Call`): a narrow door to `Call`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from voiced import wav
from voiced.formats import AudioFormat
from voiced.hooks.stepping import described, interrupts, without_cancelled
from voiced.leg import Transferred, Unsupported
from voiced.plugin import Audio, Clip, Json, Playing, Tool
from voiced.talk.ending import LastWords

if TYPE_CHECKING:
    from voiced.call import Call

__all__ = ["Acting"]


MAX_TASKS: Final = 64
"""Of one plugin in one call: those that wait for keys, clips and answers are a handful; beyond it a
plugin floods."""

MAX_OWN: Final = 48
"""Facts, and tools, of one plugin: of the 64 that a call has a flood leaves some to the others, who
say with theirs where a recording is."""

TEXT_CHARS: Final = 64_000
TEXT_S: Final = 60
"""What one plugin may put into a conversation: as much as an agent's instructions, each minute."""

_LEAST_TEXT: Final = 500  # a short text costs an answer, too

_PRIVATE: Final = ContextVar("private", default=False)
"""A plugin runs a tool: its arguments may hold a PIN, and the words it fails with may, too."""


class Acting:
    """One plugin's hold on one call."""

    def __init__(self, call: Call, plugin: str) -> None:
        self._call = call
        self._plugin = plugin
        self._log = call.record.log.bind(plugin=plugin)
        self._tasks = 0  # that run
        self._facts: set[str] = set()
        self._tools = 0
        self._hangs_up = False
        self._room, self._room_at = float(TEXT_CHARS), trio.current_time()

    # ---- what is known ----

    @property
    def call_id(self) -> str:
        """Ours."""
        return self._call.facts.call_id

    @property
    def carrier(self) -> str:
        """`twilio` or `sip`."""
        return self._call.facts.carrier

    @property
    def carrier_call_id(self) -> str:
        """The carrier's name for it."""
        return self._call.facts.carrier_call_id

    @property
    def caller(self) -> str:
        """Who calls."""
        return self._call.facts.caller

    @property
    def called(self) -> str:
        """Whom they called."""
        return self._call.facts.called

    @property
    def direction(self) -> Literal["inbound", "outbound"]:
        """Who placed the call."""
        return self._call.facts.direction

    @property
    def trunk(self) -> str | None:
        """The `[[sip.trunk]]`."""
        return self._call.facts.trunk

    @property
    def parameters(self) -> Mapping[str, str]:
        """What else the carrier said."""
        return self._call.facts.parameters

    @property
    def agent(self) -> str:
        """The `[agent.NAME]`."""
        return self._call.agent_name

    @property
    def engine(self) -> str:
        """The `[engine.NAME]` that talks now."""
        return self._call.record.row.engine

    @property
    def shaping(self) -> Mapping[str, str]:
        """All that shapes what the model says first; the instructions as a digest."""
        agent, plan = self._call.agent, self._call.plan
        text = plan.instructions.encode("utf-8", "surrogatepass")
        return {
            "engine": self._call.engine.name,
            "model": self._call.engine.model,
            "voice": agent.voice,
            "language": agent.language,
            "instructions": hashlib.sha256(text).hexdigest(),
            "greeting": agent.greeting or "",
            "greeting_text": agent.greeting_text or "",
            "format": str(plan.leg_format),
            **self._call.engine_shape,
        }

    @property
    def language(self) -> str:
        """The agent's language."""
        return self._call.agent.language

    @property
    def format(self) -> AudioFormat:
        """Of the audio that hooks get."""
        return self._call.leg_format

    @property
    def state(self) -> str:
        """The call's state."""
        return self._call.record.state.value

    @property
    def started_at(self) -> float:
        """When the call began, Unix time."""
        return self._call.record.row.started_at

    @property
    def media_ms(self) -> int:
        """Milliseconds since audio began to flow."""
        began = self._call.record.media_at
        return 0 if began is None else round((trio.current_time() - began) * 1000)

    @property
    def log(self) -> Any:
        """A logger bound to the call and the plugin."""
        return self._log

    # ---- what can be done ----

    def play(self, *clips: Clip) -> Playing:
        """Have clips heard after what is being said."""
        return self._call.clipboard.play(clips)

    def say(self, text: str) -> None:
        """Have the agent speak these words exactly."""
        dialogue = self._call.dialogue
        self._take_room(text)
        dialogue.say(text, verbatim=True)

    def tell(
        self, text: str, *, role: Literal["system", "user"] = "system", answer: bool = True
    ) -> None:
        """Put a text into the conversation, and let the model answer it."""
        # What the model is to know before it greets it has to be told before anybody hears it.
        dialogue = self._call.dialogue if answer else self._call.opening_dialogue
        self._take_room(text)
        dialogue.tell(role, text, answer=answer)

    def _take_room(self, text: str) -> None:
        """A model's socket that is flooded with texts would be lost. Raises Unsupported."""
        now, size = trio.current_time(), max(len(text), _LEAST_TEXT)
        self._room = min(TEXT_CHARS, self._room + (now - self._room_at) * TEXT_CHARS / TEXT_S)
        self._room_at = now
        if size > self._room:
            raise Unsupported(f"more than {TEXT_CHARS} characters of text in {TEXT_S} s")
        self._room -= size

    def interrupt(self) -> None:
        """Silence the agent now, and what was to be heard next."""
        self._call.dialogue.silence()
        self._call.clipboard.drop_unread()

    def send_digits(self, digits: str) -> None:
        """Press keys."""
        self._call.send_digits(digits)

    async def transfer(self, target: str) -> Transferred:
        """Hand the caller over; where that fails the call goes on."""
        return await self._call.transfer(target)

    def hang_up(
        self, *, farewell: Clip | bool = True, now: bool = False, reason: str = "plugin"
    ) -> None:
        """End the call, once what is being said has been heard, or `now`."""
        if now:
            self._log.info("plugin hangs up", reason=reason)
            self._call.end(reason)
            return
        if self._hangs_up:
            return  # it does already
        if isinstance(farewell, bool):
            self._call.finish(reason, "farewell" if farewell else None)
        else:
            self._call.start(self._hang_up_with, farewell, reason)
        self._hangs_up = True
        self._log.info("plugin hangs up", reason=reason)

    async def _hang_up_with(self, clip: Clip, reason: str) -> None:
        words: LastWords = "farewell"
        try:
            words = await self._call.sounds.read(clip)
        except (wav.WavError, KeyError) as error:
            self._log.error("clip left out", clip=_name(clip), error=str(error))
        with suppress(Unsupported):
            self._call.finish(reason, words)

    def set_fact(self, name: str, value: Json) -> None:
        """Note something in the call's journal row."""
        if name not in self._facts and len(self._facts) >= MAX_OWN:
            raise ValueError(f"a plugin has at most {MAX_OWN} facts in a call")
        self._call.record.set_fact(name, value)
        self._facts.add(name)

    def register_tool(self, tool: Tool) -> None:
        """Let the model call `tool` from now on."""
        if self._tools >= MAX_OWN:
            raise ValueError(f"a plugin has at most {MAX_OWN} tools in a call")
        handler = tool.handler

        async def reported(arguments: Mapping[str, Any]) -> str | Mapping[str, Any] | None:
            try:
                where = f"tool {tool.name}"
                return await self._call.hooks.contain(self._plugin, where, handler, arguments)
            except BaseException as error:
                left = without_cancelled(error)
                if left is None or interrupts(error):
                    raise
                self._call.hooks.failed(self._plugin, "tool", left, words=not _PRIVATE.get())
                if isinstance(error, Exception):
                    raise
                # Such as sys.exit() means: it would end more than the tool.
                raise RuntimeError(described(left)) from left

        self._call.register_tool(dataclasses.replace(tool, handler=reported))
        self._tools += 1

    async def run_tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Run a tool that any plugin has registered."""
        token = _PRIVATE.set(True)
        try:
            return await self._call.toolbox.run(name, arguments)
        finally:
            _PRIVATE.reset(token)

    def take_over(self) -> AbstractAsyncContextManager[None]:
        """While in this context the model neither hears the caller nor is heard."""
        return self._take_over()

    @asynccontextmanager
    async def _take_over(self) -> AsyncIterator[None]:
        dialogue = self._call.dialogue
        dialogue.take_over(True)
        try:
            yield
        finally:
            dialogue.take_over(False)

    def start(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a coroutine function as a task of the call; what it raises is reported."""
        if self._tasks >= MAX_TASKS:
            raise Unsupported(f"{MAX_TASKS} tasks of the plugin run already")
        self._call.start(self._isolated, function, args)
        self._tasks += 1

    async def _isolated(
        self, function: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        where = f"task {getattr(function, '__qualname__', '')}"
        try:
            await self._call.hooks.contain(self._plugin, where, function, *args)
        except Unsupported as error:
            self._log.warning("plugin asked in vain", why=str(error))
        except BaseException as error:  # sys.exit(), too: it would end every call
            if interrupts(error):
                raise
            if (left := without_cancelled(error)) is not None:
                self._call.hooks.failed(self._plugin, "task", left)
        finally:
            self._tasks -= 1
        await trio.lowlevel.checkpoint_if_cancelled()


def _name(clip: Clip) -> str:
    return "audio" if isinstance(clip, Audio) else str(clip)
