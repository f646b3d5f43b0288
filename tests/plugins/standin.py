"""A call as plugins see it, without leg and model: it notes what it is asked to do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import structlog
import trio

from voiced.plugin import (
    Audio,
    AudioFormat,
    Clip,
    Encoding,
    Playing,
    Plugin,
    Tool,
    Transferred,
)

PCMU_8K = AudioFormat(Encoding.PCMU, 8000)


def name_of(clip: Clip) -> str:
    """How a clip stands in the notes."""
    if isinstance(clip, Path):
        return clip.name
    return f"{len(clip.payload)} bytes" if isinstance(clip, Audio) else clip


class StandInPlaying:
    """Clips that take `seconds`; an interruption cuts them off."""

    def __init__(self, seconds: float) -> None:
        self._until = trio.current_time() + seconds
        self.cut = trio.Event()

    async def heard(self) -> bool:
        with trio.move_on_at(self._until):
            await self.cut.wait()
        return not self.cut.is_set()


class StandInCall:
    """Keeps to `voiced.plugin.Call`."""

    call_id = "00000000000000aa"
    carrier = "twilio"
    carrier_call_id = "CA1"
    caller = "+15550199"
    called = "+15550100"
    direction: Literal["inbound", "outbound"] = "inbound"
    trunk: str | None = None
    agent = "reception"
    engine = "fake"
    shaping: Mapping[str, str] = {}
    language = "en"
    format = PCMU_8K
    state = "listening"
    media_ms = 0
    started_at = 1_700_000_000.0
    clip_s = 2.0

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.log = structlog.get_logger("tests")
        self.parameters: dict[str, str] = {}
        self.done: list[tuple[Any, ...]] = []
        self.facts: dict[str, object] = {}
        self.tools: dict[str, Tool] = {}
        self.quiet = 0
        self.transferred = Transferred(True, 200)
        self._playing: list[StandInPlaying] = []

    def play(self, *clips: Clip) -> Playing:
        names = [name_of(clip) for clip in clips]
        self.done.append(("play", *names))
        shortest = all(isinstance(clip, Audio) for clip in clips)
        self._playing.append(StandInPlaying(0.02 if shortest else self.clip_s * len(clips)))
        return self._playing[-1]

    def say(self, text: str) -> None:
        self.done.append(("say", text))

    def tell(
        self, text: str, *, role: Literal["system", "user"] = "system", answer: bool = True
    ) -> None:
        self.done.append(("tell", text))

    def interrupt(self) -> None:
        for playing in self._playing:
            playing.cut.set()
        self._playing.clear()

    def send_digits(self, digits: str) -> None:
        self.done.append(("send_digits", digits))

    async def transfer(self, target: str) -> Transferred:
        self.done.append(("transfer", target))
        return self.transferred

    def hang_up(
        self, *, farewell: Clip | bool = True, now: bool = False, reason: str = "plugin"
    ) -> None:
        words = farewell if isinstance(farewell, bool) else name_of(farewell)
        self.done.append(("hang_up", words, reason))

    def set_fact(self, name: str, value: object) -> None:
        self.facts[name] = value

    def register_tool(self, tool: Tool) -> None:
        if tool.name in self.tools:
            raise ValueError(f"there is a tool {tool.name} already")
        self.tools[tool.name] = tool

    async def run_tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        result = await self.tools[name].handler(arguments)
        return result if isinstance(result, str) else json.dumps(result)

    @asynccontextmanager
    async def take_over(self) -> AsyncIterator[None]:
        self.quiet += 1
        self.done.append(("alone", True))
        try:
            yield
        finally:
            self.quiet -= 1
            self.done.append(("alone", False))

    def start(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        self._nursery.start_soon(function, *args)


@asynccontextmanager
async def standing_in() -> AsyncIterator[StandInCall]:
    """A call whose tasks end with the context."""
    async with trio.open_nursery() as nursery:
        yield StandInCall(nursery)
        nursery.cancel_scope.cancel()


async def press(plugin: Plugin, digits: str, gap_s: float = 0.5) -> Sequence[bool | None]:
    """Press keys, `gap_s` apart; returns what the plugin said to each."""
    answers = []
    for digit in digits:
        answers.append(await plugin.on_digit(digit))
        await trio.sleep(gap_s)
    return answers
