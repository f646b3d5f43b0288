"""From both logs of a run to its figures. Pure: no clock, no process."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from tests.bench import markers
from tests.bench.logs import CallerLog, Cleared, Delta, Gap, Heard, ModelLog, Window

__all__ = [
    "BARGE_IN_LIMIT_NS",
    "LATE_MS",
    "Answers",
    "Figures",
    "Spread",
    "analyse",
    "calls_of_sessions",
    "frames_to_model",
    "percent",
    "within",
]

BARGE_IN_LIMIT_NS: Final = 2_000_000_000  # a clear later than this was for something else
LATE_MS: Final = 20.0
RESTART: Final = 70 * 8  # samples: a gap this close before a new answer is the pause before it


class Spread(Struct, frozen=True):
    """Milliseconds, as a distribution."""

    n: int
    p50: float
    p99: float
    max: float
    p999: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None for no values."""
        ordered = sorted(values)
        if not ordered:
            return None
        count = len(ordered)
        ranks = (min(count - 1, int(count * share)) for share in (0.5, 0.99, 0.999))
        p50, p99, p999 = (round(ordered[rank], 3) for rank in ranks)
        return cls(count, p50, p99, round(ordered[-1], 3), p999)


class Figures(Struct):
    """What was measured inside the window; percentages from 0 to 100."""

    to_model_ms: Spread | None  # a caller's frame sent -> its last symbol read by the model
    to_model_missing_pct: float | None
    to_model_late_pct: float | None  # over 20 ms
    to_caller_ms: Spread | None  # an answer's first delta sent -> its mark read by the caller
    to_caller_missing_pct: float | None  # deltas of answers that were not interrupted
    barge_in_ms: Spread | None  # `speech_started` sent -> `clear` read
    barge_ins: int
    cleared: int
    stale_ms: float  # the most audio of an interrupted answer that came after its `clear`
    gaps: int  # times the play buffer ran dry within an answer
    gap_ms: float
    heard_error_ms: Spread | None  # |truncated to - really played|
    truncates: int
    appends_per_call_s: float | None
    ms_per_append: float | None
    formats: dict[str, int]


def unroll(sent: Sequence[tuple[int, int]], arrived: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Match arrivals with what was sent, both (time, label) in order of time.

    Labels repeat, but order is kept, so a label means the first one sent after the last that was
    matched. Returns the time of arrival by index into `sent`; what is not there never arrived.
    """
    matched: dict[int, int] = {}
    at = 0
    for now, label in arrived:
        index = at
        while index < len(sent) and sent[index][0] <= now and sent[index][1] != label:
            index += 1
        if index < len(sent) and sent[index][0] <= now:
            matched[index] = now
            at = index + 1
    return matched


def analyse(callers: CallerLog, model: ModelLog, window: Window, calls: int) -> Figures:
    """The figures of one run."""
    call_of = calls_of_sessions(model)
    to_model, missing_frames, frames = frames_to_model(callers, model, window)
    late = sum(value > LATE_MS for value in to_model)
    answers = Answers(callers, model, call_of)
    first, missing_deltas, deltas = answers.delays(window)
    barge_in, expected, stale, errors = answers.interruptions(window)
    gaps = answers.gaps(window)
    tenths = range(window.start_ns // 100_000_000, window.end_ns // 100_000_000)
    appends = sum(model.appends.get(tenth, 0) for tenth in tenths)
    samples = sum(model.samples.get(tenth, 0) for tenth in tenths)
    return Figures(
        to_model_ms=Spread.of(to_model),
        to_model_missing_pct=percent(missing_frames, frames),
        to_model_late_pct=percent(late, len(to_model)),
        to_caller_ms=Spread.of((at_ns - sent_ns) / 1e6 for _, sent_ns, at_ns in first),
        to_caller_missing_pct=percent(missing_deltas, deltas),
        barge_in_ms=Spread.of(barge_in),
        barge_ins=expected,
        cleared=len(barge_in),
        stale_ms=round(max(stale, default=0.0), 1),
        gaps=len(gaps),
        gap_ms=round(sum(gap.us for gap in gaps) / 1000, 1),
        heard_error_ms=Spread.of(errors),
        truncates=len(model.truncates),
        appends_per_call_s=round(10 * appends / len(tenths) / calls, 2) if tenths else None,
        ms_per_append=round(samples / 8 / appends, 2) if appends else None,
        formats=model.formats,
    )


def percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 3) if whole else None


def within(at_ns: int, window: Window) -> bool:
    return window.start_ns <= at_ns < window.end_ns


def calls_of_sessions(model: ModelLog) -> dict[int, int]:
    """Which call a session of the model's belongs to: the one whose marks it heard."""
    votes: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for mark in model.arrived:
        votes[mark.session][mark.call] += 1
    return {session: count.most_common(1)[0][0] for session, count in votes.items()}


def frames_to_model(
    callers: CallerLog, model: ModelLog, window: Window
) -> tuple[list[float], int, int]:
    """Delays in ms, marked frames missing, marked frames sent."""
    sent: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    arrived: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for frame in callers.sent:
        sent[frame.call].append((frame.at_ns, frame.sequence % markers.SEQUENCES))
    for mark in model.arrived:
        arrived[mark.call].append((mark.at_ns, mark.sequence))
    delays, missing, total = [], 0, 0
    for call, marked in sent.items():
        matched = unroll(marked, arrived[call])
        for index, (at_ns, _) in enumerate(marked):
            if within(at_ns, window):
                total += 1
                if index in matched:
                    delays.append((matched[index] - at_ns) / 1e6)
                else:
                    missing += 1
    return delays, missing, total


class Answers:
    """The other direction: answers, call by call."""

    def __init__(self, callers: CallerLog, model: ModelLog, call_of: Mapping[int, int]) -> None:
        self._model, self._call_of, self._log = model, call_of, callers
        self._deltas: defaultdict[int, list[Delta]] = defaultdict(list)  # by session
        for delta in model.deltas:
            self._deltas[delta.session].append(delta)
        self._heard: defaultdict[int, list[Heard]] = defaultdict(list)  # by call, as below
        for heard in callers.heard:
            self._heard[heard.call].append(heard)
        self._cleared: defaultdict[int, list[Cleared]] = defaultdict(list)
        for cleared in callers.cleared:
            self._cleared[cleared.call].append(cleared)

    def delays(self, window: Window) -> tuple[list[tuple[int, int, int]], int, int]:
        """First deltas (call, sent, heard), deltas missing, deltas that had to come."""
        cut = {(s.session, s.answer) for s in self._model.speech if s.interrupts}
        first, missing, total = [], 0, 0
        for session, deltas in self._deltas.items():
            call = self._call_of.get(session, -1)
            heard = self._heard[call]
            matched = unroll(
                [(d.at_ns, _label(d)) for d in deltas], [(h.at_ns, _label(h)) for h in heard]
            )
            for index, delta in enumerate(deltas):
                if not within(delta.at_ns, window):
                    continue
                if delta.first and index in matched:
                    first.append((call, delta.at_ns, matched[index]))
                if (session, delta.answer) not in cut:
                    total += 1
                    missing += index not in matched
        return first, missing, total

    def interruptions(self, window: Window) -> tuple[list[float], int, list[float], list[float]]:
        """Delays of `clear`, how many had to come, stale audio after each, errors of truncates."""
        delays: list[float] = []
        stale: list[float] = []
        errors: list[float] = []
        expected = 0
        truncated = {(t.session, t.answer): t.audio_end_ms for t in self._model.truncates}
        for speech in self._model.speech:
            if not speech.interrupts or not within(speech.at_ns, window):
                continue
            expected += 1
            call = self._call_of.get(speech.session, -1)
            cleared = self._cleared[call]
            index = bisect_left(cleared, speech.at_ns, key=lambda c: c.at_ns)
            if index == len(cleared) or cleared[index].at_ns > speech.at_ns + BARGE_IN_LIMIT_NS:
                continue
            clear = cleared[index]
            delays.append((clear.at_ns - speech.at_ns) / 1e6)
            answer = speech.answer % markers.SEQUENCES
            heard = self._heard[call]
            came = bisect_left(heard, clear.position - markers.BURST, key=lambda h: h.position)
            later = (h.position - markers.LEAD for h in heard[came:] if h.answer != answer)
            end = self._log.received.get(call, clear.position)
            stale.append(max(0, next(later, end) - clear.position) / 8)
            said = truncated.get((speech.session, speech.answer))
            begun = self._begun(heard, answer, clear.position)
            if said is not None and begun is not None:
                errors.append(abs(said - (clear.position - clear.unplayed - begun) / 8))
        return delays, expected, stale, errors

    @staticmethod
    def _begun(heard: Sequence[Heard], answer: int, before: int) -> int | None:
        """Where the last answer of that label begins, by position, ahead of `before`."""
        at = bisect_left(heard, before, key=lambda h: h.position)
        begun = None
        while at and heard[at - 1].answer == answer:
            at -= 1
            begun = heard[at].position - markers.LEAD
        return begun

    def gaps(self, window: Window) -> list[Gap]:
        """The gaps inside answers: not before a new one, nor in what came after a `clear`."""
        found = []
        for gap in self._log.gaps:
            if not within(gap.at_ns, window):
                continue
            heard = self._heard[gap.call]
            at = bisect_left(heard, gap.position, key=lambda h: h.position)
            if at == 0:
                continue
            new = at < len(heard) and heard[at].answer != heard[at - 1].answer
            if new and heard[at].position - gap.position <= RESTART:
                continue
            cleared = self._cleared[gap.call]
            last = bisect_right(cleared, gap.position, key=lambda c: c.position) - 1
            if last >= 0 and heard[at - 1].position < cleared[last].position:
                continue
            found.append(gap)
        return found


def _label(mark: Delta | Heard) -> int:
    """What a delta and its mark have in common."""
    number, answer = mark.number % markers.NUMBERS, mark.answer % markers.SEQUENCES
    return number * markers.SEQUENCES + answer
