"""A coroutine of a plugin that a task of the call waits for, and can leave behind.

Trio cannot end a task that shields itself or swallows its cancellation, and a nursery waits for all
of its tasks. What a plugin starts therefore runs in a nursery of the daemon's. A task of the call
stands for it there: it hands cancellation on, waits a while for the end, and goes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from voiced.hooks.stepping import alone, interrupts, without_cancelled

__all__ = ["Contained"]

T = TypeVar("T")


class Contained(Generic[T]):
    """One run of `function(*args)`.

    `left` is told when it is left behind, with the event of its end; `stopped` of that end.
    """

    def __init__(
        self,
        function: Callable[..., Awaitable[T]],
        args: tuple[object, ...],
        left: Callable[[trio.Event], None],
        stopped: Callable[[], None],
    ) -> None:
        self._function = function
        self._args = args
        self._tell_left = left
        self._tell_stopped = stopped
        self._scope = trio.CancelScope()
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._over = trio.Event()
        self._left = False

    async def outcome(self, nursery: trio.Nursery, limit_s: float) -> T:
        """Run it in `nursery`, once; returns what it returns and raises what it raises.

        Where whoever waits is cancelled it has `limit_s` to end, and is left behind after that.
        """
        nursery.start_soon(self._run)
        try:
            await self._over.wait()
        except trio.Cancelled:
            self._scope.cancel()
            with trio.move_on_after(limit_s, shield=True):
                await self._over.wait()
            if not self._over.is_set():
                self._left = True
                self._tell_left(self._over)
                raise
            if self._error is None and not self._values:
                raise
        if self._error is not None:
            raise self._error
        if not self._values:
            raise RuntimeError("raised a Cancelled that was not its own")
        return self._values[0]

    async def _run(self) -> None:
        try:
            await alone(self._work, self._raised)
        finally:
            self._over.set()
            if self._left:
                self._tell_stopped()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _raised(self, error: BaseException | None) -> None:
        self._error = error

    async def _work(self) -> None:
        try:
            with self._scope:
                self._values.append(await self._function(*self._args))
        except BaseException as error:  # a stranger's, for whoever waits
            if interrupts(error):
                raise
            self._raised(without_cancelled(error))
        await trio.lowlevel.checkpoint_if_cancelled()  # of the nursery, where it was swallowed
