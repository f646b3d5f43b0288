"""An engine made of engines: no dead air below the call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from voiced.config.types import Agent
from voiced.engine import Billed, Plan
from voiced.steady.guard import Guarded
from voiced.steady.session import SteadySession

__all__ = ["SteadyEngine"]

CLOSE_S: Final = 1.0  # what `Engine.open` promises; sessions close beside each other


@final
class SteadyEngine:
    """The engine of one call (`voiced.engine.Engine`); make one for each.

    Its session emits `Ready` once, then `Reconnecting` in the step in which a loss is known and
    `Resumed` when another session has taken over, or `Lost` where nothing is left to try: the
    agent's `reconnect_s` is over, for both engines, or no attempt can succeed. `Reconnecting` comes
    before `Ready` where the first session is not to be had at once. Where the fallback
    engine answers from the beginning, `Ready` is followed by `Resumed`. A call that has gone to
    its fallback stays there, unless that is lost as well.
    """

    def __init__(self, primary: Guarded, fallback: Guarded | None = None) -> None:
        self._sides = (primary,) if fallback is None else (primary, fallback)
        self._talking = primary

    @property
    def name(self) -> str:
        """The `[engine.NAME]` that talks, or is to talk first."""
        return self._talking.engine.name

    @property
    def model(self) -> str:
        """The model that talks, or is to talk first."""
        return self._talking.engine.model

    def billed(self, agent: Agent) -> Billed:
        """Those of the engine that talks, or is to talk first."""
        return self._talking.engine.billed(agent)

    def _talks(self, side: int) -> None:
        self._talking = self._sides[side]

    @asynccontextmanager
    async def open(self, plan: Plan) -> AsyncGenerator[SteadySession, None]:
        """A session that connects in the background; leaving closes it within 1 s."""
        # The nursery is left by hand: an exception of the body need not come out as a group.
        manager = trio.open_nursery()
        nursery = await manager.__aenter__()
        session = SteadySession(plan, self._sides, self._talks, nursery)
        nursery.start_soon(session.direct)
        try:
            yield session
        finally:
            session.close()
            nursery.cancel_scope.deadline = trio.current_time() + CLOSE_S
            await manager.__aexit__(None, None, None)
