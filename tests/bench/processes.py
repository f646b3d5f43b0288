"""What a process tree costs, read from /proc (Linux only), and which cores it may use."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Cores", "Cost", "cost", "machine_busy_s", "pin", "share_out"]

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")


class Cost(NamedTuple):
    """CPU seconds since the start, memory in KiB, of a process and its descendants."""

    at_s: float
    user_s: float
    system_s: float
    rss_kib: int
    pss_kib: int


class Cores(NamedTuple):
    """Which cores the measured process and the load may use."""

    system: frozenset[int]
    load: frozenset[int]

    @property
    def shared(self) -> bool:
        """There is one core for everything: figures hold the generator's work too."""
        return bool(self.system & self.load)


def share_out(available: set[int]) -> Cores:
    """The last core for what is measured, all others for the load."""
    *others, last = sorted(available)
    return Cores(frozenset({last}), frozenset(others or [last]))


def pin(pid: int, cores: frozenset[int]) -> None:
    """Bind a process that has just begun, and what it will start."""
    with suppress(ProcessLookupError):  # it has ended already: whoever waits for it says so
        os.sched_setaffinity(pid, cores)


def cost(pid: int) -> Cost:
    """What the tree of `pid` has used until now; nought for what has gone meanwhile."""
    user = system = 0
    rss = pss = 0
    for each in _tree(pid):
        folder = _PROC / str(each)
        try:
            fields = _stat(folder)
            user, system = user + int(fields[11]), system + int(fields[12])
            rss += _kib(folder / "status", "VmRSS:")
            pss += _kib(folder / "smaps_rollup", "Pss:")
        except OSError:
            continue
    return Cost(time.monotonic(), user * _TICK, system * _TICK, rss, pss)


def machine_busy_s(cores: frozenset[int]) -> float:
    """CPU seconds that these cores have spent on anything, ever."""
    busy = 0
    for line in (_PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name[3:].isdigit() and name.startswith("cpu") and int(name[3:]) in cores:
            user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, fields)
            busy += user + nice + system + irq + softirq
    return busy * _TICK


def _tree(root: int) -> Sequence[int]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                children[int(_stat(folder)[1])].append(int(folder.name))
            except OSError:
                continue
    found = [root]
    for each in found:  # grows as it goes
        found += children[each]
    return found


def _stat(folder: Path) -> list[str]:
    """The fields behind the name, which may hold anything: state is 0, parent 1."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def _kib(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0
