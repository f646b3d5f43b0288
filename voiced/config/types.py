"""The configuration as frozen, checked values: one struct per TOML table.

The string under a field is its line in `etc/README.md`. Names end in their unit (`_s`, `_ms`).
Secrets stand as `x`, `x_file` or `x_env`, exactly one; `load` resolves them into `x`, and reads
`instructions_file` into `instructions`. Paths that come out of `load` are absolute.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
SecondsOrNever = Annotated[float, Meta(ge=0)]
Dollars = Annotated[float, Meta(ge=0)]
DaysOrForever = Annotated[float, Meta(ge=0)] | Literal["forever"]
Name = Annotated[str, Meta(min_length=1)]

SECRETS: Final = ("auth_token", "api_key", "password", "token")
"""Names of the fields that hold a secret, each with its `_file` and `_env` beside it."""

DEFAULT_GREETING: Final = "Greet the caller warmly in one short sentence and ask how you can help."
"""How an agent greets that says nothing about greeting."""

DEFAULT_INSTRUCTIONS: Final = (
    "You answer the telephone. Be friendly and brief: one or two short sentences at a time, "
    "in the caller's language. Say so when you do not know something."
)
"""What an agent is told that has no instructions of its own."""


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TOML table."""

    def __repr__(self) -> str:
        # A table may end in a log or a traceback; its secrets may not.
        values = (
            f"{name}={'...' if name in SECRETS or name in ('headers', 'plugins') else repr(value)}"
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not None
        )
        return f"{type(self).__name__}({', '.join(values)})"


class Daemon(Table, frozen=True):
    """The process."""

    state_dir: Path | None = None
    """Where the journal and everything else that outlives a restart is kept. Left out: systemd's \
state directory, else `/var/lib/voiced` for root, else `~/.local/state/voiced`."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged. `debug` includes what callers and agents say."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """`auto`: text on a terminal, JSON elsewhere."""
    max_calls: Positive = 100
    """Calls at a time; one more is refused at once, so that live calls do not suffer."""
    drain_s: SecondsOrNever = 300.0
    """How long SIGTERM lets live calls go on before they hear a farewell."""
    journal_keep_days: DaysOrForever = 90.0
    """How long the journal keeps a call that has ended, transcript and all; older ones are \
removed. 0: nothing is left behind, two minutes after the call; `"forever"`: all of them stay."""
    plugin_dir: Path | None = None
    """A folder whose `*.py` files are plugins. They run as voiced does: nobody else may write \
there."""


class Http(Table, frozen=True):
    """The listener that carriers reach."""

    listen: str = "127.0.0.1:8080"
    """`"host:port"`, `"[::1]:8080"` for IPv6. `"0.0.0.0:8080"` to be reached without a proxy."""
    public_url: str | None = None
    """What carriers call this listener, e.g. `"https://voice.example.net"`: signatures are \
checked against it and stream URLs are made from it (`https` gives `wss`, `http` gives `ws`)."""
    tls_cert: Path | None = None
    """A PEM certificate chain, where voiced ends TLS itself and no proxy does."""
    tls_key: Path | None = None
    """The certificate's PEM key, without a passphrase."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose `X-Forwarded-For` is believed."""


class Twilio(Table, frozen=True):
    """The account whose calls are answered.

    Without an auth token the webhook serves loopback clients only.
    """

    account_sid: str | None = None
    """`AC` and 32 hexadecimal digits; requests for another account are refused."""
    auth_token: str | None = None
    """The primary auth token, which signs Twilio's requests."""
    auth_token_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    auth_token_env: str | None = None
    """The environment variable with it."""
    validate_signature: bool = True
    """`false` takes requests from anybody who finds the port: for tests only."""
    caller_id: str | None = None
    """A number of the account, in E.164, that calls placed by `voiced dial` come from."""
    api_url: str = "https://api.twilio.com"
    """Where the REST API is; another for tests and for look-alikes."""


class Admin(Table, frozen=True):
    """The listener for operators: health, metrics, and the API that the commands use."""

    listen: str = "127.0.0.1:9180"
    """`"host:port"`, or `"unix:/run/voiced/admin.sock"`."""
    token: str | None = None
    """What API requests must show. Left out: made at the first start and kept in \
`state_dir/admin.token`, where the commands find it."""
    token_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    token_env: str | None = None
    """The environment variable with it."""


class Trunk(Table, frozen=True):
    """A provider or a PBX that calls come from and go to."""

    name: Name
    """What it is called in logs, metrics and commands."""
    host: Name
    """Its SIP domain: a name (SRV records are honoured) or an address, `:port` where needed."""
    transport: Literal["udp", "tcp", "tls"] = "udp"
    """What requests to it travel on."""
    proxy: str | None = None
    """Where requests are sent instead of to `host`, a name or an address."""
    allow: tuple[str, ...] = ()
    """Addresses or networks that its calls come from. Left out: those of `host` and `proxy`."""
    username: str | None = None
    """The account, where it wants digest authentication or registration."""
    password: str | None = None
    """The account's password."""
    password_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    password_env: str | None = None
    """The environment variable with it."""
    authenticate: bool = False
    """Take its calls from any address that proves to know `username` and `password`."""
    digest: Literal["md5", "sha-256"] = "md5"
    """What `authenticate` asks for; old systems know MD5 alone."""
    register: bool = False
    """Keep `username` registered at `host`, so that calls reach us without a fixed address."""
    register_s: Annotated[int, Meta(ge=60, le=86400)] = 3600
    """How long a registration is asked to last; the registrar decides."""
    options_s: SecondsOrNever = 60.0
    """How often the trunk is asked whether it lives; 0: never."""
    caller_id: str | None = None
    """The number or user that calls placed through it come from. Left out: `username`."""
    codecs: tuple[Literal["pcmu", "pcma", "g722"], ...] = ("pcmu", "pcma")
    """What may be spoken; the order is that of our offers."""
    srtp: Literal["off", "optional", "required"] = "off"
    """Encrypted audio, keys in the SDP: use it with TLS."""
    max_calls: Positive | None = None
    """Calls at a time with this trunk. Left out: `max_calls` of the daemon alone counts."""


class Sip(Table, frozen=True):
    """Calls over SIP and RTP."""

    listen: tuple[str, ...] = ()
    """`"udp://0.0.0.0:5060"`, also `tcp://` and `tls://`. Left out: no SIP."""
    advertise: str | None = None
    """The address that others reach us at, where a NAT stands between."""
    rtp_ports: str = "20000-29999"
    """UDP ports for audio, two to a call."""
    tls_cert: Path | None = None
    """A PEM certificate chain for `tls://`."""
    tls_key: Path | None = None
    """The certificate's PEM key, without a passphrase."""
    ca_file: Path | None = None
    """PEM certificates to trust in trunks, instead of the system's."""
    strangers: Literal["drop", "forbid"] = "drop"
    """What requests from nowhere known get: nothing, or 403."""
    stranger_rate: Positive = 20
    """Requests a second of one unknown address that are looked at; the rest is dropped unread."""
    ban_s: SecondsOrNever = 3600.0
    """How long an address that was refused again and again is not heard; 0: no bans."""
    ringing: bool = True
    """Say 180 before the call is answered."""
    session_expires_s: Annotated[int, Meta(ge=90, le=86400)] = 1800
    """How long a call lives without a sign of the other side, refreshed at half; RFC 4028."""
    rtp_timeout_s: SecondsOrNever = 30.0
    """Without audio for so long, and not on hold, a call has ended unnoticed; 0: never."""
    reorder_ms: Annotated[int, Meta(ge=0, le=60)] = 40
    """How long audio waits for an earlier packet that is missing."""
    trunk: tuple[Trunk, ...] = ()
    """The `[[sip.trunk]]` blocks."""


class ServerVad(Table, frozen=True, tag_field="kind", tag="server_vad"):
    """The server ends a turn after `silence_ms` of silence."""

    threshold: Fraction = 0.5
    """How sure of speech to be; 0.6 to 0.8 where the line's echo is taken for speech."""
    prefix_padding_ms: NonNegative = 300
    """Audio kept from before the speech, so that first syllables are not lost."""
    silence_ms: Positive = 500
    """Silence that ends a turn: shorter answers sooner, longer lets callers think."""


class SemanticVad(Table, frozen=True, tag_field="kind", tag="semantic_vad"):
    """The server ends a turn when the sentence sounds finished."""

    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    """How long to wait for more: `low` 8 s at most, `medium` (as `auto`) 4 s, `high` 2 s."""


class OwnVad(Table, frozen=True, tag_field="kind", tag="none"):
    """voiced ends a turn by its own endpointing and commits it."""

    threshold: Fraction = 0.5
    """How sure of speech to be."""
    prefix_padding_ms: NonNegative = 300
    """Audio kept from before the speech."""
    silence_ms: Positive = 500
    """Silence that ends a turn."""


TurnDetection = ServerVad | SemanticVad | OwnVad


class Agent(Table, frozen=True):
    """Who answers."""

    engine: Name = "offline"
    """The `[engine.NAME]` that talks. Left out: the only engine there is."""
    fallback_engine: Name | None = None
    """The `[engine.NAME]` that takes over where `engine` cannot be reached, is lost or full."""
    reconnect_s: SecondsOrNever = 8.0
    """How long a lost model is tried again before the fallback engine or the end; 0: not at all."""
    voice: Name = "marin"
    """A voice of the engine's model."""
    language: str = "auto"
    """The callers' language as an ISO 639 code such as `"tr"`; it helps the transcription, and \
bundled messages are in Turkish or Japanese where it is `"tr"` or `"ja"`."""
    instructions: str | None = None
    """What the model is told about its task. Left out: to be a brief and friendly receptionist."""
    instructions_file: Path | None = None
    """A text file with the instructions, instead of `instructions`."""
    greeting: str | None = None
    """How the model is to greet; `""`: it waits for the caller. Left out together with the two \
below: a short friendly greeting."""
    greeting_text: str | None = None
    """The exact words of the greeting, instead of `greeting`."""
    greeting_files: tuple[Path, ...] = ()
    """WAV files (mono; 16-bit PCM or G.711 at 8, 16, 24 or 48 kHz) played in order, \
instead of `greeting`."""
    greeting_delay_ms: NonNegative = 0
    """Silence before the greeting."""
    connection_tone: bool = False
    """440 Hz for 400 ms as soon as the call is answered."""
    turn_detection: TurnDetection = field(default_factory=ServerVad)
    """What ends a caller's turn, see below."""
    barge_in: Literal["immediate", "confirm", "off"] = "immediate"
    """`immediate`: the agent falls silent when the caller speaks; `confirm`: it pauses, and goes \
on if that was a cough, a key or the line's echo; `off`: it talks to the end."""
    confirm_ms: Annotated[int, Meta(ge=100, le=2000)] = 400
    """How long `confirm` may listen before a pause becomes an interruption."""
    transcription_model: Name | None = "gpt-4o-mini-transcribe"
    """The model that writes down the caller's words; `"off"` for none."""
    noise_reduction: Literal["near_field", "far_field", "off"] = "off"
    """The server's noise filter: `near_field` for handsets, `far_field` for speakerphones."""
    farewell_text: str | None = None
    """What the agent says before voiced ends a call."""
    silence_prompt_s: SecondsOrNever = 15.0
    """Silence of a caller after which the agent asks once whether they are there; 0: never."""
    silence_hangup_s: SecondsOrNever = 30.0
    """Silence of a caller after which the call ends; 0: never."""
    max_duration_s: Seconds = 1800.0
    """The longest call."""
    no_answer_s: Seconds = 4.0
    """How long a caller may hear nothing when the model owes an answer."""
    unavailable_file: Path | None = None
    """A WAV file played when the model cannot be reached. Left out: a bundled message."""
    one_moment_file: Path | None = None
    """A WAV file played while the model is slow or lost. Left out: a bundled message."""
    still_there_file: Path | None = None
    """A WAV file that asks a silent caller. Left out: a bundled message."""
    farewell_file: Path | None = None
    """A WAV file for the end, where the model cannot say `farewell_text`. Left out: a bundled \
message."""
    transfer_when_lost: Name | None = None
    """Where callers are transferred when no model can be reached, a number or SIP URI. Left out: \
the call ends after the message."""
    facts: tuple[str, ...] = ()
    """What the model is told of each call: `"caller"`, `"called"`, `"trunk"`, or the name of a \
header or parameter such as `"Diversion"` or `"X-Customer"`. Callers can forge them."""
    lead_ms: Annotated[int, Meta(ge=1, le=20_000)] | None = None
    """How much audio the carrier may hold unheard. Left out: what suits the carrier."""
    resampler: Literal["fir", "linear"] = "fir"
    """`fir` sounds better, `linear` costs less."""


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
    headers: dict[str, str] = {}
    """Further headers of the handshake."""
    dialect: Literal["ga", "beta"] = "ga"
    """Names of events and fields: `beta` for servers that still speak the interface of 2024."""
    server: Literal["openai", "azure", "xai", "localai", "speaches", "qwen", "other"] = "openai"
    """Whose server it is, for the points in which they differ."""
    ca_file: Path | None = None
    """PEM certificates to trust instead of the system's."""
    connect_timeout_s: Seconds = 10.0
    """How long connecting may take before the call counts the model as lost."""
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
    faults: dict[str, bool | int | float | str] = {}
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
    headers: dict[str, str] = {}
    """Further headers of each request."""
    timeout_s: Seconds = 10.0
    """How long the server may send nothing before it is tried again, once, or counts as lost."""


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


class Price(Table, frozen=True):
    """US dollars per million tokens or characters, or per minute; laid over the bundled prices.

    Each step is priced by its own model: the one that talks, `transcription_model`, and the three
    of a pipeline. A plugin's step without a `model` is priced by the name of the plugin, the
    emulator as `"emulator"`.
    """

    text_in: Dollars = 0.0
    """Text read."""
    cached_text_in: Dollars = 0.0
    """Text read from the cache."""
    text_out: Dollars = 0.0
    """Text written."""
    audio_in: Dollars = 0.0
    """Audio heard."""
    cached_audio_in: Dollars = 0.0
    """Audio heard before, from the cache."""
    audio_out: Dollars = 0.0
    """Audio spoken."""
    characters: Dollars = 0.0
    """Text to be spoken, by the million characters: for text to speech."""
    per_minute: Dollars = 0.0
    """For models paid by time: of the conversation, of the sound that is written down, or of the \
sound that is spoken."""


class Cost(Table, frozen=True):
    """Caps on what is spent, in US dollars as the price table has them. Left out: none.

    Shortly before a cap strikes the caller hears the agent's farewell: 15 s of each live call are
    set aside for it, at what they cost. A cap is passed by what its live calls cost within 6 s more
    at the most, and by what nobody can foresee, such as a long conversation that is read again; one
    that is worth less than 30 s of a call may be passed by one farewell more. The call that finds a
    cap spent is refused as busy, after a restart too.
    """

    call_usd: Annotated[float, Meta(gt=0)] | None = None
    """The most that one call may cost."""
    number_usd: Annotated[float, Meta(gt=0)] | None = None
    """The most that the calls of one called number may cost on one day."""
    day_usd: Annotated[float, Meta(gt=0)] | None = None
    """The most that all calls may cost on one day; a day begins at midnight UTC."""


class Number(Table, frozen=True):
    """Which agent answers which called number; the first block that matches wins."""

    match: str
    """`"+49301234567"`, `"sip:sales@example.net"`, a prefix such as `"+4930*"`, or `"*"`."""
    agent: str
    """The `[agent.NAME]` that answers."""
    caller: str | UnsetType = UNSET
    """Only calls from this number, URI, or prefix with `*`."""
    trunk: str | UnsetType = UNSET
    """Only calls of this `[[sip.trunk]]`, or of `"twilio"`."""
    headers: dict[Name, str] = {}
    """Only calls with these headers (SIP) or parameters (Twilio); `*` at the end of a value \
stands for anything."""
    max_duration_s: Seconds | UnsetType = UNSET
    """Instead of the agent's."""
    greeting_delay_ms: NonNegative | UnsetType = UNSET
    """Instead of the agent's."""
    plugins: tuple[Name, ...] | UnsetType = UNSET
    """The `[plugins.NAME]` of these calls, in this order. Left out: all that there are."""
    call_usd: Annotated[float, Meta(gt=0)] | UnsetType = UNSET
    """Instead of the one in `[cost]`."""
    number_usd: Annotated[float, Meta(gt=0)] | UnsetType = UNSET
    """Instead of the one in `[cost]`."""


def default_agent() -> Agent:
    """Make the agent of a configuration without `[agent.*]`."""
    return Agent(greeting=DEFAULT_GREETING, instructions=DEFAULT_INSTRUCTIONS)


class Config(Table, frozen=True):
    """The whole file, its drop-ins and defaults, checked."""

    daemon: Daemon = field(default_factory=Daemon)
    http: Http = field(default_factory=Http)
    twilio: Twilio = field(default_factory=Twilio)
    admin: Admin = field(default_factory=Admin)
    sip: Sip = field(default_factory=Sip)
    engine: dict[Name, EngineConfig] = field(default_factory=lambda: {"offline": EmulatorEngine()})
    agent: dict[Name, Agent] = field(default_factory=lambda: {"reception": default_agent()})
    number: tuple[Number, ...] = (Number(match="*", agent="reception"),)
    price: dict[Name, Price] = {}
    cost: Cost = field(default_factory=Cost)
    plugins: dict[Name, dict[str, Any]] = {}
    """Each plugin's own table, as written but for its secrets; `voiced.hooks` checks it."""
