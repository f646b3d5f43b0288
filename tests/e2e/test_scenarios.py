"""What the demo's scenarios promise is heard, on a clock that jumps: however busy the machine is.

The calls, the daemon's configuration and the verdicts are the demo's own. The command itself, with
processes and in real time, is tested in `test_demo`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest
import trio

from tests.e2e.house import TRUNK, House, house, nothing_is_left, sip_address
from tests.e2e.virtual import run_virtually
from voiced import clips
from voiced.demo import SCENARIOS
from voiced.demo.held import Held
from voiced.demo.helper import Helper
from voiced.demo.scenarios import Place, Scenario
from voiced.demo.timeline import Timeline
from voiced.simulate import CallResult, call
from voiced.simulate.sip_caller import call as sip_call

LOOK_S: Final = 0.005  # how late the timeline tells what the daemon has logged

BROKEN: Final = {
    "deaf": ("[agent.reception]", '[agent.reception]\nbarge_in = "off"', "interruption"),
    "mute": (f'greeting_text = "{clips.load("greeting").text}"', 'greeting = ""', "greeting"),
}
"""Agents that do not do what the first scenario promises: what is changed in its configuration, and
which promise it breaks."""


async def follow(here: House, timeline: Timeline) -> None:
    """Tell the timeline what the daemon logs from now on."""
    told = len(here.logs)
    while True:
        for line in here.logs[told:]:
            timeline.log_line({**line, "level": line["log_level"]})
            told += 1
        await trio.sleep(LOOK_S)


async def place_call(here: House, place: Place, timeline: Timeline) -> CallResult:
    if place.over == "sip":
        uri = f"sip:{place.number}@{sip_address(here.logs)}"
        return await sip_call(place.script, uri=uri, observer=timeline.observe)
    return await call(
        place.script, webhook_url=here.webhook, to=place.number, observer=timeline.observe
    )


async def hold(folder: Path, scenario: Scenario) -> list[tuple[Held, Mapping[str, bool]]]:
    """All its calls, one after the other, and what is to be said of each."""
    calls: list[Held] = []
    async with trio.open_nursery() as nursery:
        helper = Helper()
        url = await nursery.start(helper.serve)
        text = TRUNK + "options_s = 0\n" + scenario.config.replace("{helper}", url)
        async with house(folder, text) as here:
            for index, place in enumerate(scenario.calls):
                timeline = Timeline(lambda _: None)
                timeline.begin(place.title)
                async with trio.open_nursery() as beside:
                    beside.start_soon(follow, here, timeline)
                    result = await place_call(here, place, timeline)
                    await timeline.call_ended()
                    beside.cancel_scope.cancel()
                held = Held(place.title, place.suffix, index, result, timeline.entries)
                held.row, held.asked = await here.row(result.call_sid), tuple(helper.asked)
                calls.append(held)
            await nothing_is_left(here)
            log = [json.dumps(line, default=str) for line in here.logs]
        nursery.cancel_scope.cancel()
    for held in calls:
        held.log = log
    return [(held, scenario.checks(held)) for held in calls]


def played(
    folder: Path, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Held, Mapping[str, bool]]]:
    monkeypatch.setattr("voiced.demo.timeline.time", SimpleNamespace(monotonic=trio.current_time))
    return run_virtually(partial(hold, folder, scenario))


@pytest.mark.parametrize("name", SCENARIOS)
def test_all_that_it_promises_is_heard(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for held, checks in played(tmp_path, SCENARIOS[name], monkeypatch):
        assert held.result.failure is None
        assert all(checks.values()), (checks, held.timeline)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_heard_is_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, promise = BROKEN[name]
    scenario = SCENARIOS["conversation"]
    assert old in scenario.config
    changed = replace(scenario, config=scenario.config.replace(old, new), calls=scenario.calls[:1])
    ((_, checks),) = played(tmp_path, changed, monkeypatch)
    (found,) = [kept for text, kept in checks.items() if promise in text]
    assert not found
