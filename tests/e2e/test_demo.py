"""`voiced demo --scenario NAME`, as whoever tries voiced runs it: with processes, in real time.

That a scenario keeps its promises is tested where no load disturbs it, in `test_scenarios`. Here a
demo may find that this machine was too busy for what can be heard, but then has to say so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import trio

from tests.e2e.test_scenarios import BROKEN
from voiced.commands import demo as command
from voiced.demo import SCENARIOS
from voiced.demo.scenarios import PIN, Place

LIMIT_S = 200.0
ALL_S = 900.0
AT_ONCE = 3
"""Each takes half a minute of real time and is a caller and a daemon, of some 15 % of a core each
but for their start."""

BUSY = "this machine was busy"
"""So a demo says that its calls were not what they would have been."""

MUTE = "mute"
"""An agent that does not greet."""

AUDIBLE = 300
"""Of PCM16: -40 dBFS."""


ALONE = "alone"
"""The first scenario, on a machine that has no network and no synthesiser."""

NO_NETWORK = [shutil.which("unshare") or "unshare", "--map-root-user", "--net"]
MAY_LEAVE_THE_NETWORK = subprocess.run([*NO_NETWORK, "true"], capture_output=True).returncode == 0
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    up = struct.pack("16sh22x", b"lo", 1)  # netdevice(7): SIOCSIFFLAGS, IFF_UP
    fcntl.ioctl(any_socket, 0x8914, up)
os.execv(sys.argv[1], sys.argv[1:])
"""


WITH_ANOTHER_AGENT = """
import dataclasses, pathlib, sys
from voiced.demo import SCENARIOS, main
folder, old, new = sys.argv[1:]
scenario = SCENARIOS["conversation"]
assert old in scenario.config
changed = {"config": scenario.config.replace(old, new), "calls": scenario.calls[:1]}
SCENARIOS["conversation"] = dataclasses.replace(scenario, **changed)
sys.exit(main(pathlib.Path(folder)))
"""


@dataclass(frozen=True)
class Shown:
    """What a scenario has left behind."""

    code: int
    said: str
    folder: Path


async def show(name: str, folder: Path, shown: dict[str, Shown]) -> None:
    alone = name == ALONE
    scenario = "conversation" if alone else name
    arguments = ["demo", "--scenario", scenario, "--directory", str(folder / name)]
    command = [sys.executable, "-P", "-m", "voiced", *arguments]
    environment = dict(os.environ)
    if name == MUTE:
        old, new, _ = BROKEN[name]
        command = [sys.executable, "-P", "-c", WITH_ANOTHER_AGENT, str(folder / name), old, new]
    if alone:
        command = [*NO_NETWORK, sys.executable, "-c", LOOPBACK_UP, *command]
        environment["PATH"] = ""  # no espeak-ng, nor anything else
    with trio.fail_after(LIMIT_S):
        done = await trio.run_process(
            command,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            env=environment,
        )
    shown[name] = Shown(done.returncode, done.stdout.decode(), folder / name)


async def show_all(folder: Path) -> dict[str, Shown]:
    shown: dict[str, Shown] = {}
    free = trio.CapacityLimiter(AT_ONCE)

    async def one(name: str) -> None:
        async with free:
            await show(name, folder, shown)

    async with trio.open_nursery() as nursery:
        for name in [*SCENARIOS, MUTE, *([ALONE] if MAY_LEAVE_THE_NETWORK else [])]:
            nursery.start_soon(one, name)
    return shown


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    return trio.run(partial(show_all, tmp_path_factory.mktemp("demo")))


def test_the_command_names_every_scenario() -> None:
    assert tuple(SCENARIOS) == command.NAMES
    assert {each.name for each in SCENARIOS.values()} == set(SCENARIOS)


@pytest.mark.timeout(ALL_S)
@pytest.mark.parametrize("name", SCENARIOS)
def test_it_is_shown_and_judged(name: str, shown: dict[str, Shown]) -> None:
    done = shown[name]
    well_or_busy(done)
    assert "Traceback" not in done.said
    carriers = [place.over for place in SCENARIOS[name].calls]
    assert {"twilio", "sip"} <= set(carriers)


def well_or_busy(done: Shown) -> None:
    """All was heard; or else the machine was busy, and whoever tries voiced is told."""
    if done.code == 0:
        assert "  NO " not in done.said
    else:
        assert (done.code, "  NO " in done.said, BUSY in done.said) == (1, True, True), done.said


@pytest.mark.timeout(ALL_S)
def test_what_was_not_heard_makes_it_fail(shown: dict[str, Shown]) -> None:
    done = shown[MUTE]
    assert done.code == 1, done.said
    checks = [line for line in done.said.splitlines() if line.startswith(("  yes  ", "  NO   "))]
    (found,) = [check for check in checks if BROKEN[MUTE][2] in check]
    assert found.startswith("  NO ")
    assert "Traceback" not in done.said


@pytest.mark.timeout(ALL_S)
@pytest.mark.skipif(not MAY_LEAVE_THE_NETWORK, reason="no leave to unshare the network")
def test_it_needs_no_network_and_no_synthesiser(shown: dict[str, Shown]) -> None:
    well_or_busy(shown[ALONE])


def refused(*arguments: str, before: Sequence[str] = ()) -> str:
    """The one line of a demo that cannot be held."""
    done = subprocess.run(
        [*before, sys.executable, "-P", "-m", "voiced", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    (line,) = done.stdout.splitlines()
    return line


@pytest.mark.parametrize("folder", ["/proc", "/proc/nothing/here"])
def test_a_folder_that_cannot_be_written_is_said_before_the_calls(folder: str) -> None:
    line = refused("--directory", folder)
    assert line.startswith(f"voiced demo: cannot write to {folder}: ")
    assert line.endswith("; name a folder with --directory")


@pytest.mark.skipif(not MAY_LEAVE_THE_NETWORK, reason="no leave to unshare the network")
def test_a_machine_without_loopback_is_told_the_remedy(tmp_path: Path) -> None:
    line = refused("--directory", str(tmp_path), before=NO_NETWORK)
    assert "ip link set lo up" in line


@pytest.mark.timeout(ALL_S)
@pytest.mark.parametrize(
    ("name", "place"),
    [(name, place) for name, each in SCENARIOS.items() for place in each.calls],
    ids=lambda each: each if isinstance(each, str) else each.suffix or each.over,
)
def test_what_it_leaves_can_be_heard_and_read(
    name: str, place: Place, shown: dict[str, Shown]
) -> None:
    folder, suffix = shown[name].folder, place.suffix
    timeline = json.loads((folder / f"timeline{suffix}.json").read_text("utf-8"))
    call, entries = timeline["call"], timeline["timeline"]
    with wave.open(str(folder / f"call{suffix}.wav")) as recording:
        assert (recording.getnchannels(), recording.getframerate()) == (2, 8000)
        frames = recording.getnframes()
        sound = np.frombuffer(recording.readframes(frames), "<i2").reshape(-1, 2)
    assert frames / 8 == pytest.approx(call["duration_ms"], abs=40)
    # Each side is heard when the timeline says so, and on its own channel.
    for channel, side in ((0, "caller"), (1, "agent")):
        for said in call[side]:
            part = sound[round(8 * said["start_ms"]) : round(8 * said["end_ms"]), channel]
            assert np.abs(part).max() > AUDIBLE, (side, said)
    assert len(call["agent"]) >= 1
    times = [entry["at_ms"] for entry in entries]
    assert times == sorted(times)
    assert {entry["who"] for entry in entries} >= {"caller", "line", "state", "model"}
    assert any(entry["text"].startswith("call ended: ") for entry in entries)
    lines = (folder / f"transcript{suffix}.txt").read_text("utf-8").splitlines()
    assert lines
    assert all(line.startswith(("agent: ", "caller: ")) for line in lines)
    if call["caller"]:
        assert any(line.startswith("caller: ") for line in lines)


@pytest.mark.timeout(ALL_S)
@pytest.mark.parametrize("suffix", ["", "-sip"])
def test_a_secret_number_is_not_left_behind_digit_by_digit(
    suffix: str, shown: dict[str, Shown]
) -> None:
    document = json.loads((shown["digits"].folder / f"timeline{suffix}.json").read_text("utf-8"))
    pressed = [event for event in document["call"]["timeline"] if event["event"] == "DigitPressed"]
    assert [event["digit"] for event in pressed] == ["1", "2", *[""] * len(f"{PIN}#"), "9"]
    told = [each["text"] for each in document["timeline"] if each["text"].startswith("presses ")]
    assert [text for text in told if "secret" not in text] == [
        "presses 1",
        "presses 2",
        "presses 9",
    ]
