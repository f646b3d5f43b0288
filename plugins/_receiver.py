"""What a receiver of events gets and says: signatures, and what an answer means."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime

from voiced_plugins._courier import Again, Done, Never, Outcome

__all__ = ["judge", "sign", "verify"]


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


def judge(status: int, headers: Mapping[str, str], now: float) -> Outcome:
    """What an answer means for the event; `now` is Unix time."""
    if 200 <= status < 300:
        return Done()
    if status in (408, 429) or status >= 500:
        after_s = _retry_after_s(headers.get("Retry-After", ""), now)
        busy = status in (429, 503) and after_s is not None
        return Again(f"status {status}", after_s, all_wait=busy)
    return Never(f"status {status}")


def _retry_after_s(text: str, now: float) -> float | None:
    """Seconds, from seconds or a date (RFC 9110 section 10.2.3); None for anything else."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
