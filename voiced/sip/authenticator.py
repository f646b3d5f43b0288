"""The client's side of digest authentication: answers to 401 and 407."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from voiced.sip.authorization import (
    ALGORITHMS,
    Parameters,
    Proof,
    algorithm_of,
    parse_authentication,
    write_digest,
)

if TYPE_CHECKING:
    from voiced.sip.message import Request, Response
    from voiced.sip.uri import Uri

__all__ = ["Authenticator", "Credentials"]

_HEADERS: Final = {
    401: ("WWW-Authenticate", "Authorization"),
    407: ("Proxy-Authenticate", "Proxy-Authorization"),
}

_MAX_REALMS: Final = 8
"""Realms whose last challenge is kept; a trunk has one, a chain of proxies a few."""

_MAX_ATTEMPTS: Final = 256
"""Credentials sent whose refusal would be recognised: more than a trunk has requests open."""

_MAX_FIELDS: Final = 8
"""Header fields with challenges that are read."""

_BARE: Final = frozenset(["algorithm", "stale", "nc", "qop"])

# How credentials came about: in answer to a challenge, to one that called the nonce stale, or
# ahead of any challenge from a nonce known before.
_Attempt = Literal["challenged", "stale", "ahead"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and password, for one realm or (None) for whoever asks."""

    username: str
    password: str = field(repr=False)
    realm: str | None = None


@dataclass(slots=True)
class _Realm:
    """The last challenge of a realm, and how often its nonce was used."""

    name: str  # of the header that answers it
    challenge: Parameters
    algorithm: str
    qop: str
    cnonce: str
    count: int = 0


class Authenticator:
    """Answers challenges with one set of credentials; shared by all requests of a trunk.

    Of several challenges the first that can be answered is taken, since servers list the one they
    want most first (RFC 8760 section 2.4), and not the strongest.

    Args:
        credentials: what is proved.
        cnonce: makes a client nonce, a fresh unguessable token.
    """

    def __init__(
        self,
        credentials: Credentials,
        cnonce: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._credentials = credentials
        self._cnonce = cnonce
        self._realms: OrderedDict[tuple[str, str], _Realm] = OrderedDict()
        self._attempts: OrderedDict[str, _Attempt] = OrderedDict()

    def answer(self, response: Response, request: Request) -> tuple[str, str] | None:
        """The header, name and value, with which to send `request` again after `response`.

        None: there is no challenge that we can answer, or the credentials in `request` have been
        refused. They are sent anew only where the server says that nothing but the nonce was
        wrong, and once; or where they had been sent ahead with a nonce of an earlier challenge.
        """
        if response.status not in _HEADERS:
            return None
        asked, answered = _HEADERS[response.status]
        challenges = [
            challenge
            for text in response.headers.get_fields(asked)[:_MAX_FIELDS]
            for challenge in parse_authentication(text)
        ]
        sent = request.headers.get_fields(answered)
        for challenge in challenges:
            realm = self._usable(answered, challenge)
            if realm is None:
                continue
            attempt = self._next_attempt(challenge, sent)
            if attempt is None:
                continue  # refused by this realm; another may ask beside it
            key = (answered, challenge["realm"])
            self._realms.pop(key, None)
            self._realms[key] = realm
            if len(self._realms) > _MAX_REALMS:
                self._realms.popitem(last=False)
            return self._header(realm, request.method, str(request.uri), attempt)
        return None

    def again(self, method: str, uri: Uri | str, body: bytes = b"") -> tuple[str, str] | None:
        """A header that spares the next request its challenge, by the last nonce; None without.

        `body` plays no part, since `auth-int` is not spoken.
        """
        if not self._realms:
            return None
        realm = next(reversed(self._realms.values()))
        return self._header(realm, method, str(uri), "ahead")

    def accepted(self, response: Response) -> None:
        """Take the nonce that a 2xx names for the next request (RFC 7616 section 3.5)."""
        for (answered, _), realm in self._realms.items():
            prefix = "Proxy-" if answered.startswith("Proxy-") else ""
            for text in response.headers.get_fields(prefix + "Authentication-Info")[:_MAX_FIELDS]:
                information = parse_authentication(f"Digest {text}")
                nonce = information[0].get("nextnonce") if information else None
                if nonce:
                    realm.challenge["nonce"] = nonce
                    realm.count = 0

    def _usable(self, answered: str, challenge: Parameters) -> _Realm | None:
        algorithm = algorithm_of(challenge)
        if challenge.scheme != "digest" or algorithm is None:
            return None
        if "realm" not in challenge or not challenge.get("nonce"):
            return None
        if self._credentials.realm not in {None, challenge["realm"]}:
            return None
        qop = ""
        if "qop" in challenge:
            if "auth" not in {word.strip().lower() for word in challenge["qop"].split(",")}:
                return None
            qop = "auth"
        return _Realm(answered, challenge, algorithm, qop, self._cnonce())

    def _next_attempt(self, challenge: Parameters, sent: list[str]) -> _Attempt | None:
        for text in sent:
            for credentials in parse_authentication(text):
                if credentials.get("realm") != challenge["realm"]:
                    continue
                if challenge.get("stale", "").lower() == "true":
                    return None if self._attempts.get(text) == "stale" else "stale"
                is_new = credentials.get("nonce") != challenge["nonce"]
                if self._attempts.get(text) == "ahead" and is_new:
                    return "challenged"
                return None
        return "challenged"

    def _header(self, realm: _Realm, method: str, uri: str, attempt: _Attempt) -> tuple[str, str]:
        challenge = realm.challenge
        realm.count += 1
        proof = Proof(
            algorithm=realm.algorithm,
            username=self._credentials.username,
            realm=challenge["realm"],
            nonce=challenge["nonce"],
            method=method,
            uri=uri,
            qop=realm.qop,
            nc=f"{realm.count:08x}" if realm.qop else "",
            cnonce=realm.cnonce if realm.qop or realm.algorithm.endswith("-sess") else "",
        )
        parameters = {
            "username": proof.username,
            "realm": proof.realm,
            "nonce": proof.nonce,
            "uri": uri,
            "response": proof.response(self._credentials.password),
        }
        if "algorithm" in challenge:
            parameters["algorithm"] = ALGORITHMS[realm.algorithm]
        if proof.cnonce:
            parameters["cnonce"] = proof.cnonce
        if "opaque" in challenge:
            parameters["opaque"] = challenge["opaque"]
        if realm.qop:
            parameters["qop"] = realm.qop
            parameters["nc"] = proof.nc
        value = write_digest(parameters, _BARE)
        self._attempts[value] = attempt
        if len(self._attempts) > _MAX_ATTEMPTS:
            self._attempts.popitem(last=False)
        return realm.name, value
