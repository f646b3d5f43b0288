"""A whole daemon, its carriers and its model on a clock that jumps, over real sockets.

Whenever every task waits, no thread works, no program runs and no socket of this process has
anything to be read, time goes on to where the next thing is due. What is sent on the loopback
interface is there when the call that sends it returns, so that nothing overtakes it: a call's audio
comes in its time however busy the machine is, and a minute of talk takes as long as computing it
does.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import httpx
import pytest
import trio
from trio.testing import MockClock, active_thread_count, wait_all_tasks_blocked

from voiced.budget import Budget
from voiced.record import CallRecord
from voiced.simulate import sip_caller

__all__ = ["Lateness", "at_a_service", "let_time_jump", "of_this_clock", "run_virtually"]

T = TypeVar("T")

RUN_PROCESS: Final = trio.run_process

AWAY_S: Final = 0.001  # how often work elsewhere is looked after, of real time


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

    with pytest.MonkeyPatch.context() as patch, of_this_clock(clock):
        patch.setattr(CallRecord, "strict", True)
        return trio.run(run, clock=clock)


@contextmanager
def of_this_clock(clock: MockClock) -> Iterator[None]:
    """All that tells the time in this process goes by it, but for files and what Python dates."""
    began = time.time() - clock.current_time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: began + clock.current_time())
        patch.setattr(trio, "run_process", _run_process)
        for function, name, mine in (
            (Budget.__init__, "elapsed", clock.current_time),
            (sip_caller.call, "kernel_times", False),
        ):
            defaults = function.__kwdefaults__
            assert defaults is not None
            patch.setitem(defaults, name, mine)
        yield


@contextmanager
def at_a_service(url: str) -> Iterator[None]:
    """Time stands still while somebody asks a server at `url` that has threads of its own."""
    ask, to = httpx.AsyncHTTPTransport.handle_async_request, httpx.URL(url)

    async def counted(
        transport: httpx.AsyncHTTPTransport, request: httpx.Request
    ) -> httpx.Response:
        if (request.url.host, request.url.port) != (to.host, to.port):
            return await ask(transport, request)
        with _away():
            return await ask(transport, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", counted)
        yield


_errands: set[object] = set()
"""Programs and requests that tasks of this process wait for."""


@contextmanager
def _away() -> Iterator[None]:
    errand = object()
    _errands.add(errand)
    try:
        yield
    finally:
        _errands.remove(errand)


async def _run_process(*command: Any, **options: Any) -> Any:
    with _away():
        return await RUN_PROCESS(*command, **options)


def _at_work_elsewhere() -> bool:
    return bool(_errands) or active_thread_count() > 0


def let_time_jump(clock: MockClock) -> None:
    """In a run with that clock: as described above, from now on."""
    trio.lowlevel.spawn_system_task(_jump, clock, None)  # ends with the run


async def _jump(clock: MockClock, lateness: Lateness | None) -> None:
    while True:
        await wait_all_tasks_blocked(AWAY_S if _at_work_elsewhere() else 0.0)
        if _at_work_elsewhere():
            continue
        next_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if next_s < math.inf:
            late_s = 0.0 if lateness is None else lateness.next_s()
            clock.jump(max(0.0, next_s) + late_s)
