"""Which line of a TOML text holds which key (TOML 1.0, toml.io/en/v1.0.0).

`tomllib` keeps no positions. This scanner reads the same text once more for the places of keys and
array elements alone; it expects text that `tomllib` has accepted, and on any other it stops early
and returns what it has. Values are skipped, never interpreted.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Mapping

from voiced.config.mistakes import KeyPath

__all__ = ["locate"]

_BLANK = re.compile(r"[ \t]*")
_FILLER = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")  # what may stand between the elements of an array
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")  # numbers, dates, booleans
# The longer delimiters first; a multi-line string may end in two quotes of its own.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)


def locate(text: str) -> Mapping[KeyPath, int]:
    """Line numbers, from 1, of every table, key and array element of `text`.

    A table has the line of its header, or of the first key that implies it.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    with contextlib.suppress(_NotTomlError, RecursionError):
        scanner.document()
    return scanner.lines


class _NotTomlError(Exception):
    """The text is not TOML from here on."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self._sizes: dict[KeyPath, int] = {}  # of arrays of tables
        self._line = 1
        self._line_at = 0  # where `_line` was counted up to: each newline is counted once

    def document(self) -> None:
        table: KeyPath = ()
        while True:
            self._skip(_FILLER)
            if self.at >= len(self.text):
                return
            if self.text.startswith("[[", self.at):
                table = self._header(2)
            elif self.text.startswith("[", self.at):
                table = self._header(1)
            else:
                self._pair(table)

    def _header(self, brackets: int) -> KeyPath:
        line = self._line_number()
        self.at += brackets
        keys = self._key()
        self._expect("]" * brackets)
        path: KeyPath = ()
        for key in keys[:-1]:
            path = self._last_element((*path, key))
            self.lines.setdefault(path, line)
        path = (*path, keys[-1])
        self.lines.setdefault(path, line)
        if brackets == 2:
            index = self._sizes.get(path, 0)
            self._sizes[path] = index + 1
            path = (*path, index)
            self.lines[path] = line
        return path

    def _last_element(self, path: KeyPath) -> KeyPath:
        """`path`, or its newest element where it is an array of tables."""
        size = self._sizes.get(path)
        return path if size is None else (*path, size - 1)

    def _pair(self, table: KeyPath) -> None:
        line = self._line_number()
        path = table
        for key in self._key():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._expect("=")
        self._skip(_BLANK)
        self._value(path)

    def _key(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANK)
            if self.text.startswith(("'", '"'), self.at):
                quoted = self._skip(_STRING)
                try:
                    keys.append(str(tomllib.loads(f"key = {quoted}")["key"]))
                except tomllib.TOMLDecodeError:
                    raise _NotTomlError from None
            else:
                keys.append(self._skip(_BARE_KEY))
            self._skip(_BLANK)
            if not self.text.startswith(".", self.at):
                return keys
            self.at += 1

    def _value(self, path: KeyPath) -> None:
        if self.text.startswith(("'", '"'), self.at):
            self._skip(_STRING)
        elif self.text.startswith("[", self.at):
            self._array(path)
        elif self.text.startswith("{", self.at):
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        while True:
            self._skip(_FILLER)
            if self.text.startswith("]", self.at):
                self.at += 1
                return
            self.lines[(*path, index)] = self._line_number()
            self._value((*path, index))
            index += 1
            self._skip(_FILLER)
            if not self.text.startswith("]", self.at):
                self._expect(",")

    def _inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while True:
            self._skip(_FILLER)  # TOML 1.0 allows blanks alone here, 1.1 new lines too
            if self.text.startswith("}", self.at):
                self.at += 1
                return
            self._pair(path)
            self._skip(_FILLER)
            if not self.text.startswith("}", self.at):
                self._expect(",")

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise _NotTomlError
        self.at = match.end()
        return match[0]

    def _expect(self, mark: str) -> None:
        self._skip(_BLANK)
        if not self.text.startswith(mark, self.at):
            raise _NotTomlError
        self.at += len(mark)

    def _line_number(self) -> int:
        self._line += self.text.count("\n", self._line_at, self.at)
        self._line_at = self.at
        return self._line
