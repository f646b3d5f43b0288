"""Handing the caller over to somebody else; where that fails the conversation goes on."""

from __future__ import annotations

from collections.abc import Callable

import trio

from voiced.leg import Leg, LegClosed, Transferred, Unsupported
from voiced.record import CallRecord
from voiced.talk.absence import Absence

__all__ = ["Transfers"]


class Transfers:
    """One call's transfers, one at a time: `Absence` knows of the one that is under way."""

    def __init__(
        self,
        record: CallRecord,
        absence: Absence,
        start: Callable[..., None],
        end: Callable[[str], None],
        ended: trio.Event,
    ) -> None:
        """`start` runs a task of the call, and raises Unsupported where that is over.

        `end` ends the call, with a reason; `ended` says that it has.
        """
        self._record = record
        self._absence = absence
        self._start = start
        self._end = end
        self._ended = ended

    async def transfer(self, leg: Leg, target: str) -> Transferred:
        """Hand over to `target`, in a task of the call's: who asked may give up, it goes through.

        Raises Unsupported, or ValueError for a target that is none.
        """
        outcome: list[Transferred | Exception] = []
        done = trio.Event()
        self._start(self._transfer, leg, target, outcome, done)
        self._absence.transfer(True)  # before that task's first step
        async with trio.open_nursery() as either:
            for event in (done, self._ended):
                either.start_soon(_first, event, either.cancel_scope)
        if not outcome:
            # The carrier took the caller before it had said so, or the caller did not wait.
            taken = self._record.reason == "transferred"
            return Transferred(taken, text="" if taken else "the call ended meanwhile")
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    async def _transfer(
        self, leg: Leg, target: str, outcome: list[Transferred | Exception], done: trio.Event
    ) -> None:
        try:
            outcome.append(await leg.transfer(target))
        except (Unsupported, ValueError) as error:
            outcome.append(error)
        except LegClosed:
            outcome.append(Transferred(False, text="the call ended meanwhile"))
        done.set()
        result = outcome[0]
        if isinstance(result, Transferred) and result.done:
            self._record.log.info("call transferred", status=result.status)
            self._end("transferred")
            return
        why = result.text if isinstance(result, Transferred) else str(result)
        status = result.status if isinstance(result, Transferred) else None
        self._record.log.warning("transfer failed", why=why[:200], status=status)
        self._absence.transfer(False)


async def _first(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
