"""A model that fails in every known way: the caller hears something soon, the call ends well."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.e2e.ears import find
from tests.e2e.house import House, Outcomes, Scenes, agent, house, judge, nothing_is_left, played
from voiced import clips
from voiced.realtime import client
from voiced.simulate import CallResult, Script
from voiced.simulate.script import (
    HangUp,
    Say,
    SayWhileAgentSpeaks,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)

SOON_MS = 8000
"""A few seconds of patience and as many for a machine that has other things to do."""

QUICK = "no_answer_s = 2\nreconnect_s = 2\nsilence_prompt_s = 0\n"
GREETS = QUICK + 'greeting = "Greet the caller."\n'
SILENT = QUICK + 'greeting = ""\n'
IMPATIENT = 'no_answer_s = 1\ngreeting = ""\n'
HEARS: tuple[Step, ...] = (WaitForAgentSpeech(300), WaitForAgentSilence(700))
ASKS: tuple[Step, ...] = (Say("thanks"), *HEARS, HangUp())
WAITS: tuple[Step, ...] = (Say("thanks"), WaitForAgentSpeech(300), WaitForAgentSilence(4000))
ONCE = "faulty_sessions = 1"

agents: dict[str, str] = {}
engines: dict[str, str] = {}
scenes: Scenes[House] = Scenes()


def faulty(name: str, faults: str, settings: str) -> None:
    engines[name] = (
        f'[engine.{name}]\nkind = "emulator"\nspeech = "clips"\nfaults = {{ {faults} }}\n'
    )
    agents[name] = agent(name, name, settings)


def losses(here: House, result: CallResult) -> list[tuple[str, bool]]:
    """The codes with which the model was lost, and whether somebody tried to get it back."""
    return [
        (line["code"], line.get("again", False))
        for line in here.lines_of(result.call_sid)
        if line["event"] == "model lost"
    ]


# ---- the model is lost for good: the message, then the end


async def lost(
    here: House, name: str, reason: str, code: str, again: bool, steps: tuple[Step, ...] = ()
) -> None:
    """`again`: somebody tried to get it back."""
    result = await here.call(Script("hears", "", (*steps, WaitForHangUp())), name)
    assert (result.failure, result.ended_by, result.unheard_ms) == (None, "agent", 0)
    assert not result.violations
    assert result.agent[0].start_ms < SOON_MS
    said = find(result, "unavailable")  # to its last sample
    assert said is not None
    row = await here.row(result.call_sid)
    assert (row["reason"], row["states"][-2][0]) == (reason, "ending")
    *before, end = losses(here, result)
    assert end == (code, False)
    assert set(before) == ({(code, True)} if again else set())
    if again:
        filler = find(result, "one_moment")
        assert filler is None or filler < said


UNREACHABLE, LOST = "model_unreachable", "model_lost"

for name, faults, reason, code, again in (
    ("status_401", "refuse_status = 401", UNREACHABLE, "http_401", False),
    ("status_403", "refuse_status = 403", UNREACHABLE, "http_403", False),
    ("status_429", "refuse_status = 429", UNREACHABLE, "http_429", True),
    ("status_500", "refuse_status = 500", UNREACHABLE, "http_500", True),
    ("status_503", "refuse_status = 503", UNREACHABLE, "http_503", True),
    ("no_quota", 'refuse_code = "insufficient_quota"', UNREACHABLE, "insufficient_quota", False),
    (
        "closes_3000",
        'refuse_code = "invalid_api_key", refuse_close = 3000',
        UNREACHABLE,
        "invalid_api_key",
        False,
    ),
    ("closes_4000", 'refuse_code = "invalid_model"', UNREACHABLE, "invalid_model", False),
    ("closes_without_a_word", "close_after_ms = 400", LOST, "close_1006", True),
    ("no_quota_at_all", "quota = true", UNREACHABLE, "http_429", False),
    ("rejects_update", 'reject_update = "session.audio"', UNREACHABLE, "unknown_parameter", False),
    ("closes", "close_after_ms = 400, close_code = 1011", LOST, "close_1011", True),
    ("half_open", "half_open_after_ms = 300", LOST, "half_open", True),
    ("expires", "session_expired_after_ms = 300", LOST, "session_expired", True),
    ("quota_in_answer", "fail_all = true", LOST, "insufficient_quota", False),
    ("fails", 'fail_all = true, fail_code = "server_error"', LOST, "server_error", True),
):
    faulty(name, faults, GREETS)
    scenes[name] = partial(lost, name=name, reason=reason, code=code, again=again)


# ---- the model is lost once: what it owed is heard all the same


async def once(here: House, name: str, code: str) -> None:
    """The caller asks, and hears the answer to its last word."""
    result = await here.call(Script("asks", "", WAITS), name)
    assert result.failure is None
    assert not result.violations
    assert losses(here, result) == [(code, True)]
    assert find(result, "unavailable") is None
    assert result.heard_answer()
    row = await here.row(result.call_sid)
    assert row["reason"] == "caller_hangup"
    said = " ".join(each["text"] for each in row["transcript"] if each["role"] == "agent")
    assert "Goodbye." in said


for name, faults, code in (
    ("closes_once", "close_after_ms = 400, close_code = 1011", "close_1011"),
    ("breaks_once", "close_in_answer_ms = 600", "close_1006"),
    ("breaks_late_once", "close_in_answer_ms = 1800, close_code = 1013", "close_1013"),
    ("half_open_once", "half_open_after_ms = 300", "half_open"),
    ("half_open_in_answer_once", "half_open_in_answer_ms = 600", "half_open"),
    ("expires_once", "session_expired_after_ms = 700", "session_expired"),
    ("fails_once", 'fail_all = true, fail_code = "server_error"', "server_error"),
):
    faulty(name, f"{faults}, {ONCE}", SILENT)
    scenes[name] = partial(once, name=name, code=code)

faulty("refused_once", "refuse_first = 2, refuse_status = 429", SILENT)
scenes["refused_once"] = partial(once, name="refused_once", code="http_429")

# ---- the model says nothing


faulty("silent", "silent = true", IMPATIENT)


@scenes
async def silent(here: House) -> None:
    """A filler, patience, the message."""
    result = await here.call(Script("asks", "", (Say("thanks"), WaitForHangUp())), "silent")
    assert (result.failure, result.ended_by, result.unheard_ms) == (None, "agent", 0)
    filler, message = find(result, "one_moment"), find(result, "unavailable")
    assert filler is not None
    assert message is not None
    assert 0 < filler - result.caller[0].end_ms < SOON_MS
    assert message > filler + clips.load("one_moment").duration_ms
    assert (await here.row(result.call_sid))["reason"] == "model_silent"


faulty("one_refused", 'fail_response = 1, fail_code = "rate_limit_exceeded"', IMPATIENT)


@scenes
async def one_refused(here: House) -> None:
    """An answer that fails for once is covered by the filler, and the caller may ask again."""
    steps = (Say("thanks"), WaitForAgentSpeech(300), Say("interrupt"), *HEARS, HangUp())
    result = await here.call(Script("asks twice", "", steps), "one_refused")
    assert result.failure is None
    assert find(result, "go_ahead") is not None
    row = await here.row(result.call_sid)
    assert row["reason"] == "caller_hangup"
    lines = [line["event"] for line in here.lines_of(result.call_sid)]
    assert lines == ["response failed", "model refused something"]


# ---- the model stumbles, the caller does not notice


async def unnoticed(here: House, name: str) -> None:
    result = await here.call(Script("asks", "", ASKS), name)
    assert result.failure is None
    assert not result.violations
    assert find(result, "goodbye") is not None  # whole, so without a gap
    assert find(result, "one_moment") is None
    row = await here.row(result.call_sid)
    assert row["reason"] == "caller_hangup"
    assert row["transcript"][-1]["text"] == clips.load("goodbye").text


for name, faults in (
    ("retried", 'fail_response = 1, fail_code = "server_error"'),
    ("complains", "error_after_ms = 600"),
    ("news", "unknown_events = true"),
    ("no_usage", "usage_null = true"),
    ("transcribes_late", 'transcription = "after"'),
    ("transcribes_early", 'transcription = "before"'),
    ("cannot_transcribe", 'transcription = "failed"'),
    ("never_transcribes", 'transcription = "never"'),
    ("small_deltas", "delta_bytes = 161"),
    ("one_delta", "delta_bytes = 1048576"),
    ("updates_late", "late_updated_ms = 900"),
    ("creates_late", "late_created_ms = 900"),
):
    faulty(name, faults, SILENT)
    scenes[name] = partial(unnoticed, name=name)


faulty("late", "late_response_ms = 2000", IMPATIENT)


@scenes
async def late(here: House) -> None:
    """A slow answer: the filler first, then the answer."""
    result = await here.call(Script("asks", "", ASKS), "late")
    assert result.failure is None
    filler, answer = find(result, "one_moment"), find(result, "goodbye")
    assert filler is not None
    assert answer is not None
    assert filler + clips.load("one_moment").duration_ms <= answer + 1
    assert (await here.row(result.call_sid))["reason"] == "caller_hangup"


# ---- interruptions that the server does not take


faulty("rejects_truncate", "reject_truncate = true, answer_ms = 9000", GREETS)
faulty("late_deltas", "late_deltas = 5, answer_ms = 9000", GREETS)


async def interrupts(here: House, name: str) -> None:
    """It is cut off at once, nothing stale is heard, and the next answer is given."""
    steps = (SayWhileAgentSpeaks("interrupt"), WaitForAgentSpeech(1000), HangUp())
    result = await here.call(Script("interrupts", "", steps), name)
    assert result.failure is None
    assert result.clean_barge_in(), result.interruptions
    assert result.answers_ms
    row = await here.row(result.call_sid)
    assert row["reason"] == "caller_hangup"
    assert len(row["latencies"]["barge_ins_ms"]) == 1


for name in ("rejects_truncate", "late_deltas"):
    scenes[name] = partial(interrupts, name=name)


async def all_of_it(folder: Path) -> Outcomes:
    text = "".join(engines.values()) + "".join(agents.values())
    with pytest.MonkeyPatch.context() as patch:
        # Half-open is found out after two intervals, and before the caller is out of patience.
        patch.setattr(client, "PING_INTERVAL_S", 1.0)
        async with house(folder, text) as here:
            return await scenes.play(here, nothing_is_left)


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_faults(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
