"""A simulated carrier for the playback tests: the play buffer, the way there and the way back.

It knows nothing of the estimator that it judges: one tick is a millisecond, in which the carrier
plays a millisecond of its buffer, or does not. All times are whole milliseconds of a virtual clock.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from voiced.playout import Cut, Playout
from voiced.twilio.playclock import PlayClock

BYTES_PER_MS = 8
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Media:
    payload: bytes


@dataclass(frozen=True, slots=True)
class MarkMessage:
    name: str


@dataclass(frozen=True, slots=True)
class ClearMessage:
    pass


Message = Media | MarkMessage | ClearMessage


class Line(Generic[T]):
    """One way of a TCP connection: delay (a tick at least) and jitter, never out of order."""

    def __init__(self, delay: int, jitter: int, rng: random.Random) -> None:
        self._delay, self._jitter, self._rng = max(1, delay), jitter, rng
        self._held: deque[tuple[int, T]] = deque()

    def put(self, message: T, now: int) -> None:
        due = now + self._delay + (self._rng.randint(0, self._jitter) if self._jitter else 0)
        if self._held:
            due = max(due, self._held[-1][0])
        self._held.append((due, message))

    def arrived(self, now: int) -> list[T]:
        out: list[T] = []
        while self._held and self._held[0][0] <= now:
            out.append(self._held.popleft()[1])
        return out


class Carrier:
    """The far play buffer. `frame` ms are played at a time, on the carrier's own grid."""

    def __init__(
        self, *, frame: int = 1, start_delay: int = 0, stalls: tuple[tuple[int, int], ...] = ()
    ) -> None:
        self._frame, self._start_delay, self._stalls = frame, start_delay, stalls
        self._queue: deque[bytes | str] = deque()
        self._starts_at: int | None = None
        self.played = bytearray()  # of this generation
        self.finals: list[bytes] = []  # what each cleared generation had played
        self.log: list[tuple[int, int]] = []  # generation, bytes played by the start of each tick

    def take(self, message: Message, now: int) -> list[str]:
        """One message has arrived; returns the marks that it sets free."""
        if isinstance(message, Media):
            if self._starts_at is None:
                self._starts_at = now + self._start_delay
            self._queue.append(message.payload)
            return []
        if isinstance(message, MarkMessage):
            self._queue.append(message.name)
            return self._free_marks()
        marks = [entry for entry in self._queue if isinstance(entry, str)]
        self._queue.clear()
        self._starts_at = None
        self.finals.append(bytes(self.played))
        self.played.clear()
        return marks

    def play(self, now: int) -> list[str]:
        """Play the tick that begins now; returns the marks that were reached."""
        self.log.append((len(self.finals), len(self.played)))
        stalled = any(start <= now < start + length for start, length in self._stalls)
        waiting = self._starts_at is None or now < self._starts_at
        if stalled or waiting or now % self._frame:
            return []
        marks: list[str] = []
        left = self._frame * BYTES_PER_MS
        while left and self._queue:
            head = self._queue.popleft()
            assert isinstance(head, bytes)  # marks at the front were set free already
            self.played += head[:left]
            if len(head) > left:
                self._queue.appendleft(head[left:])
            left -= min(left, len(head))
            marks += self._free_marks()
        return marks

    def _free_marks(self) -> list[str]:
        marks: list[str] = []
        while self._queue and isinstance(entry := self._queue[0], str):
            marks.append(entry)
            self._queue.popleft()
        if not self._queue:
            self._starts_at = None
        return marks


@dataclass(frozen=True, slots=True)
class Utterance:
    """Audio of one item: `length` ms in all, `piece` ms arriving every `every` ms from `at` on."""

    at: int
    length: int
    piece: int = 200
    every: int = 20


@dataclass(frozen=True, slots=True)
class Scenario:
    """A call. Times in ms; `clears` are the moments of barge-in."""

    utterances: tuple[Utterance, ...]
    clears: tuple[int, ...] = ()
    duration: int = 10_000
    forward: int = 40
    backward: int = 40
    forward_jitter: int = 0
    backward_jitter: int = 0
    start_delay: int = 0
    stalls: tuple[tuple[int, int], ...] = ()
    frame: int = 1
    chunk: int = 20
    lead: int = 2000
    seed: int = 0


@dataclass(slots=True)
class Outcome:
    """What came of it; errors are reported minus real, in ms."""

    clear_errors: list[float] = field(default_factory=list)
    poll_errors: list[tuple[int, float]] = field(default_factory=list)  # constant delays only
    cuts: list[list[Cut]] = field(default_factory=list)  # of each clear
    finals: list[bytes] = field(default_factory=list)  # what the carrier had played at each clear
    reported: list[int] = field(default_factory=list)
    most_unheard: int = 0  # bytes with the carrier that the clock took for unheard


def item_name(number: int) -> str:
    return f"item{number}"


class World:
    """Ledger, play clock and sender on this side, the carrier on the other."""

    def __init__(self, scenario: Scenario) -> None:
        rng = random.Random(scenario.seed)
        self.scenario = scenario
        self.out: Line[Message] = Line(scenario.forward, scenario.forward_jitter, rng)
        self.back: Line[str] = Line(scenario.backward, scenario.backward_jitter, rng)
        self.carrier = Carrier(
            frame=scenario.frame, start_delay=scenario.start_delay, stalls=scenario.stalls
        )
        self.clock = PlayClock(BYTES_PER_MS)
        self.playout = Playout(BYTES_PER_MS)
        self.outcome = Outcome()
        self._polls: list[tuple[int, int, int]] = []  # time, generation, heard
        self._now = 0
        self._marked_to = 0

    def run(self) -> Outcome:
        scenario, outcome = self.scenario, self.outcome
        # Long enough for the last clear to arrive after the last jitter.
        end = scenario.duration + scenario.forward + scenario.forward_jitter + 2
        for self._now in range(end):
            for message in self.out.arrived(self._now):
                self._echo(self.carrier.take(message, self._now))
            for name in self.back.arrived(self._now):
                self.clock.echoed(name, self._now / 1000)
                self._mark_if_due()
            if self._now < scenario.duration:
                self._step()
            self._echo(self.carrier.play(self._now))
        outcome.finals = self.carrier.finals
        for reported, final in zip(outcome.reported, outcome.finals, strict=True):
            outcome.clear_errors.append((reported - len(final)) / BYTES_PER_MS)
        if not scenario.forward_jitter:
            self._judge_polls()
        return outcome

    def _judge_polls(self) -> None:
        for at, generation, heard in self._polls:
            of, played = self.carrier.log[at + max(1, self.scenario.forward)]
            if of == generation:
                self.outcome.poll_errors.append((at, (heard - played) / BYTES_PER_MS))

    def _echo(self, names: list[str]) -> None:
        for name in names:
            self.back.put(name, self._now)

    def _mark(self) -> None:
        self._marked_to = self.clock.position
        self.out.put(MarkMessage(self.clock.mark(self._now / 1000)), self._now)

    def _mark_if_due(self) -> None:
        if self.clock.mark_due():
            self._mark()

    def _step(self) -> None:
        now, scenario = self._now, self.scenario
        if now == 0:
            self._mark_if_due()
        for number, utterance in enumerate(scenario.utterances):
            since = now - utterance.at
            done = since // utterance.every * utterance.piece
            if since < 0 or since % utterance.every or done >= utterance.length:
                continue
            size = min(utterance.piece, utterance.length - done)
            name = item_name(number)
            self.playout.add(name, bytes([number % 256]) * (size * BYTES_PER_MS))
            if done + size >= utterance.length:
                self.playout.finish(name)
        if now in scenario.clears:
            final = self.clock.clear(now / 1000)
            self.playout.heard_to(final)
            self.outcome.reported.append(final)
            self.outcome.cuts.append(self.playout.cut())
            self.out.put(ClearMessage(), now)
            self._marked_to = 0
            self._mark_if_due()
        elif now % 20 == 0:
            heard = self.clock.heard(now / 1000)
            self._polls.append((now, self.clock.generation, heard))
            self.playout.heard_to(heard)
        self._send()

    def _send(self) -> None:
        scenario = self.scenario
        most = scenario.chunk * BYTES_PER_MS
        while self.playout.unheard - self.playout.unsent < scenario.lead * BYTES_PER_MS:
            chunk = self.playout.next_chunk(most)
            if chunk is None:
                break
            self.out.put(Media(chunk.payload), self._now)
            self.clock.sent(len(chunk.payload), self._now / 1000)
            assert self.playout.sent(chunk)
            self._mark_if_due()
            with_carrier = self.playout.unheard - self.playout.unsent
            self.outcome.most_unheard = max(self.outcome.most_unheard, with_carrier)
        if not self.playout.unsent and self.clock.position > self._marked_to:
            self._mark()  # the end of what there is


def random_scenario(seed: int, **settings: int) -> Scenario:
    """Ten seconds of answers and interruptions, drawn from `seed`."""
    rng = random.Random(seed)
    utterances = []
    at = rng.randrange(0, 400)
    while at < 9000:
        length = rng.randrange(20, 5000)
        utterances.append(
            Utterance(at, length, piece=rng.choice([20, 200, 1000]), every=rng.choice([1, 10, 20]))
        )
        at += rng.randrange(300, 5000)
    clears = tuple(sorted(rng.sample(range(300, 10_000), rng.randrange(1, 6))))
    chunk = settings.pop("chunk", rng.choice([20, 60, 200, 2000]))
    # mypy cannot see which field a keyword is; all that callers vary are numbers.
    return Scenario(tuple(utterances), clears, chunk=chunk, seed=seed, **settings)  # type: ignore[arg-type]
