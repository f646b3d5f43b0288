"""The pieces of RFC 3261 section 25.1 that several header fields share.

Text here is a header field's value after unfolding, so white space is spaces and tabs only, and
bytes that are not UTF-8 are there as surrogate escapes. Every pattern runs in linear time: where
one repetition could begin again inside another, it is possessive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from voiced.sip.errors import ParseError

__all__ = [
    "HOST",
    "QUOTED",
    "TOKEN",
    "WHITE",
    "check_host",
    "check_port",
    "format_host",
    "format_parameters",
    "is_token",
    "parse_number",
    "parse_parameters",
    "quote",
    "same_host",
    "split_list",
    "unquote",
]

WHITE: Final = " \t"
"""What is left of linear white space once lines are unfolded; the argument of every strip()."""

TOKEN: Final = r"[A-Za-z0-9\-.!%*_+`'~]+"  # noqa: S105
QUOTED: Final = r'"(?:[^"\\]|\\.)*+"'

# An underscore is no part of a host name, but names of containers have it and nothing else
# begins with it. Brackets are checked with their content by `check_host`.
HOST: Final = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9\-_.]*"

_TOKEN = re.compile(TOKEN)

# gen-value is a token, a host or a quoted string; what peers send unquoted besides (a URI, base64,
# an address without brackets as in RFC 5118 section 4.5) ends at a delimiter all the same.
_PARAMETER = re.compile(
    rf'[ \t]*;[ \t]*({TOKEN})[ \t]*(?:=[ \t]*({QUOTED}|[^\s;,"<>]+)[ \t]*)?', re.DOTALL
)

# A quote or angle bracket that never closes takes the rest of the line with it.
_ELEMENT = re.compile(r'(?:[^,"<]++|"(?:[^"\\]|\\.)*+(?:"|\\?$)|<[^>]*+(?:>|$))*+', re.DOTALL)

_NUMBER = re.compile(r"0*([0-9]{1,18})")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_MUST_QUOTE = re.compile(r'(["\\])')


def is_token(text: str) -> bool:
    """Whether `text` is a token: a method, a header field's name, a parameter's name."""
    return _TOKEN.fullmatch(text) is not None


def parse_number(text: str, largest: int, reason: str) -> int:
    """Digits as a number from 0 to `largest`; anything else is a ParseError of `reason`."""
    match = _NUMBER.fullmatch(text)
    if match is None or (number := int(match[1])) > largest:
        raise ParseError(reason)
    return number


def split_list(value: str) -> list[str]:
    """The elements between commas, respecting quoted strings and angle brackets.

    Elements are stripped; an empty one is kept, since only the caller knows whether it is an
    error (Via) or nothing (Supported).
    """
    if "," not in value:
        return [value.strip(WHITE)]
    elements = []
    position = 0
    while True:
        match = _ELEMENT.match(value, position)
        assert match is not None  # the pattern matches the empty string too
        elements.append(match[0].strip(WHITE))
        position = match.end() + 1
        if position > len(value):
            return elements


def parse_parameters(text: str, position: int = 0) -> dict[str, str | None]:
    """`;name=value;flag` up to the end of `text`, names in lower case, values as written.

    Raises:
        ParseError: anything else is left, or a parameter comes twice (RFC 3261 section 7.3.1).
    """
    parameters: dict[str, str | None] = {}
    length = len(text)
    while position < length:
        match = _PARAMETER.match(text, position)
        if match is None:
            if text[position:].strip(WHITE):
                raise ParseError("malformed parameters")
            break
        name = match[1].lower()
        if name in parameters:
            raise ParseError("repeated parameter")
        parameters[name] = match[2]
        position = match.end()
    return parameters


def format_parameters(parameters: Mapping[str, str | None]) -> str:
    """The inverse of `parse_parameters`."""
    return "".join(
        f";{name}" if value is None else f";{name}={value}" for name, value in parameters.items()
    )


def quote(text: str) -> str:
    """`text` as a quoted string."""
    return '"' + _MUST_QUOTE.sub(r"\\\1", text) + '"'


def unquote(text: str) -> str:
    """What a quoted string says; text that is not quoted is returned as it is."""
    if len(text) >= 2 and text[0] == '"' and text[-1] == '"':
        return _QUOTED_PAIR.sub(r"\1", text[1:-1])
    return text


@lru_cache(maxsize=1024)
def check_host(text: str) -> str:
    """A host matched by `HOST`, in lower case and without the brackets of an IPv6 reference."""
    if not text.startswith("["):
        return text.lower()
    try:
        IPv6Address(text[1:-1])
    except AddressValueError:
        raise ParseError("malformed IPv6 reference") from None
    return text[1:-1].lower()


def same_host(one: str, other: str) -> bool:
    """Whether two hosts from `check_host` are the same name or address."""
    if ":" in one and ":" in other:
        return IPv6Address(one) == IPv6Address(other)
    return one == other


def check_port(text: str | None) -> int | None:
    """A port's digits as a number, None where there was none."""
    return None if text is None else parse_number(text, 65535, "malformed port")


def format_host(host: str) -> str:
    """A host as it is written in a URI or Via: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
