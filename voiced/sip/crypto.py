"""Keys for SRTP inside a session description: the `a=crypto` attribute (RFC 4568).

Two suites are known, both with a 16-byte key and a 14-byte salt. A key with a master key identifier
(MKI), several keys in one line, and session parameters that change how packets are written are
turned down; the lifetime and the window size hint are read over.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["KEY_BYTES", "SUITES", "Crypto", "SrtpKeys", "new_key", "parse_crypto", "usable"]

SUITES: Final = ("AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32")
"""The suites we speak, in the order in which we offer them."""

KEY_BYTES: Final = 30
"""Master key (16 bytes) and master salt (14 bytes), as pylibsrtp wants them: in one piece."""

_ATTRIBUTE = re.compile(r"([0-9]{1,9})[ \t]+(\S+)[ \t]+(\S+)(?:[ \t]+(.*\S))?[ \t]*", re.ASCII)
_LIFETIME = re.compile(r"(?:2\^)?[0-9]{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Crypto:
    """One `a=crypto` line that we can do."""

    tag: int
    suite: str
    key: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"{self.tag} {self.suite} inline:{base64.b64encode(self.key).decode()}"


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """What both directions of a stream are encrypted with."""

    suite: str
    local: bytes = field(repr=False)  # ours, for what we send; 30 bytes, key then salt
    remote: bytes = field(repr=False)  # the peer's, for what we receive


def new_key() -> bytes:
    """A fresh master key and salt."""
    return secrets.token_bytes(KEY_BYTES)


def parse_crypto(value: str) -> Crypto | None:
    """Read the value of one attribute; None where it is malformed or asks for what we cannot do."""
    match = _ATTRIBUTE.fullmatch(value)
    if match is None:
        return None
    suite = match[2].upper()
    if suite not in SUITES or not _parameters_are_harmless(match[4]):
        return None
    method, _, information = match[3].partition(":")
    if method.lower() != "inline" or ";" in information:
        return None  # several keys are told apart by an MKI
    text, *rest = information.split("|")
    # What follows is a lifetime, an MKI ("1:4"), or both.
    if len(rest) > 1 or not all(_LIFETIME.fullmatch(part) for part in rest):
        return None
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return Crypto(int(match[1]), suite, key) if len(key) == KEY_BYTES else None


def _parameters_are_harmless(parameters: str | None) -> bool:
    """WSH is a hint, and what begins with "-" may be passed over (RFC 4568 section 6.3.7)."""
    return all(part.startswith(("WSH=", "-")) for part in (parameters or "").split())


def usable(values: Iterable[str]) -> list[Crypto]:
    """Those of a section's attributes that we can do, in the peer's order of preference."""
    return [crypto for value in values if (crypto := parse_crypto(value)) is not None]
