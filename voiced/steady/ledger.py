"""What has happened in a conversation, as far as another session would have to know it.

Pure but for the clock that it is given. The session's events go through `note`, one by one, but for
audio of answers, which `audio` is told of: it comes 50 times a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

from voiced.engine import (
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    EngineEvent,
    EngineFault,
    Plan,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)
from voiced.formats import AudioFormat
from voiced.steady.memory import Memory
from voiced.steady.owed import Ask, Owed
from voiced.steady.renewal import Renewal
from voiced.steady.utterance import Utterance

__all__ = ["NEVER", "TURN_S", "Ledger"]

NEVER: Final = float("inf")

TURN_S: Final = 2.0
"""A session that has been given the caller's last turn as audio recognises it within this, or is
asked for the answer."""


@final
class Ledger:
    """One call's; sessions come and go.

    `owed`, `utterance`, `memory` and `renewal` are its pages; commands of the call go to them
    directly. `output_format` is the one of the session that talks.
    """

    def __init__(self, plan: Plan, clock: Callable[[], float], count: Callable[[], None]) -> None:
        """`count` is called for each answer that a session begins without being asked."""
        self.owed = Owed()
        self.utterance = Utterance(plan.leg_format)
        self.memory = Memory(plan.history, plan.tools)
        self.renewal = Renewal(plan.agent.transcription_model is not None)
        self.output_format: AudioFormat = plan.leg_format
        self.answered = False
        """The session that talks has given a whole answer."""
        self.failed: tuple[str, Ask] | None = None
        """The code of an answer that has just failed, until somebody has seen to it."""
        self.turn_at = NEVER
        """Then a turn that was replayed should have been recognised."""
        self._clock = clock
        self._count = count
        self._answers_turns = plan.agent.barge_in != "confirm"

    # ---- the session that talks

    def audio(self, item_id: str, size: int) -> None:
        """A piece of an answer has come, of so many bytes."""
        if self.owed.audio(item_id, size) and not (self.owed.turn_waits or self.turn_at < NEVER):
            self.utterance.answered()  # or else it is an answer to something before

    def note(self, event: EngineEvent) -> None:
        """An event that is no audio."""
        note = _NOTES.get(type(event))
        if note is not None:
            note(self, event)

    def _on_words(self, event: AgentTranscript) -> None:
        self.owed.words(event.item_id, event.text, final=event.final)

    def _on_audio_done(self, event: AgentAudioDone) -> None:
        self.owed.audio_done(event.item_id)

    def _on_speech_started(self, _event: SpeechStarted) -> None:
        self.turn_at = NEVER
        self.utterance.started()

    def _on_speech_stopped(self, _event: SpeechStopped) -> None:
        self.utterance.stopped()

    def _on_committed(self, event: Committed) -> None:
        self.turn_at = NEVER
        self.utterance.committed(event.item_id)
        self.renewal.committed(event.item_id, self._clock())
        if self._answers_turns:
            self.owed.turn()

    def _on_caller_transcript(self, event: CallerTranscript) -> None:
        if event.final:
            self.utterance.understood(event.item_id)
            self.renewal.transcribed(event.item_id)

    def _on_response_started(self, event: ResponseStarted) -> None:
        self.renewal.started(self._clock())
        if not self.owed.started(event.response_id):
            self._count()

    def _on_response_done(self, event: ResponseDone) -> None:
        size, failed = self.owed.done(event.response_id, event.status)
        self.renewal.done(self._clock(), self._seconds(size))
        if failed is not None:
            self.failed = event.reason or "unknown", failed
        elif event.status == "completed":
            self.answered = True

    def _on_fault(self, event: EngineFault) -> None:
        if event.action == "retry" and self.failed is not None:
            self.owed.repeated(self.failed[1])  # the session asks again by itself
            self.failed = None

    def _on_tool_call(self, event: ToolCall) -> None:
        self.memory.called(event)
        self.utterance.answered()

    def _seconds(self, size: int) -> float:
        return size / (1000 * self.output_format.bytes_per_ms)

    # ---- between two

    def cancel(self) -> None:
        """The call wants no answer any more."""
        self.owed.cancel()
        self.failed = None
        self.turn_at = NEVER

    def quiet(self, now: float) -> bool:
        """Nobody speaks, nothing is owed, everything was heard and written down."""
        busy = self.owed.any or self.utterance.open or self.memory.calls_open
        return not busy and self.renewal.quiet(now)

    @property
    def answering(self) -> bool:
        """An answer is owed, whether it was asked for or follows from a turn that was replayed."""
        return self.owed.any or (self.turn_at < NEVER and self.utterance.finished)

    def lost(self) -> None:
        """The session is gone: what it owed waits for the next."""
        if self.failed is not None:
            self.owed.again(self.failed[1])
            self.failed = None
        self.renewal.done(self._clock(), self._seconds(self.owed.given))
        # A model that may call functions can have been about to, though all that it said was whole.
        self.owed.lost(tools=bool(self.memory.tools))
        self.memory.lost()
        self.turn_at = NEVER

    def taken_over(self) -> None:
        """The next one is told everything now, the caller's last words included."""
        self.answered = False
        if self.utterance.open:
            self.turn_at = self._clock() + TURN_S
        if self.utterance.finished:
            self.owed.turns_begin()

    def turn_missed(self) -> None:
        """The session has made nothing of a turn that was replayed: it is asked for an answer."""
        self.turn_at = NEVER
        self.utterance.unheard()
        self.owed.want(None)


_L = Ledger
_NOTES: Final[dict[type[EngineEvent], Callable[[Ledger, Any], None]]] = {
    AgentAudioDone: _L._on_audio_done,
    AgentTranscript: _L._on_words,
    CallerTranscript: _L._on_caller_transcript,
    Committed: _L._on_committed,
    EngineFault: _L._on_fault,
    ResponseDone: _L._on_response_done,
    ResponseStarted: _L._on_response_started,
    SpeechStarted: _L._on_speech_started,
    SpeechStopped: _L._on_speech_stopped,
    ToolCall: _L._on_tool_call,
}
