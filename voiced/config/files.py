"""Questions about files, answered whatever an operator has written as a path.

`Path.exists` and `Path.is_dir` raise where a folder on the way may not be entered or a name is too
long; here that is a no.
"""

from __future__ import annotations

import os
from pathlib import Path

from voiced.config.findings import Findings
from voiced.config.mistakes import KeyPath
from voiced.regular import open_regular

__all__ = ["code_files", "exists", "is_folder", "read_text", "readable"]


def exists(path: Path) -> bool:
    """Say whether there is anything at `path`."""
    try:
        return path.exists()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Say whether there is a folder at `path`."""
    try:
        return path.is_dir()
    except OSError:
        return False


def code_files(folder: Path) -> list[Path]:
    """The Python files in a folder, in order. Raises OSError.

    Not what an editor leaves there: hidden files, and links that lead nowhere.
    """
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    return [folder / name for name in names if name.endswith(".py") and name[0] != "."]


def readable(file: Path, key: KeyPath, findings: Findings) -> bool:
    """Check that a file can be opened; a mistake where it cannot."""
    try:
        with open_regular(file):
            return True
    except OSError as error:
        _unreadable(file, error, key, findings)
        return False


def read_text(file: Path, limit: int, key: KeyPath, findings: Findings) -> str | None:
    """Read a text file of at most `limit` bytes; a mistake and None where that fails."""
    try:
        with open_regular(file) as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        _unreadable(file, error, key, findings)
        return None
    if len(content) > limit:
        findings.mistake(key, f"{file} is larger than {limit} bytes", "name the right file")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        findings.mistake(key, f"{file} is not UTF-8 text", "save it as UTF-8, or name another")
        return None


def _unreadable(file: Path, error: OSError, key: KeyPath, findings: Findings) -> None:
    message = f"{file} cannot be read: {(error.strerror or str(error)).lower()}"
    findings.mistake(key, message, "correct the path, or let voiced's user read the file")
