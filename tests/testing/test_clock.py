"""Virtual time: it passes when nobody has anything to do, and not while a thread works."""

from __future__ import annotations

import threading
import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from voiced.testing import virtual_time


def test_an_hour_passes_at_once_and_in_order() -> None:
    woken = []

    @virtual_time
    async def sleepers(first: float, *, second: float) -> None:
        async def sleeper(seconds: float) -> None:
            await trio.sleep(seconds)
            woken.append((seconds, trio.current_time()))

        async with trio.open_nursery() as nursery:
            for seconds in (3600, first, second):
                nursery.start_soon(sleeper, seconds)

    began = time.monotonic()
    sleepers(0.02, second=1.5)
    assert [seconds for seconds, _ in woken] == [0.02, 1.5, 3600]
    assert [at - woken[0][1] for _, at in woken] == pytest.approx([0, 1.48, 3599.98])
    assert time.monotonic() - began < 600


@virtual_time
async def test_a_thread_takes_no_time() -> None:
    began = trio.current_time()
    with trio.move_on_after(1) as limit:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(trio.to_thread.run_sync, time.sleep, 0.05)
    assert not limit.cancelled_caught
    assert trio.current_time() == began


@virtual_time
async def test_nor_does_one_of_a_plugins_own_limiter() -> None:
    limiter = trio.CapacityLimiter(1)
    with trio.move_on_after(1) as limit:
        await trio.to_thread.run_sync(time.sleep, 0.05, abandon_on_cancel=True, limiter=limiter)
    assert not limit.cancelled_caught


@virtual_time
async def test_a_thread_that_hangs_does_not_stop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiced.testing.clock.HANGS_S", 0.05)
    over = threading.Event()
    with trio.move_on_after(1) as limit:
        await trio.to_thread.run_sync(over.wait, 10, abandon_on_cancel=True)
    over.set()
    assert limit.cancelled_caught


@virtual_time
async def test_who_waits_for_quiet_comes_before_the_jump() -> None:
    with trio.move_on_after(1) as limit:
        for _ in range(10):
            await wait_all_tasks_blocked()
    assert not limit.cancelled_caught


def test_what_a_test_raises_comes_out_as_it_is() -> None:
    @virtual_time
    async def wrong() -> None:
        await trio.sleep(1)
        raise AssertionError("says the test")

    with pytest.raises(AssertionError, match="says the test"):
        wrong()
