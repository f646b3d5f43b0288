"""The load bench measures what it says: its marks, its sums, and one small run of it all."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import __main__ as bench
from tests.bench import load, logs, markers, report
from tests.bench.analysis import Spread, analyse, unroll
from tests.bench.markers import BURST, FRAME, LEAD, NUMBERS, SEQUENCES, Detector, Mark, burst
from tests.bench.processes import Cores, share_out
from tests.bench.systems import BenchFailed, start_other
from voiced.audio import converter
from voiced.formats import PCM16_24K, PCMU_8K

MS = 1_000_000
WINDOW = logs.Window(1_000 * MS, 11_000 * MS)
NUMBER = st.integers(0, NUMBERS - 1)
SEQUENCE = st.integers(0, SEQUENCES - 1)


def silence(samples: int) -> bytes:
    return b"\xff" * samples


# --- marks --------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(LEAD, 400), NUMBER, SEQUENCE), max_size=5),
    st.lists(st.integers(1, 700), min_size=1, max_size=8),
    st.sampled_from(["pcmu", "pcm24"]),
)
def test_marks_are_found_where_they_are_however_the_stream_is_cut(
    marks: list[tuple[int, int, int]],
    cuts: list[int],
    encoding: Literal["pcmu", "pcm24"],
) -> None:
    stream, expected = b"", []
    for pause, number, sequence in marks:
        stream += silence(pause)
        expected.append(Mark(number, sequence, len(stream)))
        stream += burst(number, sequence)
    stream += silence(7)
    samples = len(stream)
    data = stream if encoding == "pcmu" else markers.to_pcm24(stream)
    detector, found, at, turn = Detector(encoding), [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        found += detector.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert found == expected
    assert detector.position == samples
    assert detector.broken == 0


@given(NUMBER, SEQUENCE, st.integers(0, 21))
def test_a_symbol_turned_over_is_no_mark(number: int, sequence: int, symbol: int) -> None:
    audio = bytearray(burst(number, sequence))
    for at in range(symbol * 6, symbol * 6 + 6):
        audio[at] ^= 0x80  # the sign
    detector = Detector("pcmu")
    assert detector.feed(bytes(audio) + silence(FRAME)) == []
    assert detector.broken >= 1


@pytest.mark.parametrize("quality", ["fir", "linear"])
@given(number=NUMBER, sequence=SEQUENCE)
def test_a_caller_s_mark_survives_resampling_within_its_own_frame(
    quality: Literal["fir", "linear"], number: int, sequence: int
) -> None:
    up = converter(PCMU_8K, PCM16_24K, quality)
    assert up is not None
    detector = Detector("pcm24")
    assert detector.feed(up.convert(silence(FRAME))) == []
    (mark,) = detector.feed(up.convert(burst(number, sequence) + silence(FRAME - BURST)))
    assert (mark.number, mark.sequence) == (number, sequence)
    assert 0 <= mark.position - FRAME <= 1 + 8 * up.delay_ms


@pytest.mark.parametrize("quality", ["fir", "linear"])
@given(number=NUMBER, sequence=SEQUENCE)
def test_a_delta_s_mark_survives_resampling(
    quality: Literal["fir", "linear"], number: int, sequence: int
) -> None:
    down = converter(PCM16_24K, PCMU_8K, quality)
    assert down is not None
    detector = Detector("pcmu")
    delta = silence(LEAD) + burst(number, sequence) + silence(320 - LEAD - BURST)
    (mark,) = detector.feed(down.convert(markers.to_pcm24(delta)))
    assert (mark.number, mark.sequence) == (number, sequence)


# --- sums ---------------------------------------------------------------------------------------


@given(
    st.lists(st.booleans(), max_size=300).filter(
        lambda kept: (
            max(map(len, "".join("x" if k else "-" for k in kept).split("x")), default=0)
            < SEQUENCES // 2
        )
    ),
    st.integers(0, 200),
)
def test_what_arrived_is_told_from_what_was_lost(kept: list[bool], delay: int) -> None:
    sent = [(140 * index, index % SEQUENCES) for index in range(len(kept))]
    arrived = [(at + delay, label) for (at, label), keep in zip(sent, kept, strict=True) if keep]
    matched = unroll(sent, arrived)
    assert matched == {index: sent[index][0] + delay for index, keep in enumerate(kept) if keep}


def make_logs() -> tuple[logs.CallerLog, logs.ModelLog]:
    """Call 7 in session 3: 70 marks each 2 ms late; answer 1 whole, answer 2 interrupted."""
    callers, model = logs.CallerLog(received={7: 40_000}), logs.ModelLog()
    for number in range(70):
        at = WINDOW.start_ns + 140 * MS * number
        callers.sent.append(logs.FrameSent(at, 7, number))
        model.arrived.append(logs.MarkArrived(at + 2 * MS, 3, 7, number % SEQUENCES))
    for number in range(20):
        answer = 1 + number // 10
        at = WINDOW.start_ns + (2000 + 4000 * (answer - 1) + 50 * (number % 10)) * MS
        model.deltas.append(logs.Delta(at, 3, number, answer, number % 10 == 0))
        position = 1600 * number + LEAD
        callers.heard.append(logs.Heard(at + 3 * MS, 7, number, answer, position))
    # Answer 2 began to play at 6,003 ms; at 7,010 it is interrupted, and cleared 5 ms later.
    spoke = WINDOW.start_ns + 7010 * MS
    model.speech.append(logs.SpeechStarted(spoke, 3, 2, True))
    unplayed = 16_000 - (7015 - 6003) * 8
    callers.cleared.append(logs.Cleared(spoke + 5 * MS, 7, 32_000, unplayed))
    model.truncates.append(logs.Truncate(spoke + 6 * MS, 3, 2, 1010))
    callers.heard.append(logs.Heard(spoke + 900 * MS, 7, 20, 3, 32_000 + LEAD))
    model.appends = dict.fromkeys(range(10, 110), 5)
    model.samples = dict.fromkeys(range(10, 110), 800)
    return callers, model


def test_a_run_without_a_flaw() -> None:
    figures = analyse(*make_logs(), WINDOW, 1)
    assert figures.to_model_ms == Spread(70, 2.0, 2.0, 2.0, 2.0)
    assert figures.to_caller_ms == Spread(2, 3.0, 3.0, 3.0, 3.0)
    assert figures.barge_in_ms == Spread(1, 5.0, 5.0, 5.0, 5.0)
    assert figures.heard_error_ms == Spread(1, 2.0, 2.0, 2.0, 2.0)
    assert (figures.to_model_missing_pct, figures.to_model_late_pct) == (0.0, 0.0)
    assert (figures.to_caller_missing_pct, figures.stale_ms, figures.gaps) == (0.0, 0.0, 0)
    assert (figures.barge_ins, figures.cleared) == (1, 1)
    assert (figures.appends_per_call_s, figures.ms_per_append) == (50.0, 20.0)


def test_lost_and_late_frames_are_counted() -> None:
    callers, model = make_logs()
    del model.arrived[10:17]
    for index in range(7):
        late = model.arrived[index]
        model.arrived[index] = late._replace(at_ns=late.at_ns + 30 * MS)
    figures = analyse(callers, model, WINDOW, 1)
    assert figures.to_model_missing_pct == 10.0
    assert figures.to_model_late_pct == pytest.approx(100 * 7 / 63, abs=0.001)
    assert figures.to_model_ms is not None
    assert figures.to_model_ms.max == 32.0


def test_deltas_lost_outside_an_interruption_are_counted() -> None:
    callers, model = make_logs()
    del callers.heard[4]
    del callers.heard[14]
    assert analyse(callers, model, WINDOW, 1).to_caller_missing_pct == 10.0


def test_a_barge_in_without_a_clear_is_counted() -> None:
    callers, model = make_logs()
    callers.cleared.clear()
    figures = analyse(callers, model, WINDOW, 1)
    assert (figures.barge_ins, figures.cleared, figures.barge_in_ms) == (1, 0, None)


def test_audio_of_the_interrupted_answer_after_its_clear_is_stale() -> None:
    callers, model = make_logs()
    callers.heard[-1] = callers.heard[-1]._replace(position=32_000 + 800 + LEAD)
    assert analyse(callers, model, WINDOW, 1).stale_ms == 100.0


@pytest.mark.parametrize(
    ("position", "counted"),
    [(8_000, 1), (16_000, 0), (15_200, 1), (32_000, 0)],
    ids=["within an answer", "before an answer", "in its last delta", "after a clear"],
)
def test_a_gap_counts_where_it_is_heard(position: int, counted: int) -> None:
    callers, model = make_logs()
    callers.gaps.append(logs.Gap(WINDOW.start_ns + 5000 * MS, 7, position, 40_000))
    figures = analyse(callers, model, WINDOW, 1)
    assert (figures.gaps, figures.gap_ms) == (counted, 40.0 * counted)


def test_nothing_outside_the_window_counts() -> None:
    callers, model = make_logs()
    figures = analyse(callers, model, logs.Window(20_000 * MS, 30_000 * MS), 1)
    assert figures.to_model_ms is None
    assert figures.to_caller_ms is None
    assert (figures.barge_ins, figures.appends_per_call_s) == (0, 0.0)


def test_the_measured_process_gets_a_core_to_itself() -> None:
    assert share_out({0, 1, 3}) == Cores(frozenset({3}), frozenset({0, 1}))
    alone = share_out({2})
    assert alone.shared
    assert "ONE CORE" in report.heading(alone, tls=False, pcm=False)


# --- all of it ----------------------------------------------------------------------------------


def test_every_part_can_be_started() -> None:
    for name in bench.PARTS:
        assert callable(importlib.import_module(f"tests.bench.{name}").main)


def test_the_native_bench_prints_a_table_and_writes_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Costs beside the peers', which are the machine's; and the figures of quality, ours."""
    results = tmp_path / "native.json"
    assert bench.main(["native", "--quick", "--json", str(results)]) == 0
    said = capsys.readouterr().out
    document = msgspec.json.decode(results.read_bytes())
    costs = {row["step"]: row for row in document["ns_per_frame"]}
    peers = {"mu-law decode": "g711", "A-law encode": "g711", "pcm16/8000 to pcm16/24000": "soxr"}
    for step, peer in peers.items():
        assert costs[step]["voiced"] > 0
        assert costs[step][peer] > 0
    for law in ("pcmu", "pcma"):  # fused
        assert {f"{law}/8000 to pcm16/24000", f"pcm16/24000 to {law}/8000"} <= set(costs)
    filtered = [row for row in document["quality"] if row["by"] == "voiced fir"]
    assert len(filtered) == 12
    for row in filtered:
        assert row["ripple_db"] < 1
        assert row["unwanted_db"] < -40
        assert row["delay_ms"] < 3
    for row in document["ns_per_frame"]:
        assert row["step"] in said
    assert "soxr HQ" in said


def test_an_unknown_part_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["loud"]) == 2
    assert "playclock" in capsys.readouterr().err


QUICK = msgspec.json.encode(
    {
        "first_ms": 100,
        "cycle_ms": 1500,
        "speech_ms": 100,
        "answer_ms": 800,
        "barge_in_ms": 500,
        "second_ms": 400,
    }
).decode()


@pytest.mark.parametrize("more", [[], ["--tls", "--pcm"]], ids=["plain", "tls-pcm"])
def test_a_small_run_measures_and_loses_nothing(tmp_path: Path, more: list[str]) -> None:
    results = tmp_path / "results.json"
    arguments = ["--calls", "2", "--seconds", "3", "--ramp", "0.2", "--settle", "0.5"]
    arguments += ["--tail", "1.5", "--timing", QUICK, "--json", str(results), *more]
    assert load.main(arguments) == 0
    (row,) = msgspec.json.decode(results.read_bytes())["rows"]
    figures: dict[str, Any] = row["figures"]
    # Times are the machine's, not ours to judge here; that nothing is missing is.
    assert [fault for fault in row["faults"] if not fault.startswith("INVALID")] == []
    assert figures["to_model_ms"]["n"] >= 2 * 3 * 6
    assert figures["to_model_missing_pct"] == 0
    assert figures["to_caller_ms"]["n"] >= 2
    assert figures["to_caller_missing_pct"] == 0
    assert figures["barge_ins"] >= 1
    assert figures["cleared"] == figures["barge_ins"]
    assert figures["truncates"] >= 1
    assert figures["heard_error_ms"]["n"] >= 1
    assert sum(figures["formats"].values()) == 2
    assert list(figures["formats"]) == ["pcm24/pcm24" if more else "pcmu/pcmu"]
    assert row["broken_marks"] == 0
    assert row["cpu_ms_per_call_s"] > 0
    assert row["idle_rss_kib"] > 0
    assert row["start_ms"] > 0


async def test_a_bridge_that_does_not_start_is_said(tmp_path: Path) -> None:
    cores = share_out(os.sched_getaffinity(0))
    with pytest.RaisesGroup(pytest.RaisesExc(BenchFailed, match="ended with 1: ws://m/x")):
        async with trio.open_nursery() as nursery:
            command = "sh -c 'echo {model}; exit 1'"
            stream = "ws://127.0.0.1:9/media"
            await start_other(
                nursery, cores, tmp_path, url="ws://m/x", command=command, stream=stream
            )
