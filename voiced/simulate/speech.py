"""Speech on both sides of the simulated telephone: what the caller says, and an ear for the agent.

Both judge speech by the same loudness, so that what they report is comparable.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache

from voiced import clips
from voiced.audio import pcm_to_ulaw, ulaw_to_pcm
from voiced.formats import FRAME_MS, PCMU_8K

__all__ = ["FRAME_BYTES", "SILENT_PAYLOAD", "Ear", "Speech", "is_loud", "load_speech"]

FRAME_BYTES = PCMU_8K.frame_bytes
SILENT_FRAME = PCMU_8K.silence(FRAME_MS)
SILENT_PAYLOAD = base64.b64encode(SILENT_FRAME).decode("ascii")

_LOUDNESS_STEP = 128
_THRESHOLD = 256  # mean magnitude of PCM16: about -40 dBFS for speech, far above idle noise
_LOUD_SUM = FRAME_BYTES * _THRESHOLD // _LOUDNESS_STEP


def _loudness_table() -> bytes:
    pcm = memoryview(ulaw_to_pcm(bytes(range(256)))).cast("h")
    half = _LOUDNESS_STEP // 2
    return bytes(min((abs(sample) + half) // _LOUDNESS_STEP, 255) for sample in pcm)


# A table from mu-law codes to magnitudes makes one frame cost two calls into C and no decoding.
_LOUDNESS = _loudness_table()


def is_loud(frame: bytes) -> bool:
    """Whether 20 ms of mu-law hold sound rather than silence or idle noise."""
    return sum(frame.translate(_LOUDNESS)) >= _LOUD_SUM


@dataclass(frozen=True, slots=True)
class Speech:
    """Something the caller can say, cut into frames that are ready to be sent."""

    name: str
    text: str
    frames: tuple[bytes, ...]  # mu-law, FRAME_BYTES each
    payloads: tuple[str, ...]  # the same in base64
    voiced_from: int  # the first loud frame
    voiced_to: int  # the frame after the last loud one

    @classmethod
    def from_pcm(cls, name: str, text: str, pcm: bytes) -> Speech:
        """Of PCM16 at 8 kHz. Raises ValueError when there is nothing to be heard in it."""
        ulaw = pcm_to_ulaw(pcm)
        frames = tuple(
            ulaw[start : start + FRAME_BYTES].ljust(FRAME_BYTES, SILENT_FRAME[:1])
            for start in range(0, len(ulaw), FRAME_BYTES)
        )
        loud = [index for index, frame in enumerate(frames) if is_loud(frame)]
        if not loud:
            raise ValueError(f"the speech {name!r} is silent")
        payloads = tuple(base64.b64encode(frame).decode("ascii") for frame in frames)
        return cls(name, text, frames, payloads, loud[0], loud[-1] + 1)

    @property
    def duration_ms(self) -> int:
        """Length with the silence at both ends."""
        return len(self.frames) * FRAME_MS


@lru_cache(maxsize=32)  # the bundled clips are fewer; they are shared by all callers
def load_speech(name: str) -> Speech:
    """Load a bundled clip. Raises what `clips.load` raises for an unknown name."""
    clip = clips.load(name)
    return Speech.from_pcm(clip.name, clip.text, clip.pcm)


class Ear:
    """Tells when the agent speaks, from the frames that the caller hears; positions are in frames.

    Speech begins with ONSET_FRAMES loud frames running, so that a click is none, and has ended
    when HANGOVER_FRAMES passed without a loud one, so that the pause between two words is not an
    end. Both are dated back to the loud frame at the edge.
    """

    ONSET_FRAMES = 2
    HANGOVER_FRAMES = 25

    def __init__(self) -> None:
        self._run = 0  # loud frames running, while not speaking
        self._frames = 0
        self._last_loud = 0  # the frame after the last loud one

        self.loud_frames = 0
        """Frames of speech heard so far."""
        self.started: int | None = None
        """The frame at which the current speech began; None while the agent is silent."""

    @property
    def quiet_frames(self) -> int:
        """Frames since the agent was last loud, or since the beginning."""
        return self._frames - self._last_loud

    def hear(self, frame: bytes | None) -> tuple[int, int] | None:
        """Listen to the next frame, None for silence. Returns speech that has ended, [from, to)."""
        self._frames += 1
        if frame is not None and is_loud(frame):
            self._last_loud = self._frames
            self.loud_frames += 1
            self._run += 1
            if self.started is None and self._run >= self.ONSET_FRAMES:
                self.started = self._frames - self._run
            return None
        self._run = 0
        return self.end() if self.quiet_frames >= self.HANGOVER_FRAMES else None

    def end(self) -> tuple[int, int] | None:
        """End the current speech at its last loud frame, without waiting; returns it, if any."""
        if self.started is None:
            return None
        ended = (self.started, self._last_loud)
        self.started = None
        self._run = 0
        return ended
