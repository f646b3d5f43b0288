"""The model comes, goes, is replaced, is lost for good: what each means for the conversation."""

from __future__ import annotations

from voiced import metrics
from voiced.engine import Billed, EngineFault, Lost, ModelState, Reconnecting, Resumed, Session
from voiced.hooks.calls import CallHooks
from voiced.record import CallRecord
from voiced.talk.answers import Answers
from voiced.talk.floor import Floor
from voiced.talk.greeting import ModelGreeting
from voiced.talk.intake import Intake
from voiced.talk.patience import Patience, WindDown
from voiced.talk.turns import Turns

__all__ = ["Connection"]


class Connection:
    """One call's connection to whichever model talks."""

    def __init__(
        self,
        session: Session,
        record: CallRecord,
        hooks: CallHooks,
        floor: Floor,
        patience: Patience,
        intake: Intake,
        greeting: ModelGreeting,
        answers: Answers,
        turns: Turns,
        wind_down: WindDown,
    ) -> None:
        self._session = session
        self._record = record
        self._hooks = hooks
        self._floor = floor
        self._patience = patience
        self._intake = intake
        self._greeting = greeting
        self._answers = answers
        self._turns = turns
        self._wind_down = wind_down
        self._was_ready = False

    def greet(self) -> None:
        """The greeting is the model's to speak, as soon as it is ready."""
        self._greeting.due = True
        self._patience.owe()  # a slow connection is a silence like any other
        if self._record.model_state in (ModelState.READY, ModelState.FALLBACK):
            self._ask_greeting()

    def ready(self) -> None:
        """The session is configured."""
        self._was_ready = True
        self._record.model_to(ModelState.READY)
        self._intake.begin()
        if self._patience.reconnecting:
            self._patience.resumed(answering=self._patience.owed)  # before there was a model
        self._patience.connected()
        self._hooks.emit("on_session_ready")
        self._greet_if_due()

    def reconnecting(self, event: Reconnecting) -> None:
        """The model is lost, and is tried again or replaced."""
        self._record.model_to(ModelState.RECONNECTING)
        metrics.MODEL_LOST.labels(metrics.code(event.code)).inc()
        self._record.log.warning("model lost", code=event.code, message=event.message, again=True)
        self._hooks.emit("on_engine_error", event.code, event.message, True)
        self._answers.lost()
        self._greeting.lost()
        self._intake.end()
        self._turns.lost()
        self._answers.last_words_over.set()  # its end is not waited for
        self._patience.lost()

    def resumed(self, event: Resumed) -> None:
        """Another session has taken over."""
        billed = Billed(event.model, event.transcription, event.speech)
        self._record.model_is(event.engine, event.model, billed)
        self._record.model_to(ModelState.FALLBACK if event.fallback else ModelState.READY)
        self._intake.begin()
        self._turns.resumed()
        self._hooks.emit("on_session_ready")
        if self._patience.reconnecting:
            self._patience.resumed(answering=event.answering)
            if not event.answering:
                self._floor.settle()
        self._greet_if_due()

    def fault(self, event: EngineFault) -> None:
        """The server refused something; the session goes on."""
        self._hooks.emit("on_engine_error", event.code, event.message, False)
        metrics.ENGINE_FAULTS.labels(metrics.code(event.code)).inc()
        log = self._record.log
        (log.info if event.action == "ignore" else log.warning)(
            "model refused something",
            code=event.code,
            message=event.message,
            action=event.action,
        )

    def lost(self, event: Lost) -> None:
        """There is no model any more: what it had said is heard out, and the call winds down."""
        self._record.model_to(ModelState.LOST)
        metrics.MODEL_LOST.labels(metrics.code(event.code)).inc()
        self._record.log.warning(
            "model lost", code=event.code, message=event.message, retryable=event.retryable
        )
        self._hooks.emit("on_engine_error", event.code, event.message, True)
        self._patience.resumed(answering=False)
        self._intake.end()
        self._turns.forget()
        self._answers.last_words_over.set()
        if not self._floor.closing:
            reason = "model_lost" if self._was_ready else "model_unreachable"
            self._wind_down(reason, "unavailable")

    def _greet_if_due(self) -> None:
        if self._greeting.due and not self._floor.closing:
            self._ask_greeting()

    def _ask_greeting(self) -> None:
        self._greeting.ask(self._answers.ask, self._session)
