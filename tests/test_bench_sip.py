"""The SIP load bench measures what it says: its sums, and one small run of it all."""

from __future__ import annotations

import array
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.bench import logs, sip
from tests.bench.analysis import Spread
from tests.bench.markers import LEAD
from tests.bench.sip_analysis import SipFigures, analyse
from tests.bench.sip_logs import SipLog, Spurt, Stream
from tests.test_bench import QUICK

MS = 1_000_000
WINDOW = logs.Window(1_000 * MS, 11_000 * MS)
GRID = WINDOW.start_ns + 7 * MS


def at(position: int) -> int:
    """When the packet with that sample was sent: packets keep to their grid."""
    return GRID + position // 160 * 20 * MS


def make_logs() -> tuple[SipLog, logs.ModelLog]:
    """Call 7 in session 3: answer 1 whole, answer 2 interrupted in its 51st frame, then answer 3.

    Deltas are sent 2 ms before the packet that they fill is due.
    """
    callers, model = SipLog(), logs.ModelLog()
    callers.setup_ns = [5 * MS]
    late = array.array("I", [0] * 99 + [3000]).tobytes()
    callers.streams.append(
        Stream(7, 500, jitter=4.0, grid_ns=GRID, longest_gap_ns=23 * MS, lateness_us=late)
    )
    for number in range(3):
        sent = WINDOW.start_ns + 140 * MS * number
        callers.sent.append(logs.FrameSent(sent, 7, number))
        model.arrived.append(logs.MarkArrived(sent + 2 * MS, 3, 7, number))
    spurts = [(16_000, 16_000 + 16_000), (48_000, 48_000 + 51 * 160), (72_000, 72_000 + 1600)]
    callers.spurts[7] = [
        Spurt(at(start), at(end - 160), start, end, at(end)) for start, end in spurts
    ]
    number = 0
    for answer, (start, end) in enumerate(spurts, 1):
        for position in range(start, end, 1600):
            sent = at(start) - 2 * MS + (position - start) // 1600 * 50 * MS
            model.deltas.append(logs.Delta(sent, 3, number, answer, position == start))
            callers.heard.append(logs.Heard(at(position), 7, number, answer, position + LEAD))
            number += 1
    model.speech.append(logs.SpeechStarted(at(48_000 + 50 * 160) - 12 * MS, 3, 2, True))
    model.truncates.append(logs.Truncate(at(48_000 + 50 * 160), 3, 2, 1020))
    return callers, model


def figures(callers: SipLog, model: logs.ModelLog) -> SipFigures:
    return analyse(callers, model, WINDOW, 1)


def test_a_run_without_a_flaw() -> None:
    found = figures(*make_logs())
    assert found.setup_ms == Spread(1, 5.0, 5.0, 5.0, 5.0)
    assert found.to_model_ms == Spread(3, 2.0, 2.0, 2.0, 2.0)
    assert found.to_caller_ms == Spread(3, 2.0, 2.0, 2.0, 2.0)
    assert found.to_caller_beyond_ms == Spread(3, 0.0, 0.0, 0.0, 0.0)
    assert found.to_caller_own_ms == 0.0
    assert found.barge_in_ms == Spread(1, 12.0, 12.0, 12.0, 12.0)
    assert found.silence_ms == Spread(1, 32.0, 32.0, 32.0, 32.0)
    assert found.heard_error_ms == Spread(1, 0.0, 0.0, 0.0, 0.0)
    assert found.lateness_ms == Spread(100, 0.0, 3.0, 3.0, 3.0)
    assert found.jitter_ms == Spread(1, 0.5, 0.5, 0.5, 0.5)
    assert (found.barge_ins, found.silenced, found.stale_ms, found.gaps) == (1, 1, 0.0, 0)
    assert (found.longest_gap_ms, found.packets, found.packets_lost) == (23.0, 500, 0)
    assert (found.to_model_missing_pct, found.to_caller_missing_pct) == (0.0, 0.0)


def test_a_delta_that_misses_its_slot_shows() -> None:
    callers, model = make_logs()
    callers.heard = [
        mark._replace(at_ns=mark.at_ns + 20 * MS) if mark.answer == 3 else mark
        for mark in callers.heard
    ]
    found = figures(callers, model)
    assert found.to_caller_beyond_ms is not None
    assert found.to_caller_beyond_ms.max == 20.0
    assert found.to_caller_own_ms == round(20 / 3, 3)


def test_an_answer_that_goes_on_is_not_heeded() -> None:
    callers, model = make_logs()
    spurt = callers.spurts[7][1]
    spurt.end_ns, spurt.silent_ns = spurt.end_ns + 3000 * MS, spurt.silent_ns + 3000 * MS
    found = figures(callers, model)
    assert (found.barge_ins, found.silenced, found.barge_in_ms) == (1, 0, None)


def test_audio_of_the_interrupted_answer_after_the_silence_is_stale() -> None:
    callers, model = make_logs()
    start = 60_000
    callers.spurts[7].insert(2, Spurt(at(start), at(start + 640), start, start + 800, 1))
    assert figures(callers, model).stale_ms == 100.0


@pytest.mark.parametrize("answer", [1, 2], ids=["whole", "interrupted"])
def test_silence_within_an_answer_is_a_gap(answer: int) -> None:
    callers, model = make_logs()
    spurts = callers.spurts[7]
    whole = spurts[answer - 1]
    middle = whole.start + 1600
    first = Spurt(whole.start_ns, at(middle - 320), whole.start, middle - 160, at(middle - 160))
    spurts[answer - 1 : answer] = [
        first,
        Spurt(at(middle), whole.end_ns, middle, whole.end, whole.silent_ns),
    ]
    found = figures(callers, model)
    assert (found.gaps, found.gap_ms) == ((1, 20.0) if answer == 1 else (0, 0.0))


def test_lost_deltas_are_counted() -> None:
    callers, model = make_logs()
    del callers.heard[4]
    whole = sum(delta.answer != 2 for delta in model.deltas)
    assert figures(callers, model).to_caller_missing_pct == round(100 / whole, 3)


def test_a_small_run_measures_and_loses_nothing(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    arguments = ["--calls", "2", "--seconds", "3", "--settle", "0.5", "--tail", "1.5"]
    arguments += ["--timing", QUICK, "--strangers", "200", "--json", str(results)]
    assert sip.main(arguments) == 0
    (row,) = msgspec.json.decode(results.read_bytes())["rows"]
    found: dict[str, Any] = row["figures"]
    # Times are the machine's, not ours to judge here; that nothing is missing is.
    assert [fault for fault in row["faults"] if not fault.startswith("INVALID")] == []
    assert found["setup_ms"]["n"] == 2
    assert found["to_model_ms"]["n"] >= 2 * 3 * 6
    assert found["to_model_missing_pct"] == 0
    assert found["to_caller_ms"]["n"] >= 2
    assert found["to_caller_missing_pct"] == 0
    assert found["barge_ins"] >= 1
    assert found["silenced"] == found["barge_ins"]
    assert found["stale_ms"] == 0
    assert found["truncates"] >= 1
    assert found["heard_error_ms"]["n"] >= 1
    assert found["lateness_ms"]["n"] >= 2 * 3 * 45
    assert (found["packets_lost"], found["packets_repeated"], found["sources"]) == (0, 0, 2)
    assert list(found["formats"]) == ["pcmu/pcmu"]
    assert (row["crowd"]["sent"], row["crowd"]["answers"]) == (200, 0)
    assert row["broken_marks"] == 0
    assert row["cpu_ms_per_call_s"] > 0


@pytest.mark.parametrize("bad", [["--calls", "0"], ["--rate", "0"], ["--timing", "{"]])
def test_usage(bad: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sip.main(bad)
    assert bad[0] in capsys.readouterr().err
