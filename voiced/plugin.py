"""The public plugin API: everything that a plugin may import of voiced.

A plugin is a class that derives from `Plugin`. One object is made per call, so that what it keeps
in `self` belongs to that call. Its hooks are the methods `on_…` and `greeting`; they are coroutine
functions, run one after the other, never two of one object at a time, and each within the plugin's
`time_limit_s`. A hook that raises or takes longer is reported with the plugin's name and passed
over; the call does not notice.

Hooks are told what happened; they do not hold the call up. Three are asked, and waited for within
a shorter limit: `greeting`, `on_digit` and `on_tool_call`.

Times are milliseconds since audio began to flow (`at_ms`), audio is bytes of `self.call.format`.

It is one file, so that an author has one to read: settings and values first, then what a plugin may
do (`Call`), what it keeps for the daemon's life (`Service`), and its hooks (`Plugin`). Cut in three
it would be three tabs, each of which names types of the others.

For sound there are, each with a docstring of its own: `convert(payload, source, target)` for a
whole clip; `converter(source, target)` for a stream, None where nothing is to be done, else
`.convert(…)` for each piece and `.flush()` at the end; `energy`, `mean_squares`, `mix`,
`interleave`; `Vad`, which finds speech; `read_wav`, `parse_wav` and `wav_header`; and `read_file`
for what an operator names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Protocol

from msgspec import Struct

from voiced.audio import Converter, convert, converter, energy, interleave, mean_squares, mix
from voiced.formats import PCM16_8K, PCM16_16K, PCM16_24K, AudioFormat, Encoding
from voiced.leg import Transferred, Unsupported
from voiced.regular import read_file
from voiced.schema import check as check_schema
from voiced.vad import Vad, VadStarted, VadStopped
from voiced.wav import Wav, WavError
from voiced.wav import header as wav_header
from voiced.wav import parse as parse_wav
from voiced.wav import read as read_wav

__all__ = [
    "PCM16_8K",
    "PCM16_16K",
    "PCM16_24K",
    "SILENCE",
    "Arguments",
    "Audio",
    "AudioFormat",
    "Call",
    "Checked",
    "Clip",
    "Converter",
    "Encoding",
    "Greeting",
    "Host",
    "Line",
    "Playing",
    "Plugin",
    "PluginError",
    "Service",
    "Settings",
    "SoundFile",
    "Summary",
    "Tool",
    "ToolUse",
    "Transferred",
    "Unsupported",
    "Vad",
    "VadStarted",
    "VadStopped",
    "Wav",
    "WavError",
    "Words",
    "check_schema",
    "convert",
    "converter",
    "energy",
    "interleave",
    "mean_squares",
    "mix",
    "parse_wav",
    "read_file",
    "read_wav",
    "wav_header",
]

Json = str | int | float | bool | None

Arguments = Mapping[str, Any]
"""Of a tool, parsed, and fit to its schema."""


class PluginError(Exception):
    """Settings that cannot work, found when a plugin is loaded; the text says what to change."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of a plugin's `Config`: its table `[plugins.NAME]`, checked with the main file.

    Fields are typed as msgspec knows types; the string under a field is its documentation. A field
    `x: str | None` beside `x_file: Path | None` and `x_env: str | None` is a secret: exactly one of
    the three may be set, and the plugin finds it in `x`. Paths are absolute when the plugin sees
    them; those of files that have to be there are a `SoundFile`, or marked with `Checked`.
    """

    def mistakes(self) -> Iterable[str]:
        """What is wrong that types cannot say, each as "KEY: what; remedy". Yours to override."""
        return ()

    def __post_init__(self) -> None:
        if found := list(self.mistakes()):
            raise ValueError("\n".join(each.replace("\n", " ") for each in found))

    def __repr__(self) -> str:
        # Settings may end in a log or a traceback; their secrets may not.
        names = self.__struct_fields__
        shown = (f"{n}={'...' if f'{n}_env' in names else repr(getattr(self, n))}" for n in names)
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Checked:
    """Marks a path in settings, `Annotated[Path, Checked(look)]`: the file has to be there.

    Whenever the configuration is read, `look` is called with the absolute path. What it raises,
    `PluginError`, ValueError, WavError or OSError, is a mistake of that key; its text goes on after
    the file's name, such as "is empty; write a name a line".
    """

    look: Callable[[Path], object]


def _playable(path: Path) -> None:
    try:
        wav = read_wav(path)
    except WavError as error:
        _, remedy, _ = str(error).partition("; ")
        raise WavError(f"{error}" if remedy else f"{error}; name a WAV file") from None
    if not wav.data:
        raise WavError("holds no audio; name another file")


SoundFile = Annotated[Path, Checked(_playable)]
"""The type of a key that names a WAV file to be played."""


@dataclass(frozen=True, slots=True)
class Audio:
    """Sound: samples of one channel in `format`, and the words that are spoken, where known."""

    payload: bytes
    format: AudioFormat
    text: str = ""


Clip = Path | Audio | str
"""What can be played: a WAV file, sound, or the name of a message that ships with voiced."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a caller is greeted with: the clips, in order, then the greeting itself.

    `audio` is None where the agent's own greeting is heard, if it has one. With it that is not
    asked for; `audio.text` is put into the conversation as said by the agent. `SILENCE` is sound of
    no length: with it nobody greets.
    """

    before: tuple[Clip, ...] = ()
    audio: Audio | None = None


SILENCE: Final = Audio(b"", PCM16_8K)
"""For a `Greeting` without one: a plugin has the first word, or a machine hears the caller."""


@dataclass(frozen=True, slots=True)
class Words:
    """Words of one side. Without `final`, `text` is the next piece; with it, all of the item's.

    `cut`: the caller interrupted, and `text` is what was heard of the item, whether its words were
    told before or, by a model that writes down what it has said, came to be known only then.
    """

    role: Literal["caller", "agent"]
    item_id: str
    text: str
    final: bool
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """An item of the conversation as it was heard."""

    role: Literal["caller", "agent"]
    text: str
    cut: bool


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The model wants to call a tool. `arguments` are parsed, and fit the tool's schema."""

    call_id: str
    name: str
    arguments: Arguments


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    `parameters` is a JSON Schema of type object. `handler` takes the arguments and returns what
    the model is told: a text, or a mapping that becomes JSON. It runs as a task of the call, at
    most `timeout_s`; what it raises the model is told as a failure. While it runs the caller hears
    `filler` (a clip), if any. With `answer` false the model is not asked to speak afterwards.
    """

    name: str
    description: str
    handler: Callable[[Arguments], Awaitable[str | Mapping[str, Any] | None]]
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    timeout_s: float = 10.0
    filler: Clip | None = None
    answer: bool = True


@dataclass(frozen=True, slots=True)
class Summary:
    """A call that has ended, as its journal row has it."""

    call_id: str
    reason: str
    started_at: float  # Unix time
    ended_at: float
    duration_ms: int
    media_ms: int
    states: Sequence[tuple[str, int]]  # (state, ms since started_at)
    latencies: Mapping[str, object]
    usage: Mapping[str, float]
    cost_usd: float | None
    transcript: Sequence[Line]
    facts: Mapping[str, Json]


class Playing(Protocol):
    """A clip that waits to be heard or is being heard."""

    async def heard(self) -> bool:
        """Wait until it is over; True if it was heard to its end, False if it was cut off."""


class Call(Protocol):
    """The call, as a plugin sees it and acts on it. Nothing here blocks but what is `async`.

    Methods raise `Unsupported` where the call cannot do what is asked, now or ever (no audio yet,
    ending, carrier without the feature).
    """

    @property
    def call_id(self) -> str:
        """Ours: 16 hexadecimal digits."""

    @property
    def carrier(self) -> str:
        """`twilio` or `sip`."""

    @property
    def carrier_call_id(self) -> str:
        """Twilio's CallSid or the SIP Call-ID."""

    @property
    def caller(self) -> str:
        """Who calls: E.164, a SIP URI, or what the carrier says. Can be forged."""

    @property
    def called(self) -> str:
        """Whom they called."""

    @property
    def direction(self) -> Literal["inbound", "outbound"]:
        """`outbound`: voiced placed the call."""

    @property
    def trunk(self) -> str | None:
        """The `[[sip.trunk]]`; None with Twilio."""

    @property
    def parameters(self) -> Mapping[str, str]:
        """What else the carrier said: Twilio's parameters, a trunk's headers.

        May grow while the call lives: see `Plugin.on_parameters`.
        """

    @property
    def agent(self) -> str:
        """The `[agent.NAME]` that answers."""

    @property
    def engine(self) -> str:
        """The `[engine.NAME]` that talks now."""

    @property
    def shaping(self) -> Mapping[str, str]:
        """All that shapes what the model says first: engine, model, voice, instructions and more.

        Two calls with equal values can be greeted with the same sound.
        """

    @property
    def language(self) -> str:
        """The agent's language, an ISO 639 code or `auto`."""

    @property
    def format(self) -> AudioFormat:
        """Of the audio that hooks get."""

    @property
    def state(self) -> str:
        """A name of `voiced.states.CallState`."""

    @property
    def started_at(self) -> float:
        """When it began, at its first sign: Unix time, as in its `Summary` and its journal row."""

    @property
    def media_ms(self) -> int:
        """Milliseconds since audio began to flow; 0 before."""

    @property
    def log(self) -> Any:
        """A structlog logger bound to the call and the plugin."""

    def play(self, *clips: Clip) -> Playing:
        """Have clips heard after what is being said; the model does not know of them."""

    def say(self, text: str) -> None:
        """Have the agent speak these words exactly, in the model's voice.

        With `tell` at most 64,000 characters, and 128 texts, in a minute.
        """

    def tell(
        self, text: str, *, role: Literal["system", "user"] = "system", answer: bool = True
    ) -> None:
        """Put a text into the conversation, and let the model answer it.

        Without `answer` before audio flows, too: what the model is to know when it greets is told
        in `Plugin.greeting`, which is waited for. The greeting is this caller's then, and not kept.
        """

    def interrupt(self) -> None:
        """Silence the agent now, as a caller's interruption does, and clips that wait."""

    def send_digits(self, digits: str) -> None:
        """Press keys, of `0-9 * # A-D`; a comma is a pause."""

    async def transfer(self, target: str) -> Transferred:
        """Hand the caller over to an E.164 number or SIP URI; where that fails the call goes on.

        Where it succeeds the call is over, and with it the task that waits here: what is to be
        noted of it belongs into `on_call_end`, whose summary has the reason `transferred`. Raises
        ValueError for a target that is none.
        """

    def hang_up(
        self, *, farewell: Clip | bool = True, now: bool = False, reason: str = "plugin"
    ) -> None:
        """End the call, once what is being said has been heard, or `now`.

        The last words are the agent's farewell, a clip, or with False nothing more. `reason` is
        the journal's.
        """

    def set_fact(self, name: str, value: Json) -> None:
        """Note something in the call's journal row; at most 48 facts of 4,096 characters.

        Raises ValueError beyond that, and for a value that is no text, number, bool or None.
        """

    def register_tool(self, tool: Tool) -> None:
        """Let the model call `tool` from now on; at most 48.

        Raises ValueError beyond that, and for a name that is taken.
        """

    async def run_tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Run a tool that any plugin has registered. Raises KeyError, or what the tool raises."""

    def take_over(self) -> AbstractAsyncContextManager[None]:
        """While in this context the model neither hears the caller nor is heard."""

    def start(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a coroutine function as a task of the call; it is cancelled when the call ends.

        At most 64 at a time. Once cancelled it has half a second to end.
        """


class Host(Protocol):
    """The daemon, as a plugin's `Service` sees it."""

    @property
    def name(self) -> str:
        """The plugin's, as in `[plugins.NAME]`."""

    @property
    def state_dir(self) -> Path:
        """A folder for this plugin alone, made (0750) when first asked for."""

    @property
    def log(self) -> Any:
        """A structlog logger bound to the plugin."""

    def annotate(self, call_id: str, name: str, value: Json) -> None:
        """Note something in the journal row of a call that has ended."""

    async def complete(
        self, engine: str, messages: Sequence[Mapping[str, str]], *, call_id: str | None = None
    ) -> str:
        """Ask the chat model of `[engine.NAME]`, a pipeline or the emulator, for one answer.

        `messages` are `{"role": "system" | "user" | "assistant", "content": "…"}`; `call_id` is the
        call that the answer is about, and is billed to. Raises `PluginError` for an engine without
        a chat model, OSError where the server fails.
        """


class Service:
    """What a plugin keeps for the whole life of the daemon: an index, a spool, a clean-up.

    One object is made per `[plugins.NAME]` table; the plugin's call objects find it in
    `self.service`.
    """

    def __init__(self, config: Any, host: Host) -> None:
        self.config = config
        self.host = host

    async def open(self) -> None:
        """Make ready, before the first call. Raises PluginError or OSError: voiced will not start.

        At a reload the old configuration stays instead.
        """

    async def run(self) -> None:
        """Work in the background. It may return; it is cancelled after the last call has ended.

        An exception is reported and costs the service its background work, nothing else.
        """

    async def close(self) -> None:
        """Give back what it holds. Shielded, for at most 3 s."""


class Plugin:
    """Base of all plugins; see the module's text. Override what you need, and nothing else.

    Public coroutine methods whose names begin with `on_` must be hooks: others are refused when
    the plugin is loaded, with the name that was probably meant.
    """

    Config: ClassVar[type[Settings]] = Settings
    """The type of the plugin's table."""
    Service: ClassVar[type[Service]] = Service
    """What is kept for the daemon's life."""
    providers: ClassVar[Mapping[str, Callable[[Any, Any], Any]]] = {}
    """Steps of a pipeline engine that it supplies, by kind: `stt`, `chat`, `tts`, `detector`.

    Each value, a class or a function, is called as `make(settings, service)`: with what the engine
    says of the step, and with the plugin's `Service`, whose `config` is the plugin's own table.
    Engines name it by `[plugins.NAME]`. See `voiced.pipeline.providers`."""
    time_limit_s: ClassVar[float] = 5.0
    """How long one hook may take."""
    audio_ms: ClassVar[int] = 200
    """How much audio there is before the audio hooks are told (20 to 2000 ms), unless something
    else happens before: each time costs many times what a frame does, in every call."""

    def __init__(self, call: Call, config: Any, service: Any) -> None:
        self.call = call
        self.config = config
        self.service = service

    # ---- the call ----

    async def on_call_start(self) -> None:
        """The call's first sign has come; nothing is answered and no audio flows yet."""

    async def on_media(self) -> None:
        """Audio flows: whatever is played from here on is heard."""

    async def on_call_end(self, summary: Summary) -> None:
        """The call is over and the line is down. Nothing else happens; facts may still be set."""

    async def on_call_over(self, summary: Summary) -> None:
        """Every plugin has had its `on_call_end`, and `summary.facts` has what they noted.

        For those that pass the summary on. Comes at most 5 s after the line is down, whatever
        others do, and has half a second then.
        """

    async def on_state(self, previous: str, state: str) -> None:
        """The call's state has changed; names as in `voiced.states.CallState`."""

    async def on_parameters(self, changed: Mapping[str, str]) -> None:
        """The carrier has said more: what is new or other in `call.parameters`.

        Of a call that voiced placed over Twilio with machine detection: `AnsweredBy`.
        """

    # ---- the greeting ----

    async def greeting(self, planned: Greeting) -> Greeting | None:
        """Supply the greeting, or change what others planned; None keeps it as it is.

        Asked once, at the call's first sign, in the order of the plugins; at most 1 s.
        """

    async def on_greeting_made(self, audio: Audio) -> None:
        """The model's own greeting, whole, as it can be played again: `audio.text` has its words.

        Not called for one that the caller interrupted before the model had made all of it, nor
        for one that may be meant for this caller alone: who spoke first, or of whom it was told.
        """

    # ---- audio ----

    async def on_caller_audio(self, payload: bytes, at_ms: int) -> None:
        """What the caller said from `at_ms` on; pieces follow each other without a gap."""

    async def on_agent_audio(self, payload: bytes, at_ms: int) -> None:
        """What the caller heard from `at_ms` on; nothing stands for silence between pieces.

        Comes once it has been heard, up to 2 s late; what an interruption cut off never comes.
        """

    # ---- the conversation ----

    async def on_session_ready(self) -> None:
        """The model's session is configured, for the first time or after a loss."""

    async def on_speech_started(self) -> None:
        """The caller began to speak."""

    async def on_speech_stopped(self) -> None:
        """The caller's turn is over."""

    async def on_response_started(self, response_id: str) -> None:
        """The model has begun to answer."""

    async def on_response_done(self, response_id: str, status: str) -> None:
        """An answer has ended: `completed`, `cancelled`, `incomplete` or `failed`."""

    async def on_transcript(self, words: Words) -> None:
        """Words of either side, as they become known."""

    async def on_barge_in(self, heard_ms: int) -> None:
        """The caller interrupted an answer of which `heard_ms` had been heard."""

    async def on_digit(self, digit: str) -> bool | None:
        """The caller pressed a key. True: it is dealt with, neither others nor the model see it.

        Asked in the order of the plugins; at most 1 s. Those before this one have seen it: what
        only reports keys belongs into `on_digit_passed`.
        """

    async def on_digit_passed(self, digit: str) -> None:
        """The caller pressed a key, all `on_digit` were asked, and none took it.

        What was taken, the digits of a PIN say, never comes here, in whatever order plugins are.
        """

    async def on_tool_call(self, use: ToolUse) -> str | None:
        """The model calls a tool, anybody's. A text: it is not run, the model is told this.

        Asked in the order of the plugins; at most 1 s.
        """

    async def on_engine_error(self, code: str, message: str, lost: bool) -> None:
        """The model refused something, or was lost."""
