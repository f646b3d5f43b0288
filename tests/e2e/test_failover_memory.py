"""What keys, plugins and operators told a model that is lost or renewed, the next one knows.

The emulator is asked to repeat all that it knows, so its answer shows its history.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.e2e.failing import Line, Plot
from tests.e2e.house import Outcomes, judge, until
from tests.e2e.plays import SILENT, Plays
from voiced.emulator.options import EmulatorOptions
from voiced.simulate.script import Press, WaitForHangUp

PLUGIN = '''
"""Tells the model something when a key is pressed."""

from voiced.plugin import Plugin


class Teller(Plugin):
    async def on_digit(self, digit: str) -> bool | None:
        if digit == "*":
            self.call.tell("The caller is called Ada.", answer=False)
            self.call.log.info("told of a name")
            return True
        if digit == "#":
            self.call.tell("I am in a hurry.", role="user", answer=False)
            self.call.log.info("told in the name of the caller")
            return True
        return None
'''

KEY = "The caller pressed the key 7."
NAME = "The caller is called Ada."
HURRY = "I am in a hurry."
CLOSES = "The shop closes early today."
PRESSES = Press("7"), Press("*"), Press("#")

OUTAGE_S = 1.5
SPEAKS = EmulatorOptions(think_ms=300)

plays = Plays()
Loss = Callable[[Line], Awaitable[None]]


async def logged(line: Line, event: str) -> None:
    await until(lambda: bool(line.logged(event)), f"{line.agent}: {event}")


def note(text: str) -> dict[str, object]:
    return {"text": text, "exactly": False}


async def say(line: Line, text: str) -> None:
    """What `voiced say` does; until there is a model to be told."""
    (call_id,) = line.calls
    with trio.fail_after(20):
        while True:
            answer = await line.stage.admin.post(f"/api/calls/{call_id}/say", json=note(text))
            if answer.status_code != 409:
                break
            assert answer.json()["error"] == "no_model", answer.text
            await trio.sleep(0.05)
    assert answer.is_success, answer.text


async def hang_up(line: Line) -> None:
    (call_id,) = line.calls
    answer = await line.stage.admin.post(f"/api/calls/{call_id}/hangup", json={})
    assert answer.is_success, answer.text


async def repeats(line: Line, before: Loss, engine: str = "") -> list[str]:
    """Tell the model, lose it as `before` says; returns what it repeats afterwards."""

    async def operate() -> None:
        await line.state("listening")
        await line.model("ready")
        await before(line)
        heard = line.entered("listening")
        await say(line, "Repeat all you know.")
        await line.state("listening", heard + 1)
        await hang_up(line)

    line.beside(operate)
    call = await line.call(*PRESSES, WaitForHangUp())
    assert call.result.failure is None
    assert not call.result.violations
    assert call.row["reason"] == "operator"
    said = [each["text"] for each in call.row["transcript"] if each["role"] == "agent"]
    assert call.row["engine"] == (engine or line.agent)
    return said


async def told(line: Line) -> None:
    """Keys, a plugin's texts, then an operator's note, which the model answers."""
    await logged(line, "told in the name of the caller")
    heard = line.entered("listening")
    await say(line, CLOSES)
    await line.state("listening", heard + 1)


def knows_all(said: list[str]) -> None:
    """Each text is known, once, in the order in which they were given."""
    assert len(said) == 2, said
    answer, repeated = said
    places = [repeated.find(text) for text in (KEY, NAME, HURRY, CLOSES, answer)]
    assert -1 not in places, said
    assert places == sorted(places), said
    for text in (KEY, NAME, HURRY, CLOSES):
        assert repeated.count(text) == 1, said


@plays.scenario(Plot(SPEAKS, SILENT))
async def never_lost(line: Line) -> None:
    """So that it is known what a model knows that was there all the time."""
    knows_all(await repeats(line, told))


@plays.scenario(Plot(SPEAKS, SILENT))
async def lost_and_back(line: Line) -> None:
    async def before(line: Line) -> None:
        await told(line)
        line.wire.cut()
        await line.model("reconnecting")

    knows_all(await repeats(line, before))


@plays.scenario(Plot(SPEAKS, SILENT))
async def lost_twice(line: Line) -> None:
    async def before(line: Line) -> None:
        await told(line)
        for _ in range(2):
            ready = line.was_model("ready")
            line.wire.cut()
            await line.model("ready", ready + 1)

    knows_all(await repeats(line, before))


@plays.scenario(Plot(EmulatorOptions(think_ms=300, session_s=15), SILENT))
async def renewed(line: Line) -> None:
    """Twice within the call."""

    def renewals() -> int:
        return len(
            [
                each
                for each in line.stage.here.logs
                if each["event"] == "model session renewed" and each["engine"] == line.agent
            ]
        )

    async def before(line: Line) -> None:
        already = renewals()
        await told(line)
        await until(lambda: renewals() > already, "a renewal")

    knows_all(await repeats(line, before))


@plays.scenario(Plot(SPEAKS, SILENT))
async def told_while_lost(line: Line) -> None:
    """Keys and plugins find no model; what an operator has to say is refused until there is one."""

    async def before(line: Line) -> None:
        line.wire.down()
        await line.model("reconnecting")
        (call_id,) = line.calls
        path = f"/api/calls/{call_id}/say"
        refused = await line.stage.admin.post(path, json=note(CLOSES))
        assert refused.status_code == 409
        await logged(line, "told in the name of the caller")
        await trio.sleep(OUTAGE_S)
        line.wire.up()
        await told(line)

    knows_all(await repeats(line, before))


@plays.scenario(Plot(SPEAKS, SILENT.replace("6", "1") + 'fallback_engine = "other"\n'))
async def never_back(line: Line) -> None:
    """The other engine knows it as well."""

    async def before(line: Line) -> None:
        await told(line)
        line.wire.down()
        await line.model("fallback")

    knows_all(await repeats(line, before, engine="other"))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("memory")
    plugins = folder / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "teller.py").write_text(PLUGIN, "utf-8")
    more = '[plugins.teller]\n[engine.other]\nkind = "emulator"\n'
    return plays.play(folder, more, of_daemon='plugin_dir = "plugins"')


@pytest.mark.parametrize("name", plays.scenes.names)
def test_failover_memory(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
