"""What the caller hears of us: the playout, and the speaker as soon as there is media.

Before media everything waits in the playout; what concerns the speaker then changes nothing.
"""

from __future__ import annotations

from typing import Final

from voiced.playout import Cut, Playout
from voiced.talk.greeting import LOCAL
from voiced.talk.sounds import Sounds
from voiced.talk.speaker import Speaker

__all__ = ["Voice"]


FILLER_REST_S: Final = 1.8
"""So much of a filler is heard out though the answer is there: the bundled ones are heard whole.
Of a longer one, or of music, the caller has heard enough."""


class Voice:
    """One call's."""

    def __init__(self, playout: Playout, sounds: Sounds) -> None:
        self.playout = playout
        self._sounds = sounds
        self._clips = 0
        self._filler: str | None = None  # the item played last that only covers for a silence
        self._speaker: Speaker | None = None

    def begin(self, speaker: Speaker) -> None:
        """There is media: `speaker` plays the playout."""
        self._speaker = speaker

    def ended(self) -> None:
        """The call is over: the playout learns what of all that was sent has been heard."""
        if self._speaker is not None:
            self._speaker.ended()

    def close(self) -> None:
        """Let go of the speaker: it knows the dialogue, which knows this."""
        self._speaker = None

    @property
    def audible(self) -> bool:
        """Whether anybody can hear it."""
        return self._speaker is not None

    # ---- audio of ours ----

    def queue(self, item_id: str, payload: bytes, *, filler: bool = False) -> None:
        """Have audio of ours heard after all that was queued before. Ids are used once.

        `filler`: it makes way for an answer.
        """
        item_id = item_id if item_id.startswith(LOCAL) else f"{LOCAL}{item_id}"
        if filler:
            self._filler = item_id
        self.playout.add(item_id, payload, origin="local")
        self.playout.finish(item_id)
        self.wake()

    def play_clip(self, name: str, *, ahead: bool = False, filler: bool = False) -> None:
        """Queue a message, the agent's own or the bundled one; `ahead` of an answer run dry.

        `filler`: as with `queue`.
        """
        self._clips += 1  # item ids are used once
        sound = self._sounds.message(name)
        item_id = f"{LOCAL}{name}:{self._clips}"
        if ahead and self.playout.add_ahead(item_id, sound):
            self._filler = item_id if filler else self._filler
            self.wake()
        elif not ahead:
            self.queue(item_id, sound, filler=filler)

    def make_way(self) -> None:
        """There is an answer: a filler that would go on for long is not heard to its end."""
        filler, self._filler = self._filler, None
        if filler is None or self._speaker is None:
            return
        if self._speaker.left_s(filler) > FILLER_REST_S:
            self._speaker.skip(filler)

    # ---- the speaker ----

    def wake(self) -> None:
        """There is new audio in the playout."""
        if self._speaker is not None:
            self._speaker.wake()

    def interrupt(self) -> list[Cut]:
        """Stop and empty the carrier's buffer, now; returns what became of every unheard item."""
        if self._speaker is None:  # audio that came before media: nothing of it was heard
            return self.playout.cut()
        return self._speaker.interrupt()

    def pause(self) -> None:
        """Stop now and keep what is unheard."""
        if self._speaker is not None:
            self._speaker.pause()

    def resume(self) -> None:
        """Go on where the caller stopped hearing."""
        if self._speaker is not None:
            self._speaker.resume()

    async def silent(self) -> None:
        """Wait until nothing is being said and nothing waits to be."""
        if self._speaker is not None:
            await self._speaker.silent()

    async def drained(self) -> None:
        """Wait until the carrier has played everything; returns at once where it is gone."""
        if self._speaker is not None:
            await self._speaker.drained()
