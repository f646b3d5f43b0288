"""The admin token that is made where the configuration sets none."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["FILE_NAME", "read_or_make_token", "read_token"]

FILE_NAME: Final = "admin.token"
"""In `state_dir`, readable by the daemon's user alone."""

MAX_TOKEN: Final = 4096  # bytes; ours have 43 characters


def read_token(state_dir: Path) -> str:
    """Read the token. Raises OSError; ValueError where the file holds none."""
    path = state_dir / FILE_NAME
    with path.open("rb") as file:
        content = file.read(MAX_TOKEN)
    try:
        token = content.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise ValueError(f"{path} holds no token; remove it and start the daemon, which makes one")
    return token


def read_or_make_token(state_dir: Path) -> str:
    """Read the token, or make one of 256 bits with mode 0600.

    The file appears whole or not at all, and two daemons that start at once agree on one. Raises
    OSError, ValueError.
    """
    path = state_dir / FILE_NAME
    if not path.exists():
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        draft = state_dir / f".{FILE_NAME}.{os.getpid()}"
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(draft, path)  # unlike a rename it replaces nothing
        finally:
            draft.unlink()
    return read_token(state_dir)
