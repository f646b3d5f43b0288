"""Tasks of plugins that will not be stopped: the call ends without them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
from msgspec import UNSET
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.hooks.strangers import SUMMARY, Counts, hooks_of, make_call
from voiced.hooks.calls import STOP_S
from voiced.hooks.containing import Contained
from voiced.hooks.enabled import ABANDONED
from voiced.hooks.house import House
from voiced.hooks.reports import DEAF_S, LINGERING
from voiced.plugin import Plugin, Settings, Summary, Tool
from voiced.testing import call_with, virtual_time

LET_GO: list[trio.Event] = []


async def deaf() -> None:
    """Swallow every cancellation until somebody lets go."""
    let_go = trio.Event()
    LET_GO.append(let_go)
    while not let_go.is_set():
        try:
            await let_go.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await let_go.wait()


def all_go() -> None:
    while LET_GO:
        LET_GO.pop().set()


@contextmanager
def letting_go() -> Iterator[None]:
    """A test that fails would wait for its deaf tasks for ever."""
    try:
        yield
    finally:
        all_go()


class Deaf(Plugin):
    """Has a task that will not end, and a tool."""

    async def on_call_start(self) -> None:
        self.call.register_tool(Tool("wait", "Waits.", self.wait, timeout_s=2.0))

    async def on_media(self) -> None:
        self.call.start(deaf)

    async def wait(self, arguments: Mapping[str, Any]) -> str:
        await deaf()
        return "done"

    async def on_call_end(self, summary: Summary) -> None:
        self.call.set_fact("told", summary.reason)


@virtual_time
async def test_a_call_ends_without_the_task_that_will_not() -> None:
    with structlog.testing.capture_logs() as logs:
        async with call_with(Deaf) as call:
            with letting_go():
                await call.agent_says("Goodbye.")
                began = trio.current_time()
                call.leg.hang_up_as_caller()
                summary = await call.ended(within_s=2)
                assert trio.current_time() - began == pytest.approx(STOP_S, abs=0.1)
                assert call.leg.hung_up
                assert call.model.closed
                await call.until(lambda: bool(call.facts))
                assert (summary.reason, call.facts) == ("caller_hangup", {"told": "caller_hangup"})
                assert call.failures == [("task deaf", "cannot be stopped", None)]
                call.failures.clear()
            await wait_all_tasks_blocked()
    (line,) = [line for line in logs if "does not stop" in line["event"]]
    assert (line["plugin"], line["hook"]) == ("test_containing", "task deaf")
    assert line["log_level"] == "warning"
    assert [line["hook"] for line in logs if "after all" in line["event"]] == ["task deaf"]
    assert not [line for line in logs if "keep voiced from ending" in line["event"]]


@virtual_time
async def test_a_tool_that_will_not_end_was_too_slow_and_holds_nobody_up() -> None:
    async with call_with(Deaf) as call:
        with letting_go():
            began = trio.current_time()
            for number in range(1, LINGERING + 1):
                assert "too long" in await call.model_calls("wait")
                assert trio.current_time() - began == pytest.approx(number * (2 + STOP_S), abs=0.1)
                await call.agent_says("It took too long.", 100)
                began += 0.15
            assert call.failures == LINGERING * [("tool wait", "cannot be stopped", None)]
            call.failures.clear()
            assert "failed" in await call.model_calls("wait"), "it gets no more of them"
            ((hook, why, _),) = call.failures
            assert (hook, why) == ("tool", "RuntimeError: 3 tasks of the plugin will not stop")
            call.failures.clear()
            assert call.state != "ended"
            all_go()
            call.leg.hang_up_as_caller()
            await call.ended()
            call.failures.clear()


async def test_what_was_left_behind_is_counted_by_calls_and_by_tasks(
    autojump_clock: MockClock,
) -> None:
    counts = Counts()

    class Own(Plugin):
        async def on_call_start(self) -> None:
            await deaf()

    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as daemon:
            with letting_go():
                hooks = hooks_of(Own, count=counts, nursery=daemon)
                (enabled,) = (runner.enabled for runner in hooks._runners)
                async with trio.open_nursery() as call:
                    await call.start(hooks.run)
                    hooks.emit("on_call_start")
                    call.start_soon(hooks.contain, "Own", "task deaf", deaf)
                    call.start_soon(hooks.contain, "Own", "task deaf", deaf)
                    await wait_all_tasks_blocked()
                    call.cancel_scope.cancel()
                await hooks.finish(SUMMARY)
                assert enabled.lingering == 3
                assert alarms(logs) == []
                await trio.sleep(DEAF_S + 0.1)
                assert (len(enabled.abandoned), enabled.lingering) == (1, 3)
                assert alarms(logs) == 3 * ["plugin cannot be stopped"]
                for left in (2, 1):
                    LET_GO.pop().set()
                    await wait_all_tasks_blocked()
                    assert (len(enabled.abandoned), enabled.lingering) == (1, left)
                all_go()
                await wait_all_tasks_blocked()
                assert (len(enabled.abandoned), enabled.lingering) == (0, 0)
    assert counts["Own", "abandoned"] == 3


def alarms(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [line["event"] for line in logs if line["log_level"] == "error"]


class Bare(Plugin):
    async def on_call_start(self) -> None: ...


async def none(*args: object) -> str:
    return ""


async def hung_up(house: House, function: Callable[[], Awaitable[None]]) -> None:
    """A call whose caller hangs up while a tool is at work."""
    hooks = house.hooks(UNSET, make_call)
    async with trio.open_nursery() as call:
        await call.start(hooks.run)
        call.start_soon(hooks.contain, "bare", "tool look_up", function)
        await wait_all_tasks_blocked()
        call.cancel_scope.cancel()
    await hooks.finish(SUMMARY)


async def test_who_only_ends_late_keeps_its_calls_and_gives_no_alarm(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """As a query in a thread does, which cannot be cut off."""

    async def query() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(DEAF_S - STOP_S)

    with structlog.testing.capture_logs() as logs:
        async with House.open(tmp_path, lambda *fact: None, none) as house:
            enabled = await house.add("bare", Bare, Settings())
            async with trio.open_nursery() as calls:
                for _ in range(2 * ABANDONED):
                    calls.start_soon(hung_up, house, query)
            assert enabled.lingering == 2 * ABANDONED
            assert house.enabled() == (enabled,), "others call while the queries run"
            await trio.sleep(2 * DEAF_S)
            assert enabled.lingering == 0
            assert house.enabled() == (enabled,)
    assert alarms(logs) == []
    assert len([line for line in logs if "after all" in line["event"]]) == 2 * ABANDONED


async def test_who_never_ends_gets_no_more_calls_until_it_has(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with House.open(tmp_path, lambda *fact: None, none) as house:
            with letting_go():
                enabled = await house.add("bare", Bare, Settings())
                for _ in range(ABANDONED):
                    assert house.enabled() == (enabled,)
                    await hung_up(house, deaf)
                    await trio.sleep(DEAF_S + 0.1)
                assert house.enabled() == ()
                LET_GO.pop().set()
                await wait_all_tasks_blocked()
                assert house.enabled() == (enabled,)
            await wait_all_tasks_blocked()
    assert alarms(logs) == [*ABANDONED * ["plugin cannot be stopped"], "plugin gets no more calls"]


# ---- one that behaves is as one that runs in the call's own nursery ----


async def contained(
    daemon: trio.Nursery, function: Callable[..., Awaitable[Any]], *args: object
) -> Any:
    return await Contained(function, args, lambda over: None, lambda: None).outcome(daemon, STOP_S)


private: ContextVar[str] = ContextVar("private", default="")


async def test_it_returns_and_raises_what_the_function_does(nursery: trio.Nursery) -> None:
    async def double(number: int) -> tuple[int, str]:
        return 2 * number, private.get()

    async def fail() -> None:
        raise KeyError("x")

    async def nothing() -> None: ...

    async def exit_() -> None:
        raise SystemExit(3)

    private.set("here")
    assert await contained(nursery, double, 4) == (8, "here")
    assert await contained(nursery, nothing) is None
    with pytest.raises(KeyError, match="x"):
        await contained(nursery, fail)
    with pytest.raises(SystemExit):
        await contained(nursery, exit_)


async def test_cancellation_reaches_it_and_waits_for_its_clean_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    seen: list[tuple[str, float]] = []

    async def work(shielded_s: float) -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            seen.append(("cancelled", trio.current_time()))
            with trio.CancelScope(shield=True):
                await trio.sleep(shielded_s)
            seen.append(("over", trio.current_time()))
            if shielded_s:
                raise
        return "sorry"

    with trio.move_on_after(1) as scope:
        await contained(nursery, work, 0.3)
    assert scope.cancelled_caught
    assert seen == [("cancelled", 1.0), ("over", 1.3)]
    with trio.move_on_after(1) as scope:  # it has swallowed it, and that is its answer
        assert await contained(nursery, work, 0) == "sorry"
    assert not scope.cancelled_caught

    async def fails() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("in its clean-up")

    with trio.move_on_after(1), pytest.raises(KeyError):
        await contained(nursery, fails)


async def test_the_end_of_the_daemon_reaches_it(autojump_clock: MockClock) -> None:
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await trio.sleep_forever()
        finally:
            ended = True

    async with trio.open_nursery() as daemon:
        with trio.move_on_after(5) as scope:
            async with trio.open_nursery() as call:
                call.start_soon(contained, daemon, work)
                await wait_all_tasks_blocked()
                daemon.cancel_scope.cancel()
    assert ended
    assert not scope.cancelled_caught


async def test_a_task_that_leaves_a_nursery_open_fails_alone(autojump_clock: MockClock) -> None:
    async def careless() -> None:
        await trio.open_nursery().__aenter__()

    async def strays() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep(1)
            except trio.Cancelled as error:
                stray = error
        raise stray

    async with trio.open_nursery() as daemon:
        with pytest.raises(ExceptionGroup, match="Trio nursery"):
            await contained(daemon, careless)
        with pytest.raises(RuntimeError, match="not its own"):
            await contained(daemon, strays)
        assert await contained(daemon, trio.sleep, 1) is None
