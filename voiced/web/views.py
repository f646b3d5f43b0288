"""Calls as the admin API shows them: live ones and those of the journal in one shape.

Common to both: `id`, `live`, `state`, `direction`, `caller`, `called`, `agent`, `engine`, `model`,
`carrier`, `started_at`, `duration_s`. A call of the journal has `reason` and, where we dialled,
`outcome` (see `outcomes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from voiced.web.operations import CallView
from voiced.web.outcomes import outcome

__all__ = ["journal_view", "live_view"]

# What makes a row long; a list shows who called whom and what became of it.
_DETAILS: Final = frozenset({"transcript", "states", "latencies", "parameters", "statistics"})


def live_view(call: CallView, *, details: bool) -> dict[str, Any]:
    """Show a live call, with `details` everything of it."""
    shown: dict[str, Any] = {"id": call.id, "live": True, **msgspec.structs.asdict(call)}
    if not details:
        del shown["transcript"], shown["parameters"]
    return shown


def journal_view(row: Mapping[str, Any], *, details: bool) -> dict[str, Any]:
    """Show a journal row of a call that is not live any more.

    `outcome` is None while the row waits to be completed, and for calls that we did not dial.
    """
    duration_ms = row.get("duration_ms")
    hidden = {"call_id"} if details else {"call_id", *_DETAILS}
    return {
        "id": row["call_id"],
        "live": False,
        "state": "ended",
        "duration_s": None if duration_ms is None else duration_ms / 1000,
        "outcome": outcome(row) if row["direction"] == "outbound" else None,
        **{name: value for name, value in row.items() if name not in hidden},
    }
