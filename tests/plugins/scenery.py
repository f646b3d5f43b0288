"""What the scenes of daemons with plugins share: an emulator, a trunk, calls and their rows."""

from __future__ import annotations

from typing import Any, Final

import trio

from tests.e2e.house import SOON_S, TRUNK, House, agent
from voiced.simulate import SCRIPTS, CallResult, Script
from voiced.simulate.script import Step, WaitForAgentSilence, WaitForAgentSpeech

__all__ = ["GREETED", "HEAD", "answered", "fallback", "held", "row_of", "texts"]

GREETED: Final[tuple[Step, ...]] = (WaitForAgentSpeech(300), WaitForAgentSilence())

HEAD: Final = f"""
[engine.emulated]
kind = "emulator"
{TRUNK}codecs = ["g722", "pcmu", "pcma"]
"""


def answered(name: str, plugins: str, settings: str = "") -> str:
    """An agent, the number of its name, and the plugins that its calls have."""
    settings = settings or f'greeting_text = "Hello, this is {name}."'
    return agent(name, "emulated", settings) + f"plugins = {plugins}\n"


def fallback(name: str, plugins: str) -> str:
    """The number that calls over the trunk go to, with an agent of `answered`."""
    return f'''
[[number]]
match = "+15550100"
agent = "{name}"
plugins = {plugins}
'''


async def row_of(here: House, result: CallResult, fact: str | None = None) -> dict[str, Any]:
    """The journal's row; with `fact`, once the plugins have had their last word."""
    assert result.failure is None, result.failure
    row = await here.row(result.call_sid)
    if fact is not None:
        with trio.fail_after(SOON_S):
            while fact not in row["facts"]:
                await trio.sleep(0.02)
                row = await here.row(result.call_sid)
    return row


async def held(
    here: House, name: str, *steps: Step, fact: str | None = None
) -> tuple[CallResult, dict[str, Any]]:
    """Hold a call of these steps, or a whole conversation."""
    result = await here.call(Script(name, "", steps) if steps else SCRIPTS["conversation"], name)
    return result, await row_of(here, result, fact)


def texts(row: dict[str, Any], role: str) -> list[str]:
    """What one side has said."""
    return [each["text"] for each in row["transcript"] if each["role"] == role]
