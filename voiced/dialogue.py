"""The control half of a call: what the model and the caller do, and what follows from it.

Every method is synchronous but `run`: what one engine event sets off happens in one
step, before another frame can go out.
"""

from __future__ import annotations

from typing import Final, Protocol

import trio

from voiced import audio, metrics
from voiced.config.types import Agent, OwnVad, ServerVad
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    EngineEvent,
    EngineFault,
    Lost,
    ModelState,
    Ready,
    ResponseDone,
    ResponseStarted,
    Session,
    SpeechStarted,
    SpeechStopped,
)
from voiced.formats import AudioFormat
from voiced.patience import Patience, PatienceHost
from voiced.playout import Cut, Playout
from voiced.record import CallRecord
from voiced.states import CallState

__all__ = ["GREETING", "LOCAL", "Dialogue", "Host", "exactly"]

LOCAL: Final = "local:"  # item ids of what voiced plays itself; the model knows nothing of them
GREETING: Final = f"{LOCAL}greeting:"  # and of these, a recorded greeting

_S = CallState
_ROOM_POLL_S: Final = 0.1  # a full playout holds minutes: looking ten times a second is soon enough


class Host(PatienceHost, Protocol):
    """What the dialogue asks of its call."""

    def wake_speaker(self) -> None:
        """There is new audio in the playout."""

    def interrupt_speaker(self) -> list[Cut]:
        """Stop the speaker and empty the carrier's buffer, now."""


def exactly(text: str) -> str:
    """Instructions that make a model speak `text` and nothing else."""
    return f'Say exactly the following words and nothing else: "{text}"'


class Dialogue:
    """Turn-taking between a caller and a session, over a playout."""

    def __init__(
        self,
        host: Host,
        record: CallRecord,
        session: Session,
        playout: Playout,
        agent: Agent,
        leg_format: AudioFormat,
    ) -> None:
        self._host = host
        self._record = record
        self._session = session
        self._playout = playout
        self._agent = agent
        self._leg_format = leg_format
        self._to_leg: audio.Converter | None = None
        self._converting: tuple[str, int] | None = None  # the part that the converter carries
        self._response: str | None = None  # the answer that is being made and still wanted
        self._sounded = False  # and audio of it came
        self._closing = False
        self._held = False  # nobody listens: the state stays what it is
        self._muted = False  # winding down: audio of answers asked for before is not played
        self._asked_last_words = False  # winding down: of the model
        self._greeted = False
        self._spoken_at: float | None = None  # the caller's last word, until an answer is heard
        self.patience = Patience(host, agent, record, playout)
        if self.model_greets:
            self.patience.owe()  # a slow connection is a silence like any other
        self.last_words_begun = trio.Event()
        self.last_words_over = trio.Event()
        self.silence_ms = (
            agent.turn_detection.silence_ms
            if isinstance(agent.turn_detection, ServerVad | OwnVad)
            else 0
        )

    @property
    def model_greets(self) -> bool:
        """Whether the greeting is the model's to speak."""
        return bool(self._agent.greeting_text or self._agent.greeting)

    # ---- the model ----

    async def run(self) -> None:
        """Take the session's events for as long as the call lives."""
        while True:
            if self._playout.room <= 0:
                # The carrier is slower than the model for minutes on end: let the model wait. Its
                # events wait too, which is the price of bounded memory.
                await trio.sleep(_ROOM_POLL_S)
                continue
            for event in await self._session.receive():
                self.on_event(event)

    def on_event(self, event: EngineEvent) -> None:
        """One event of the session."""
        match event:
            case AgentAudio():
                self._on_audio(event)
            case AgentTranscript():
                self._record.transcript.add("agent", event.item_id, event.text, final=event.final)
            case AgentAudioDone():
                self._finish_item(event.item_id)
            case SpeechStarted():
                self._on_speech_started(event)
            case SpeechStopped():
                self._spoken_at = trio.current_time() - self.silence_ms / 1000
                if self._record.state is _S.CALLER_SPEAKING:
                    self._enter(_S.COMMITTING)
                    self.patience.owe()  # should the server never commit
            case Committed():
                self._record.transcript.open("caller", event.item_id)
                self.patience.owe()
                if self._record.state in (_S.COMMITTING, _S.CALLER_SPEAKING, _S.LISTENING):
                    self._enter(_S.THINKING)
            case ResponseStarted():
                self._on_response_started(event)
            case ResponseDone():
                self._on_response_done(event)
            case CallerTranscript():
                self._record.transcript.add("caller", event.item_id, event.text, final=event.final)
                if event.usage is not None:
                    self._record.usage += event.usage
                self._record.log.debug("caller said", text=event.text, final=event.final)
            case Ready():
                self._on_ready()
            case EngineFault():
                metrics.ENGINE_FAULTS.labels(metrics.code(event.code)).inc()
                log = self._record.log
                (log.info if event.action == "ignore" else log.warning)(
                    "model refused something",
                    code=event.code,
                    message=event.message,
                    action=event.action,
                )
            case Lost():
                self._on_lost(event)

    def _on_ready(self) -> None:
        self._record.model_to(ModelState.READY)
        source = self._session.output_format
        self._to_leg = audio.converter(source, self._leg_format, self._agent.resampler)
        if self._closing:
            return
        if self._agent.greeting_text is not None:
            self.ask(exactly(self._agent.greeting_text))
        elif self._agent.greeting:
            self.ask(self._agent.greeting)

    def ask(self, instructions: str | None = None) -> None:
        """Ask the model to say something now."""
        self._asked_last_words = self._closing
        self.patience.owe()
        self._session.respond(instructions)

    def say(self, text: str, *, verbatim: bool) -> None:
        """An operator's words: for the agent to speak, or to act on."""
        if verbatim:
            self.ask(exactly(text))
        else:
            self._session.add_message("system", text)
            self.ask()

    def _on_response_started(self, event: ResponseStarted) -> None:
        if self._closing and not self._asked_last_words:
            # The server's own answer to what the caller said before the call began to end.
            self._session.cancel()
            return
        self._response = event.response_id
        self._sounded = self._muted = False

    def _on_audio(self, event: AgentAudio) -> None:
        if self._muted:
            return
        payload = event.payload
        if self._to_leg is not None:
            part = event.item_id, event.content_index
            if self._converting != part:
                self._to_leg.reset()
                self._converting = part
            payload = self._to_leg.convert(payload)
        if self._playout.add(event.item_id, payload, content_index=event.content_index):
            self._sounded = True
            self._host.wake_speaker()
            if self._closing:
                self.last_words_begun.set()

    def _finish_item(self, item_id: str) -> None:
        self._flush_converter(item_id)
        self._playout.finish(item_id)
        self._host.wake_speaker()

    def _flush_converter(self, item_id: str | None = None) -> None:
        """Play the resampler's tail: of this item, or of whichever it carries."""
        if self._to_leg is None or self._converting is None:
            return
        carried, index = self._converting
        if item_id in (None, carried):
            self._playout.add(carried, self._to_leg.flush(), content_index=index)
            self._converting = None

    def _on_response_done(self, event: ResponseDone) -> None:
        if event.usage is not None:
            self._record.usage += event.usage
        if event.response_id != self._response:
            return  # one that the caller cut off: of what came since it says nothing
        self._response = None
        self._end_items()
        if self._closing:
            if not self._muted:
                self.last_words_over.set()
            return
        if event.status == "failed":
            # Still owed: a filler, and later the fallback message, are heard instead.
            self._record.log.warning("response failed", code=event.reason)
            return
        if event.status == "cancelled" or not self._sounded:
            # Nothing (more) will come: a tool call, a text, an answer cut off by the caller.
            self.patience.settled()
        if self._playout.idle:
            self.turn_over()

    def _end_items(self) -> None:
        """No more audio of the answer will come, whether or not each item was said to be done."""
        self._flush_converter()
        self._playout.finish_all()
        self._host.wake_speaker()

    def _on_lost(self, event: Lost) -> None:
        first = self._record.model_state is ModelState.CONNECTING
        self._record.model_to(ModelState.LOST)
        metrics.MODEL_LOST.labels(metrics.code(event.code)).inc()
        self._record.log.warning(
            "model lost", code=event.code, message=event.message, retryable=event.retryable
        )
        self.patience.settled()
        self._end_items()
        self.last_words_over.set()
        if not self._closing:
            self._host.wind_down("model_unreachable" if first else "model_lost", "unavailable")

    # ---- the caller ----

    def _on_speech_started(self, event: SpeechStarted) -> None:
        received = trio.current_time()
        if event.item_id:  # with endpointing of our own the item exists at Committed only
            self._record.transcript.open("caller", event.item_id)
        if self._closing:
            return
        self.patience.caller_active()
        self._spoken_at = None
        if self._agent.barge_in == "immediate":
            if self._wanted or not self._playout.idle:
                self._barge_in(received)
            self.patience.settled()
        if self._record.state not in (_S.DIALLING, _S.ANSWERING, _S.RINGING):
            self._enter(_S.CALLER_SPEAKING)

    @property
    def _wanted(self) -> bool:
        """An answer is being made, or was asked for."""
        return self._response is not None or self.patience.owed

    def _cancel(self) -> None:
        if self._wanted:
            self._session.cancel()
            self._response = None

    def _barge_in(self, received: float) -> None:
        """Stop, empty the carrier, tell the model what was heard: one step, no checkpoint."""
        had_audio = self._playout.unheard > 0
        cuts = self._host.interrupt_speaker()
        if had_audio:
            self._record.barged_in(trio.current_time() - received)
        self._cancel()
        self._tell(cuts)

    def cut_off(self) -> None:
        """Stop the speaker for words of ours; the model is told what was heard."""
        self._tell(self._host.interrupt_speaker())

    def _tell(self, cuts: list[Cut]) -> None:
        for cut in cuts:
            if cut.action == "delete":
                self._session.delete(cut.item_id)
            elif cut.action == "truncate":
                self._session.truncate(cut.item_id, cut.content_index, cut.heard_ms)
            self._record.cut(cut)
        self._converting = None

    def digit(self, digit: str) -> None:
        """The caller pressed a key: activity, and a fact that the model should know."""
        self.patience.caller_active()
        self._record.digit()
        if not self._closing:
            self._session.add_message("system", f"The caller pressed the key {digit}.")

    # ---- hold and transfer ----

    def hold(self, held: bool) -> None:
        """The other side holds the call, or is back; a transfer counts as hold."""
        self._held = held
        self._spoken_at = None  # how long an answer took is not said of one that waited
        self.patience.hold(held)
        if held or self._closing:
            return
        self._record.to(_S.LISTENING)
        if self.patience.owed:
            self._record.to(_S.THINKING)
        elif not self._playout.idle:
            self._record.to(_S.SPEAKING)

    def _enter(self, state: CallState) -> None:
        if not self._held:
            self._record.to(state)

    # ---- the speaker ----

    def audio_started(self, item_id: str, in_s: float) -> None:
        """The first audio of an item has gone out and will be heard in `in_s` seconds."""
        heard_at = trio.current_time() + in_s
        if item_id.startswith(LOCAL):
            if item_id.startswith(GREETING):
                self._record.greeting_heard(heard_at)
                self._greeted = True
            return
        self.patience.settled()
        if self._closing:
            return
        if not self._greeted and self._spoken_at is None:
            self._record.greeting_heard(heard_at)
        self._greeted = True
        if self._spoken_at is not None:
            self._record.answer_heard(heard_at - self._spoken_at)
            self._spoken_at = None
        if self._record.state is not _S.GREETING:
            self._enter(_S.SPEAKING)

    def turn_over(self) -> None:
        """All that was to be said has been heard."""
        if self.patience.owed:
            if self._record.state is _S.SPEAKING:
                self._enter(_S.THINKING)
        elif self._record.state in (_S.GREETING, _S.SPEAKING, _S.COMMITTING, _S.THINKING):
            self._listen()

    def _listen(self) -> None:
        self.patience.listening()
        self._enter(_S.LISTENING)

    def close(self) -> None:
        """The call is winding down: no more turns, no answers that were asked for before."""
        self._closing = True
        self._muted = True
        self._asked_last_words = False
        self._cancel()
        self.patience.stop()
        self._end_items()  # the last message must not wait for the rest of a sentence
