"""The caller's last words as audio, for a session that takes over before they were understood.

Pure. Positions are bytes of the session's input format since the call began.
"""

from __future__ import annotations

from typing import Final, final

from voiced.audio import Quality, converter
from voiced.formats import AudioFormat

__all__ = ["BEFORE_MS", "KEPT_MS", "Utterance"]

BEFORE_MS: Final = 1000
"""Kept while nobody speaks: speech is recognised some 300 ms after it began, and the news of it
travels."""

EARLY_MS: Final = 2000  # of what the caller says before there is a session at all

KEPT_MS: Final = 10_000  # of a turn that has not been understood
KEPT_BYTES: Final = 176 * 1024
"""Whatever the format: what the backlog of a WebSocket takes in base64, in one piece."""

SLACK: Final = 8  # an eighth more is kept, so that not every piece moves all the others

# A turn's marks go with its transcript. Of a server that sends none, the newest count.
MAX_MARKS: Final = 16


@final
class Utterance:
    """A ring of the caller's audio, longer while a turn is open."""

    def __init__(self, form: AudioFormat) -> None:
        self.format = form
        self._audio = bytearray()  # bounded by `_limit`
        self._end = 0
        self._marks: dict[str, int] = {}  # committed item to where it ended; not yet understood
        self._speaking = False
        self._stopped = False  # and not yet committed
        self._waiting = True  # there is no session
        self._keep = self._limit = self._kept(EARLY_MS)

    def _kept(self, ms: int) -> int:
        return min(ms * self.format.bytes_per_ms, KEPT_BYTES)

    @property
    def speaking(self) -> bool:
        """The caller is in the midst of a turn."""
        return self._speaking

    @property
    def open(self) -> bool:
        """There is a turn that has been neither written down nor answered."""
        return self._speaking or self._stopped or bool(self._marks)

    @property
    def finished(self) -> bool:
        """That turn is over."""
        return self.open and not self._speaking

    def add(self, payload: bytes) -> None:
        """The next piece of audio."""
        self._audio += payload
        self._end += len(payload)
        if len(self._audio) > self._limit:
            del self._audio[: -self._keep]

    # ---- what becomes of turns

    def started(self) -> None:
        """The caller began to speak."""
        self._speaking = True
        self._settle()

    def stopped(self) -> None:
        """The turn is over."""
        if self._speaking:
            self._speaking = False
            self._stopped = True

    def committed(self, item_id: str) -> None:
        """The turn is an item now."""
        self._speaking = self._stopped = False
        self._marks[item_id] = self._end
        if len(self._marks) > MAX_MARKS:
            del self._marks[next(iter(self._marks))]
        self._settle()

    def understood(self, item_id: str) -> None:
        """The item has been written down, or taken out: its audio is not needed any more."""
        mark = self._marks.pop(item_id, None)
        if mark is None:
            return
        self._marks = {other: at for other, at in self._marks.items() if at > mark}
        self._drop(mark)
        self._settle()

    def answered(self) -> None:
        """An answer is heard: what was said before needs no other."""
        self._stopped = False
        if self._marks:
            self._drop(max(self._marks.values()))
            self._marks.clear()
        self._settle()

    def unheard(self) -> None:
        """A session that was given the turn has not recognised it: it is over all the same."""
        self._stopped = self._stopped or self._speaking
        self._speaking = False

    # ---- sessions

    def lost(self) -> None:
        """Nobody listens: keep what is said meanwhile."""
        self._waiting = True
        self._settle()

    def take_over(self, form: AudioFormat, quality: Quality) -> bytes:
        """Return what a new session has to hear first, in its format.

        It stays here as well, and an open turn stays open, until that session has understood it.
        """
        audio = bytes(self._audio[-self._keep :])
        convert = converter(self.format, form, quality)
        if convert is not None and audio:
            audio = convert.convert(audio) + convert.flush()
        self.format = form
        self._audio = bytearray(audio)
        self._stopped = self.finished
        self._marks.clear()
        self._waiting = False
        self._settle()
        return audio

    def _drop(self, mark: int) -> None:
        """Forget what was said before `mark`."""
        del self._audio[: max(0, mark - self._end + len(self._audio))]

    def _settle(self) -> None:
        self._keep = self._kept(KEPT_MS if self.open or self._waiting else BEFORE_MS)
        self._limit = self._keep + self._keep // SLACK  # moving it up for each piece would cost
