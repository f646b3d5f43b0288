"""The carrier's play-out buffer, sans-I/O: what the caller hears of what the server sent, and when.

Twilio's documented rules ("Media Streams, WebSocket messages"): audio is queued in arrival order
and played at real-time speed; a mark is echoed when everything before it has been played, at once
when nothing is queued; `clear` empties the queue and echoes every pending mark; beyond ten minutes
of queue further audio is dropped.

Time is whole microseconds since the stream's start, and a mu-law byte lasts exactly 125 of them, so
that nothing here is rounded and nothing drifts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from voiced.formats import PCMU_8K

__all__ = ["LIMIT_BYTES", "US_PER_BYTE", "Cleared", "DrySpell", "Echo", "PlayBuffer", "Run"]

US_PER_BYTE = 1000 // PCMU_8K.bytes_per_ms
LIMIT_BYTES = 10 * 60 * 1000 * PCMU_8K.bytes_per_ms
"""Ten minutes, Twilio's warning 31931."""
LIMIT_MARKS = 30_000
"""One mark for every 20 ms of ten minutes: more are a runaway server, not a use."""

_SILENCE = PCMU_8K.silence(1)[:1]


@dataclass(frozen=True, slots=True)
class Echo:
    """A mark that goes back to the server: reached at `at_us`, or thrown out then by a clear."""

    name: str
    at_us: int
    played: bool


@dataclass(frozen=True, slots=True)
class Cleared:
    """What one `clear` found. `heard` and `discarded` are bytes since the clear before it.

    `quiet_us` is for how long nothing had been playing: 0 when it cut sounding audio, None when
    nothing had been played since the clear before.
    """

    at_us: int
    heard: int
    discarded: int
    quiet_us: int | None


@dataclass(slots=True)
class Run:
    """Audio played without a break: its first byte at `at_us`, `length` bytes of it."""

    at_us: int
    length: int = 0

    @property
    def end_us(self) -> int:
        """When its last byte so far had been played."""
        return self.at_us + self.length * US_PER_BYTE


@dataclass(frozen=True, slots=True)
class DrySpell:
    """The queue ran empty at `start_us` of its own accord, and audio came again at `end_us`."""

    start_us: int
    end_us: int


class PlayBuffer:
    """Feed it what arrives, in order of time; it says what has been heard.

    Every method takes the time of its event. Time going backwards raises ValueError.
    """

    def __init__(self, *, limit: int = LIMIT_BYTES) -> None:
        self._limit = limit
        self._now = 0
        self._queue = bytearray()  # at most `limit` bytes
        self._marks: deque[tuple[int, str]] = deque()  # (bytes before it, name); LIMIT_MARKS
        self._echoes: list[Echo] = []
        self._accepted = 0  # bytes since the last clear
        self._heard = 0  # of them
        self._base = 0  # what `_heard` was when the current run began to play from `_base_us`
        self._base_us = 0
        self._dry_since: int | None = None
        self._track = bytearray()
        self._track_start = 0  # the sample that `_track[0]` is

        self.runs: list[Run] = []
        self.dry_spells: list[DrySpell] = []
        self.received = 0
        """Bytes that arrived; always `played + discarded + dropped + queued`."""
        self.played = 0
        self.discarded = 0
        """Bytes that a clear threw out."""
        self.dropped = 0
        """Bytes refused because the buffer was full."""

    @property
    def queued(self) -> int:
        """Bytes waiting to be played."""
        return len(self._queue)

    @property
    def heard(self) -> int:
        """Bytes played since the last clear."""
        return self._heard

    def media(self, now_us: int, payload: bytes) -> bool:
        """Queue `payload` (mu-law). False when the buffer is too full: all of it is dropped."""
        self.advance(now_us)
        self.received += len(payload)
        if len(self._queue) + len(payload) > self._limit:
            self.dropped += len(payload)
            return False
        if payload and not self._queue:
            self._begin(now_us)
        self._queue += payload
        self._accepted += len(payload)
        return True

    def mark(self, now_us: int, name: str) -> bool:
        """Queue a mark behind the audio. False when there are too many: it is dropped."""
        self.advance(now_us)
        if not self._queue:
            self._echoes.append(Echo(name, now_us, played=True))
        elif len(self._marks) >= LIMIT_MARKS:
            return False
        else:
            self._marks.append((self._accepted, name))
        return True

    def clear(self, now_us: int) -> Cleared:
        """Empty the queue; pending marks are echoed in their order, as not played."""
        self.advance(now_us)
        quiet: int | None = 0
        if not self._queue:
            quiet = None if self._dry_since is None else now_us - self._dry_since
        cleared = Cleared(now_us, self._heard, len(self._queue), quiet)
        self.discarded += len(self._queue)
        self._echoes.extend(Echo(name, now_us, played=False) for _, name in self._marks)
        self._marks.clear()
        self._queue.clear()
        self._accepted = self._heard = 0
        self._dry_since = None  # silence after a clear is wanted, not an underrun
        return cleared

    def advance(self, now_us: int) -> None:
        """Play what is due by `now_us`."""
        if now_us < self._now:
            raise ValueError(f"time went back from {self._now} to {now_us} us")
        self._now = now_us
        if not self._queue:
            return
        position = self._base + (now_us - self._base_us) // US_PER_BYTE
        due = min(position - self._heard, len(self._queue))
        if due <= 0:
            return
        self._track += self._queue[:due]
        del self._queue[:due]
        self._heard += due
        self.played += due
        self.runs[-1].length += due
        while self._marks and self._marks[0][0] <= self._heard:
            position, name = self._marks.popleft()
            at_us = self._base_us + (position - self._base) * US_PER_BYTE
            self._echoes.append(Echo(name, at_us, played=True))
        if not self._queue:
            self._dry_since = self.runs[-1].end_us

    def take_echoes(self) -> list[Echo]:
        """Return the marks that have become due since the last call, in order of time."""
        echoes, self._echoes = self._echoes, []
        return echoes

    def next_echo_us(self) -> int | None:
        """When the next pending mark will be reached if nothing else happens."""
        if not self._marks:
            return None
        return self._base_us + (self._marks[0][0] - self._base) * US_PER_BYTE

    def heard_between(self, start: int, end: int) -> bytes:
        """Mu-law heard in the samples `start` to `end` of the stream, silence where nothing played.

        Sample n lasts from n * 125 us on. A run that begins inside a sample is moved to the next,
        so it is heard at most 125 us late here. `end` must not lie after the last `advance`.
        """
        first = max(start - self._track_start, 0)
        piece = bytes(self._track[first : max(end - self._track_start, 0)])
        lead = min(max(self._track_start - start, 0), end - start)
        return (_SILENCE * lead + piece).ljust(end - start, _SILENCE)

    def forget_before(self, sample: int) -> None:
        """Release the memory of what was heard before `sample`; it reads as silence from now on."""
        surplus = min(sample - self._track_start, len(self._track))
        if surplus > 0:
            del self._track[:surplus]
            self._track_start += surplus

    def _begin(self, now_us: int) -> None:
        self._base, self._base_us = self._heard, now_us
        if self._dry_since is not None and self._dry_since < now_us:
            self.dry_spells.append(DrySpell(self._dry_since, now_us))
        self._dry_since = None
        if not self.runs or self.runs[-1].end_us != now_us:
            self.runs.append(Run(now_us))
            first_sample = -(-now_us // US_PER_BYTE)
            missing = first_sample - self._track_start - len(self._track)
            if missing > 0:
                self._track += _SILENCE * missing
