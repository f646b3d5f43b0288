"""Which `[[number]]`, and so which agent, a called number belongs to."""

from __future__ import annotations

import re

from msgspec import UNSET, structs

from voiced.config.types import Agent, Config, Number

__all__ = ["covers", "is_pattern", "normalised", "number_for"]

# E.164 numbers have 15 digits at most (ITU-T E.164, 6.2.1); a prefix may be as short as "+".
_PATTERN = re.compile(r"\*|\+\d{1,15}|\+\d{0,15}\*|sips?:[^\s*]+\*?|sips?:\*", re.ASCII)
_PUNCTUATION = re.compile(r"[\s().-]")


def normalised(address: str) -> str:
    """Write a number without punctuation, a SIP URI without parameters, in lower case."""
    address = address.strip()
    if address[:5].lower().startswith(("sip:", "sips:")):
        return re.split(r"[;?]", address, maxsplit=1)[0].lower()
    return _PUNCTUATION.sub("", address)


def is_pattern(match: str) -> bool:
    """Say whether `match` is a number, a SIP URI, a prefix of one with `*`, or `*`."""
    return _PATTERN.fullmatch(normalised(match)) is not None


def covers(match: str, called: str) -> bool:
    """Say whether the pattern `match` matches the number, or everything the pattern, `called`."""
    pattern, called = normalised(match), normalised(called)
    if pattern.endswith("*"):
        return called.startswith(pattern[:-1])
    return called == pattern


def number_for(config: Config, called: str) -> tuple[Number, Agent] | None:
    """Find the first `[[number]]` that matches `called`, and its agent with what it overrides.

    None where no block matches: the call is not for us.
    """
    for number in config.number:
        if covers(number.match, called):
            overrides = {
                name: value
                for name in ("max_duration_s", "greeting_delay_ms")
                if (value := getattr(number, name)) is not UNSET
            }
            return number, structs.replace(config.agent[number.agent], **overrides)
    return None
