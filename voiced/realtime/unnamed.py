"""Names for what a clone leaves unnamed. Ours alone: the server is never told them. Sans-I/O."""

from __future__ import annotations

from typing import Final

__all__ = ["UNNAMED", "named"]

UNNAMED: Final = "unnamed:"
"""What they begin with."""


def named(item_id: str) -> bool:
    """Whether the server knows an item by this name, and so can do something to it."""
    return bool(item_id) and not item_id.startswith(UNNAMED)
