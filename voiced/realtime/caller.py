"""The caller's side of a session: their audio to the server, their turns and words to the call.

Sans-I/O. Turns are found by the server, or by an endpointing of ours, which then commits them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

from voiced import engine
from voiced.config.types import OwnVad, RealtimeEngine
from voiced.engine import EngineEvent, Plan, Usage
from voiced.formats import FRAME_MS, AudioFormat
from voiced.realtime import events
from voiced.realtime.answers import Answers
from voiced.realtime.attention import Attention
from voiced.realtime.errors import fault
from voiced.realtime.events import ErrorBody, ServerEvent
from voiced.realtime.lengths import Lengths
from voiced.realtime.outbox import Outbox
from voiced.realtime.recent import Recent
from voiced.realtime.turns import MIN_COMMIT_MS, OwnTurns
from voiced.realtime.unnamed import UNNAMED
from voiced.realtime.update import asks_for_responses, server_responds
from voiced.realtime.usage import transcription_usage
from voiced.vad import VadStarted

__all__ = ["HANDLERS", "Caller"]

REMEMBERED: Final = 64


@final
class Caller:
    """One session's; appends to `told` what the call is to know. `ask` wants an answer.

    That is told the number of the turn, of those that voiced finds itself, or else 0.
    """

    def __init__(
        self,
        plan: Plan,
        config: RealtimeEngine,
        outbox: Outbox,
        answers: Answers,
        told: list[EngineEvent],
        ask: Callable[[int], None],
    ) -> None:
        self._agent = plan.agent
        self._outbox = outbox
        self._answers = answers
        self._events = told
        self._ask = ask
        self._asks = asks_for_responses(plan.agent)
        self._server_responds = server_responds(plan.agent)
        self._format: AudioFormat | None = None
        self._turns: OwnTurns | None = None
        self._append_ms = config.append_ms
        self._append_bytes = 0
        self._held = bytearray()  # less than `append_ms` of caller audio
        self._uncommitted = 0  # bytes appended since the last commit, own endpointing only
        self._transcribed = Recent(REMEMBERED)
        self._lengths = Lengths()
        self._speaking = (
            ""  # the name of the turn that the caller is in the midst of, if it has one
        )
        self._spoken = ""  # of the one that is over and no item yet
        self._committed_last = ""
        self._unnamed = 0  # turns that we gave a name
        self.own_turns = 0
        """Of the caller's that are over, of those that voiced finds itself."""
        self._attentive = plan.attentive
        self.attention: Attention | None = None
        """Where the server is to find the turns."""

    def granted(self, form: AudioFormat) -> None:
        """The server takes audio of this format; `send` may be called."""
        self._format = form
        self._append_bytes = self._append_ms * form.bytes_per_ms
        settings = self._agent.turn_detection
        if isinstance(settings, OwnVad):
            self._turns = OwnTurns(form, settings)
        elif self._attentive:
            self.attention = Attention(form)

    # --- to the server ----------------------------------------------------------------------

    def send(self, payload: bytes) -> None:
        """The caller's audio, in the granted format."""
        if self._turns is not None:
            self._find_turns(self._turns, payload)
            return
        if self._append_ms > FRAME_MS:  # else as it comes, whatever the carrier's frames are
            self._held += payload
            if len(self._held) < self._append_bytes:
                return
            payload = bytes(self._held)
            self._held.clear()
        self._outbox.send(events.Append(payload))

    def _find_turns(self, turns: OwnTurns, payload: bytes) -> None:
        for part in turns.feed(payload):
            if isinstance(part, bytes):
                self._append_to_turn(part)
            elif isinstance(part, VadStarted):
                self._lengths.started(part.at_ms)
                self._events.append(engine.SpeechStarted("", part.at_ms))
                if self._agent.barge_in == "immediate":
                    self._answers.cancel()
            else:
                self._lengths.stopped(part.at_ms)
                self._events.append(engine.SpeechStopped("", part.at_ms))
                self._commit_turn()

    def _append_to_turn(self, payload: bytes) -> None:
        self._uncommitted += len(payload)
        self._outbox.send(events.Append(payload))

    def _commit_turn(self) -> None:
        assert self._format is not None
        shortest = MIN_COMMIT_MS * self._format.bytes_per_ms
        if self._uncommitted < shortest:  # silence ended the turn, so silence may complete it
            self._append_to_turn(self._format.silence(MIN_COMMIT_MS))
        self._outbox.send(events.Commit(self._outbox.next_id()))
        self._uncommitted = 0
        self.own_turns += 1
        if self._asks:
            self._ask(self.own_turns)

    # --- from the server --------------------------------------------------------------------

    def _speech_started(self, event: events.SpeechStarted) -> None:
        self._answers.turn_owed = False  # the caller goes on; the answer comes after that
        self._lengths.started(event.audio_start_ms)
        self._speaking = event.item_id or ""
        if self.attention is not None:
            self.attention.heard()
        self._events.append(engine.SpeechStarted(event.item_id or "", int(event.audio_start_ms)))

    def _speech_stopped(self, event: events.SpeechStopped) -> None:
        self._answers.turn_owed = self._server_responds
        self._lengths.stopped(event.audio_end_ms)
        self._spoken, self._speaking = event.item_id or self._speaking, ""
        if self.attention is not None:
            self.attention.stopped()
        self._events.append(engine.SpeechStopped(event.item_id or "", int(event.audio_end_ms)))

    def _committed(self, event: events.Committed) -> None:
        item_id = event.item_id or self._spoken or self._speaking or self._new_name()
        self._spoken, self._committed_last = "", item_id
        if self._speaking == item_id:
            self._speaking = ""
        self._lengths.committed(item_id)
        if self.attention is not None:  # a client may end a turn as well
            self.attention.stopped()
        self._events.append(engine.Committed(item_id))
        if self._asks and self._turns is None:  # own turns ask along with their commit
            self._ask(0)

    def _new_name(self) -> str:
        self._unnamed += 1
        return f"{UNNAMED}turn:{self._unnamed}"

    def _written(self, item_id: str) -> str:
        """The name of what is written down: where the server tells none, the last turn's."""
        if not item_id and (not self._committed_last or self._committed_last in self._transcribed):
            self._committed_last = self._new_name()
        return item_id or self._committed_last

    def _transcription_delta(self, event: events.TranscriptionDelta) -> None:
        item_id = self._written(event.item_id)
        if event.delta and item_id not in self._transcribed:
            self._events.append(engine.CallerTranscript(item_id, event.delta, final=False))

    def _transcription_completed(self, event: events.TranscriptionCompleted) -> None:
        item_id = self._written(event.item_id)
        if item_id in self._transcribed:
            return
        self._transcribed.add(item_id)
        text, usage = event.transcript or "", transcription_usage(event.usage)
        length_s = self._lengths.written(item_id, text)
        if usage is None and self._agent.transcription_model is not None:
            usage = Usage(transcription_s=length_s)  # what the model was given, as far as we know
        if not text:
            self._answers.turn_owed = False  # it was no speech, which some servers do not answer
        self._events.append(engine.CallerTranscript(item_id, text, final=True, usage=usage))

    def _transcription_failed(self, event: events.TranscriptionFailed) -> None:
        body = ErrorBody(message=event.error) if isinstance(event.error, str) else event.error
        self._events.append(fault("transcription_failed", body.message if body else None, "ignore"))


_C = Caller
HANDLERS: Final[dict[type[ServerEvent], Callable[[Caller, Any], None]]] = {
    events.SpeechStarted: _C._speech_started,
    events.SpeechStopped: _C._speech_stopped,
    events.Committed: _C._committed,
    events.TranscriptionDelta: _C._transcription_delta,
    events.TranscriptionCompleted: _C._transcription_completed,
    events.TranscriptionFailed: _C._transcription_failed,
}
"""What takes each event of the caller's."""
