"""Cuts the caller's audio into turns, each a piece of PCM16 to be written down. Sans-I/O.

The detector says where a turn begins and ends; here its audio is kept, from a little before a start
until the stop, and cut where a turn grows longer than is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import structlog

from voiced.audio import alaw_to_pcm, ulaw_to_pcm
from voiced.config.types import Agent, OwnVad, SemanticVad
from voiced.formats import AudioFormat, Encoding
from voiced.pipeline.providers import Detector, DetectorSettings
from voiced.vad import Vad, VadEvent, VadStarted, VadStopped

__all__ = [
    "Began",
    "Guarded",
    "Over",
    "TurnEvent",
    "Turns",
    "detector_settings",
    "energy",
    "language_of",
]

# A turn is found a few frames after it began, by a detector that thinks longer some more; the
# audio kept must reach back so far.
DETECTION_MS: Final = 500

_log = structlog.get_logger("voiced.pipeline")


@dataclass(frozen=True, slots=True)
class Began:
    """A turn began; `at_ms` counts audio fed."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Over:
    """A turn is over, or as long as a turn may be: `more`, it goes on as another one."""

    at_ms: int
    pcm16: bytes
    more: bool


TurnEvent = Began | Over


def language_of(agent: Agent) -> str | None:
    """The ISO 639-1 code of the callers' language: "en" of "en-GB"; None where it is open."""
    return None if agent.language == "auto" else agent.language.partition("-")[0].lower()


def detector_settings(agent: Agent, rate: int) -> DetectorSettings:
    """What an agent's `turn_detection` means here: semantics are the server's, so the defaults."""
    wanted = agent.turn_detection
    found = OwnVad() if isinstance(wanted, SemanticVad) else wanted
    return DetectorSettings(
        rate, found.threshold, found.prefix_padding_ms, found.silence_ms, language_of(agent)
    )


def energy(settings: DetectorSettings) -> Vad:
    """The detector `energy`, voiced's own."""
    return Vad(
        rate=settings.rate,
        threshold=settings.threshold,
        prefix_padding_ms=settings.prefix_padding_ms,
        silence_ms=settings.silence_ms,
    )


@final
class Guarded:
    """A plugin's detector, replaced by our own for the rest of the call if it raises."""

    def __init__(
        self, make: Callable[[DetectorSettings], Detector], settings: DetectorSettings
    ) -> None:
        self._settings = settings
        self._fed = 0  # bytes
        self._offset_ms = 0  # where the detector's audio begins
        self._speaking = False
        try:
            self._detector = make(settings)
        except Exception as error:
            self._replace(error)

    def feed(self, pcm16: bytes) -> Sequence[VadEvent]:
        """Judge the next piece."""
        events: list[VadEvent] = []
        try:
            events += self._detector.feed(pcm16)
        except Exception as error:
            self._replace(error)
            events = []
            if self._speaking:  # nobody else would end it
                events.append(VadStopped(0))
            events += self._detector.feed(pcm16)
        shifted: list[VadEvent] = []
        for event in events:
            began = isinstance(event, VadStarted)
            at_ms = event.at_ms + self._offset_ms
            shifted.append(VadStarted(at_ms) if began else VadStopped(at_ms))
            self._speaking = began
        self._fed += len(pcm16)
        return shifted

    def _replace(self, error: Exception) -> None:
        _log.warning("the detector raised, voiced's own is used", exc_info=error)
        self._detector = energy(self._settings)
        self._offset_ms = self._fed // (2 * (self._settings.rate // 1000))


def _same(payload: bytes) -> bytes:
    return payload


_TO_PCM: Final[dict[Encoding, Callable[[bytes], bytes]]] = {
    Encoding.PCMU: ulaw_to_pcm,
    Encoding.PCMA: alaw_to_pcm,
    Encoding.PCM16: _same,
}


@final
class Turns:
    """Feed it the caller's audio in `audio`; `longest_ms` is where a turn is cut."""

    def __init__(
        self, audio: AudioFormat, detector: Detector, *, prefix_ms: int, longest_ms: int
    ) -> None:
        self._to_pcm = _TO_PCM[audio.encoding]
        self._detector = detector
        self._bytes_per_ms = 2 * (audio.rate // 1000)  # of PCM16
        self._keep = (prefix_ms + DETECTION_MS) * self._bytes_per_ms
        self._longest = max(1, longest_ms) * self._bytes_per_ms
        self._pcm = bytearray()  # of the turn, or the latest audio outside of one
        self._start = 0  # position of its first byte in all that was fed
        self._in_turn = False

    def feed(self, payload: bytes) -> list[TurnEvent]:
        """Return what the next piece of audio brings."""
        pcm = self._to_pcm(payload)
        self._pcm += pcm
        out: list[TurnEvent] = []
        for event in self._detector.feed(pcm):
            if isinstance(event, VadStarted):
                if not self._in_turn:
                    self._in_turn = True
                    self._take(self._within(event.at_ms))
                    out.append(Began(self._at_ms()))
            elif self._in_turn:
                self._in_turn = False
                self._split(self._within(event.at_ms), out)
                end = self._within(event.at_ms)
                out.append(Over(self._at_ms(end), self._take(end), more=False))
        if self._in_turn:
            self._split(len(self._pcm), out)
        elif len(self._pcm) > self._keep:
            excess = len(self._pcm) - self._keep
            self._take(excess + -excess % self._bytes_per_ms)
        return out

    def _split(self, end: int, out: list[TurnEvent]) -> None:
        """Hand over what is longer than a turn may be, of the first `end` bytes."""
        while end > self._longest:
            out.append(Over(self._at_ms(self._longest), self._take(self._longest), more=True))
            end -= self._longest

    def _within(self, at_ms: int) -> int:
        return min(max(at_ms * self._bytes_per_ms - self._start, 0), len(self._pcm))

    def _at_ms(self, offset: int = 0) -> int:
        return (self._start + offset) // self._bytes_per_ms

    def _take(self, size: int) -> bytes:
        piece = bytes(self._pcm[:size])
        del self._pcm[:size]
        self._start += size
        return piece
