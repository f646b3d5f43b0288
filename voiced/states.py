"""A call's states and their legal successors.

Rule: everything that says which state may follow which lives in this file.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["SUCCESSORS", "CallState", "IllegalTransition"]


class CallState(Enum):
    """Where a call is; the names are fixed, operators script against them."""

    DIALLING = "dialling"  # ours, unanswered
    RINGING = "ringing"  # the webhook or INVITE has come
    ANSWERING = "answering"  # we have said yes; media is not there yet
    MEDIA_READY = "media_ready"  # audio flows both ways; nothing said yet
    GREETING = "greeting"
    LISTENING = "listening"
    CALLER_SPEAKING = "caller_speaking"
    COMMITTING = "committing"  # the turn is over; its audio becomes an item
    THINKING = "thinking"  # the model owes an answer
    SPEAKING = "speaking"
    ON_HOLD = "on_hold"
    TRANSFERRING = "transferring"
    ENDING = "ending"  # a farewell or fallback prompt is being heard out
    ENDED = "ended"


class IllegalTransition(Exception):
    """A change that `SUCCESSORS` lacks: a bug of ours."""


_S = CallState

# While a call is live almost anything can be followed by speech, hold, transfer or the end; what
# the table forbids is going back to set-up, leaving `ended`, and talking once `ending` has begun.
_INTERRUPTIONS: Final = frozenset({_S.ON_HOLD, _S.TRANSFERRING, _S.ENDING, _S.ENDED})

SUCCESSORS: Final[dict[CallState, frozenset[CallState]]] = {
    _S.DIALLING: frozenset({_S.ANSWERING, _S.MEDIA_READY, _S.ENDING, _S.ENDED}),
    _S.RINGING: frozenset({_S.ANSWERING, _S.ENDING, _S.ENDED}),
    _S.ANSWERING: frozenset({_S.MEDIA_READY, _S.ENDING, _S.ENDED}),
    _S.MEDIA_READY: frozenset({_S.GREETING, _S.LISTENING, _S.CALLER_SPEAKING}) | _INTERRUPTIONS,
    _S.GREETING: frozenset({_S.LISTENING, _S.CALLER_SPEAKING}) | _INTERRUPTIONS,
    _S.LISTENING: frozenset({_S.CALLER_SPEAKING, _S.THINKING, _S.SPEAKING}) | _INTERRUPTIONS,
    _S.CALLER_SPEAKING: frozenset({_S.COMMITTING, _S.THINKING, _S.SPEAKING, _S.LISTENING})
    | _INTERRUPTIONS,
    _S.COMMITTING: frozenset({_S.THINKING, _S.SPEAKING, _S.CALLER_SPEAKING, _S.LISTENING})
    | _INTERRUPTIONS,
    _S.THINKING: frozenset({_S.SPEAKING, _S.LISTENING, _S.CALLER_SPEAKING}) | _INTERRUPTIONS,
    _S.SPEAKING: frozenset({_S.LISTENING, _S.CALLER_SPEAKING, _S.THINKING}) | _INTERRUPTIONS,
    _S.ON_HOLD: frozenset({_S.LISTENING, _S.TRANSFERRING, _S.ENDING, _S.ENDED}),
    _S.TRANSFERRING: frozenset({_S.LISTENING, _S.ENDING, _S.ENDED}),
    _S.ENDING: frozenset({_S.ENDED}),
    _S.ENDED: frozenset(),
}
