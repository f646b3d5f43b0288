"""The control half of a call: what the model and the caller do, and what follows from it.

Every method is synchronous but `run`: what one engine event sets off happens in one
step, before another frame can go out.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

import trio

from voiced import audio, metrics
from voiced.config.types import Agent, OwnVad, ServerVad
from voiced.confirming import Confirming
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    Billed,
    CallerTranscript,
    Committed,
    EngineEvent,
    EngineFault,
    Lost,
    ModelState,
    Ready,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
    Session,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    exactly,
)
from voiced.formats import AudioFormat
from voiced.greeting import CLIP, GREETING, LOCAL, GreetingCapture
from voiced.hooks.calls import CallHooks
from voiced.interruption.confirmation import Confirmation
from voiced.patience import Patience, PatienceHost
from voiced.playout import Cut, Playout
from voiced.plugin import Audio, Words
from voiced.record import CallRecord
from voiced.states import CallState

__all__ = ["Dialogue", "Host"]

_S = CallState
MAX_POSTPONED: Final = 8  # more than a plugin asks for while it has the call to itself
_ROOM_POLL_S: Final = 0.1  # a full playout holds minutes: looking ten times a second is soon enough


class Host(PatienceHost, Protocol):
    """What the dialogue asks of its call."""

    def wake_speaker(self) -> None:
        """There is new audio in the playout."""

    def interrupt_speaker(self) -> list[Cut]:
        """Stop the speaker and empty the carrier's buffer, now."""

    def pause_speaker(self) -> None:
        """Stop the speaker and keep what is unheard."""

    def resume_speaker(self) -> None:
        """Go on where the caller stopped hearing."""

    def use_tool(self, event: ToolCall) -> None:
        """Run what the model has called, as a task of the call."""

    def settle_clips(self) -> None:
        """Something was heard or cut off: whoever waits for a clip may be told."""


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
        hooks: CallHooks,
    ) -> None:
        self._hooks = hooks
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
        self._was_ready = False
        self._greets = False  # the model is to greet as soon as it is ready
        self._capture: GreetingCapture | None = None
        self._for_anybody = True  # the model knows nothing of this caller that others may not hear
        self._seeds: dict[str, str] = {}  # words of our own clips that the model is to know
        self._taken = 0  # plugins that have taken the call over
        self._postponed: list[str | None] = []  # what was to be asked for meanwhile
        self._announced = False  # a clip of a plugin's is being heard
        self._turn = 0  # the caller's turns
        self._tools = 0  # of the model's, running
        self._asked_more = False  # another answer is to follow the one that is being made
        self.confirming: Confirming | None = None
        if agent.barge_in == "confirm":
            judge = Confirmation(leg_format, agent.confirm_ms)
            self.confirming = Confirming(self, judge, agent.confirm_ms)
        self._spoken_at: float | None = None  # the caller's last word, until an answer is heard
        self.patience = Patience(host, agent, record, playout)
        self.last_words_begun = trio.Event()
        self.last_words_over = trio.Event()
        self.silence_ms = (
            agent.turn_detection.silence_ms
            if isinstance(agent.turn_detection, ServerVad | OwnVad)
            else 0
        )

    async def answered(self) -> None:
        """Wait until no answer is being made and none is owed."""
        while self._response is not None or self._tools or self.patience.owed:  # noqa: ASYNC110
            await trio.sleep(_ROOM_POLL_S)  # once a call, for seconds: not worth an event

    def greet(self) -> None:
        """The greeting is the model's to speak, as soon as it is ready."""
        self._greets = True
        self.patience.owe()  # a slow connection is a silence like any other
        if self._record.model_state in (ModelState.READY, ModelState.FALLBACK):
            self._ask_greeting()

    def seed(self, item_id: str, text: str) -> None:
        """The model is told, as its own words, what is heard of a clip of ours."""
        self._seeds[item_id] = text

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
        if self._capture is not None:
            self._capture.observe(event)
            if self._capture.over:
                self._capture = None
        match event:
            case AgentAudio():
                self._on_audio(event)
            case AgentTranscript():
                self._record.transcript.add("agent", event.item_id, event.text, final=event.final)
                self._tell_words("agent", event.item_id, event.text, final=event.final)
            case AgentAudioDone():
                self._finish_item(event.item_id)
            case SpeechStarted():
                self._on_speech_started(event)
            case SpeechStopped():
                self._on_speech_stopped()
            case Committed():
                self._on_committed(event.item_id)
            case ResponseStarted():
                self._on_response_started(event)
            case ResponseDone():
                self._on_response_done(event)
            case CallerTranscript():
                self._record.transcript.add("caller", event.item_id, event.text, final=event.final)
                self._tell_words("caller", event.item_id, event.text, final=event.final)
                if event.usage is not None:
                    self._record.spending.use(event.usage)
                self._record.log.debug("caller said", text=event.text, final=event.final)
            case Ready():
                self._on_ready()
            case ToolCall():
                self._on_tool_call(event)
            case Reconnecting():
                self._on_reconnecting(event)
            case Resumed():
                self._on_resumed(event)
            case EngineFault():
                self._hooks.emit("on_engine_error", event.code, event.message, False)
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
        self._was_ready = True
        self._record.model_to(ModelState.READY)
        self._convert()
        if self.patience.reconnecting:
            self.patience.resumed(answering=self.patience.owed)  # before there was a model
        self.patience.connected()
        self._hooks.emit("on_session_ready")
        if not self._closing and self._greets:
            self._ask_greeting()

    def _convert(self) -> None:
        source = self._session.output_format
        self._to_leg = audio.converter(source, self._leg_format, self._agent.resampler)
        self._converting = None

    def _ask_greeting(self) -> None:
        self._greets = False
        kept = self._for_anybody and "on_greeting_made" in self._hooks.wants
        text = self._agent.greeting_text
        self.ask(self._agent.greeting if text is None else exactly(text))
        if kept:
            self._capture = GreetingCapture(self._session.output_format, self._greeting_made)

    def _made_personal(self) -> None:
        """What the model says from here on may be meant for this caller alone: none else hears it.

        An answer that has begun is made of what was there before.
        """
        self._for_anybody = False
        if self._capture is not None and not self._capture.begun:
            self._capture = None

    def _greeting_made(self, sound: Audio) -> None:
        self._hooks.emit("on_greeting_made", sound)

    def _on_reconnecting(self, event: Reconnecting) -> None:
        self._record.model_to(ModelState.RECONNECTING)
        metrics.MODEL_LOST.labels(metrics.code(event.code)).inc()
        self._record.log.warning("model lost", code=event.code, message=event.message, again=True)
        self._hooks.emit("on_engine_error", event.code, event.message, True)
        self._response = self._capture = None
        self._end_items()
        self._forget_speech()
        self.last_words_over.set()  # its end is not waited for
        self.patience.lost()

    def _on_resumed(self, event: Resumed) -> None:
        billed = Billed(event.model, event.transcription, event.speech)
        self._record.model_is(event.engine, event.model, billed)
        self._record.model_to(ModelState.FALLBACK if event.fallback else ModelState.READY)
        self._flush_converter()
        self._convert()
        self._hooks.emit("on_session_ready")
        if self.patience.reconnecting:
            self.patience.resumed(answering=event.answering)
            if not event.answering:
                self._settle_state()
        if not self._closing and self._greets:
            self._ask_greeting()

    def _settle_state(self) -> None:
        """Nothing is owed and nobody speaks: the state says so."""
        waiting = (_S.CALLER_SPEAKING, _S.COMMITTING, _S.THINKING)
        if self._record.state in waiting and self._playout.idle:
            self._listen()

    def _tell_words(
        self, role: Literal["caller", "agent"], item_id: str, text: str, *, final: bool
    ) -> None:
        if "on_transcript" in self._hooks.wants:
            self._hooks.emit("on_transcript", Words(role, item_id, text, final))

    # ---- tools ----

    def _on_tool_call(self, event: ToolCall) -> None:
        if self._closing:
            return
        self._tools += 1
        self.patience.working(True)
        self._host.use_tool(event)

    def tool_done(self, event: ToolCall, result: str, turn: int, *, answer: bool) -> None:
        """A tool has returned; `turn` is the caller's turn in which it was called."""
        self._tools -= 1
        self.patience.working(self._tools > 0)
        if self._closing:
            return
        self._session.tool_result(event.call_id, result)
        if not answer or self._tools > 0:
            if not self._tools and self._response is None:
                self.patience.settled()
                self._settle_state()
            return
        if turn == self._turn or not self.patience.owed or self._response is not None:
            # Where the caller has said more meanwhile, the answer to that has the result as well,
            # unless it has begun without it.
            self.ask()

    @property
    def turn(self) -> int:
        """The caller's turn that is being answered."""
        return self._turn

    def ask(self, instructions: str | None = None) -> None:
        """Ask the model to say something now, or as soon as no plugin speaks in its place."""
        self._made_personal()
        if self.taken:
            if len(self._postponed) < MAX_POSTPONED:
                self._postponed.append(instructions)
            return
        self._asked_last_words = self._closing
        self._asked_more = self._response is not None
        self.patience.owe()
        self._session.respond(instructions)

    def say(self, text: str, *, verbatim: bool) -> None:
        """An operator's words: for the agent to speak, or to act on."""
        if verbatim:
            self.ask(exactly(text))
        else:
            self.tell("system", text, answer=True)

    def tell(self, role: Literal["system", "user"], text: str, *, answer: bool) -> None:
        """Put a text into the conversation."""
        self._made_personal()
        self._record.transcript.note(text)
        self._session.add_message(role, text)
        if answer:
            self.ask()

    def _on_response_started(self, event: ResponseStarted) -> None:
        if self.taken or (self._closing and not self._asked_last_words):
            # The server's own answer to what the caller said before the call began to end.
            self._session.cancel()
            return
        self._hooks.emit("on_response_started", event.response_id)
        self._response = event.response_id
        self._sounded = self._muted = self._asked_more = False

    def _on_audio(self, event: AgentAudio) -> None:
        if self._muted or self.taken:
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
            self._record.spending.use(event.usage)
        self._hooks.emit("on_response_done", event.response_id, event.status)
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
        more, self._asked_more = self._asked_more, False
        if event.status == "cancelled" or not (self._sounded or self._tools or more):
            # Nothing (more) will come: a text, an answer cut off by the caller.
            self.patience.settled()
        if self._playout.idle:
            self.turn_over()

    def _end_items(self) -> None:
        """No more audio of the answer will come, whether or not each item was said to be done."""
        self._flush_converter()
        self._playout.finish_all()
        self._host.wake_speaker()

    def _on_lost(self, event: Lost) -> None:
        self._record.model_to(ModelState.LOST)
        metrics.MODEL_LOST.labels(metrics.code(event.code)).inc()
        self._record.log.warning(
            "model lost", code=event.code, message=event.message, retryable=event.retryable
        )
        self._hooks.emit("on_engine_error", event.code, event.message, True)
        self.patience.resumed(answering=False)
        self._end_items()
        self._forget_speech()
        self.last_words_over.set()
        if not self._closing:
            reason = "model_lost" if self._was_ready else "model_unreachable"
            self._host.wind_down(reason, "unavailable")

    # ---- the caller ----

    def _on_speech_started(self, event: SpeechStarted) -> None:
        received = trio.current_time()
        self._made_personal()
        if event.item_id:  # with endpointing of our own the item exists at Committed only
            self._record.transcript.open("caller", event.item_id)
        if self._closing or self._taken:
            return
        self.patience.caller_active()
        self._hooks.emit("on_speech_started")
        if self.confirming is not None and not self._held:
            if self.confirming.speech_started(received):
                return
            if self._wanted:
                self._cancel()
                self.patience.settled()
        self._spoken_at = None
        if self._agent.barge_in == "immediate":
            if self._wanted or not self._playout.idle:
                self._barge_in(received)
            self.patience.settled()
        self._caller_speaks()

    def _caller_speaks(self) -> None:
        if self._record.state not in (_S.DIALLING, _S.ANSWERING, _S.RINGING):
            self._enter(_S.CALLER_SPEAKING)

    def _on_speech_stopped(self) -> None:
        now = trio.current_time()
        self._hooks.emit("on_speech_stopped")
        if self.taken:
            return  # what was said before is nobody's to answer
        if self.confirming is not None:
            self.confirming.speech_stopped(now)
            if not self.confirming.turn_is_speech:
                return
        self._spoken_at = now - self.silence_ms / 1000
        if self._record.state is _S.CALLER_SPEAKING:
            self._enter(_S.COMMITTING)
            self.patience.owe()  # should the server never commit

    def _on_committed(self, item_id: str) -> None:
        if self._taken:
            return
        if self.confirming is not None and not self._closing:
            self.confirming.committed(trio.current_time())
            if not self.confirming.turn_is_speech:
                self.confirming.turn_is_speech = True
                self._session.delete(item_id)
                self._record.transcript.drop(item_id)
                return
        self._turn += 1
        self._record.transcript.open("caller", item_id)
        self.patience.owe()
        if self._record.state in (_S.COMMITTING, _S.CALLER_SPEAKING, _S.LISTENING):
            self._enter(_S.THINKING)
        if self.confirming is not None and not self._closing:
            self._session.respond()

    # what the judge of an interruption decides

    @property
    def agent_sounds(self) -> bool:
        """Whether an answer is being heard, or waits to be."""
        return not self._playout.idle

    def pause_speaker(self) -> None:
        """Stop playing until it is known what the caller's sound was."""
        self._host.pause_speaker()

    def resume_speaker(self) -> None:
        """It was no interruption."""
        self._host.resume_speaker()

    def interrupted(self, began: float) -> None:
        """It was one."""
        self._spoken_at = None
        self._barge_in(began)
        self._host.resume_speaker()  # for what is said next
        self.patience.settled()
        self._caller_speaks()

    def _forget_speech(self) -> None:
        """The session that heard the caller is gone, and so is the end of what it heard."""
        if self.confirming is not None and self.confirming.pending:
            self._host.resume_speaker()
        if self.confirming is not None:
            self.confirming.stop()

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
        if had_audio:
            self._hooks.emit("on_barge_in", cuts[0].heard_ms if cuts else 0)

    def silence(self) -> None:
        """Interrupt the agent as a caller would."""
        if self._wanted or not self._playout.idle:
            self._barge_in(trio.current_time())
            self.patience.settled()
            self.turn_over()

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
            if cut.action != "none":
                self._tell_cut(cut.item_id)
        self._converting = None
        self._settle_seeds()
        self._host.settle_clips()

    def _tell_cut(self, item_id: str) -> None:
        """The plugins learn what was heard of words that they had been told."""
        entry = self._record.transcript.get(item_id)
        if "on_transcript" in self._hooks.wants and entry is not None:
            words = Words("agent", item_id, entry.text, final=True, cut=True)
            self._hooks.emit("on_transcript", words)

    def _settle_seeds(self) -> None:
        """Tell the model what was heard of our own clips that it should know as its words."""
        for item_id in list(self._seeds):
            heard, whole = self._playout.heard_ms(item_id), self._playout.received_ms(item_id)
            if not heard:
                if self._playout.was_cut(item_id):
                    del self._seeds[item_id]
                    self._record.transcript.drop(item_id)
                continue
            del self._seeds[item_id]
            if heard < whole:
                self._record.transcript.cut(item_id, heard, whole)
                self._tell_cut(item_id)
            entry = self._record.transcript.get(item_id)
            if entry is not None and entry.text:
                self._session.add_message("assistant", entry.text)

    def key_pressed(self) -> None:
        """The caller pressed a key, whoever deals with it: activity, and no interruption."""
        self.patience.caller_active()
        self._record.digit()
        if self.confirming is not None:
            self.confirming.digit(trio.current_time())

    def digit(self, digit: str) -> None:
        """A key that no plugin took is a fact that the model should know."""
        if not self._closing:
            self.tell("system", f"The caller pressed the key {digit}.", answer=False)

    # ---- a plugin in the model's place ----

    def take_over(self, taken: bool) -> None:
        """A plugin has the call to itself, or gives it back."""
        self._taken += 1 if taken else -1
        if taken and self._taken == 1:
            self._cancel()
            self.cut_off()
            self._forget_speech()
            self.patience.settled()
        self.patience.hold(self._held or self._taken > 0)
        if not self._taken and not self._closing:
            self._settle_state()
            postponed, self._postponed = self._postponed, []
            for instructions in postponed:
                self.ask(instructions)

    @property
    def taken(self) -> bool:
        """Whether a plugin has the call to itself; the last words are the call's again."""
        return self._taken > 0 and not self._closing

    # ---- hold and transfer ----

    def hold(self, held: bool) -> None:
        """The other side holds the call, or is back; a transfer counts as hold."""
        self._held = held
        if self.confirming is not None:
            self.confirming.stop()  # the speaker is paused or resumed by the hold itself
        self._spoken_at = None  # how long an answer took is not said of one that waited
        self.patience.hold(held or self._taken > 0)
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
        self._host.settle_clips()
        if item_id.startswith(LOCAL):
            self._announced = self._announced or item_id.startswith(CLIP)
            if item_id.startswith(GREETING):
                self._record.greeting_heard(heard_at)
                self._greeted = True
            if item_id in self._seeds:
                self._record.transcript.add("agent", item_id, self._seeds[item_id], final=True)
                self._tell_words("agent", item_id, self._seeds[item_id], final=True)
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

    def ran_dry(self) -> None:
        """The model is slower than speech, or has stalled."""
        self.patience.ran_dry()

    def turn_over(self) -> None:
        """All that was to be said has been heard."""
        self._settle_seeds()
        self._host.settle_clips()
        announced, self._announced = self._announced, False
        if self.patience.owed:
            if self._record.state is _S.SPEAKING:
                self._enter(_S.THINKING)
        elif self._record.state in (_S.GREETING, _S.SPEAKING, _S.COMMITTING, _S.THINKING):
            self._listen()
        elif announced:
            self.patience.listening()  # the caller could not be expected to talk over it

    def _listen(self) -> None:
        self.patience.listening()
        self._enter(_S.LISTENING)

    def ended(self) -> None:
        """The call is over: of words of ours those that were heard remain."""
        for item_id in self._seeds:
            entry = self._record.transcript.get(item_id)
            heard, whole = self._playout.heard_ms(item_id), self._playout.received_ms(item_id)
            if entry is not None and heard < whole:
                self._record.transcript.cut(item_id, heard, whole)

    def close(self) -> None:
        """The call is winding down: no more turns, no answers that were asked for before."""
        self._closing = True
        self._muted = True
        self._asked_last_words = False
        self._cancel()
        self.patience.stop()
        self._forget_speech()
        self._end_items()  # the last message must not wait for the rest of a sentence
