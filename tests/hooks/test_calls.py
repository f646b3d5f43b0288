"""The plugins of a call: told in order, asked in turn, ended in time."""

from __future__ import annotations

from typing import ClassVar

import trio
from trio.testing import MockClock

from tests.hooks.strangers import SUMMARY, hooks_of
from voiced.plugin import Plugin, Summary


class Diary(Plugin):
    """Writes down what it is told."""

    seen: ClassVar[list[tuple[object, ...]]]

    async def on_call_start(self) -> None:
        self.seen.append(("start",))

    async def on_state(self, previous: str, state: str) -> None:
        await trio.sleep(0.1)
        self.seen.append(("state", previous, state))

    async def on_caller_audio(self, payload: bytes, at_ms: int) -> None:
        self.seen.append(("caller", len(payload), at_ms))

    async def on_call_end(self, summary: Summary) -> None:
        self.seen.append(("end", summary.reason))


async def test_events_come_in_order_and_the_end_comes_last(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Own(Diary):
        seen: ClassVar[list[tuple[object, ...]]] = []

    hooks = hooks_of(Own)
    assert hooks.wants == {"on_call_start", "on_state", "on_caller_audio", "on_call_end"}
    await nursery.start(hooks.run)
    hooks.emit("on_call_start")
    hooks.emit("on_state", "a", "b")
    hooks.emit("on_caller_audio", bytes(160), 0)
    hooks.emit("on_caller_audio", bytes(160), 20)
    hooks.emit("on_state", "b", "c")
    hooks.emit("on_caller_audio", bytes(160), 40)
    hooks.emit("on_media")
    await hooks.finish(SUMMARY)
    assert Own.seen == [
        ("start",),
        ("state", "a", "b"),
        ("caller", 320, 0),
        ("state", "b", "c"),
        ("caller", 160, 40),
        ("end", "caller_hangup"),
    ]
