"""`tests/run` itself, among programs that only say that they were run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="for Debian")


class Clone:
    """A clone with an environment that is complete already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        self.script = folder / "tests" / "run"
        self.script.parent.mkdir()
        shutil.copy(ROOT / "tests" / "run", self.script)
        self.bin = folder / ".venv-test" / "bin"
        for name in ("pip", "ruff"):
            self.program(self.bin / name, "exit 0")
        self.program(self.bin / "mypy", "echo types")
        self.program(self.bin / "python", 'echo "tests $*"')
        self.program(folder / "tests" / "native" / "run.sh", "echo native")
        self.program(folder / "debian" / "dpkg-query", "echo ok installed")

    def program(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        path.chmod(0o755)

    def start(self, **more: str) -> subprocess.Popen[str]:
        path = f"{self.folder / 'debian'}:{os.environ['PATH']}"
        running = subprocess.Popen(
            [self.script, "-k", "one thing"],
            env={"PATH": path, "TMPDIR": str(self.folder), **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(running)
        return running


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    made = Clone(tmp_path)
    yield made
    for running in made.started:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()


def test_all_is_run_in_turn(clone: Clone) -> None:
    running = clone.start()
    said, _ = running.communicate(timeout=20)
    assert running.returncode == 0, said
    places = [said.index(word) for word in ("types", "native", "tests -m pytest")]
    assert places == sorted(places)
    assert said.rstrip().endswith("-k one thing")


@pytest.mark.parametrize("wrong", [".venv-test/bin/mypy", "tests/native/run.sh"])
def test_what_either_finds_wrong_is_said_and_ends_it(clone: Clone, wrong: str) -> None:
    clone.program(clone.folder / wrong, "echo it is wrong; exit 3")
    running = clone.start()
    said, _ = running.communicate(timeout=20)
    assert running.returncode == 1
    assert "it is wrong" in said
    assert "types" in said or "native" in said, "the other had its say"
    assert "tests -m" not in said
    assert not list(clone.folder.glob("tmp.*"))


def test_an_environment_that_was_left_half_made_is_made_anew(clone: Clone) -> None:
    """As Debian leaves one where python3-venv is missing: with a `python`, without `pip`."""
    pip, python = clone.bin / "pip", clone.folder / "python"
    pip.unlink()
    makes = f"echo made $3; cp '{clone.bin / 'ruff'}' '{pip}'"
    clone.program(python, f'case "$1 $2" in "-m venv") {makes} ;; esac')
    running = clone.start(PYTHON=str(python))
    said, _ = running.communicate(timeout=20)
    assert running.returncode == 0, said
    assert said.startswith("made --clear\n")


def test_what_is_missing_is_named(clone: Clone) -> None:
    """Whether it is installed, which cannot be done here, or has to be by somebody else."""
    clone.program(clone.folder / "debian" / "dpkg-query", "exit 1")
    clone.program(clone.folder / "debian" / "apt-get", "exit 1")
    running = clone.start(CC="no-such-compiler")
    said, _ = running.communicate(timeout=20)
    assert running.returncode == 1
    assert "espeak-ng" in said
    assert "gcc" in said
    assert "types" not in said


def test_a_second_one_waits_for_the_first(clone: Clone) -> None:
    go = clone.folder / "go"
    os.mkfifo(go)
    clone.program(clone.bin / "mypy", f"echo began; read -r line <{go}; echo $line")
    first = clone.start()
    assert first.stdout is not None
    while "began" not in first.stdout.readline():
        assert first.poll() is None
    clone.program(clone.bin / "mypy", "echo types")
    second = clone.start()
    assert second.stdout is not None
    assert second.stdout.readline() == "tests/run: waiting for the one that runs here already\n"
    go.write_text("ended\n", "utf-8")
    assert "ended" in first.communicate(timeout=20)[0]
    assert "types" in second.communicate(timeout=20)[0]
    assert (first.returncode, second.returncode) == (0, 0)
