"""One direction of a network path with a delay and jitter, sans-I/O."""

from __future__ import annotations

import random

__all__ = ["Link"]


class Link:
    """Says when what is sent now arrives: after the delay plus a uniform share of the jitter.

    TCP carries the stream, so that a message never overtakes the one before it: one that was held
    up holds up those behind it. All times are microseconds.
    """

    def __init__(self, delay_us: int, jitter_us: int, rng: random.Random) -> None:
        if delay_us < 0 or jitter_us < 0:
            raise ValueError("delay and jitter must not be negative")
        self._delay_us = delay_us
        self._jitter_us = jitter_us
        self._rng = rng
        self._last_us = 0

    def arrival_us(self, sent_us: int) -> int:
        """When a message sent at `sent_us` arrives; call once for each message, in order."""
        jitter_us = self._rng.randint(0, self._jitter_us) if self._jitter_us else 0
        self._last_us = max(self._last_us, sent_us + self._delay_us + jitter_us)
        return self._last_us
