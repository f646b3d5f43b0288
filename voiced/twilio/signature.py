"""`X-Twilio-Signature`: computed, and checked against the public URL, on webhook and handshake.

base64(HMAC-SHA1(auth token, URL as configured + each parameter's name and value, by name)).
Source: Twilio's "Webhooks security" page and its SDKs. The URL is always rebuilt from the
configured `public_url`, never from `Host`: behind a proxy that header is not the signed one, and
without a proxy it is the caller's to choose.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qs

__all__ = ["SignatureValidator", "compute", "handshake_candidates", "webhook_candidates"]

_DEFAULT_PORT = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_WEBSOCKET = {"http": "ws", "https": "wss"}


def compute(token: str, url: str, parameters: Iterable[tuple[str, str]] = ()) -> str:
    """Sign `url` and the decoded form `parameters` with `token`.

    A name that repeats contributes each distinct value once, in order; blank values count.
    """
    # Sorting (name, value) pairs of a set is sorting names, and below a name its distinct values.
    # Code points order as their UTF-8 bytes do.
    text = url + "".join(name + value for name, value in sorted(set(parameters)))
    digest = hmac.new(token.encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha1).digest()
    return b64encode(digest).decode("ascii")


def webhook_candidates(url: str) -> list[str]:
    """List the spellings of `url` that Twilio may have signed: without a port, and with one.

    On HTTP the port stays in the signed URL, on HTTPS it is dropped; the SDKs accept both.
    """
    scheme, authority, rest = _split(url)
    host, port = _host_and_port(authority)
    numbers = [port] if port else [str(_DEFAULT_PORT[scheme])] if scheme in _DEFAULT_PORT else []
    return [
        f"{scheme}://{host}{rest}",
        *(f"{scheme}://{host}:{number}{rest}" for number in numbers),
    ]


def handshake_candidates(url: str) -> list[str]:
    """List the spellings of a stream's `url` (http, https, ws or wss) that may have been signed.

    The documented one is the `wss` URL of the TwiML; a `/` at its end is Twilio's documented quirk;
    the `https` forms cost nothing and are seen in sibling products.
    """
    scheme, authority, rest = _split(url)
    web = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    schemes = [_WEBSOCKET.get(web, web), web]
    bases = [f"{each}://{authority}{rest}" for each in schemes]
    slashed = [base + "/" for base in bases if not base.endswith("/")]
    return [spelling for base in bases + slashed for spelling in webhook_candidates(base)]


class SignatureValidator:
    """Checks what arrives at `public_url` against the account's auth token.

    `tokens` is the primary one, and during a rotation the secondary one too.
    """

    def __init__(self, public_url: str, tokens: Sequence[str]) -> None:
        if not tokens or not all(tokens):
            raise ValueError("at least one auth token is needed, and none may be empty")
        self._base = public_url.rstrip("/")
        self._tokens = tuple(tokens)

    def webhook(
        self,
        target: str,
        parameters: Iterable[tuple[str, str]],
        signature: str | None,
        body: bytes | None = None,
    ) -> bool:
        """Whether `signature` is right for a request of `target` (path and query, as received).

        `parameters` are those of a form body, decoded, every one of them. For a body that is no
        form pass no parameters and the raw `body`: `bodySHA256` in the query must then match it.
        """
        pairs = list(parameters)
        genuine = self._any(webhook_candidates(self._base + target), pairs, signature)
        return genuine and (body is None or _body_matches(target, body))

    def handshake(self, target: str, signature: str | None) -> bool:
        """Whether `signature` is right for the upgrade request of `target`.

        The signature of a fixed URL is constant, so it only keeps strangers out: the one-time token
        in the path is what makes a stream belong to a call.
        """
        return self._any(handshake_candidates(self._base + target), [], signature)

    def _any(
        self, candidates: Iterable[str], parameters: list[tuple[str, str]], signature: str | None
    ) -> bool:
        given = (signature or "").encode("utf-8", "surrogatepass")
        genuine = False
        for url in candidates:
            for token in self._tokens:
                expected = compute(token, url, parameters).encode("ascii")
                # No short cut: the time must not tell which candidate came near.
                genuine |= hmac.compare_digest(expected, given)
        return genuine


def _body_matches(target: str, body: bytes) -> bool:
    """Whether the query of `target` names the SHA-256 of `body`, in hexadecimal."""
    named = parse_qs(target.partition("?")[2]).get("bodySHA256", [""])[0]
    found = hashlib.sha256(body).hexdigest()
    return hmac.compare_digest(found.encode("ascii"), named.encode("utf-8", "surrogatepass"))


def _split(url: str) -> tuple[str, str, str]:
    """Cut `url` into scheme, authority and the verbatim rest, which may be empty."""
    scheme, _, after = url.partition("://")
    end = min((at for at in map(after.find, "/?#") if at >= 0), default=len(after))
    return scheme.lower(), after[:end], after[end:]


def _host_and_port(authority: str) -> tuple[str, str]:
    """Drop user and password, which are never signed; an IPv6 host keeps its brackets."""
    host_port = authority.rpartition("@")[2]
    host, colon, port = host_port.rpartition(":")
    if colon and port.isdigit():
        return host, port
    return host_port.rstrip(":"), ""
