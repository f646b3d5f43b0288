"""When the caller hears what of us, where their carrier plays it."""

from __future__ import annotations

import itertools
import math

from hypothesis import example, given
from hypothesis import strategies as st

from voiced.talk.far_end import BufferedFarEnd

RATE = 8000


JOINED = 0.04 * RATE
"""What is told to begin so close to the end of what was told before adjoins it, for the judge."""


class Track:
    """What is to be heard at which sample, by what a judge of echoes is told."""

    def __init__(self) -> None:
        self.samples: dict[int, int] = {}
        self._next: int | None = None

    def played(self, payload: bytes, at_s: float) -> None:
        assert payload, "nothing is heard"
        first = round(at_s * RATE)
        if self._next is not None and abs(first - self._next) <= JOINED:
            first = self._next
        self._next = first + len(payload)
        self.samples |= dict(enumerate(payload, first))

    def cleared(self, at_s: float) -> None:
        first = round(at_s * RATE)
        self.samples = {at: code for at, code in self.samples.items() if at < first}
        self._next = None


class Played:
    """What a judge of echoes is told."""

    def __init__(self) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self.cuts: list[float] = []

    def played(self, payload: bytes, at_s: float) -> None:
        self.pieces.append((at_s, payload))

    def cleared(self, at_s: float) -> None:
        self.cuts.append(at_s)


def ears() -> tuple[BufferedFarEnd, list[tuple[float, bytes]], Played]:
    heard: list[tuple[float, bytes]] = []
    reference = Played()
    return (
        BufferedFarEnd(
            RATE, 1, bytes, lambda payload, at_s: heard.append((at_s, payload)), reference
        ),
        heard,
        reference,
    )


def test_a_piece_is_delivered_once_it_has_been_heard() -> None:
    listening, heard, reference = ears()
    listening.sent(b"a" * 800, 1.0, 1.0)
    listening.sent(b"b" * 800, 1.1, 1.0)
    listening.settle(1.05)
    assert heard == []
    assert [at for at, _ in reference.pieces] == [1.0, 1.1]
    listening.settle(1.15)
    assert heard == [(1.0, b"a" * 800)]
    listening.settle(1.21)
    assert len(heard) == 2


def test_clearing_keeps_what_was_heard_of_a_piece() -> None:
    listening, heard, reference = ears()
    listening.sent(b"a" * 800, 1.0, 1.0)
    listening.sent(b"b" * 800, 1.1, 1.0)
    listening.cleared(1000, now=1.12)
    assert heard == [(1.0, b"a" * 800), (1.1, b"b" * 200)]
    assert reference.cuts == [1.125]
    listening.settle(9)
    assert len(heard) == 2
    listening.sent(b"c" * 80, 2.0, 2.0)  # a new generation begins at 0
    listening.cleared(40, now=2.005)
    assert heard[-1] == (2.0, b"c" * 40)


@given(st.lists(st.tuples(st.integers(1, 2000), st.floats(-0.01, 0.01)), min_size=1, max_size=40))
def test_pieces_in_a_row_are_one_sound(pieces: list[tuple[int, float]]) -> None:
    """A carrier's clock is read in steps; what follows without a pause is told without one."""
    listening, heard, _ = ears()
    at, total = 5.0, 0
    for size, wobble in pieces:
        listening.sent(b"x" * size, 5.0 + total / RATE + (wobble if total else 0), 5.0)
        total += size
    listening.settle(at + total / RATE + 1)
    assert sum(len(payload) for _, payload in heard) == total
    for (start, payload), (following, _) in itertools.pairwise(heard):
        assert abs(start + len(payload) / RATE - following) < 1e-9


@example([111, 303, 2291, 237], 16, 0.9290314145901888)
@given(
    st.lists(st.integers(1, 3200), min_size=1, max_size=8),
    st.integers(-120, 800).filter(lambda ms: abs(ms) > 15),
    st.floats(0, 1),
)
def test_a_carrier_that_plays_later_than_was_told_is_told_anew(
    sizes: list[int], moved_ms: int, part: float
) -> None:
    """From the moment on at which that is known every sample is where it will be heard."""
    reference = Track()
    sound = bytes(itertools.islice(itertools.cycle(range(251)), sum(sizes) + 800))
    at = 0
    listening = BufferedFarEnd(RATE, 1, lambda position: sound[position:at], None, reference)
    for size in sizes:
        listening.sent(sound[at : at + size], 1.0 + at / RATE, 1.0)
        at += size
    # A part of it was to have been heard; within a sample, for no piece ends there.
    now = 1.0 + (int(part * 0.99 * at) + 0.5) / RATE
    begins = 1.0 + moved_ms / 1000
    listening.settle(now)
    listening.sent(sound[at:], begins + at / RATE, now)
    ends = list(itertools.accumulate(sizes))
    kept = next(end - size for end, size in zip(ends, sizes, strict=True) if 1 + end / RATE > now)
    for index in range(math.ceil(round(now * RATE, 3)), round((begins + len(sound) / RATE) * RATE)):
        position = index - round(begins * RATE)
        # What was taken for heard was delivered, and is gone.
        expected = sound[position] if position >= kept else None
        assert reference.samples.get(index) == expected
