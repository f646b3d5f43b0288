"""What happens when nothing happens: a model that owes an answer, a caller who says nothing.

Neither side is left in silence. A model's delay is covered by a filler and then ends the call with
the fallback message; a silent caller is asked once, then told goodbye.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, Protocol

import trio

from voiced import metrics
from voiced.config.types import GIVE_UP, Agent
from voiced.playout import Playout
from voiced.record import CallRecord
from voiced.states import CallState

__all__ = ["Patience", "WindDown"]

LOST_FILLER_S: Final = 0.7
"""A model that is lost is covered so soon; one that is back sooner was not missed."""

FILLER_AGAIN_S: Final = 5.0  # while it stays away

_POLL_S: Final = 0.1  # while a lost model's last words are heard out, for their end

_LEAST_WAIT_S: Final = 0.01  # a deadline that rounding puts at "now" must not spin


WindDown = Callable[[str, Literal["farewell", "unavailable"]], None]
"""Begins to end the call: the reason, and the last message."""


class Fillers(Protocol):
    """What covers for a silence."""

    def play_clip(self, name: str, *, ahead: bool = False, filler: bool = False) -> None:
        """Queue a bundled message; `ahead` of the rest of an answer that has run dry.

        `filler`: it makes way for an answer.
        """


class Patience:
    """Deadlines of one call. They only ever move later, so that one task can sleep to the next."""

    def __init__(
        self,
        voice: Fillers,
        wind_down: WindDown,
        agent: Agent,
        record: CallRecord,
        playout: Playout,
    ) -> None:
        self._voice = voice
        self._wind_down = wind_down
        self._agent = agent
        self._record = record
        self._playout = playout
        self._owed_since: float | None = None
        self._filled = False
        self._quiet_since = trio.current_time()
        self._prompted = False
        self._over = False
        self._held = False
        self._fill_at: float | None = None  # the model is lost: the next filler is due then
        self._fill_by: float | None = None  # it is back, and its answer is to be heard by then
        self._again_at = 0.0  # no other filler sooner, as long as no answer is heard
        self._working = False
        self._dry_since: float | None = None  # an answer is open, and nothing of it is left
        self._connecting = True
        self._changed = trio.Event()
        waits = (agent.no_answer_s, agent.silence_prompt_s, agent.silence_hangup_s)
        self._shortest_s = min(wait for wait in waits if wait)  # 0: never

    @property
    def owed(self) -> bool:
        """The model has been asked for something of which nothing has been sent to the caller."""
        return self._owed_since is not None

    def owe(self) -> None:
        """The model owes audio from now on."""
        self._owed_since = trio.current_time()
        self._filled = False
        if self._fill_by is not None and self._owed_since > self._fill_by:
            self._fill_by = None  # of an answer that was heard, or given up
        if self._fill_by is not None:
            self._changed.set()

    def settled(self) -> None:
        """The model owes nothing: it speaks, or what it owed is not wanted any more."""
        self._owed_since = None

    def caller_active(self) -> None:
        """The caller did something: the silence begins anew, and may be asked about again."""
        self._quiet_since = trio.current_time()
        self._prompted = False

    def ran_dry(self) -> None:
        """All that came of an answer has been heard, and more is owed of it."""
        self._dry_since = trio.current_time()
        self._changed.set()

    def listening(self) -> None:
        """The caller's turn begins."""
        self._quiet_since = trio.current_time()

    def hold(self, held: bool) -> None:
        """On hold nobody is impatient; afterwards all waits begin anew."""
        self._held = held
        if not held:
            self._fill_by = None
            if self._fill_at is not None:
                self._fill_at = max(self._fill_at, trio.current_time() + LOST_FILLER_S)
                self._changed.set()
            self.caller_active()
            if self._owed_since is not None:
                self.owe()

    @property
    def reconnecting(self) -> bool:
        """The model is lost, and somebody tries to get it back."""
        return self._fill_at is not None

    def lost(self) -> None:
        """The model was lost and may come back; whoever tries knows when to give up.

        One that comes and goes is covered like one that stays away.
        """
        if self._fill_at is None:
            soon = trio.current_time() + LOST_FILLER_S
            if self._owed_since is not None:  # no answer has been heard since the last filler
                soon = max(soon, self._again_at) if self._fill_by is None else self._fill_by
            self._fill_at, self._fill_by = soon, None
            self._changed.set()

    def resumed(self, *, answering: bool) -> None:
        """There is a model again, or there will be none.

        The caller waits for the answer, not for the model: it is covered for when the model was.
        """
        fill_by, self._fill_at = self._fill_at, None
        if answering or self._working:
            self.owe()
            self._fill_by = fill_by
            self._changed.set()
        else:
            self.settled()

    def connected(self) -> None:
        """There is a model. Before that whoever connects knows when to give up."""
        self._connecting = False
        if self._owed_since is not None:
            self._owed_since = trio.current_time()

    def working(self, working: bool) -> None:
        """Tools run, in their own time: the caller hears fillers, and nobody gives up."""
        self._working = working
        if working or self._owed_since is not None:
            self.owe()

    def stop(self) -> None:
        """The call is ending anyway."""
        self._over = True
        self._owed_since = None

    async def watch(self) -> None:
        """Watch from the moment on in which media flows, until `stop`."""
        began = self._quiet_since = trio.current_time()
        if self._owed_since is not None:
            self._owed_since = began  # before this nobody heard that nothing was said
        if self._fill_at is not None:
            self._fill_at = max(self._fill_at, began + LOST_FILLER_S)
        self._fill_by = None
        over_at = began + self._agent.max_duration_s
        while not self._over:
            now = trio.current_time()
            if now >= over_at:
                self._wind_down("max_duration", "farewell")
                return
            # Nothing that starts to wait later can be due sooner than this.
            due = min(over_at, now + self._shortest_s)
            if self._held:
                pass  # but for the longest a call may last
            elif self._fill_at is not None:
                due = min(due, self._watch_loss(now, self._fill_at))
            elif self._owed_since is not None:
                due = min(due, self._watch_model(now, self._owed_since))
            elif not self._playout.idle:
                due = min(due, self._watch_answer(now))
            elif self._record.state is CallState.LISTENING:
                due = min(due, self._watch_caller(now))
            if not self._over:
                self._changed = trio.Event()
                with trio.move_on_at(max(due, now + _LEAST_WAIT_S)):
                    await self._changed.wait()

    def _watch_loss(self, now: float, fill_at: float) -> float:
        """Cover for a model that is lost; returns when to look again."""
        if not self._playout.idle:
            return now + _POLL_S
        if now < fill_at:
            return fill_at
        self._voice.play_clip("one_moment", filler=True)
        self._fill_at = self._again_at = now + FILLER_AGAIN_S
        return now + _POLL_S

    def _watch_answer(self, now: float) -> float:
        """Cover for a model that has stalled within an answer; returns when to look again.

        Whether it is lost is for its session to say.
        """
        if self._dry_since is None or not self._playout.dry:
            self._dry_since = None
            return now + self._shortest_s
        due = self._dry_since + self._agent.no_answer_s
        if now < due:
            return due
        self._dry_since = now  # the filler is heard out, and then it is dry again
        self._voice.play_clip("one_moment", ahead=True, filler=True)
        return now + self._agent.no_answer_s

    def _watch_model(self, now: float, since: float) -> float:
        """Act on a model that owes audio since `since`; returns the next deadline."""
        if not self._playout.idle:
            # What a lost model had said is heard out, for its end if the next one is late by then.
            return now + (self._agent.no_answer_s if self._fill_by is None else _POLL_S)
        waited, patience = now - since, self._agent.no_answer_s
        if waited >= GIVE_UP * patience and (self._working or self._connecting):
            self.owe()  # a tool has a time limit of its own, and so has whoever connects
            return now + patience
        if waited >= GIVE_UP * patience:
            self._record.log.warning("model says nothing", waited_s=round(waited, 1))
            metrics.MODEL_LOST.labels("silent").inc()
            self._wind_down("model_silent", "unavailable")
        elif now >= self._filler_due(since) and not self._filled:
            self._filled, self._fill_by = True, None
            self._again_at = now + FILLER_AGAIN_S
            self._voice.play_clip("one_moment", filler=True)
        return since + GIVE_UP * patience if self._filled else self._filler_due(since)

    def _filler_due(self, since: float) -> float:
        due = since + self._agent.no_answer_s
        return due if self._fill_by is None else min(due, self._fill_by)

    def _watch_caller(self, now: float) -> float:
        """Act on a caller who is silent while it is their turn; returns the next deadline."""
        agent = self._agent
        quiet = now - self._quiet_since
        if agent.silence_prompt_s and not self._prompted:
            if quiet < agent.silence_prompt_s:
                return self._quiet_since + agent.silence_prompt_s
            self._prompted = True
            self._voice.play_clip("still_there")
        if not agent.silence_hangup_s:
            return math.inf
        if quiet >= agent.silence_hangup_s:
            self._wind_down("caller_silence", "farewell")
        return self._quiet_since + agent.silence_hangup_s
