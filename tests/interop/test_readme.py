"""Every command in the README runs, as a newcomer would run it: from a fresh clone.

The ports are the README's own, 8080, 9180 and 5060: nothing else may use them meanwhile.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e.sip_peer import Peer, sip_peer
from tests.e2e.test_demo import BUSY
from voiced.config import load
from voiced.demo.show import BUSY_MS, WAITED_MS, waited_ms

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", README, re.MULTILINE | re.DOTALL)
    return ["\n".join(line.strip() for line in text.strip().splitlines()) for _, text in found]


SHELL = blocks("sh")
(
    INSTALL, TESTS, PREPARE, RUN, TRUNKS, SIMULATE_SIP, PLUGINS, GREETING, NEW_PLUGIN, SCENARIO,
    SIMULATE, EMULATOR, OPERATE,
) = range(13)  # fmt: skip


def test_second_command_is_what_ci_runs() -> None:
    assert SHELL[TESTS] == "tests/run"
    assert (ROOT / ".ci" / "run").read_text("utf-8").rstrip().endswith("exec tests/run")


def test_commands_are_those_that_the_next_test_runs() -> None:
    found = [[shlex.split(line)[:2] for line in block.splitlines()] for block in SHELL[PREPARE:]]
    assert all(program == ".venv/bin/voiced" for block in found for program, _ in block)
    assert [[command for _, command in block] for block in found] == [
        ["init", "check"],
        ["run"],
        ["trunks"],
        ["simulate"],
        ["plugins"],
        ["greeting"],
        ["plugins"],
        ["demo"],
        ["simulate"],
        ["emulator"],
        ["calls", "show", "dial", "say", "transfer", "hangup"],
    ]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a newcomer has: the last commit, and nothing installed."""
    path = tmp_path_factory.mktemp("clone") / "voiced"
    subprocess.run(["git", "clone", "--quiet", ROOT, path], check=True, timeout=60)
    return path


def environment(folder: Path) -> dict[str, str]:
    found = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    return {**found, "XDG_STATE_HOME": str(folder), "STATE_DIRECTORY": str(folder)}


def run(
    command: str,
    folder: Path,
    status: int = 0,
    daemon: subprocess.Popen[str] | None = None,
) -> str:
    """Run a command to its end; returns what it printed.

    A demo or a simulated call may judge that not all was heard, where it or the daemon was kept
    waiting: what is heard where nothing disturbs them is tested elsewhere.
    """
    before = waited_ms(daemon.pid) if daemon else 0.0
    # The interpreter that runs the tests stands for the newcomer's python3.
    command = re.sub(r"^python3 ", f"{shlex.quote(sys.executable)} ", command)
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment(folder), text=True, timeout=600,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    late = re.search(r"^simulation lag, worst.* ([0-9.]+)$", done.stdout, re.MULTILINE)
    disturbed = (
        BUSY in done.stdout
        or (late is not None and float(late[1]) >= BUSY_MS)
        or (daemon is not None and waited_ms(daemon.pid) - before >= WAITED_MS)
    )
    if done.returncode != status and not (done.returncode == 1 and disturbed):
        pytest.fail(f"{command} exited with {done.returncode}\n{done.stdout}")
    return done.stdout


@asynccontextmanager
async def daemon(folder: Path) -> AsyncIterator[subprocess.Popen[str]]:
    """The README's daemon, from its first call to its clean end."""
    process = subprocess.Popen(  # noqa: ASYNC220 (returns at once)
        shlex.split(SHELL[RUN]), cwd=folder, env=environment(folder), stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        said = await trio.to_thread.run_sync(until_it_listens, process)
        assert '"listening"' in said[-1], said
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            _, rest = await trio.to_thread.run_sync(partial(process.communicate, timeout=60))
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def until_it_listens(process: subprocess.Popen[str]) -> list[str]:
    """What it says, to the line that tells that it listens, or to its end."""
    assert process.stderr is not None
    said = [""]
    for line in process.stderr:
        said.append(line)
        if '"listening"' in line:
            break
    return said


async def test_first_command_then_the_others(clone: Path) -> None:
    run(SHELL[INSTALL], clone)
    for name in ("call.wav", "call-sip.wav", "transcript.txt", "timeline.json"):
        assert (clone / "voiced-demo" / name).stat().st_size > 0
    for line in SHELL[PREPARE].splitlines():
        run(line, clone)
    async with daemon(clone) as process:
        run(SHELL[SIMULATE], clone, daemon=process)
    assert "voiced emulator" in run(SHELL[EMULATOR], clone)
    assert "another engine took over" in run(SHELL[SCENARIO], clone)
    uses_plugins(clone)

    async with sip_peer() as peer, trio.open_nursery() as nursery:
        file = clone / "voiced.toml"
        file.write_text(f"{file.read_text('utf-8')}\n{on_loopback(blocks('toml')[1], peer)}\n")
        in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=False)
        async with daemon(clone) as process:
            table = await in_thread(run, SHELL[TRUNKS], clone)
            assert re.search(r"^provider +sip", table, re.MULTILINE), table
            await in_thread(run, SHELL[SIMULATE_SIP], clone, 0, process)
            nursery.start_soon(answers_and_takes_transfers, peer)
            for line in SHELL[OPERATE].splitlines():
                command = shlex.split(line)[1]
                if command == "hangup":  # the transfer has ended the call before
                    await in_thread(run, line, clone, 1)
                    await in_thread(run, operate("dial"), clone)
                if command in ("say", "hangup"):
                    await in_thread(talked_with, clone)
                await in_thread(run, line, clone)
        nursery.cancel_scope.cancel()
    assert [each.method for each in peer.log if each.method in ("INVITE", "REFER")] == [
        "INVITE",
        "REFER",
        "INVITE",
    ]


def uses_plugins(clone: Path) -> None:
    """The README's plugins beside the configuration that `init` wrote, and one of one's own."""
    drop_in = clone / "conf.d" / "plugins.toml"
    drop_in.parent.mkdir()
    drop_in.write_text(blocks("toml")[2], "utf-8")
    listed = run(SHELL[PLUGINS], clone)
    for name in ("greeting_cache", "recorder", "dtmf", "tools"):
        assert re.search(rf"^{name} +bundled +{name}", listed, re.MULTILINE), listed
    run(SHELL[GREETING], clone)
    run(SHELL[NEW_PLUGIN], clone)
    written = sorted(path.name for path in (clone / "my-plugins").iterdir())
    assert written == ["courtesy.py", "test_courtesy.py"]
    drop_in.unlink()


def operate(command: str) -> str:
    (line,) = [each for each in SHELL[OPERATE].splitlines() if shlex.split(each)[1] == command]
    return line


def talked_with(folder: Path) -> None:
    """Wait until the newest call has audio, as an operator would see it."""
    for _ in range(60):
        shown = json.loads(run(f"{operate('show')} --json", folder))
        if shown["live"] and shown["state"] not in ("dialling", "media_ready"):
            return
    raise AssertionError(shown)


async def answers_and_takes_transfers(peer: Peer) -> None:
    """The provider's side: whoever is called picks up; the first call is handed over."""
    invite = await peer.called()
    await peer.answer(invite)
    await peer.takes_transfer()
    await peer.answer(await peer.called())


def on_loopback(text: str, peer: Peer) -> str:
    """The README's trunk, with the provider on this machine and no account there."""
    for pattern, value in (
        (r'"sip\.example\.net"', f'"127.0.0.1:{peer.port}"'),
        (r"(?m)^(username|password_file|register) = .*$", ""),
    ):
        text, count = re.subn(pattern, value, text)
        assert count, pattern
    return text


@pytest.mark.parametrize("which", [[0], [1], [0, 1], [2], [0, 1, 2, 3]])
def test_configuration_passes_the_check(tmp_path: Path, which: list[int]) -> None:
    """Blocks alone, and the later ones added to the first as the README has it."""
    found = blocks("toml")
    assert len(found) == 4
    text = "\n\n".join(found[each] for each in which)
    for name in re.findall(r'"(/etc/voiced/[^"]+)"', text):
        secret = tmp_path / Path(name).name
        secret.write_text("a-secret\n", "utf-8")
        secret.chmod(0o600)
        text = text.replace(name, str(secret))
    (tmp_path / "voiced.toml").write_text(text, "utf-8")
    assert not load(tmp_path / "voiced.toml").warnings


def test_files_that_it_names_exist() -> None:
    for name in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / name).exists(), name
