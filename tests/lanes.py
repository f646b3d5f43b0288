"""How `tests/run` spreads the tests over processes, so that those that wait and those that compute
overlap: `-p tests.lanes`, with pytest-xdist.

A lane is one process's, from its first test to its last. What lives in real time mostly waits, but
must not be kept waiting; of what one lane has, nothing runs beside it. All other modules are given
out one by one, to processes that give way to the lanes.
"""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

__all__ = ["LANES", "lane_of"]

LANES: Final = (
    ("tests/e2e/test_failover", "tests/e2e/test_languages.py"),
    ("tests/e2e/",),
    (
        "tests/commands/test_greeting.py",
        "tests/commands/test_plugins.py",
        "tests/interop/",  # where programs are given ports that nobody else has taken just then
        "tests/pipeline/test_faults.py",
        "tests/pipeline/test_offline.py",
        "tests/plugins/test_afterwards_e2e.py",
        "tests/plugins/test_calls_e2e.py",
        "tests/plugins/test_services_e2e.py",
        "tests/plugins/test_steps.py",
        "tests/plugins/test_summary_cost_e2e.py",
        "tests/simulate/test_peers.py",
        "tests/test_bench.py",
        "tests/test_bench_sip.py",
        "tests/test_cli.py",
    ),
)
"""The modules with daemons, peers and benches in real time, by how their names begin. The first
that fits is meant. Each lane takes about as long as the others."""

GIVES_WAY: Final = 5
"""See nice(1): a third of a lane's share where both want a processor. With the lowest priority some
tests would stand still for seconds on a busy machine, and be told that they held up calls."""


def lane_of(nodeid: str) -> int | None:
    """Where in `LANES` a test is, if anywhere."""
    return next((at for at, lane in enumerate(LANES) if nodeid.startswith(lane)), None)


class ByLane(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives out whole lanes, then whole modules."""

    def _split_scope(self, nodeid: str) -> str:
        lane = lane_of(nodeid)
        return nodeid.partition("::")[0] if lane is None else f"lane {lane}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByLane:
    """In the process that gives out the tests."""
    return ByLane(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lanes first: they take longest, and a process that has given way cannot take that back."""

    def place(item: pytest.Item) -> int:
        lane = lane_of(item.nodeid)
        return len(LANES) if lane is None else lane

    items.sort(key=place)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give way."""
    if lane_of(item.nodeid) is None:
        os.setpriority(os.PRIO_PROCESS, 0, max(GIVES_WAY, os.getpriority(os.PRIO_PROCESS, 0)))
