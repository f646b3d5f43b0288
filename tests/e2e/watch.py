"""How long this process was kept waiting: what is heard in real time is spoilt by so much."""

from __future__ import annotations

from dataclasses import dataclass

import trio

__all__ = ["Watch"]

WATCH_S = 0.02  # a frame: less is in every figure of audio anyhow


@dataclass
class Watch:
    """Looks on while it runs."""

    stalled_ms: float = 0.0
    """For how long in all nothing ran in this process, or it was late: what is put in for audio in
    real time is so much more, and no server could help it."""

    async def run(self) -> None:
        """Add up `stalled_ms` until cancelled."""
        while True:
            due = trio.current_time() + WATCH_S
            await trio.sleep_until(due)
            late_s = trio.current_time() - due
            if late_s > WATCH_S:
                self.stalled_ms += 1000 * late_s
