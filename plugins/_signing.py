"""Signatures of deliveries, as the sender makes them and a receiver checks them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

__all__ = ["sign", "verify"]


def sign(secrets: Iterable[str], timestamp: int, body: bytes) -> str:
    """The value of the header `Voiced-Signature`: the time, and a signature for each secret."""
    signed = b"%d.%b" % (timestamp, body)
    made = [hmac.new(each.encode(), signed, hashlib.sha256).hexdigest() for each in secrets]
    return ",".join([f"t={timestamp}", *(f"v1={each}" for each in made)])


def verify(secret: str, header: str, body: bytes, now: float, tolerance_s: float = 300.0) -> bool:
    """Say whether one of the header's signatures is right, and not older than `tolerance_s`."""
    parts = [part.partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    if len(times) != 1 or not times[0].isdecimal() or len(times[0]) > 12:
        return False
    wanted = sign([secret], int(times[0]), body).rpartition("v1=")[2]
    found = [value for name, _, value in parts if name == "v1"]
    # All are compared, in constant time each.
    right = [hmac.compare_digest(each.encode(), wanted.encode()) for each in found]
    return any(right) and abs(now - int(times[0])) <= tolerance_s
