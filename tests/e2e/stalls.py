"""Scenarios that a machine with other things to do has spoilt are played once more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from tests.e2e.house import House

__all__ = ["undisturbed"]

DISTURBED_MS = 200.0
"""A caller in this process who stood still for so long has heard a hole, or made one."""

TRIES = 3


async def undisturbed(here: House, scenario: Callable[[House], Awaitable[None]]) -> None:
    """Play it, and again if it failed while this process stood still. Needs no state of its own."""
    for left in reversed(range(TRIES)):
        before = here.stalled_ms
        try:
            await scenario(here)
            return
        except AssertionError:
            await trio.sleep(0.1)  # `stalled_ms` is written after the stall
            if not left or here.stalled_ms - before < DISTURBED_MS:
                raise
