"""The server's half of one Realtime session: client events in, server events out. No I/O.

What takes time is left to the owner: it takes `responses.due()` and feeds them with words, and it
takes `heard()` items and tells what was said in them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import msgspec

from voiced.emulator import beta
from voiced.emulator.answers import pieces
from voiced.emulator.errors import Refused, invalid_value, unknown_item
from voiced.emulator.hearing import InputBuffer, decode_audio
from voiced.emulator.items import Conversation, Item, already_shorter, text_tokens
from voiced.emulator.options import Faults
from voiced.emulator.ordering import Ordering
from voiced.emulator.responses import Responses, settings_of
from voiced.emulator.session import merged
from voiced.emulator.shapes import CLIENT_EVENTS, audio_format, default_session
from voiced.vad import VadStarted

__all__ = ["Dialogue"]

_json = msgspec.json.Encoder()


class Dialogue:
    """One session. `outbox` holds encoded server events until the owner has sent them."""

    def __init__(self, *, model: str, session_id: str, expires_at: int, faults: Faults) -> None:
        self.faults = faults
        self.session = default_session(session_id, model, expires_at)
        self.outbox: list[bytes] = []
        self.conversation = Conversation()
        self.responses = Responses(faults, self.conversation, self.emit, self.new_id)
        self.buffer = InputBuffer()
        self.deaf = False
        """The caller's audio counts as silence from now on."""
        self.errors = 0
        self._beta = faults.dialect == "beta"
        self._ordering = Ordering(faults.order)
        self._ids = itertools.count(1)
        self._tag = session_id.removeprefix("sess_")
        self._heard: list[Item] = []
        self._turn_item: str | None = None  # the id promised by speech_started
        self._turn_start_ms = 0
        self._configure_hearing()

    # -- to the client -----------------------------------------------------------------------

    def emit(self, kind: str, **fields: Any) -> None:
        """Queue a server event; encoded at once, what it shows may change later."""
        event = {"type": kind, "event_id": self.new_id("event"), **fields}
        told = beta.from_ga(event) if self._beta else event
        if told is not None:
            self.outbox += self._ordering.take(kind, _json.encode(told))

    def new_id(self, kind: str) -> str:
        """Return an id that is used once."""
        return f"{kind}_{self._tag}{next(self._ids):06d}"

    def refuse(self, refused: Refused, event_id: str | None = None) -> None:
        """Send an error event."""
        self.errors += 1
        self.emit("error", error=refused.body(event_id))

    def greet(self) -> None:
        """Send session.created: the server speaks first."""
        self.emit("session.created", session=self.session)

    # -- what the owner has to do ----------------------------------------------------------------

    def heard(self) -> list[Item]:
        """Return the callers' items that have been committed since the last call."""
        heard, self._heard = self._heard, []
        return heard

    def transcribed(self, item: Item, transcript: str | None) -> None:
        """Send the transcript of a caller's item; None: it could not be made out.

        A no-op where the session does not ask for transcripts.
        """
        if self.session["audio"]["input"]["transcription"] is None:
            return
        prefix = "conversation.item.input_audio_transcription"
        place = {"item_id": item.id, "content_index": 0}
        if transcript is None:
            error = {
                "type": "transcription_error",
                "code": "audio_unintelligible",
                "message": "The audio could not be transcribed.",
                "param": None,
            }
            self.emit(f"{prefix}.failed", **place, error=error)
            return
        for piece in pieces(transcript):
            self.emit(f"{prefix}.delta", **place, delta=piece)
        item.body["content"][0]["transcript"] = transcript
        audio_in, text_out = item.tokens().audio, text_tokens(transcript)
        usage = {
            "type": "tokens",
            "total_tokens": audio_in + text_out,
            "input_tokens": audio_in,
            "input_token_details": {"text_tokens": 0, "audio_tokens": audio_in},
            "output_tokens": text_out,
        }
        self.emit(f"{prefix}.completed", **place, transcript=transcript, usage=usage)

    def caller_silent(self) -> None:
        """Turn detection's idle timeout: commit the silence and answer it."""
        if self.buffer.speaking or self.responses.active is not None:
            return
        item_id = self.new_id("item")
        end_ms = self.buffer.end_ms
        data, start_ms = self.buffer.take_recent()
        self.emit(
            "input_audio_buffer.timeout_triggered",
            audio_start_ms=start_ms,
            audio_end_ms=end_ms,
            item_id=item_id,
        )
        self._commit(item_id, data, speech=False)
        self._respond_to_turn()

    # -- from the client -----------------------------------------------------------------------

    def receive(self, message: str | bytes) -> None:
        """Take one client event. What is wrong with it becomes an `error` event, never more."""
        event_id: str | None = None
        try:
            event = self._decode(message)
            given = event.get("event_id")
            event_id = given[:512] if isinstance(given, str) else None
            shapes = beta.CLIENT_EVENTS if self._beta else CLIENT_EVENTS
            shapes.check(event, "")
            self._handle(event)
        except Refused as refused:
            self.refuse(refused, event_id)

    def _handle(self, event: dict[str, Any]) -> None:
        handler = _HANDLERS[event["type"]]
        if not self._beta:
            handler(self, event)
            return
        try:
            handler(self, beta.to_ga(event))
        except Refused as refused:
            raise beta.refused(refused) from None

    def _decode(self, message: str | bytes) -> dict[str, Any]:
        try:
            event = msgspec.json.decode(message)
        except (msgspec.DecodeError, RecursionError):
            raise Refused("invalid_event", "The event is not valid JSON.") from None
        if not isinstance(event, dict):
            raise Refused("invalid_event", "An event is a JSON object with a 'type'.")
        return event

    def _session_update(self, event: dict[str, Any]) -> None:
        if self.faults.reject_update:
            param = self.faults.reject_update
            raise Refused("unknown_parameter", f"Unknown parameter: '{param}'.", param)
        session = merged(self.session, event["session"], voice_fixed=self.responses.voice_fixed)
        if session["instructions"] != self.session["instructions"]:
            self.responses.instructed_anew()
        self.session = session
        self._configure_hearing()
        self.emit("session.updated", session=session)

    def _configure_hearing(self) -> None:
        given = self.session["audio"]["input"]
        self.buffer.set_format(audio_format(given["format"]))
        self.buffer.set_turn_detection(given["turn_detection"])
        if not self.buffer.speaking:  # a turn that the change has cut off is not announced again
            self._turn_item = None

    @property
    def _turn_detection(self) -> dict[str, Any]:
        return self.session["audio"]["input"]["turn_detection"] or {}

    def _append(self, event: dict[str, Any]) -> None:
        data = decode_audio(event["audio"], "audio")
        if self.deaf:
            form = self.buffer.format
            data = form.silence(len(data) // form.bytes_per_ms)
        for noticed in self.buffer.append(data):
            if isinstance(noticed, VadStarted):
                self._turn_item = self.new_id("item")
                self._turn_start_ms = noticed.at_ms
                self.emit(
                    "input_audio_buffer.speech_started",
                    audio_start_ms=noticed.at_ms,
                    item_id=self._turn_item,
                )
                if self._turn_detection.get("interrupt_response"):
                    self.responses.interrupt()
            elif self._turn_item is not None:
                item_id, self._turn_item = self._turn_item, None
                self.emit(
                    "input_audio_buffer.speech_stopped",
                    audio_end_ms=noticed.at_ms,
                    item_id=item_id,
                )
                self._commit(item_id, self.buffer.take(self._turn_start_ms, noticed.at_ms))
                if self._turn_detection.get("create_response"):
                    self._respond_to_turn()

    def _commit_buffer(self, event: dict[str, Any]) -> None:
        data = self.buffer.commit()
        item_id, self._turn_item = self._turn_item or self.new_id("item"), None
        self._commit(item_id, data)

    def _commit(self, item_id: str, data: bytes, *, speech: bool = True) -> None:
        body = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        item = Item(body, bytearray(data), format=self.buffer.format, heard_speech=speech)
        item.audio_ms = len(data) // self.buffer.format.bytes_per_ms
        self.emit(
            "input_audio_buffer.committed",
            previous_item_id=self.conversation.last_id,
            item_id=item_id,
        )
        self._heard.append(item)
        self._add(item)

    def _add(self, item: Item, after: str | None = None) -> None:
        previous = self.conversation.add(item, after)
        for what in ("added", "done"):
            self.emit(f"conversation.item.{what}", previous_item_id=previous, item=item.body)

    def _clear_buffer(self, event: dict[str, Any]) -> None:
        self._turn_item = None
        self.buffer.clear()
        self.emit("input_audio_buffer.cleared")

    def _create_item(self, event: dict[str, Any]) -> None:
        given = event["item"]
        if given["type"] == "item_reference":
            raise invalid_value("Only a response's input may hold item references.", "item.type")
        item = self._item_of(given, "item")
        self._add(item, event.get("previous_item_id"))
        if item.heard_speech:
            self._heard.append(item)

    def _item_of(self, given: dict[str, Any], path: str) -> Item:
        """Make an item of a checked client item; audio goes out of the body into the item."""
        if given["type"] == "function_call_output" and not any(
            item.body.get("call_id") == given["call_id"] and item.body["type"] == "function_call"
            for item in self.conversation
        ):
            raise Refused(
                "item_create_invalid_call_id",
                f"Tool call ID '{given['call_id']}' not found in conversation.",
                f"{path}.call_id",
            )
        body = {"id": self.new_id("item"), **given, "object": "realtime.item"}
        body["status"] = "completed"
        item = Item(body)
        side = "output" if given.get("role") == "assistant" else "input"
        item.format = audio_format(self.session["audio"][side]["format"])
        if "content" in given:
            body["content"] = [dict(part) for part in given["content"]]
            for index, part in enumerate(body["content"]):
                encoded = part.pop("audio", None)
                if encoded is not None:
                    item.audio += decode_audio(encoded, f"{path}.content[{index}].audio")
        item.audio_ms = len(item.audio) // item.format.bytes_per_ms
        item.heard_speech = item.role == "user" and item.audio_ms > 0
        return item

    def _retrieve_item(self, event: dict[str, Any]) -> None:
        item = self.conversation.get(event["item_id"], "retrieve")
        self.emit("conversation.item.retrieved", item=item.with_audio())

    def _delete_item(self, event: dict[str, Any]) -> None:
        self.conversation.delete(event["item_id"])
        self.emit("conversation.item.deleted", item_id=event["item_id"])

    def _truncate_item(self, event: dict[str, Any]) -> None:
        item_id, end_ms = event["item_id"], event["audio_end_ms"]
        if self.faults.reject_truncate:
            raise already_shorter(max(0, end_ms - 60), end_ms)
        self.conversation.truncate(item_id, event["content_index"], end_ms)
        self.emit(
            "conversation.item.truncated",
            item_id=item_id,
            content_index=event["content_index"],
            audio_end_ms=end_ms,
        )

    # -- responses -----------------------------------------------------------------------------

    def _create_response(self, event: dict[str, Any]) -> None:
        self._respond(event.get("response") or {})

    def _respond_to_turn(self) -> None:
        try:
            self._respond({})
        except Refused as refused:  # nobody asked: the error names no event of the client's
            self.refuse(refused)

    def _respond(self, given: dict[str, Any]) -> None:
        self.responses.check(detached=given.get("conversation") == "none")
        context = self._own_context(given["input"]) if "input" in given else None
        self.responses.begin(settings_of(given, self.session, context))

    def _own_context(self, given: list[dict[str, Any]]) -> list[Item]:
        items = []
        for index, entry in enumerate(given):
            if entry["type"] == "item_reference":
                found = self.conversation.find(entry["id"])
                if found is None:
                    raise unknown_item("retrieve", entry["id"])
                items.append(found)
            else:
                items.append(self._item_of(entry, f"response.input[{index}]"))
        return items

    def _cancel_response(self, event: dict[str, Any]) -> None:
        self.responses.cancel(event.get("response_id"))


_HANDLERS: Final[dict[str, Callable[[Dialogue, dict[str, Any]], None]]] = {
    "session.update": Dialogue._session_update,
    "input_audio_buffer.append": Dialogue._append,
    "input_audio_buffer.commit": Dialogue._commit_buffer,
    "input_audio_buffer.clear": Dialogue._clear_buffer,
    "conversation.item.create": Dialogue._create_item,
    "conversation.item.retrieve": Dialogue._retrieve_item,
    "conversation.item.delete": Dialogue._delete_item,
    "conversation.item.truncate": Dialogue._truncate_item,
    "response.create": Dialogue._create_response,
    "response.cancel": Dialogue._cancel_response,
}
