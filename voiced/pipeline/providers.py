"""What the three steps of a pipeline are, for those who write one.

A plugin supplies a step with `Plugin.providers`, a mapping from the kind of step (`stt`, `chat`,
`tts`, `detector`) to a class or function that makes one, `make(settings, service)`. For the first
three it is called once for each engine that names the plugin, with the engine's table
(`[engine.NAME.stt]` and so on, a type of `voiced.config.types`); the step is shared by all calls of
the engine, so it keeps nothing of a call in itself. For `detector` it is called once for each call,
with `DetectorSettings`. `service` is the plugin's `voiced.plugin.Service`, opened: what lasts (a
connection, a loaded model) is kept there, and `service.config` is the table `[plugins.NAME]`.

`stream` methods are async generators. They are closed as soon as the caller interrupts, at a
`yield` or at an `await`; what they hold belongs into `async with` or `try`/`finally`. They must not
`yield` inside a nursery or a cancel scope. No step needs a time limit of its own: one that gives
nothing for `timeout_s` is cancelled and tried once more. Where nothing is heard of an answer for
the longest `timeout_s` of the three, this session counts as lost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from voiced.engine import ToolSpec, Usage
from voiced.vad import VadEvent, VadStarted, VadStopped

__all__ = [
    "Chat",
    "ChatPiece",
    "Detector",
    "DetectorSettings",
    "Ended",
    "Kind",
    "Message",
    "ProviderError",
    "Providers",
    "SpeechToText",
    "TextToSpeech",
    "ToolRequest",
    "ToolSpec",
    "Transcription",
    "Usage",
    "VadEvent",
    "VadStarted",
    "VadStopped",
]

Kind = Literal["stt", "chat", "tts", "detector"]

Providers = Mapping[str, Mapping[str, Callable[[Any], Any]]]
"""What plugins supply: by plugin, as in `[plugins.NAME]`, by kind, a function that makes it of
settings; the plugin's service is bound to it already."""


class ProviderError(Exception):
    """A step failed. `code` is for metrics and decisions, short and in snake_case.

    `verdict`: "retry", the same may succeed in a moment (after `retry_after_s`, if known);
    "refused", this input will not do, another may; "terminal", nothing will do until somebody
    changes something (key, model, quota). Any other exception of a step counts as "retry".
    """

    def __init__(
        self,
        code: str,
        message: str,
        verdict: Literal["retry", "refused", "terminal"] = "retry",
        *,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.verdict = verdict
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Transcription:
    """What was said; empty for no speech. Without `usage` the length of the audio is counted."""

    text: str
    usage: Usage | None = None


class SpeechToText(Protocol):
    """Writes down what a caller said."""

    async def transcribe(self, pcm16: bytes, rate: int, language: str | None) -> Transcription:
        """Write down one turn: mono PCM16 at `rate` Hz (8000 or 16000), `max_utterance_s` at most.

        `language`: an ISO 639-1 code where it is known. Raises ProviderError.
        """


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A function that the model calls, whole. `arguments`: JSON as it wrote it."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation, in the order and with the meaning of OpenAI's.

    A `tool` message follows the `assistant` message with the request `tool_call_id`; every request
    has exactly one. An `assistant` message holds what was heard of an answer, which may be nothing
    where it has `tool_calls`.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolRequest, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer has ended before its end: `length` is the token limit."""

    reason: Literal["length", "content_filter"]


ChatPiece = str | ToolRequest | Usage | Ended


class Chat(Protocol):
    """Thinks of an answer."""

    def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[ChatPiece, None]:
        """Yield the answer's text in pieces, as early as possible, and requests for tools.

        A line's end before a request has what goes before it spoken while the request is written.
        At most one `Usage`, and an `Ended` where it applies, come last. Raises ProviderError.
        """


class TextToSpeech(Protocol):
    """Speaks."""

    @property
    def rate(self) -> int:
        """The sampling rate in Hz: 8000, 16000, 24000 or 48000. Never changes."""

    def stream(self, text: str, *, voice: str, language: str | None) -> AsyncGenerator[bytes, None]:
        """Yield the sound of one sentence as mono PCM16 at `rate`, as early as possible.

        Pieces are bytes or any buffer, and may be cut anywhere, even within a sample. A sentence
        without any sound counts as refused. At most two run at a time for one call. Raises
        ProviderError.
        """


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """What a detector is made from: the rate of the caller's audio, and the agent's wishes."""

    rate: int  # Hz
    threshold: float  # 0 to 1
    prefix_padding_ms: int
    silence_ms: int
    language: str | None


class Detector(Protocol):
    """Finds a caller's turns. Fed with each 20 ms as they come, so it has to be quick: 1 ms."""

    def feed(self, pcm16: bytes) -> Sequence[VadEvent]:
        """Judge the next piece; `at_ms` of the events counts all audio that was fed.

        Starts and stops take turns. A start may lie up to `prefix_padding_ms` + 500 ms back.
        """
