"""Plugins that do anything: nothing comes out of the dispatch, and others do not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import structlog.testing
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.hooks.strangers import SUMMARY, hooks_of
from voiced.hooks.calls import ASK_S, FINISH_S, STOP_S
from voiced.hooks.runner import ITEMS, SIZE
from voiced.plugin import Greeting, Plugin, Summary, ToolUse

BEHAVIOURS = (
    "return", "wait", "hang", "raise", "exit", "group", "stale_cancelled", "swallow", "shield",
    "scope_left_open", "nursery_left_open", "nursery_fails", "cancel_own_nursery", "wrong_answer",
)  # fmt: skip
HOOKS = ("on_state", "on_digit", "on_caller_audio", "greeting", "on_tool_call", "on_call_end")
PLANS = st.dictionaries(st.sampled_from(HOOKS), st.sampled_from(BEHAVIOURS), max_size=6)
STEPS = st.lists(
    st.sampled_from(("state", "digit", "audio", "gap", "greeting", "tool", "wait", "flood")),
    max_size=12,
)


class Release:
    """Lets go at the end what shields itself."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.open: list[object] = []  # contexts that a plugin never left


async def behave(kind: str, release: Release) -> Any:
    match kind:
        case "wait":
            await trio.sleep(0.5)
        case "hang":
            await trio.sleep_forever()
        case "raise":
            raise RuntimeError("as told")
        case "exit":
            raise SystemExit(1)
        case "group":
            raise BaseExceptionGroup("both", [SystemExit(1), ValueError("x")])
        case "stale_cancelled":
            saved: BaseException | None = None
            with trio.CancelScope() as scope:
                scope.cancel()
                try:
                    await trio.sleep_forever()
                except trio.Cancelled as cancelled:
                    saved = cancelled
                    raise
            assert saved is not None
            raise saved
        case "swallow":
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                return True
        case "shield":
            with trio.CancelScope(shield=True):
                await release.event.wait()
        case "scope_left_open":
            scope = trio.CancelScope()
            release.open.append(scope.__enter__())
            await trio.lowlevel.checkpoint()
        case "nursery_left_open":
            manager = trio.open_nursery()
            release.open.append((manager, await manager.__aenter__()))
        case "nursery_fails":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(behave, "raise", release)
        case "cancel_own_nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.cancel_scope.cancel()
        case "wrong_answer":
            return object()
    return None


def misbehaving(plan: dict[str, str], release: Release) -> type[Plugin]:
    def hook(kind: str, count: int) -> Callable[..., Any]:
        async def none(self: object) -> Any:
            return await behave(kind, release)

        async def one(self: object, a: object) -> Any:
            return await behave(kind, release)

        async def two(self: object, a: object, b: object) -> Any:
            return await behave(kind, release)

        return (none, one, two)[count]

    counts = {"on_state": 2, "on_caller_audio": 2}
    members = {name: hook(kind, counts.get(name, 1)) for name, kind in plan.items()}
    return type("Bad", (Plugin,), members)


class Witness(Plugin):
    """A plugin that does nothing wrong."""

    seen: ClassVar[list[tuple[object, ...]]]

    async def on_state(self, previous: str, state: str) -> None:
        self.seen.append(("state", state))

    async def on_digit(self, digit: str) -> bool | None:
        self.seen.append(("digit", digit))
        return True

    async def on_caller_audio(self, payload: bytes, at_ms: int) -> None:
        self.seen.append(("audio", len(payload)))

    async def on_call_end(self, summary: Summary) -> None:
        self.seen.append(("end",))


@settings(deadline=None, max_examples=150)
@given(st.lists(PLANS, min_size=1, max_size=3), STEPS, st.booleans())
def test_nothing_comes_out_and_others_do_not_notice(
    plans: list[dict[str, str]], steps: list[str], cancelled: bool
) -> None:
    async def main() -> None:
        release = Release()
        own: type[Witness] = type("Own", (Witness,), {"seen": []})
        expected: list[tuple[object, ...]] = []
        audio = at_ms = 0
        async with trio.open_nursery() as daemon:
            bad = [misbehaving(plan, release) for plan in plans]
            hooks = hooks_of(*bad, own, nursery=daemon)
            async with trio.open_nursery() as call:
                await call.start(hooks.run)
                for index, step in enumerate(steps):
                    began = trio.current_time()
                    if step == "state":
                        hooks.emit("on_state", "a", str(index))
                        expected.append(("state", str(index)))
                    elif step == "digit":
                        taken = await hooks.digit(str(index))
                        # Whoever answered otherwise than with True, the witness was asked.
                        assert taken
                        if ("digit", str(index)) in own.seen:
                            expected.append(("digit", str(index)))
                    elif step in ("audio", "gap"):
                        hooks.emit("on_caller_audio", bytes(160), at_ms)
                        at_ms += 20 if step == "audio" else 400
                        audio += 160
                    elif step == "greeting":
                        assert await hooks.greeting(Greeting()) == Greeting()
                    elif step == "tool":
                        assert await hooks.tool_call(ToolUse("c", "n", {})) is None
                    elif step == "wait":
                        await trio.sleep(3)
                        began = trio.current_time()
                    elif any("on_state" in plan for plan in plans):
                        for _ in range(ITEMS + 10):
                            hooks.emit("on_state", "a", "flood")
                            await trio.lowlevel.checkpoint()
                            expected.append(("state", "flood"))
                    assert trio.current_time() - began <= ASK_S * len(plans) + 0.01
                    for runner in hooks._runners:
                        assert len(runner._waiting) <= ITEMS
                        assert runner._size <= SIZE
                if cancelled:
                    call.cancel_scope.cancel()
                else:
                    await trio.testing.wait_all_tasks_blocked()
                    call.cancel_scope.cancel()
            began = trio.current_time()
            await hooks.finish(SUMMARY)
            assert trio.current_time() - began <= FINISH_S + STOP_S + 0.01
            heard = [each for each in own.seen if each[0] != "audio"]
            assert heard == [*expected, ("end",)]
            assert sum(each[1] for each in own.seen if each[0] == "audio") == audio  # type: ignore[misc]
            assert all(runner.enabled.calls == 0 for runner in hooks._runners)
            release.event.set()

    with structlog.testing.capture_logs():  # thousands of lines
        trio.run(main, clock=MockClock(autojump_threshold=0))
