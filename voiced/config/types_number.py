"""Who is reached by which number: `[[number]]`."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from voiced.config.table import Name, NonNegative, Seconds, Table

__all__ = ["Number"]


class Number(Table, frozen=True):
    """Which agent answers which called number; the first block that matches wins."""

    match: str
    """`"+49301234567"`, `"sip:sales@example.net"`, a prefix such as `"+4930*"`, or `"*"`."""
    agent: str
    """The `[agent.NAME]` that answers."""
    caller: str | UnsetType = UNSET
    """Only calls from this number, URI, or prefix with `*`."""
    trunk: str | UnsetType = UNSET
    """Only calls of this `[[sip.trunk]]`, or of `"twilio"`."""
    headers: dict[Name, str] = field(default_factory=dict)
    """Only calls with these headers (SIP) or parameters (Twilio); `*` at the end of a value \
stands for anything."""
    max_duration_s: Seconds | UnsetType = UNSET
    """Instead of the agent's."""
    greeting_delay_ms: NonNegative | UnsetType = UNSET
    """Instead of the agent's."""
    plugins: tuple[Name, ...] | UnsetType = UNSET
    """The `[plugins.NAME]` of these calls, in this order. Left out: all that there are."""
    call_usd: Annotated[float, Meta(gt=0)] | UnsetType = UNSET
    """Instead of the one in `[cost]`."""
    number_usd: Annotated[float, Meta(gt=0)] | UnsetType = UNSET
    """Instead of the one in `[cost]`."""
