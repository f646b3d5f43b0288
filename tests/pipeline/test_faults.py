"""A pipeline of which one step hangs or refuses, in whole calls over both carriers.

The caller has asked something and waits: they hear that somebody is there, and the answer, of the
other engine where their own never comes to itself.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.e2e.house import (
    TRUNK,
    House,
    Outcomes,
    Scenes,
    house,
    judge,
    nothing_is_left,
    played,
    sip_address,
)
from voiced import clips
from voiced.emulator.options import EmulatorOptions, Faults
from voiced.emulator.server import serve
from voiced.simulate import Script
from voiced.simulate.script import HangUp, Say, WaitForAgentSilence, WaitForAgentSpeech
from voiced.simulate.sip_caller import call as sip_call

HANGS_MS: Final = 60_000
TIMEOUT_S: Final = 1.0

FAULTS: Final = {
    "stt_hangs": ("stt", Faults(stt_late_ms=HANGS_MS)),
    "tts_hangs": ("tts", Faults(tts_late_ms=HANGS_MS)),
    "stt_refuses": ("stt", Faults(stt_status=400)),
    "chat_is_limited": ("chat", Faults(chat_status=429)),
    "tts_refuses": ("tts", Faults(tts_status=400)),
}
CARRIERS: Final = ("twilio", "sip")
DEAD_MS: Final = 4000
"""The longest silence of both sides: a step's time, or the pause between two fillers."""

HEAD = f"""{TRUNK}
[engine.spare]
kind = "emulator"
speech = "clips"
"""

scenes: Scenes[House] = Scenes()


def number_of(name: str) -> str:
    return f"+155502{list(FAULTS).index(name):02}"


def configured(name: str, good: int, bad: int) -> str:
    """An engine with one bad step, its agent and number."""
    step, _ = FAULTS[name]
    text = f'[engine.{name}]\nkind = "pipeline"\n'
    for each in ("stt", "chat", "tts"):
        url = f"http://127.0.0.1:{bad if each == step else good}/v1"
        text += f'{each} = {{ url = "{url}", model = "emulator", timeout_s = {TIMEOUT_S} }}\n'
    return text + (
        f'[agent.{name}]\nengine = "{name}"\nfallback_engine = "spare"\ngreeting = ""\n'
        "reconnect_s = 1\nsilence_prompt_s = 0\n"
        f'[[number]]\nmatch = "{number_of(name)}"\nagent = "{name}"\n'
    )


async def answered(here: House, name: str, carrier: str) -> None:
    asked_back = name == "stt_refuses"  # the model says that it has not understood
    least_ms = 300 if asked_back else 3000  # more than a filler
    steps = (Say("hours"), WaitForAgentSpeech(least_ms), WaitForAgentSilence(2500), HangUp())
    script = Script(name, "", steps)
    if carrier == "twilio":
        result = await here.call(script, number_of(name))
    else:
        uri = f"sip:{number_of(name)}@{sip_address(here.logs)}"
        result = await sip_call(script, uri=uri, deadline_s=90)
    row = await here.row(result.call_sid)
    assert (result.failure, result.violations) == (None, ())
    assert row["reason"] == "caller_hangup"
    said = [each["text"] for each in row["transcript"] if each["role"] == "agent"]
    assert said, "nothing was answered"
    if not asked_back:
        assert row["engine"] == "spare"
        assert said[-1] == clips.load("opening_hours").text
    end = max(each.end_ms for each in result.caller)
    silence, at = 0.0, end
    for each in result.agent:
        silence, at = max(silence, each.start_ms - at), max(at, each.end_ms)
    assert silence <= DEAD_MS, result.agent


for name in FAULTS:
    for carrier in CARRIERS:
        scenes[f"{name}-{carrier}"] = partial(answered, name=name, carrier=carrier)


async def all_of_it(folder: Path) -> Outcomes:
    async with trio.open_nursery() as nursery:

        async def emulator(faults: Faults) -> int:
            options = EmulatorOptions(speech="clips", faults=faults)
            port: int = await nursery.start(serve, "127.0.0.1", 0, options)
            return port

        good = await emulator(Faults())
        text = HEAD
        for name, (_, faults) in FAULTS.items():
            text += configured(name, good, await emulator(faults))
        async with house(folder, text) as here:
            outcomes = await scenes.play(here, nothing_is_left)
        nursery.cancel_scope.cancel()
    return outcomes


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_a_step_at_fault(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
