"""Every command in the README runs, as a newcomer would run it: from a fresh clone."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from voiced.config import load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", README, re.MULTILINE | re.DOTALL)
    return ["\n".join(line.strip() for line in text.strip().splitlines()) for _, text in found]


SHELL = blocks("sh")


def test_second_command_is_what_ci_runs() -> None:
    assert SHELL[1] == "tests/run"
    assert (ROOT / ".ci" / "run").read_text("utf-8").rstrip().endswith("exec tests/run")


def test_commands_are_those_that_the_next_test_runs() -> None:
    assert [shlex.split(line)[:2] for block in SHELL[2:] for line in block.splitlines()] == [
        [".venv/bin/voiced", "init"],
        [".venv/bin/voiced", "check"],
        [".venv/bin/voiced", "run"],
        [".venv/bin/voiced", "simulate"],
        [".venv/bin/voiced", "emulator"],
    ]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a newcomer has: the last commit, and nothing installed."""
    path = tmp_path_factory.mktemp("clone") / "voiced"
    subprocess.run(["git", "clone", "--quiet", ROOT, path], check=True, timeout=60)
    return path


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # The interpreter that runs the tests stands for the newcomer's python3.
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    command = re.sub(r"^python3 ", f"{shlex.quote(sys.executable)} ", command)
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, text=True, capture_output=True,
        timeout=600, check=False,
    )  # fmt: skip


def test_first_command_then_the_others(clone: Path) -> None:
    first = run(SHELL[0], clone)
    assert first.returncode == 0, first.stdout + first.stderr
    for name in ("call.wav", "transcript.txt", "timeline.json"):
        assert (clone / "voiced-demo" / name).stat().st_size > 0
    for line in SHELL[2].splitlines():
        done = run(line, clone)
        assert done.returncode == 0, done.stdout + done.stderr
    environment = {**os.environ, "XDG_STATE_HOME": str(clone), "STATE_DIRECTORY": str(clone)}
    daemon = subprocess.Popen(
        shlex.split(SHELL[3]), cwd=clone, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert daemon.stderr is not None
        for line in daemon.stderr:
            if '"listening"' in line:
                break
        else:
            pytest.fail("the daemon did not start")
        simulated = run(SHELL[4], clone)
        assert simulated.returncode == 0, simulated.stdout + simulated.stderr
    finally:
        daemon.send_signal(signal.SIGTERM)
        _, rest = daemon.communicate(timeout=60)
    assert daemon.returncode == 0, rest
    assert run(SHELL[5], clone).returncode == 0


def test_configuration_passes_the_check(tmp_path: Path) -> None:
    (text,) = blocks("toml")
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
