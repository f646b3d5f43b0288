"""Runs the functions that the model calls: the caller hears a filler, the model the result."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio

from voiced.engine import Session, ToolCall
from voiced.leg import Unsupported
from voiced.playout import Playout
from voiced.plugin import Clip
from voiced.talk.answers import Answers
from voiced.talk.clipboard import Clipboard
from voiced.talk.floor import Floor
from voiced.talk.patience import Patience
from voiced.talk.toolbox import Asked, Toolbox
from voiced.talk.turns import Turns

__all__ = ["ToolRuns"]

TOOL_FILLER_S: Final = 0.7
"""A tool that returns sooner needs no filler."""


class ToolRuns:
    """Those of one call, each a task in the call's `nursery`."""

    def __init__(
        self,
        session: Session,
        toolbox: Toolbox,
        asked: Asked,
        clipboard: Clipboard,
        playout: Playout,
        floor: Floor,
        patience: Patience,
        answers: Answers,
        turns: Turns,
        nursery: trio.Nursery,
    ) -> None:
        self._session = session
        self._toolbox = toolbox
        self._asked = asked
        self._clipboard = clipboard
        self._playout = playout
        self._floor = floor
        self._patience = patience
        self._answers = answers
        self._turns = turns
        self._nursery = nursery
        self.running = 0
        """Of the model's calls those that have no result yet, refused ones included."""

    def call(self, event: ToolCall) -> None:
        """Run what the model has called; it is told the result, and asked to go on."""
        if self._floor.closing:
            return
        self.running += 1
        self._patience.working(True)
        self._nursery.start_soon(self._use, event)

    async def _use(self, event: ToolCall) -> None:
        turn = self._turns.number
        tool = self._toolbox.get(event.name)
        async with trio.open_nursery() as nursery:
            if tool is not None and tool.filler is not None:
                nursery.start_soon(self._fill, tool.filler)
            result = await self._toolbox.use(event, self._asked)
            nursery.cancel_scope.cancel()
        self._done(event, result, turn, answer=tool is None or tool.answer)

    async def _fill(self, filler: Clip) -> None:
        """Something to hear while a tool runs, unless the agent speaks."""
        await trio.sleep(TOOL_FILLER_S)
        if self._playout.idle:
            with suppress(Unsupported):
                self._clipboard.play((filler,), filler=True)

    def _done(self, event: ToolCall, result: str, turn: int, *, answer: bool) -> None:
        """A tool has returned; `turn` is the caller's turn in which it was called."""
        self.running -= 1
        self._patience.working(self.running > 0)
        if self._floor.closing:
            return
        self._session.tool_result(event.call_id, result)
        answering = self._answers.response is not None
        if not answer or self.running > 0:
            if not self.running and not answering:
                self._patience.settled()
                self._floor.settle()
            return
        if turn == self._turns.number or not self._patience.owed or answering:
            # Where the caller has said more meanwhile, the answer to that has the result as well,
            # unless it has begun without it.
            self._answers.ask()
