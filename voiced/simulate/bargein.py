"""What an interruption did: how soon the `clear` came, and what was heard that should not be."""

from __future__ import annotations

from dataclasses import dataclass

from voiced.formats import FRAME_MS
from voiced.simulate.playbuffer import US_PER_BYTE, Cleared, PlayBuffer

__all__ = ["STALE_WINDOW_MS", "BargeIn", "BargeIns"]

STALE_WINDOW_MS = 100
"""An answer needs the end of the caller's words and the model's silence time after it, 200 ms at
the very least; media that comes sooner after a clear still belongs to what was cleared."""

# A buffer that is fed frame by frame may be between two frames when it is cleared.
_BETWEEN_FRAMES_US = 2 * FRAME_MS * 1000


@dataclass(slots=True)
class BargeIn:
    """One interruption, in microseconds since media start and bytes of mu-law."""

    clip: str
    started_us: int  # the caller's first loud frame
    played_before: int  # bytes heard until then, in the whole call
    ended_us: int | None = None  # the caller's last loud frame
    cleared_us: int | None = None  # the clear reached the carrier
    played_after: int = 0  # bytes heard from `started_us` to `cleared_us`
    discarded: int = 0  # bytes that the clear threw out
    cut: bool = False  # the clear stopped audio that was sounding
    stale: int = 0  # bytes that came after the clear and belong to before it

    def expects_silence(self, now_us: int) -> bool:
        """Whether media that arrives now cannot be the answer to this interruption yet."""
        if self.cleared_us is None:
            return False
        if self.ended_us is None:
            return True
        return now_us < max(self.ended_us, self.cleared_us) + STALE_WINDOW_MS * 1000


class BargeIns:
    """The interruptions of one call, in order; only the last is open."""

    def __init__(self) -> None:
        self.all: list[BargeIn] = []

    def started(self, at_us: int, clip: str, buffer: PlayBuffer) -> None:
        """Open one: the caller interrupts at `at_us`, not later than the buffer's own time."""
        since = 0
        for run in reversed(buffer.runs):
            if run.end_us <= at_us:
                break
            since += (run.end_us - max(run.at_us, at_us)) // US_PER_BYTE
        self.all.append(BargeIn(clip, at_us, buffer.played - since))

    def ended(self, at_us: int) -> None:
        """Note that the caller has said it."""
        self.all[-1].ended_us = at_us

    def media(self, at_us: int, length: int) -> None:
        """`length` bytes arrived."""
        if self.all and self.all[-1].expects_silence(at_us):
            self.all[-1].stale += length

    def fell_silent(self, at_us: int, *, cut: bool) -> None:
        """Take note of silence where the line has no clear; `cut`: speech ended in it."""
        barge_in = self.all[-1]
        barge_in.cleared_us = at_us
        barge_in.played_after = (at_us - barge_in.started_us) // US_PER_BYTE
        barge_in.cut = cut

    def cleared(self, cleared: Cleared, buffer: PlayBuffer) -> None:
        """Take note of a clear; the first one after an interruption answers it."""
        if not self.all or self.all[-1].cleared_us is not None:
            return
        barge_in = self.all[-1]
        barge_in.cleared_us = cleared.at_us
        barge_in.played_after = buffer.played - barge_in.played_before
        barge_in.discarded = cleared.discarded
        barge_in.cut = cleared.quiet_us is not None and cleared.quiet_us <= _BETWEEN_FRAMES_US
