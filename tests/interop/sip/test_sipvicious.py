"""sipvicious scans while a trunk's call goes on: it finds nobody, is banned, disturbs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.house import Outcomes, Scenes, judge, run_strictly, sample, until
from tests.interop.sip.house import SipHouse, sip_house
from tests.interop.sip.listening import of_clip, of_ulaw, share
from tests.interop.sip.peers import LOOPBACK, scan
from tests.interop.sip.talk import AGENTS, settled
from voiced.simulate.script import HangUp, Say, Script, WaitForAgentSilence, WaitForAgentSpeech
from voiced.simulate.sip_caller import call

pytestmark = pytest.mark.interop

ASKS = Script("asks", "", (Say("hello"), WaitForAgentSpeech(300), WaitForAgentSilence(), HangUp()))

GAP_MS = 1000
"""In the live call; a machine with other things to do may stall so long by itself."""


async def live_call(here: SipHouse) -> None:
    """A question and its answer, from the trunk's address."""
    source, _ = here.addresses["plain"]
    result = await call(ASKS, uri=f"sip:hello@{LOOPBACK}:{here.port}", source=source)
    assert result.failure is None, result.failure
    assert not result.violations, result.violations
    assert share(of_ulaw(result.agent_ulaw), of_clip("who")) > 0.5
    assert result.rtp is not None
    assert (result.rtp.lost, result.rtp.duplicated, result.rtp.malformed) == (0, 0, 0)
    assert result.rtp.longest_gap_ms < GAP_MS
    with (here.folder / "measured.txt").open("a", encoding="utf-8") as file:
        file.write(f"{result.rtp}\n")


async def finds_nothing(
    here: SipHouse, tool: str, source: str, arguments: Sequence[str] = ()
) -> None:
    """A scan from `source`; the `-b` of svwar and svcrack binds nothing: 127.0.0.1."""
    await until(lambda: here.operations.live() != [], "the live call")
    own = () if source == LOOPBACK else ("-b", source)
    printed = await scan(tool, *own, *arguments, f"-p{here.port}", LOOPBACK)
    (here.folder / f"{tool}{''.join(arguments)}.txt").write_text(printed)
    assert "found nothing" in printed, printed
    assert str(here.port) not in printed, printed
    assert "SIP/2.0" not in printed, printed  # nor was it told anything
    assert source in [ban.source for ban in here.operations.bans()]
    assert here.lines("source banned", source=source)


scenes: Scenes[SipHouse] = Scenes()
scenes["live_call"] = live_call
scenes["svmap"] = partial(finds_nothing, tool="svmap", source="127.0.0.66")
scenes["svmap_invite"] = partial(
    finds_nothing, tool="svmap", source="127.0.0.67", arguments=("-m", "INVITE")
)
scenes["svwar"] = partial(finds_nothing, tool="svwar", source=LOOPBACK, arguments=("-e100-120",))
scenes["svwar_invite"] = partial(
    finds_nothing,
    tool="svwar",
    source=LOOPBACK,
    arguments=("-e100-110", "-m", "INVITE", "--force"),
)
scenes["svcrack"] = partial(
    finds_nothing, tool="svcrack", source=LOOPBACK, arguments=("-u", "alice", "-r100-110")
)


@scenes
async def nobody_else_is_banned(here: SipHouse) -> None:
    """Nor does the metric that alarms are made of miss it."""
    sources = {"127.0.0.66", "127.0.0.67", LOOPBACK}
    await until(lambda: {ban.source for ban in here.operations.bans()} == sources, "the bans")
    assert sample("voiced_sip_banned") == len(sources)


WAYS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "drop": ('strangers = "drop"', {}),
    "forbid": ('strangers = "forbid"', {}),
    "password": (
        "",
        {"home": 'authenticate = true\nusername = "alice"\npassword = "105"\nallow = []'},
    ),
}
"""To meet strangers: lines of `[sip]`, and trunks besides that of the live call."""


@pytest.fixture(scope="module", params=list(WAYS))
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("sipvicious")
    return run_strictly(partial(play, folder, *WAYS[request.param]))


async def play(folder: Path, sip: str, trunks: Mapping[str, str]) -> Outcomes:
    async with sip_house(
        folder, {"plain": "", **trunks}, sip=sip, text=AGENTS, listen=("udp",)
    ) as here:
        return await scenes.play(here, settled)


@pytest.mark.parametrize("name", scenes.names)
def test_sipvicious(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
