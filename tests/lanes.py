"""How `tests/run` spreads the tests over processes: `-p tests.lanes`, with pytest-xdist.

Without it one process runs them in the same order.

What computes goes first, module by module, to all of them. What lives in real time mostly waits, so
that several such tests can go on side by side; but nothing may keep it waiting. It begins when the
rest is over, in lanes: one is one process's, from its first test to its last.
"""

from __future__ import annotations

import gc
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

__all__ = ["LANES", "OUTSIDE", "place_of"]

LANES: Final = (
    (
        "tests/e2e/test_demo.py",  # these two judge what is heard: never both at a time
        "tests/interop/test_readme.py",
    ),
    (
        "tests/interop/",  # where programs are given ports that nobody else has taken just then
        "tests/simulate/test_peers.py",
        "tests/test_bench.py",
        "tests/test_bench_sip.py",
    ),
    (
        "tests/commands/test_greeting.py",
        "tests/commands/test_plugins.py",
        "tests/e2e/test_cost.py",
        "tests/e2e/test_dialling.py",
        "tests/e2e/test_journal.py",
        "tests/e2e/test_leaks.py",
        "tests/e2e/test_locales.py",
        "tests/e2e/test_operator.py",
        "tests/e2e/test_sip_dials.py",
        "tests/e2e/test_sip_ends.py",
        "tests/e2e/test_sip_leaks.py",
        "tests/test_cli.py",
        "tests/test_notify.py",
    ),
)
"""The modules with processes, peers and benches in real time, by how their names begin; the longest
that fits is meant. A lane's are run in this order. Each lane takes about as long as the others.
Where daemon, carriers and model are in one process time is not real, and the module in no lane."""

PLACES: Final = {
    name: (number, at) for number, lane in enumerate(LANES) for at, name in enumerate(lane)
}
OUTSIDE: Final = (-1, 0)


def place_of(nodeid: str) -> tuple[int, int]:
    """In which lane a test is, and at which place in it; or `OUTSIDE`."""
    fitting = [name for name in PLACES if nodeid.startswith(name)]
    return PLACES[max(fitting, key=len)] if fitting else OUTSIDE


class ByLane(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives out whole modules, and whole lanes."""

    def _split_scope(self, nodeid: str) -> str:
        place = place_of(nodeid)
        return nodeid.partition("::")[0] if place == OUTSIDE else f"lane {place[0]}"


@pytest.hookimpl(optionalhook=True)  # unknown with `-p no:xdist`: one process has them all
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByLane:
    """In the process that gives out the tests."""
    return ByLane(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is in no lane first."""
    items.sort(key=lambda item: place_of(item.nodeid))


_frozen = False


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the first test in real time, what thousands of others left is put out of the way: to
    look all of it through for garbage takes a second, in the midst of a call."""
    global _frozen
    if not _frozen and place_of(item.nodeid) != OUTSIDE:
        _frozen = True
        gc.collect()
        gc.freeze()
