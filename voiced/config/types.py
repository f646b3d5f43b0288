"""The configuration as frozen, checked values: one struct per TOML table.

A field's docstring comment is its line in `etc/README.md`. Names end in their unit (`_s`, `_ms`).
Secrets stand as `x`, `x_file` or `x_env`, exactly one; `load` resolves them into `x`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TOML table."""


class Daemon(Table):
    """`[daemon]`: the process."""

    state_dir: Path | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"
    max_calls: Positive = 100
    drain_s: Annotated[float, Meta(ge=0)] = 300.0
    plugin_dir: Path | None = None


class Http(Table):
    """`[http]`: the listener that carriers reach."""

    listen: str = "127.0.0.1:8080"
    public_url: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()


class Twilio(Table):
    """`[twilio]`: the account whose calls are answered."""

    account_sid: str | None = None
    auth_token: str | None = None
    auth_token_file: Path | None = None
    auth_token_env: str | None = None
    validate_signature: bool = True


class ServerVad(Table, tag_field="type", tag="server_vad"):
    """The server ends a turn after `silence_ms` of silence."""

    threshold: Fraction = 0.5
    prefix_padding_ms: NonNegative = 300
    silence_ms: Positive = 500


class SemanticVad(Table, tag_field="type", tag="semantic_vad"):
    """The server ends a turn when the sentence sounds finished."""

    eagerness: Literal["low", "medium", "high", "auto"] = "auto"


class OwnVad(Table, tag_field="type", tag="none"):
    """voiced ends a turn by its own endpointing and commits it."""

    threshold: Fraction = 0.5
    prefix_padding_ms: NonNegative = 300
    silence_ms: Positive = 500


TurnDetection = ServerVad | SemanticVad | OwnVad


class Agent(Table):
    """`[agent.NAME]`: who answers."""

    engine: str = "offline"
    voice: str = "marin"
    language: str = "auto"
    instructions: str | None = None
    instructions_file: Path | None = None
    greeting: str | None = None
    greeting_text: str | None = None
    greeting_files: tuple[Path, ...] = ()
    greeting_delay_ms: NonNegative = 0
    connection_tone: bool = False
    turn_detection: TurnDetection = field(default_factory=ServerVad)
    barge_in: Literal["immediate", "off"] = "immediate"
    transcription_model: str | None = "gpt-4o-mini-transcribe"
    noise_reduction: Literal["near_field", "far_field", "off"] = "off"
    farewell_text: str | None = None
    silence_prompt_s: Annotated[float, Meta(ge=0)] = 15.0
    silence_hangup_s: Annotated[float, Meta(ge=0)] = 30.0
    max_duration_s: Seconds = 1800.0
    no_answer_s: Seconds = 4.0
    unavailable_file: Path | None = None
    lead_ms: Positive | None = None
    resampler: Literal["fir", "linear"] = "fir"


class RealtimeEngine(Table, tag_field="kind", tag="realtime"):
    """`[engine.NAME]` with `kind = "realtime"`: a server that speaks the OpenAI Realtime protocol."""

    url: str = "wss://api.openai.com/v1/realtime"
    model: str = "gpt-realtime-2.1"
    api_key: str | None = None
    api_key_file: Path | None = None
    api_key_env: str | None = None
    headers: dict[str, str] = {}
    dialect: Literal["ga", "beta"] = "ga"
    server: Literal["openai", "azure", "xai", "localai", "speaches", "qwen", "other"] = "openai"
    ca_file: Path | None = None
    connect_timeout_s: Seconds = 10.0
    input_format: Literal["auto", "pcmu", "pcma", "pcm"] = "auto"
    output_format: Literal["auto", "pcmu", "pcma", "pcm"] = "auto"
    max_sessions: Positive | None = None
    requests_per_minute: Positive | None = None


class EmulatorEngine(Table, tag_field="kind", tag="emulator"):
    """`[engine.NAME]` with `kind = "emulator"`: voiced's own offline Realtime server."""

    speech: Literal["auto", "espeak", "clips", "echo"] = "auto"
    faults: dict[str, bool | int | float | str] = {}


EngineConfig = RealtimeEngine | EmulatorEngine


class Price(Table):
    """`[price."MODEL"]`: US dollars per million tokens, or per minute."""

    text_in: float = 0.0
    cached_text_in: float = 0.0
    text_out: float = 0.0
    audio_in: float = 0.0
    cached_audio_in: float = 0.0
    audio_out: float = 0.0
    per_minute: float = 0.0


class Number(Table):
    """`[[number]]`: which agent answers which called number; the first that matches wins."""

    match: str
    agent: str
    max_duration_s: Seconds | UnsetType = UNSET
    greeting_delay_ms: NonNegative | UnsetType = UNSET


class Config(Table):
    """The whole file, its drop-ins and defaults, checked."""

    daemon: Daemon = field(default_factory=Daemon)
    http: Http = field(default_factory=Http)
    twilio: Twilio = field(default_factory=Twilio)
    engine: dict[str, EngineConfig] = field(default_factory=lambda: {"offline": EmulatorEngine()})
    agent: dict[str, Agent] = field(default_factory=lambda: {"reception": Agent()})
    number: tuple[Number, ...] = (Number(match="*", agent="reception"),)
    price: dict[str, Price] = {}
