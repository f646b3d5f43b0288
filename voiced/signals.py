"""What the process is told by signals: to read its file again (SIGHUP), or to stop."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeVar

import trio

__all__ = ["Signals"]

T = TypeVar("T")

HEARD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

UNANSWERED: Final = 2
"""Words to stop that may wait. One may come twice, as Ctrl-C does under a program that passes it
on; who has to say it once more talks to a loop that somebody's code holds up."""


class Signals:
    """Signals since `open`, kept until one task asks; after `close` they do what they always do."""

    def __init__(self) -> None:
        self.stopped: signal.Signals | None = None
        """The signal that has told the process to stop."""
        self._told = 0  # words to stop that nobody has asked for yet
        self._to_reload = False
        self._news = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._before: dict[signal.Signals, Any] = {}

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Signals]:
        """Listen until the context is left. Raises ValueError in another thread than the first."""
        signals = cls()
        try:
            for number in HEARD:
                signals._before[number] = signal.signal(number, signals._hear)
            yield signals
        finally:
            signals.close()

    def close(self) -> None:
        """Listen no longer."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        # Between any two steps of anything: note it, and have it looked at by the loop.
        if number == signal.SIGHUP:
            self._to_reload = True
        else:
            self.stopped = self.stopped or signal.Signals(number)
            self._told += 1
        if self._told > UNANSWERED:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._token.run_sync_soon(self._wake, idempotent=True)

    def _wake(self) -> None:
        self._news.set()

    async def told_to_reload(self) -> bool:
        """Wait for the next word: True for a reload, False for the end."""
        while self.stopped is None and not self._to_reload:
            await self._some_news()
        if self.stopped is not None:
            return False
        self._to_reload = False
        return True

    async def told_again(self) -> None:
        """Wait until the process, that has been told to stop, is told so once more."""
        self._told -= 1
        while self._told <= 0:
            await self._some_news()

    async def unless_stopped(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do `work`, and cancel it when told to stop; None where it was. Reloads wait meanwhile.

        What `work` raises comes in a group, as nurseries do.
        """
        done: T | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_stopped, nursery.cancel_scope)
            done = await work()
            nursery.cancel_scope.cancel()
        return done

    async def _cancel_when_stopped(self, scope: trio.CancelScope) -> None:
        while self.stopped is None:
            await self._some_news()
        scope.cancel()

    async def _some_news(self) -> None:
        await self._news.wait()
        self._news = trio.Event()
