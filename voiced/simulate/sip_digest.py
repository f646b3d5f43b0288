"""Digest answers of the simulated caller (RFC 7616, RFC 8760), written from the RFC alone."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from voiced.simulate.sip_message import Message

__all__ = ["Credentials", "answer"]

_PARAMETER: Final = re.compile(r'([A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_HASHES: Final[dict[str, Callable[[bytes], str]]] = {
    "md5": lambda data: hashlib.md5(data).hexdigest(),  # noqa: S324 (the RFC's own choice)
    "sha-256": lambda data: hashlib.sha256(data).hexdigest(),
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a trunk has given its customer."""

    username: str
    password: str


def answer(
    response: Message,
    method: str,
    uri: str,
    credentials: Credentials,
    *,
    cnonce: str | None = None,
) -> tuple[tuple[str, str], bool] | None:
    """Answer a 401 or 407: the header for the next request, and whether the nonce was just stale.

    The first challenge with a known algorithm counts (RFC 8760 section 2.4). None: there is none.
    """
    asked, given = (
        ("www-authenticate", "Authorization")
        if response.status == 401
        else ("proxy-authenticate", "Proxy-Authorization")
    )
    for name, value in response.headers:
        scheme, _, rest = value.partition(" ")
        if name != asked or scheme.lower() != "digest":
            continue
        found = {
            m[1].lower(): m[2] if m[2] is not None else m[3] for m in _PARAMETER.finditer(rest)
        }
        algorithm = found.get("algorithm", "MD5")
        hashed = _HASHES.get(algorithm.lower())
        offered = [each.strip() for each in found.get("qop", "").split(",") if each.strip()]
        if hashed is None or "nonce" not in found or (offered and "auth" not in offered):
            continue
        value = _value(found, algorithm, hashed, bool(offered), method, uri, credentials, cnonce)
        return (given, value), found.get("stale", "").lower() == "true"
    return None


def _value(
    challenge: dict[str, str],
    algorithm: str,
    hashed: Callable[[bytes], str],
    qop: bool,
    method: str,
    uri: str,
    credentials: Credentials,
    cnonce: str | None,
) -> str:
    realm, nonce = challenge.get("realm", ""), challenge["nonce"]
    user = credentials.username
    secret = hashed(f"{user}:{realm}:{credentials.password}".encode())
    request = hashed(f"{method}:{uri}".encode())
    parts = [f'username="{user}"', f'realm="{realm}"', f'nonce="{nonce}"', f'uri="{uri}"']
    if qop:
        cnonce = cnonce or secrets.token_hex(8)
        digest = hashed(f"{secret}:{nonce}:00000001:{cnonce}:auth:{request}".encode())
        parts += ["qop=auth", "nc=00000001", f'cnonce="{cnonce}"']
    else:
        digest = hashed(f"{secret}:{nonce}:{request}".encode())
    parts.append(f'response="{digest}"')
    if "algorithm" in challenge:
        parts.append(f"algorithm={algorithm}")
    if "opaque" in challenge:
        parts.append(f'opaque="{challenge["opaque"]}"')
    return "Digest " + ", ".join(parts)
