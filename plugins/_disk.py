"""Files in folders that others may write to: theirs are never waited for, followed or overwritten.

Everything here works on the disk, and runs in a worker thread.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["make_folder", "open_new", "open_regular"]

FOLDER: Final = 0o750
FILE: Final = 0o640
"""What callers said is not for every user of the machine, whatever the umask."""

_TRIES: Final = 3


def make_folder(path: Path) -> None:
    """Make a folder and those above it, as far as they are missing. Raises OSError.

    `Path.mkdir` gives its mode to the last one alone, and a folder's name may be a caller's number.
    """
    missing = []
    for each in (path, *path.parents):
        if each.is_dir():
            break
        missing.append(each)
    for each in reversed(missing):
        each.mkdir(FOLDER, exist_ok=True)
        if os.geteuid() == 0:  # for a daemon that runs as somebody else
            owner = each.parent.stat()
            os.chown(each, owner.st_uid, owner.st_gid)


def open_new(path: Path, flags: int = os.O_RDWR) -> int:
    """Make a file that is not there yet, and its folder; returns its descriptor. Raises OSError."""
    flags |= os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for _ in range(_TRIES):
        try:
            make_folder(path.parent)
            return os.open(path, flags, FILE)
        except FileNotFoundError:
            continue  # a clean-up has just removed the empty folder
    return os.open(path, flags, FILE)


def open_regular(path: Path, *, write: bool = False) -> BinaryIO:
    """Open a file that is one, unbuffered.

    Raises OSError, for links too, which lead somewhere else, and for what a reader may wait for
    without end, such as a named pipe.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags | (os.O_RDWR if write else os.O_RDONLY))
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is no file")
        return os.fdopen(fd, "r+b" if write else "rb", buffering=0)
    except BaseException:
        os.close(fd)
        raise
