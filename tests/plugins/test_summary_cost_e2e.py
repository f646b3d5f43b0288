"""What a summary costs is in its call's row, in what `voiced show` says, and in the day's sum."""

from __future__ import annotations

import re
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e.house import SOON_S, agent, house
from tests.e2e.virtual import run_virtually
from tests.plugins.scenery import GREETED, row_of
from voiced.budget import day_of
from voiced.config.types import Price
from voiced.cost import cost_usd
from voiced.engine import Usage
from voiced.journal import Journal
from voiced.simulate import Script
from voiced.simulate.script import HangUp, Say

ASKING = Script("asking", "", (*GREETED, Say("hours"), *GREETED, HangUp()))
PRICE = Price(text_in=1000.0, text_out=2000.0)
CONFIG = """
[engine.pipe]
kind = "pipeline"
[engine.pipe.stt]
provider = "emulator"
[engine.pipe.chat]
provider = "emulator"
[engine.pipe.tts]
provider = "emulator"

[price.emulator]
text_in = 1000.0
text_out = 2000.0

[cost]
day_usd = CAP

[plugins.summary]
min_s = 1

[admin]
listen = "unix:SOCKET"
token = "for-this-test"
"""
CONFIG += agent("reception", "pipe", 'greeting_text = "Hello, this is the reception."')


def spent(folder: Path) -> float:
    today = day_of(time.time())
    return sum(each.usd for each in Journal(folder / "state").spent(today))


async def play(folder: Path) -> None:
    config = CONFIG.replace("SOCKET", str(folder / "admin"))
    async with house(folder, config.replace("CAP", "100.0")) as here:
        result = await here.call(ASKING, "reception")
        ended = await row_of(here, result)
        assert "summary" not in ended["facts"]
        assert spent(folder) == pytest.approx(ended["cost_usd"])
        row = await row_of(here, result, "summary")
        with trio.fail_after(SOON_S):  # noted a moment later, in another transaction
            while spent(folder) == pytest.approx(ended["cost_usd"]):
                await trio.sleep(0.02)
        row = await here.row(result.call_sid)
        used = {
            name: row["usage"][name] - ended["usage"].get(name, 0)
            for name in ("text_in", "text_out")
        }
        assert used["text_in"] > 100, "the prompt and the transcript"
        more = cost_usd(PRICE, Usage(**used), 0.0)
        assert row["cost_usd"] == pytest.approx(ended["cost_usd"] + more)
        assert spent(folder) == pytest.approx(row["cost_usd"])
        assert await shown(folder, row["call_id"]) == pytest.approx(row["cost_usd"], abs=1e-4)
    cap = (ended["cost_usd"] + row["cost_usd"]) / 2
    async with house(folder, config.replace("CAP", str(cap))) as here:
        refused = await here.call(ASKING, "reception")
        assert refused.failure is not None
        assert [line["why"] for line in here.logs if line["event"] == "call refused"] == [
            "cost_day"
        ]
        assert here.rows()[0]["cost_usd"] == row["cost_usd"]


async def shown(folder: Path, call_id: str) -> float:
    """What the command says of a call's cost."""
    command = [sys.executable, "-m", "voiced", "show", call_id, "-c", str(folder / "voiced.toml")]
    done = await trio.run_process(command, capture_stdout=True)
    found = re.search(r"cost +([0-9.]+) USD", done.stdout.decode())
    assert found is not None
    return float(found[1])


def test_a_summary_is_paid_by_its_call_and_by_its_day_over_a_restart(tmp_path: Path) -> None:
    run_virtually(partial(play, tmp_path))
