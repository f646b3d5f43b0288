"""One Realtime session as a state machine. Sans-I/O; `client` moves the bytes.

Server events and commands in, engine events and client messages out.
Source: OpenAI's Realtime API reference and conversation guide. Audio goes out only once
`session.updated` has come: until then the server takes it for 24 kHz PCM.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, Literal, cast, final

from voiced import engine
from voiced.config.types import OwnVad, RealtimeEngine
from voiced.engine import EngineEvent, EngineFault, Lost, Plan, ToolSpec
from voiced.formats import FRAME_MS, AudioFormat
from voiced.realtime import answers, errors, events
from voiced.realtime.answers import Answers
from voiced.realtime.dialect import UnspeakableFormat
from voiced.realtime.errors import Verdict
from voiced.realtime.events import ErrorBody, ServerEvent
from voiced.realtime.outbox import Outbox
from voiced.realtime.recent import Recent
from voiced.realtime.responses import MAX_REFUSALS, Ask
from voiced.realtime.servers import SERVERS
from voiced.realtime.setup import Setup
from voiced.realtime.turns import MIN_COMMIT_MS, OwnTurns
from voiced.realtime.update import asks_for_responses, server_responds, tools_config
from voiced.realtime.usage import response_usage, transcription_usage
from voiced.vad import VadStarted

__all__ = ["RealtimeMachine"]

REMEMBERED: Final = 64
MAX_MESSAGE_CHARS: Final = 300  # of a server's error text, for logs


class _Phase(Enum):
    CONNECTING = "connecting"  # nothing heard from the server
    CONFIGURING = "configuring"  # `session.update` sent
    READY = "ready"
    LOST = "lost"


_STATUSES: Final = {"completed", "cancelled", "incomplete", "failed"}
_RESPONSE_ID: Final = re.compile(r"\bresp_\w+")


@final
class RealtimeMachine:
    """Feed it `receive` and the commands; collect `take_events` and `take_messages`."""

    def __init__(self, plan: Plan, config: RealtimeEngine) -> None:
        self._plan = plan
        self._server = SERVERS[config.server]
        self._dialect = self._server.dialect(config.dialect)
        self._phase = _Phase.CONNECTING
        self._setup = Setup(plan, config)
        self._asks = asks_for_responses(plan.agent)
        self._server_responds = server_responds(plan.agent)
        self._tools = tools_config(plan.tools)
        self._late_tools = False  # set while the server was at work on the first `session.update`
        self._expires_at: float | None = None
        self._turns: OwnTurns | None = None
        self._append_ms = config.append_ms
        self._held = bytearray()  # less than `append_ms` of caller audio
        self._uncommitted = 0  # bytes appended since the last commit, own endpointing only
        self._outbox = Outbox()
        self._transcribed = Recent(REMEMBERED)
        self._failures = 0  # in a row, of the server's own making
        self._limited = 0  # in a row, by its rate limit
        self._malformed = 0
        self._events: list[EngineEvent] = []
        self._answers = Answers(self._server, self._outbox, self._events)
        self._responses = self._answers.responses

    # --- what is known ----------------------------------------------------------------------

    @property
    def input_format(self) -> AudioFormat:
        """What `send_audio` takes; what was asked for until `Ready`."""
        return self._setup.input

    @property
    def output_format(self) -> AudioFormat:
        """What `AgentAudio.payload` is; what was asked for until `Ready`."""
        return self._setup.output

    @property
    def ready(self) -> bool:
        """The session is configured."""
        return self._phase is _Phase.READY

    @property
    def lost(self) -> bool:
        """The session is over."""
        return self._phase is _Phase.LOST

    @property
    def owing(self) -> bool:
        """Whether somebody waits for an answer that the server has to give."""
        return self._phase is _Phase.READY and (self._answers.turn_owed or self._responses.owed)

    @property
    def expires_at(self) -> float | None:
        """When the server says that it ends the session, in Unix time."""
        return self._expires_at

    @property
    def malformed(self) -> int:
        """Messages of the server that could not be parsed."""
        return self._malformed

    @property
    def has_events(self) -> bool:
        """Whether `take_events` would return any."""
        return bool(self._events)

    def take_events(self) -> list[EngineEvent]:
        """Hand over the engine events since the last time."""
        taken = self._events[:]
        self._events.clear()
        return taken

    def take_messages(self) -> list[bytes]:
        """Hand over the text messages to be sent, in their order."""
        return self._outbox.take()

    # --- commands ---------------------------------------------------------------------------

    def send_audio(self, payload: bytes) -> None:
        """The caller's audio in `input_format`."""
        if self._phase is _Phase.READY:
            self._pass_on(payload)
        elif self._phase is not _Phase.LOST:
            self._setup.keep_audio(payload)

    def respond(self, instructions: str | None = None) -> None:
        """Ask for an answer, after the running one if there is one."""
        if self._phase is not _Phase.LOST:
            self._responses.want(Ask(instructions))
            self._pump()

    def add_message(self, role: Literal["user", "assistant", "system"], text: str) -> None:
        """Put a text into the conversation."""
        spoken = "text" if self._dialect == "beta" else "output_text"
        kind = spoken if role == "assistant" else "input_text"
        message = events.Message(role, (events.Content(kind, text),))
        if self._phase is _Phase.READY:
            self._outbox.send(events.ItemCreate(self._outbox.next_id(), message))
        elif self._phase is not _Phase.LOST:
            self._setup.keep_message(message)

    def cancel(self) -> None:
        """Stop the running answer and forget those that wait for it."""
        if self._phase is not _Phase.LOST:
            self._answers.cancel()

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cut an item to what was heard, as far as that is less than what came."""
        if self._phase is not _Phase.READY:
            return
        bytes_per_ms = self._setup.output.bytes_per_ms
        end = self._answers.items.truncate(item_id, content_index, audio_end_ms, bytes_per_ms)
        if end is not None and self._server.supports_truncate:
            self._outbox.truncate(item_id, content_index, end)

    def delete(self, item_id: str) -> None:
        """Take an item of which nothing was heard out of the conversation."""
        if self._phase is not _Phase.READY:
            return
        if self._answers.items.delete(item_id) and self._server.supports_delete:
            self._outbox.delete(item_id)

    def set_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Replace the functions that the model may call.

        The same ones again are not sent: each change makes the server's cached prefix useless.
        """
        wanted = tools_config(tools)
        if wanted == self._tools or self._phase is _Phase.LOST:
            return
        self._tools = wanted
        if self._phase is _Phase.READY:
            self._update_tools()
        else:
            self._setup.set_tools(wanted)
            self._late_tools = self._phase is _Phase.CONFIGURING

    def _update_tools(self) -> None:
        session = self._tools if self._dialect == "beta" else {"type": "realtime", **self._tools}
        self._outbox.send(events.SessionUpdate(self._outbox.next_id(), session))

    def tool_result(self, call_id: str, output: str) -> None:
        """Give the model what a function returned; one of another session is dropped."""
        if self._phase is _Phase.READY:
            self._answers.tool_result(call_id, output)

    def lose(self, code: str, message: str, *, retryable: bool) -> None:
        """End the session; the first reason counts."""
        if self._phase is not _Phase.LOST:
            self._phase = _Phase.LOST
            self._setup.discard()
            self._outbox.clear()
            self._events.append(Lost(code, message[:MAX_MESSAGE_CHARS], retryable))

    def close(self) -> None:
        """End the session from our side: nothing is to be told about it."""
        self._phase = _Phase.LOST
        self._setup.discard()
        self._outbox.clear()

    # --- from the server --------------------------------------------------------------------

    def receive(self, event: ServerEvent) -> None:
        """Take one event of the server."""
        if self._phase is _Phase.READY or (
            type(event) in _BEFORE_READY and self._phase is not _Phase.LOST
        ):
            kind = type(event)
            if kind in answers.HANDLERS:
                answers.HANDLERS[kind](self._answers, event)
            else:
                _HANDLERS[kind](self, event)

    def receive_malformed(self, reason: str) -> None:
        """Take notice of a message that was not an event. Only the first is worth a report."""
        self._malformed += 1
        if self._malformed == 1 and self._phase is not _Phase.LOST:
            self._fault("malformed_event", reason, "ignore")

    def _note_expiry(self, session: dict[str, Any]) -> None:
        expires_at = session.get("expires_at")
        if isinstance(expires_at, int | float) and expires_at > 0:  # some send 0 for never
            self._expires_at = expires_at

    def _session_created(self, event: events.SessionCreated) -> None:
        self._note_expiry(event.session)
        if self._phase is _Phase.CONNECTING:
            self._phase = _Phase.CONFIGURING
            self._outbox.send(events.SessionUpdate(self._outbox.next_id(), self._setup.session))

    def _session_updated(self, event: events.SessionUpdated) -> None:
        self._note_expiry(event.session)
        if self._phase is not _Phase.CONFIGURING:
            return
        try:
            audio, messages = self._setup.granted(event.session)
        except UnspeakableFormat as error:
            self.lose("unspeakable_format", str(error), retryable=False)
            return
        self._phase = _Phase.READY
        settings = self._plan.agent.turn_detection
        if isinstance(settings, OwnVad):
            self._turns = OwnTurns(self._setup.input, settings)
        self._events.append(engine.Ready())
        if self._late_tools:
            self._update_tools()
        for message in messages:
            self._outbox.send(events.ItemCreate(self._outbox.next_id(), message))
        if audio:
            self._pass_on(audio)
        self._pump()

    def _speech_started(self, event: events.SpeechStarted) -> None:
        self._answers.turn_owed = False  # the caller goes on; the answer comes after that
        self._events.append(engine.SpeechStarted(event.item_id or "", int(event.audio_start_ms)))

    def _speech_stopped(self, event: events.SpeechStopped) -> None:
        self._answers.turn_owed = self._server_responds
        self._events.append(engine.SpeechStopped(event.item_id or "", int(event.audio_end_ms)))

    def _committed(self, event: events.Committed) -> None:
        self._events.append(engine.Committed(event.item_id))
        if self._asks and self._turns is None:  # own turns ask along with their commit
            self._responses.want(Ask())
            self._pump()

    def _transcription_delta(self, event: events.TranscriptionDelta) -> None:
        if event.delta and event.item_id not in self._transcribed:
            self._events.append(engine.CallerTranscript(event.item_id, event.delta, final=False))

    def _transcription_completed(self, event: events.TranscriptionCompleted) -> None:
        if event.item_id in self._transcribed:
            return
        self._transcribed.add(event.item_id)
        text, usage = event.transcript or "", transcription_usage(event.usage)
        if not text:
            self._answers.turn_owed = False  # it was no speech, which some servers do not answer
        self._events.append(engine.CallerTranscript(event.item_id, text, final=True, usage=usage))

    def _transcription_failed(self, event: events.TranscriptionFailed) -> None:
        body = ErrorBody(message=event.error) if isinstance(event.error, str) else event.error
        self._fault("transcription_failed", body.message if body else None, "ignore")

    def _response_done(self, event: events.ResponseDone) -> None:
        response = event.response
        wanted = self._responses.audible(response.id)
        running = self._responses.done(response.id)
        if running is None:
            return
        self._answers.items.complete_response(response.id)
        details = response.status_details or events.StatusDetails()
        failure = details.error
        body = ErrorBody(message=failure) if isinstance(failure, str) else failure
        status = response.status if response.status in _STATUSES else "completed"
        failed = status == "failed"
        code = errors.code_of(body or ErrorBody()) if failed else None
        if wanted:
            self._answers.calls_in(event)
        self._events.append(
            engine.ResponseDone(
                response.id,
                cast(Literal["completed", "cancelled", "incomplete", "failed"], status),
                code or details.reason,
                response_usage(response.usage),
            )
        )
        if status == "completed":
            self._failures = self._limited = 0
        elif code is not None:
            message = (body.message if body else None) or code
            self._response_failed(code, message, running.ask, wanted=not running.muted)
        self._pump()

    # --- trouble ----------------------------------------------------------------------------

    def _response_failed(self, code: str, message: str, ask: Ask | None, *, wanted: bool) -> None:
        judged = errors.verdict(code)
        if judged is Verdict.TERMINAL:
            self.lose(code, message, retryable=False)
        elif judged is Verdict.RECONNECT:
            self.lose(code, message, retryable=True)
        elif code == errors.SERVER_ERROR:
            self._server_failed(message, ask or Ask(), wanted=wanted)
        elif code == "rate_limit_exceeded":
            # The next answer may fit under the limit again; if it does not, nobody will be
            # answered for the rest of the minute.
            self._limited += 1
            if self._limited > 1:
                self.lose(code, message, retryable=True)
            else:
                self._fault(code, message, "alarm")
        else:
            self._fault(code, message, "alarm")

    def _server_failed(self, message: str, ask: Ask | None, *, wanted: bool) -> None:
        """The same response once more; a second failure in a row costs the session."""
        self._failures += 1
        if self._failures > 1:
            self.lose(errors.SERVER_ERROR, message, retryable=True)
        elif wanted and ask is not None and not ask.cancelled:
            self._fault(errors.SERVER_ERROR, message, "retry")
            self._responses.want_first(ask)
        else:
            self._fault(errors.SERVER_ERROR, message, "alarm")

    def _error(self, event: events.Error) -> None:
        body = event.body
        code, message = errors.code_of(body), body.message or ""
        judged = errors.verdict(code)
        if judged is Verdict.TERMINAL:
            self.lose(code, message, retryable=False)
        elif judged is Verdict.RECONNECT:
            self.lose(code, message, retryable=True)
        elif self._phase is not _Phase.READY:
            self._update_refused(code, body, judged)
        elif code == errors.ACTIVE_RESPONSE:
            self._response_refused(message, self._responses.refused(body.event_id))
        elif code == errors.TRUNCATE_TOO_LONG:
            self._truncate_refused(message, body.event_id)
        elif code == errors.CANCEL_NOT_ACTIVE:
            self._cancel_refused(message, body.event_id)
        elif self._outbox.about_item(body.event_id, body.param, message):
            # Nothing was cut or taken out. That costs the model a little truth, the caller nothing.
            self._fault(code, message, "ignore")
        elif code == errors.SERVER_ERROR:
            ask = self._responses.refused(body.event_id)
            if ask is None and body.event_id:  # an item or a list of tools was not taken
                self._fault(code, message, "alarm")
            else:
                self._server_failed(message, ask, wanted=True)
        else:
            if judged is Verdict.ALARM:  # if it is about a response, that will not be created
                self._responses.refused(body.event_id)
            self._fault(code, message, "ignore" if judged is Verdict.IGNORE else "alarm")
        self._pump()

    def _update_refused(self, code: str, body: ErrorBody, judged: Verdict) -> None:
        """The session stays as it was, so leave out what the server objects to, once a field."""
        message = body.message or code
        if judged is Verdict.IGNORE:
            self._fault(code, message, "ignore")
            return
        connecting = self._phase is _Phase.CONNECTING
        field = None
        if code in errors.PARAMETER_CODES and not connecting:
            field = self._setup.refused(body)
        if field is None:
            passing = judged is Verdict.RETRY or code == "rate_limit_exceeded"
            self.lose(code, message, retryable=passing)
            return
        self._fault(code, f"session.{field} left out: {message}", "alarm")
        self._outbox.send(events.SessionUpdate(self._outbox.next_id(), self._setup.session))

    def _response_refused(self, message: str, ask: Ask | None) -> None:
        """The server is at work on another response; ours waits until that is done."""
        found = _RESPONSE_ID.search(message)
        self._responses.busy_with(found[0] if found else None)
        if ask is None or ask.cancelled:
            self._fault(errors.ACTIVE_RESPONSE, message, "ignore")
            return
        ask.refusals += 1
        if ask.refusals > MAX_REFUSALS:
            self._fault(errors.ACTIVE_RESPONSE, message, "alarm")
            return
        self._fault(errors.ACTIVE_RESPONSE, message, "retry")
        self._responses.want_first(ask)

    def _truncate_refused(self, message: str, event_id: str | None) -> None:
        """Nothing was truncated: once more with the length that the server counts."""
        again = self._outbox.truncate_again(event_id, errors.shorter_ms(message))
        self._fault(errors.TRUNCATE_TOO_LONG, message, "retry" if again else "ignore")

    def _cancel_refused(self, message: str, event_id: str | None) -> None:
        """The response was over before: a race, or its `response.done` got lost.

        The next one need not wait for that. It may still come, and bring the usage.
        """
        self._fault(errors.CANCEL_NOT_ACTIVE, message, "ignore")
        response_id = self._outbox.cancelled(event_id)
        if response_id is not None:
            self._responses.release(response_id)

    def _fault(
        self, code: str, message: str | None, action: Literal["ignore", "retry", "alarm"]
    ) -> None:
        self._events.append(EngineFault(code, (message or "")[:MAX_MESSAGE_CHARS], action))

    # --- to the server ----------------------------------------------------------------------

    def _pump(self) -> None:
        """Ask for the next response if the last one is over."""
        if self._phase is not _Phase.READY:
            return
        ask = self._responses.next_to_send()
        if ask is not None:
            self._responses.sent(self._outbox.create(ask.instructions), ask)

    def _pass_on(self, payload: bytes) -> None:
        if self._turns is None:
            if self._append_ms > FRAME_MS:  # else as it comes, whatever the carrier's frames are
                self._held += payload
                if len(self._held) < self._append_ms * self._setup.input.bytes_per_ms:
                    return
                payload = bytes(self._held)
                self._held.clear()
            self._outbox.send(events.Append(payload))
            return
        for part in self._turns.feed(payload):
            if isinstance(part, bytes):
                self._append_to_turn(part)
            elif isinstance(part, VadStarted):
                self._events.append(engine.SpeechStarted("", part.at_ms))
                if self._plan.agent.barge_in == "immediate":
                    self.cancel()
            else:
                self._events.append(engine.SpeechStopped("", part.at_ms))
                self._commit_turn()

    def _append_to_turn(self, payload: bytes) -> None:
        self._uncommitted += len(payload)
        self._outbox.send(events.Append(payload))

    def _commit_turn(self) -> None:
        shortest = MIN_COMMIT_MS * self._setup.input.bytes_per_ms
        if self._uncommitted < shortest:  # silence ended the turn, so silence may complete it
            self._append_to_turn(self._setup.input.silence(MIN_COMMIT_MS))
        self._outbox.send(events.Commit(self._outbox.next_id()))
        self._uncommitted = 0
        if self._asks:
            self._responses.want(Ask())
            self._pump()


_M = RealtimeMachine
_BEFORE_READY: Final = frozenset({events.SessionCreated, events.SessionUpdated, events.Error})
_HANDLERS: Final[dict[type[ServerEvent], Callable[[RealtimeMachine, Any], None]]] = {
    events.SessionCreated: _M._session_created,
    events.SessionUpdated: _M._session_updated,
    events.SpeechStarted: _M._speech_started,
    events.SpeechStopped: _M._speech_stopped,
    events.Committed: _M._committed,
    events.TranscriptionDelta: _M._transcription_delta,
    events.TranscriptionCompleted: _M._transcription_completed,
    events.TranscriptionFailed: _M._transcription_failed,
    events.ResponseDone: _M._response_done,
    events.Error: _M._error,
}
