"""The caller's turns: speech and its end, what of it interrupts the agent, and what was none.

How an interruption is judged with `barge_in = "confirm"` is for `Confirming` to say; what follows
from its verdict is here.
"""

from __future__ import annotations

import math
from typing import Final

import trio

from voiced.config.types import Agent, OwnVad, ServerVad
from voiced.engine import Session, SpeechStarted
from voiced.formats import AudioFormat
from voiced.hooks.calls import CallHooks
from voiced.interruption.confirmation import Confirmation
from voiced.record import CallRecord
from voiced.states import CallState
from voiced.talk.answers import Answers
from voiced.talk.confirming import Confirming
from voiced.talk.floor import Floor
from voiced.talk.greeting import ModelGreeting
from voiced.talk.interrupting import Interruption
from voiced.talk.patience import Patience
from voiced.talk.truth import Truth
from voiced.talk.voice import Voice

__all__ = ["HEARD_AGAIN_S", "Turns"]

_S: Final = CallState

HEARD_AGAIN_S: Final = 2.0
"""A session that is given as audio what was said before it recognises that within this."""


class Turns:
    """One call's."""

    def __init__(
        self,
        session: Session,
        record: CallRecord,
        agent: Agent,
        leg_format: AudioFormat,
        hooks: CallHooks,
        voice: Voice,
        floor: Floor,
        patience: Patience,
        answers: Answers,
        interruption: Interruption,
        greeting: ModelGreeting,
        truth: Truth,
    ) -> None:
        self._session = session
        self._record = record
        self._hooks = hooks
        self._voice = voice
        self._floor = floor
        self._patience = patience
        self._answers = answers
        self._interruption = interruption
        self._greeting = greeting
        self._truth = truth
        self._immediate = agent.barge_in == "immediate"
        self.confirming: Confirming | None = None
        if agent.barge_in == "confirm":
            judge = Confirmation(leg_format, agent.confirm_ms)
            self.confirming = Confirming(self, judge, agent.confirm_ms)
        detection = agent.turn_detection
        silence_ms = detection.silence_ms if isinstance(detection, ServerVad | OwnVad) else 0
        self._silence_s = silence_ms / 1000
        self.number = 0
        """Of the caller's turn that is being answered."""
        self.spoken_at: float | None = None
        """The caller's last word, until an answer is heard."""
        self._left_open = False  # the session is lost, and a turn of the caller's with it
        self._again_until = -math.inf  # what the next one reports by then may be that turn

    def speech_started(self, event: SpeechStarted) -> None:
        """The caller began to speak."""
        received = trio.current_time()
        self._greeting.made_personal()
        if event.item_id:  # with endpointing of our own the item exists at Committed only
            self._record.transcript.open("caller", event.item_id)
        if self._floor.closing or self._floor.plugins:
            return
        self._hooks.emit("on_speech_started")
        if self._floor.held:
            return  # said before, or to somebody else: what waits for the caller is heard by them
        if self.confirming is not None:
            # Before media nothing plays that could be paused, and so nothing echoes.
            again = received < self._again_until
            if self._voice.audible and self.confirming.speech_started(
                event.item_id, received, again=again
            ):
                return  # the echo of a question whether anybody is there is no answer to it
            if self._answers.wanted:
                self._answers.cancel()
                self._patience.settled()
        self._patience.caller_active()
        self.spoken_at = None
        if self._immediate:
            if self._answers.wanted or self.agent_sounds:
                self._interruption.barge_in(received)
            self._patience.settled()
        self._caller_speaks()

    def _caller_speaks(self) -> None:
        if self._record.state not in (_S.DIALLING, _S.ANSWERING, _S.RINGING):
            self._floor.enter(_S.CALLER_SPEAKING)

    def speech_stopped(self) -> None:
        """The caller's turn is over by the turn detection."""
        now = trio.current_time()
        self._hooks.emit("on_speech_stopped")
        if self._floor.taken:
            return  # what was said before is nobody's to answer
        if self.confirming is not None and not self.confirming.speech_stopped(now):
            return
        self.spoken_at = now - self._silence_s
        if self._record.state is _S.CALLER_SPEAKING:
            self._floor.enter(_S.COMMITTING)
            self._patience.owe()  # should the server never commit

    def committed(self, item_id: str) -> None:
        """The caller's audio is an item of the conversation."""
        if self._floor.plugins:
            return
        judge = None if self._floor.closing else self.confirming
        if judge is not None and not judge.committed(item_id, trio.current_time()):
            self._truth.unsaid(item_id)
            return
        self.number += 1
        self._record.transcript.open("caller", item_id)
        self._patience.owe()
        if self._record.state in (_S.COMMITTING, _S.CALLER_SPEAKING, _S.LISTENING):
            self._floor.enter(_S.THINKING)
        if judge is not None:
            self._answers.ask()

    def key_pressed(self) -> None:
        """The caller pressed a key, whoever deals with it: activity, and no interruption."""
        self._patience.caller_active()
        self._record.digit()
        if self.confirming is not None:
            self.confirming.digit(trio.current_time())

    def answer_heard(self, at: float) -> None:
        """An answer begins to be heard at `at`."""
        if self.spoken_at is not None:
            self._record.answer_heard(at - self.spoken_at)
            self.spoken_at = None

    def left_unanswered(self) -> None:
        """What the caller has said gets no answer that is heard; the next is to something else."""
        self.spoken_at = None

    def lost(self) -> None:
        """The session that heard the caller is gone; the next one hears an open turn again."""
        if self.confirming is not None:
            self._leave_open(self.confirming)
        self.forget()
        if self.confirming is not None:
            self.confirming.listen_on(trio.current_time())

    def _leave_open(self, judge: Confirming) -> None:
        unanswered = judge.open or judge.said_meanwhile or self.spoken_at is not None
        self._left_open = self._left_open or unanswered

    def resumed(self) -> None:
        """Another session has taken over, and heard what was left open, or said since."""
        if self.confirming is not None:  # a session that was renewed was not lost before
            self._leave_open(self.confirming)
            self.confirming.said_meanwhile = False
        self.forget()
        if self._left_open:
            self._again_until = trio.current_time() + HEARD_AGAIN_S
        self._left_open = False

    def forget(self) -> None:
        """What the caller is saying is nobody's to judge any more."""
        if self.confirming is not None:
            if self.confirming.pending:
                self.resume_speaker()
            self.confirming.stop()

    def hold(self) -> None:
        """The caller is put on hold, or is back: how long an answer took that waited is not said.

        The speaker is paused or resumed by the hold itself.
        """
        if self.confirming is not None:
            self.confirming.stop()
        self.spoken_at = None

    # ---- what the judge of an interruption decides ----

    @property
    def agent_sounds(self) -> bool:
        """Whether an answer is being heard, or waits to be."""
        return not self._voice.playout.idle

    def pause_speaker(self) -> None:
        """Stop playing until it is known what the caller's sound was."""
        self._voice.pause()

    def resume_speaker(self) -> None:
        """It was no interruption: go on, unless nobody listens by now."""
        if not self._floor.held:
            self._voice.resume()

    def judged(self, verdict: str, began: float, *, paused: bool) -> None:
        """What it was; for whoever wonders why the agent stopped, or did not."""
        self._record.log.debug(
            "speech judged",
            verdict=verdict,
            paused=paused,
            at_ms=self._record.media_ms(began),
            after_ms=round(1000 * (trio.current_time() - began)),
        )

    def interrupted(self, began: float) -> None:
        """It was one, or a turn right after an answer."""
        self._patience.caller_active()
        self.spoken_at = None
        self._interruption.barge_in(began)
        self.resume_speaker()  # for what is said next
        self._patience.settled()
        self._caller_speaks()
