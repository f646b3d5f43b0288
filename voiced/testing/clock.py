"""Time that passes when nobody has anything to do."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import overload

import trio
from trio.testing import MockClock

__all__ = ["IDLE_S", "virtual_time"]

IDLE_S = 0.005
"""Real seconds without work after which time jumps: threads, such as those that write files, are
work that Trio does not see."""


@overload
def virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]: ...


@overload
def virtual_time(
    *, idle_s: float = IDLE_S
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]: ...


def virtual_time(
    test: Callable[..., Awaitable[None]] | None = None, *, idle_s: float = IDLE_S
) -> Callable[..., None] | Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Decorate a coroutine test: it runs on Trio, and its seconds take no time.

    Whenever everything waits, the clock jumps to where the next thing is due: an hour's call is
    tested in seconds, and always the same way. Needs no plugin of pytest's. `idle_s = 0` is
    quicker, for plugins that use no threads.
    """

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*args: object, **arguments: object) -> None:
            clock = MockClock(autojump_threshold=idle_s)
            trio.run(functools.partial(test, *args, **arguments), clock=clock)

        return run

    return decorate if test is None else decorate(test)
