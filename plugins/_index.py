"""A full-text index of a folder of texts, in SQLite's FTS5. Synchronous: for a thread.

Words are folded before SQLite sees them, for texts and queries alike: case, accents and the
Turkish i's go; Chinese, Japanese and Thai, which have no spaces, become single characters that a
query asks for in pairs. Longer words are also looked for by their first letters, which in Turkish,
German or English finds the other forms of a word.
"""

from __future__ import annotations

import math
import re
import sqlite3
import stat
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

__all__ = ["Index", "Passage", "Refreshed", "fold", "match_query", "passages"]

SUFFIXES: Final = (".md", ".txt")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, mtime INTEGER, size INTEGER);
CREATE TABLE IF NOT EXISTS passages (id INTEGER PRIMARY KEY, path TEXT, heading TEXT, text TEXT);
CREATE INDEX IF NOT EXISTS passages_path ON passages (path);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (heading, above, text,
    tokenize='unicode61 remove_diacritics 0', prefix='3 4 5');
"""
_VERSION: Final = 1

_STEM: Final = 5
"""First letters that stand for a word: what suits Turkish best, by Can et al., "Information
retrieval on Turkish texts" (2008), and does no harm elsewhere."""

_CLOSE_S: Final = 1.0  # for a thread that still reads; one that a disk holds is left behind

_LEAST: Final = 3  # letters of a word that has other forms

_MAX_TERMS: Final = 32

# Scripts without spaces: Thai, Lao, Khmer, kana, ideographs with their extensions.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_DOTLESS_I: Final = "\u0131"
_KANA_MARKS: Final = "\u3099\u309a"
_RUN: Final = re.compile(f"[{_UNSPACED}]+")
_CHARACTER: Final = re.compile(f"([{_UNSPACED}])")
_WORD: Final = re.compile(rf"[^\W_{_UNSPACED}]+|[{_UNSPACED}]+")
_HEADING: Final = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s*|\n")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a text: the file's name in the folder, the headings above it, the words."""

    file: str
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a look at the folder found."""

    changed: int
    removed: int
    passages: int
    left_out: tuple[str, ...]
    """Files with the reason, such as `big.md: larger than 1024 KiB`."""
    whole: bool
    """All was taken in; else there was no time for more."""


def fold(text: str) -> str:
    """Write `text` as words are compared: without case and marks, unspaced scripts spaced out."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text).casefold()
    text = text.replace(_DOTLESS_I, "i")
    # Marks go, but those of kana: they make another syllable.
    kept = "".join(
        character
        for character in unicodedata.normalize("NFD", text)
        if not unicodedata.combining(character) or character in _KANA_MARKS
    )
    return _CHARACTER.sub(r" \1 ", unicodedata.normalize("NFC", kept))


def match_query(text: str) -> str | None:
    """What FTS5 is asked for: any of the words, none of its operators. None without a word.

    Each term stands in quotes, so that no text is a syntax error or more than words.
    """
    terms: dict[str, None] = {}
    for word in _WORD.findall(unicodedata.normalize("NFKC", text)):
        folded = fold(word).split()
        if _RUN.fullmatch(word):
            pairs = pairwise(folded)
            found = [f'"{one} {two}"' for one, two in pairs] or [f'"{folded[0]}"']
        else:
            found = [f'"{one}"' for one in folded]
            found += [f'"{one[:_STEM]}"*' for one in folded if len(one) >= _LEAST]
        terms.update(dict.fromkeys(found))
        if len(terms) >= _MAX_TERMS:
            break
    return " OR ".join(list(terms)[:_MAX_TERMS]) or None


def passages(file: str, text: str, most: int) -> Iterator[Passage]:
    """Cut a text into passages of at most `most` characters, at headings, paragraphs, sentences."""
    above: list[tuple[int, str]] = []
    for heading, body in _sections(text, above):
        piece = ""
        for part in _parts(body, most):
            if piece and len(piece) + 2 + len(part) > most:
                yield Passage(file, heading, piece)
                piece = ""
            piece = f"{piece}\n\n{part}" if piece else part
        if piece:
            yield Passage(file, heading, piece)


def _sections(text: str, above: list[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        found = None if fenced else _HEADING.match(line)
        if found is None:
            lines.append(line)
            continue
        yield " > ".join(title for _, title in above), "\n".join(lines)
        lines = []
        level = len(found[1])
        above[:] = [one for one in above if one[0] < level] + [(level, found[2][:120])]
    yield " > ".join(title for _, title in above), "\n".join(lines)


def _parts(body: str, most: int) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", body):
        paragraph = paragraph.strip()
        while len(paragraph) > most:
            ends = [m.end() for m in _SENTENCE_END.finditer(paragraph, 0, most) if m.end()]
            cut = ends[-1] if ends else paragraph.rfind(" ", 1, most)
            cut = cut if cut > 0 else most
            yield paragraph[:cut].strip()
            paragraph = paragraph[cut:].strip()
        if paragraph:
            yield paragraph


def _go_on() -> None:
    """Nobody wants it to end."""


class Index:
    """The index of one folder. `refresh` and `search` may run in two threads, each in one."""

    def __init__(
        self, folder: Path, database: Path, *, max_files: int, max_kb: int, passage_chars: int
    ) -> None:
        """Open or make the index. Raises OSError or sqlite3.Error."""
        self._folder = folder
        self._max_files = max_files
        self._max_bytes = max_kb * 1024
        self._passage_chars = passage_chars
        self._writing = threading.Lock()
        self._writer = self._connect(database)
        try:
            self._reader = self._make(database)
        except BaseException:
            self._writer.close()
            raise

    def _make(self, database: Path) -> sqlite3.Connection:
        """Make the tables, anew where they were made otherwise; returns another connection."""
        stamp = f"{_VERSION}:{self._passage_chars}:{self._folder}"
        self._writer.execute("CREATE TABLE IF NOT EXISTS made (stamp TEXT)")
        if self._writer.execute("SELECT stamp FROM made").fetchall() != [(stamp,)]:
            for table in ("files", "passages", "words"):  # made otherwise: begin anew
                self._writer.execute(f"DROP TABLE IF EXISTS {table}")
            self._writer.execute("DELETE FROM made")
            self._writer.execute("INSERT INTO made VALUES (?)", (stamp,))
        self._writer.executescript(_SCHEMA)
        self._writer.commit()
        return self._connect(database)

    @staticmethod
    def _connect(database: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(database, check_same_thread=False, timeout=5.0)
        connection.execute("PRAGMA journal_mode = WAL")  # searches go on while files are read
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def close(self) -> None:
        """Give the files back; those of a `refresh` that does not end are left to it."""
        self._reader.close()
        if self._writing.acquire(timeout=_CLOSE_S):
            self._writer.close()

    # ---- reading the folder ----

    def refresh(self, within_s: float = math.inf, check: Callable[[], None] = _go_on) -> Refreshed:
        """Take in what has changed since the last time, as far as the time allows.

        `check` is called every few milliseconds, and ends it by what it raises: files that were
        taken in by then stay. Raises OSError or sqlite3.Error.
        """
        with self._writing:
            try:
                return self._refresh(time.monotonic() + within_s, check)
            except BaseException:
                self._writer.rollback()
                raise

    def _refresh(self, until: float, check: Callable[[], None]) -> Refreshed:
        found, left_out = self._look(check)
        known = {
            path: (mtime, size)
            for path, mtime, size in self._writer.execute("SELECT path, mtime, size FROM files")
        }
        removed = known.keys() - found.keys()
        for path in removed:
            self._forget(path)
        changed, whole = 0, True
        for path, stamp in found.items():
            if known.get(path) != stamp:
                whole = time.monotonic() < until
                if not whole:
                    break
                changed += self._take(path, stamp, left_out, check)
        self._writer.commit()
        (count,) = self._writer.execute("SELECT count(*) FROM passages").fetchone()
        return Refreshed(changed, len(removed), count, tuple(left_out), whole)

    def _look(self, check: Callable[[], None]) -> tuple[dict[str, tuple[int, int]], list[str]]:
        found: dict[str, tuple[int, int]] = {}
        left_out: list[str] = []
        paths: list[Path] = []
        for path in self._folder.rglob("*"):
            check()
            paths.append(path)
        # Hidden ones are not meant, and a link may lead to what no caller is to hear.
        for path in sorted(paths):
            check()
            name = path.relative_to(self._folder)
            if path.suffix.lower() not in SUFFIXES or any(p.startswith(".") for p in name.parts):
                continue
            try:
                str(name).encode()
                status = path.stat()
                inside = path.resolve().is_relative_to(self._folder.resolve())
            except UnicodeEncodeError:
                left_out.append(f"{str(name)!a}: its name is not UTF-8")
                continue
            except OSError as error:
                left_out.append(f"{name}: {error.strerror}")
                continue
            if not inside:
                left_out.append(f"{name}: a link to somewhere else")
            elif not stat.S_ISREG(status.st_mode):
                if not stat.S_ISDIR(status.st_mode):
                    left_out.append(f"{name}: no file")
            elif status.st_size > self._max_bytes:
                left_out.append(f"{name}: larger than {self._max_bytes // 1024} KiB")
            elif len(found) >= self._max_files:
                left_out.append(f"{name}: more than {self._max_files} files")
            else:
                found[str(name)] = (status.st_mtime_ns, status.st_size)
        return found, left_out

    def _take(
        self, path: str, stamp: tuple[int, int], left_out: list[str], check: Callable[[], None]
    ) -> int:
        """Read one file into the index; returns how many were taken."""
        self._forget(path)
        try:
            with (self._folder / path).open("rb") as file:
                text = file.read(self._max_bytes).decode("utf-8-sig")
        except UnicodeDecodeError:
            left_out.append(f"{path}: not UTF-8")
            return 0
        except OSError as error:
            left_out.append(f"{path}: {error.strerror}")
            return 0
        for one in passages(path, text, self._passage_chars):
            check()
            row = self._writer.execute(
                "INSERT INTO passages (path, heading, text) VALUES (?, ?, ?)",
                (path, one.heading, one.text),
            )
            above, _, heading = one.heading.rpartition(" > ")
            above = f"{Path(path).with_suffix('')} {above}"  # a file's name is a heading, too
            self._writer.execute(
                "INSERT INTO words (rowid, heading, above, text) VALUES (?, ?, ?, ?)",
                (row.lastrowid, fold(heading), fold(above), fold(one.text)),
            )
        self._writer.execute("INSERT INTO files VALUES (?, ?, ?)", (path, *stamp))
        self._writer.commit()  # by file: what is in is kept, however the rest goes
        return 1

    def _forget(self, path: str) -> None:
        inner = "SELECT id FROM passages WHERE path = ?"
        self._writer.execute(f"DELETE FROM words WHERE rowid IN ({inner})", (path,))  # noqa: S608
        self._writer.execute("DELETE FROM passages WHERE path = ?", (path,))
        self._writer.execute("DELETE FROM files WHERE path = ?", (path,))

    # ---- answering ----

    def search(self, query: str, most: int) -> list[Passage]:
        """The passages that fit best, at most `most`. Raises sqlite3.Error."""
        match = match_query(query)
        if match is None:
            return []
        rows = self._reader.execute(
            "SELECT path, passages.heading, passages.text FROM words"
            " JOIN passages ON passages.id = words.rowid"
            " WHERE words MATCH ? ORDER BY bm25(words, 3.0, 0.5, 1.0) LIMIT ?",
            (match, most),
        )
        return [Passage(*row) for row in rows]
