"""A call that the demo has held, with all that is known of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voiced.simulate.result import CallResult

__all__ = ["Held"]


@dataclass(slots=True)
class Held:
    """`place` counts the scenario's calls from 0; `suffix` tells its files from the others'."""

    title: str
    suffix: str
    place: int
    result: CallResult
    timeline: list[dict[str, Any]]
    row: dict[str, Any] = field(default_factory=dict)
    """Of the journal, once the daemon has stopped."""
    log: Sequence[str] = ()
    """All that the daemon has logged, of the other calls as well."""
    asked: Sequence[str] = ()
    """The paths that the helping service was asked for, in all calls up to this one."""
    waited_ms: float = 0.0
    """For how long of the call, in all, somebody waited for a processor."""

    @property
    def first(self) -> bool:
        """Whether it was the first call of the scenario."""
        return self.place == 0

    def known(self, secret: str) -> bool:
        """Whether digits stand in anything that outlives the call, by themselves.

        As a part of a time or of an id they are there by chance.
        """
        kept = (json.dumps(self.row), json.dumps(self.timeline), *self.log)
        return any(re.search(rf"(?<![\w.]){secret}(?!\w)", text) for text in kept)

    def file(self, directory: Path, name: str) -> Path:
        """Where its file of that kind is."""
        stem, _, kind = name.partition(".")
        return directory / f"{stem}{self.suffix}.{kind}"
