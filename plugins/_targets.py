"""Whom calls are handed over to, as settings name them: found wrong when they are read."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["E164", "check_target"]

E164: Final = re.compile(r"\+[1-9][0-9]{5,14}")
_URI: Final = re.compile(r"(sips?|tel):\S+")


def check_target(target: str, where: str) -> None:
    """Raise ValueError for what is neither a number nor a SIP URI; `where` it stands."""
    if not (E164.fullmatch(target) or _URI.fullmatch(target)):
        raise ValueError(f"{where}: {target} is no number; write +49… or sip:user@host")
