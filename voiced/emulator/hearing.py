"""The input audio buffer: what the caller has sent, and what turn detection makes of it."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Any, Final

from voiced import audio
from voiced.emulator.errors import Refused, invalid_value
from voiced.emulator.shapes import EAGERNESS_MS, MAX_AUDIO_BYTES
from voiced.formats import PCM16_8K, PCM16_24K, AudioFormat
from voiced.vad import Vad, VadEvent

__all__ = ["InputBuffer", "decode_audio", "to_pcm_8k"]

MIN_COMMIT_MS: Final = 100
# A turn that never ends (music on hold) loses its beginning rather than deafen the session:
# 44 s of PCM at 24 kHz, 4 minutes of G.711.
TURN_BYTES: Final = 2 * 1024 * 1024
SPARE_MS: Final = 200  # kept beyond the padding: the VAD needs 60 ms to be sure


def decode_audio(value: str, param: str) -> bytes:
    """Decode base64. Raises Refused where it is none, or more than one event may carry."""
    try:
        data = binascii.a2b_base64(value, strict_mode=True)
    except ValueError:  # binascii.Error, or characters beyond ASCII
        raise invalid_value(f"Invalid '{param}': expected base64-encoded audio.", param) from None
    if len(data) > MAX_AUDIO_BYTES:
        raise Refused(
            "string_above_max_length",
            f"Invalid '{param}': at most {MAX_AUDIO_BYTES} bytes of audio in one event.",
            param,
        )
    return data


def to_pcm_8k(data: bytes, source: AudioFormat) -> bytes:
    """Convert a whole piece to PCM16 at 8 kHz."""
    converter = audio.converter(source, PCM16_8K)
    return data if converter is None else converter.convert(data) + converter.flush()


class InputBuffer:
    """Audio since the last commit. Positions are ms of all audio ever written to the buffer.

    With turn detection on and nobody speaking only the padding is kept, and of speech the last
    TURN_BYTES; where turn detection is off everything is kept, up to MAX_AUDIO_BYTES.
    """

    def __init__(self) -> None:
        self.format = PCM16_24K
        self._data = bytearray()
        self._start_ms = 0  # the position of the first byte of `_data`
        self._vad: Vad | None = None
        self._vad_base_ms = 0
        self._keep_ms = 0
        self._convert: Callable[[bytes], bytes] = bytes
        self.set_format(self.format)

    @property
    def end_ms(self) -> int:
        """The position behind the last sample."""
        return self._start_ms + len(self._data) // self.format.bytes_per_ms

    @property
    def buffered_ms(self) -> float:
        """How much a commit would take."""
        return len(self._data) / self.format.bytes_per_ms

    @property
    def speaking(self) -> bool:
        """Whether the VAD hears speech now."""
        return self._vad is not None and self._vad.speaking

    def set_format(self, new: AudioFormat) -> None:
        """What follows is in another format; what is buffered is dropped, it can have no item."""
        if new != self.format:
            self._start_ms = self.end_ms
            self._data.clear()
            self._rebase()
        self.format = new
        converter = audio.converter(new, PCM16_8K)
        self._convert = bytes if converter is None else converter.convert

    def set_turn_detection(self, value: dict[str, Any] | None) -> None:
        """Apply a checked and complete `turn_detection` object, or none."""
        if value is None:
            self._vad = None
            return
        settings = {"threshold": 0.5, "prefix_padding_ms": 300}
        if value["type"] == "semantic_vad":
            silence_ms = EAGERNESS_MS[value["eagerness"]]
        else:
            silence_ms = value["silence_duration_ms"]
            settings = {key: value[key] for key in settings}
        if self._vad is None:
            self._vad = Vad(rate=8000)
            self._rebase()
        self._vad.configure(
            threshold=settings["threshold"],
            prefix_padding_ms=int(settings["prefix_padding_ms"]),
            silence_ms=silence_ms,
        )
        self._keep_ms = int(settings["prefix_padding_ms"]) + SPARE_MS

    def _rebase(self) -> None:
        if self._vad is not None:
            self._vad.reset()
            self._vad_base_ms = self.end_ms - self._vad.position_ms

    def append(self, data: bytes) -> list[VadEvent]:
        """Take audio in, return what the VAD noticed, in positions of this buffer."""
        if self._vad is None and len(self._data) + len(data) > MAX_AUDIO_BYTES:
            raise Refused(
                "input_audio_buffer_full",
                f"The input audio buffer holds {len(self._data)} bytes and takes "
                f"{MAX_AUDIO_BYTES} at the most. Commit or clear it.",
                "audio",
            )
        self._data += data
        if self._vad is None:
            return []
        if len(self._data) > TURN_BYTES:
            self._drop_before(self.end_ms - TURN_BYTES // 2 // self.format.bytes_per_ms)
        events = self._vad.feed(self._convert(data))
        if not self._vad.speaking and not events:
            self._drop_before(self.end_ms - self._keep_ms)
        return [type(e)(max(0, e.at_ms + self._vad_base_ms)) for e in events]

    def _drop_before(self, position_ms: int) -> None:
        count = (position_ms - self._start_ms) * self.format.bytes_per_ms
        # In steps of a second's fraction: moving the rest for each frame would be waste.
        if count > 4000:
            del self._data[:count]
            self._start_ms = position_ms

    def take(self, start_ms: int, end_ms: int) -> bytes:
        """Cut out a turn and drop it with all before it. Positions outside are clamped."""
        rate = self.format.bytes_per_ms
        first = max(0, start_ms - self._start_ms) * rate
        last = max(0, end_ms - self._start_ms) * rate
        data = bytes(self._data[first:last])
        last = min(last, len(self._data))
        del self._data[:last]
        self._start_ms += last // rate
        return data

    def take_recent(self) -> tuple[bytes, int]:
        """Take what is left of the silence, and tell where it begins."""
        start_ms = self._start_ms
        return self.take(start_ms, self.end_ms), start_ms

    def commit(self) -> bytes:
        """Take everything. Raises Refused below 100 ms."""
        if self.buffered_ms < MIN_COMMIT_MS:
            raise Refused(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{MIN_COMMIT_MS}ms of audio, but buffer only has {self.buffered_ms:.2f}ms of "
                "audio.",
            )
        data = self.take(self._start_ms, self.end_ms)
        if self._vad is not None:
            self._vad.reset()
        return data

    def clear(self) -> None:
        """Drop everything, a speech in progress too."""
        self._start_ms = self.end_ms
        self._data.clear()
        if self._vad is not None:
            self._vad.reset()
