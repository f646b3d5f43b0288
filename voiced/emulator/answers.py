"""What the emulator says: chosen by what it was told to say, or by the line that it recognised."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from voiced import clips
from voiced.emulator.items import Item

__all__ = ["Line", "choose", "language_of", "pieces"]

_EXACTLY: Final = re.compile(r'exactly the following words and nothing else:\s*"(.*)"', re.S)
_SCRIPTS: Final = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("tr", re.compile("[ğışĞİŞ]")),
)


@dataclass(frozen=True, slots=True)
class Line:
    """Words to say, and the recording of them where there is one."""

    text: str
    language: str
    clip: str | None = None


def language_of(text: str, default: str) -> str:
    """Guess the language by its script; `default` where that says nothing."""
    return next((code for code, script in _SCRIPTS if script.search(text)), default)


def _clip(name: str, language: str = "en") -> Line:
    localised = f"{name}_{language}"
    clip = clips.load(localised if localised in clips.names("agent") else name)
    return Line(clip.text, clip.language, clip.name)


def choose(instructions: str | None, context: Sequence[Item], language: str, turn: int) -> Line:
    """Choose an answer.

    Args:
        instructions: those of this response alone, None where it has none.
        context: the conversation so far, or the response's own input.
        language: of the session, for greetings and guesses.
        turn: how many answers there have been, to vary what is said to the unknown.
    """
    if instructions:
        told = _EXACTLY.search(instructions)
        if told and told[1].strip():
            text = told[1].strip()
            return _recorded(text) or Line(text, language_of(text, language))
        if "greet" in instructions.lower():
            return _clip("greeting", language)
    asked = next((item for item in reversed(context) if item.role == "user"), None)
    if asked is None:
        return _clip("greeting" if turn == 0 else "anything_else", language)
    if asked.clip is not None:
        answer = clips.load(asked.clip).answer
        return _clip(answer or "tell_me_more")
    if asked.heard_speech:
        return _clip("not_understood", language)
    known = next((c for c in clips.all_clips("caller") if c.text == asked.text), None)
    if known is not None and known.answer:
        return _clip(known.answer)
    return _clip("tell_me_more" if turn % 2 else "anything_else", language)


def _recorded(text: str) -> Line | None:
    """Find a recording of exactly this text in the agent's voice."""
    for role in ("agent", "prompt"):
        for name in clips.names(role):
            clip = clips.load(name)
            if clip.text == text:
                return Line(clip.text, clip.language, clip.name)
    return None


def pieces(text: str) -> list[str]:
    """Cut into words with their spaces; where a script has none, into runs of four characters."""
    words = text.split(" ")
    if len(words) == 1:
        return [text[i : i + 4] for i in range(0, len(text), 4)]
    return [word + " " for word in words[:-1]] + [words[-1]]
