"""Recorder and greeting cache in a daemon, at calls over both carriers.

What the simulated telephone said and heard is found again in the recording, word by word, by
cross-correlation: each in its channel, and both as far apart as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.house import House, Outcomes, Scenes, house, judge, nothing_is_left, played
from tests.e2e.test_sip_calls import address, place
from tests.plugins.scenery import GREETED, HEAD, answered, fallback, held, row_of
from tests.plugins.test_wavfile import read_stereo, sox_ms
from voiced.audio import ulaw_to_pcm
from voiced.simulate import SCRIPTS, CallResult, Script
from voiced.simulate.result import Utterance
from voiced.simulate.script import (
    HangUp,
    Pause,
    Press,
    Say,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
)
from voiced.simulate.sip_caller import call

CONFIG = (
    HEAD
    + """
[plugins.recorder]

[plugins.wide]
plugin = "recorder"
rate = 16000

[plugins.asking]
plugin = "recorder"
start = "consent"

[plugins.fleeting]
plugin = "recorder"
keep_days = 0

[plugins.greeting_cache]
"""
)
RECEPTION = "Hello, this is the reception."
TOLD = "Hello, this is the town hall. You can call us from eight to six on every day of the week."
CONFIG += answered("recorded", '["recorder"]', f'greeting_text = "{RECEPTION}"')
CONFIG += answered("told", '["greeting_cache"]', f'greeting_text = "{TOLD}"')
CONFIG += answered("wide", '["wide"]')
CONFIG += answered("asking", '["asking"]')
CONFIG += answered("fleeting", '["fleeting"]')
CONFIG += answered("cached", '["greeting_cache", "recorder"]')
CONFIG += answered("delayed", '["greeting_cache"]', "greeting_delay_ms = 500")
SILENCES = (500, 1000, 1500)
for silence_ms in SILENCES:  # one greeting for all: what ends a turn does not shape it
    CONFIG += answered(
        f"waits{silence_ms}",
        '["greeting_cache"]',
        'greeting_text = "Hello, take your time."\n'
        f'turn_detection = {{ kind = "server_vad", silence_ms = {silence_ms} }}',
    )
CONFIG += fallback("recorded", '["greeting_cache", "recorder"]')
OVER_SIP = {f"waits{silence_ms}": f"+1555{silence_ms:07}" for silence_ms in SILENCES}
OVER_SIP["delayed"] = "+15550110"
"""What is dialled over the trunk to reach them."""
for name, number in OVER_SIP.items():
    CONFIG += f"""
[[number]]
match = "{number}"
agent = "{name}"
plugins = ["greeting_cache"]
"""

scenes: Scenes[House] = Scenes()

KEPT = "recording_ms"
"""The fact that says that a recording is whole."""

Samples = np.ndarray[Any, np.dtype[np.float64]]


def recorded(row: Mapping[str, Any]) -> tuple[Samples, Samples, float]:
    """Both channels at 8 kHz, and what they are longer than the call's media, in ms."""
    path = Path(row["facts"]["recording"])
    rate, sound = read_stereo(path)
    both = np.frombuffer(sound, "<i2").astype(np.float64)[: len(sound) // 4 * 2]
    step = rate // 8000
    assert row["facts"]["recording_bytes"] == path.stat().st_size
    assert row["facts"]["recording_ms"] == round(sox_ms(path))
    return both[0::2][::step], both[1::2][::step], len(both) / 2 / rate * 1000 - row["media_ms"]


PIECE = 480
"""Samples that are looked for at a time, 60 ms: while a clock's step is made up for the recording
is not the same over longer stretches."""

REACH = 2400
"""And where: telephone and daemon do not begin to count in the same moment."""


def lags(sound: Samples, heard: Samples, said: Utterance) -> tuple[list[float], float]:
    """How much later each piece of an utterance is in the recording, in ms; how alike they are."""
    found, alike, loud = [], 0.0, 0.0
    for start in range(round(said.start_ms * 8), round(said.end_ms * 8) - PIECE, PIECE):
        wanted = heard[start : start + PIECE]
        if np.sqrt(np.mean(wanted**2)) < 500 or start < REACH:
            continue
        within = sound[start - REACH : start + REACH + PIECE]
        correlation = np.correlate(within, wanted, "valid")
        sums = np.concatenate([[0.0], np.cumsum(within**2)])
        scale = np.sqrt((sums[PIECE:] - sums[:-PIECE]) * float(wanted @ wanted)) + 1.0
        best = int(np.argmax(correlation / scale))
        weight = float(np.sqrt(wanted @ wanted))
        loud += weight
        alike += weight * float(correlation[best] / scale[best])
        found.append((best - REACH) / 8)
    return found, alike / max(loud, 1.0)


def compare(row: Mapping[str, Any], result: CallResult) -> None:
    """What was said and heard is in the recording, and as it was in time."""
    left, right, longer_ms = recorded(row)
    assert abs(longer_ms) <= 20
    late: list[float] = []
    for channel, ulaw, utterances in (
        (left, result.caller_ulaw, result.caller),
        (right, result.agent_ulaw, result.agent),
    ):
        heard = np.frombuffer(ulaw_to_pcm(ulaw), "<i2").astype(np.float64)
        assert utterances
        for said in utterances:
            if said.end_ms - said.start_ms >= 200:
                found, alike = lags(channel, heard, said)
                late.append(float(np.median(found)))
                assert alike > 0.75, (said, found, alike)
    # What separates them is the way between telephone and daemon: nothing here, but for the
    # frame in which each is.
    assert max(late) - min(late) <= 60, late


@scenes
async def over_twilio(here: House) -> None:
    result, row = await held(here, "recorded", fact=KEPT)
    compare(row, result)


@scenes
async def over_twilio_at_another_rate(here: House) -> None:
    result, row = await held(here, "wide", fact=KEPT)
    compare(row, result)


@scenes
async def over_sip(here: House) -> None:
    result = await place(here, SCRIPTS["interruption"], codecs=("pcmu",))
    compare(await row_of(here, result, KEPT), result)


@scenes
async def over_sip_in_a_law(here: House) -> None:
    result = await place(here, SCRIPTS["interruption"], codecs=("pcma",))
    compare(await row_of(here, result, KEPT), result)


@scenes
async def after_consent_by_key(here: House) -> None:
    agreed = (*GREETED, Press("1"), Pause(300), Say("thanks"), *GREETED)
    _, row = await held(here, "asking", *agreed, fact=KEPT)
    assert 1000 < row["facts"]["recording_ms"] < row["media_ms"] - 1000
    assert [each["text"] for each in row["transcript"]][1] == "Thank you very much. Goodbye."
    _, other = await held(here, "asking", *GREETED, HangUp())
    assert "recording" not in other["facts"]


@scenes
async def nothing_is_kept_of_it(here: House) -> None:
    _, row = await held(here, "fleeting", *GREETED, HangUp(), fact=KEPT)
    assert row["facts"]["recording_ms"] > 1000
    assert "recording" not in row["facts"]
    assert not list((here.state_dir / "plugins" / "fleeting").iterdir())


@scenes
async def a_greeting_is_made_once(here: House) -> None:
    """And heard at once by the second caller; the model knows of it."""
    first, row = await held(here, "cached", *GREETED, HangUp(), fact=KEPT)
    assert "greeting_cached" not in row["facts"]

    async def later() -> None:
        second, row = await held(here, "cached", *GREETED, Say("thanks"), *GREETED, fact=KEPT)
        assert row["facts"]["greeting_cached"] is True
        assert row["transcript"][0] == {
            "role": "agent",
            "text": "Hello, this is cached.",
            "cut": False,
        }
        assert second.first_audio_ms is not None
        assert first.agent[0].end_ms - first.agent[0].start_ms == pytest.approx(
            second.agent[0].end_ms - second.agent[0].start_ms, abs=120
        )
        assert row["latencies"]["greeting_ms"] <= 100
        compare(row, second)

    await later()


@scenes
async def a_cached_greeting_over_sip(here: House) -> None:
    script = Script("greeted", "", (*GREETED, HangUp()))
    for cached in (None, True):
        result = await place(here, script, codecs=("pcmu",))
        row = await row_of(here, result)
        if cached:
            assert row["facts"].get("greeting_cached") is True
            assert row["latencies"]["greeting_ms"] <= 100


@scenes
async def a_cached_greeting_can_be_interrupted(here: House) -> None:
    """On both carriers; the model and the journal know how much of it was heard."""
    await held(here, "told", *GREETED, HangUp())
    steps = SCRIPTS["impatient"].steps
    over_twilio = await held(here, "told", *steps, fact="greeting_cached")
    await row_of(here, await place(here, Script("greeted", "", (*GREETED, HangUp()))))
    result = await place(here, SCRIPTS["impatient"], codecs=("pcmu",))
    over_sip = result, await row_of(here, result)
    for result, row in (over_twilio, over_sip):
        assert row["facts"]["greeting_cached"] is True
        assert row["latencies"]["greeting_ms"] <= 100
        first = row["transcript"][0]
        assert (first["role"], first["cut"]) == ("agent", True)
        words = first["text"]
        assert any(each.startswith(words) and words != each for each in (TOLD, RECEPTION)), words
        heard = result.agent[0]
        assert 400 <= heard.end_ms - heard.start_ms <= 1400


async def held_over_sip(here: House, name: str, *steps: Step, fact: str) -> Mapping[str, Any]:
    """As `held`, over the trunk; returns the row."""
    host, port = address(here)
    uri = f"sip:{OVER_SIP[name]}@{host}:{port}"
    result = await call(Script(name, "", steps), uri=uri, codecs=("pcmu",), deadline_s=60)
    return await row_of(here, result, fact)


@scenes
async def a_delayed_greeting_comes_when_it_is_due(here: House) -> None:
    """On both carriers."""
    await held(here, "delayed", *GREETED, HangUp(), fact="greeting_kept")
    _, over_twilio = await held(here, "delayed", *GREETED, HangUp(), fact="greeting_cached")
    over_sip = await held_over_sip(here, "delayed", *GREETED, HangUp(), fact="greeting_cached")
    for row in (over_twilio, over_sip):
        assert 480 <= row["latencies"]["greeting_ms"] <= 600


@scenes
async def whatever_ends_a_turn_the_greeting_is_there_at_once(here: House) -> None:
    """On both carriers."""
    await held(here, "waits500", *GREETED, HangUp(), fact="greeting_kept")
    for silence_ms in SILENCES:
        name = f"waits{silence_ms}"
        steps = (*GREETED, Say("thanks"), WaitForAgentSpeech(300), WaitForAgentSilence())
        _, over_twilio = await held(here, name, *steps, fact="greeting_cached")
        over_sip = await held_over_sip(here, name, *steps, fact="greeting_cached")
        for row in (over_twilio, over_sip):
            assert row["latencies"]["greeting_ms"] <= 100
            assert row["latencies"]["answers_ms"][0] >= silence_ms - 100


async def afterwards(here: House) -> None:
    """No `.part.wav` is left, no warning of a plugin."""
    await nothing_is_left(here)
    assert not list(here.state_dir.rglob("*.part.wav*"))
    wrong = [line for line in here.logs if "plugin" in line and line["log_level"] != "info"]
    assert not [line for line in wrong if line["log_level"] != "debug"], wrong


async def all_of_it(folder: Path) -> Outcomes:
    async with house(folder, CONFIG) as here:
        return await scenes.play(here, afterwards)


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_calls(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)


def test_the_comparison_finds_what_is_wrong() -> None:
    noise = np.random.default_rng(1).normal(0, 1000, 8000 * 4)
    said = Utterance(1000, 2000)
    assert set(lags(noise, noise, said)[0]) == {0}
    assert set(lags(np.roll(noise, 400), noise, said)[0]) == {50}
    assert lags(noise[::-1], noise, said)[1] < 0.4
