"""Plugins that raise what nobody expects: it stays their own trouble, wherever they raise it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from voiced import plugin as api
from voiced.journal import Journal
from voiced.plugin import Plugin, PluginError, Tool, Unsupported
from voiced.testing import call_with, virtual_time


class Unspeakable(Exception):
    """Fails even at saying what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


async def leave() -> None:
    raise SystemExit(3)


async def leave_in_a_group() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(leave)


class Leaver(Plugin):
    """Wants voiced to end: in a task, and in a tool."""

    async def on_call_start(self) -> None:
        self.call.register_tool(Tool("leave", "Leaves.", self.leave))

    async def on_media(self) -> None:
        self.call.start(leave)
        self.call.start(leave_in_a_group)

    async def leave(self, arguments: Mapping[str, Any]) -> str:
        raise SystemExit(3)


@virtual_time
async def test_a_task_and_a_tool_end_nothing_but_themselves() -> None:
    async with call_with(Leaver) as call:
        assert "failed" in await call.model_calls("leave")
        await call.agent_says("It did not work.")
        assert call.state == "listening"
        assert [hook for hook, _, _ in call.failures] == ["task", "task", "tool"]
        call.failures.clear()


class Speechless(Plugin):
    """Cannot even be made."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        raise Unspeakable

    async def on_caller_audio(self, payload: bytes, at_ms: int) -> None:
        """Has it made while the call hands audio over."""


class Wordless(Plugin):
    """Fails at every key, and in its tool."""

    async def on_call_start(self) -> None:
        self.call.register_tool(Tool("fail", "Fails.", self.fail))

    async def on_digit(self, digit: str) -> bool | None:
        raise Unspeakable

    async def fail(self, arguments: Mapping[str, Any]) -> str:
        raise Unspeakable


@virtual_time
async def test_an_exception_without_words_is_a_failure_like_any_other() -> None:
    async with call_with(Speechless) as call:
        await call.caller_says("Hello?")
        assert call.state in ("thinking", "listening")
        assert [why for _, why, _ in call.failures] == ["Unspeakable"]
        call.failures.clear()
    async with call_with(Wordless) as call:
        await call.press("12")
        assert "failed" in await call.model_calls("fail")
        assert [hook for hook, _, _ in call.failures] == ["on_digit", "on_digit", "tool"]
        call.failures.clear()


class NotOpened(Plugin):
    """Its service ends voiced when it is opened."""

    class Service(api.Service):
        async def open(self) -> None:
            raise SystemExit(2)


class NotClosed(Plugin):
    """Its service ends voiced while it runs, and when it is closed."""

    class Service(api.Service):
        async def run(self) -> None:
            raise SystemExit(2)

        async def close(self) -> None:
            raise SystemExit(2)


class Impatient(Plugin):
    """Its service has a limit of its own."""

    class Service(api.Service):
        async def open(self) -> None:
            with trio.fail_after(1):
                await trio.sleep(2)


@virtual_time
async def test_a_service_cannot_end_voiced() -> None:
    with pytest.raises(PluginError, match="cannot start: SystemExit"):
        async with call_with(NotOpened):
            pass
    with pytest.raises(PluginError, match="cannot start: TooSlowError"):
        async with call_with(Impatient):
            pass
    async with call_with(NotClosed) as call:
        await call.caller_says("Are you there?")


NO_FACTS = (math.nan, math.inf, {"a": 1}, b"x", [1], object(), 10**30)


class Noter(Plugin):
    """Notes what no journal can hold."""

    async def on_media(self) -> None:
        for value in NO_FACTS:
            with pytest.raises(ValueError, match="a fact is"):
                self.call.set_fact("strange", value)  # type: ignore[arg-type]
        self.call.set_fact("fine", 5)


@virtual_time
async def test_what_is_no_fact_is_refused_and_costs_no_row() -> None:
    async with call_with(Noter) as call:
        await call.settle()
    assert call.facts == {"fine": 5}


def test_a_service_notes_no_such_things_either(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for value in NO_FACTS:
        with pytest.raises(ValueError, match="a fact is"):
            journal.annotate("00000000000000a1", "strange", value)  # type: ignore[arg-type]


class Flooder(Plugin):
    """Asks for more of everything than anybody could want."""

    async def on_digit(self, digit: str) -> bool | None:
        refused = 0
        for act in (self._task, self._play, self._hang_up):
            for _ in range(1000):
                try:
                    act()
                except Unsupported:
                    refused += 1
        self.call.set_fact("refused", refused)
        return True

    def _task(self) -> None:
        self.call.start(trio.sleep_forever)

    def _play(self) -> None:
        self.call.play("one_moment")

    def _hang_up(self) -> None:
        self.call.hang_up(reason="flood")


@virtual_time
async def test_a_flood_of_wishes_is_refused_and_the_call_ends_as_wished() -> None:
    async with call_with(Flooder) as call:
        await call.press("1")
        assert call.facts == {"refused": 2 * 1000 - 64 - 64}
        summary = await call.ended(3600)
    assert summary.reason == "flood"


class Talker(Plugin):
    """Tells the model all there is to know, with every key."""

    async def on_digit(self, digit: str) -> bool | None:
        told = 0
        with contextlib.suppress(Unsupported):
            while told < 10_000:
                self.call.tell("x" * (10_000 if digit == "1" else 10), answer=False)
                told += 1
        self.call.set_fact(f"told_{digit}", told)
        return True


@virtual_time
async def test_a_flood_of_texts_is_refused_before_the_model_is_lost() -> None:
    async with call_with(Talker) as call:
        await call.press("1")
        await trio.sleep(60)
        await call.press("2")
        await trio.sleep(60)
        await call.press("3")
        assert call.facts == {"told_1": 6, "told_2": 128, "told_3": 128}
