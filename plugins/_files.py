"""Sound files that a plugin's settings name: looked at before the first call needs them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import trio

from voiced.plugin import PluginError, WavError, read_wav

__all__ = ["durations_ms"]


async def durations_ms(paths: Iterable[Path]) -> dict[Path, int]:
    """How long each WAV file is. Raises PluginError that names all that cannot be played."""
    return await trio.to_thread.run_sync(_read, sorted(set(paths)), abandon_on_cancel=True)


def _read(paths: list[Path]) -> dict[Path, int]:
    found: dict[Path, int] = {}
    faults: list[str] = []
    for path in paths:
        try:
            found[path] = read_wav(path).duration_ms
        except WavError as error:
            faults.append(f"{path} {error}")
    if faults:
        raise PluginError("; ".join(faults))
    return found
