"""Deliveries on a virtual clock: order, retries, deadlines, restarts."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from voiced_plugins import _courier
from voiced_plugins._courier import (
    Again,
    Courier,
    Done,
    Limits,
    Never,
    Outcome,
)
from voiced_plugins._lanes import LONGEST_ASKED_S, LONGEST_S, Lanes, delay_s
from voiced_plugins._spool import Item, Spool, Stored

from voiced.testing import virtual_time

EPOCH = 1_700_000_000.0
LIMITS = Limits(max_items=1000, max_bytes=10**6, deadline_s=3600.0, at_once=4)

# ---- the schedule ----


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_delays_double_up_to_ten_minutes_of_which_a_half_is_chance(
    tries: int, jitter: float
) -> None:
    most = min(LONGEST_S, 2.0 ** min(tries - 1, 30))
    assert most / 2 <= delay_s(tries, None, jitter) <= most
    assert delay_s(tries, None, 0.0) <= delay_s(tries + 1, None, 0.0)


@given(st.integers(1, 100), st.floats(-10, 10**7), st.floats(0, 1))
def test_what_is_asked_for_is_kept_to(tries: int, after_s: float, jitter: float) -> None:
    wait = delay_s(tries, after_s, jitter)
    assert wait >= min(after_s, LONGEST_ASKED_S)
    assert 0 <= wait <= max(0.0, min(after_s, LONGEST_ASKED_S)) + 1


class LanesMachine(RuleBasedStateMachine):
    """Against what should be in each lane: none is forgotten, none served twice at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = Lanes()
        self.now = 0.0
        self.items: dict[str, int] = {}
        self.taken: set[str] = set()
        self.due: dict[str, float] = {}

    @rule(lane=st.sampled_from("abcd"), in_s=st.integers(0, 3))
    def add(self, lane: str, in_s: int) -> None:
        self.items[lane] = self.items.get(lane, 0) + 1
        self.lanes.add(lane, self.now + in_s)
        if lane not in self.taken:
            self.due.setdefault(lane, self.now + in_s)

    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        lane = self.lanes.take(self.now)
        ready = [each for each, due in self.due.items() if due <= self.now]
        if lane is None:
            assert not ready
            return
        assert self.due[lane] == min(self.due[each] for each in ready)
        assert lane not in self.taken
        self.taken.add(lane)
        del self.due[lane]

    @rule(data=st.data(), in_s=st.integers(0, 4))
    def serve(self, data: st.DataObject, in_s: int) -> None:
        if not self.taken:
            return
        lane = data.draw(st.sampled_from(sorted(self.taken)))
        self.taken.discard(lane)
        if self.items[lane]:
            self.items[lane] -= data.draw(st.integers(0, 1))
            self.lanes.put_back(lane, self.now + in_s)
            self.due[lane] = self.now + in_s
        else:
            self.lanes.empty(lane, self.now)

    @rule(lane=st.sampled_from("abcd"))
    def added_while_it_was_found_empty(self, lane: str) -> None:
        if lane in self.taken and not self.items[lane]:
            self.items[lane] = 1
            self.lanes.add(lane, self.now)
            self.lanes.empty(lane, self.now)
            self.taken.discard(lane)
            self.due[lane] = self.now

    @invariant()
    def nothing_is_forgotten(self) -> None:
        waiting = {lane for lane, count in self.items.items() if count}
        assert waiting <= self.taken | set(self.due)
        assert self.lanes.taken == len(self.taken)
        assert len(self.lanes) == len(self.taken) + len(self.due)
        assert self.lanes.next_due() == (min(self.due.values()) if self.due else None)


TestLanes = LanesMachine.TestCase

# ---- couriers ----


class Receiver:
    """Takes deliveries, and answers as `answer` says."""

    def __init__(self, answer: Callable[[Stored], Outcome] = lambda _: Done()) -> None:
        self.answer = answer
        self.got: list[tuple[float, str]] = []  # when, what
        self.taken: list[str] = []
        self.busy = self.busiest = 0
        self.takes_s = 0.0

    async def deliver(self, stored: Stored) -> Outcome:
        self.got.append((round(trio.current_time(), 3), stored.item.name))
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        await trio.sleep(self.takes_s)
        self.busy -= 1
        outcome = self.answer(stored)
        if isinstance(outcome, Done):
            self.taken.append(stored.item.name)
        return outcome

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.got]


def clock() -> float:
    return EPOCH + trio.current_time()


def item(name: str, lane: str = "a", body: bytes = b"{}") -> Item:
    return Item(lane, name, "kind", body, clock())


@asynccontextmanager
async def running(
    folder: Path,
    deliver: Callable[[Stored], Awaitable[Outcome]],
    limits: Limits = LIMITS,
    *,
    close: bool = True,
) -> AsyncIterator[Courier]:
    courier = Courier(
        folder,
        deliver,
        limits,
        structlog.get_logger("test"),
        now=clock,
        jitter=lambda: 1.0,
        limiter=trio.to_thread.current_default_thread_limiter(),
    )
    await courier.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(courier.run)
        yield courier
        nursery.cancel_scope.cancel()
    if close:
        await courier.close()


@virtual_time
async def test_a_lane_keeps_its_order_and_lanes_do_not_wait_for_each_other(tmp_path: Path) -> None:
    def answer(stored: Stored) -> Outcome:
        return Again("busy") if stored.item.name == "a1" and stored.tries < 2 else Done()

    receiver = Receiver(answer)
    async with running(tmp_path, receiver.deliver) as courier:
        began = trio.current_time()
        for name in ("a1", "a2", "b1", "b2", "a3"):
            courier.put(item(name, name[0]))
        await trio.sleep(10)
        assert courier.statistics == {"delivered": 5, "lost": 0}
    assert [each for each in receiver.taken if each[0] == "a"] == ["a1", "a2", "a3"]
    assert receiver.taken[:2] == ["b1", "b2"]
    tries = [round(at - began) for at, name in receiver.got if name == "a1"]
    assert tries == [0, 1, 3]


@virtual_time
async def test_no_more_lanes_at_once_than_allowed(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.takes_s = 1.0
    async with running(tmp_path, receiver.deliver) as courier:
        for number in range(10):
            courier.put(item(f"{number}", f"lane{number}"))
        await trio.sleep(4)
    assert receiver.busiest == 4
    assert len(receiver.taken) == 10


@virtual_time
async def test_what_is_refused_holds_up_nothing_and_is_said_once(tmp_path: Path) -> None:
    receiver = Receiver(lambda stored: Never("status 400") if stored.item.name < "3" else Done())
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path, receiver.deliver) as courier:
            for number in range(5):
                courier.put(item(str(number)))
            await trio.sleep(1)
            assert courier.statistics == {"delivered": 2, "lost": 3}
    assert receiver.names == ["0", "1", "2", "3", "4"]
    said = [(each["event"], each["lost"]) for each in logs if "lost" in each]
    assert said == [("delivery given up", 1), ("deliveries were given up", 3)]


@virtual_time
async def test_the_deadline_is_kept(tmp_path: Path) -> None:
    receiver = Receiver(lambda _: Again("down"))
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path, receiver.deliver) as courier:
            courier.put(item("1"))
            await trio.sleep(4000)
            assert courier.statistics == {"delivered": 0, "lost": 1}
    times = [at - receiver.got[0][0] for at, _ in receiver.got]
    assert [round(each) for each in times[:5]] == [0, 1, 3, 7, 15]
    assert times[-1] <= 3600
    assert max(late - early for early, late in pairwise(times)) <= LONGEST_S + 1
    assert [each["event"] for each in logs if each["log_level"] != "info"] == [
        "delivery failed, and is tried again",
        "delivery given up",
    ]


@virtual_time
async def test_a_server_that_asks_for_a_pause_gets_it_from_all(tmp_path: Path) -> None:
    def answer(stored: Stored) -> Outcome:
        if stored.item.name == "a" and not stored.tries:
            return Again("status 429", 30.0, all_wait=True)
        return Done()

    receiver = Receiver(answer)
    async with running(tmp_path, receiver.deliver) as courier:
        courier.put(item("a", "a"))
        await trio.sleep(1)
        courier.put(item("b", "b"))
        await trio.sleep(28)
        assert receiver.names == ["a"]
        await trio.sleep(5)
        assert sorted(receiver.taken) == ["a", "b"]


@virtual_time
async def test_the_first_try_can_wait(tmp_path: Path) -> None:
    limits = Limits(10, 1000, 60.0, 1, first_s=6.0)
    receiver = Receiver()
    async with running(tmp_path, receiver.deliver, limits) as courier:
        courier.put(item("1"))
        await trio.sleep(5.5)
        assert receiver.got == []
        await trio.sleep(1)
        assert receiver.names == ["1"]


@pytest.mark.parametrize("closed", [True, False])
@virtual_time
async def test_deliveries_go_on_after_a_restart(tmp_path: Path, closed: bool) -> None:
    """A close that is left out is what is left of a crash: its lock goes with the process."""
    down = Receiver(lambda _: Again("down"))
    async with running(tmp_path, down.deliver, close=closed) as courier:
        for name in ("a1", "a2", "b1"):
            courier.put(item(name, name[0]))
        await courier.written()
        await trio.sleep(5)
    if not closed:
        assert courier._spool is not None
        courier._spool._database.close()
        import os

        os.close(courier._spool._owner_fd)
    up = Receiver()
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path, up.deliver):
            await trio.sleep(1)
    assert sorted(up.taken[:2]) == ["a1", "b1"]
    assert up.taken[2] == "a2"
    assert [each["items"] for each in logs if "items" in each] == [3]


@virtual_time
async def test_what_an_older_service_leaves_is_adopted(tmp_path: Path) -> None:
    """As at a reload: two share a folder until the calls of the first have ended."""
    down, up = Receiver(lambda _: Again("old address")), Receiver()
    async with running(tmp_path, up.deliver) as new:
        async with running(tmp_path, down.deliver) as old:
            old.put(item("1"))
            new.put(item("2", "b"))
            await trio.sleep(100)
            assert up.taken == ["2"]
        await trio.sleep(61)
        assert up.taken == ["2", "1"]


@virtual_time
async def test_what_was_put_last_leaves_before_the_end(tmp_path: Path) -> None:
    receiver = Receiver()
    async with running(tmp_path, receiver.deliver) as courier:
        courier.put(item("1"))
        courier.put(item("2"))
    assert receiver.taken == ["1", "2"]


@virtual_time
async def test_a_disk_that_refuses_keeps_what_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver()
    monkeypatch.setattr(_courier, "BACKLOG", 200)
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path, receiver.deliver) as courier:
            with monkeypatch.context() as patch:

                def refuse(*args: Any) -> int:
                    raise sqlite3.OperationalError("database or disk is full")

                patch.setattr(Spool, "add", refuse)
                for number in range(205):
                    courier.put(item(str(number), str(number % 50)))
                await trio.sleep(20)
                assert receiver.got == []
            await trio.sleep(60)
            await courier.written()
            assert courier.statistics == {"delivered": 200, "lost": 5}
    said = [each["event"] for each in logs if each["log_level"] == "error"]
    assert said.count("spool cannot be written") == 1


@virtual_time
async def test_what_waits_for_a_disk_is_bounded_by_its_bytes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_courier, "BACKLOG_BYTES", 1000)
    receiver = Receiver()
    async with running(tmp_path, receiver.deliver) as courier:
        for number in range(5):  # before anything can be written
            courier.put(item(str(number), body=bytes(400)))
        assert courier.statistics == {"delivered": 0, "lost": 2}
        await courier.written()
        courier.put(item("later", body=bytes(400)))
        await trio.sleep(5)
    assert receiver.taken == ["0", "1", "2", "later"]


def test_what_comes_while_a_lane_is_found_empty_is_looked_for_again() -> None:
    lanes = Lanes()
    lanes.add("a", 0.0)
    assert lanes.take(0.0) == "a"
    lanes.add("a", 5.0)  # after the disk was asked
    lanes.empty("a", 1.0)
    assert lanes.next_due() == 1.0
    assert lanes.take(1.0) == "a"
    lanes.empty("a", 2.0)
    assert lanes.take(9.0) is None
    assert len(lanes) == 0


@virtual_time
async def test_what_cannot_be_removed_is_not_delivered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver()
    async with running(tmp_path, receiver.deliver) as courier:
        with monkeypatch.context() as patch:

            def refuse(*args: Any) -> None:
                raise sqlite3.OperationalError("database or disk is full")

            patch.setattr(Spool, "remove", refuse)
            courier.put(item("1"))
            courier.put(item("2"))
            await trio.sleep(60)
            assert receiver.names == ["1"]
        await trio.sleep(6)
    assert receiver.names == ["1", "2"]


@virtual_time
async def test_a_bug_in_a_delivery_costs_no_other(tmp_path: Path) -> None:
    def answer(stored: Stored) -> Outcome:
        if stored.item.name == "bad" and stored.tries == 0:
            raise RuntimeError("a bug")
        return Done()

    receiver = Receiver(answer)
    async with running(tmp_path, receiver.deliver) as courier:
        courier.put(item("bad", "a"))
        courier.put(item("good", "b"))
        await trio.sleep(3)
    assert receiver.taken == ["good", "bad"]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from("ra"), max_size=4)),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 40),
)
def test_any_script_of_failures_and_a_restart_delivers_all_in_order(
    script: list[tuple[str, list[str]]], restart_after_s: int
) -> None:
    import tempfile

    failures = {f"{lane}{n}": list(kinds) for n, (lane, kinds) in enumerate(script)}

    def answer(stored: Stored) -> Outcome:
        left = failures[stored.item.name]
        if not left:
            return Done()
        return Again("later", 3.0 if left.pop() == "a" else None)

    @virtual_time
    async def play(folder: Path) -> None:
        first, second = Receiver(answer), Receiver(answer)
        async with running(folder, first.deliver) as courier:
            for name in failures:
                courier.put(item(name, name[0]))
            await courier.written()
            await trio.sleep(restart_after_s)
        async with running(folder, second.deliver):
            await trio.sleep(600)
        taken = first.taken + second.taken
        for lane in "abc":
            wanted = [name for name in failures if name[0] == lane]
            assert [name for name in taken if name[0] == lane] == wanted

    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder))
