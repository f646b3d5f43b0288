"""What takes real time is in a lane of `tests/run`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import lanes
from tests.lanes import LANES, OUTSIDE, place_of

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", [name for lane in LANES for name in lane])
def test_each_name_is_of_something(name: str) -> None:
    assert list(ROOT.glob(f"{name.rstrip('/')}*"))


def test_one_process_takes_them_too() -> None:
    """`-p no:xdist`: hooks that nobody calls are no error."""
    alone = pytest.PytestPluginManager()
    alone.register(lanes)
    alone.check_pending()


VIRTUAL = re.compile(r"\bplayed\(all_of_it|plays\.play\(|run_virtually\(|\"virtual_time\"")
REAL = re.compile(r"\brun_strictly\b|\brunning\(|\bPopen\(|\bopen_process\(")


def test_whoever_plays_with_a_daemon_in_real_time_is_in_one() -> None:
    daemons = re.compile(r"^from tests\.(e2e\.(house|test_operator)|interop)\b", re.MULTILINE)
    for module in sorted((ROOT / "tests").rglob("test_*.py")):
        text = module.read_text("utf-8")
        if daemons.search(text):
            name = module.relative_to(ROOT).as_posix()
            real = REAL.search(text) or not VIRTUAL.search(text)
            assert (place_of(f"{name}::test") != OUTSIDE) == bool(real), name
