"""The file that a recording goes to: a WAV file, or one sealed to a key.

Sealing needs the package `cryptography`, which is imported only where there is a key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voiced_plugins._recording import Sink
from voiced_plugins._wavfile import WavFile

from voiced.plugin import AudioFormat, PluginError

__all__ = ["load_key", "new_file"]


def load_key(path: Path) -> Any:
    """The key to seal to. Raises PluginError."""
    try:
        from voiced_plugins._sealed import BadKey, public_key
    except ImportError:
        raise PluginError(
            "cannot be used without the package cryptography; pip install 'voiced[encryption]'"
        ) from None
    try:
        return public_key(path)
    except BadKey as error:
        raise PluginError(str(error)) from None


def new_file(path: Path, *, form: AudioFormat, channels: int, call_id: str, key: Any) -> Sink:
    """Make the file, sealed where there is a `key`. Raises OSError."""
    if key is None:
        return WavFile(path, form, channels, call_id)
    from voiced_plugins._sealed import SealedFile

    return SealedFile(path, form, channels, call_id, key)
