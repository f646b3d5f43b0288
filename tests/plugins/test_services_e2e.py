"""Keys, tools, announcements, messages and knowledge in a daemon, at calls over both carriers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.ears import samples
from tests.e2e.house import House, Outcomes, Scenes, house, judge, nothing_is_left, played
from tests.e2e.test_sip_calls import place
from tests.plugins.digits import shows
from tests.plugins.scenery import GREETED, HEAD, answered, fallback, held, row_of, texts
from tests.plugins.sounds import a_wav
from voiced.simulate import Script
from voiced.simulate.script import (
    Pause,
    Press,
    Say,
    Step,
    WaitForAgentSpeech,
    WaitForHangUp,
)
from voiced.wav import read

CONFIG = (
    HEAD
    + """
[plugins.dtmf.menu.main]
pass_on = true
next_key_s = 0.8
[plugins.dtmf.menu.main.keys]
4 = { say = "You have pressed four." }
42 = { tell = "The caller has pressed forty-two." }
7 = { tool = "take_message" }
[plugins.dtmf.menu.main.keys.9.collect]
min_length = 4
max_length = 4
secret = true
then = { tool = "search_knowledge", arguments = { query = "{digits}" }, tell = "Told: {result}" }

[plugins.tools]

[plugins.voicemail]
beep = true
goodbye = "goodbye.wav"

[plugins.prompts]
closed = { files = ["closed.wav", "bye.wav"], then = "hang_up" }
hours = {}

[plugins.knowledge]
folder = "texts"
"""
)
CONFIG += answered("keys", '["dtmf", "knowledge", "voicemail"]')
CONFIG += answered("ending", '["tools"]')
CONFIG += answered("closed", '["prompts"]')
CONFIG += answered("knowing", '["knowledge"]')
CONFIG += fallback("keys", '["dtmf", "knowledge", "voicemail"]')

scenes: Scenes[House] = Scenes()


PRESSED: tuple[Step, ...] = (
    Press("4"),
    Pause(1200),
    *GREETED,
    Press("4"),
    Pause(200),
    Press("2"),
    *GREETED,
)
SECRET: tuple[Step, ...] = (Press("9"), Pause(300), *(Press(key) for key in "8273"), *GREETED)
MESSAGE: tuple[Step, ...] = (
    Press("7"),
    WaitForAgentSpeech(200),
    Pause(600),
    Say("hours"),
    Press("#"),
)


def check_keys(here: House, row: dict[str, Any]) -> None:
    assert "You have pressed four." in texts(row, "agent")
    assert row["reason"] == "voicemail"
    message = read(Path(row["facts"]["voicemail_file"]))
    assert message.duration_ms == row["facts"]["voicemail_ms"] > 1000
    logged = [repr(line) for line in here.logs if row["call_id"] in repr(line)]
    assert any("keys pressed" in line for line in logged)
    assert not shows(repr(row) + "".join(logged), "8273")


@scenes
async def keys_over_twilio(here: House) -> None:
    _, row = await held(here, "keys", *GREETED, *PRESSED, *SECRET, *MESSAGE, WaitForHangUp())
    check_keys(here, row)


@scenes
async def keys_over_sip(here: House) -> None:
    script = Script("keys", "", (*GREETED, *PRESSED, *SECRET, *MESSAGE, WaitForHangUp()))
    check_keys(here, await row_of(here, await place(here, script, codecs=("pcma",))))


@scenes
async def the_model_ends_the_call(here: House) -> None:
    _, row = await held(here, "ending", *GREETED, Say("thanks"), WaitForHangUp())
    assert row["reason"] == "model"


@scenes
async def announcements_alone(here: House) -> None:
    result, row = await held(here, "closed", WaitForHangUp())
    assert row["reason"] == "prompts"
    assert row["facts"]["prompts"] == "closed"
    assert texts(row, "agent") == []
    # By its level: a machine that stands still in the midst of a clip makes a gap, not more of it.
    heard_ms = np.count_nonzero(np.abs(samples(result)) > 2000) / 8
    assert heard_ms == pytest.approx(1500, abs=40)


@scenes
async def what_the_texts_say_is_said(here: House) -> None:
    _, row = await held(here, "knowing", *GREETED, Say("hours"), *GREETED, Pause(200))
    assert any("midnight" in text for text in texts(row, "agent")), row["transcript"]


async def all_of_it(folder: Path) -> Outcomes:
    for name, ms in (("goodbye.wav", 500), ("closed.wav", 900), ("bye.wav", 600)):
        a_wav(folder, name, ms)
    (folder / "texts").mkdir()
    (folder / "texts" / "hours.md").write_text("# Opening hours\nWe are open until midnight.")
    async with house(folder, CONFIG) as here:
        return await scenes.play(here, nothing_is_left)


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_calls(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)
