"""Voice activity detection: PCM in, speech started and stopped out. Pure; no clock but the audio.

A 20 ms frame is loud when its power exceeds both an absolute gate and the line's noise floor by a
margin; both grow with `threshold`. The floor is the smallest power of the last 1.5 s (minimum
statistics): speech has pauses that short, steady noise has none, so hum and hiss sink below notice
while words do not. The floor does not depend on what was decided, hence a higher threshold never
hears speech that a lower one does not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, final

from voiced import audio
from voiced.formats import FRAME_MS

__all__ = ["Vad", "VadEvent", "VadStarted", "VadStopped"]

START_FRAMES: Final = 3  # 60 ms of speech at the least, so that a click or a lost packet is none
RELEASE: Final = 0.5  # hysteresis: in speech a frame may be 3 dB weaker and still count
BLOCK_FRAMES: Final = 15  # the floor's window moves in blocks of 300 ms ...
BLOCKS: Final = 5  # ... of which five, 1.5 s, are remembered
FULL_SCALE: Final = 32768.0**2
QUIETEST: Final = FULL_SCALE * 1e-7  # -70 dBFS; below it lines do not differ in any useful way


@dataclass(frozen=True, slots=True)
class VadStarted:
    """Speech began. `at_ms` counts audio fed and lies `prefix_padding_ms` before the speech."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class VadStopped:
    """Speech ended. `at_ms` counts audio fed and includes the silence that ended it."""

    at_ms: int


VadEvent = VadStarted | VadStopped


@final
class Vad:
    """Finds speech in a continuous stream of PCM16.

    Args:
        rate: sampling rate in Hz, a multiple of 1000.
        threshold: 0 to 1, as OpenAI's `server_vad.threshold`. Speech has to be louder than
            -60 + 30 * threshold dBFS, and 4 + 16 * threshold dB above the noise floor.
        prefix_padding_ms: how much audio before the speech belongs to it.
        silence_ms: how long it must be quiet for the speech to be over; rounded up to frames.

    Raises ValueError where a figure is out of its range.
    """

    def __init__(
        self,
        *,
        rate: int = 8000,
        threshold: float = 0.5,
        prefix_padding_ms: int = 300,
        silence_ms: int = 500,
    ) -> None:
        if rate <= 0 or rate % 1000:
            raise ValueError(f"rate must be a multiple of 1000 Hz, not {rate}")
        self._frame_samples = rate // 1000 * FRAME_MS
        self._rest = b""  # less than one frame
        self._frames = 0
        self._run = 0  # successive loud frames
        self._quiet = 0  # frames since the last two successive loud ones, while speaking
        self._speaking = False
        self._last_stop_ms = 0
        self._block_min = FULL_SCALE
        self._block_left = BLOCK_FRAMES
        # A line begins as a quiet one, else a caller who speaks at once would be taken for noise.
        self._minima: deque[float] = deque([QUIETEST] * BLOCKS, maxlen=BLOCKS)
        self._floor = QUIETEST
        self.configure(
            threshold=threshold, prefix_padding_ms=prefix_padding_ms, silence_ms=silence_ms
        )

    def configure(self, *, threshold: float, prefix_padding_ms: int, silence_ms: int) -> None:
        """Change the settings from the next frame on; what was learnt of the line stays."""
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie in 0 to 1, not {threshold}")
        if prefix_padding_ms < 0 or silence_ms < 0:
            raise ValueError("prefix_padding_ms and silence_ms must not be negative")
        self._gate: float = FULL_SCALE * 10 ** ((-60 + 30 * threshold) / 10)
        self._margin: float = 10 ** ((4 + 16 * threshold) / 10)
        self._prefix_ms = prefix_padding_ms
        self._silence_frames = max(1, -(-silence_ms // FRAME_MS))

    @property
    def speaking(self) -> bool:
        """Whether a VadStarted has no VadStopped yet."""
        return self._speaking

    @property
    def position_ms(self) -> int:
        """Audio judged so far, whole frames."""
        return self._frames * FRAME_MS

    def reset(self) -> None:
        """Forget a speech in progress, without an event; position and floor stay."""
        self._speaking = False
        self._run = self._quiet = 0
        self._last_stop_ms = self.position_ms

    def feed(self, pcm16: bytes) -> list[VadEvent]:
        """Judge `pcm16`, any even or odd number of bytes; a broken frame waits for its rest."""
        if self._rest:
            pcm16 = self._rest + pcm16
        events: list[VadEvent] = []
        for power in audio.mean_squares(pcm16, self._frame_samples):
            self._judge(power, events)
        rest = len(pcm16) % (2 * self._frame_samples)
        self._rest = pcm16[len(pcm16) - rest :]
        return events

    def _judge(self, power: float, events: list[VadEvent]) -> None:
        self._frames += 1
        needed = max(self._gate, self._floor * self._margin)
        if self._speaking:
            needed *= RELEASE
        self._run = self._run + 1 if power > needed else 0
        self._track_floor(power)

        if not self._speaking:
            if self._run >= START_FRAMES:
                self._speaking = True
                self._quiet = 0
                began = (self._frames - self._run) * FRAME_MS
                events.append(VadStarted(max(self._last_stop_ms, began - self._prefix_ms)))
            return
        # One loud frame among quiet ones is a click: only the second in a row is speech again.
        if self._run == 0:
            self._quiet += 1
        elif self._run >= 2:
            self._quiet = 0
        if self._quiet >= self._silence_frames:
            self._speaking = False
            self._run = 0
            self._last_stop_ms = self.position_ms
            events.append(VadStopped(self._last_stop_ms))

    def _track_floor(self, power: float) -> None:
        """Minimum over blocks: a constant cost per frame, exact to within one block."""
        self._block_min = min(self._block_min, power)
        self._block_left -= 1
        if not self._block_left:
            self._minima.append(self._block_min)
            self._floor = max(QUIETEST, min(self._minima))
            self._block_min = FULL_SCALE
            self._block_left = BLOCK_FRAMES
