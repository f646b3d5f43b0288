"""One Realtime session as a state machine. Sans-I/O; `client` moves the bytes.

Server events and commands in, engine events and client messages out.
Source: OpenAI's Realtime API reference and conversation guide. Audio goes out only once
`session.updated` has come: until then the server takes it for 24 kHz PCM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, Literal, cast, final

from voiced import engine
from voiced.config.types import RealtimeEngine
from voiced.engine import DEAF, EngineEvent, Lost, Plan, ToolSpec
from voiced.formats import AudioFormat
from voiced.realtime import answers, caller, errors, events
from voiced.realtime.answers import Answers
from voiced.realtime.caller import Caller
from voiced.realtime.dialect import UnspeakableFormat
from voiced.realtime.errors import MAX_MESSAGE_CHARS, Verdict, fault
from voiced.realtime.events import ErrorBody, ServerEvent
from voiced.realtime.outbox import Outbox
from voiced.realtime.responses import Ask
from voiced.realtime.servers import SERVERS
from voiced.realtime.setup import Setup
from voiced.realtime.trouble import Trouble
from voiced.realtime.unnamed import named
from voiced.realtime.update import tools_config
from voiced.realtime.usage import response_usage

__all__ = ["RealtimeMachine"]


class _Phase(Enum):
    CONNECTING = "connecting"  # nothing heard from the server
    CONFIGURING = "configuring"  # `session.update` sent
    READY = "ready"
    LOST = "lost"


LATEST: Final = 1e11
"""Unix time, some 3,000 years from now."""

_STATUSES: Final = {"completed", "cancelled", "incomplete", "failed"}


@final
class RealtimeMachine:
    """Feed it `receive` and the commands; collect `take_events` and `take_messages`."""

    def __init__(self, plan: Plan, config: RealtimeEngine) -> None:
        self._plan = plan
        self._server = SERVERS[config.server]
        self._dialect = self._server.dialect(config.dialect)
        self._phase = _Phase.CONNECTING
        self._setup = Setup(plan, config)
        self._tools = tools_config(plan.tools)
        self._late_tools = False  # set while the server was at work on the first `session.update`
        self._expires_at: float | None = None
        self._outbox = Outbox()
        self._malformed = 0
        self._events: list[EngineEvent] = []
        self._answers = Answers(self._server, self._outbox, self._events)
        self._responses = self._answers.responses
        self._caller = Caller(plan, config, self._outbox, self._answers, self._events, self._answer)
        self._handed = 0  # the last turn of our own finding among the events that were taken
        self._told = 0  # and among those that the call has acted on
        self._trouble = Trouble(self._outbox, self._responses, self._events, self.lose)

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
        self._handed = self._caller.own_turns
        return taken

    def acted(self) -> None:
        """The call has acted on all that was taken: what it cancels from now on it knew of."""
        self._told = self._handed

    def take_messages(self) -> list[bytes]:
        """Hand over the text messages to be sent, in their order."""
        return self._outbox.take()

    # --- commands ---------------------------------------------------------------------------

    def send_audio(self, payload: bytes) -> None:
        """The caller's audio in `input_format`."""
        if self._phase is _Phase.READY:
            self._caller.send(payload)
            attention = self._caller.attention
            if attention is not None and attention.deaf(payload):
                self.lose(DEAF, "the caller speaks, and the server tells nothing", retryable=True)
        elif self._phase is not _Phase.LOST:
            self._setup.keep_audio(payload)

    def respond(self, instructions: str | None = None) -> None:
        """Ask for an answer, after the running one if there is one."""
        if self._phase is not _Phase.LOST:
            self._responses.want(Ask(instructions))
            self._pump()

    def _answer(self, turn: int) -> None:
        if self._phase is not _Phase.LOST:
            self._responses.want(Ask(turn=turn))
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
        """Stop the running answer and forget those that wait for it.

        Not the answer to a turn of our own finding that the call has not heard of: in a stall a
        whole turn comes at once, and what its beginning interrupts was before it.
        """
        if self._phase is not _Phase.LOST:
            self._answers.cancel(self._told)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cut an item to what was heard, as far as that is less than what came."""
        if self._phase is not _Phase.READY:
            return
        bytes_per_ms = self._setup.output.bytes_per_ms
        end = self._answers.items.truncate(item_id, content_index, audio_end_ms, bytes_per_ms)
        if end is not None and self._server.supports_truncate and named(item_id):
            self._outbox.truncate(item_id, content_index, end)

    def delete(self, item_id: str) -> None:
        """Take an item of which nothing was heard out of the conversation."""
        if self._phase is not _Phase.READY or not item_id:
            return  # what has no name at all is not what else has none
        fresh = self._answers.items.delete(item_id)
        if fresh and self._server.supports_delete and named(item_id):
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
            if (attention := self._caller.attention) is not None:
                attention.sign()
                if isinstance(event, events.OutputAudioDelta):
                    attention.sounds(len(event.delta) / self._setup.output.bytes_per_ms)
            if kind in answers.HANDLERS:
                answers.HANDLERS[kind](self._answers, event)
            elif kind in caller.HANDLERS:
                caller.HANDLERS[kind](self._caller, event)
            else:
                _HANDLERS[kind](self, event)

    def receive_malformed(self, reason: str) -> None:
        """Take notice of a message that was not an event. Only the first is worth a report."""
        self._malformed += 1
        if self._malformed == 1 and self._phase is not _Phase.LOST:
            self._events.append(fault("malformed_event", reason, "ignore"))

    def _note_expiry(self, session: dict[str, Any]) -> None:
        expires_at = session.get("expires_at")
        # Some send 0 for never. What no clock shows is a mistake; no float may hold it.
        if isinstance(expires_at, int | float) and 0 < expires_at < LATEST:
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
        self._caller.granted(self._setup.input)
        self._events.append(engine.Ready())
        if self._late_tools:
            self._update_tools()
        for message in messages:
            self._outbox.send(events.ItemCreate(self._outbox.next_id(), message))
        if audio:
            self._caller.send(audio)
        self._pump()

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
            self._trouble.over()
        elif code is not None:
            message = (body.message if body else None) or code
            self._trouble.response_failed(code, message, running.ask, wanted=not running.muted)
        self._pump()

    # --- trouble ----------------------------------------------------------------------------

    def _error(self, event: events.Error) -> None:
        body = event.body
        code = errors.code_of(body)
        if self._trouble.ends(code, body.message or ""):
            return
        if self._phase is _Phase.READY:
            self._trouble.error(code, body)
        else:
            self._update_refused(code, body, errors.verdict(code))
        self._pump()

    def _update_refused(self, code: str, body: ErrorBody, judged: Verdict) -> None:
        """The session stays as it was, so leave out what the server objects to, once a field."""
        message = body.message or code
        if judged is Verdict.IGNORE:
            self._events.append(fault(code, message, "ignore"))
            return
        connecting = self._phase is _Phase.CONNECTING
        field = None
        if code in errors.PARAMETER_CODES and not connecting:
            field = self._setup.refused(body)
        if field is None:
            passing = judged is Verdict.RETRY or code == "rate_limit_exceeded"
            self.lose(code, message, retryable=passing)
            return
        self._events.append(fault(code, f"session.{field} left out: {message}", "alarm"))
        self._outbox.send(events.SessionUpdate(self._outbox.next_id(), self._setup.session))

    # --- to the server ----------------------------------------------------------------------

    def _pump(self) -> None:
        """Ask for the next response if the last one is over."""
        if self._phase is not _Phase.READY:
            return
        ask = self._responses.next_to_send()
        if ask is not None:
            self._responses.sent(self._outbox.create(ask.instructions), ask)


_M = RealtimeMachine
_BEFORE_READY: Final = frozenset({events.SessionCreated, events.SessionUpdated, events.Error})
_HANDLERS: Final[dict[type[ServerEvent], Callable[[RealtimeMachine, Any], None]]] = {
    events.SessionCreated: _M._session_created,
    events.SessionUpdated: _M._session_updated,
    events.ResponseDone: _M._response_done,
    events.Error: _M._error,
}
