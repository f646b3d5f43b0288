"""What an engine is: the thing that talks back.

An engine opens a `Session` per call. A session turns the caller's audio into `EngineEvent`s and
takes a handful of commands, none of which blocks: they are queued behind a bounded buffer, and a
session whose peer no longer reads ends with `Lost`. A server with another protocol is another
implementation of these two protocols; calls and legs do not notice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from voiced.config.prices import Billed
from voiced.config.types import Agent
from voiced.formats import AudioFormat

__all__ = [
    "DEAF",
    "AgentAudio",
    "AgentAudioDone",
    "AgentTranscript",
    "Billed",
    "CallerTranscript",
    "Committed",
    "Engine",
    "EngineEvent",
    "EngineFault",
    "Lost",
    "ModelState",
    "Plan",
    "Ready",
    "Reconnecting",
    "ResponseDone",
    "ResponseStarted",
    "Resumed",
    "Said",
    "Session",
    "SpeechStarted",
    "SpeechStopped",
    "ToolCall",
    "ToolSpec",
    "Usage",
    "exact_words",
    "exactly",
]


_EXACTLY: Final = 'Say exactly the following words and nothing else: "{}"'
_EXACT: Final = re.compile(re.escape(_EXACTLY).replace(r"\{\}", "(.*)"), re.DOTALL)


def exactly(text: str) -> str:
    """Instructions for `Session.respond` that have `text` spoken and nothing else."""
    return _EXACTLY.format(text)


def exact_words(instructions: str | None) -> str | None:
    """The words that `exactly` was given; None for any other instructions.

    An engine that speaks by itself need not ask a model to repeat them: it would take its time, and
    might find better ones.
    """
    found = _EXACT.fullmatch(instructions or "")
    return found[1] if found else None


class ModelState(Enum):
    """The model's connection: a state beside the call's, which goes on while this changes."""

    CONNECTING = "connecting"
    READY = "ready"
    RECONNECTING = "reconnecting"
    FALLBACK = "fallback"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Said:
    """A text of the conversation so far; a `system` text was given to the model, not spoken."""

    role: Literal["user", "assistant", "system"]
    text: str


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function that the model may call. `parameters`: a JSON Schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


def _nothing_said() -> Sequence[Said]:
    return ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a session is opened for."""

    call_id: str
    agent: Agent
    instructions: str  # the agent's, its file read
    leg_format: AudioFormat  # the session speaks it if its server can
    tools: tuple[ToolSpec, ...] = ()
    history: Callable[[], Sequence[Said]] = _nothing_said
    """The conversation as it was heard, asked for whenever a session takes over from another."""
    attentive: bool = True
    """Whether the session listens if its server does, and is lost as `deaf` where that does not."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one response or one transcription has used: tokens, and what other units servers bill.

    `cached_*` are part of the input figures. `transcription_*` is what wrote down the caller's
    words, `speech_*` what a pipeline had spoken, whether it was heard or not.
    """

    text_in: int = 0
    audio_in: int = 0
    cached_text_in: int = 0
    cached_audio_in: int = 0
    text_out: int = 0
    audio_out: int = 0
    transcription_in: int = 0
    transcription_out: int = 0
    transcription_s: float = 0.0
    speech_characters: int = 0
    speech_s: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        """Field by field."""
        return Usage(
            *(getattr(self, name) + getattr(other, name) for name in Usage.__slots__),
        )


class Ready(Struct, frozen=True, gc=False):
    """The session is configured; audio flows. `formats` are fixed from here on."""


class SpeechStarted(Struct, frozen=True, gc=False):
    """The caller began to speak. `audio_start_ms` counts audio sent to the session, not time.

    `item_id` is empty where the item does not exist yet.
    """

    item_id: str
    audio_start_ms: int


class SpeechStopped(Struct, frozen=True, gc=False):
    """The caller's turn is over by the turn detection; `audio_end_ms` as in SpeechStarted."""

    item_id: str
    audio_end_ms: int


class Committed(Struct, frozen=True, gc=False):
    """The caller's audio is now an item of the conversation."""

    item_id: str


class ResponseStarted(Struct, frozen=True, gc=False):
    """The model has begun to answer."""

    response_id: str


class AgentAudio(Struct, frozen=True, gc=False):
    """A piece of an answer, in the session's `output_format`, any length, faster than real time."""

    response_id: str
    item_id: str
    content_index: int
    payload: bytes


class AgentAudioDone(Struct, frozen=True, gc=False):
    """No more audio of this item will come (finished, cancelled or failed alike)."""

    response_id: str
    item_id: str


class AgentTranscript(Struct, frozen=True, gc=False):
    """Words of an answer; with `final` the `text` is whole, else it is the next piece."""

    item_id: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class CallerTranscript:
    """Words of the caller; with `final` the `text` is whole. May come long after the answer."""

    item_id: str
    text: str
    final: bool
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """An answer has ended, well or not. `reason` holds status_details' reason or error code."""

    response_id: str
    status: Literal["completed", "cancelled", "incomplete", "failed"]
    reason: str | None = None
    usage: Usage | None = None


class EngineFault(Struct, frozen=True, gc=False):
    """Something the server refused. The session goes on; `action` is what it did about it."""

    code: str
    message: str
    action: Literal["ignore", "retry", "alarm"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model calls a function and waits for `tool_result`. `arguments`: JSON as it wrote it."""

    call_id: str
    item_id: str
    name: str
    arguments: str


class Reconnecting(Struct, frozen=True, gc=False):
    """The model was lost, and is tried again or replaced; of open answers nothing more comes.

    Before `Ready`: it cannot be reached at once.
    """

    code: str
    message: str


class Resumed(Struct, frozen=True, gc=False):
    """Another session has taken over, with the conversation's text; formats may be others.

    Comes after `Reconnecting`, or without it where a session was renewed before its limit.
    """

    engine: str  # the [engine.NAME] that talks now
    model: str
    fallback: bool  # it is the agent's `fallback_engine`
    answering: bool  # the session asks for the answer that was owed; else nothing is
    transcription: str | None = None  # with `model`, who is paid for it: `Billed`
    speech: str | None = None


DEAF: Final = "deaf"
"""The code of a session whose server hears nothing of what the caller says (`Plan.attentive`)."""


class Lost(Struct, frozen=True, gc=False):
    """The session is over; nothing follows. With `retryable` another attempt may succeed."""

    code: str
    message: str
    retryable: bool


EngineEvent = (
    Ready
    | SpeechStarted
    | SpeechStopped
    | Committed
    | ResponseStarted
    | AgentAudio
    | AgentAudioDone
    | AgentTranscript
    | CallerTranscript
    | ResponseDone
    | EngineFault
    | ToolCall
    | Reconnecting
    | Resumed
    | Lost
)


class Session(Protocol):
    """One conversation with a model. Commands never block and are no-ops after `Lost`.

    With `barge_in = "confirm"` a session reports the caller's turns and does nothing by itself: the
    call cancels, and asks for the answer to a turn that it has found to be one.
    """

    @property
    def input_format(self) -> AudioFormat:
        """What `send_audio` takes."""

    @property
    def output_format(self) -> AudioFormat:
        """What `AgentAudio.payload` is."""

    async def receive(self) -> Sequence[EngineEvent]:
        """Wait for the model, return all that this wake-up brought, at least one event.

        After `Lost` has been delivered it blocks until cancelled.
        """

    def send_audio(self, payload: bytes) -> None:
        """The caller's audio. Before `Ready` the newest 2 s are kept, then sent in one piece."""

    def respond(self, instructions: str | None = None) -> None:
        """Ask for an answer now. `instructions` replace the session's for this answer only."""

    def add_message(self, role: Literal["user", "assistant", "system"], text: str) -> None:
        """Put a text into the conversation, as said or given; asks for no answer."""

    def cancel(self) -> None:
        """Stop the running answer, if any; its late audio is not delivered any more."""

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Tell the model that only `audio_end_ms` of its item were heard."""

    def delete(self, item_id: str) -> None:
        """Take an item out of the conversation: nothing of it was heard, or it was no speech."""

    def set_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Replace the functions that the model may call."""

    def tool_result(self, call_id: str, output: str) -> None:
        """Give the model what a function returned; asks for no answer."""


class Engine(Protocol):
    """A configured way to reach a model; lives as long as the configuration that names it."""

    @property
    def name(self) -> str:
        """The `[engine.NAME]` of the configuration."""

    @property
    def model(self) -> str:
        """The model that talks, for the journal."""

    def billed(self, agent: Agent) -> Billed:
        """The models that its conversations are billed by, as the price table names them."""

    def open(self, plan: Plan) -> AbstractAsyncContextManager[Session]:
        """A session that connects in the background; leaving the context closes it, within 1 s.

        Entering does not wait for the network: failure to connect is a `Lost` event.
        """
