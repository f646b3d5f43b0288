"""TOML files as one document, each value with the place it came from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from voiced.config.lines import locate
from voiced.config.mistakes import ConfigError, KeyPath, Mistake, key_name
from voiced.regular import open_regular

__all__ = ["MAX_BYTES", "Document", "Place", "read"]

MAX_BYTES: Final = 4 * 1024 * 1024
"""The largest file that is read: a device or a log named by mistake fills no memory."""

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file; `line` is None for the file as a whole, `file` where there is none."""

    file: Path | None = None
    line: int | None = None


@dataclass
class Document:
    """The values of one or more files, laid over each other.

    `data` is what `tomllib` makes of TOML. `folder` is what relative paths are counted from.
    """

    data: dict[str, Any] = field(default_factory=dict)
    folder: Path = field(default_factory=Path)
    files: list[Path] = field(default_factory=list)
    _places: dict[KeyPath, Place] = field(default_factory=dict)

    def place(self, path: KeyPath) -> Place:
        """Where `path` stands, or the nearest table around it."""
        for length in range(len(path), 0, -1):
            if place := self._places.get(path[:length]):
                return place
        return Place(self.files[0]) if self.files else Place()

    def mistake(self, path: KeyPath, message: str, remedy: str) -> Mistake:
        """Make a mistake, or a warning, about the value at `path`."""
        place = self.place(path)
        return Mistake(place.file, place.line, key_name(path), message, remedy)

    def lay_over(self, other: Document) -> list[Mistake]:
        """Add the values of `other`: tables are joined, anything else is replaced.

        Returns a warning for each array of tables that is replaced, which is easily overlooked.
        """
        warnings: list[Mistake] = []
        self._join(self.data, other.data, (), other, warnings)
        self.files += other.files
        return warnings

    def _join(
        self,
        mine: dict[str, Any],
        theirs: dict[str, Any],
        above: KeyPath,
        other: Document,
        warnings: list[Mistake],
    ) -> None:
        for key, value in theirs.items():
            path = (*above, key)
            old = mine.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                self._join(old, value, path, other, warnings)
                continue
            if _holds_tables(old) and _holds_tables(value):
                message = f"replaces all {len(old or ())} of {self.place(path).file}"
                remedy = "repeat here those that are still wanted"
                warnings.append(other.mistake(path, message, remedy))
            mine[key] = value
            self._places = {
                place: line for place, line in self._places.items() if place[: len(path)] != path
            } | {place: line for place, line in other._places.items() if place[: len(path)] == path}


def _holds_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def read(path: Path, *, piped: bool = False) -> Document:
    """Read a file. Raises ConfigError, with one mistake, where it cannot be read or is no TOML.

    With `piped` it may be what a command writes, as in `-c <(command)`.
    """
    try:
        with path.open("rb") if piped else open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise _refused(path, "is a folder", "name the TOML file in it") from None
    except FileNotFoundError:
        remedy = f"write one with: voiced init {path}"
        raise _refused(path, "there is no such file", remedy) from None
    except PermissionError:
        remedy = "let the user that runs voiced read it, or run as another user"
        raise _refused(path, "cannot be read: permission denied", remedy) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise _refused(path, f"cannot be read: {reason}", "name another file") from None
    if len(content) > MAX_BYTES:
        message = f"is larger than {MAX_BYTES // 2**20} MiB"
        raise _refused(path, message, "name a TOML file")
    return parse(content, path)


def parse(content: bytes, path: Path) -> Document:
    """Parse a file's content; `path` is for messages and relative paths. Raises ConfigError."""
    try:
        text = content.decode("utf-8-sig")  # editors on Windows begin a file with a mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8: byte 0x{content[error.start]:02x}"
        raise _refused(path, message, "save the file as UTF-8", line) from None
    try:
        data = tomllib.loads(text)
    except RecursionError:
        message = "arrays or tables are nested too deep"
        raise _refused(path, message, "remove some levels") from None
    except ValueError as error:  # TOMLDecodeError, and numbers too long for Python
        raise _syntax(path, text, str(error)) from None
    places = {key: Place(path, line) for key, line in locate(text).items()}
    return Document(data, path.parent, [path], places)


_BARE: Final = re.compile(r"[\w-]+")
_IN_VALUE: Final = re.compile(r"[^\"'=]*=")
_TWICE: Final = re.compile(r"Cannot declare \((.*)\) twice")  # tomllib shows a tuple

_REMEDIES: Final[Sequence[tuple[str, str]]] = (
    ("Invalid value", 'write text in "quotes", and switches as true or false'),
    ("Cannot overwrite a value", "the key is there twice: remove one"),
    ("Cannot declare", "the table is there twice: join the two"),
    ("Cannot mutate immutable", "the table is there twice: join the two"),
    ("Expected '='", "write KEY = VALUE, one to a line"),
    ("Illegal character", "close the quotes on the same line"),
    ("Unterminated string", "close the quotes"),
    ('Expected "\'"', "close the quotes"),
    ("Unclosed array", "close the bracket ]"),
    ("Unescaped '\\'", r"write \\ for a backslash, or use 'single quotes'"),
    ("Expected newline", "write one KEY = VALUE to a line, and text in quotes"),
    ("Expected ']'", "close the bracket ]"),
    ("Invalid statement", "write KEY = VALUE, [TABLE] or # a comment"),
    ("Invalid initial character for a key", "write a key of letters, digits, _ and -"),
)


def _syntax(path: Path, text: str, error: str) -> ConfigError:
    position = _POSITION.search(error)
    message = error[: position.start()] if position else error
    line: int | None = None
    if position:
        # At the end of the document, the last line that says something is the one to look at.
        line = int(position[1]) if position[1] else text.rstrip().count("\n") + 1
    for beginning, known in _REMEDIES:
        if message.startswith(beginning):
            remedy = known
            break
    else:
        remedy = "see toml.io for how TOML is written"
    if position and position[1] and (name := _foreign(text, int(position[1]), int(position[2]))):
        remedy = f'names with other letters than a to z stand in quotes: "{name}"'
    if twice := _TWICE.match(message):
        table = ".".join(re.findall(r"'([^']*)'", twice[1]))
        message = f"[{table}] is there twice"
        remedy = f"join the two, or write [[{table}]] both times where it is a list"
    column = f", column {position[2]}" if position and position[2] else ""
    return _refused(path, f"is not TOML{column}: {message[:1].lower()}{message[1:]}", remedy, line)


def _foreign(text: str, line: int, column: int) -> str | None:
    """The bare name at a place, if it stumbles over a letter that TOML wants in quotes there."""
    written = text.replace("\r\n", "\n").split("\n")[line - 1]
    letter = written[column - 1 : column]
    if letter.isascii() or not letter.isalpha() or _IN_VALUE.match(written[: column - 1]):
        return None
    return next(
        found[0] for found in _BARE.finditer(written) if found.start() < column <= found.end()
    )


def _refused(path: Path, message: str, remedy: str, line: int | None = None) -> ConfigError:
    return ConfigError([Mistake(path, line, "", message, remedy)])
