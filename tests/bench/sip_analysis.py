"""From the logs of a run over SIP to its figures. Pure: no clock, no process."""

from __future__ import annotations

import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from msgspec import Struct

from tests.bench import markers
from tests.bench.analysis import (
    BARGE_IN_LIMIT_NS,
    LATE_MS,
    Answers,
    Spread,
    calls_of_sessions,
    frames_to_model,
    percent,
    within,
)
from tests.bench.logs import Heard, ModelLog, Window
from tests.bench.sip_logs import SipLog, Spurt

__all__ = ["SipFigures", "analyse"]

FRAME_NS: Final = 20_000_000


class SipFigures(Struct):
    """What was measured inside the window; percentages from 0 to 100.

    A delta waits for the next packet that is due: `to_caller_ms` holds that wait of up to 20 ms,
    `to_caller_beyond_ms` is what comes on top of it: next to nothing, or a whole slot more where it
    came too late for the next one. Since deltas meet every part of a slot alike, the mean of that
    is how long the bridge itself takes. Lateness is that of each packet behind the
    grid of 20 ms that its call's earliest packet began.
    """

    setup_ms: Spread | None  # INVITE -> 200, of all calls
    to_model_ms: Spread | None  # a caller's frame sent -> its last symbol read by the model
    to_model_missing_pct: float | None
    to_model_late_pct: float | None  # over 20 ms
    to_caller_ms: Spread | None  # an answer's first delta sent -> the packet with its mark
    to_caller_beyond_ms: Spread | None
    to_caller_own_ms: float | None  # its mean: what the bridge itself takes
    to_caller_missing_pct: float | None  # deltas of answers that were not interrupted
    barge_in_ms: Spread | None  # `speech_started` sent -> the last packet of the answer, 0: none
    silence_ms: Spread | None  # `speech_started` sent -> the first packet of silence
    barge_ins: int
    silenced: int
    stale_ms: float  # the most audio of an interrupted answer that came after the silence
    gaps: int  # times that silence came within an answer
    gap_ms: float
    heard_error_ms: Spread | None  # |truncated to - really sent|
    truncates: int
    lateness_ms: Spread | None
    jitter_ms: Spread | None  # RFC 3550 section 6.4.1, over calls
    longest_gap_ms: float  # between two packets of a call
    bursts: int
    packets: int
    packets_lost: int
    packets_repeated: int
    sources: int  # SSRCs: one to a call
    appends_per_call_s: float | None
    ms_per_append: float | None
    formats: dict[str, int]


def analyse(callers: SipLog, model: ModelLog, window: Window, calls: int) -> SipFigures:
    """The figures of one run."""
    call_of = calls_of_sessions(model)
    to_model, missing_frames, frames = frames_to_model(callers, model, window)
    first, missing_deltas, deltas = Answers(callers, model, call_of).delays(window)
    grids = {stream.call: stream.grid_ns for stream in callers.streams}
    beyond = [
        (at - _next_slot(grids[call], sent)) / 1e6 for call, sent, at in first if call in grids
    ]
    barge_ins = _BargeIns(callers, model, window, call_of)
    gaps = _gaps(callers, model, window, call_of)
    late: array.array[int] = array.array("I")
    for stream in callers.streams:
        late.frombytes(stream.lateness_us)
    tenths = range(window.start_ns // 100_000_000, window.end_ns // 100_000_000)
    appends = sum(model.appends.get(tenth, 0) for tenth in tenths)
    samples = sum(model.samples.get(tenth, 0) for tenth in tenths)
    return SipFigures(
        setup_ms=Spread.of(ns / 1e6 for ns in callers.setup_ns),
        to_model_ms=Spread.of(to_model),
        to_model_missing_pct=percent(missing_frames, frames),
        to_model_late_pct=percent(sum(value > LATE_MS for value in to_model), len(to_model)),
        to_caller_ms=Spread.of((at - sent) / 1e6 for _, sent, at in first),
        to_caller_beyond_ms=Spread.of(beyond),
        to_caller_own_ms=round(sum(beyond) / len(beyond), 3) if beyond else None,
        to_caller_missing_pct=percent(missing_deltas, deltas),
        barge_in_ms=Spread.of(barge_ins.delays_ms),
        silence_ms=Spread.of(barge_ins.silences_ms),
        barge_ins=barge_ins.expected,
        silenced=len(barge_ins.delays_ms),
        stale_ms=round(max(barge_ins.stale_ms, default=0.0), 1),
        gaps=len(gaps),
        gap_ms=round(sum(gaps) / 1e6, 1),
        heard_error_ms=Spread.of(barge_ins.errors_ms),
        truncates=len(model.truncates),
        lateness_ms=Spread.of(us / 1000 for us in late),
        jitter_ms=Spread.of(stream.jitter / 8 for stream in callers.streams),
        longest_gap_ms=round(max((s.longest_gap_ns for s in callers.streams), default=0) / 1e6, 2),
        bursts=sum(stream.bursts for stream in callers.streams),
        packets=sum(stream.packets for stream in callers.streams),
        packets_lost=sum(stream.lost for stream in callers.streams),
        packets_repeated=sum(stream.repeated for stream in callers.streams),
        sources=sum(stream.sources for stream in callers.streams),
        appends_per_call_s=round(10 * appends / len(tenths) / calls, 2) if tenths else None,
        ms_per_append=round(samples / 8 / appends, 2) if appends else None,
        formats=model.formats,
    )


def _next_slot(grid_ns: int, sent_ns: int) -> int:
    """When the first packet at or after `sent_ns` was due."""
    return sent_ns + (grid_ns - sent_ns) % FRAME_NS


class _BargeIns:
    """The interruptions of the window: when each was heeded, and what came after."""

    def __init__(
        self, callers: SipLog, model: ModelLog, window: Window, call_of: dict[int, int]
    ) -> None:
        self.delays_ms: list[float] = []
        self.silences_ms: list[float] = []
        self.stale_ms: list[float] = []
        self.errors_ms: list[float] = []
        self.expected = 0
        heard: defaultdict[int, list[Heard]] = defaultdict(list)
        for mark in callers.heard:
            heard[mark.call].append(mark)
        truncated = {(t.session, t.answer): t.audio_end_ms for t in model.truncates}
        for speech in model.speech:
            if not speech.interrupts or not within(speech.at_ns, window):
                continue
            self.expected += 1
            call = call_of.get(speech.session, -1)
            said = truncated.get((speech.session, speech.answer))
            label = speech.answer % markers.SEQUENCES
            self._one(speech.at_ns, label, said, callers.spurts.get(call, []), heard[call])

    def _one(
        self,
        at_ns: int,
        label: int,
        said_ms: int | None,
        spurts: Sequence[Spurt],
        heard: Sequence[Heard],
    ) -> None:
        index = bisect_right(spurts, at_ns, key=lambda s: s.start_ns) - 1
        if index < 0:
            return  # it was stopped before a packet of it had come
        spurt = spurts[index]
        if spurt.silent_ns == 0 or spurt.silent_ns > at_ns + BARGE_IN_LIMIT_NS:
            return
        self.delays_ms.append(max(0, spurt.end_ns - at_ns) / 1e6)
        if spurt.silent_ns >= at_ns:
            self.silences_ms.append((spurt.silent_ns - at_ns) / 1e6)
        came = bisect_left(heard, spurt.end, key=lambda h: h.position)
        another = next((h.at_ns for h in heard[came:] if h.answer != label), None)
        stale = [
            each.end - each.start
            for each in spurts[index + 1 :]
            if another is not None and each.end_ns < another
        ]
        self.stale_ms.append(sum(stale) / 8)
        begun = _begun(heard[:came], label)
        if said_ms is not None and begun is not None:
            self.errors_ms.append(abs(said_ms - (spurt.end - begun) / 8))


def _begun(heard: Sequence[Heard], label: int) -> int | None:
    """Where the last of these answers begins, by position, if it is the one with that label."""
    begun, at = None, len(heard)
    while at and heard[at - 1].answer == label:
        at -= 1
        begun = heard[at].position - markers.LEAD
    return begun


def _gaps(callers: SipLog, model: ModelLog, window: Window, call_of: dict[int, int]) -> list[int]:
    """Silences within an answer that nobody had interrupted, in ns."""
    cut: set[tuple[int, int]] = set()
    for speech in model.speech:
        if speech.interrupts:
            label = speech.answer % markers.SEQUENCES
            cut.add((call_of.get(speech.session, -1), label))
    heard: defaultdict[int, list[Heard]] = defaultdict(list)
    for mark in callers.heard:
        heard[mark.call].append(mark)
    found = []
    for call, spurts in callers.spurts.items():
        marks = heard[call]
        for one, other in pairwise(spurts):
            if not within(other.start_ns, window):
                continue
            at = bisect_left(marks, other.start, key=lambda h: h.position)
            before, after = marks[at - 1 : at], marks[at : at + 1]
            if not before or not after or (call, before[0].answer) in cut:
                continue
            # A mark of the same answer follows: nothing should have been silent between.
            if before[0].answer == after[0].answer and after[0].position < other.end:
                found.append(other.start_ns - one.end_ns - FRAME_NS)
    return found
