"""Which `[[number]]`, and so which agent, a called number belongs to."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from msgspec import UNSET, structs

from voiced.config.types import Agent, Config, Number

__all__ = ["Asked", "covers", "is_pattern", "normalised", "number_for"]

# E.164 numbers have 15 digits at most (ITU-T E.164, 6.2.1); a prefix may be as short as "+".
_PATTERN = re.compile(r"\*|\+\d{1,15}|\+\d{0,15}\*|sips?:[^\s*]+\*?|sips?:\*", re.ASCII)
_PUNCTUATION = re.compile(r"[\s().-]")
_ESCAPED = re.compile(r"(?:%[89A-F][0-9A-F])+", re.IGNORECASE | re.ASCII)


def normalised(address: str) -> str:
    """Write a number without punctuation, a SIP URI without parameters, in lower case.

    Letters beyond ASCII stand for themselves, however a URI escapes them (RFC 3261 section 25.1
    knows them as UTF-8, escaped), and the Turkish i's are one: cases pair them otherwise elsewhere.
    """
    address = address.strip()
    if address[:5].lower().startswith(("sip:", "sips:")):
        address = re.split(r"[;?]", address, maxsplit=1)[0]
        return address.lower() if _plain(address) else _folded(address)
    return _PUNCTUATION.sub("", address)


def _plain(address: str) -> bool:
    return address.isascii() and "%" not in address


def _folded(address: str) -> str:
    address = _ESCAPED.sub(lambda found: unquote(found[0]), address)
    text = unicodedata.normalize("NFC", address).casefold()
    return text.replace("\u0131", "i").replace("i\u0307", "i")


def is_pattern(match: str) -> bool:
    """Say whether `match` is a number, a SIP URI, a prefix of one with `*`, or `*`."""
    return _PATTERN.fullmatch(normalised(match)) is not None


def covers(match: str, called: str) -> bool:
    """Say whether the pattern `match` matches the number, or everything the pattern, `called`."""
    pattern, called = normalised(match), normalised(called)
    if pattern.endswith("*"):
        return called.startswith(pattern[:-1])
    return called == pattern


@dataclass(frozen=True, slots=True)
class Asked:
    """What a `[[number]]` can look at. All of it came from outside."""

    called: str  # E.164, or a SIP URI
    also: str = ""  # another form of `called`: a number's SIP URI
    caller: str = ""
    trunk: str = ""  # name of a [[sip.trunk]], or "twilio"
    headers: Mapping[str, str] = field(default_factory=dict)  # names in any case


def number_for(config: Config, asked: Asked) -> tuple[Number, Agent] | None:
    """Find the first `[[number]]` that fits, and its agent with what it overrides.

    None where no block does: the call is not for us.
    """
    for number in config.number:
        if _fits(number, asked):
            overrides = {
                name: value
                for name in ("max_duration_s", "greeting_delay_ms")
                if (value := getattr(number, name)) is not UNSET
            }
            return number, structs.replace(config.agent[number.agent], **overrides)
    return None


def _fits(number: Number, asked: Asked) -> bool:
    if not (
        covers(number.match, asked.called) or (asked.also and covers(number.match, asked.also))
    ):
        return False
    if number.caller is not UNSET and not covers(number.caller, asked.caller):
        return False
    if number.trunk is not UNSET and number.trunk != asked.trunk:
        return False
    if not number.headers:
        return True
    given = {name.lower(): value for name, value in asked.headers.items()}
    return all(
        (value := given.get(name.lower())) is not None and _like(pattern, value)
        for name, pattern in number.headers.items()
    )


def _like(pattern: str, value: str) -> bool:
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern
