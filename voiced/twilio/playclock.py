"""How much of the audio sent to Twilio has been played: an estimate from our clock and marks.

Sans-I/O: the caller passes the time, in seconds of one monotonic clock. Positions are bytes of the
generation, that is, since the last `clear` (Twilio, "Media Streams: WebSocket messages": media is
queued and played in order, `clear` empties the queue, a mark comes back when all before it has been
played, at once on an empty queue, or because of `clear`).

**The frame.** Media, marks and `clear` take the same way to the carrier. A clear sent now therefore
finds what the carrier has played *one forward delay from now*, and audio sent at s could begin at s
plus that same delay: in times of our sending the forward delay vanishes, and the carrier's buffer
is modelled by our sending alone. A mark whose echo comes at T tells that its position was reached
at T less the whole round trip, in the same frame.

**The phase.** Write the time at which position p is reached as `phase + p / rate`. The phase never
falls while p grows; it grows when the buffer runs empty or the carrier stalls. Our sending gives
its lower bound (`earliest`), one step for each time the buffer must have run empty. An echo gives
an upper bound, `T - round_trip - p / rate`, which exceeds the truth only by the jitter of the way
back. A mark that is overdue says what an echo would say that came now, as a lower bound.

**The estimate.** Votes are the newest three marks, echoed or overdue, of the last 600 ms. The phase
is the least that an echoed one of them gives: a single late echo is jitter, three are a stall, and
the first echo that shows less lag corrects it back. If all are overdue, no echo speaks against a
stall, and the oldest of them says where it began. After a pause the votes start afresh, with a mark
behind the first audio, so that a late start is seen at once (a carrier that has not even ended what
was before the pause shows in overdue marks). Twice the usual change from one echo to the next is
taken off, because the least of three late echoes is still late and a `clear` will be late like
them, finding more played. The result is never below `earliest`.

**The round trip** is the least of `T - max(mark sent, position reached at the earliest)` over the
last 4 marks that were sent on a buffer known to be empty: only they can tell a longer way from a
late carrier. The least over the last 64 marks of any kind, and a frame, caps it, because no carrier
plays what it has not got. `mark_due` places both kinds.

**What holds.** With constant delays the estimate is exact. Jitter moves it by no more than itself:
too high by at most the forward, too low by at most the forward plus the backward. A stall or a late
start shows as too high a figure, by at most its length, and until it is believed (600 ms, the
distance of two marks and a round trip after it began; a late start at its first mark); what has
been reported as heard by then is not taken back.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median_low

__all__ = ["PlayClock", "PlayClockStatistics"]

MARK_EVERY_S = 0.2
"""Audio between two marks: three of them are 600 ms, and five messages a second are not felt."""

_VOTES = 3
_VOTE_AGE_S = 0.6
_FRAME_S = 0.02  # a carrier may count a frame as played when it takes it
_OVERDUE_S = 0.02  # a wake-up may be late by so much without being jitter
_CHANGES = 16  # 3 s of echoes; their median is blind to single stalls
# After this an echo is taken for lost, not late: a carrier that drops marks must not freeze a call.
_PATIENCE_S = 5.0

# Pending marks: Twilio holds 10 minutes, but we are a few seconds ahead at most, ten marks. Periods
# grow only with each time the buffer runs empty, and leave when they have been heard.
_PENDING = 256
_PERIODS = 256


@dataclass(frozen=True, slots=True)
class PlayClockStatistics:
    """Where the clock stands; counters are of the whole call."""

    generation: int
    position: int
    confirmed: int
    round_trip: float | None
    jitter: float  # seconds, median change from one echo to the next
    lag: float  # seconds that the carrier ran later than it could, at the last question
    pending: int
    marks: int
    echoes: int
    cleared_echoes: int  # of an older generation: they prove nothing
    unknown_echoes: int
    lost_marks: int  # pushed out by newer ones, never echoed


@dataclass(slots=True)
class _Mark:
    position: int
    sent_at: float
    reached: float  # when the position is reached at the earliest
    empty: bool  # sent when everything before had been confirmed


class PlayClock:
    """The play clock of one call, at `bytes_per_ms` bytes of audio a millisecond."""

    def __init__(self, bytes_per_ms: int) -> None:
        self._rate = bytes_per_ms * 1000.0
        self._pending: dict[str, _Mark] = {}
        self._cleared: set[str] = set()
        self._round_trips: deque[float] = deque(maxlen=64)
        self._empty_round_trips: deque[float] = deque(maxlen=4)
        self._marks = self._echoes = self._cleared_echoes = self._unknown_echoes = self._lost = 0
        self._serial = 0
        self._round_trip: float | None = None
        self._changes: deque[float] = deque(maxlen=_CHANGES)
        self._jitter = 0.0
        self._lag = 0.0
        self.generation = 0
        self._begin_generation()

    def _begin_generation(self) -> None:
        self.position = 0  # bytes sent
        self.confirmed = 0  # bytes that an echo has proved played
        self._reported = 0
        self._marked: int | None = None  # position of the newest mark since the last pause
        self._probed = False  # a mark was sent on the empty buffer since the last audio
        # (first byte, earliest phase) of each stretch that plays without running empty
        self._periods: deque[tuple[int, float]] = deque(maxlen=_PERIODS)
        self._forget_votes()

    def _forget_votes(self) -> None:
        self._votes: deque[tuple[float, _Mark]] = deque(maxlen=_VOTES)  # echoed at, mark
        self._echoed: list[tuple[float, float]] = []  # echoed at, phase; of each vote
        self._known = -math.inf  # the least phase of the votes
        self._last_trip: float | None = None  # of the newest echo

    # What happened

    def sent(self, size: int, now: float) -> None:
        """`size` bytes of audio were handed to the socket."""
        earliest = now - self.position / self._rate
        pause = earliest - self._periods[-1][1] if self._periods else math.inf
        if pause >= MARK_EVERY_S:
            self._forget_votes()
            self._marked = None
        if pause > 0:
            self._periods.append((self.position, earliest))
        self.position += size
        self._probed = False

    def mark(self, now: float) -> str:
        """Name a mark that is sent now, behind all audio so far: `g2:16000:7`, never the same."""
        self._serial += 1
        self._marks += 1
        name = f"g{self.generation}:{self.position}:{self._serial}"
        reached = self._periods[-1][1] + self.position / self._rate if self._periods else now
        empty = self.confirmed == self.position
        if len(self._pending) == _PENDING:
            del self._pending[next(iter(self._pending))]
            self._lost += 1
        self._pending[name] = _Mark(self.position, now, reached, empty)
        self._marked = self.position
        self._probed = self._probed or empty
        return name

    def mark_due(self) -> bool:
        """Whether a mark should be sent now; to be asked after each `sent`, `echoed` and `clear`.

        It should at once in a new generation and behind the first audio after a pause, then every
        200 ms of audio, and when the buffer is known to be empty and has not been probed since it
        played. Besides, send one at the end of each utterance, so that its end is confirmed.
        """
        if self._marked is None or self.position - self._marked >= MARK_EVERY_S * self._rate:
            return True
        return self.confirmed == self.position and not self._probed

    def echoed(self, name: str, now: float) -> bool:
        """Note that a mark came back; False if it proves nothing (cleared generation, unknown)."""
        mark = self._pending.pop(name, None)
        if mark is None:
            if name in self._cleared:
                self._cleared.discard(name)
                self._cleared_echoes += 1
            else:
                self._unknown_echoes += 1
            return False
        self._echoes += 1
        self.confirmed = max(self.confirmed, mark.position)
        trip = max(0.0, now - max(mark.sent_at, mark.reached))
        self._round_trips.append(trip)
        if mark.empty:
            self._empty_round_trips.append(trip)
        if not mark.empty:
            # Only within a stretch: a probe and a late start differ by more than jitter.
            if self._last_trip is not None:
                self._changes.append(abs(trip - self._last_trip))
                self._jitter = median_low(self._changes) if len(self._changes) > 3 else 0.0
            self._last_trip = trip
        self._learn(now, mark)
        return True

    def clear(self, now: float) -> int:
        """Note that a `clear` is sent now: return the final `heard`, begin the next generation."""
        final = self.heard(now)
        if len(self._cleared) > _PENDING:  # a carrier that never echoes what it cleared
            self._cleared.clear()
        self._cleared.update(self._pending)
        self._pending.clear()
        self.generation += 1
        self._begin_generation()
        return final

    # Questions

    def heard(self, now: float) -> int:
        """Bytes that the carrier will have played when a `clear` that is sent now reaches it.

        Never less than what was returned before or an echo proved, never more than was sent.
        """
        self._reported = self._estimate(now, self._phase(now))
        while len(self._periods) > 1 and self._periods[1][0] <= self._reported:
            self._periods.popleft()
        return self._reported

    def seconds_until(self, position: int, now: float) -> float:
        """Seconds until `heard` reaches `position`, if nothing stalls; 0 when it has.

        A position beyond what was sent counts as the end of that: what is not sent has no time.
        Unlike `heard`, asking commits to nothing.
        """
        position = min(position, self.position)
        phase = self._phase(now)
        if position <= self._estimate(now, phase):
            return 0.0
        earliest = next(earliest for start, earliest in reversed(self._periods) if start < position)
        return max(0.0, max(earliest, phase) + position / self._rate - now)

    @property
    def round_trip(self) -> float | None:
        """Seconds from a mark to its echo on an empty buffer; None until a mark came back."""
        return self._round_trip

    def statistics(self) -> PlayClockStatistics:
        """Where the clock stands."""
        return PlayClockStatistics(
            generation=self.generation,
            position=self.position,
            confirmed=self.confirmed,
            round_trip=self.round_trip,
            jitter=self._jitter,
            lag=self._lag,
            pending=len(self._pending),
            marks=self._marks,
            echoes=self._echoes,
            cleared_echoes=self._cleared_echoes,
            unknown_echoes=self._unknown_echoes,
            lost_marks=self._lost,
        )

    def _estimate(self, now: float, phase: float) -> int:
        """Return the position at a phase, within what was reported, proved and sent."""
        least = max(self._reported, self.confirmed)
        end = self.position
        for start, earliest in reversed(self._periods):
            # A thousandth of a byte makes up for what rounding takes from a whole one.
            played = math.floor((now - max(earliest, phase)) * self._rate + 0.001)
            if played >= start:
                return max(least, min(played, end))
            end = start
        return least

    def _learn(self, now: float, mark: _Mark) -> None:
        """Take in the vote of a mark that came back; the round trip may have changed for all."""
        trip = min(self._round_trips)
        if self._empty_round_trips:
            trip = min(trip + _FRAME_S, *self._empty_round_trips)
        self._round_trip = trip
        self._votes.append((now, mark))
        off = trip + 2 * self._jitter
        # An echo that came at once only says that all had been played by then.
        self._echoed = [
            (at, max(at - off, vote.sent_at) - vote.position / self._rate)
            for at, vote in self._votes
        ]
        self._known = _least(self._echoed, now)

    def _phase(self, now: float) -> float:
        """Return the carrier's phase by the marks; minus infinity where they tell nothing."""
        round_trip, known, rate = self._round_trip, self._known, self._rate
        if round_trip is None or not self._periods:
            return -math.inf
        tolerance = max(_OVERDUE_S, 3 * self._jitter)
        overdue = 0
        since = -math.inf  # phase by the oldest overdue mark
        for mark in self._pending.values():
            if mark.position <= self.confirmed:
                continue
            phase = now - round_trip - mark.position / rate
            expected = max(known, max(mark.reached, mark.sent_at) - mark.position / rate)
            if phase - expected <= tolerance:
                break  # later marks are due later
            if phase - expected <= _PATIENCE_S:
                since = max(since, phase)
                overdue += 1
        if overdue:
            believed = _least(self._echoed[overdue - _VOTES :] if overdue < _VOTES else [], now)
            known = since if believed == math.inf else believed
        self._lag = max(0.0, known - self._periods[-1][1])
        return known


def _least(votes: list[tuple[float, float]], newest: float) -> float:
    """Return the least phase of the votes not too old beside the newest; infinity without any."""
    return min((phase for at, phase in votes if newest - at <= _VOTE_AGE_S), default=math.inf)
