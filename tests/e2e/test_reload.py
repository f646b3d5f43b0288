"""A reload that fails half-way leaves the daemon as it was."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.house import agent, house, until
from tests.plugins.sounds import a_wav
from voiced.engines import Engines
from voiced.simulate import Script
from voiced.simulate.script import WaitForHangUp

pytestmark = pytest.mark.usefixtures("virtual_time")

BEFORE = """
[engine.offline]
kind = "emulator"
speech = "clips"
[plugins.prompts]
hours = {}
closed = { files = ["closed.wav"], then = "hang_up" }
"""
AFTER = BEFORE.replace("engine.offline", "engine.other").replace('"hang_up"', '"continue"')


async def test_engines_that_cannot_be_asked_undo_the_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_wav(tmp_path, "closed.wav", 500)
    async with house(tmp_path, BEFORE + agent("closed", "offline")) as here:

        async def fails(self: Engines) -> None:
            raise OSError("no port is free")

        monkeypatch.setattr(Engines, "chat_models", fails)
        file = tmp_path / "voiced.toml"
        text = file.read_text("utf-8")
        head = text[: text.index("[engine.offline]")]
        file.write_text(head + AFTER + agent("closed", "other"), "utf-8")
        signal.raise_signal(signal.SIGHUP)
        await until(
            lambda: any(line["event"] == "configuration not reloaded" for line in here.logs),
            "the news of the failure",
        )
        result = await here.call(Script("closed", "", (WaitForHangUp(),)), "closed")
        assert result.failure is None, result.failure
        row = await here.row(result.call_sid)
        assert (row["reason"], row["engine"]) == ("prompts", "offline")
        assert not here.tracebacks()
