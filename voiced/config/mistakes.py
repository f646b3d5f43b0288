"""What is wrong with a configuration, said so that an operator can act on it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ConfigError", "KeyPath", "Mistake", "key_name"]

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys and, in arrays, indices from 0."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to put right: where it stands, what is wrong, what to do about it.

    `file` is None where no file is to blame, `line` counts from 1 and is None for a file as a
    whole, `key` is empty there too. Warnings are of this type as well.
    """

    file: Path | None
    line: int | None
    key: str
    message: str
    remedy: str

    def __str__(self) -> str:
        place = "configuration" if self.file is None else str(self.file)
        if self.line is not None:
            place += f":{self.line}"
        parts = [place, self.key, f"{self.message}; {self.remedy}"]
        # An operator's own text may hold anything; a mistake is one line whatever it was.
        return "".join(
            character if character.isprintable() else ascii(character)[1:-1]
            for character in ": ".join(part for part in parts if part)
        )


class ConfigError(Exception):
    """A configuration that voiced does not run with; `mistakes` holds all of them, never none."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))


def key_name(path: KeyPath) -> str:
    """Write a path as TOML does: `agent.reception.voice`, `price."gpt-realtime-2.1".text_in`.

    Indices are left out; the line number says which block is meant.
    """
    return ".".join(
        key if _BARE_KEY.fullmatch(key) else '"' + key.replace('"', '\\"') + '"'
        for key in path
        if isinstance(key, str)
    )
