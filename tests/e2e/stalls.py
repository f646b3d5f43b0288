"""Scenarios that a machine with other things to do has spoilt are played once more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from tests.e2e.house import House

__all__ = ["undisturbed"]

DISTURBED_MS = 200.0
"""A caller in this process who stood still for so long has heard a hole, or made one."""

TRIES = 4

_again = trio.CapacityLimiter(2)
"""What fails for want of a processor is tried again in small company: who waits for that begins
nothing else, so that a busy machine gets less to do."""


async def undisturbed(here: House, scenario: Callable[[House], Awaitable[None]]) -> None:
    """Play it, and again if it failed while this process stood still. Needs no state of its own."""
    before = here.stalled_ms
    try:
        await scenario(here)
        return
    except Exception:  # an AssertionError mostly, alone or of a task
        await trio.sleep(0.1)  # `stalled_ms` is written after the stall
        if here.stalled_ms - before < DISTURBED_MS:
            raise
    async with _again:
        for left in reversed(range(1, TRIES)):
            before = here.stalled_ms
            try:
                await scenario(here)
                return
            except Exception:  # an AssertionError mostly, alone or of a task
                await trio.sleep(0.1)
                if left == 1 or here.stalled_ms - before < DISTURBED_MS:
                    raise
