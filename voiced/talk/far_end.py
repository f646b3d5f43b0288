"""The far end, as cancellers of echo call it: what the caller hears of us, and when.

For recordings, and for the judge of echoes. Pure, on Trio's clock by argument. Costs nothing where
nobody listens: then it does not exist.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from voiced.leg import Leg, PlayingLeg
from voiced.talk.near_end import OVERHEARD_S

__all__ = ["BufferedFarEnd", "Ears", "FarEnd", "PacedFarEnd", "Reference"]

SNAP_S: Final = 0.015
"""Pieces that follow each other so closely are one sound: carrier clocks are read in steps."""

GAP_S: Final = 0.0001  # less than a sample: where we play ourselves, times are exact


class Reference(Protocol):
    """Who wants to know what the caller is going to hear."""

    def played(self, payload: bytes, at_s: float) -> None:
        """`payload` will be heard from `at_s` on, which may lie in the future."""

    def cleared(self, at_s: float) -> None:
        """What was to be heard after `at_s` will not be."""


class FarEnd(Protocol):
    """What the caller hears of us, and when. The speaker says what it does, before it does more."""

    def sent(self, payload: bytes, at_s: float, now: float) -> None:
        """Audio goes to the leg and will be heard from `at_s` on."""

    def settle(self, now: float) -> None:
        """What has been heard by `now` is to be delivered."""

    def cleared(self, heard: int, now: float) -> None:
        """The leg's buffer was emptied when `heard` bytes of the generation had been played."""


@dataclass(frozen=True, slots=True)
class Ears:
    """Who wants to know what the caller hears of us.

    `deliver` gets it when it has been heard, the `reference` as soon as it is known.
    """

    bytes_per_s: int
    sample_bytes: int
    deliver: Callable[[bytes, float], None] | None = None
    reference: Reference | None = None

    def at(self, leg: Leg, again: Callable[[int], bytes]) -> FarEnd:
        """Begin to listen. `again`: what was sent from a position of the generation on."""
        if isinstance(leg, PlayingLeg):
            paced = PacedFarEnd(self.bytes_per_s, self.deliver, self.reference)
            leg.on_played = paced.played
            return paced
        return BufferedFarEnd(
            self.bytes_per_s, self.sample_bytes, again, self.deliver, self.reference
        )


class PacedFarEnd:
    """That of a leg which plays itself (`voiced.leg.PlayingLeg`): `played` hears what leaves it.

    Nothing is told ahead and nothing taken back, whatever held the leg up: a stall of ours, a key
    that was pressed, a hold. `deliver` gets it as whoever listens in wants it, in larger pieces.
    """

    def __init__(
        self,
        bytes_per_s: int,
        deliver: Callable[[bytes, float], None] | None = None,
        reference: Reference | None = None,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._least = int(OVERHEARD_S * bytes_per_s)
        self._deliver = deliver
        self._reference = reference
        self._end: float | None = None  # of what was heard last
        self._pieces: list[bytes] = []  # of less than `OVERHEARD_S`
        self._size = 0
        self._since = 0.0

    def played(self, payload: bytes, at_s: float) -> None:
        """A piece leaves now, and its first sample is heard at `at_s`."""
        end = self._end
        if end is None or abs(at_s - end) > GAP_S:
            self.settle(at_s)
            if end is not None and self._reference is not None:
                self._reference.cleared(end)  # what comes does not adjoin
        self._end = at_s + len(payload) / self._bytes_per_s
        if self._reference is not None:
            self._reference.played(payload, at_s)
        if self._deliver is not None:
            if not self._pieces:
                self._since = at_s
            self._pieces.append(payload)
            self._size += len(payload)
            if self._size >= self._least:
                self.settle(at_s)

    def sent(self, payload: bytes, at_s: float, now: float) -> None:
        """See `FarEnd`: it is heard when it leaves."""

    def settle(self, now: float) -> None:
        """See `FarEnd`."""
        if self._pieces and self._deliver is not None:
            payload, self._size = b"".join(self._pieces), 0
            self._pieces.clear()
            self._deliver(payload, self._since)

    def cleared(self, heard: int, now: float) -> None:
        """See `FarEnd`: what did not leave was never heard of."""
        self.settle(now)


class _Piece(NamedTuple):
    """Audio with the carrier."""

    start: int  # position in the generation
    at_s: float  # when it is heard
    size: int
    payload: bytes  # where somebody is to get it


class BufferedFarEnd:
    """That of a leg whose carrier plays: what was sent is heard when the play clock says.

    `deliver` gets each piece once it has been heard, the `reference` as soon as it is sent. Where
    the carrier turns out to play later than it was told, what is unheard is told anew.
    """

    def __init__(
        self,
        bytes_per_s: int,
        sample_bytes: int,
        again: Callable[[int], bytes],
        deliver: Callable[[bytes, float], None] | None = None,
        reference: Reference | None = None,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._sample_bytes = sample_bytes
        self._again = again
        self._deliver = deliver
        self._reference = reference
        # Bounded by the carrier's lead.
        self._pieces: deque[_Piece] = deque()
        self._position = 0
        self._end = 0.0

    def sent(self, payload: bytes, at_s: float, now: float) -> None:
        """See `FarEnd`."""
        by = at_s - self._end
        if abs(by) < SNAP_S and (at_s > now or by < 0):  # the carrier has not run dry
            at_s = self._end
        elif self._pieces and self._end > now:  # nor here: it plays later or sooner than was told
            self._move(by, now)
        elif self._position and self._reference is not None:
            self._reference.cleared(self._end)  # what comes does not adjoin
        # The ledger has it all until it is heard: 16 kB of a carrier's lead are not kept twice.
        kept = b"" if self._deliver is None else payload
        self._pieces.append(_Piece(self._position, at_s, len(payload), kept))
        self._position += len(payload)
        self._end = at_s + len(payload) / self._bytes_per_s
        if self._reference is not None:
            self._reference.played(payload, at_s)

    def _move(self, by: float, now: float) -> None:
        """What is unheard at `now` will be heard `by` seconds later than it was told."""
        self._pieces = deque(each._replace(at_s=each.at_s + by) for each in self._pieces)
        if self._reference is None:
            return
        self._reference.cleared(now)
        for start, at_s, size, _ in self._pieces:
            heard = self._whole(max(0.0, now - at_s) * self._bytes_per_s)
            if heard < size:
                rest = self._again(start + heard)[: size - heard]
                self._reference.played(rest, at_s + heard / self._bytes_per_s)

    def _whole(self, size: float) -> int:
        return math.ceil(round(size, 3) / self._sample_bytes) * self._sample_bytes

    def settle(self, now: float) -> None:
        """See `FarEnd`."""
        while self._pieces:
            _, at_s, size, payload = self._pieces[0]
            if at_s + size / self._bytes_per_s > now:
                return
            self._pieces.popleft()
            if self._deliver is not None:
                self._deliver(payload, at_s)

    def cleared(self, heard: int, now: float) -> None:
        """See `FarEnd`."""
        until = now
        for start, at_s, size, payload in self._pieces:
            part = max(0, min(heard - start, size))
            part -= part % self._sample_bytes
            if part:
                until = at_s + part / self._bytes_per_s
                if self._deliver is not None:
                    self._deliver(payload[:part], at_s)
        self._pieces.clear()
        self._position, self._end = 0, 0.0
        if self._reference is not None:
            self._reference.cleared(until)
