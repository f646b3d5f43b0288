"""What the demo prints and keeps of what happens, and what it says at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.simulate.test_phone import Bench
from voiced.demo.held import Held
from voiced.demo.scenarios import CONVERSATION, PIN
from voiced.demo.show import BUSY_MS, PRESSURE, WAITED_MS, _judge, waited_ms
from voiced.demo.timeline import Timeline
from voiced.simulate.events import AgentStopped, DigitPressed
from voiced.simulate.script import Pause

ENDED = {
    "event": "call ended",
    "reason": "caller_hangup",
    "duration_ms": 17_740,
    "greeting_ms": 180,
    "answers": 3,
    "answer_ms": 601,
    "barge_ins": 1,
}


def printed(*lines: dict[str, Any]) -> list[str]:
    said: list[str] = []
    timeline = Timeline(said.append)
    for line in lines:
        timeline.log_line(line)
    texts = [str(each["text"]) for each in timeline.entries]
    assert all(line.endswith(f"  {text}") for line, text in zip(said, texts, strict=True))
    return texts


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "17.7 s, greeting after 180 ms, 3 answers (median 601 ms), 1 interruption"),
        ({"greeting_ms": None}, "17.7 s, 3 answers (median 601 ms), 1 interruption"),
        (
            {"answers": 0, "answer_ms": None, "barge_ins": 0},
            "17.7 s, greeting after 180 ms, no answers, no interruptions",
        ),
        (
            {"answers": 1, "barge_ins": 2, "greeting_ms": 0},
            "17.7 s, greeting after 0 ms, 1 answer (median 601 ms), 2 interruptions",
        ),
    ],
)
def test_a_calls_end_is_told_in_words(changed: dict[str, Any], expected: str) -> None:
    assert printed({**ENDED, **changed}) == [f"call ended: caller_hangup, {expected}"]


def test_a_complaint_of_the_daemon_can_be_read() -> None:
    head = {"timestamp": "2026-11-21T22:48:26Z", "level": "warning", "call": "5e23"}
    line = {**head, "event": "model lost", "code": "close_1006", "message": "gone", "again": True}
    assert printed(line, {**head, "event": "no more"}, {**head, "level": "info"}) == [
        "model lost: code close_1006, message gone, again",
        "no more",
    ]


def test_a_secret_key_is_not_told_apart_from_others() -> None:
    said: list[str] = []
    timeline = Timeline(said.append)
    timeline.observe(DigitPressed(0.0, "1"))
    timeline.observe(DigitPressed(0.0, ""))
    assert [each["text"] for each in timeline.entries] == ["presses 1", "presses a secret key"]


def held(**result: Any) -> Held:
    """A call in which nobody said anything."""
    silent = Bench(Pause(100)).result()
    return Held("A call over Twilio", "", 0, replace(silent, **result), [])


def test_digits_that_stand_by_themselves_are_known() -> None:
    call = held()
    call.log = [json.dumps({"timestamp": f"10:00:00.{PIN}", "id": f"a{PIN}"})]
    assert not call.known(PIN)
    call.log = [json.dumps({"digits": PIN})]
    assert call.known(PIN)
    call.log, call.row = (), {"facts": {"pin": PIN}}
    assert call.known(PIN)
    call.row, call.timeline = {}, [{"text": f"presses {PIN}"}]
    assert call.known(PIN)


@pytest.mark.parametrize(
    ("lag_ms", "waited", "told"),
    [
        (BUSY_MS, 0, "the caller waiting for 60 ms"),
        (0, WAITED_MS, "for 500 ms in all"),
        (BUSY_MS - 1, WAITED_MS - 1, ""),
    ],
)
def test_a_busy_machine_is_named_as_the_reason(
    lag_ms: float, waited: float, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call = held(lag_ms=lag_ms)
    call.waited_ms = waited
    assert not _judge(call, CONVERSATION)
    said = capsys.readouterr().out
    assert ("this machine was busy" in said) is bool(told)
    assert told in said


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="nobody tells")
@pytest.mark.parametrize("hidden", ["", "pressure"])
def test_who_shares_a_processor_waits_for_it(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two who compute, on one processor; as the whole machine tells, or a process."""
    monkeypatch.setattr("voiced.demo.show.PRESSURE", hidden or PRESSURE)
    here = min(os.sched_getaffinity(0))
    computes = f"import os; os.sched_setaffinity(0, [{here}])\nwhile True: pass"
    pair = [subprocess.Popen([sys.executable, "-c", computes]) for _ in range(2)]
    before = waited_ms(pair[0].pid)
    try:
        while waited_ms(pair[0].pid) - before < WAITED_MS:
            assert all(each.poll() is None for each in pair)
    finally:
        for each in pair:
            each.kill()
            each.wait()


def test_where_nobody_tells_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiced.demo.show.PRESSURE", "nothing")
    assert waited_ms(0) == 0


def test_a_cut_is_told_apart_from_an_end() -> None:
    said: list[str] = []
    timeline = Timeline(said.append)
    timeline.observe(AgentStopped(2000, 500, cut=True))
    timeline.observe(AgentStopped(2000, 500, cut=False))
    assert [each["text"] for each in timeline.entries] == [
        "hears that the agent is cut off (1.5 s)",
        "hears that the agent has finished (1.5 s)",
    ]
