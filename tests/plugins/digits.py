"""Secret digits are looked for by themselves: not as a part of a time, an id or a longer number."""

from __future__ import annotations

import re

__all__ = ["shows"]


def shows(text: str | bytes, digits: str) -> bool:
    """Whether a log, a row or an event has these digits."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return re.search(rf"(?<![\w.]){digits}(?!\w)", text) is not None
