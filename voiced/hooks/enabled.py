"""A plugin that is switched on: its class, its settings and what it keeps for the daemon's life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from voiced.hooks.shape import overridden
from voiced.plugin import Plugin, Service

__all__ = ["ABANDONED", "Enabled"]

ABANDONED: Final = 3
"""With so many calls whose tasks of it will not end, a plugin gets no more until one has ended, or
a reload."""


@dataclass(eq=False, slots=True)
class Enabled:
    """One `[plugins.NAME]` table in force. Calls hold on to theirs over a reload."""

    name: str
    """The table's."""
    plugin: type[Plugin]
    config: Any = field(repr=False)
    """Of the plugin's `Config` type."""
    service: Service | None = None
    kind: str = ""
    """What the plugin itself is called; the table's name where it says nothing else."""
    hooks: frozenset[str] = field(init=False)
    """The hooks that it has made its own."""
    calls: int = field(default=0, init=False)
    """Live calls that have an object of it."""
    abandoned: set[object] = field(default_factory=set, init=False, repr=False)
    """A mark of each call with a task that still runs long after it was cancelled."""
    lingering: int = field(default=0, init=False)
    """Of its tasks that were left behind those that still run."""
    on_failure: Callable[[str, str, BaseException | None], None] | None = field(
        default=None, init=False, repr=False
    )
    """Told of each failure, for tests: the hook, what happened, the exception if there is one."""
    on_idle: Callable[[], None] | None = field(default=None, init=False, repr=False)
    """Told when the last of its calls has ended."""

    def __post_init__(self) -> None:
        self.kind = self.kind or self.name
        self.hooks = overridden(self.plugin)

    @property
    def stuck(self) -> bool:
        """Whether it is to have no further call."""
        return len(self.abandoned) >= ABANDONED

    def acquire(self) -> None:
        """A call has begun."""
        self.calls += 1

    def release(self) -> None:
        """A call is over."""
        self.calls -= 1
        if self.calls == 0 and self.on_idle is not None:
            self.on_idle()
