"""A whole daemon, its carriers and its model on a clock that jumps, over real sockets.

Whenever every task waits, no thread works and no socket of this process has anything to be read,
time goes on to where the next thing is due. What is sent on the loopback interface is there when
the call that sends it returns, so that nothing overtakes it: a call's audio comes in its time
however busy the machine is, and a minute of talk takes as long as computing it does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import pytest
import trio
from trio.testing import MockClock, active_thread_count, wait_all_tasks_blocked

from voiced.record import CallRecord

__all__ = ["Lateness", "run_virtually"]

T = TypeVar("T")

THREAD_S: Final = 0.001  # how often a thread that works is looked after, of real time


class Lateness:
    """How much later than due this process wakes: as on a machine that has more to do.

    Mostly well below a millisecond; once in `every` wake-ups up to `most_ms`. Equal seeds give
    equal times.
    """

    def __init__(self, every: int, most_ms: float, seed: int = 1) -> None:
        self._rng = random.Random(seed)
        self._every = every
        self._most_s = most_ms / 1000

    def next_s(self) -> float:
        """Of one wake-up."""
        if self._rng.randrange(self._every) == 0:
            return self._rng.uniform(0, self._most_s)
        return self._rng.expovariate(5000)


def run_virtually(
    main: Callable[[], Coroutine[Any, Any, T]], lateness: Lateness | None = None
) -> T:
    """`trio.run` with such a clock; illegal changes of a call's state raise in it."""
    clock = MockClock()

    async def run() -> T:
        trio.lowlevel.spawn_system_task(_jump, clock, lateness)  # ends with the run
        return await main()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CallRecord, "strict", True)
        return trio.run(run, clock=clock)


async def _jump(clock: MockClock, lateness: Lateness | None) -> None:
    while True:
        await wait_all_tasks_blocked(THREAD_S if active_thread_count() else 0.0)
        if active_thread_count():
            continue
        next_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if next_s < math.inf:
            late_s = 0.0 if lateness is None else lateness.next_s()
            clock.jump(max(0.0, next_s) + late_s)
