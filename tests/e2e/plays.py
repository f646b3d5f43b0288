"""Scenarios of lost models, played over both carriers on one `stage`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.e2e.failing import CARRIERS, QUICK, Line, Outcome, Plot, Stage, stage
from tests.e2e.house import Outcomes, Scenes, nothing_is_left, until
from tests.e2e.virtual import run_virtually
from voiced.emulator.options import EmulatorOptions
from voiced.realtime import client
from voiced.simulate.script import Step, WaitForAgentSilence, WaitForAgentSpeech

__all__ = [
    "BRIEF",
    "GREETS",
    "HEARS",
    "SILENT",
    "SLOW",
    "Plays",
    "no_dead_air",
    "places_taken",
    "went_on",
]

DEAD_MS = 3000
"""No caller waits longer in silence. Bounds of a second are the bench's to judge."""

HEARS: tuple[Step, ...] = (WaitForAgentSpeech(300), WaitForAgentSilence(1500))
GREETS = QUICK + 'greeting = "Greet the caller."\n'
SILENT = QUICK + 'greeting = ""\n'
BRIEF = "reconnect_s = 1\nsilence_prompt_s = 0\n"

SLOW = EmulatorOptions(speech="clips", think_ms=700)
"""A model that takes its time, so that it can be lost while it thinks."""

Scenario = Callable[[Line], Awaitable[None]]


class Plays:
    """A module's scenarios."""

    def __init__(self) -> None:
        self.plots: dict[str, Plot] = {}
        self.scenes: Scenes[Stage] = Scenes()

    def scenario(
        self, plot: Plot, name: str = "", carriers: tuple[str, ...] = CARRIERS
    ) -> Callable[[Scenario], None]:
        """Play it over both carriers, or those that know of it."""

        def add(play: Scenario) -> None:
            key = name or getattr(play, "__name__", "")
            self.plots[key] = plot
            for carrier in carriers:

                async def over(there: Stage, carrier: str = carrier) -> None:
                    await play(there.lines[key, carrier])

                self.scenes[f"{key}-{carrier}"] = over

        return add

    def play(
        self,
        folder: Path,
        more: str = "",
        *,
        of_daemon: str = "",
        ping_s: float = client.PING_INTERVAL_S,
    ) -> Outcomes:
        """Play all of them side by side, then see that nothing stays.

        `ping_s`: between two pings. A model that is half open is found out after two of them; with
        a short time a machine that stands still for so long is found out as well.
        """

        async def main() -> Outcomes:
            async with stage(folder, self.plots, more, of_daemon=of_daemon) as there:
                return await self.scenes.play(there, nothing_stays)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "PING_INTERVAL_S", ping_s)
            return run_virtually(main)


def went_on(line: Line, call: Outcome) -> None:
    """The caller said what they wanted to say, and nothing was out of order."""
    assert call.result.failure is None
    assert not call.result.violations
    assert call.row["reason"] == "caller_hangup"
    assert call.hears("unavailable") is None


def no_dead_air(line: Line, call: Outcome, since_ms: float) -> None:
    """Nobody waited in silence."""
    assert call.dead_air_ms(since_ms) <= DEAD_MS, call.result.agent


async def places_taken(there: Stage, name: str, taken: int) -> None:
    """Wait until so many sessions of an engine are open."""
    with trio.fail_after(20):
        while (await there.engine(name))["sessions"] != taken:
            await trio.sleep(0.05)


async def nothing_stays(there: Stage) -> None:
    """No call, no traceback, no place taken, no connection to a model."""
    await nothing_is_left(there.here)
    await until(
        lambda: not any(line.wire.live for line in there.lines.values()), "the end of sessions"
    )
    for name in ("spare", *(line.agent for line in there.lines.values())):
        assert (await there.engine(name))["sessions"] == 0, name
        assert (await there.engine(name))["state"] != "half_open", name
