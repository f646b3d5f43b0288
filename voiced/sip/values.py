"""Header field values that are more than text: Via, CSeq, RAck, Session-Expires and the like.

Each `parse_*` takes one value, unfolded, and raises `ParseError` where it is malformed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from voiced.sip.errors import ParseError
from voiced.sip.grammar import (
    HOST,
    TOKEN,
    WHITE,
    check_host,
    check_port,
    format_host,
    format_parameters,
    parse_number,
    parse_parameters,
)

__all__ = [
    "LARGEST_CSEQ",
    "LARGEST_SECONDS",
    "CSeq",
    "RAck",
    "Replaces",
    "SessionExpires",
    "SubscriptionState",
    "Via",
    "parse_cseq",
    "parse_rack",
    "parse_replaces",
    "parse_seconds",
    "parse_session_expires",
    "parse_subscription_state",
    "parse_via",
    "split_value",
]

LARGEST_CSEQ: Final = 2**31 - 1
"""RFC 3261 section 8.1.1.5."""

LARGEST_SECONDS: Final = 2**32 - 1
"""delta-seconds above this count as this (RFC 4475 section 3.1.2.5)."""

_VIA = re.compile(
    rf"[ \t]*+({TOKEN})[ \t]*/[ \t]*({TOKEN})[ \t]*/[ \t]*({TOKEN})[ \t]+"
    rf"({HOST})(?:[ \t]*:[ \t]*([0-9]+))?"
)
_CSEQ = re.compile(rf"([0-9]+)[ \t]+({TOKEN})")
_RACK = re.compile(rf"([0-9]+)[ \t]+([0-9]+)[ \t]+({TOKEN})")
_SECONDS = re.compile(r"[ \t]*([0-9]+)[ \t]*")


@dataclass(frozen=True, slots=True)
class Via:
    """One Via value; `transport` in upper case, `host` in lower case and without brackets.

    `protocol` is SIP/2.0 but for peers that get a 505.
    """

    transport: str
    host: str
    port: int | None = None
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    protocol: str = "SIP/2.0"

    @property
    def branch(self) -> str | None:
        """The transaction's id; None from peers of RFC 2543."""
        return self.parameters.get("branch")

    @property
    def rport(self) -> int | str | None:
        """None: absent. Empty: the peer asks for its source port (RFC 3581). Else that port."""
        if "rport" not in self.parameters:
            return None
        value = self.parameters["rport"]
        return "" if value is None else int(value)

    @property
    def received(self) -> str | None:
        """The address the message came from, without the brackets that RFC 5118 tolerates."""
        value = self.parameters.get("received")
        return None if value is None else value.strip("[]")

    def replace(self, **changes: Any) -> Via:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def __hash__(self) -> int:
        return hash((self.transport, self.host, self.port))

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return (
            f"{self.protocol}/{self.transport} {format_host(self.host)}{port}"
            f"{format_parameters(self.parameters)}"
        )


@dataclass(frozen=True, slots=True)
class CSeq:
    """A request's number in its dialog, and its method."""

    number: int
    method: str

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


@dataclass(frozen=True, slots=True)
class RAck:
    """What a PRACK acknowledges: the response's RSeq, and its request's CSeq (RFC 3262)."""

    rseq: int
    cseq: int
    method: str

    def __str__(self) -> str:
        return f"{self.rseq} {self.cseq} {self.method}"


@dataclass(frozen=True, slots=True)
class SessionExpires:
    """A session's interval in seconds and who refreshes it (RFC 4028)."""

    seconds: int
    refresher: Literal["uac", "uas"] | None = None

    def __str__(self) -> str:
        refresher = "" if self.refresher is None else f";refresher={self.refresher}"
        return f"{self.seconds}{refresher}"


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """`state` in lower case: active, pending, terminated, or an extension's (RFC 6665)."""

    state: str
    reason: str | None = None
    expires: int | None = None
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Replaces:
    """The dialog that an INVITE takes the place of (RFC 3891)."""

    call_id: str
    to_tag: str
    from_tag: str
    early_only: bool = False


def parse_via(text: str) -> Via:
    """One Via value."""
    match = _VIA.match(text)
    if match is None:
        raise ParseError("malformed Via")
    name, version, transport, host, port = match.groups()
    parameters = parse_parameters(text, match.end())
    check_port(parameters.get("rport"))
    protocol = f"{name}/{version}".upper()
    return Via(transport.upper(), check_host(host), check_port(port), parameters, protocol)


def parse_cseq(text: str) -> CSeq:
    """`4711 INVITE`; numbers from 0 to 2**31 - 1."""
    match = _CSEQ.fullmatch(text.strip(WHITE))
    if match is None:
        raise ParseError("malformed CSeq")
    return CSeq(parse_number(match[1], LARGEST_CSEQ, "CSeq out of range"), match[2])


def parse_rack(text: str) -> RAck:
    """`1 4711 INVITE`."""
    match = _RACK.fullmatch(text.strip(WHITE))
    if match is None:
        raise ParseError("malformed RAck")
    return RAck(
        parse_number(match[1], LARGEST_SECONDS, "malformed RAck"),
        parse_number(match[2], LARGEST_CSEQ, "malformed RAck"),
        match[3],
    )


def split_value(text: str) -> tuple[str, dict[str, str | None]]:
    """`value;name=…` as the value before the first semicolon and the parameters."""
    value, _, _ = text.partition(";")
    return value.strip(WHITE), parse_parameters(text, len(value))


def parse_seconds(text: str, reason: str) -> int:
    """delta-seconds; more than 2**32 - 1 counts as that."""
    match = _SECONDS.fullmatch(text)
    if match is None:
        raise ParseError(reason)
    digits = match[1].lstrip("0")
    return LARGEST_SECONDS if len(digits) > 10 else min(int(digits or "0"), LARGEST_SECONDS)


def parse_session_expires(text: str) -> SessionExpires:
    """`1800;refresher=uac`; a refresher that is neither counts as none."""
    value, parameters = split_value(text)
    seconds = parse_seconds(value, "malformed Session-Expires")
    match (parameters.get("refresher") or "").lower():
        case "uac":
            return SessionExpires(seconds, "uac")
        case "uas":
            return SessionExpires(seconds, "uas")
        case _:
            return SessionExpires(seconds)


def parse_subscription_state(text: str) -> SubscriptionState:
    """`terminated;reason=noresource`."""
    state, parameters = split_value(text)
    if not state:
        raise ParseError("malformed Subscription-State")
    reason = parameters.get("reason")
    expires = parameters.get("expires")
    retry_after = parameters.get("retry-after")
    return SubscriptionState(
        state.lower(),
        reason.lower() if reason else None,
        None if expires is None else parse_seconds(expires, "malformed Subscription-State"),
        None if retry_after is None else parse_seconds(retry_after, "malformed Subscription-State"),
    )


def parse_replaces(text: str) -> Replaces:
    """`call-id;to-tag=…;from-tag=…`."""
    call_id, parameters = split_value(text)
    to_tag, from_tag = parameters.get("to-tag"), parameters.get("from-tag")
    if not call_id or to_tag is None or from_tag is None:
        raise ParseError("malformed Replaces")
    return Replaces(call_id, to_tag, from_tag, "early-only" in parameters)
