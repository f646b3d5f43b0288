"""One-time tokens that tie a media stream to the call that was admitted.

The path of a stream is `/twilio/media/{token}`. The handshake's signature never changes for a fixed
URL and so can be replayed; a token cannot: it is good for one handshake, within 60 seconds, and
for the one CallSid that `start` must then name.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["MEDIA_PATH", "StreamTokens", "TokensExhausted"]

MEDIA_PATH = "/twilio/media/"
"""The path of media streams; the token follows."""

TTL_S = 60.0
"""Twilio dials within a second or two of the TwiML; a minute covers its retries."""


class TokensExhausted(Exception):
    """The table is full of unexpired tokens: refuse the call."""


@dataclass(frozen=True, slots=True)
class _Entry:
    call_sid: str
    expires: float


class StreamTokens:
    """The tokens that may still be redeemed.

    `clock` returns seconds that never go back, `trio.current_time` in the daemon. `capacity` bounds
    the table: minting needs a genuine webhook, and a token lives for a minute at most, so the
    default is 17 calls a second sustained; the daemon's call limit strikes long before.
    """

    def __init__(
        self, clock: Callable[[], float], capacity: int = 1024, ttl: float = TTL_S
    ) -> None:
        self._clock = clock
        self._capacity = capacity
        self._ttl = ttl
        # By hash, so that the time of a look-up tells nothing about a token that nearly matched.
        # Dictionaries keep order and every token lives equally long: the oldest expires first.
        self._entries: dict[bytes, _Entry] = {}
        self._by_call: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def mint(self, call_sid: str) -> str:
        """Make a fresh token for `call_sid`: 192 random bits, safe in a URL's path.

        An earlier token of the same call dies: Twilio asks twice when the first answer is late, and
        acts on one answer. Raises TokensExhausted.
        """
        self._drop_expired()
        self.revoke(call_sid)
        if len(self._entries) >= self._capacity:
            raise TokensExhausted(f"{self._capacity} stream tokens are outstanding")
        token = secrets.token_urlsafe(24)
        key = _key(token)
        self._entries[key] = _Entry(call_sid, self._clock() + self._ttl)
        self._by_call[call_sid] = key
        return token

    def redeem(self, token: str) -> str | None:
        """Return the CallSid of `token`, once; None when it is unknown, used or expired."""
        self._drop_expired()
        entry = self._entries.pop(_key(token), None)
        if entry is None:
            return None
        del self._by_call[entry.call_sid]
        return entry.call_sid

    def redeem_path(self, path: str) -> str | None:
        """`redeem` for a request's path, with or without a slash at its end."""
        if not path.startswith(MEDIA_PATH):
            return None
        return self.redeem(path[len(MEDIA_PATH) :].removesuffix("/"))

    def holds_path(self, path: str) -> bool:
        """Whether `redeem_path` would take `path`; redeems nothing."""
        self._drop_expired()
        token = path.removeprefix(MEDIA_PATH).removesuffix("/")
        return path.startswith(MEDIA_PATH) and _key(token) in self._entries

    def revoke(self, call_sid: str) -> None:
        """Forget the token of a call that ended before its stream came."""
        key = self._by_call.pop(call_sid, None)
        if key is not None:
            del self._entries[key]

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.expires > now:
                return
            del self._entries[key]
            del self._by_call[entry.call_sid]


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
