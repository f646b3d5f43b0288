"""What the admin listener asks of the daemon: live calls, the journal, and what operators do.

The structs are the JSON of the API, field by field. Times are Unix seconds, durations seconds,
unless a name says otherwise (`_ms`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, Protocol

from msgspec import Meta, Struct

__all__ = [
    "LAST",
    "PATTERNS",
    "TWILIO",
    "BanView",
    "Body",
    "CallView",
    "DialRequest",
    "DigitsRequest",
    "EngineView",
    "HangupRequest",
    "OperationRefused",
    "Operations",
    "Readiness",
    "Said",
    "SayRequest",
    "TransferRequest",
    "TransferResult",
    "TrunkView",
    "ambiguous",
    "bad_target",
    "by_prefix",
    "no_such_call",
]

LAST: Final = "last"
"""In place of a call id: the newest."""

TWILIO: Final = "twilio"
"""In place of a trunk: the REST API."""

# \Z, since `$` also matches before a newline at the end.
_LINE: Final = r"^[^\x00-\x1f\x7f]+\Z"
_DIGITS: Final = r"^[0-9A-D*#,]{1,64}\Z"
_REASON: Final = r"^[a-z][a-z0-9_]{0,39}\Z"
_WORDS: Final = r"\S"

PATTERNS: Final = {
    _LINE: "one line of text without control characters",
    _DIGITS: "1 to 64 of 0-9 * # A-D and the comma",
    _REASON: "a lower-case word",
    _WORDS: "some text",
}
"""The patterns of the fields below in words, for those whose request does not match."""

# One line: these values end in SIP header fields, TwiML and logs.
Line = Annotated[str, Meta(min_length=1, max_length=256, pattern=_LINE)]
Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=_LINE)]


# ---- what is asked (bodies of POST) ----


class Body(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON body of a request."""


class DialRequest(Body, frozen=True):
    """Call somebody and have an agent talk with them."""

    to: Line
    """`"+49301234567"` or `"sip:user@host"`."""
    agent: Name | None = None
    """An `[agent.NAME]`; None: what the configuration says of outgoing calls."""
    trunk: Name | None = None
    """A `[[sip.trunk]]` by its name, or `"twilio"`; None: what suits the target."""
    caller: Line | None = None
    """The number to show; None: the trunk's own."""
    headers: Annotated[dict[str, str], Meta(max_length=32)] = {}
    """Further SIP header fields, `X-…`, `User-to-User` or `Diversion` (the listener sees to it)."""
    timeout_s: Annotated[float, Meta(ge=1, le=600)] = 60.0
    """How long it may ring."""
    machine_detection: bool = False
    """Ask the carrier whether a machine has answered (Twilio alone can tell)."""


class HangupRequest(Body, frozen=True):
    """End a call."""

    reason: Annotated[str, Meta(pattern=_REASON)] = "operator"
    """For the journal."""


class SayRequest(Body, frozen=True):
    """Have the agent say something."""

    text: Annotated[str, Meta(min_length=1, max_length=4000, pattern=_WORDS)]
    exactly: bool = True
    """These very words; otherwise they are an instruction to the model."""


class TransferRequest(Body, frozen=True):
    """Hand the caller to somebody else."""

    to: Line
    """`"+49301234567"` or `"sip:user@host"`."""


class DigitsRequest(Body, frozen=True):
    """Press keys."""

    digits: Annotated[str, Meta(pattern=_DIGITS)]
    """`0-9 * # A-D`; a comma is a pause of half a second."""


# ---- what is told ----


class Said(Struct, frozen=True):
    """An item of the conversation, as heard."""

    role: Literal["caller", "agent"]
    text: str
    cut: bool = False


class CallView(Struct, frozen=True, kw_only=True):
    """A live call as it is now."""

    id: str
    carrier: str  # "twilio" or "sip"
    carrier_call_id: str  # CallSid or Call-ID
    trunk: str | None  # the [[sip.trunk]]; None with Twilio
    direction: Literal["inbound", "outbound"]
    caller: str
    called: str
    agent: str
    engine: str
    model: str
    state: str  # of voiced/states.py
    model_state: str  # of voiced/engine.py
    since: float  # when `state` was entered
    started_at: float  # the first sign of the call
    duration_s: float  # from then on
    statistics: Mapping[str, int | float | str | bool | None] = {}  # of leg and media, flat
    parameters: Mapping[str, str] = {}  # what the carrier told of the call, X- headers too
    cost_usd: float | None = None  # so far; None where the price table lacks a model
    facts: Mapping[str, str | int | float | bool | None] = {}  # what plugins noted
    transcript: tuple[Said, ...] = ()
    """The conversation so far. The listener leaves it out of lists."""


class TransferResult(Struct, frozen=True, kw_only=True):
    """What became of a transfer; the call has ended for us where `done`."""

    done: bool
    status: int | None = None
    """The last SIP status that the NOTIFYs told of, or the HTTP status of Twilio's answer."""
    text: str = ""


class TrunkView(Struct, frozen=True, kw_only=True):
    """A SIP trunk, or Twilio."""

    name: str
    kind: Literal["sip", "twilio"] = "sip"
    registration: str | None = None
    """`registering`, `registered`, `retrying` …; None: it does not register."""
    until: float | None = None
    """When the registration ends unless it is refreshed."""
    reachable: bool | None = None
    """By its answers to OPTIONS; None: nobody asks."""
    calls: int = 0
    max_calls: int | None = None
    last_error: str | None = None


class EngineView(Struct, frozen=True, kw_only=True):
    """How an engine does. A call that finds it out of order or full goes to its fallback."""

    name: str
    state: Literal["closed", "open", "half_open"]
    """Of its circuit breaker: closed is not known to fail, open is left alone, half open is tried \
again."""
    answered: bool = False
    """A session was made with it since the start, or since its settings have changed."""
    failures: int = 0  # in a row
    last_error: str | None = None
    retry_in_s: float | None = None
    sessions: int = 0
    max_sessions: int | None = None
    requests: int | None = None  # answers asked for in the last minute; None: not counted
    requests_per_minute: int | None = None


class BanView(Struct, frozen=True, kw_only=True):
    """A source whose SIP requests are dropped."""

    source: str
    until: float
    why: str = ""


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether new calls should be sent here."""

    ready: bool
    reasons: tuple[str, ...] = ()
    """Why not: `draining`, `full`, `no engine`."""
    degraded: tuple[str, ...] = ()
    """What does not work although others do, as `trunk berlin is not registered`."""
    calls: int = 0
    max_calls: int = 0


class OperationRefused(Exception):
    """It cannot be done. `message` and `remedy` are for the operator, one sentence each.

    `code` is a fixed word that scripts test; `status` the HTTP status that says it best: 404 no
    such call, 409 not in this state, 422 an unknown agent, trunk or impossible target, 502 the
    carrier refused, 503 full or draining.
    """

    def __init__(self, code: str, status: int, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.code = code
        self.status = status
        self.message = message
        self.remedy = remedy


class Operations(Protocol):
    """The daemon as its operator sees it. What is not `async` answers at once.

    Operations on a call take its whole id (the listener has resolved prefixes by `find`) and raise
    OperationRefused, `no_such_call` where it has ended meanwhile.
    """

    def live(self) -> list[CallView]:
        """The calls that hold a slot, in any order."""

    def find(self, text: str) -> CallView | None:
        """The live call with that id, or the only one whose id begins so (see `by_prefix`).

        Raises OperationRefused (`ambiguous`) where several do.
        """

    async def journal(self, limit: int) -> list[dict[str, Any]]:
        """The newest journal rows, newest first, structures decoded; live calls are among them."""

    async def journalled(self, text: str) -> dict[str, Any] | None:
        """The journal row of a call by its id or the unique beginning of it.

        Raises OperationRefused (`ambiguous`).
        """

    async def dial(self, request: DialRequest) -> str:
        """Begin a call; returns its id at once, without waiting for an answer.

        Raises OperationRefused: `unknown_agent`, `unknown_trunk`, `no_trunk`, `bad_target`, `full`,
        `draining`, `carrier_refused`.
        """

    def hangup(self, call_id: str, reason: str) -> None:
        """End a call now; a farewell is not said."""

    def say(self, call_id: str, text: str, exactly: bool) -> None:
        """Have the agent say `text`, or act on it. Raises OperationRefused (`no_media`, …)."""

    async def transfer(self, call_id: str, to: str) -> TransferResult:
        """Transfer and wait for what becomes of it, within a bound of its own (about a minute).

        Cancelled when the operator goes away; what the carrier was asked is not taken back then.
        Raises OperationRefused where it cannot even be tried (`bad_target`, `no_media`).
        """

    def digits(self, call_id: str, digits: str) -> None:
        """Press keys. Raises OperationRefused (`unsupported`) where the carrier cannot."""

    def trunks(self) -> list[TrunkView]:
        """All trunks, in the order of the configuration."""

    def engines(self) -> list[EngineView]:
        """All engines, in the order of the configuration."""

    def bans(self) -> list[BanView]:
        """The sources that are banned now."""

    def ready(self) -> Readiness:
        """Whether new calls should come; asked often, so it must be cheap."""


# ---- for those who implement it ----


def no_such_call(text: str) -> OperationRefused:
    """`text` names no live call."""
    return OperationRefused(
        "no_such_call", 404, f"there is no live call {text}", "see voiced calls for those there are"
    )


def ambiguous(text: str) -> OperationRefused:
    """`text` begins the ids of several calls."""
    return OperationRefused(
        "ambiguous", 409, f"several calls begin with {text}", "write more of the id"
    )


def bad_target(error: ValueError) -> OperationRefused:
    """Nobody can be called under that name."""
    return OperationRefused("bad_target", 422, str(error), 'write "+4930…" or "sip:user@host"')


def by_prefix(calls: Iterable[CallView], text: str) -> CallView | None:
    """Choose the call whose id is `text`, or the only one that begins so; `last` is the newest.

    Raises OperationRefused (`ambiguous`).
    """
    if text == LAST:
        return max(calls, key=lambda call: call.started_at, default=None)
    found = [call for call in calls if text and call.id.startswith(text)]
    for call in found:
        if call.id == text:
            return call
    if len(found) > 1:
        raise ambiguous(text)
    return found[0] if found else None
