"""What plugins are told of a call that has ended."""

from __future__ import annotations

from voiced.journal import Row
from voiced.plugin import Line, Summary

__all__ = ["summary"]


def summary(row: Row) -> Summary:
    """The finished `row`, as plugins see it."""
    return Summary(
        call_id=row.call_id,
        reason=row.reason or "",
        started_at=row.started_at,
        ended_at=row.ended_at or row.started_at,
        duration_ms=row.duration_ms or 0,
        media_ms=row.media_ms or 0,
        states=tuple(row.states),
        latencies=row.latencies,
        usage=row.usage,
        cost_usd=row.cost_usd,
        transcript=tuple(
            Line("agent" if entry.role == "agent" else "caller", entry.text, entry.cut)
            for entry in row.transcript
        ),
        facts=row.facts,  # not a copy: it has what plugins note after a call as well
    )
