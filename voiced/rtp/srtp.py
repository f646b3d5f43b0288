"""SRTP and SRTCP with keys from the SDP (RFC 3711, RFC 4568), by way of libsrtp.

libsrtp keeps each source's roll-over counter and replay window. A peer that starts its sequence
numbers anew under the same SSRC and key looks like a replay, or like a wrapped counter whose tags
do not match, for ever. When `RESTART_AFTER` packets in a row have failed, a fresh context is tried,
which begins with counter 0 as the peer's has. While the true source sends it resets that count:
whoever would use this to replay old packets must first silence the peer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from voiced.rtp.media import SrtpKeys

__all__ = ["KEY_BYTES", "RESTART_AFTER", "Srtp", "SrtpUnavailable", "available"]

KEY_BYTES: Final = 30
"""Of both suites: a master key of 16 bytes and a salt of 14 (RFC 4568 section 6.2)."""

RESTART_AFTER: Final = 25
"""Half a second of packets."""


class SrtpUnavailable(Exception):
    """pylibsrtp is not installed; the text says how to get it."""


def available() -> bool:
    """SRTP can be spoken here."""
    try:
        _library()
    except SrtpUnavailable:
        return False
    return True


def _library() -> Any:
    try:
        import pylibsrtp  # an extra, and only where SRTP is spoken
    except ImportError:
        raise SrtpUnavailable(
            "SRTP needs the pylibsrtp package: pip install 'voiced[srtp]', or set srtp = \"off\""
        ) from None
    return pylibsrtp


class Srtp:
    """Both directions of one stream. Failures are counted and never raised."""

    def __init__(self, keys: SrtpKeys) -> None:
        """Raises SrtpUnavailable, ValueError for an unknown suite or keys of another length."""
        self._library = _library()
        self.failures = 0  # packets of the peer that were refused
        self._failed_in_row = 0
        self._keys = keys
        self._out = self._session(keys, keys.local, "ssrc_any_outbound")
        self._in = self._session(keys, keys.remote, "ssrc_any_inbound")

    def rekey(self, keys: SrtpKeys) -> None:
        """Take new keys: a direction whose key stays keeps its counters (RFC 3711 section 3.3.1).

        Raises ValueError as at the beginning.
        """
        old, self._keys = self._keys, keys
        if (keys.suite, keys.local) != (old.suite, old.local):
            self._out = self._session(keys, keys.local, "ssrc_any_outbound")
        if (keys.suite, keys.remote) != (old.suite, old.remote):
            self._in = self._session(keys, keys.remote, "ssrc_any_inbound")
            self._failed_in_row = 0

    def _session(self, keys: SrtpKeys, key: bytes, sources: str) -> Any:
        policy = self._library.Policy
        profiles = {
            "AES_CM_128_HMAC_SHA1_80": policy.SRTP_PROFILE_AES128_CM_SHA1_80,
            "AES_CM_128_HMAC_SHA1_32": policy.SRTP_PROFILE_AES128_CM_SHA1_32,
        }
        if keys.suite not in profiles:
            raise ValueError(f"voiced speaks {' and '.join(profiles)}, not {keys.suite!r}")
        if len(key) != KEY_BYTES:
            raise ValueError(f"an SRTP key and its salt have {KEY_BYTES} bytes, not {len(key)}")
        inbound = sources == "ssrc_any_inbound"
        return self._library.Session(
            policy(
                key=key,
                ssrc_type=policy.SSRC_ANY_INBOUND if inbound else policy.SSRC_ANY_OUTBOUND,
                srtp_profile=profiles[keys.suite],
            )
        )

    def protect(self, packet: bytes) -> bytes | None:
        """An RTP packet, encrypted; None where libsrtp refuses."""
        return self._try(self._out.protect, packet)

    def protect_rtcp(self, packet: bytes) -> bytes | None:
        """An RTCP packet, encrypted; None where libsrtp refuses."""
        return self._try(self._out.protect_rtcp, packet)

    def unprotect(self, packet: bytes) -> bytes | None:
        """The peer's RTP packet; None where it is forged, replayed or broken."""
        plain = self._try(self._in.unprotect, packet)
        if plain is not None:
            self._failed_in_row = 0
            return plain
        self.failures += 1
        self._failed_in_row += 1
        if self._failed_in_row < RESTART_AFTER:
            return None
        self._failed_in_row = 0
        fresh = self._session(self._keys, self._keys.remote, "ssrc_any_inbound")
        plain = self._try(fresh.unprotect, packet)
        if plain is not None:
            self._in = fresh
        return plain

    def unprotect_rtcp(self, packet: bytes) -> bytes | None:
        """The peer's RTCP packet; None where it is forged, replayed or broken."""
        plain = self._try(self._in.unprotect_rtcp, packet)
        if plain is None:
            self.failures += 1
        return plain

    def _try(self, call: Callable[[bytes], bytes], packet: bytes) -> bytes | None:
        try:
            return call(packet)
        except (self._library.Error, ValueError):  # ValueError: longer than 1500 bytes
            return None
