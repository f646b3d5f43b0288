"""Time that passes when nobody has anything to do."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from trio.testing import MockClock, active_thread_count, wait_all_tasks_blocked

__all__ = ["virtual_time"]

HANGS_S: Final = 5.0
"""A thread that works for longer, of real time, is taken for one that hangs."""


def virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Decorate a coroutine test: it runs on Trio, and its seconds take no time.

    Whenever everything waits, the clock jumps to where the next thing is due: an hour's call is
    tested in seconds, and always the same way. While a thread works (`trio.to_thread`) time stands
    still, for 5 s of real time at most: a test may be of one that hangs. Needs no plugin of
    pytest's.
    """

    @functools.wraps(test)
    def run(*args: object, **arguments: object) -> None:
        clock = MockClock()

        async def main() -> None:
            trio.lowlevel.spawn_system_task(_jump, clock)  # ends with the run
            await test(*args, **arguments)

        trio.run(main, clock=clock)

    return run


async def _jump(clock: MockClock) -> None:
    """Jump to the next deadline whenever nothing else can happen.

    A clock of Trio's own would do so, too, in the midst of a thread's work, however short.
    """
    idle_at = time.monotonic()
    while True:
        await wait_all_tasks_blocked(0.0001)  # after those that wait for this themselves
        if active_thread_count() == 0:  # whosever limiter they have
            idle_at = time.monotonic()
        elif time.monotonic() - idle_at < HANGS_S:
            continue
        next_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if next_s < math.inf:
            clock.jump(max(0.0, next_s))
