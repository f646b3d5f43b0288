"""Transcripts on the disk: appended to while a call lasts, found again.

Everything here works on the disk, and runs in a worker thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from voiced_plugins._disk import open_new, open_regular
from voiced_plugins._wavfile import lock

__all__ = ["JSONL", "TEXT", "Paper", "papers", "write_text"]

JSONL: Final = ".jsonl"
TEXT: Final = ".txt"

_MARKS: Final = {JSONL: b'{"voiced":"transcript",', TEXT: b"Transcript of call "}
"""How a file of ours begins: others' are not ours to remove."""

_TRIES: Final = 100  # calls of one name


class Paper:
    """A file that grows by whole lines. It is locked while it is open, and not cleaned up."""

    def __init__(self, folder: Path, name: str, first: bytes) -> None:
        """Make the file. Raises OSError."""
        assert first.startswith(_MARKS[JSONL])
        self.path, self._fd = _new(folder, name, JSONL)
        lock(self._fd)
        self.size = 0
        try:
            self.append(first)
        except OSError:
            os.close(self._fd)
            self.path.unlink(missing_ok=True)
            raise

    def append(self, lines: bytes) -> None:
        """Add lines, each with its end. Raises OSError; half a line is then taken back."""
        try:
            view = memoryview(lines)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise
        self.size += len(lines)

    def close(self) -> None:
        """End the file."""
        os.close(self._fd)


def write_text(folder: Path, name: str, text: bytes) -> Path:
    """Write a whole file, which is there with all of its text or not at all. Raises OSError."""
    assert text.startswith(_MARKS[TEXT])
    path, fd = _new(folder, name, TEXT)
    part = path.with_name(path.name + ".part")
    try:
        # The name is taken already; what is half written has another.
        with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o640), "wb") as file:
            file.write(text)
        part.replace(path)
    except OSError:
        for each in (part, path):
            each.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    return path


def _new(folder: Path, name: str, suffix: str) -> tuple[Path, int]:
    """A file that was not there. Raises OSError."""
    for number in range(1, _TRIES):
        stem = name if number == 1 else f"{name}-{number}"
        path = folder / f"{stem}{suffix}"
        with suppress(FileExistsError):
            return path, _make(path)
    raise OSError(f"there are {_TRIES} transcripts of the name {name} already")


def _make(path: Path) -> int:
    return open_new(path, os.O_WRONLY | os.O_APPEND)


def papers(folder: Path) -> Iterator[Path]:
    """All files of ours."""
    for directory, _, files in os.walk(folder):
        for name in files:
            path = Path(directory, name)
            mark = _MARKS.get(path.suffix)
            if mark is None and name.endswith(TEXT + ".part"):
                mark = _MARKS[TEXT]
            with suppress(OSError):
                # Its name is taken before its text is there: one that is empty may be ours, but
                # says nothing about anybody.
                if mark is not None and _begins(path, mark):
                    yield path


def _begins(path: Path, mark: bytes) -> bool:
    with open_regular(path) as file:
        return file.read(len(mark)) == mark
