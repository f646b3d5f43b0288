"""Who answers: `[agent.NAME]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, field

from voiced.config.table import (
    Fraction,
    Name,
    NonNegative,
    Positive,
    Seconds,
    SecondsOrNever,
    Table,
)

__all__ = [
    "DEFAULT_GREETING",
    "DEFAULT_INSTRUCTIONS",
    "GIVE_UP",
    "Agent",
    "OwnVad",
    "SemanticVad",
    "ServerVad",
    "TurnDetection",
    "default_agent",
]


DEFAULT_GREETING: Final = "Greet the caller warmly in one short sentence and ask how you can help."
"""How an agent greets that says nothing about greeting."""

DEFAULT_INSTRUCTIONS: Final = (
    "You answer the telephone. Be friendly and brief: one or two short sentences at a time, "
    "in the caller's language. Say so when you do not know something."
)
"""What an agent is told that has no instructions of its own."""

GIVE_UP: Final = 3
"""A model that owes an answer gets this many times `no_answer_s` before the call is ended."""


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
    """How long a lost model is tried again before the fallback engine or the end; 0: not at all. \
One that asks for more than 2 s (`Retry-After`) is left for the fallback engine at once."""
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
    """How long a caller may hear nothing when the model owes an answer; three times as long ends \
the call."""
    unavailable_file: Path | None = None
    """A WAV file played when the model cannot be reached. Left out: a bundled message."""
    one_moment_file: Path | None = None
    """A WAV file played while the model is slow or lost, and cut short where the answer is there \
and 1.8 s or more of it are left. Left out: a bundled message."""
    still_there_file: Path | None = None
    """A WAV file that asks a silent caller. Left out: a bundled message."""
    farewell_file: Path | None = None
    """A WAV file for the end, where the model cannot say `farewell_text`. Left out: a bundled \
message."""
    transfer_when_lost: Name | None = None
    """Where callers are transferred when no model can be reached, a number or SIP URI. A \
caller who holds the call is transferred when back; after three minutes of hold it ends. Left out: \
the call ends after the message."""
    facts: tuple[str, ...] = ()
    """What the model is told of each call: `"caller"`, `"called"`, `"trunk"`, or the name of a \
header or parameter such as `"Diversion"` or `"X-Customer"`. Callers can forge them."""
    lead_ms: Annotated[int, Meta(ge=1, le=20_000)] | None = None
    """How much audio the carrier may hold unheard. Left out: what suits the carrier."""
    resampler: Literal["fir", "linear"] = "fir"
    """`fir` sounds better, `linear` costs less."""


def default_agent() -> Agent:
    """Make the agent of a configuration without `[agent.*]`."""
    return Agent(greeting=DEFAULT_GREETING, instructions=DEFAULT_INSTRUCTIONS)
