"""Payloads and the leg's audio: PCMU, PCMA, G.722, converted where the leg has another format.

All three have an RTP clock of 8000 Hz, G.722 by an old mistake (RFC 3551 section 4.5.2), and so one
byte of payload is one tick of the timestamp in each of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from voiced import audio
from voiced.formats import PCM16_16K, PCMA_8K, PCMU_8K, AudioFormat, Encoding

__all__ = ["CLOCK", "FORMATS", "CodecUnavailable", "decoder", "encoder", "faded"]

CLOCK: Final = 8000
"""Timestamp ticks of a second, of every codec here."""

FORMATS: Final[Mapping[str, AudioFormat]] = {"PCMU": PCMU_8K, "PCMA": PCMA_8K, "G722": PCM16_16K}
"""By codec: the leg's format that loses nothing."""

FADE: Final = (0.63, 0.32, 0.1)
"""How loud a frame is when it stands in for one, two and three lost ones behind it."""

Step = Callable[[bytes], bytes]


class CodecUnavailable(Exception):
    """The package of a codec is not installed; the text says how to get it."""


def _g722() -> Any:
    try:
        from G722 import G722  # an extra, and only where G.722 is spoken
    except ImportError:
        raise CodecUnavailable(
            "G.722 needs the G722 package: pip install 'voiced[g722]', or leave g722 out of codecs"
        ) from None
    return G722(16000, 64000)


def decoder(codec: str, target: AudioFormat) -> Step | None:
    """What turns payloads of one stream into `target`; None where they are it already.

    Raises ValueError for a codec that is not in `FORMATS`, CodecUnavailable.
    """
    native = _format(codec)
    convert = audio.converter(native, target)
    if codec != "G722":
        return None if convert is None else convert.convert
    decode = _g722().decode
    if convert is None:
        return lambda payload: decode(payload).tobytes()
    step = convert.convert
    return lambda payload: step(decode(payload).tobytes())


def encoder(source: AudioFormat, codec: str) -> Step | None:
    """What turns frames of `source` into payloads; None where they are payloads already.

    Raises ValueError for a codec that is not in `FORMATS`, CodecUnavailable.
    """
    native = _format(codec)
    convert = audio.converter(source, native)
    if codec != "G722":
        return None if convert is None else convert.convert
    encode = _g722().encode
    if convert is None:
        return lambda frame: encode(memoryview(frame).cast("h"))
    step = convert.convert
    return lambda frame: encode(memoryview(step(frame)).cast("h"))


def _format(codec: str) -> AudioFormat:
    found = FORMATS.get(codec)
    if found is None:
        raise ValueError(f"voiced speaks {', '.join(FORMATS)} over RTP, not {codec!r}")
    return found


def faded(data: bytes, encoding: Encoding, lost: int) -> bytes:
    """`data` as it stands in for the `lost`th lost frame behind it, 0 being the first."""
    gain = FADE[min(lost, len(FADE) - 1)]
    if encoding is Encoding.PCM16:
        samples = array("h", data[: len(data) & ~1])
        return array("h", [int(sample * gain) for sample in samples]).tobytes()
    return data.translate(_table(encoding, gain))


@cache
def _table(encoding: Encoding, gain: float) -> bytes:
    """All 256 codes, scaled."""
    law = encoding is Encoding.PCMU
    codes = bytes(range(256))
    samples = array("h", audio.ulaw_to_pcm(codes) if law else audio.alaw_to_pcm(codes))
    scaled = array("h", [int(sample * gain) for sample in samples]).tobytes()
    return audio.pcm_to_ulaw(scaled) if law else audio.pcm_to_alaw(scaled)
