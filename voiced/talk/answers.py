"""The model's answers: asked for, made, cancelled; put off while a plugin speaks in its place."""

from __future__ import annotations

from typing import Final

import trio

from voiced.engine import AgentAudio, ResponseDone, ResponseStarted, Session
from voiced.hooks.calls import CallHooks
from voiced.record import CallRecord
from voiced.talk.floor import Floor
from voiced.talk.greeting import ModelGreeting
from voiced.talk.intake import Intake
from voiced.talk.patience import Patience

__all__ = ["Answers"]

MAX_MADE: Final = 8  # at a time: the newest, and those before it that were cancelled
MAX_POSTPONED: Final = 8  # more than a plugin asks for while it has the call to itself


class Answers:
    """One call's, of whichever model talks."""

    def __init__(
        self,
        session: Session,
        record: CallRecord,
        hooks: CallHooks,
        floor: Floor,
        patience: Patience,
        intake: Intake,
        greeting: ModelGreeting,
    ) -> None:
        self._session = session
        self._record = record
        self._hooks = hooks
        self._floor = floor
        self._patience = patience
        self._intake = intake
        self._greeting = greeting
        self.response: str | None = None
        """The answer that is being made and still wanted."""
        self.muted = False
        """Winding down: audio of answers asked for before is not played."""
        self.sounded = False
        """Audio of the answer came."""
        self.stale = False
        """An answer was cancelled since the session was last heard: what it has told besides, in
        the same wake-up, of answers is of those that were."""
        self._asked_last_words = False  # winding down: of the model
        self._asked_anew = False  # since an answer was cancelled
        self._asked_more = False  # another answer is to follow the one that is being made
        self._made: dict[str, int] = {}  # bytes of each answer whose end has not come
        self._postponed: list[str | None] = []  # what was to be asked for meanwhile
        self.last_words_begun = trio.Event()
        self.last_words_over = trio.Event()

    @property
    def wanted(self) -> bool:
        """An answer is being made, or was asked for."""
        return self.response is not None or self._patience.owed

    def ask(self, instructions: str | None = None) -> None:
        """Ask the model to say something now, or as soon as no plugin speaks in its place."""
        self._greeting.made_personal()
        if self._floor.taken:
            if len(self._postponed) < MAX_POSTPONED:
                self._postponed.append(instructions)
            return
        self._asked_last_words = self._floor.closing
        self._asked_more = self.response is not None
        self._asked_anew = self._asked_anew or instructions is None
        self._patience.owe()
        self._session.respond(instructions)

    def ask_postponed(self) -> None:
        """Ask for what was to be asked for while a plugin had the call."""
        postponed, self._postponed = self._postponed, []
        for instructions in postponed:
            self.ask(instructions)

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        if self.wanted:
            self._cancel()

    def _cancel(self) -> None:
        self._session.cancel()
        self.response = None
        self.stale = True
        self._asked_anew = False

    def started(self, event: ResponseStarted) -> None:
        """The model has begun to answer."""
        self._made[event.response_id] = 0
        if len(self._made) > MAX_MADE:
            del self._made[next(iter(self._made))]
        if self._floor.taken or (self._floor.closing and not self._asked_last_words):
            # The server's own answer to what the caller said before the call began to end.
            self._cancel()
            return
        if self.stale:
            if self._patience.owed and not self._asked_anew:
                self.ask()  # after a stall of ours: the answer to a turn that came since
            return
        self._hooks.emit("on_response_started", event.response_id)
        self.response = event.response_id
        self.sounded = self.muted = self._asked_more = False

    def sound(self, event: AgentAudio) -> None:
        """A piece of its audio has come, and is going to be heard."""
        self.sounded = True
        if event.response_id in self._made:
            self._made[event.response_id] += len(event.payload)

    def done(self, event: ResponseDone, *, tools: int) -> bool:
        """An answer has ended, `tools` still run; False: that says nothing of whose turn it is."""
        size = self._made.pop(event.response_id, 0)
        if event.usage is not None:
            self._record.spending.use(event.usage)
        elif event.status == "completed" and (size or event.reason is None):
            self._record.spending.untold(self._seconds(size))
        elif size:
            self._record.spending.broken_off(self._seconds(size))
        self._hooks.emit("on_response_done", event.response_id, event.status)
        if event.response_id != self.response:
            return False  # one that the caller cut off: of what came since it says nothing
        self.response = None
        self._intake.end()
        if self._floor.closing:
            if not self.muted:
                self.last_words_over.set()
            return False
        if event.status == "failed":
            # Still owed: a filler, and later the fallback message, are heard instead.
            self._record.log.warning("response failed", code=event.reason)
            return False
        more, self._asked_more = self._asked_more, False
        if event.status == "cancelled" or not (self.sounded or tools or more):
            # Nothing (more) will come: a text, an answer cut off by the caller.
            self._patience.settled()
        return True

    def lost(self) -> None:
        """The model is gone, and with it the answer that it made."""
        self.response = None
        for size in self._made.values():  # the server has made as much at least
            self._record.spending.broken_off(self._seconds(size))
        self._made.clear()

    def _seconds(self, size: int) -> float:
        return size / (1000 * self._session.output_format.bytes_per_ms)

    def close(self) -> None:
        """The call is winding down: no answers that were asked for before."""
        self.muted = True
        self._asked_last_words = False
        self.cancel()
