"""Cutting the caller's audio: each turn is what was said, to the sample."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from voiced.formats import PCM16_16K
from voiced.pipeline.providers import DetectorSettings
from voiced.pipeline.turns import DETECTION_MS, Began, Guarded, Over, Turns
from voiced.vad import VadEvent, VadStarted, VadStopped

BYTES_PER_MS = 32
PREFIX_MS = 300


class Told:
    """Finds turns where it is told to, `late_ms` after they began and ended."""

    def __init__(self, turns: Sequence[tuple[int, int]], late_ms: int) -> None:
        events: list[VadEvent] = []
        for start, stop in turns:
            events += [VadStarted(start), VadStopped(stop)]
        self._events = events
        self._late_ms = late_ms
        self._fed = 0

    def feed(self, pcm16: bytes) -> list[VadEvent]:
        self._fed += len(pcm16)
        due: list[VadEvent] = []
        while self._events and self._fed >= (self._events[0].at_ms + self._late_ms) * BYTES_PER_MS:
            due.append(self._events.pop(0))
        return due


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(400, 3000), min_size=2, max_size=6),
    st.integers(0, DETECTION_MS // 2),
    st.integers(200, 2000),
    st.integers(0, 1000),
)
def test_a_turn_is_what_was_said(gaps: list[int], late: int, longest: int, seed: int) -> None:
    """Whatever the pieces: no byte is lost, said twice, or moved.

    A turn that was cut when its end was not known yet may end so much later.
    """
    places = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    marks = list(zip(places[::2], places[1::2], strict=False))
    pcm = b"".join(struct.pack("<H", n % 65536) for n in range((places[-1] + 500) * 16))
    turns = Turns(PCM16_16K, Told(marks, late), prefix_ms=PREFIX_MS, longest_ms=longest)
    sizes, at, said, found = random.Random(seed), 0, b"", []
    while at < len(pcm):
        size = 2 * sizes.randint(1, 700)
        for event in turns.feed(pcm[at : at + size]):
            if isinstance(event, Began):
                start = event.at_ms
            else:
                assert isinstance(event, Over)
                assert len(event.pcm16) <= longest * BYTES_PER_MS
                said += event.pcm16
                if not event.more:
                    found.append((start, event.at_ms))
                    assert said == pcm[start * BYTES_PER_MS : event.at_ms * BYTES_PER_MS]
                    said = b""
        at += size
    assert [start for start, _ in found] == [start for start, _ in marks]
    for (_, end), (_, stop) in zip(found, marks, strict=True):
        assert stop <= end <= stop + late + 45


def test_a_turn_that_was_found_too_late_begins_with_what_is_kept() -> None:
    """At a whole millisecond, and so at a whole sample, whatever the pieces were."""
    pcm = b"".join(struct.pack("<H", n) for n in range(3000 * 16))
    turns = Turns(PCM16_16K, Told([(100, 2000)], 1000), prefix_ms=0, longest_ms=9000)
    events = [event for at in range(0, len(pcm), 642) for event in turns.feed(pcm[at : at + 642])]
    began, over = events
    assert isinstance(over, Over)
    assert 100 < began.at_ms <= 1100 - DETECTION_MS + 21
    assert over.pcm16 == pcm[began.at_ms * BYTES_PER_MS : over.at_ms * BYTES_PER_MS]


def test_a_detector_that_raises_in_a_turn_leaves_none_open() -> None:
    class Breaks:
        fed = 0

        def feed(self, pcm16: bytes) -> list[VadEvent]:
            self.fed += 1
            if self.fed > 1:
                raise ValueError("no")
            return [VadStarted(0)]

    made = Breaks()
    detector = Guarded(lambda _settings: made, DetectorSettings(8000, 0.5, 300, 500, None))
    assert detector.feed(bytes(320)) == [VadStarted(0)]
    assert detector.feed(bytes(320)) == [VadStopped(20)]
    assert detector.feed(bytes(320)) == []
