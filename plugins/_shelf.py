"""The folder of recordings: names that are safe everywhere, what a crash left, what is whole.

Everything here works on the disk, and runs in a worker thread.
"""

from __future__ import annotations

import os
import string
import time
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from voiced_plugins._disk import open_regular
from voiced_plugins._wavfile import HEAD, lock, repair, wav_call_of

__all__ = [
    "FIELDS",
    "SEALED",
    "SEALED_MAGIC",
    "Found",
    "Place",
    "fill",
    "mend",
    "places",
    "recordings",
    "remove",
    "sealed_call_of",
    "wrong_pattern",
]

FIELDS: Final = ("agent", "call_id", "called", "caller", "carrier", "date", "direction", "time")
"""What a pattern may name."""

SEALED: Final = ".sealed"
SEALED_MAGIC: Final = b"VOICEDR1"
_PART: Final = ".part"
_MAX_NAME: Final = 80  # bytes of one field
_MAX_PART: Final = 200  # of a file's or folder's name: file systems take 255, and ours have ends
_SAFE: Final = frozenset("+-_.@")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a recording is while it is made, and afterwards."""

    part: Path
    final: Path


@dataclass(frozen=True, slots=True)
class Found:
    """What a crash left behind, now a recording like any other."""

    call_id: str
    path: Path
    size: int


def wrong_pattern(pattern: str) -> Iterator[str]:
    """Why a pattern of names cannot work."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None]
    except ValueError as error:  # a brace that nobody closes
        yield f"pattern: {error}; write braces around names only"
        return
    for name in names:
        if name not in FIELDS:
            known = ", ".join(f"{{{each}}}" for each in FIELDS)
            yield f"pattern: there is no {{{name}}}; write {known}"
    parts = pattern.split("/")
    if not pattern or "\0" in pattern or any(part.strip(". ") == "" for part in parts):
        yield "pattern: is no path below the folder; none of its parts may be empty or dots"


def fill(pattern: str, facts: Mapping[str, str], at: float) -> str:
    """The name that `pattern` gives a call that began at `at`, Unix time. Times are UTC."""
    utc = time.gmtime(at)
    dates = {"date": time.strftime("%Y-%m-%d", utc), "time": time.strftime("%H%M%S", utc)}
    name = pattern.format_map({name: _safe(text) for name, text in {**facts, **dates}.items()})
    return "/".join(map(_part, name.split("/")))


def _part(name: str) -> str:
    """One part of a path: no caller's name makes it too long, or one of an unfinished recording."""
    name = name.encode()[:_MAX_PART].decode("utf-8", "ignore")
    return name.removesuffix(_PART) + "_" if name.endswith(_PART) else name


def _safe(text: str) -> str:
    """Letters and digits of any script, and what no shell, no file system and no URL minds."""
    text = unicodedata.normalize("NFC", text)
    text = "".join(c if c.isalnum() or c in _SAFE else "_" for c in text)
    cut = text.encode("utf-8", "replace")[:_MAX_NAME].decode("utf-8", "ignore")
    return cut.lstrip(".") or "unknown"


def places(folder: Path, name: str, suffix: str) -> Iterator[Place]:
    """Where a recording of that name may go: the first that is not taken."""
    for number in range(1, 100):
        stem = name if number == 1 else f"{name}-{number}"
        yield Place(folder / f"{stem}{_PART}{suffix}", folder / f"{stem}{suffix}")


def remove(path: Path, folder: Path) -> None:
    """Remove a recording, and the folders below `folder` that it leaves empty. Raises OSError."""
    path.unlink(missing_ok=True)
    for parent in path.parents:
        if parent == folder or folder not in parent.parents:
            break
        try:
            parent.rmdir()
        except OSError:
            break  # there are others


def mend(folder: Path, *, keep: bool) -> Iterator[Found]:
    """Make recordings of what a crash left; without `keep`, remove it.

    A file that is being written, by a live call of another configuration, is locked and left alone.
    """
    for path in _ours(folder, part=True):
        with suppress(OSError), open_regular(path, write=True) as file:
            if not lock(file.fileno()):
                continue
            call_id = _call_of(path)
            if call_id is None:
                continue
            sealed = path.name.endswith(SEALED)
            data = path.stat().st_size if sealed else repair(file.fileno())
            if not keep or not data:
                path.unlink()
                continue
            final = path.with_name(path.name.replace(_PART + ".wav", ".wav"))
            path.replace(final)
            yield Found(call_id, final, final.stat().st_size)


def recordings(folder: Path) -> Iterator[Path]:
    """Whole recordings; others' files are not ours to remove."""
    for path in _ours(folder, part=False):
        with suppress(OSError):
            if _call_of(path) is not None:
                yield path


def _ours(folder: Path, *, part: bool) -> Iterator[Path]:
    for directory, _, files in os.walk(folder):
        for name in files:
            stem = name.removesuffix(SEALED)
            if stem.endswith(".wav") and stem.endswith(_PART + ".wav") == part:
                yield Path(directory, name)


def sealed_call_of(head: bytes) -> str | None:
    """The call of a sealed recording by its first bytes; None of any other file."""
    if len(head) < 56 or head[:8] != SEALED_MAGIC:
        return None
    return head[40:56].rstrip(b"\0").decode("ascii", "replace")


def _call_of(path: Path) -> str | None:
    with open_regular(path) as file:
        head = file.read(HEAD)
    return wav_call_of(head) or sealed_call_of(head)
