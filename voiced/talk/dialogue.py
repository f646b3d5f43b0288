"""The control half of a call: what the model and the caller do, and what follows from it.

Here the parts of it are put together, and the session's events handed to those they concern. Every
method is synchronous but `run` and `answered`: what one engine event sets off happens in one step,
before another frame can go out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import trio

from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    EngineEvent,
    EngineFault,
    Lost,
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
from voiced.talk.answers import Answers
from voiced.talk.connection import Connection
from voiced.talk.floor import Floor
from voiced.talk.greeting import ModelGreeting
from voiced.talk.hearing import Hearing
from voiced.talk.intake import Intake
from voiced.talk.interrupting import Interruption
from voiced.talk.patience import Patience
from voiced.talk.tooling import ToolRuns
from voiced.talk.truth import Truth
from voiced.talk.turns import Turns

if TYPE_CHECKING:
    from voiced.call import Call

__all__ = ["Dialogue"]

_ROOM_POLL_S: Final = 0.1  # a full playout holds minutes: looking ten times a second is soon enough


class Dialogue:
    """Turn-taking between a caller and a session, over a playout."""

    def __init__(self, call: Call, session: Session, nursery: trio.Nursery) -> None:
        """`nursery` is the call's: tools run there."""
        agent, voice, clipboard, hooks = call.agent, call.voice, call.clipboard, call.hooks
        record, playout = call.record, call.voice.playout
        self._session = session
        self._record = record
        self._playout = playout
        self._voice = voice
        self.patience = Patience(voice, call.wind_down, agent, record, playout)
        self.floor = floor = Floor(record, self.patience, playout)
        self.truth = Truth(session, record, playout, clipboard, hooks)
        self._intake = intake = Intake(session, voice, call.leg_format, agent)
        self._greeting = greeting = ModelGreeting(agent, hooks)
        self.answers = Answers(session, record, hooks, floor, self.patience, intake, greeting)
        self.interruption = Interruption(record, hooks, voice, intake, self.answers, self.truth)
        self.turns = Turns(
            session,
            record,
            agent,
            call.leg_format,
            hooks,
            voice,
            floor,
            self.patience,
            self.answers,
            self.interruption,
            greeting,
            self.truth,
        )
        self.hearing = Hearing(record, clipboard, floor, self.patience, self.truth, self.turns)
        self._tools = ToolRuns(
            session,
            call.toolbox,
            hooks.tool_call,
            clipboard,
            playout,
            floor,
            self.patience,
            self.answers,
            self.turns,
            nursery,
        )
        self.connection = Connection(
            session,
            record,
            hooks,
            floor,
            self.patience,
            intake,
            greeting,
            self.answers,
            self.turns,
            call.wind_down,
        )

    # ---- the model ----

    async def run(self) -> None:
        """Take the session's events for as long as the call lives."""
        while True:
            if self._playout.room <= 0:
                # The carrier is slower than the model for minutes on end: let the model wait. Its
                # events wait too, which is the price of bounded memory.
                await trio.sleep(_ROOM_POLL_S)
                continue
            events = await self._session.receive()
            self.answers.stale = False
            for event in events:
                self.on_event(event)

    def on_event(self, event: EngineEvent) -> None:
        """One event of the session."""
        if (capture := self._greeting.capture) is not None:
            self._greeting.observe(capture, event)
        match event:
            case AgentAudio():
                self._on_audio(event)
            case AgentTranscript():
                if not self.answers.stale:
                    self.truth.said("agent", event.item_id, event.text, final=event.final)
            case AgentAudioDone():
                self._intake.finish(event.item_id)
            case SpeechStarted():
                self.turns.speech_started(event)
            case SpeechStopped():
                self.turns.speech_stopped()
            case Committed():
                self.turns.committed(event.item_id)
            case ResponseStarted():
                self.answers.started(event)
            case ResponseDone():
                self.truth.answered(whole=event.status in ("completed", "incomplete"))
                over = self.answers.done(event, tools=self._tools.running)
                if over and not (self.answers.sounded or self.answers.wanted):
                    self.turns.left_unanswered()
                if over and self._playout.idle:
                    self.hearing.turn_over()
            case CallerTranscript():
                self._on_caller_transcript(event)
            case Ready():
                self.connection.ready()
            case ToolCall():
                self._tools.call(event)
            case Reconnecting():
                self.truth.answered(whole=False)
                self.connection.reconnecting(event)
            case Resumed():
                self.connection.resumed(event)
            case EngineFault():
                self.connection.fault(event)
            case Lost():
                self.truth.answered(whole=False)
                self.connection.lost(event)

    def _on_audio(self, event: AgentAudio) -> None:
        answers, floor = self.answers, self.floor
        if answers.muted or answers.stale or floor.taken or self.truth.denied(event.item_id):
            return
        self._voice.make_way()
        if self._intake.add(event):
            answers.sound(event)
            self.truth.sounded(event.item_id)
            if floor.closing:
                answers.last_words_begun.set()

    def _on_caller_transcript(self, event: CallerTranscript) -> None:
        self.truth.said("caller", event.item_id, event.text, final=event.final)
        if event.usage is not None:
            self._record.spending.use(event.usage)
        self._record.log.debug("caller said", text=event.text, final=event.final)

    async def answered(self) -> None:
        """Wait until no answer is being made and none is owed."""
        while self.answers.wanted or self._tools.running:  # noqa: ASYNC110
            await trio.sleep(_ROOM_POLL_S)  # once a call, for seconds: not worth an event

    # ---- what others put into the conversation ----

    def say(self, text: str, *, verbatim: bool) -> None:
        """An operator's words: for the agent to speak, or to act on."""
        if verbatim:
            self.answers.ask(exactly(text))
        else:
            self.tell("system", text, answer=True)

    def tell(self, role: Literal["system", "user"], text: str, *, answer: bool) -> None:
        """Put a text into the conversation."""
        self._greeting.made_personal()
        self._record.transcript.note(text, role)
        self._session.add_message(role, text)
        if answer:
            self.answers.ask()

    def digit(self, digit: str) -> None:
        """A key that no plugin took is a fact that the model should know."""
        if not self.floor.closing:
            self.tell("system", f"The caller pressed the key {digit}.", answer=False)

    def silence(self) -> None:
        """Interrupt the agent as a caller would."""
        if self.answers.wanted or self.turns.agent_sounds:
            self.interruption.barge_in(trio.current_time())
            self.patience.settled()
            self.hearing.turn_over()

    # ---- who has the floor ----

    def take_over(self, taken: bool) -> None:
        """A plugin has the call to itself, or gives it back."""
        floor = self.floor
        floor.take(taken)
        if taken and floor.plugins == 1:
            self.answers.cancel()
            self.interruption.cut_off()
            self.turns.forget()
            self.turns.left_unanswered()
            self.patience.settled()
        floor.rest()
        if not floor.plugins and not floor.closing:
            floor.settle()
            self.answers.ask_postponed()

    def hold(self, held: bool) -> None:
        """The other side holds the call, or is back; a transfer counts as hold."""
        self.turns.hold()
        self.floor.hold(held)

    def close(self) -> None:
        """The call is winding down: no more turns, no answers that were asked for before."""
        self.floor.close()
        self.answers.close()
        self.patience.stop()
        self.turns.forget()
        self._intake.end()  # the last message must not wait for the rest of a sentence
