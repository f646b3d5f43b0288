"""Digest authentication in SIP, as client and as server (RFC 3261 section 22, RFC 8760)."""

from __future__ import annotations

from voiced.sip.authenticator import Authenticator, Credentials
from voiced.sip.verifier import Verdict, Verification, Verifier

__all__ = ["Authenticator", "Credentials", "Verdict", "Verification", "Verifier"]
