"""Bundled speech: short lines of a caller, of an agent, and of voiced itself, with their texts.

Made by tests/clips/make.py with a synthesiser. Read from disk when first asked for.
"""

from __future__ import annotations

import tomllib
import wave
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

__all__ = ["RATE", "Clip", "all_clips", "load", "names", "translated"]

RATE = 8000
_PACKAGE = files(__package__)


@dataclass(frozen=True, slots=True)
class Clip:
    """One spoken line. `pcm` is PCM16 at 8 kHz, mono, about -20 dBFS."""

    name: str
    role: Literal["caller", "agent", "prompt"]
    language: str  # ISO 639-1
    text: str
    answer: str | None  # of a caller's line: the name of the clip that answers it
    pcm: bytes = field(repr=False)
    say: str = ""  # the text for a synthesiser, where it differs (espeak-ng reads no kanji)

    @property
    def duration_ms(self) -> int:
        """Its length."""
        return len(self.pcm) * 1000 // (2 * RATE)


@cache
def _index() -> MappingProxyType[str, dict[str, Any]]:
    table = tomllib.loads(_PACKAGE.joinpath("index.toml").read_text("utf-8"))
    return MappingProxyType({entry["name"]: entry for entry in table["clip"]})


def names(role: Literal["caller", "agent", "prompt"] | None = None) -> tuple[str, ...]:
    """Return the names of all clips, or of those of one role, in the order of the index."""
    return tuple(n for n, entry in _index().items() if role is None or entry["role"] == role)


def translated(name: str, language: str) -> str:
    """Return the name of the same line in a language: `farewell_tr` of `farewell` for "tr-TR".

    `name` itself where there is none: the lines without an ending are English.
    """
    other = f"{name}_{language.partition('-')[0].lower()}"
    return other if other in _index() else name


@cache
def load(name: str) -> Clip:
    """Return a clip, read once. Raises KeyError for a name that the index lacks."""
    entry = _index()[name]
    with _PACKAGE.joinpath(f"{name}.wav").open("rb") as file, wave.open(file) as wav:
        if (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) != (1, 2, RATE):
            raise ValueError(f"clip {name!r} is not 16-bit mono PCM at {RATE} Hz")
        pcm = wav.readframes(wav.getnframes())
    return Clip(
        name=name,
        role=entry["role"],
        language=entry["language"],
        text=entry["text"],
        answer=entry.get("answer"),
        pcm=pcm,
        say=entry.get("say", ""),
    )


def all_clips(role: Literal["caller", "agent", "prompt"] | None = None) -> tuple[Clip, ...]:
    """Return all clips, or those of one role, in the order of the index."""
    return tuple(map(load, names(role)))
