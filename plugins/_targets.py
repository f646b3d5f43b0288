"""Whom calls are handed over to, as settings name them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["E164", "wrong_targets"]

E164: Final = re.compile(r"\+[1-9][0-9]{5,14}")
_URI: Final = re.compile(r"(sips?|tel):\S+")


def wrong_targets(targets: Mapping[str, str]) -> Iterator[str]:
    """What is neither a number nor a SIP URI, by the keys under which they stand."""
    for key, target in targets.items():
        if not (E164.fullmatch(target) or _URI.fullmatch(target)):
            yield f"{key}: {target} is no number; write +49… or sip:user@host"
