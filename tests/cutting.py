"""Work that is cancelled at each of its steps, and what it leaves behind."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Awaitable, Callable

import trio

__all__ = ["cut_off", "left_behind"]

MOST = 100
"""Steps that a request to a server in this process takes at the most; as it is ready 20 to 50."""


class Cut(trio.abc.Instrument):
    """Cancels after so many steps of all tasks."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self.left = steps
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self._scope.cancel()


async def cut_off(steps: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Do it, cancelled after so many steps of all tasks; whether it was."""
    with trio.CancelScope() as scope:
        cut = Cut(steps, scope)
        trio.lowlevel.add_instrument(cut)
        try:
            await work()
        finally:
            trio.lowlevel.remove_instrument(cut)
    return cut.left <= 0


def left_behind(run: Callable[[int], Awaitable[bool]]) -> list[str]:
    """Run it in a loop of its own for each number of steps; what is complained of by the end.

    It says whether it was cut off: early it has to be, with the most steps it may not.
    """
    gc.collect()  # what other tests have left is theirs
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        cut = []
        for steps in range(1, MOST):
            cut.append(trio.run(run, steps))
            gc.collect()
    assert cut[9]
    assert not cut[-1]
    return [str(each.message) for each in seen]
