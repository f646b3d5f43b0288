"""Running a stranger's coroutine: how long each of its steps holds up everything else."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from time import perf_counter
from typing import Any

import trio

__all__ = ["alone", "described", "interrupts", "stepped", "without_cancelled"]


@types.coroutine
def stepped(
    coroutine: Coroutine[Any, Any, Any], note: Callable[[float], None]
) -> Generator[Any, Any, Any]:
    """Await `coroutine`; `note` gets the seconds of each step in which nothing else could run.

    Real time, whatever Trio's clock says: a sleep of the thread is one long step.
    """
    value: Any = None
    error: BaseException | None = None
    while True:
        began = perf_counter()
        try:
            trap = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            error = None  # it would hold this frame, and the frame it
            note(perf_counter() - began)
        try:
            value = yield trap
        except BaseException as thrown:  # Trio's to raise, the coroutine's to see
            error = thrown


async def alone(
    function: Callable[[], Awaitable[object]], raised: Callable[[BaseException | None], None]
) -> None:
    """Run a stranger's code in a task of its own, which it may leave with a nursery still open.

    Trio ends such a task with an error, and it would be that of whoever waits. `raised` gets what
    is left of any error without Trio's Cancelled; somebody at the keyboard still interrupts.
    """
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(function)
    except BaseException as error:
        if interrupts(error):
            raise
        raised(without_cancelled(error))


def described(error: BaseException) -> str:
    """An exception in one line; a stranger's may fail even at saying what it is."""
    try:
        return f"{type(error).__name__}: {error}"[:500].replace("\n", " ")
    except Exception:
        return type(error).__name__


def interrupts(error: BaseException) -> bool:
    """Say whether somebody at the keyboard wants voiced to end."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


def without_cancelled(error: BaseException) -> BaseException | None:
    """What is left of an error when Trio's Cancelled is taken out; None for nothing."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error
