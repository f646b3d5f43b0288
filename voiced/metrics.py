"""What voiced counts, as Prometheus metrics, all in one place.

Nothing here is touched once a frame: what happens 50 times a second is counted by its owner and
added up when the call ends.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "ADMIN",
    "ANSWER_SECONDS",
    "BARGE_IN_SECONDS",
    "CALLS_ENDED",
    "CALLS_LIVE",
    "CALL_SECONDS",
    "COST_USD",
    "ENGINE_FAULTS",
    "GREETING_SECONDS",
    "ILLEGAL_STATE_CHANGES",
    "MEDIA_MALFORMED",
    "MODEL_LOST",
    "MODEL_STATE_CHANGES",
    "REFUSED",
    "REGISTRATIONS",
    "SIP_EVENTS",
    "STATE_CHANGES",
    "code",
]

_MAX_CODES = 64
_codes: set[str] = set()


def code(word: str) -> str:
    """A label value from a word that a server chose: the first 64 as they are, then `other`.

    Every label value is a time series for ever; how many there are is not for a peer to decide.
    """
    if word not in _codes:
        if len(_codes) >= _MAX_CODES:
            return "other"
        _codes.add(word)
    return word


CALLS_LIVE = Gauge("voiced_calls_live", "Calls that hold a slot now")
CALLS_ENDED = Counter("voiced_calls_ended_total", "Calls that have ended", ["reason"])
COST_USD = Counter("voiced_cost_usd_total", "What calls that have ended cost", ["model"])
CALL_SECONDS = Histogram(
    "voiced_call_seconds",
    "Duration of calls, from the first sign to the end",
    buckets=(1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600),
)
STATE_CHANGES = Counter("voiced_call_state_changes_total", "Call states entered", ["state"])
ILLEGAL_STATE_CHANGES = Counter(
    "voiced_illegal_state_changes_total", "State changes refused by the table: bugs of voiced"
)
MODEL_STATE_CHANGES = Counter(
    "voiced_model_state_changes_total", "Model connection states entered", ["state"]
)
REFUSED = Counter("voiced_refused_total", "Requests, streams and calls refused", ["what", "why"])
MEDIA_MALFORMED = Counter(
    "voiced_media_malformed_total", "Carrier messages passed over as malformed", ["why"]
)
ADMIN = Counter("voiced_admin_requests_total", "Requests of operators", ["what", "result"])
SIP_EVENTS = Counter(
    "voiced_sip_events_total", "What SIP's network side did or saw", ["what", "why"]
)
REGISTRATIONS = Counter(
    "voiced_sip_registrations_total", "Registration states entered", ["trunk", "state"]
)
ENGINE_FAULTS = Counter("voiced_engine_faults_total", "Errors a model server sent", ["code"])
CONFIRMATIONS = Counter(
    "voiced_confirmations_total", "What speech during an answer proved to be", ["verdict"]
)
TOOL_CALLS = Counter("voiced_tool_calls_total", "Tools that models have called", ["outcome"])
PLUGIN_FAULTS = Counter(
    "voiced_plugin_faults_total", "What plugins did that was passed over", ["plugin", "what"]
)
ENGINE_EVENTS = Counter(
    "voiced_engine_events_total",
    "Model sessions lost, renewed, refused, and engines' breakers",
    ["what", "which"],
)
MODEL_LOST = Counter("voiced_model_lost_total", "Model sessions that ended by themselves", ["code"])
GREETING_SECONDS = Histogram(
    "voiced_greeting_seconds",
    "From media ready to the first audio sent to the caller",
    buckets=(0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10),
)
ANSWER_SECONDS = Histogram(
    "voiced_answer_seconds",
    "From the end of the caller's speech to the first audio of the answer, turn detection included",
    buckets=(0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10),
)
BARGE_IN_SECONDS = Histogram(
    "voiced_barge_in_seconds",
    "From speech_started received to the carrier's buffer cleared",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.003, 0.01, 0.03, 0.1),
)
