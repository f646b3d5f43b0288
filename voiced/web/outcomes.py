"""What became of an outgoing call, told from its journal row.

Journal reasons say why a call ended; the commands and those who script against the API need to know
whether it was answered, and by their exit code why not. This table is where the two meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

__all__ = ["ANSWERED_STATES", "FAULTS", "UNANSWERED", "Outcome", "outcome"]

Outcome = Literal[
    "answered", "broken", "busy", "declined", "no_answer", "unreachable", "timeout", "failed"
]
"""`answered`: it was answered and ended in good order; `broken`: it was answered and then something
failed; the others: never answered, and why."""

UNANSWERED: Final[Mapping[str, Outcome]] = {
    "busy": "busy",  # SIP 486, 600
    "declined": "declined",  # SIP 603, 403, 607, 608
    "no_answer": "no_answer",  # SIP 408, 480, or CANCEL once `timeout_s` has passed ringing
    "unreachable": "unreachable",  # SIP 404, 410, 484, 604, no route, no address, transport
    "timeout": "timeout",  # no response whatever: RFC 3261 timer B
    # Twilio's CallStatus, as the switchboard writes it down.
    "carrier_busy": "busy",
    "carrier_no_answer": "no_answer",
    "carrier_failed": "unreachable",  # Twilio: "as dialled, likely a non-existent number"
    "carrier_canceled": "no_answer",
}
"""Journal reason of an outgoing call that was not answered, to its outcome; any other: `failed`."""

FAULTS: Final = frozenset(
    {
        "carrier_lost",
        "daemon_crash",
        "internal_error",
        "model_silent",
        "model_unreachable",
        "no_media",
        "no_stream_token",
        "stream_refused",
    }
)
"""Journal reasons that are no good end of a call that was answered."""

ANSWERED_STATES: Final = frozenset(
    {
        "answering",
        "media_ready",
        "greeting",
        "listening",
        "caller_speaking",
        "committing",
        "thinking",
        "speaking",
        "on_hold",
        "transferring",
    }
)
"""States that only an answered call has (voiced/states.py): early media leaves it `dialling`."""


def outcome(row: Mapping[str, Any]) -> Outcome | None:
    """Tell what became of the call of a journal row; None while it lives.

    `row` as `Operations.journal` gives it: `states` is a list of [state, ms].
    """
    if row.get("ended_at") is None:
        return None
    reason = str(row.get("reason"))
    if any(state in ANSWERED_STATES for state, _ in row.get("states") or ()):
        return "broken" if reason in FAULTS else "answered"
    return UNANSWERED.get(reason, "failed")
