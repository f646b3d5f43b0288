"""The server's half of one Realtime session: client events in, server events out. No I/O.

What takes time is left to the owner: it takes `due()` responses and feeds them with words, and it
takes `heard()` items and tells what was said in them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import msgspec

from voiced.emulator.answers import language_of, pieces
from voiced.emulator.errors import Refused, invalid_value, unknown_item
from voiced.emulator.hearing import InputBuffer, decode_audio
from voiced.emulator.items import Conversation, Item, Tokens, already_shorter, text_tokens
from voiced.emulator.options import Faults
from voiced.emulator.response import Response, Settings
from voiced.emulator.session import merged
from voiced.emulator.shapes import CLIENT_EVENTS, audio_format, default_session
from voiced.vad import VadStarted

__all__ = ["Dialogue"]

SIDE_RESPONSES: Final = 8  # responses outside the conversation at one time; each is a task

_json = msgspec.json.Encoder()


class Dialogue:
    """One session. `outbox` holds encoded server events until the owner has sent them."""

    def __init__(self, *, model: str, session_id: str, expires_at: int, faults: Faults) -> None:
        self.faults = faults
        self.session = default_session(session_id, model, expires_at)
        self.outbox: list[bytes] = []
        self.conversation = Conversation()
        self.active: Response | None = None
        self.buffer = InputBuffer()
        self.errors = 0
        self._ids = itertools.count(1)
        self._tag = session_id.removeprefix("sess_")
        self._side: list[Response] = []
        self._due: list[Response] = []
        self._heard: list[Item] = []
        self._responses = 0
        self._spoken = False  # the voice is fixed by the first audio
        self._cached = Tokens()
        self._cached_for: object = None  # the instructions and tools that the cache is good for
        self._turn_item: str | None = None  # the id promised by speech_started
        self._turn_start_ms = 0
        self._configure_hearing()

    # -- to the client -----------------------------------------------------------------------

    def emit(self, kind: str, **fields: Any) -> None:
        """Queue a server event; encoded at once, what it shows may change later."""
        self.outbox.append(_json.encode({"type": kind, "event_id": self.new_id("event"), **fields}))

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

    def due(self) -> list[Response]:
        """Return the responses that have been asked for since the last call."""
        due, self._due = self._due, []
        return due

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
        if self.buffer.speaking or self.active is not None:
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

    def released(self, response: Response) -> None:
        """Tell that a response has ended, by itself or not: the next may begin."""
        if response is self.active:
            self.active = None
        elif response in self._side:
            self._side.remove(response)
        self._spoken = self._spoken or response.audio_ms_sent > 0
        if not response.settings.detached and response.begun:
            self._cached = response.input_tokens()

    # -- from the client -----------------------------------------------------------------------

    def receive(self, message: str | bytes) -> None:
        """Take one client event. What is wrong with it becomes an `error` event, never more."""
        event_id: str | None = None
        try:
            event = self._decode(message)
            given = event.get("event_id")
            event_id = given[:512] if isinstance(given, str) else None
            CLIENT_EVENTS.check(event, "")
            _HANDLERS[event["type"]](self, event)
        except Refused as refused:
            self.refuse(refused, event_id)

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
        session = merged(self.session, event["session"], voice_fixed=self._spoken)
        if session["instructions"] != self.session["instructions"]:
            self._cached = Tokens()
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
        for noticed in self.buffer.append(decode_audio(event["audio"], "audio")):
            if isinstance(noticed, VadStarted):
                self._turn_item = self.new_id("item")
                self._turn_start_ms = noticed.at_ms
                self.emit(
                    "input_audio_buffer.speech_started",
                    audio_start_ms=noticed.at_ms,
                    item_id=self._turn_item,
                )
                if self.active is not None and self._turn_detection.get("interrupt_response"):
                    self._cancel(self.active, "turn_detected")
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
        detached = given.get("conversation") == "none"
        if not detached and self.active is not None:
            raise Refused(
                "conversation_already_has_active_response",
                "Conversation already has an active response in progress: "
                f"{self.active.id}. Wait until the response is finished before creating a new one.",
            )
        if detached and len(self._side) >= SIDE_RESPONSES:
            raise Refused("rate_limit_exceeded", "Too many responses at a time.", kind="requests")
        settings = self._settings(given, detached=detached)
        if self.faults.silent:
            return
        key = (settings.instructions or settings.session_instructions, str(settings.tools))
        if key != self._cached_for or self.conversation.changed:
            self._cached = Tokens()
        self._cached_for, self.conversation.changed = key, False
        self._responses += 1
        response = Response(
            id=self.new_id("resp"),
            number=self._responses,
            settings=settings,
            conversation=self.conversation,
            faults=self.faults,
            emit=self.emit,
            new_id=self.new_id,
            cached=Tokens() if detached else self._cached,
        )
        if detached:
            self._side.append(response)
        else:
            self.active = response
        self._due.append(response)

    def _settings(self, given: dict[str, Any], *, detached: bool) -> Settings:
        own, session = given.get("audio", {}).get("output", {}), self.session
        output = session["audio"]["output"]
        transcription = session["audio"]["input"]["transcription"] or {}
        modalities = given.get("output_modalities") or session["output_modalities"]
        return Settings(
            modality=modalities[0],
            instructions=given.get("instructions"),
            session_instructions=session["instructions"],
            format=own.get("format", output["format"]),
            voice=own.get("voice", output["voice"]),
            max_output_tokens=given.get("max_output_tokens", session["max_output_tokens"]),
            metadata=given.get("metadata"),
            tools=given.get("tools", session["tools"]),
            tool_choice=given.get("tool_choice", session["tool_choice"]),
            language=_language(transcription, session["instructions"]),
            detached=detached,
            context=self._own_context(given["input"]) if "input" in given else None,
        )

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
        wanted = event.get("response_id")
        running = [r for r in (self.active, *self._side) if r is not None and r.begun]
        if wanted is None:
            running = [r for r in running if r is self.active]
        else:
            running = [r for r in running if r.id == wanted]
        if not running:
            raise Refused(
                "response_cancel_not_active", "Cancellation failed: no active response found"
            )
        self._cancel(running[0], "client_cancelled")

    def _cancel(self, response: Response, reason: str) -> None:
        response.finish("cancelled", reason)
        self.released(response)


def _language(transcription: dict[str, Any], instructions: str) -> str:
    """What the session says, else what its instructions are written in."""
    named = transcription.get("languages") or [transcription.get("language")]
    return named[0] or language_of(instructions, "en")


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
