"""What callers hear: greetings in every form, turns, interruptions, endings, and what is kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from tests.e2e.ears import find, heard_ms, samples, tone
from tests.e2e.house import House, Outcomes, Scenes, agent, house, judge, nothing_is_left, played
from voiced import clips
from voiced.emulator.options import EmulatorOptions
from voiced.emulator.server import serve
from voiced.simulate import SCRIPTS, CallResult, Script
from voiced.simulate.script import (
    HangUp,
    Press,
    Say,
    SayWhileAgentSpeaks,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)

LATE_MS = 200
"""How late a machine with other things to do may be before a test takes it for a defect."""

HEARS: tuple[Step, ...] = (WaitForAgentSpeech(300), WaitForAgentSilence(700))
GREETING = clips.load("greeting")

agents: dict[str, str] = {}
scenes: Scenes[House] = Scenes()


def settle(name: str, settings: str, engine: str = "offline") -> None:
    agents[name] = agent(name, engine, settings)


async def held(
    here: House, name: str, *steps: Step, reason: str = "caller_hangup"
) -> tuple[CallResult, dict[str, Any]]:
    """Hold a call that goes as planned."""
    result = await here.call(Script(name, "", steps), name)
    assert result.failure is None, result.failure
    assert not result.violations
    row = await here.row(result.call_sid)
    assert row["reason"] == reason
    return result, row


def at(result: CallResult, clip: str) -> float:
    """When a clip was heard."""
    found = find(result, clip)
    assert found is not None, f"{clip} was not heard: {result.agent}"
    return found


# ---- greetings


settle("exact", f'greeting_text = "{GREETING.text}"')
settle("told", 'greeting = "Greet the caller."')
settle("waits", 'greeting = ""')


async def greets(here: House, name: str) -> None:
    result, row = await held(here, name, *HEARS, HangUp())
    assert at(result, "greeting") < LATE_MS
    assert row["transcript"] == [{"role": "agent", "text": GREETING.text, "cut": False}]
    assert row["latencies"]["greeting_ms"] < LATE_MS
    assert [state for state, _ in row["states"]] == [
        "ringing",
        "answering",
        "media_ready",
        "greeting",
        "listening",
        "ended",
    ]


scenes["exact"] = partial(greets, name="exact")
scenes["told"] = partial(greets, name="told")

settle("files", 'greeting_files = ["who.wav", "goes.wav", "farewell.wav"]')


@scenes
async def greeting_files(here: House) -> None:
    """One after the other; one that has gone since the start is left out and logged."""
    (here.state_dir.parent / "goes.wav").unlink()
    result, row = await held(here, "files", *HEARS, HangUp())
    who, farewell = at(result, "who"), at(result, "farewell")
    assert who < LATE_MS
    assert farewell == pytest.approx(who + clips.load("who").duration_ms, abs=1)
    (line,) = here.lines_of(result.call_sid)
    assert line["event"] == "greeting file left out"
    assert row["transcript"] == []


settle(
    "toned", f'connection_tone = true\ngreeting_delay_ms = 500\ngreeting_text = "{GREETING.text}"'
)


@scenes
async def tone_and_delay(here: House) -> None:
    """440 Hz for 400 ms, 500 ms of silence, the greeting: on the carrier's own clock."""
    result, _ = await held(here, "toned", WaitForAgentSpeech(1500), HangUp())
    begin = tone(result, 440, 400)
    assert begin is not None
    heard = samples(result)
    ended, due = round(8 * (begin + 400)), round(8 * (begin + 900))
    assert np.abs(heard[ended + 8 : due]).max() < 50
    part = np.frombuffer(GREETING.pcm, "<i2").astype(np.float64)[:8000]
    window = heard[due : due + 8000 + 8 * LATE_MS]
    alike = [
        float(part @ window[lag : lag + 8000]) / float(np.linalg.norm(part) ** 2)
        for lag in range(len(window) - 8000)
    ]
    assert max(alike) > 0.9
    # Silence of exactly 500 ms where the model has spoken in time, as the offline one has.
    assert int(np.argmax(alike)) / 8 < LATE_MS


# ---- turns


for silence_ms in (500, 1000, 1500):
    settle(
        f"pauses{silence_ms}",
        f'greeting = ""\nturn_detection = {{ kind = "server_vad", silence_ms = {silence_ms} }}',
    )


@scenes
async def silence_durations(here: House) -> None:
    """An answer comes when the caller has been silent for so long, and not much later."""
    answers: dict[int, float] = {}

    async def ask(silence_ms: int) -> None:
        steps = (Say("hours"), WaitForAgentSpeech(300), HangUp())
        result, row = await held(here, f"pauses{silence_ms}", *steps)
        (answers[silence_ms],) = result.answers_ms
        (ours,) = row["latencies"]["answers_ms"]
        # Each by its own clock, of frames.
        assert ours == pytest.approx(answers[silence_ms], abs=40)

    async with trio.open_nursery() as nursery:
        for silence_ms in (500, 1000, 1500):
            nursery.start_soon(ask, silence_ms)
    for silence_ms, answer_ms in answers.items():
        assert silence_ms <= answer_ms < silence_ms + LATE_MS
    assert answers[500] < answers[1000] < answers[1500]


async def answers(here: House, name: str) -> None:
    """Asked by a caller that it understands, it answers."""
    result, row = await held(here, name, Say("thanks"), *HEARS, HangUp())
    assert find(result, "goodbye") is not None
    assert [(entry["role"], entry["text"]) for entry in row["transcript"]] == [
        ("caller", clips.load("thanks").text),
        ("agent", clips.load("goodbye").text),
    ]
    assert row["latencies"]["answers_ms"]


OWN = "turn_detection = { kind = 'none' }"
SEMANTIC = "turn_detection = { kind = 'semantic_vad', eagerness = 'high' }"
settle("own", f'greeting = ""\n{OWN}')
settle("semantic", f'greeting = ""\nno_answer_s = 8\n{SEMANTIC}')
FORMATS = (
    ("pcm", "pcm"),
    ("pcm", "pcmu"),
    ("pcmu", "pcm"),
    ("pcma", "pcma"),
)
for pair in FORMATS:
    settle("_".join(pair), 'greeting = ""', engine="_".join(pair))
settle("linear", 'greeting = ""\nresampler = "linear"', engine="pcm_pcm")
settle("own_pcm", f'greeting = ""\n{OWN}', engine="pcm_pcm")

for name in ("own", "semantic", "linear", "own_pcm", *map("_".join, FORMATS)):
    scenes[name] = partial(answers, name=name)


@scenes
async def other_languages(here: House) -> None:
    result, row = await held(here, "waits", Say("hours_ja"), WaitForAgentSpeech(3000), *HEARS[1:])
    assert find(result, "opening_hours_ja") is not None
    assert [entry["text"] for entry in row["transcript"]] == [
        clips.load("hours_ja").text,
        clips.load("opening_hours_ja").text,
    ]


settle("stubborn", 'greeting = "Greet the caller."\nbarge_in = "off"')


@scenes
async def barge_in_off(here: House) -> None:
    """It talks to the end, then answers what was said meanwhile."""
    steps = (SayWhileAgentSpeaks("interrupt"), WaitForAgentSpeech(1500), *HEARS[1:], HangUp())
    result, row = await held(here, "stubborn", *steps)
    (attempt,) = result.interruptions
    assert attempt.clear_ms is None
    assert at(result, "go_ahead") >= at(result, "greeting") + GREETING.duration_ms - 1
    assert row["latencies"]["barge_ins_ms"] == []
    assert not any(entry["cut"] for entry in row["transcript"])


@scenes
async def digits(here: House) -> None:
    steps = (WaitForAgentSpeech(200), Press("1"), Press("2"), Press("#"), *HEARS[1:], HangUp())
    result, _ = await held(here, "told", *steps)
    at(result, "greeting")
    (call,) = [line["call"] for line in here.logs if line.get("carrier_call") == result.call_sid]
    (ended,) = [
        line for line in here.logs if line["event"] == "call ended" and line["call"] == call
    ]
    assert ended["digits"] == 3


# ---- endings


settle("short", 'greeting = "Greet the caller."\nmax_duration_s = 1.0')
settle(
    "short_own",
    'greeting = "Greet the caller."\nmax_duration_s = 1.0\n'
    f'farewell_text = "{clips.load("goodbye").text}"',
)
settle(
    "short_mute",
    'greeting = ""\nmax_duration_s = 1.0\nno_answer_s = 0.5\nfarewell_text = "Farewell."',
    engine="silent",
)


async def farewell(here: House, name: str, clip: str) -> None:
    """In the midst of a sentence the time is over: it stops, the farewell is heard to its end."""
    result, row = await held(here, name, WaitForHangUp(), reason="max_duration")
    assert result.ended_by == "agent"
    assert result.unheard_ms == 0
    assert at(result, clip) >= 1000
    assert find(result, "greeting") is None  # not to its end
    assert row["states"][-2][0] == "ending"


scenes["max_duration"] = partial(farewell, name="short", clip="farewell")
scenes["own_farewell"] = partial(farewell, name="short_own", clip="goodbye")
scenes["farewell_of_a_mute_model"] = partial(farewell, name="short_mute", clip="farewell")


settle("impatient", 'greeting = ""\nsilence_prompt_s = 0.8\nsilence_hangup_s = 3.0')
# The words come some 2.5 s after the start; hearing them may take the daemon a while longer here.
settle("patient", 'greeting = ""\nsilence_prompt_s = 0.8\nsilence_hangup_s = 6.0')


@scenes
async def silent_caller(here: House) -> None:
    """Asked once, then the end."""
    result, _ = await held(here, "impatient", WaitForHangUp(), reason="caller_silence")
    assert (result.ended_by, result.unheard_ms) == ("agent", 0)
    asked, bade = at(result, "still_there"), at(result, "farewell")
    assert 700 < asked < 800 + LATE_MS
    assert 2900 < bade < 3000 + 2 * LATE_MS
    assert heard_ms(result) < 4000  # once


@scenes
async def a_silent_caller_who_answers(here: House) -> None:
    """Words end the count; it begins anew after the answer."""
    steps = (WaitForAgentSpeech(300), WaitForAgentSilence(500), Say("thanks"), WaitForHangUp())
    result, _ = await held(here, "patient", *steps, reason="caller_silence")
    assert at(result, "farewell") > at(result, "goodbye") > at(result, "still_there")


settle("sorry", 'greeting = ""\nunavailable_file = "who.wav"', engine="refusing")


@scenes
async def own_message(here: House) -> None:
    result, _ = await held(here, "sorry", WaitForHangUp(), reason="model_unreachable")
    at(result, "who")
    assert result.unheard_ms == 0


# ---- what is kept


@scenes
async def the_row_of_a_conversation(here: House) -> None:
    """Greeting, question, an answer that is cut off, another, thanks."""
    result = await here.call(SCRIPTS["conversation"], "exact", from_="+4930111")
    assert result.failure is None, result.failure
    assert result.clean_barge_in()
    row = await here.row(result.call_sid)

    assert row["reason"] == "caller_hangup"
    assert (row["agent"], row["engine"], row["model"]) == ("exact", "offline", "emulator")
    assert (row["caller"], row["called"]) == ("+4930111", "sip:exact@voiced.test")
    assert (row["carrier"], row["direction"]) == ("twilio", "inbound")
    assert row["media_ms"] == pytest.approx(result.duration_ms, abs=LATE_MS)
    assert row["media_ms"] <= row["duration_ms"]
    assert row["ended_at"] - row["started_at"] == pytest.approx(row["duration_ms"] / 1000, abs=2)

    names = [state for state, _ in row["states"]]
    times = [time for _, time in row["states"]]
    turn = ["caller_speaking", "committing", "thinking", "speaking"]
    assert without(names, "committing") == [
        "ringing",
        "answering",
        "media_ready",
        "greeting",
        "listening",
        *without(turn, "committing"),
        *without(turn, "committing"),  # the interruption: no listening before it
        "listening",
        *without(turn, "committing"),
        "listening",
        "ended",
    ]
    assert times == sorted(times)

    latencies = row["latencies"]
    assert len(latencies["answers_ms"]) == 3
    assert all(500 <= each < 500 + LATE_MS for each in latencies["answers_ms"])
    assert len(latencies["barge_ins_ms"]) == 1
    assert 0 <= latencies["greeting_ms"] < LATE_MS
    assert 0 <= latencies["model_ready_ms"] < LATE_MS

    usage = row["usage"]
    assert usage["audio_in"] > 0
    assert usage["audio_out"] > 0
    assert usage["transcription_in"] > 0
    cached = usage.get("cached_audio_in", 0)
    # [price.emulator] has a price for audio alone
    expected = ((usage["audio_in"] - cached) * 32 + cached * 4 + usage["audio_out"] * 64) / 1e6
    assert row["cost_usd"] == pytest.approx(expected)

    told = [(entry["role"], entry["text"], entry["cut"]) for entry in row["transcript"]]
    (answer,) = [text for role, text, cut in told if cut]
    whole = clips.load("opening_hours").text
    assert whole.startswith(answer)
    assert told == [
        ("agent", GREETING.text, False),
        ("caller", clips.load("hours").text, False),
        ("agent", answer, True),
        ("caller", clips.load("interrupt").text, False),
        ("agent", clips.load("go_ahead").text, False),
        ("caller", clips.load("thanks").text, False),
        ("agent", clips.load("goodbye").text, False),
    ]
    # One line says it all, but for what was said: that is nobody's business at this level.
    (ended,) = [
        line
        for line in here.logs
        if line["event"] == "call ended" and line["call"] == row["call_id"]
    ]
    assert ended["log_level"] == "info"
    told_of = {
        "reason": row["reason"],
        "duration_ms": row["duration_ms"],
        "media_ms": row["media_ms"],
        "greeting_ms": latencies["greeting_ms"],
        "answers": 3,
        "answer_ms": sorted(latencies["answers_ms"])[1],
        "barge_ins": 1,
        "digits": 0,
        "model": "emulator",
        "tokens_in": usage["audio_in"] + usage.get("text_in", 0),
        "tokens_out": usage["audio_out"] + usage.get("text_out", 0),
        "cost_usd": round(row["cost_usd"], 5),
    }
    assert told_of.items() <= ended.items()
    heard_words = [text for _, text, _ in told]
    for line in here.logs:
        if line["log_level"] != "debug":
            assert not any(text in str(line) for text in heard_words), line

    # As heard: in proportion, within a word or two of what the caller heard of it.
    (cut,) = [said for said in result.agent if said.cut]
    share = (cut.end_ms - cut.start_ms) / clips.load("opening_hours").duration_ms
    assert abs(len(answer) - share * len(whole)) < 15
    assert not here.lines_of(result.call_sid)


def without(names: Sequence[str], name: str) -> list[str]:
    return [each for each in names if each != name]


async def all_of_it(folder: Path) -> Outcomes:
    recordings = Path(clips.__file__).parent
    for clip in ("who", "farewell"):
        shutil.copy(recordings / f"{clip}.wav", folder)
    shutil.copy(recordings / "who.wav", folder / "goes.wav")
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve, "127.0.0.1", 0, EmulatorOptions(speech="clips"))
        text = "[price.emulator]\naudio_in = 32.0\ncached_audio_in = 4.0\naudio_out = 64.0\n"
        text += '[engine.offline]\nkind = "emulator"\nspeech = "clips"\n'
        text += '[engine.silent]\nkind = "emulator"\nfaults = { silent = true }\n'
        text += '[engine.refusing]\nkind = "emulator"\nfaults = { refuse_status = 503 }\n'
        for there, back in FORMATS:
            text += (
                f'[engine.{there}_{back}]\nkind = "realtime"\nserver = "other"\n'
                f'url = "ws://127.0.0.1:{port}/v1/realtime"\nmodel = "emulator"\n'
                f'input_format = "{there}"\noutput_format = "{back}"\n'
            )
        async with house(folder, text + "".join(agents.values())) as here:
            outcomes = await scenes.play(here, nothing_is_left)
        nursery.cancel_scope.cancel()
    return outcomes


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_conversations(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
