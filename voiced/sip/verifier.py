"""The server's side of digest authentication: challenges, and the judgement of credentials."""

from __future__ import annotations

import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from voiced.sip.authorization import (
    ALGORITHMS,
    Parameters,
    Proof,
    algorithm_of,
    parse_authentication,
    write_digest,
)

if TYPE_CHECKING:
    from voiced.sip.message import Request

__all__ = ["Verdict", "Verification", "Verifier"]

_MAX_FIELDS: Final = 8
"""Authorization fields that are read; a request that passed several realms has one for each."""

_WINDOW: Final = 64
"""How far behind the highest an `nc` may come: requests overtake each other on UDP."""

_NONCE = re.compile(r"([0-9a-f]{16})([0-9a-f]{16})([0-9a-f]{32})", re.ASCII)
_NC = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)


class Verdict(Enum):
    """What to make of a request."""

    OK = "ok"
    MISSING = "missing"  # no credentials for this realm and algorithm: challenge it
    STALE = "stale"  # they are right, but for a nonce that is no longer good: challenge it again
    WRONG = "wrong"  # refuse it


@dataclass(frozen=True, slots=True)
class Verification:
    """A verdict, and for `OK` and `STALE` who it is that knows the password."""

    verdict: Verdict
    username: str | None = None


@dataclass(slots=True)
class _Use:
    """Which counts of a nonce have been seen: bit n of `seen` stands for `highest` - n."""

    issued: int
    highest: int = 0
    seen: int = 0

    def take(self, count: int) -> bool:
        """Whether `count` comes for the first time, as far as the window reaches back."""
        ahead = count - self.highest
        if ahead > 0:
            self.seen = (self.seen << min(ahead, _WINDOW) | 1) & ((1 << _WINDOW) - 1)
            self.highest = count
            return True
        bit = 1 << -ahead if -ahead < _WINDOW else 0
        if not bit or self.seen & bit:
            return False
        self.seen |= bit
        return True


class Verifier:
    """Challenges requests and checks what comes back.

    Nonces carry the time of their making and are signed, so that challenging a flood of strangers
    takes no memory. What is remembered is which counts of a nonce have been used, and that only for
    nonces with which somebody has proved to know a password; the table is bounded, and a nonce
    whose entry has been dropped is stale from then on, never free to be replayed.

    The URI in the credentials is not held against the Request-URI, which proxies may rewrite (RFC
    3261 section 22); since no count works twice, credentials seen on the way are of no use again.

    Args:
        realm: who asks.
        algorithms: as in `ALGORITHMS`, most wanted first. Each is a challenge of its own; many old
            clients fail at the sight of two.
        now: a monotonic clock, seconds.
        nonce_life_s: how long a nonce is good.
        max_nonces: nonces in use that are remembered, about 200 bytes each.
        random: makes that many random bytes.
    """

    def __init__(
        self,
        realm: str,
        algorithms: Sequence[str],
        now: Callable[[], float],
        nonce_life_s: float = 300.0,
        *,
        max_nonces: int = 4096,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._realm = realm
        self._algorithms = tuple(algorithm.lower() for algorithm in algorithms)
        unknown = [name for name in self._algorithms if name not in ALGORITHMS]
        if unknown or not self._algorithms:
            raise ValueError(f"algorithms must be some of {', '.join(ALGORITHMS.values())}")
        self._now = now
        self._life_ms = int(nonce_life_s * 1000)
        self._random = random
        self._secret = random(32)
        # For names that do not exist: refusing them takes the same work.
        self._nobody = random(16).hex()
        self._max_nonces = max_nonces
        self._uses: OrderedDict[str, _Use] = OrderedDict()
        self._oldest_ms = -1  # nonces made up to then are stale

    def challenge(self, stale: bool = False) -> list[str]:
        """Values for WWW-Authenticate, one header field each, in order."""
        issued = f"{self._clock():016x}{self._random(8).hex()}"
        nonce = issued + self._signature(issued)
        parameters = {"realm": self._realm, "nonce": nonce, "qop": "auth"}
        if stale:
            parameters["stale"] = "true"
        return [
            write_digest({**parameters, "algorithm": ALGORITHMS[name]}) for name in self._algorithms
        ]

    def verify(self, request: Request, lookup: Callable[[str], str | None]) -> Verification:
        """Judge the Authorization of a request; `lookup` gives the password of a user name."""
        for text in request.headers.get_fields("Authorization")[:_MAX_FIELDS]:
            for credentials in parse_authentication(text):
                if (
                    credentials.scheme == "digest"
                    and credentials.get("realm") == self._realm
                    and algorithm_of(credentials) in self._algorithms
                ):
                    return self._judge(credentials, request.method, lookup)
        return Verification(Verdict.MISSING)

    def _judge(
        self, credentials: Parameters, method: str, lookup: Callable[[str], str | None]
    ) -> Verification:
        wrong = Verification(Verdict.WRONG)
        username = credentials.get("username")
        nonce = credentials.get("nonce")
        uri = credentials.get("uri")
        if username is None or nonce is None or uri is None:
            return wrong
        if credentials.get("userhash", "").lower() == "true":
            return wrong  # never offered: it is the name that trunks are found by
        qop, count, cnonce = "", 0, credentials.get("cnonce", "")
        if "qop" in credentials:
            qop, text = credentials["qop"].lower(), credentials.get("nc", "")
            if qop != "auth" or not cnonce or _NC.fullmatch(text) is None:
                return wrong
            count = int(text, 16)
        algorithm = algorithm_of(credentials) or ""
        proof = Proof(
            algorithm, username, self._realm, nonce, method, uri,
            credentials.get("qop", ""), credentials.get("nc", ""), cnonce,
        )  # fmt: skip
        password = lookup(username)
        expected = proof.response(self._nobody if password is None else password)
        given = credentials.get("response", "").lower()
        same = hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogateescape"))
        if password is None or not same:
            return wrong
        fresh = self._take(nonce, count if qop else None)
        return Verification(Verdict.OK if fresh else Verdict.STALE, username)

    def _take(self, nonce: str, count: int | None) -> bool:
        """Use a nonce for its `count`, or (None, from a client of RFC 2069) once and for all."""
        match = _NONCE.fullmatch(nonce)
        if match is None:
            return False
        signature = self._signature(match[1] + match[2])
        if not hmac.compare_digest(signature, match[3]):
            return False  # of before a restart, perhaps
        issued = int(match[1], 16)
        expired = self._clock() - self._life_ms
        while self._uses and next(iter(self._uses.values())).issued < expired:
            self._uses.popitem(last=False)
        if issued < expired or issued <= self._oldest_ms:
            return False
        use = self._uses.get(nonce)
        if use is None:
            use = self._uses[nonce] = _Use(issued)
            if len(self._uses) > self._max_nonces:
                # The first to be used, so the oldest but for a little; whatever is older goes too.
                _, dropped = self._uses.popitem(last=False)
                self._oldest_ms = max(self._oldest_ms, dropped.issued)
        return use.take(0xFFFFFFFF if count is None else count)

    def _clock(self) -> int:
        return max(0, int(self._now() * 1000))

    def _signature(self, text: str) -> str:
        return hmac.digest(self._secret, text.encode(), "sha256").hex()[:32]
