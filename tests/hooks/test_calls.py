"""The plugins of a call: told in order, asked in turn, ended in time."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest
import structlog.testing
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.hooks.strangers import SUMMARY, Counts, hooks_of
from voiced.formats import PCMU_8K
from voiced.hooks import NO_HOOKS
from voiced.hooks.calls import ASK_S, FINISH_S, STOP_S, CallHooks
from voiced.hooks.reports import FAILURES
from voiced.hooks.runner import ITEMS, SIZE, STALLED_S
from voiced.plugin import Audio, Greeting, Plugin, Summary, ToolUse, Words

Seen = list[tuple[Any, ...]]
USE = ToolUse("call_1", "weather", {})


class Diary(Plugin):
    """Writes down what it is told; each test has a class of its own below it."""

    seen: ClassVar[Seen]

    def __init_subclass__(cls) -> None:
        cls.seen = []

    async def on_call_start(self) -> None:
        self.seen.append(("start",))

    async def on_state(self, previous: str, state: str) -> None:
        await trio.sleep(0.1)
        self.seen.append(("state", previous, state))

    async def on_caller_audio(self, payload: bytes, at_ms: int) -> None:
        self.seen.append(("caller", len(payload), at_ms))

    async def on_agent_audio(self, payload: bytes, at_ms: int) -> None:
        self.seen.append(("agent", len(payload), at_ms))

    async def on_call_end(self, summary: Summary) -> None:
        self.seen.append(("end", summary.reason))


async def test_events_come_in_order_and_the_end_comes_last(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Own(Diary): ...

    hooks = hooks_of(Own)
    assert hooks.wants == {
        "on_call_start",
        "on_state",
        "on_caller_audio",
        "on_agent_audio",
        "on_call_end",
    }
    await nursery.start(hooks.run)
    hooks.emit("on_call_start")
    hooks.emit("on_state", "a", "b")
    hooks.emit("on_caller_audio", bytes(160), 0)
    hooks.emit("on_agent_audio", bytes(80), 10)
    hooks.emit("on_caller_audio", bytes(160), 20)
    hooks.emit("on_state", "b", "c")
    hooks.emit("on_caller_audio", bytes(160), 40)
    hooks.emit("on_media")  # nobody wants it
    await hooks.finish(SUMMARY)
    assert Own.seen == [
        ("start",),
        ("state", "a", "b"),
        ("caller", 320, 0),
        ("agent", 80, 10),
        ("state", "b", "c"),
        ("caller", 160, 40),
        ("end", "caller_hangup"),
    ]
    hooks.emit("on_state", "c", "d")  # too late for anybody
    await hooks.finish(SUMMARY)
    assert Own.seen[-1] == ("end", "caller_hangup")


async def test_audio_is_joined_where_it_follows_and_handed_over_in_batches(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Own(Diary): ...

    hooks = hooks_of(Own)
    await nursery.start(hooks.run)
    await wait_all_tasks_blocked()
    for index in range(20):
        hooks.emit("on_caller_audio", bytes(160), 20 * index)
        await wait_all_tasks_blocked()
    hooks.emit("on_caller_audio", bytes(160), 400)
    await wait_all_tasks_blocked()
    assert Own.seen == [("caller", 1600, 0), ("caller", 1600, 200)]
    hooks.emit("on_caller_audio", bytes(160), 500)  # a gap
    await hooks.finish(SUMMARY)
    assert Own.seen[2:4] == [("caller", 160, 400), ("caller", 160, 500)]


async def test_a_plugin_says_how_much_audio_it_wants_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Patient(Diary):
        audio_ms = 500

    class Eager(Diary):
        audio_ms = -1

    hooks = hooks_of(Patient, Eager)
    await nursery.start(hooks.run)
    await wait_all_tasks_blocked()
    for index in range(60):
        hooks.emit("on_caller_audio", bytes(160), 20 * index)
        if index % 5 == 4:
            hooks.emit("on_agent_audio", bytes(800), 20 * (index - 4))
        await wait_all_tasks_blocked()
    assert len([each for each in Eager.seen if each[0] == "caller"]) == 60
    # What the other side has said goes along.
    told = [("caller", 4000, 0), ("agent", 4000, 0), ("caller", 4000, 500), ("agent", 4000, 500)]
    assert Patient.seen == told
    await hooks.finish(SUMMARY)
    rest = [("caller", 1600, 1000), ("agent", 1600, 1000)]
    assert [*told, *rest] == Patient.seen[:-1]


async def test_plugins_are_asked_in_turn(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    asked: list[str] = []

    class First(Plugin):
        async def on_digit(self, digit: str) -> bool | None:
            asked.append(f"first {digit}")
            return digit == "1"

        async def greeting(self, planned: Greeting) -> Greeting | None:
            return Greeting(before=("welcome", *planned.before))

        async def on_tool_call(self, use: ToolUse) -> str | None:
            return None

    class Second(Plugin):
        async def on_digit(self, digit: str) -> bool | None:
            asked.append(f"second {digit}")
            return digit == "2"

        async def greeting(self, planned: Greeting) -> Greeting | None:
            return Greeting(planned.before, Audio(b"", PCMU_8K, "Hello"))

        async def on_tool_call(self, use: ToolUse) -> str | None:
            return ""

    hooks = hooks_of(First, Second)
    await nursery.start(hooks.run)
    assert [await hooks.digit(digit) for digit in "123"] == [True, True, False]
    assert asked == ["first 1", "first 2", "second 2", "first 3", "second 3"]
    greeting = await hooks.greeting(Greeting(before=("tone",)))
    assert greeting == Greeting(("welcome", "tone"), Audio(b"", PCMU_8K, "Hello"))
    assert await hooks.tool_call(USE) == ""
    await hooks.finish(SUMMARY)


async def test_nobody_is_asked_for_longer_than_a_second(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Slow(Plugin):
        async def on_digit(self, digit: str) -> bool | None:
            await trio.sleep(ASK_S + 1)
            return True

    class Busy(Plugin):
        async def on_media(self) -> None:
            await trio.sleep(4)

        async def on_digit(self, digit: str) -> bool | None:
            raise AssertionError("nobody waits for the answer any more")

    class Quick(Plugin):
        async def on_digit(self, digit: str) -> bool | None:
            return True

    counts = Counts()
    hooks = hooks_of(Slow, Busy, Quick, count=counts)
    await nursery.start(hooks.run)
    hooks.emit("on_media")
    began = trio.current_time()
    assert await hooks.digit("1")
    assert trio.current_time() - began == pytest.approx(2 * ASK_S)
    await trio.sleep(5)
    assert counts == {("Slow", "too slow"): 1, ("Busy", "too slow"): 1}
    await hooks.finish(SUMMARY)


async def test_answers_of_the_wrong_type_are_none(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Odd(Plugin):
        async def on_digit(self, digit: str) -> Any:
            return "yes"

        async def greeting(self, planned: Greeting) -> Any:
            return "hello"

        async def on_tool_call(self, use: ToolUse) -> Any:
            return {"a": 1}

    counts = Counts()
    hooks = hooks_of(Odd, count=counts)
    await nursery.start(hooks.run)
    assert not await hooks.digit("1")
    assert await hooks.greeting(Greeting()) == Greeting()
    assert await hooks.tool_call(USE) is None
    assert counts == {("Odd", "failed"): 3}
    await hooks.finish(SUMMARY)


async def test_after_five_failures_a_plugin_is_left_out_but_for_the_end(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Broken(Diary):
        async def on_state(self, previous: str, state: str) -> None:
            raise ValueError(state)

    counts = Counts()
    with structlog.testing.capture_logs() as logs:
        hooks = hooks_of(Broken, count=counts)
        await nursery.start(hooks.run)
        hooks.emit("on_call_start")
        for index in range(20):
            hooks.emit("on_state", "a", str(index))
        await wait_all_tasks_blocked()
        assert not await hooks.digit("1")
        await hooks.finish(SUMMARY)
    assert counts == {("Broken", "failed"): FAILURES, ("Broken", "left out"): 1}
    assert Broken.seen == [("start",), ("end", "caller_hangup")]
    failures = [line for line in logs if line["event"] == "plugin failed"]
    assert [line["why"] for line in failures] == [f"ValueError: {i}" for i in range(FAILURES)]
    assert [bool(line["exc_info"]) for line in failures] == [True, False, False, False, False]


async def test_whatever_a_hook_raises_the_next_one_runs(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Odd(Diary):
        async def on_state(self, previous: str, state: str) -> None:
            await trio.lowlevel.checkpoint()
            if state == "exit":
                raise SystemExit(1)
            if state == "group":
                raise BaseExceptionGroup("x", [SystemExit(1), GeneratorExit()])
            with trio.CancelScope() as scope:
                scope.cancel()
                try:
                    await trio.sleep_forever()
                except trio.Cancelled as error:
                    self.stale = error
                    raise
            raise self.stale

    counts = Counts()
    hooks = hooks_of(Odd, count=counts)
    await nursery.start(hooks.run)
    for state in ("exit", "group", "stale"):
        hooks.emit("on_state", "a", state)
    hooks.emit("on_call_start")
    await wait_all_tasks_blocked()
    assert Odd.seen == [("start",)]
    assert counts == {("Odd", "failed"): 3}
    await hooks.finish(SUMMARY)


async def test_a_plugin_that_cannot_be_made_is_left_out(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Broken(Diary):
        def __init__(self, call: Any, config: Any, service: Any) -> None:
            raise SystemExit(3)

    counts = Counts()
    hooks = hooks_of(Broken, count=counts)
    await nursery.start(hooks.run)
    hooks.emit("on_call_start")
    hooks.emit("on_caller_audio", bytes(160), 0)
    await hooks.finish(SUMMARY)
    assert counts == {("Broken", "failed"): 1}
    assert Broken.seen == []


async def test_a_flood_is_dropped_and_told_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Slow(Diary):
        time_limit_s = 60.0

        async def on_call_start(self) -> None:
            await trio.sleep(50)

        async def on_transcript(self, words: Words) -> None:
            self.seen.append((words.text[:3],))

    counts = Counts()
    hooks = hooks_of(Slow, count=counts)
    await nursery.start(hooks.run)
    hooks.emit("on_call_start")
    await wait_all_tasks_blocked()
    for index in range(3 * ITEMS):
        hooks.emit("on_transcript", Words("caller", "i", f"{index}", False))
    (runner,) = hooks._runners
    assert len(runner._waiting) == ITEMS
    assert counts == {("Slow", "dropped"): 1}
    with trio.fail_after(60):
        await trio.sleep(51)
    assert [text for (text,) in Slow.seen] == [str(index) for index in range(ITEMS)]
    hooks.emit("on_caller_audio", bytes(SIZE), 0)
    hooks.emit("on_caller_audio", bytes(SIZE), SIZE // 8)
    assert runner._size == SIZE
    hooks.emit("on_transcript", Words("caller", "i", "x", False))
    await hooks.finish(SUMMARY)
    assert Slow.seen[ITEMS:] == [("caller", SIZE, 0), ("end", "caller_hangup")]
    assert counts == {("Slow", "dropped"): 1}


async def test_what_waits_is_delivered_when_the_call_was_cancelled() -> None:
    class Own(Diary): ...

    hooks = hooks_of(Own)
    async with trio.open_nursery() as nursery:
        await nursery.start(hooks.run)
        hooks.emit("on_call_start")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        hooks.emit("on_caller_audio", bytes(160), 0)
    await hooks.finish(SUMMARY)
    assert Own.seen == [("start",), ("caller", 160, 0), ("end", "caller_hangup")]


async def test_a_call_that_never_began_is_ended_all_the_same() -> None:
    class Own(Diary): ...

    hooks = hooks_of(Own)
    hooks.emit("on_call_start")
    await hooks.finish(SUMMARY)
    assert Own.seen == [("start",), ("end", "caller_hangup")]


async def test_the_end_is_bounded_whatever_a_plugin_does(autojump_clock: MockClock) -> None:
    """In a nursery of the daemon's, what will not stop is left behind with its task."""
    let_go = trio.Event()

    class Shielded(Plugin):
        async def on_media(self) -> None:
            with trio.CancelScope(shield=True):
                await let_go.wait()

    class Stubborn(Plugin):
        async def on_call_end(self, summary: Summary) -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except trio.Cancelled:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    with trio.CancelScope(shield=True):
                        await trio.sleep(1)

    class Endless(Plugin):
        time_limit_s = 60.0

        async def on_call_end(self, summary: Summary) -> None:
            await trio.sleep_forever()

    class Own(Diary): ...

    counts = Counts()
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as daemon:
            hooks = hooks_of(Shielded, Stubborn, Endless, Own, count=counts, nursery=daemon)
            async with trio.open_nursery() as call:
                await call.start(hooks.run)
                hooks.emit("on_media")
                hooks.emit("on_call_start")
                await wait_all_tasks_blocked()
                call.cancel_scope.cancel()
            began = trio.current_time()
            with trio.CancelScope(shield=True):
                await hooks.finish(SUMMARY)
            assert trio.current_time() - began == pytest.approx(FINISH_S + STOP_S)
            assert Own.seen == [("start",), ("end", "caller_hangup")]
            enabled = {r.enabled.name: r.enabled for r in hooks._runners}
            assert {n: e.lingering for n, e in enabled.items()} == {
                "Shielded": 1,
                "Stubborn": 1,
                "Endless": 0,
                "Own": 0,
            }
            assert all(each.calls == 0 for each in enabled.values())
            let_go.set()
    assert counts["Shielded", "abandoned"] == 1
    assert counts["Endless", "too slow"] == 1
    told = [line for line in logs if "does not stop" in line["event"]]
    assert [line["hook"] for line in told] == ["on_media", "on_call_end"]


async def test_the_last_hook_comes_when_all_have_had_the_one_before(
    autojump_clock: MockClock,
) -> None:
    """Whoever does not end keeps the others from it for `FINISH_S`, and gets none."""
    facts: dict[str, str] = {}
    seen: list[tuple[str, float, dict[str, str]]] = []

    class Reporter(Plugin):
        async def on_call_end(self, summary: Summary) -> None:
            seen.append(("end", trio.current_time(), dict(facts)))

        async def on_call_over(self, summary: Summary) -> None:
            seen.append(("over", trio.current_time(), dict(facts)))

    class Noting(Plugin):
        async def on_call_end(self, summary: Summary) -> None:
            await trio.sleep(1)
            facts["noted"] = "late"

    class Endless(Plugin):
        time_limit_s = 60.0

        async def on_call_end(self, summary: Summary) -> None:
            await trio.sleep_forever()

        async def on_call_over(self, summary: Summary) -> None:
            raise AssertionError("it was cut off before")

    class Lasting(Plugin):
        time_limit_s = 60.0

        async def on_call_over(self, summary: Summary) -> None:
            await trio.sleep_forever()

    for plugins, over_s, end_s in (
        ((Reporter, Noting), 1.0, 1.0),
        ((Reporter, Noting, Endless), FINISH_S, FINISH_S),
        ((Reporter, Noting, Lasting), 1.0, FINISH_S),
        ((Reporter, Endless, Lasting), FINISH_S, FINISH_S + STOP_S),
    ):
        facts.clear()
        seen.clear()
        async with trio.open_nursery() as daemon:
            hooks = hooks_of(*plugins, nursery=daemon)
            began = trio.current_time()
            await hooks.finish(SUMMARY)
            assert trio.current_time() - began == pytest.approx(end_s)
        (_, first, none), (name, second, noted) = seen
        assert (first, none) == (began, {})
        assert name == "over"
        assert second - began == pytest.approx(over_s)
        assert noted == ({"noted": "late"} if Noting in plugins else {})


async def test_a_key_that_was_taken_is_not_passed_on_in_whatever_order(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    passed: list[str] = []

    class Reporter(Plugin):
        async def on_digit_passed(self, digit: str) -> None:
            passed.append(digit)

    class Taker(Plugin):
        async def on_digit(self, digit: str) -> bool | None:
            return digit == "1"

    for plugins in ((Reporter, Taker), (Taker, Reporter)):
        passed.clear()
        hooks = hooks_of(*plugins)
        await nursery.start(hooks.run)
        assert [await hooks.digit(digit) for digit in "121"] == [True, False, True]
        await hooks.finish(SUMMARY)
        assert passed == ["2"]
    # A call asks for keys also where nobody may take any.
    assert "on_digit" in hooks_of(Reporter).wants


async def test_a_hook_that_keeps_the_thread_is_named(nursery: trio.Nursery) -> None:
    class Sleepy(Plugin):
        async def on_media(self) -> None:
            await trio.lowlevel.checkpoint()
            time.sleep(0.06)  # noqa: ASYNC251 - what no plugin may do

    counts = Counts()
    with structlog.testing.capture_logs() as logs:
        hooks = hooks_of(Sleepy, count=counts)
        await nursery.start(hooks.run)
        hooks.emit("on_media")
        hooks.emit("on_media")
        await hooks.finish(SUMMARY)
    assert counts == {("Sleepy", "blocked"): 2}  # an annoyance, not a failure
    (line,) = [line for line in logs if line["event"] == "plugin holds up all calls"]
    assert line["hook"] == "on_media"
    assert line["blocked_ms"] >= 60


async def test_a_hook_that_keeps_the_thread_for_a_second_has_failed(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As raising does: after five of them the plugin is left out of the call."""
    now = [0.0]
    monkeypatch.setattr("voiced.hooks.stepping.perf_counter", lambda: now[0])
    monkeypatch.setattr("voiced.hooks.runner.STALLED_S", STALLED_S)  # other tests have patience

    class Stalls(Plugin):
        async def on_media(self) -> None:
            now[0] += STALLED_S

    counts = Counts()
    with structlog.testing.capture_logs() as logs:
        hooks = hooks_of(Stalls, count=counts)
        await nursery.start(hooks.run)
        for _ in range(FAILURES + 3):
            hooks.emit("on_media")
        await hooks.finish(SUMMARY)
    assert now[0] == FAILURES * STALLED_S
    assert counts == {
        ("Stalls", "blocked"): FAILURES,
        ("Stalls", "too slow"): FAILURES,
        ("Stalls", "left out"): 1,
    }
    whys = {line["why"] for line in logs if line["event"] == "plugin failed"}
    assert whys == {"held up all calls for 1.0 s"}


async def test_a_hook_that_keeps_the_thread_past_its_limit_was_too_slow(
    nursery: trio.Nursery,
) -> None:
    class Sleepy(Plugin):
        time_limit_s = 0.02

        async def on_media(self) -> None:
            time.sleep(0.03)  # noqa: ASYNC251 - what no plugin may do

    counts = Counts()
    hooks = hooks_of(Sleepy, count=counts)
    await nursery.start(hooks.run)
    hooks.emit("on_media")
    await hooks.finish(SUMMARY)
    assert counts["Sleepy", "too slow"] == 1


async def test_a_hook_that_cannot_be_cut_off_at_its_limit_was_too_slow(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Shielded(Plugin):
        async def on_media(self) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.time_limit_s + 1)

    class Deaf(Plugin):
        async def on_media(self) -> None:
            try:
                await trio.sleep(self.time_limit_s + 1)
            except trio.Cancelled:
                await trio.lowlevel.cancel_shielded_checkpoint()

    counts = Counts()
    hooks = hooks_of(Shielded, Deaf, count=counts)
    await nursery.start(hooks.run)
    hooks.emit("on_media")
    await trio.sleep(10)
    assert counts == {("Shielded", "too slow"): 1, ("Deaf", "too slow"): 1}
    await hooks.finish(SUMMARY)


async def test_of_what_nobody_is_to_read_only_the_type_is_said() -> None:
    class Own(Diary): ...

    with structlog.testing.capture_logs() as logs:
        hooks = hooks_of(Own)
        hooks.failed("Own", "tool", KeyError("a PIN"), words=False)
        await hooks.finish(SUMMARY)
    (line,) = [line for line in logs if line["event"] == "plugin failed"]
    assert line["why"] == "KeyError"
    assert line["exc_info"] is None  # whose last line has its words


async def test_a_failure_of_a_plugins_own_task_counts_too() -> None:
    class Own(Diary): ...

    counts = Counts()
    hooks = hooks_of(Own, count=counts)
    hooks.failed("Own", "task", KeyError("x"))
    hooks.failed("Other", "task", KeyError("x"))
    assert counts == {("Own", "failed"): 1}
    await hooks.finish(SUMMARY)


async def test_without_plugins_nothing_happens() -> None:
    assert not NO_HOOKS
    assert NO_HOOKS.wants == frozenset()
    for _ in range(2):
        await NO_HOOKS.run()
        NO_HOOKS.emit("on_caller_audio", b"", 0)
        planned = Greeting()
        assert await NO_HOOKS.greeting(planned) is planned
        assert not await NO_HOOKS.digit("1")
        assert await NO_HOOKS.tool_call(USE) is None
        await NO_HOOKS.finish(SUMMARY)
    assert CallHooks() is not NO_HOOKS
