"""The table of a load bench: a row per run, and ratios where another bridge ran in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from tests.bench.analysis import Figures, Spread
from tests.bench.processes import Cores

__all__ = ["Row", "cells", "heading", "line", "percent", "place", "ratios", "spread"]


class Row(Struct, kw_only=True):
    """One run."""

    system: str
    calls: int
    seconds: float
    figures: Figures
    start_ms: float  # spawned -> listening
    idle_rss_kib: int
    rss_per_call_kib: float
    pss_per_call_kib: float
    cpu_ms_per_call_s: float
    core_pct: float
    user_pct: float
    others_pct: float  # of the measured core, taken by anything else
    frames: int
    late_pct: float  # frames that the generator itself sent more than 5 ms late
    latest_ms: float
    generator_cpu_s: float  # callers and model, the whole run
    broken_marks: int
    unknown_events: list[str]
    faults: list[str]  # why these figures say little


def spread(values: Spread | None, *, most: bool = True) -> str:
    if values is None:
        return "-"
    shown = (values.p50, values.p99, values.max)[: 3 if most else 2]
    return " ".join(f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in shown)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


_COLUMNS: Final[tuple[tuple[str, str, int, Callable[[Row], str]], ...]] = (
    ("", "system", -7, lambda r: r.system),
    ("", "calls", 5, lambda r: str(r.calls)),
    ("CPU", "ms/call-s", 9, lambda r: f"{r.cpu_ms_per_call_s:.2f}"),
    ("", "core%", 5, lambda r: f"{r.core_pct:.0f}"),
    ("", "user%", 5, lambda r: f"{r.user_pct:.0f}"),
    ("carrier>model ms", "p50 p99 max", 17, lambda r: spread(r.figures.to_model_ms)),
    ("", "lost%", 5, lambda r: percent(r.figures.to_model_missing_pct)),
    ("", ">20ms%", 6, lambda r: percent(r.figures.to_model_late_pct)),
    ("model>carrier ms", "p50 p99 max", 17, lambda r: spread(r.figures.to_caller_ms)),
    ("", "lost%", 5, lambda r: percent(r.figures.to_caller_missing_pct)),
    ("barge-in ms", "p50 p99", 11, lambda r: spread(r.figures.barge_in_ms, most=False)),
    ("", "cleared", 9, lambda r: f"{r.figures.cleared}/{r.figures.barge_ins}"),
    ("stale", "ms", 5, lambda r: f"{r.figures.stale_ms:.0f}"),
    ("", "gaps", 4, lambda r: str(r.figures.gaps)),
    ("heard off ms", "p50 p99", 12, lambda r: spread(r.figures.heard_error_ms, most=False)),
    ("appends", "/call-s", 7, lambda r: f"{r.figures.appends_per_call_s or 0:.1f}"),
    ("KiB/call", "RSS PSS", 8, lambda r: f"{r.rss_per_call_kib:.0f} {r.pss_per_call_kib:.0f}"),
    ("idle", "MiB", 5, lambda r: f"{r.idle_rss_kib / 1024:.1f}"),
    ("start", "ms", 5, lambda r: f"{r.start_ms:.0f}"),
    ("others", "core%", 6, lambda r: f"{r.others_pct:.0f}"),
    ("bench", "late%", 5, lambda r: percent(r.late_pct)),
)
_WIDTHS: Final = [column[2] for column in _COLUMNS]


def cells(texts: Sequence[str], widths: Sequence[int]) -> str:
    """A line of a table; a negative width stands to the left."""
    return "  ".join(
        text.ljust(-width) if width < 0 else text.rjust(width)
        for text, width in zip(texts, widths, strict=True)
    ).rstrip()


def place(cores: Cores) -> str:
    """Where the measured process runs."""
    if cores.shared:
        return "ONE CORE FOR ALL: CPU of the generator delays what is measured"
    return f"measured on core {_names(cores.system)}, load on {_names(cores.load)}"


def heading(cores: Cores, *, tls: bool, pcm: bool) -> str:
    """What the rows are about, and the columns' names."""
    what = f"model leg {'wss' if tls else 'ws'}, {'PCM 24 kHz' if pcm else 'mu-law'}"
    upper = cells([column[0] for column in _COLUMNS], _WIDTHS)
    lower = cells([column[1] for column in _COLUMNS], _WIDTHS)
    return f"{what}; {place(cores)}\n{upper}\n{lower}"


def _names(cores: frozenset[int]) -> str:
    return ",".join(map(str, sorted(cores)))


def line(row: Row) -> str:
    """One row, its faults below it."""
    text = cells([column[3](row) for column in _COLUMNS], _WIDTHS)
    return "\n".join([text, *(f"    ! {fault}" for fault in row.faults)])


def ratios(rows: Sequence[Row]) -> list[str]:
    """voiced against the other bridge, by number of calls: medians of the rounds."""
    lines = []
    for calls in sorted({row.calls for row in rows}):
        cpu: dict[str, float] = {}
        for system in {row.system for row in rows}:
            same = [r.cpu_ms_per_call_s for r in rows if (r.system, r.calls) == (system, calls)]
            if same:
                cpu[system] = statistics.median(same)
        ours = cpu.pop("voiced", None)
        for system, theirs in cpu.items():
            if ours is not None and theirs > 0:
                lines.append(
                    f"{calls} calls: CPU per call-second, voiced / {system}: "
                    f"{ours:.2f} / {theirs:.2f} ms = {ours / theirs:.2f}"
                )
    return lines
