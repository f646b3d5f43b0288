"""What one plugin does wrong in one call: said with its name, counted, and in the end enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import trio

from voiced.hooks.enabled import Enabled
from voiced.hooks.stepping import described

__all__ = ["DEAF_S", "FAILURES", "LINGERING", "Reports"]

FAILURES: Final = 5
"""After so many in a call the plugin is left out of the rest of it."""

LINGERING: Final = 3
"""Tasks of it in a call that will not stop; with so many it gets no more of them. A long call could
lose one after the other, in a tool that takes too long."""

DEAF_S: Final = 10.0
"""A task that was left behind and ends within this was slow: in a thread, whose work cannot be cut
off, say. One that does not is taken for one that never will."""


class Reports:
    """See the module's text. `count` gets the plugin's name and what went wrong."""

    def __init__(self, enabled: Enabled, log: Any, count: Callable[[str, str], None]) -> None:
        self.log = log.bind(plugin=enabled.name)
        self.failures = 0
        self._enabled = enabled
        self._count = count
        self._lingering = 0

    @property
    def left_out(self) -> bool:
        """Whether it has failed often enough."""
        return self.failures >= FAILURES

    def count(self, what: str) -> None:
        """Count what went wrong."""
        self._count(self._enabled.name, what)

    def raised(self, hook: str, error: BaseException, *, words: bool = True) -> None:
        """Report an exception, without `words` only its type; it counts towards leaving out."""
        why = described(error) if words else type(error).__name__
        self.failed("failed", why, hook=hook, error=error, traced=words)

    def failed(
        self,
        what: str,
        why: str,
        *,
        hook: str,
        error: BaseException | None = None,
        traced: bool = True,
    ) -> None:
        """Report a failure; it counts towards leaving out."""
        # The traceback once: the same one a hundred times helps nobody.
        shown = error if traced and self.failures == 0 else None
        self.failures += 1
        self.count(what)
        self.log.error("plugin failed", hook=hook, why=why, exc_info=shown)
        self._tell(hook, why, error)
        if self.failures == FAILURES:
            self.count("left out")
            self.log.error("plugin is left out of the rest of the call", failures=FAILURES)

    def unusable(self, error: BaseException) -> None:
        """Report that no object can be made of it."""
        self.raised("__init__", error)
        self.failures = FAILURES

    def left(self, hook: str, over: trio.Event, nursery: trio.Nursery | None) -> None:
        """Report that a task does not end though it was cancelled. `over`: it has, after all.

        What becomes of it is looked at in `nursery`, of the daemon's.
        """
        self._lingering += 1
        self._enabled.lingering += 1
        self.count("abandoned")
        self.log.warning("plugin does not stop, its task is left to itself", hook=hook)
        self._tell(hook, "cannot be stopped", None)
        if nursery is not None:
            nursery.start_soon(self._watch, hook, over)

    def stopped(self, hook: str) -> None:
        """Report that a task that was left behind has ended."""
        self._lingering -= 1
        self._enabled.lingering -= 1
        if self._lingering == 0:
            self._enabled.abandoned.discard(self)
        self.log.info("plugin has stopped after all", hook=hook)

    async def _watch(self, hook: str, over: trio.Event) -> None:
        with trio.move_on_after(DEAF_S):
            await over.wait()
        if over.is_set():
            return
        enabled = self._enabled
        before = enabled.stuck
        enabled.abandoned.add(self)
        self.log.error("plugin cannot be stopped", hook=hook, for_s=DEAF_S)
        if enabled.stuck and not before:
            self.log.error("plugin gets no more calls", calls_not_ended=len(enabled.abandoned))

    def check_lingering(self) -> None:
        """Raises RuntimeError where too many of its tasks will not stop."""
        if self._lingering >= LINGERING:
            raise RuntimeError(f"{self._lingering} tasks of the plugin will not stop")

    def _tell(self, hook: str, why: str, error: BaseException | None) -> None:
        if self._enabled.on_failure is not None:
            self._enabled.on_failure(hook, why, error)
