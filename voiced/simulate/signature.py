"""`X-Twilio-Signature`, the signing side (twilio.com/docs/usage/security).

Written apart from the daemon's own check on purpose: the simulated carrier is an independent peer.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable

__all__ = ["sign"]


def sign(auth_token: str, url: str, fields: Iterable[tuple[str, str]] = ()) -> str:
    """Compute the header for a request to `url` (verbatim) with POST form `fields`.

    HMAC-SHA1 over the URL followed by each name and value in the order of the names; a repeated
    name contributes each of its distinct values, sorted. A WebSocket handshake has no fields.
    """
    signed = url + "".join(name + value for name, value in sorted(set(fields)))
    digest = hmac.new(auth_token.encode(), signed.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode("ascii")
