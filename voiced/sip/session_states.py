"""The states of a session, as a table (RFC 3261 12 to 15)."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["SUCCESSORS", "SessionState"]

SessionState = Literal[
    "calling",  # UAC: INVITE sent, nothing but 100 heard
    "early",  # UAC: 101 to 199 came
    "cancelling",  # UAC: given up before an answer
    "incoming",  # UAS: INVITE came, not answered finally
    "accepted",  # UAS: 2xx sent, no ACK yet
    "confirmed",  # the call stands
    "ending",  # BYE sent, or waiting until it may be sent
    "ended",
]

SUCCESSORS: Final[dict[SessionState, frozenset[SessionState]]] = {
    "calling": frozenset({"early", "cancelling", "confirmed", "ended"}),
    "early": frozenset({"calling", "cancelling", "confirmed", "ended"}),
    "cancelling": frozenset({"ended"}),
    "incoming": frozenset({"accepted", "ended"}),
    "accepted": frozenset({"confirmed", "ending", "ended"}),
    "confirmed": frozenset({"ending", "ended"}),
    "ending": frozenset({"ended"}),
    "ended": frozenset(),
}
"""Which state may follow which; `early` to `calling` when a redirection is followed."""
