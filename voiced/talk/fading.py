"""A soft beginning in the midst of a sound, which would be a click otherwise."""

from __future__ import annotations

import struct
from typing import Final

from voiced.audio import convert
from voiced.formats import AudioFormat, Encoding

__all__ = ["FADE_MS", "fade_in", "fade_samples"]

FADE_MS: Final = 5
"""As long as a step takes not to be heard as one; of a word nothing is missed."""


def fade_samples(form: AudioFormat) -> int:
    """How many samples rise in `form`."""
    return FADE_MS * form.rate // 1000


def fade_in(payload: bytes, form: AudioFormat, risen: int = 0) -> bytes:
    """`payload`, its first `FADE_MS` rising from silence in a straight line; as long as before.

    `risen`: samples of the rise that came before it, in pieces shorter than that.
    """
    rise = fade_samples(form)
    size = form.sample_bytes * max(0, rise - risen)
    linear = AudioFormat(Encoding.PCM16, form.rate)
    samples = struct.iter_unpack("<h", convert(payload[:size], form, linear))
    rising = [int(sample * (risen + n) / (rise + 1)) for n, (sample,) in enumerate(samples, 1)]
    return convert(struct.pack(f"<{len(rising)}h", *rising), linear, form) + payload[size:]
