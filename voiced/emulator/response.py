"""One response: writes its events in the order of a real server, whatever becomes of it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from voiced.emulator.items import (
    ASSISTANT_MS_PER_TOKEN,
    AUDIO_BYTES,
    Conversation,
    Item,
    Tokens,
    text_tokens,
)
from voiced.emulator.options import Faults
from voiced.emulator.shapes import audio_format
from voiced.formats import AudioFormat

__all__ = ["Response", "Settings", "Status"]

Status = Literal["completed", "cancelled", "incomplete", "failed"]
Emit = Callable[..., None]
CACHE_STEP: Final = 64  # cached input tokens come in multiples of it


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for one response: the session's settings with the client's own on top."""

    modality: Literal["audio", "text"]
    instructions: str | None  # the response's own; None: the session's
    session_instructions: str
    format: dict[str, Any]
    voice: Any
    max_output_tokens: int | Literal["inf"]
    metadata: dict[str, str] | None
    tools: list[dict[str, Any]]
    tool_choice: Any
    language: str
    detached: bool  # conversation "none"
    context: list[Item] | None = None  # the response's own input; None: the conversation


@dataclass(slots=True)
class Response:
    """A response in the making. Every method is a no-op once it is `done`."""

    id: str
    number: int  # from 1, of the session
    settings: Settings
    conversation: Conversation
    faults: Faults
    emit: Emit
    new_id: Callable[[str], str]
    cached: Tokens  # input of the response before, as far as it is still a prefix
    begun: bool = False
    done: bool = False
    audio_ms_sent: int = 0
    _output: list[Item] = field(default_factory=list)
    _open: Item | None = None
    _half_call: Item | None = None  # its arguments stop half-way
    _all_said: bool = False  # the transcript is complete before the audio is
    _spoken: str = ""  # transcript so far, or text
    _bytes: int = 0
    _text_out: int = 0
    _last_delta: bytes = b""

    @property
    def format(self) -> AudioFormat:
        """Of its audio."""
        return audio_format(self.settings.format)

    @property
    def item(self) -> Item | None:
        """The message that is being written."""
        return self._open

    def context(self) -> list[Item]:
        """Return what the answer is an answer to."""
        own = self.settings.context
        return [i for i in self.conversation if i.sealed] if own is None else own

    def _shape(
        self, status: str, details: dict[str, Any] | None, usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        output: dict[str, Any] = {"format": self.settings.format, "voice": self.settings.voice}
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": [item.body for item in self._output],
            "conversation_id": None if self.settings.detached else "conv_1",
            "output_modalities": [self.settings.modality],
            "max_output_tokens": self.settings.max_output_tokens,
            "audio": {"output": output},
            "usage": usage,
            "metadata": self.settings.metadata,
        }

    def begin(self) -> None:
        """Send response.created, and the rate limits."""
        if self.begun or self.done:
            return
        self.begun = True
        self.emit("response.created", response=self._shape("in_progress", None, None))
        limits = (("requests", 1000, 1000 - self.number % 1000), ("tokens", 40_000, 36_000))
        self.emit(
            "rate_limits.updated",
            rate_limits=[
                {"name": name, "limit": limit, "remaining": left, "reset_seconds": 60.0}
                for name, limit, left in limits
            ],
        )
        if self.faults.unknown_events:
            self.emit("response.mood.updated", response_id=self.id, mood={"calm": True})

    def _add_item(self, body: dict[str, Any]) -> Item:
        index = len(self._output)
        item = Item({**body, "object": "realtime.item", "status": "in_progress"}, sealed=False)
        self._output.append(item)
        self.emit(
            "response.output_item.added", response_id=self.id, output_index=index, item=item.body
        )
        if not self.settings.detached:
            previous = self.conversation.add(item)
            self.emit("conversation.item.added", previous_item_id=previous, item=item.body)
        return item

    def open_message(self) -> None:
        """Begin the assistant's message."""
        if self.done or self._open is not None:
            return
        body = {
            "id": self.new_id("item"),
            "type": "message",
            "role": "assistant",
            "content": [],
        }
        self._open = self._add_item(body)
        if self.settings.modality == "audio":
            self._open.format = self.format
            self._part("added", {"type": "audio", "transcript": ""})
            self._open.body["content"] = [{"type": "output_audio", "transcript": ""}]
        else:
            self._part("added", {"type": "text", "text": ""})
            self._open.body["content"] = [{"type": "output_text", "text": ""}]

    def _place(self, item: Item) -> dict[str, Any]:
        return {
            "response_id": self.id,
            "item_id": item.id,
            "output_index": self._output.index(item),
            "content_index": 0,
        }

    def _part(self, what: Literal["added", "done"], part: dict[str, Any]) -> None:
        if self._open is not None:
            self.emit(f"response.content_part.{what}", **self._place(self._open), part=part)

    def _send_delta(self, item: Item, data: bytes) -> None:
        encoded = base64.b64encode(data).decode()
        copies = 2 if self.faults.duplicate_deltas else 1
        for _ in range(copies):
            self.emit("response.output_audio.delta", **self._place(item), delta=encoded)

    def speak(self, data: bytes, words: str = "") -> bool:
        """Send a piece of audio and of its transcript; False where nothing more may come."""
        item = self._open
        if self.done or item is None:
            return False
        limit = self.settings.max_output_tokens
        self._bytes += len(data)
        if len(item.audio) < AUDIO_BYTES:
            item.audio += data
        item.audio_ms = self.audio_ms_sent = self._bytes // self.format.bytes_per_ms
        self._last_delta = data
        self._send_delta(item, data)
        if words:
            self._say(item, "response.output_audio_transcript.delta", "transcript", words)
        if limit != "inf" and self._output_tokens() >= limit:
            self.finish("incomplete", "max_output_tokens")
            return False
        return True

    def write(self, words: str) -> bool:
        """Send a piece of text; False where nothing more may come."""
        item = self._open
        if self.done or item is None:
            return False
        self._say(item, "response.output_text.delta", "text", words)
        limit = self.settings.max_output_tokens
        if limit != "inf" and self._output_tokens() >= limit:
            self.finish("incomplete", "max_output_tokens")
            return False
        return True

    def _say(self, item: Item, event: str, key: str, words: str) -> None:
        self._spoken += words
        item.body["content"][0][key] = self._spoken
        self.emit(event, **self._place(item), delta=words)

    def spell(self, words: list[str]) -> None:
        """Send the whole transcript before the audio that it is of."""
        item = self._open
        if self.done or item is None:
            return
        for word in words:
            self._say(item, "response.output_audio_transcript.delta", "transcript", word)
        self._all_said = True
        self._transcript_done(item)

    def call(self, name: str, arguments: str, *, half: bool = False) -> None:
        """Call a function, its arguments in two pieces; `half`: the second is left to `finish`."""
        if self.done:
            return
        body = {
            "id": self.new_id("item"),
            "type": "function_call",
            "name": name,
            "call_id": self.new_id("call"),
            "arguments": "",
        }
        item = self._add_item(body)
        middle = len(arguments) // 2
        self._argue(item, arguments[:middle])
        if half:
            self._half_call = item
            return
        self._argue(item, arguments[middle:])
        self._end_call(item, "completed")

    def _argue(self, item: Item, piece: str) -> None:
        item.body["arguments"] += piece
        if piece:
            self.emit(
                "response.function_call_arguments.delta", **self._call_place(item), delta=piece
            )

    def _end_call(self, item: Item, status: str) -> None:
        name, arguments = item.body["name"], item.body["arguments"]
        self._text_out += text_tokens(name + arguments)
        named = {} if self.faults.unnamed_calls else {"name": name}
        self.emit(
            "response.function_call_arguments.done",
            **self._call_place(item),
            **named,
            arguments=arguments,
        )
        self._seal(item, status)

    def _call_place(self, item: Item) -> dict[str, Any]:
        place = self._place(item)
        del place["content_index"]
        return {**place, "call_id": item.body["call_id"]}

    def _seal(self, item: Item, status: str) -> None:
        item.body["status"] = status
        item.sealed = True
        if not self.settings.detached and self.conversation.find(item.id) is item:
            previous = self.conversation.before(item)
            self.emit("conversation.item.done", previous_item_id=previous, item=item.body)
        self.emit(
            "response.output_item.done",
            response_id=self.id,
            output_index=self._output.index(item),
            item=item.body,
        )

    def finish(self, status: Status, reason: str | None = None) -> None:
        """Close everything that is open and send response.done.

        `reason` is that of `status_details`, or the error code of a failed response.
        """
        if self.done:
            return
        self.begin()
        self.done = True
        item = self._open
        late = self.faults.late_deltas if status == "cancelled" and self._last_delta else 0
        if item is not None:
            for _ in range(late):  # the model is ahead of the news that it is to stop
                self._send_delta(item, self._last_delta)
            self._close_part(item)
            self._seal(item, "completed" if status == "completed" else "incomplete")
        if self._half_call is not None:
            self._end_call(self._half_call, "incomplete")
        self.emit(
            "response.done",
            response=self._shape(status, _details(status, reason), self._usage(status)),
        )
        if item is not None and late:
            self._send_delta(item, self._last_delta)  # and one that crossed the end itself
        self.conversation.drop_old_audio()

    def _close_part(self, item: Item) -> None:
        place = self._place(item)
        if self.settings.modality == "audio":
            self.emit("response.output_audio.done", **place)
            if not self._all_said:
                self._transcript_done(item)
            self._part("done", {"type": "audio", "transcript": self._spoken})
        else:
            self.emit("response.output_text.done", **place, text=self._spoken)
            self._part("done", {"type": "text", "text": self._spoken})

    def _transcript_done(self, item: Item) -> None:
        self.emit(
            "response.output_audio_transcript.done", **self._place(item), transcript=self._spoken
        )

    def _output_tokens(self) -> int:
        return text_tokens(self._spoken) + self._audio_tokens() + self._text_out

    def _audio_tokens(self) -> int:
        return -(-self.audio_ms_sent // ASSISTANT_MS_PER_TOKEN)

    def input_tokens(self) -> Tokens:
        """Return what the model reads for it: instructions and context."""
        told = self.settings.instructions or self.settings.session_instructions
        mine = {id(item) for item in self._output}
        context = (item.tokens() for item in self.context() if id(item) not in mine)
        return sum(context, Tokens(text=text_tokens(told)))

    def _usage(self, status: Status) -> dict[str, Any] | None:
        if self.faults.usage_null or status == "failed":
            return None
        read = self.input_tokens()
        cached = Tokens(
            min(self.cached.text, read.text) // CACHE_STEP * CACHE_STEP,
            min(self.cached.audio, read.audio) // CACHE_STEP * CACHE_STEP,
        )
        text_out, audio_out = text_tokens(self._spoken) + self._text_out, self._audio_tokens()
        total_in, total_out = read.text + read.audio, text_out + audio_out
        return {
            "total_tokens": total_in + total_out,
            "input_tokens": total_in,
            "output_tokens": total_out,
            "input_token_details": {
                "text_tokens": read.text,
                "audio_tokens": read.audio,
                "image_tokens": 0,
                "cached_tokens": cached.text + cached.audio,
                "cached_tokens_details": {
                    "text_tokens": cached.text,
                    "audio_tokens": cached.audio,
                    "image_tokens": 0,
                },
            },
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        }


_FAILURES: Final = {
    "insufficient_quota": (
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "rate_limit_exceeded": ("rate_limit_error", "Rate limit reached. Please try again later."),
}


def _details(status: Status, reason: str | None) -> dict[str, Any] | None:
    if status == "completed":
        return None
    if status != "failed":
        return {"type": status, "reason": reason}
    server = ("server_error", "The server had an error while processing your request.")
    kind, message = _FAILURES.get(reason or "", server)
    return {"type": status, "error": {"type": kind, "code": reason, "message": message}}
