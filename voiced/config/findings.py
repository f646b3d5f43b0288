"""What the checks of one document have found so far."""

from __future__ import annotations

from voiced.config.document import Document
from voiced.config.mistakes import KeyPath, Mistake

__all__ = ["Findings"]


class Findings:
    """Collects mistakes and warnings, and remembers which values are wrong.

    A check that compares values asks `sound` first, so that one slip gives one message.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.mistakes: list[Mistake] = []
        self.warnings: list[Mistake] = []
        self._wrong: set[KeyPath] = set()

    def mistake(self, path: KeyPath, message: str, remedy: str) -> None:
        """Add something that voiced does not run with."""
        self.mistakes.append(self.document.mistake(path, message, remedy))
        self._wrong.add(path)

    def warn(self, path: KeyPath, message: str, remedy: str) -> None:
        """Add something that voiced runs with, though the operator may not want it."""
        self.warnings.append(self.document.mistake(path, message, remedy))

    def sound(self, *paths: KeyPath) -> bool:
        """Say whether no mistake has been found at these paths or below them."""
        return not any(wrong[: len(path)] == path for wrong in self._wrong for path in paths)

    def written(self, path: KeyPath) -> bool:
        """Say whether a file has this key, be its value right or wrong."""
        value: object = self.document.data
        for key in path:
            if isinstance(value, dict):
                value = value.get(key)
            elif isinstance(value, list) and isinstance(key, int):
                value = value[key] if key < len(value) else None
            else:
                return False
        return value is not None  # TOML has no null

    def names(self, table: str) -> list[str]:
        """List what the files define in `[table.*]`, rightly or wrongly."""
        written = self.document.data.get(table)
        return [name for name in written if name] if isinstance(written, dict) else []
