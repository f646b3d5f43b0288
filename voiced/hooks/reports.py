"""What one plugin does wrong in one call: said with its name, counted, and in the end enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from voiced.hooks.enabled import Enabled
from voiced.hooks.stepping import described

__all__ = ["FAILURES", "LINGERING", "Reports"]

FAILURES: Final = 5
"""After so many in a call the plugin is left out of the rest of it."""

LINGERING: Final = 3
"""Tasks of it in a call that will not stop; with so many it gets no more of them. A long call could
lose one after the other, in a tool that takes too long."""


class Reports:
    """See the module's text. `count` gets the plugin's name and what went wrong."""

    def __init__(self, enabled: Enabled, log: Any, count: Callable[[str, str], None]) -> None:
        self.log = log.bind(plugin=enabled.name)
        self.failures = 0
        self._enabled = enabled
        self._count = count
        self._lingering = 0
        self._abandoned = False

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

    def lingers(self, hook: str, still: bool) -> None:
        """Report that a task does not end though it was cancelled, or that it has, after all."""
        step = 1 if still else -1
        self._lingering += step
        self._enabled.lingering += step
        if not still:
            self.log.info("plugin has stopped after all", hook=hook)
            return
        if not self._abandoned:
            self._abandoned = True
            self._enabled.abandoned += 1  # by calls
        self.count("abandoned")
        self.log.error("plugin cannot be stopped, its task is left to itself", hook=hook)
        self._tell(hook, "cannot be stopped", None)

    def check_lingering(self) -> None:
        """Raises RuntimeError where too many of its tasks will not stop."""
        if self._lingering >= LINGERING:
            raise RuntimeError(f"{self._lingering} tasks of the plugin will not stop")

    def _tell(self, hook: str, why: str, error: BaseException | None) -> None:
        if self._enabled.on_failure is not None:
            self._enabled.on_failure(hook, why, error)
