"""The outbound half of a call: what waits in the playout goes to the leg, in time.

An assistant turn is a cancel scope here. Barge-in cancels that scope and nothing else, empties the
carrier's buffer and says what was heard, all in one synchronous step: no frame can slip between.
After a pause playback rises from silence within a few milliseconds; the positions are the same.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Final, Protocol

import trio

from voiced.leg import Leg, LegClosed
from voiced.playout import Chunk, Cut, Playout
from voiced.talk.fading import fade_in, fade_samples
from voiced.talk.far_end import Ears, FarEnd

__all__ = ["Listener", "Speaker"]

CHUNK_MS: Final = 400
"""The most that goes out in one piece, and so how seldom the speaker wakes while the carrier plays.
What a model sends meanwhile goes out as it comes; marks stand between pieces, and what was heard is
known between marks too."""

_TICK_S: Final = 0.002  # added to every wait: rounding must not make it two


class Listener(Protocol):
    """What the speaker tells the rest of the call. Called synchronously; must not block."""

    def audio_started(self, item_id: str, in_s: float) -> None:
        """The first audio of an item goes out; it will be heard in `in_s` seconds."""

    def turn_over(self) -> None:
        """Everything that was to be said has been heard."""

    def ran_dry(self) -> None:
        """All that came of an item has been heard, and more is to come."""


class Speaker:
    """Plays a `Playout` through a `Leg`, at most `lead_ms` ahead of what has been heard."""

    def __init__(
        self,
        playout: Playout,
        leg: Leg,
        lead_ms: int,
        listener: Listener,
        ears: Ears | None = None,
    ) -> None:
        self._playout = playout
        self._leg = leg
        self._ears = None if ears is None else ears.at(leg, playout.again)
        self._chunk = CHUNK_MS * leg.format.bytes_per_ms
        # Less than two pieces of lead would let the carrier run dry while the next is on its way.
        self._lead = max(lead_ms * leg.format.bytes_per_ms, 2 * self._chunk)
        self._listener = listener
        self._work = trio.lowlevel.ParkingLot()
        self._quiet = trio.lowlevel.ParkingLot()
        self._turn: trio.CancelScope | None = None
        self._item: str | None = None
        self._told = 0  # the position at which the playout was last told what is heard
        self._resumed: trio.Event | None = None  # paused until then
        self._broken_off = False  # a turn, by a pause: it ends after that, though all was heard
        self._risen: int | None = None  # samples since the resumption, until all have risen

    def wake(self) -> None:
        """There is something new in the playout."""
        self._work.unpark_all()

    def interrupt(self) -> list[Cut]:
        """Stop now: nothing more is sent, the carrier's buffer is emptied.

        Returns what became of every item that was not wholly heard.
        """
        if self._turn is not None:
            self._turn.cancel()
        self._item = None
        self._risen = None
        self._broken_off = False
        self._clear()
        cuts = self._playout.cut()
        self._quiet.unpark_all()
        return cuts

    def pause(self) -> None:
        """Stop now and keep what is unheard for `resume`: on hold nobody listens."""
        if self._resumed is None:
            self._resumed = trio.Event()
            if self._turn is not None:
                self._turn.cancel()
                self._broken_off = True
            self._clear()
            self._playout.rewind()
            self._risen = 0

    def _clear(self) -> None:
        """Empty the carrier's buffer; the playout learns what was heard."""
        self._told = 0
        heard = self._leg.clear()
        self._playout.heard_to(heard)
        if self._ears is not None:
            self._ears.cleared(heard, trio.current_time())

    def resume(self) -> None:
        """Go on where the caller stopped hearing."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def left_s(self, item_id: str) -> float:
        """Seconds until all that there is of an item has been heard; 0 where it has."""
        leg = self._leg
        end = self._playout.end_of(item_id)
        if end is None:
            return 0.0
        sent = leg.sent()
        unsent_ms = max(0, end - sent) / leg.format.bytes_per_ms
        return leg.seconds_until(min(end, sent)) + unsent_ms / 1000

    def skip(self, item_id: str) -> None:
        """Leave out the rest of an item of ours, and go on with what comes behind it.

        What is being heard goes on where the carrier has nothing of the item.
        """
        if not self._playout.on_its_way(item_id):
            self._playout.drop(item_id)
            return
        paused = self._resumed is not None
        self.pause()
        self._playout.drop(item_id)
        if not paused:
            self.resume()

    def ended(self) -> None:
        """The call is over: what the carrier has not played by now was not heard."""
        heard = self._leg.heard()
        self._playout.heard_to(heard)
        if self._ears is not None:
            self._ears.cleared(heard, trio.current_time())

    async def silent(self) -> None:
        """Wait until nothing is being said and nothing waits to be."""
        while not self._playout.idle:
            await self._quiet.park()

    async def drained(self) -> None:
        """Wait until the carrier has played all that was sent, or is gone."""
        with suppress(LegClosed):  # the caller did not wait for it
            await self._leg.drained()

    async def run(self) -> None:
        """The outbound task; ends only by cancellation."""
        while True:
            while self._playout.idle and not self._broken_off:
                await self._work.park()
            if self._resumed is not None:
                await self._resumed.wait()
                continue
            self._broken_off = False
            with trio.CancelScope() as self._turn:
                await self._play()
            interrupted, self._turn = self._turn.cancelled_caught, None
            self._item = None
            self._quiet.unpark_all()
            if not interrupted:
                self._listener.turn_over()

    async def _play(self) -> None:
        """One turn: until everything that is known has been heard."""
        leg, playout = self._leg, self._playout
        while True:
            await self._room()
            # Woken for new audio and told to stop in one step, a wait ends as if it had not been.
            await trio.lowlevel.checkpoint_if_cancelled()
            chunk = playout.next_chunk(self._chunk)
            if chunk is not None:
                if chunk.item_id != self._item:
                    self._item = chunk.item_id
                    self._listener.audio_started(chunk.item_id, leg.seconds_until(leg.sent()))
                payload = chunk.payload if self._risen is None else self._rise(chunk, self._risen)
                try:
                    if self._ears is not None:
                        self._listen(self._ears, payload)
                    leg.send(payload)
                    playout.sent(chunk)
                    await leg.ready()
                except LegClosed:
                    # The inbound task learns it too, with the reason, and ends the call.
                    await trio.sleep_forever()
            elif (left := leg.seconds_until(leg.sent())) > 0:
                # More may come while the rest is heard: whichever is first.
                with trio.move_on_after(left + _TICK_S):
                    await self._work.park()
            else:
                playout.heard_to(leg.heard())
                if leg.heard() < leg.sent():  # the clock was corrected a moment ago
                    await trio.sleep(_TICK_S)
                elif playout.idle:
                    if self._ears is not None:
                        self._ears.settle(math.inf)
                    return
                else:  # all is heard and the model owes the rest of the item
                    if self._ears is not None:
                        self._ears.settle(math.inf)
                    self._listener.ran_dry()
                    await self._work.park()

    def _rise(self, chunk: Chunk, risen: int) -> bytes:
        """What to send first after a pause: what goes on in the midst of a sound rises."""
        if chunk.offset == 0:  # it begins as it is meant to
            self._risen = None
            return chunk.payload
        form = self._leg.format
        faded = fade_in(chunk.payload, form, risen)
        risen += len(faded) // form.sample_bytes
        self._risen = risen if risen < fade_samples(form) else None
        return faded

    def _listen(self, ears: FarEnd, payload: bytes) -> None:
        """Tell the ears when what is sent now will be heard."""
        now = trio.current_time()
        ears.settle(now)
        ears.sent(payload, now + self._leg.seconds_until(self._leg.sent()), now)

    async def _room(self) -> None:
        """Wait until another piece may go out without more than the lead being unheard.

        Paced by `seconds_until`, which commits to nothing: what `heard` has said once it never
        takes back, and a carrier may yet turn out to have stalled. It is asked once a lead, so that
        the playout can let go of what has been played.
        """
        leg = self._leg
        position = leg.sent() + self._chunk - self._lead
        while (left := leg.seconds_until(position)) > 0:  # noqa: ASYNC110 (waits for a time)
            await trio.sleep(left + _TICK_S)
        if position - self._told >= self._lead:
            self._playout.heard_to(leg.heard())
            self._told = position
