"""All torture cases in the order of their RFCs."""

from __future__ import annotations

from tests.sip.torture import rfc4475_invalid, rfc4475_semantics, rfc4475_valid, rfc5118
from tests.sip.torture.case import Case

__all__ = ["CASES", "RFC4475", "RFC5118"]

RFC4475: list[Case] = [
    *rfc4475_valid.CASES,
    *rfc4475_invalid.CASES,
    *rfc4475_semantics.CASES,
]
RFC5118: list[Case] = rfc5118.CASES
CASES: list[Case] = [*RFC4475, *RFC5118]
