"""Text that came from outside, made fit for logs, terminals, JSON and databases."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["encodable", "printable"]

# Controls of ASCII and Latin-1, line separators, and lone surrogates: those are what bytes that
# are not UTF-8 are decoded to where the bytes have to be kept.
_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with U+FFFD in place of what controls a terminal, ends a line or is no character."""
    return _UNFIT.sub("\ufffd", text)


def encodable(text: str) -> str:
    """`text` with a question mark in place of what UTF-8 cannot express."""
    return text.encode("utf-8", "replace").decode()
