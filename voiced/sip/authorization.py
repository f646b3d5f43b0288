"""Digest authentication: challenges and credentials as text, and the digest itself.

RFC 3261 section 22 and RFC 8760 (SIP), RFC 7616 (with it RFC 2617 and RFC 2069): MD5 and SHA-256,
each also in its session form, with `qop=auth` or without any. Values are unquoted when read and
quoted when written; text is hashed as UTF-8, bytes that are not UTF-8 as they came.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from voiced.sip.grammar import QUOTED, TOKEN, quote, unquote

__all__ = [
    "ALGORITHMS",
    "Parameters",
    "Proof",
    "algorithm_of",
    "parse_authentication",
    "write_digest",
]

ALGORITHMS: Final = {
    "md5": "MD5",
    "md5-sess": "MD5-sess",
    "sha-256": "SHA-256",
    "sha-256-sess": "SHA-256-sess",
}
"""What we can compute: names in lower case, as they are compared, and as they are written."""

# Written without quotes by all and with them by few; old peers take them no other way.
_BARE: Final = frozenset(["algorithm", "stale", "nc"])

_MAX_PARAMETERS: Final = 64
"""In one header field; the longest in use has a dozen. What comes after is not read."""

# A parameter, or else the name of a scheme. Some peers leave a nonce unquoted, "=" and "/" and all.
_ITEM = re.compile(
    rf"[\s,]*+(?:({TOKEN})[ \t]*+=[ \t]*+({QUOTED}|[^\s,\"]++)|({TOKEN})(?=[\s,]|$))"
)


class Parameters(dict[str, str]):
    """The parameters of one challenge or of one set of credentials, names in lower case."""

    scheme = ""
    """The authentication scheme, in lower case."""


def parse_authentication(field: str) -> list[Parameters]:
    """Read one header field, which may hold several challenges (RFC 7235 section 4.1).

    Never raises: reading ends where the text makes no sense, and a challenge with a parameter that
    comes twice is left out.
    """
    found: list[Parameters] = []
    broken: list[Parameters] = []
    position = 0
    for _ in range(_MAX_PARAMETERS):
        match = _ITEM.match(field, position)
        if match is None:
            break
        position = match.end()
        if match[3] is not None:
            current = Parameters()
            current.scheme = match[3].lower()
            found.append(current)
        elif not found:
            break
        elif match[1].lower() in found[-1]:
            broken.append(found[-1])
        else:
            found[-1][match[1].lower()] = unquote(match[2])
    return [challenge for challenge in found if not any(challenge is bad for bad in broken)]


def algorithm_of(parameters: Mapping[str, str]) -> str | None:
    """The algorithm by a name of `ALGORITHMS`, MD5 where none is named; None if unknown."""
    name = parameters.get("algorithm", "md5").lower()
    return name if name in ALGORITHMS else None


def write_digest(parameters: Mapping[str, str], bare: frozenset[str] = _BARE) -> str:
    """A header field's value. In credentials `qop` stands without quotes, in challenges with."""
    written = (
        f"{name}={value if name in bare else quote(value)}" for name, value in parameters.items()
    )
    return "Digest " + ", ".join(written)


@dataclass(frozen=True, slots=True)
class Proof:
    """All that goes into a digest but the password."""

    algorithm: str  # a key of `ALGORITHMS`
    username: str
    realm: str
    nonce: str
    method: str
    uri: str
    qop: str = ""  # "auth", or "" as in RFC 2069
    nc: str = ""  # eight hexadecimal digits
    cnonce: str = ""

    def response(self, password: str) -> str:
        """The digest in lower-case hexadecimal (RFC 7616 section 3.4.1)."""
        secret = self._hash(f"{self.username}:{self.realm}:{password}")
        if self.algorithm.endswith("-sess"):
            secret = self._hash(f"{secret}:{self.nonce}:{self.cnonce}")
        request = self._hash(f"{self.method}:{self.uri}")
        if not self.qop:
            return self._hash(f"{secret}:{self.nonce}:{request}")
        middle = f"{self.nonce}:{self.nc}:{self.cnonce}:{self.qop}"
        return self._hash(f"{secret}:{middle}:{request}")

    def _hash(self, text: str) -> str:
        data = text.encode("utf-8", "surrogateescape")
        if self.algorithm.startswith("sha-256"):
            return hashlib.sha256(data).hexdigest()
        return hashlib.md5(data, usedforsecurity=False).hexdigest()
