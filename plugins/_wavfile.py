"""A WAV file that is whole at any moment: what a killed process leaves behind can be played.

Its header is written anew, with the sizes of the moment, in one piece after each piece of audio. A
file that grows is locked, so that nobody takes it for one that a crash left behind.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from voiced_plugins._disk import open_new

from voiced.plugin import AudioFormat, wav_header

__all__ = [
    "HEAD",
    "MAX_DATA",
    "SOFTWARE",
    "WavFile",
    "create",
    "lock",
    "repair",
    "wav_call_of",
    "write_all",
]

SOFTWARE: Final = "voiced"
"""What stands in `ISFT` of our files: others' in the same folder are left alone."""

MAX_DATA: Final = 2**32 - 2**16
"""Bytes of audio in one file: sizes have 32 bits."""

HEAD: Final = 4096
"""Bytes in which everything before the audio is found."""


def create(path: Path) -> int:
    """Make a file that is not there yet, and lock it; returns its descriptor. Raises OSError."""
    fd = open_new(path)
    lock(fd)
    return fd


def lock(fd: int) -> bool:
    """Lock a file for as long as the descriptor is open; False where somebody else has."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def write_all(fd: int, data: bytes, at: int) -> None:
    """Write all of `data`; raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        at += written
        view = view[written:]


class WavFile:
    """A WAV file being written, from a worker thread, by one at a time."""

    def __init__(self, path: Path, form: AudioFormat, channels: int, call_id: str) -> None:
        """Make the file. Raises OSError."""
        self._form, self._channels = form, channels
        self._info: Mapping[str, str] = {"ISFT": SOFTWARE, "ICMT": f"call {call_id}"}
        self._head = len(self._header(0))
        self._bytes = 0
        self._fd = create(path)
        try:
            write_all(self._fd, self._header(0), 0)
        except OSError:
            os.close(self._fd)
            path.unlink(missing_ok=True)  # nothing of a call but its caller's name
            raise

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._head + self._bytes

    def write(self, data: bytes) -> None:
        """Append audio. Raises OSError; what was there before is still whole then."""
        write_all(self._fd, data, self._head + self._bytes)
        self._bytes += len(data)
        write_all(self._fd, self._header(self._bytes), 0)

    def close(self) -> None:
        """End the file, without what could not be written whole. Raises OSError, closed or not."""
        try:
            os.ftruncate(self._fd, self.size + self._bytes % 2)
        finally:
            os.close(self._fd)

    def _header(self, data_bytes: int) -> bytes:
        return wav_header(self._form, self._channels, data_bytes, self._info)


def wav_call_of(head: bytes) -> str | None:
    """The call of a file of ours by its first bytes; None of anybody else's."""
    if head[:4] != b"RIFF" or SOFTWARE.encode() + b"\0" not in head[:HEAD]:
        return None
    _, found, call = head.partition(b"call ")
    call, whole, _ = call.partition(b"\0")
    return call.decode("ascii", "replace") if found and whole else None


def repair(fd: int) -> int:
    """Have the sizes in a file of ours agree with what is there; returns its bytes of audio."""
    head, size = os.pread(fd, HEAD, 0), os.fstat(fd).st_size
    offset, width, fact = 12, 1, None
    while offset + 8 <= len(head):
        kind, length = struct.unpack_from("<4sI", head, offset)
        if kind == b"data":
            break
        if kind == b"fmt " and offset + 22 <= len(head):
            (width,) = struct.unpack_from("<H", head, offset + 20)
        elif kind == b"fact":
            fact = offset + 8
        offset += 8 + length + length % 2
    else:
        return 0
    begin = offset + 8
    data = (size - begin) // max(width, 1) * width
    os.ftruncate(fd, begin + data + data % 2)
    write_all(fd, struct.pack("<I", begin + data + data % 2 - 8), 4)
    if fact is not None:
        write_all(fd, struct.pack("<I", data // width), fact)
    write_all(fd, struct.pack("<I", data), offset + 4)
    return data
