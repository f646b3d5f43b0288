"""Sound files of a known length."""

from __future__ import annotations

import struct
from pathlib import Path

from voiced.formats import PCM16_8K
from voiced.wav import header


def a_wav(folder: Path, name: str, ms: int) -> str:
    """Make a file of one steady level, `ms` long; returns its path as settings have it."""
    data = struct.pack("<h", 4000) * (8 * ms)
    path = folder / name
    path.write_bytes(header(PCM16_8K, 1, len(data)) + data)
    return str(path)
