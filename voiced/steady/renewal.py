"""When a session that will expire may be exchanged for a fresh one without anybody hearing it.

Pure; times are handed in.
"""

from __future__ import annotations

import math
from typing import Final, final

from voiced.steady.utterance import BEFORE_MS

__all__ = ["Renewal"]

# Of a session's length, and at most: the time in which a quiet moment is looked for, and the time
# before its end at which it is exchanged whatever goes on.
AHEAD: Final = 0.2, 300.0
FORCED: Final = 0.05, 20.0

SETTLED_S: Final = 0.3  # after the last word
TRANSCRIPT_S: Final = 5.0  # a transcript later than this is not waited for


@final
class Renewal:
    """Follows one session at a time."""

    def __init__(self, transcribes: bool) -> None:
        """`transcribes`: a transcript of each of the caller's turns is to come."""
        self._transcribes = transcribes
        self.due_at = math.inf
        """From then on a fresh session should stand ready."""
        self._forced_at = math.inf
        self._heard_at = -math.inf  # what has been said is over by then
        self._said_at = -math.inf  # what the caller has said is no part of what is kept by then
        self._pending: dict[str, float] = {}  # turns without their transcript, and until when

    def adopted(self, now: float, born: float, ends_at: float | None) -> None:
        """Another session talks now, which ends at `ends_at`."""
        self._pending.clear()
        self.due_at = self._forced_at = math.inf
        if ends_at is not None:
            length = ends_at - born
            self.due_at = ends_at - min(AHEAD[0] * length, AHEAD[1])
            self._forced_at = ends_at - min(FORCED[0] * length, FORCED[1])

    def started(self, now: float) -> None:
        """An answer has begun: it is heard after what is being heard."""
        self._heard_at = max(self._heard_at, now)

    def done(self, now: float, audio_s: float) -> None:
        """An answer has ended, with so much audio."""
        self._heard_at = max(self._heard_at + audio_s, now)

    def cut(self, now: float) -> None:
        """The rest of what was said is not heard."""
        self._heard_at = now

    def committed(self, item_id: str, now: float) -> None:
        """A turn of the caller has ended."""
        # The audio of the last second goes to the next session: no word may be in it.
        self._said_at = now + BEFORE_MS / 1000
        if self._transcribes:
            self._pending = {item: at for item, at in self._pending.items() if at > now}
            self._pending[item_id] = now + TRANSCRIPT_S

    def transcribed(self, item_id: str) -> None:
        """It has been written down."""
        self._pending.pop(item_id, None)

    def quiet(self, now: float) -> bool:
        """Whether what was said has been heard and written down."""
        return now >= self._heard_at + SETTLED_S and all(at <= now for at in self._pending.values())

    def forced(self, now: float) -> bool:
        """Whether there is no time left to wait for that."""
        return now >= self._forced_at
