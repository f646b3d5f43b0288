"""The events of answers: which of them are for the call, and what it is told of them. Sans-I/O.

Audio and words of an answer that was cancelled, cut or begun beside the conversation are not
delivered, whenever they come; but for the words of audio that was. Items that a clone does not name
are told apart by their answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, final

from voiced import engine
from voiced.engine import EngineEvent, ToolCall
from voiced.realtime import events
from voiced.realtime.calls import NOT_RUN, Calls, output_items
from voiced.realtime.dialect import ALIASES
from voiced.realtime.events import ServerEvent
from voiced.realtime.items import Items
from voiced.realtime.outbox import Outbox
from voiced.realtime.responses import Responses
from voiced.realtime.servers import Server
from voiced.realtime.unnamed import UNNAMED

__all__ = ["HANDLERS", "Answers"]


def _name(item_id: str, response_id: str) -> str:
    return item_id or f"{UNNAMED}{response_id}"


@final
class Answers:
    """The answers of one session; appends to `told` what the call is to know.

    `turn_owed`: the server has found a turn, and will answer it by itself.
    """

    def __init__(self, server: Server, outbox: Outbox, told: list[EngineEvent]) -> None:
        self._server = server
        self._outbox = outbox
        self._events = told
        self.responses = Responses()
        self.items = Items()
        self.calls = Calls()
        self.turn_owed = False

    def _response_created(self, event: events.ResponseCreated) -> None:
        response = event.response
        if response.conversation_id is None and self._server.names_conversations:
            self.responses.elsewhere(response.id)
            return
        self._begin(response.id)

    def _begin(self, response_id: str) -> None:
        self.turn_owed = False
        running = self.responses.created(response_id)
        if running is None:
            return
        if running.muted:
            self._send_cancel(response_id)
        else:
            self._events.append(engine.ResponseStarted(response_id))

    def _audible(self, response_id: str, item_id: str) -> bool:
        if self.items.gone(item_id):
            return False
        if not self.responses.audible(response_id) and self.responses.adoptable(response_id):
            self._begin(response_id)
        return self.responses.audible(response_id)

    def _in_words(self, response_id: str, item_id: str) -> bool:
        """Words may come after their audio, and after a cut: the call knows what was heard."""
        return self.items.sounded(item_id) or self._audible(response_id, item_id)

    def _audio_delta(self, event: events.OutputAudioDelta) -> None:
        response_id, index = event.response_id, event.content_index
        item_id = _name(event.item_id, response_id)
        if event.delta and self._audible(response_id, item_id):
            self.items.received(response_id, item_id, index, len(event.delta))
            self._events.append(engine.AgentAudio(response_id, item_id, index, event.delta))

    def _audio_done(self, event: events.OutputAudioDone) -> None:
        item_id = _name(event.item_id, event.response_id)
        self.items.complete(item_id)
        if self.responses.audible(event.response_id) and not self.items.gone(item_id):
            self._events.append(engine.AgentAudioDone(event.response_id, item_id))

    def _transcript_delta(self, event: events.OutputAudioTranscriptDelta) -> None:
        item_id = _name(event.item_id, event.response_id)
        if event.delta and self._in_words(event.response_id, item_id):
            self._events.append(engine.AgentTranscript(item_id, event.delta, final=False))

    def _transcript_done(self, event: events.OutputAudioTranscriptDone) -> None:
        text, item_id = event.transcript, _name(event.item_id, event.response_id)
        if text is not None and self._in_words(event.response_id, item_id):
            self._events.append(engine.AgentTranscript(item_id, text, final=True))

    def _item_added(self, event: events.OutputItemAdded) -> None:
        if event.item.type == "function_call" and self._audible(event.response_id, ""):
            self.calls.added(event.item)

    def _arguments_done(self, event: events.ArgumentsDone) -> None:
        if self._audible(event.response_id, ""):
            self._tell_call(
                self.calls.arguments(event.item_id, event.call_id, event.name, event.arguments)
            )

    def _item_done(self, event: events.OutputItemDone) -> None:
        if event.item.type != "function_call":
            return
        if self._audible(event.response_id, ""):
            self._tell_call(self.calls.done(event.item, event.item.status))
        elif self.responses.muted(event.response_id):
            self._disown(self.calls.done(event.item, event.item.status))

    def _tell_call(self, call: ToolCall | None) -> None:
        if call is not None:
            self._events.append(call)

    def _disown(self, call: ToolCall | None) -> None:
        """Nobody runs it any more, and a call without a result would puzzle the model."""
        if call is not None:
            self.tool_result(call.call_id, NOT_RUN)

    def calls_in(self, event: events.ResponseDone) -> None:
        """Tell the calls that no event before the last one has brought whole."""
        for item in output_items(event.response.output):
            self._tell_call(self.calls.done(item, item.status or event.response.status))

    # --- to the server ----------------------------------------------------------------------

    def cancel(self, told: float = math.inf) -> None:
        """Stop the running answer and forget those that wait for it.

        But for those to turns later than the turn `told`.
        """
        for response_id in self.responses.cancel(told):
            self._send_cancel(response_id)

    def _send_cancel(self, response_id: str) -> None:
        if self._server.supports_cancel:
            self._outbox.cancel(response_id)

    def tool_result(self, call_id: str, output: str) -> None:
        """Give the model what a function returned; one of another session is dropped."""
        if self.calls.answered(call_id):
            item = events.FunctionCallOutput(call_id, output)
            self._outbox.send(events.ItemCreate(self._outbox.next_id(), item))


_A = Answers
HANDLERS: Final[dict[type[ServerEvent], Callable[[Answers, Any], None]]] = {
    events.ResponseCreated: _A._response_created,
    events.OutputAudioDelta: _A._audio_delta,
    events.OutputAudioDone: _A._audio_done,
    events.OutputAudioTranscriptDelta: _A._transcript_delta,
    events.OutputAudioTranscriptDone: _A._transcript_done,
    events.OutputItemAdded: _A._item_added,
    events.OutputItemDone: _A._item_done,
    events.ArgumentsDone: _A._arguments_done,
}
"""What takes each event; those of the session itself are taken by `session`."""

HANDLERS.update({alias: HANDLERS[known] for alias, known in ALIASES.items()})
