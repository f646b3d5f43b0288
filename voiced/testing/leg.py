"""A telephone without a network: what a test says into it, and what was heard from it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import trio

from voiced.formats import PCMU_8K, AudioFormat
from voiced.leg import (
    CallerAudio,
    Digit,
    Held,
    LegClosed,
    LegEvent,
    Stopped,
    Transferred,
    Unsupported,
)

__all__ = ["FakeLeg"]


class FakeLeg:
    """A carrier that plays what it is sent at once, in Trio's time (`voiced.leg.Leg`).

    What it was told stands in `played` (when it was sent, and the audio), `clears` (when the
    agent was silenced), `transfers`, `pressed` and `hung_up`.
    """

    lead_ms = 2000

    def __init__(self, form: AudioFormat = PCMU_8K) -> None:
        # Unbounded: a test sends what it likes, and ends.
        self._to_call, self._inbound = trio.open_memory_channel[LegEvent](math.inf)
        self.format = form
        self._bytes_per_s = 1000 * form.bytes_per_ms
        self._sent = 0
        self._play_until = trio.current_time()  # the buffer runs dry then
        self.played: list[tuple[float, bytes]] = []
        self.clears: list[float] = []
        self.hung_up = False
        self.closed = False
        self.transfers: list[str] = []
        self.pressed: list[str] = []
        self.stalled: trio.Event | None = None

    # ---- what a test does as the caller ----

    def say(self, payload: bytes) -> None:
        """Audio in the leg's format, any length."""
        self._to_call.send_nowait(CallerAudio(payload))

    def press(self, digit: str) -> None:
        """One key of `0-9 * # A-D`."""
        self._to_call.send_nowait(Digit(digit))

    def hold(self, held: bool) -> None:
        """Put the agent on hold, or take it back."""
        self._to_call.send_nowait(Held(held))

    def hang_up_as_caller(self) -> None:
        """End the call as callers do."""
        self._to_call.send_nowait(Stopped("stop", hung_up=True))

    def drop(self) -> None:
        """End it as networks do."""
        self.closed = True
        self._to_call.close()

    def bytes_played(self) -> int:
        """All that was ever sent to the caller."""
        return sum(len(payload) for _, payload in self.played)

    async def outcome(self, target: str) -> Transferred:
        """What becomes of a transfer; a test puts another function in its place."""
        raise Unsupported("nowhere to go")

    # ---- the Leg protocol ----

    async def receive(self) -> Sequence[LegEvent]:
        """What the test did."""
        try:
            return [await self._inbound.receive()]
        except trio.EndOfChannel:
            raise LegClosed from None

    def send(self, payload: bytes) -> None:
        """Audio for the caller."""
        if self.closed:
            raise LegClosed
        now = trio.current_time()
        self.played.append((now, payload))
        self._play_until = max(now, self._play_until) + len(payload) / self._bytes_per_s
        self._sent += len(payload)

    async def ready(self) -> None:
        """Wait while `stalled` is an event that is not set."""
        if self.closed:
            raise LegClosed
        if self.stalled is not None:
            await self.stalled.wait()

    def sent(self) -> int:
        """Bytes since the last clear."""
        return self._sent

    def heard(self) -> int:
        """Bytes heard since the last clear."""
        left = max(0.0, self._play_until - trio.current_time())
        return max(0, self._sent - math.ceil(round(left * self._bytes_per_s, 6)))

    def seconds_until(self, position: int) -> float:
        """How long until `position` is heard."""
        return max(0, position - self.heard()) / self._bytes_per_s

    def clear(self) -> int:
        """Forget what is not heard yet."""
        heard = self.heard()
        self.clears.append(trio.current_time())
        self._sent = 0
        self._play_until = trio.current_time()
        return heard

    async def drained(self) -> None:
        """Wait until all has been heard."""
        await trio.sleep(max(0.0, self._play_until - trio.current_time()))

    async def transfer(self, target: str) -> Transferred:
        """Note the target, and do what `outcome` says."""
        self.transfers.append(target)
        return await self.outcome(target)

    def send_digits(self, digits: str) -> None:
        """Note the keys."""
        self.pressed.append(digits)

    def facts(self) -> dict[str, int | float | str | bool | None]:
        """The leg's figures."""
        return {"sent": self._sent}

    async def hang_up(self) -> None:
        """Note it."""
        self.hung_up = True
