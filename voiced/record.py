"""What is known of a call while it runs, and what remains of it: journal row, log line, metrics."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

import structlog
import trio

from voiced import metrics
from voiced.config.types import Price
from voiced.cost import Spending
from voiced.engine import Billed, ModelState
from voiced.journal import Row, checked_fact
from voiced.leg import CallFacts
from voiced.playout import Cut
from voiced.states import SUCCESSORS, CallState, IllegalTransition
from voiced.text import printable
from voiced.transcript import Transcript

__all__ = ["CallRecord"]

MAX_STATES: Final = 5000  # an hour of quick turns; beyond it the history keeps its beginning
MAX_ANSWERS: Final = 2000
MAX_FACTS: Final = 64
MAX_FACT: Final = 4096  # characters


class CallRecord:
    """A call's states, times and tokens. Every change of state goes through `to`."""

    strict: ClassVar[bool] = False
    """Raise on an illegal change of state. Tests set it; a live call is not dropped for our bug."""

    def __init__(
        self,
        facts: CallFacts,
        *,
        agent: str,
        engine: str,
        model: str,
        billed: Billed | None = None,
    ) -> None:
        self.state = CallState.DIALLING if facts.direction == "outbound" else CallState.RINGING
        self.model_state = ModelState.CONNECTING
        self.transcript = Transcript()
        self.spending = Spending(billed or Billed(model))
        self.reason: str | None = None
        self.changed: Callable[[str, str], None] | None = None
        """Called with the names of the previous state and the new one."""
        self.log = structlog.get_logger("voiced.call").bind(call=facts.call_id)
        self._began = trio.current_time()
        self._media_at: float | None = None
        self._states = [(self.state.value, 0)]
        self._state_ms: dict[str, int] = {}  # in each state that has been left
        self._entered_ms = 0
        self._state_since = time.time()
        self._answers_ms: list[int] = []
        self._barge_ins_ms: list[float] = []
        self._greeting_ms: int | None = None
        self._model_ready_ms: int | None = None
        self._digits = 0
        self.row = Row(
            call_id=facts.call_id,
            carrier=facts.carrier,
            carrier_call_id=facts.carrier_call_id,
            direction=facts.direction,
            caller=facts.caller,
            called=facts.called,
            agent=agent,
            engine=engine,
            model=model,
            started_at=self._state_since,
            trunk=facts.trunk,
        )
        metrics.CALLS_LIVE.inc()
        metrics.STATE_CHANGES.labels(self.state.value).inc()
        self.log.info(
            "call received",
            carrier=facts.carrier,
            carrier_call=facts.carrier_call_id,
            agent=agent,
            engine=engine,
            **({"trunk": facts.trunk} if facts.trunk else {}),
        )

    @property
    def state_since(self) -> float:
        """When the state was entered, Unix time."""
        return self._state_since

    @property
    def media_at(self) -> float | None:
        """When audio began to flow, on Trio's clock."""
        return self._media_at

    def media_ms(self, at: float) -> int:
        """Milliseconds between the first audio and `at`, on Trio's clock; 0 before."""
        return 0 if self._media_at is None else max(0, round((at - self._media_at) * 1000))

    def to(self, state: CallState) -> None:
        """Enter a state; entering the present one again is nothing.

        A change that the table lacks is a bug of ours: it is logged, counted, and not made.
        Raises IllegalTransition instead where `strict` is set.
        """
        if state is self.state:
            return
        if state not in SUCCESSORS[self.state]:
            if self.strict:
                raise IllegalTransition(f"{self.state.value} → {state.value}")
            metrics.ILLEGAL_STATE_CHANGES.inc()
            self.log.error("illegal state change", state=state.value, previous=self.state.value)
            return
        previous, self.state = self.state, state
        now_ms = self._ms()
        spent = self._state_ms.get(previous.value, 0) + now_ms - self._entered_ms
        self._state_ms[previous.value] = spent
        self._entered_ms = now_ms
        self._state_since = time.time()
        if state is CallState.MEDIA_READY:
            self._media_at = trio.current_time()
            self.spending.begin(self._media_at)
        if len(self._states) < MAX_STATES:
            self._states.append((state.value, now_ms))
        metrics.STATE_CHANGES.labels(state.value).inc()
        self.log.info("call state", state=state.value, previous=previous.value)
        if self.changed is not None:
            self.changed(previous.value, state.value)

    def model_to(self, state: ModelState) -> None:
        """The model's connection changed."""
        if state is self.model_state:
            return
        self.model_state = state
        talks = state in (ModelState.READY, ModelState.FALLBACK)
        self.spending.connect(talks, trio.current_time())
        if state is ModelState.READY and self._model_ready_ms is None:
            self._model_ready_ms = self._ms()
        metrics.MODEL_STATE_CHANGES.labels(state.value).inc()
        self.log.info("model state", state=state.value)

    def model_is(self, engine: str, model: str, billed: Billed) -> None:
        """Another engine or model talks from now on; the row names the last."""
        self.row.engine, self.row.model = engine, model
        self.spending.switch(billed, trio.current_time())

    def set_fact(self, name: str, value: str | int | float | bool | None) -> None:
        """Note something about the call. Raises ValueError beyond what a row may hold."""
        if name not in self.row.facts and len(self.row.facts) >= MAX_FACTS:
            raise ValueError(f"a call has at most {MAX_FACTS} facts")
        value = checked_fact(value)
        if isinstance(value, str):
            value = printable(value[:MAX_FACT])
        self.row.facts[printable(name[:64])] = value

    def greeting_heard(self, at: float) -> None:
        """The first word of the greeting reaches the caller at `at`."""
        if self._greeting_ms is None and self._media_at is not None:
            seconds = max(0.0, at - self._media_at)
            self._greeting_ms = round(seconds * 1000)
            metrics.GREETING_SECONDS.observe(seconds)

    def answer_heard(self, seconds: float) -> None:
        """An answer began `seconds` after the caller had stopped speaking."""
        if len(self._answers_ms) < MAX_ANSWERS:
            self._answers_ms.append(round(seconds * 1000))
        metrics.ANSWER_SECONDS.observe(seconds)

    def barged_in(self, seconds: float) -> None:
        """The caller interrupted; the carrier was cleared `seconds` after speech_started came."""
        if len(self._barge_ins_ms) < MAX_ANSWERS:
            self._barge_ins_ms.append(round(seconds * 1000, 3))
        metrics.BARGE_IN_SECONDS.observe(seconds)

    def cut(self, cut: Cut) -> None:
        """An item was interrupted: of its words those that were heard remain."""
        if cut.action != "none":
            self.transcript.cut(cut.item_id, cut.heard_ms, cut.received_ms)
        self.log.debug(
            "item cut", action=cut.action, heard_ms=cut.heard_ms, received_ms=cut.received_ms
        )

    def digit(self) -> None:
        """The caller pressed a key; which one is nobody's business here."""
        self._digits += 1

    def finish(self, prices: Mapping[str, Price], media: Mapping[str, object] | None = None) -> Row:
        """The call has ended: complete the row, write the log line, count. Called once.

        `media`: the leg's figures, if there was one.
        """
        if self.state is not CallState.ENDED:
            self.to(CallState.ENDED)
        media_s = 0.0 if self._media_at is None else trio.current_time() - self._media_at
        row = self.row
        row.reason = self.reason or "internal_error"
        row.duration_ms = self._ms()
        row.ended_at = time.time()
        row.media_ms = round(media_s * 1000)
        row.states = self._states
        row.media = media or {}
        usage = self.spending.usage
        row.usage = {name: value for name, value in dataclasses.asdict(usage).items() if value}
        now = trio.current_time()
        row.cost_usd = self.spending.usd(prices, now)
        for model, usd in self.spending.by_model(prices, now).items():
            metrics.COST_USD.labels(model).inc(usd or 0.0)
        row.transcript = self.transcript.entries()
        row.latencies = {
            "greeting_ms": self._greeting_ms,
            "model_ready_ms": self._model_ready_ms,
            "answers_ms": self._answers_ms,
            "barge_ins_ms": self._barge_ins_ms,
        }
        metrics.CALLS_LIVE.dec()
        metrics.CALLS_ENDED.labels(row.reason).inc()
        metrics.CALL_SECONDS.observe(row.duration_ms / 1000)
        self.log.info(
            "call ended",
            reason=row.reason,
            duration_ms=row.duration_ms,
            media_ms=row.media_ms,
            state_ms=self._state_ms,
            greeting_ms=self._greeting_ms,
            answers=len(self._answers_ms),
            answer_ms=round(statistics.median(self._answers_ms)) if self._answers_ms else None,
            barge_ins=len(self._barge_ins_ms),
            digits=self._digits,
            model=row.model,
            tokens_in=usage.text_in + usage.audio_in,
            tokens_out=usage.text_out + usage.audio_out,
            cost_usd=None if row.cost_usd is None else round(row.cost_usd, 5),
        )
        self.log.debug("call transcript", transcript=str(self.transcript))
        return row

    def _ms(self) -> int:
        return round((trio.current_time() - self._began) * 1000)
