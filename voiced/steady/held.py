"""One session of an engine, from the attempt to make it until it has been closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import structlog
import trio

from voiced.engine import EngineEvent, EngineFault, Lost, Plan, Ready, Session, ToolSpec
from voiced.steady.guard import Attempt, Guarded, Lease
from voiced.steady.names import Names

__all__ = ["CRASHED", "Held"]

log = structlog.get_logger("voiced.steady")

CRASHED: Final = "engine_failed"
"""The code of a session that an exception has ended."""

MAX_FAULTS: Final = 64  # before a session is ready: one per setting that the server refuses


@final
class Held:
    """Opened by `run`, in a task of its own, which leaves the session's context in the end.

    `changed` is called when `ready` or `lost` has been settled, and when the engine breaks down.
    """

    def __init__(
        self,
        side: int,
        guarded: Guarded,
        lease: Lease,
        attempt: Attempt,
        tools: tuple[ToolSpec, ...],
        changed: Callable[[Held], None],
    ) -> None:
        self.side = side
        self.guarded = guarded
        self.lease = lease
        self.attempt = attempt
        self.tools = tools  # that it was opened with
        self.names = Names(1)
        self.born = trio.current_time()
        self.ends_at: float | None = None
        self.faults: list[EngineEvent] = []  # before `Ready`
        self.late: list[EngineEvent] = []  # that came along behind it, in one wake-up
        self.ready = False
        self.lost: Lost | None = None
        self.retry_after_s = 0.0  # as the server that refused it says
        self.session: Session | None = None
        self.interrupt: Callable[[], None] | None = None
        """Has `receive` return, where the session offers that: a scope around it costs more."""
        self._changed = changed
        self._gives_back = self._closed = False
        self._released = trio.Event()
        self._connecting = trio.CancelScope()

    async def run(self, plan: Plan) -> None:
        """Open the session, see it connect, hold it until `release`."""
        try:
            async with self.guarded.engine.open(plan) as session:
                self.session = session
                self.interrupt = getattr(session, "interrupt", None)
                with self._connecting:
                    await self._connect(session)
                    self._changed(self)
                await self._released.wait()
        except Exception as error:
            # A fault of ours or of a plugin's provider; this call has other ways to go on.
            log.exception("engine failed: a bug, please report it", engine=self.guarded.engine.name)
            self.attempt.failed(CRASHED, terminal=False)
            self.ready = False
            self.lost = Lost(CRASHED, str(error)[:200], retryable=True)
            self._changed(self)
        finally:
            self.attempt.abandon()
            self._closed = True
            if self._gives_back:
                self.lease.release()

    async def _connect(self, session: Session) -> None:
        while not self.ready:
            for event in await session.receive():
                if self.ready:
                    self.late.append(event)
                elif isinstance(event, Ready):
                    self.ready = True
                elif isinstance(event, Lost):
                    self.lost = event
                    self.retry_after_s = getattr(session, "retry_after_s", 0.0)
                    return
                elif isinstance(event, EngineFault) and len(self.faults) < MAX_FAULTS:
                    self.faults.append(event)
        # Not every kind of session ends by itself, and so not every one says when.
        expires_in_s: float | None = getattr(session, "expires_in_s", None)
        if expires_in_s is not None:
            self.ends_at = trio.current_time() + expires_in_s

    def release(self, *, give_back: bool = False) -> None:
        """Have the session closed, in its own time; nothing more is taken from it.

        `give_back`: its place too, once it is closed; else that is the caller's to use again.
        """
        self._gives_back = self._gives_back or give_back
        self._connecting.cancel()
        self._released.set()
        if give_back and self._closed:
            self.lease.release()
