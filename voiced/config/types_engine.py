"""What talks back: `[engine.NAME]` of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from voiced.config.table import Name, Positive, Seconds, Table

__all__ = [
    "Chat",
    "EmulatorEngine",
    "EngineConfig",
    "PipelineEngine",
    "Provider",
    "RealtimeEngine",
    "SpeechToText",
    "TextToSpeech",
]


class RealtimeEngine(Table, frozen=True, tag_field="kind", tag="realtime"):
    """A server that speaks the OpenAI Realtime protocol."""

    url: str = "wss://api.openai.com/v1/realtime"
    """Where it is, `wss://` or `ws://`; the model is added as a query."""
    model: Name = "gpt-realtime-2.1"
    """The model, on Azure the deployment."""
    api_key: str | None = None
    """The API key; not needed by a local server."""
    api_key_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    api_key_env: str | None = None
    """The environment variable with it."""
    headers: dict[str, str] = field(default_factory=dict)
    """Further headers of the handshake."""
    dialect: Literal["ga", "beta"] = "ga"
    """Names of events and fields: `beta` for servers that still speak the interface of 2024."""
    server: Literal[
        "openai", "azure", "xai", "localai", "speaches", "qwen", "vllm-omni", "other"
    ] = "openai"
    """Whose server it is, for the points in which they differ."""
    ca_file: Path | None = None
    """PEM certificates to trust instead of the system's."""
    connect_timeout_s: Seconds = 10.0
    """How long connecting may take before the call counts the model as lost; 4 s at the most \
while a fallback engine is free."""
    silent_s: Seconds = 8.0
    """Without any event of the server for so long, while it owes an answer, it counts as lost."""
    max_session_s: Seconds | None = None
    """The longest session that the server allows; a fresh one takes over before. Left out: what \
the server is known for."""
    max_sessions: Positive | None = None
    """Sessions at a time; a call that finds none free goes to its fallback engine."""
    requests_per_minute: Positive | None = None
    """Answers asked for in a minute, of all calls together; a call that finds none free goes to \
its fallback engine."""
    append_ms: Annotated[int, Meta(ge=20, le=100)] = 20
    """The least caller audio that goes to the model in one message; more saves work and delays \
the model by as much."""
    input_format: Literal["auto", "pcmu", "pcma", "pcm"] = "auto"
    """Audio to the model; `auto`: the carrier's own where the server speaks it."""
    output_format: Literal["auto", "pcmu", "pcma", "pcm"] = "auto"
    """Audio from the model; `auto`: the carrier's own where the server speaks it."""


class EmulatorEngine(Table, frozen=True, tag_field="kind", tag="emulator"):
    """voiced's own Realtime server: offline, on loopback, for trials and tests."""

    speech: Literal["auto", "espeak", "clips", "echo"] = "auto"
    """How it speaks: espeak-ng, bundled clips, or the caller's own words played back."""
    faults: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Ways to misbehave, for tests; `voiced emulator --help` names them."""
    max_session_s: Seconds | None = None
    """The longest session; a fresh one takes over before. Left out: an hour."""
    max_sessions: Positive | None = None
    """Sessions at a time; a call that finds none free goes to its fallback engine."""
    requests_per_minute: Positive | None = None
    """Answers asked for in a minute, of all calls together."""


class Provider(Table, frozen=True):
    """A server that does one step of a pipeline."""

    provider: Name = "openai"
    """`openai`: a server with OpenAI's HTTP API; `emulator`: voiced's own, offline; or the name \
of a plugin's."""
    url: str = "https://api.openai.com/v1"
    """Where its API begins, `https://` or `http://`."""
    api_key: str | None = None
    """The API key; not needed by a local server."""
    api_key_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    api_key_env: str | None = None
    """The environment variable with it."""
    headers: dict[str, str] = field(default_factory=dict)
    """Further headers of each request."""
    timeout_s: Seconds = 10.0
    """How long the server may send nothing before it is tried again, once. The engine counts as \
lost where nothing is heard of an answer for the longest of the three."""


class SpeechToText(Provider, frozen=True):
    """What writes down the caller's words."""

    model: Name = "gpt-4o-mini-transcribe"
    """The model."""


class Chat(Provider, frozen=True):
    """What thinks of an answer."""

    model: Name = "gpt-4o-mini"
    """The model."""
    max_tokens: Positive = 400
    """The longest answer."""
    max_history: Positive = 40
    """Messages of the conversation that are sent along, the newest."""


class TextToSpeech(Provider, frozen=True):
    """What speaks the answer."""

    model: Name = "gpt-4o-mini-tts"
    """The model."""
    voice: Name | None = None
    """A voice of the model. Left out: the agent's `voice`."""
    rate: Literal[8000, 16000, 24000, 48000] = 24000
    """The sampling rate of the raw 16-bit PCM that the server sends, in Hz."""


class PipelineEngine(Table, frozen=True, tag_field="kind", tag="pipeline"):
    """Speech to text, chat, text to speech, for models that do not speak themselves."""

    stt: SpeechToText = field(default_factory=SpeechToText)
    """`[engine.NAME.stt]`: speech to text."""
    chat: Chat = field(default_factory=Chat)
    """`[engine.NAME.chat]`: the model."""
    tts: TextToSpeech = field(default_factory=TextToSpeech)
    """`[engine.NAME.tts]`: text to speech."""
    max_utterance_s: Seconds = 30.0
    """The longest turn of a caller; one that goes on is answered in parts."""
    detector: Name = "energy"
    """What finds the ends of a caller's turns: `energy`, or the name of a plugin's."""
    max_sessions: Positive | None = None
    """Sessions at a time; a call that finds none free goes to its fallback engine."""
    requests_per_minute: Positive | None = None
    """Answers asked for in a minute, of all calls together."""


EngineConfig = RealtimeEngine | PipelineEngine | EmulatorEngine
