"""Text for people: tables, times, and what strangers wrote made harmless for a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

__all__ = ["clock", "duration", "pairs", "printable", "table"]


def printable(value: object) -> str:
    """Write a value on one line, without what a terminal would obey: callers choose their names."""
    text = "-" if value is None or value == "" else str(value)
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay rows out in columns, two spaces between them."""
    cells = [list(head), *([printable(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def pairs(items: Iterable[tuple[str, object]], indent: str = "") -> str:
    """Lay names and values out in two columns."""
    rows = [(name, printable(value)) for name, value in items]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{indent}{name.ljust(width)}  {value}" for name, value in rows)


def duration(seconds: float | None) -> str:
    """Write 75 as `1:15`, 3675 as `1:01:15`."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def clock(at: float | None) -> str:
    """Write Unix seconds as local time."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
