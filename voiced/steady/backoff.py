"""How long to wait between attempts: soon at first, then longer, never in step with other calls."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, final

__all__ = ["Backoff"]

# A server that restarts is back in a second or two, and a caller hears every one of them.
FIRST_S: Final = (0.1, 0.4)
SOON: Final = 2  # attempts after the first that follow as soon; it is one or two seconds by then
STEP_S: Final = 0.5
LONGEST_S: Final = 1.0
"""Of a conversation that waits: attempts of many calls together are rationed by the breaker."""


@final
class Backoff:
    """The delays of one run of attempts. `jitter` gives numbers from 0 to 1."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._attempts = 0

    def reset(self) -> None:
        """Begin anew."""
        self._attempts = 0

    def next_s(self) -> float:
        """Seconds until the next attempt."""
        self._attempts += 1
        if self._attempts == 1:
            least, most = FIRST_S
        else:
            most = STEP_S if self._attempts <= 1 + SOON else LONGEST_S
            least = most / 2
        return least + (most - least) * self._jitter()
