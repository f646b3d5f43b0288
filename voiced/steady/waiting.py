"""How `receive` waits: for the session that talks, for there to be one, or until it is rung for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import structlog
import trio

from voiced.engine import EngineEvent, Lost, Session
from voiced.steady.held import CRASHED, Held

__all__ = ["Waiting"]

log = structlog.get_logger("voiced.steady")


@final
class Waiting:
    """One call's; one task waits at a time."""

    def __init__(self, call_id: str) -> None:
        self._log = log.bind(call_id=call_id)
        self._bell = trio.Event()  # for who has no session to wait for
        self._end: Callable[[], None] | None = None  # the wait for a session, where there is one

    def ring(self) -> None:
        """End the wait."""
        self._bell.set()
        if self._end is not None:
            self._end()

    async def for_ring(self) -> None:
        """Wait until it rings, or has rung since the last time."""
        await self._bell.wait()
        self._bell = trio.Event()

    async def for_events(self, active: Held, live: Session) -> Sequence[EngineEvent]:
        """What the session brings; nothing where `ring` ended the wait."""
        events: Sequence[EngineEvent] = ()
        try:
            if active.interrupt is not None:
                self._end = active.interrupt
                events = await live.receive()
            else:
                with trio.CancelScope() as scope:
                    self._end = scope.cancel
                    events = await live.receive()
        except Exception as error:
            # A fault of ours or of a plugin's provider: it costs the session, not the call.
            self._log.exception("engine failed: a bug, please report it")
            events = [Lost(CRASHED, str(error)[:200], retryable=True)]
        finally:
            self._end = None
        return events
