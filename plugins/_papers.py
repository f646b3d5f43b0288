"""Transcripts on the disk: appended to while a call lasts, found again, removed when they are old.

Everything here works on the disk, and runs in a worker thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from voiced_plugins._disk import open_new, open_regular
from voiced_plugins._wavfile import lock

__all__ = ["JSONL", "TEXT", "Paper", "Removed", "sweep", "write_text"]

JSONL: Final = ".jsonl"
TEXT: Final = ".txt"

_MARKS: Final = {JSONL: b'{"voiced":"transcript",', TEXT: b"Transcript of call "}
"""How a file of ours begins: others' are not ours to remove."""

_TRIES: Final = 100  # calls of one name


@dataclass(frozen=True, slots=True)
class Removed:
    """What a clean-up removed."""

    files: int = 0
    size: int = 0


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


def sweep(folder: Path, *, older_than_s: float, max_bytes: int | None, now: float) -> Removed:
    """Remove what is too old, then the oldest until the rest fits; never one that is written.

    With an age of 0 all of it is too old, whatever clock it was made by.
    """
    files: list[tuple[float, int, Path]] = []
    for path in _ours(folder):
        with suppress(OSError):
            status = path.stat()
            files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    count = gone = 0
    for modified, size, path in sorted(files):
        much = max_bytes is not None and total - gone > max_bytes
        if not (much or not older_than_s or modified <= now - older_than_s):
            break
        if _unlink(path):
            count, gone = count + 1, gone + size
    for directory, folders, _ in os.walk(folder, topdown=False):
        for each in folders:
            with suppress(OSError):  # not empty
                Path(directory, each).rmdir()
    return Removed(count, gone)


def _unlink(path: Path) -> bool:
    with suppress(OSError), open_regular(path) as file:
        if lock(file.fileno()):
            path.unlink()
            return True
    return False


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


def _ours(folder: Path) -> Iterator[Path]:
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
