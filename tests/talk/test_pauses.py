"""Playback that is paused and resumed, by the real legs: nothing is lost, nothing is said twice.

To the sample, whenever it is; but what goes on in the midst of a sound rises from silence.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from types import SimpleNamespace
from typing import Any, Final, cast

import numpy as np
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.rtp.peer import SDP, parameters
from tests.talk.test_far_end import Wire
from tests.talk.test_speaker import Told
from tests.twilio.carrier import CALL_SID, STREAM_SID, start_message
from voiced.audio import ulaw_to_pcm
from voiced.formats import PCMU_8K
from voiced.leg import Leg
from voiced.playout import Playout
from voiced.rtp.media import Address
from voiced.rtp.packet import parse as parse_rtp
from voiced.rtp.stream import MediaStream
from voiced.sip.leg import SipLeg
from voiced.talk.fading import FADE_MS
from voiced.talk.speaker import Speaker
from voiced.twilio.events import Start, parse
from voiced.twilio.leg import TwilioLeg

SILENCE: Final = 0xFF
LOUD: Final = [*range(0x20), *range(0x80, 0xA0)]
"""Of these no sample is silence, not even the first of a rise."""

SOUND: Final = bytes(Random(7).choices(LOUD, k=100_000))
RISE: Final = FADE_MS * PCMU_8K.bytes_per_ms


class Tape(Wire):
    """Of RTP, the audio that left."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = bytearray()

    def send_rtp(self, data: bytes, to: Address) -> None:
        super().send_rtp(data, to)
        packet = parse_rtp(data)
        if packet.payload_type == 0:
            self.heard += bytes(code for code in packet.payload if code != SILENCE)


class Carrier:
    """Twilio's end of a WebSocket, `delay` seconds away each way: plays sample by sample."""

    backlog = 0

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.heard = bytearray()
        self._queued: list[tuple[float, bytes]] = []  # played from then on
        self._marks: list[tuple[float, str]] = []  # reached then
        self._free_at = 0.0
        self._changed = trio.Event()
        self._sent, self._arrives = trio.open_memory_channel[tuple[float, bytes]](math.inf)
        self._echoed, self._returns = trio.open_memory_channel[tuple[float, str]](math.inf)

    # ---- voiced.websocket.WebSocket

    def send_nowait(self, *messages: bytes) -> None:
        for message in messages:
            self._sent.send_nowait((trio.current_time() + self.delay, message))

    async def drain(self) -> None: ...

    async def receive(self) -> Sequence[bytes]:
        at, name = await self._returns.receive()
        await trio.sleep_until(at + self.delay)
        body = {"event": "mark", "streamSid": STREAM_SID, "mark": {"name": name}}
        return [json.dumps(body | {"sequenceNumber": "2"}).encode()]

    # ---- the telephone

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._echo)
            async for at, message in self._arrives:
                await trio.sleep_until(at)
                self._take(json.loads(message), at)
                self._changed.set()

    def _take(self, event: dict[str, Any], at: float) -> None:
        if event["event"] == "media":
            payload = base64.b64decode(event["media"]["payload"])
            self._free_at = max(self._free_at, at)
            self._queued.append((self._free_at, payload))
            self._free_at += len(payload) / 8000
        elif event["event"] == "mark":
            self._marks.append((max(at, self._free_at), event["mark"]["name"]))
        else:
            self.stop(at)
            self._free_at = at
            self._marks = [(min(due, at), name) for due, name in self._marks]

    def stop(self, at: float) -> None:
        """What has been played by then was heard, and no more."""
        for start, payload in self._queued:
            self.heard += payload[
                : max(0, math.floor((at - start) * 8000 + 1e-6))
            ]  # what rounding takes
        self._queued.clear()

    async def _echo(self) -> None:
        """Send marks back when they are reached."""
        while True:
            while self._marks and self._marks[0][0] <= trio.current_time():
                self._echoed.send_nowait(self._marks.pop(0))
            self._changed = trio.Event()
            with trio.move_on_at(self._marks[0][0] if self._marks else math.inf):
                await self._changed.wait()


class Booth:
    """A speaker on a leg, what it was given, and where it was paused."""

    def __init__(self, leg: Leg) -> None:
        self.leg = leg
        self.told = Told()
        self.playout = Playout(PCMU_8K.bytes_per_ms)
        self.speaker = Speaker(self.playout, leg, leg.lead_ms, self.told)
        self.given = bytearray()
        self.cuts: set[int] = set()  # bytes that had been heard at each pause
        self._items = 0
        self.open = False

    def add(self, size: int) -> None:
        """More of the item that is open, or of a new one."""
        if not self.open:
            self._items += 1
            self.open = True
        sound = SOUND[len(self.given) : len(self.given) + size]
        self.given += sound
        assert self.playout.add(f"a{self._items}", sound)
        self.speaker.wake()

    def finish(self) -> None:
        if self.open:
            self.open = False
            self.playout.finish(f"a{self._items}")
            self.speaker.wake()

    def pause(self) -> None:
        self.speaker.pause()
        self.cuts.add(self.playout.statistics().heard)

    async def near_the_end(self, by_ms: float) -> None:
        """Wait until so long before, or after, the last sample that is known has been heard."""
        while self.playout.unsent:
            await trio.sleep(0.005)
        at = trio.current_time() + self.leg.seconds_until(self.leg.sent())
        await trio.sleep_until(max(trio.current_time(), at + by_ms / 1000))

    async def step(self, what: str, size: int, ms: float, hold: Callable[[bool], None]) -> None:
        if what == "wait":
            await trio.sleep(ms / 1000)
        elif what == "add":
            self.add(size)
        elif what == "finish":
            self.finish()
        else:
            if what.startswith("near"):
                await self.near_the_end(ms % 10 - 5)
            if what == "add, pause":
                self.add(size)
            if what == "hold":
                hold(True)
                await trio.sleep(size % 40 / 1000)
            self.pause()
            if what == "pause, add":
                self.add(size)
            if what == "pause twice":
                await trio.sleep(0.01)
                self.pause()
            if "finish" in what:
                self.finish()
            await trio.sleep(ms / 1000)
            if what == "hold":
                hold(False)
            self.speaker.resume()

    async def play(self, steps: list[tuple[str, int, float]], hold: Callable[[bool], None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.speaker.run)
            for what, size, ms in steps:
                await self.step(what, size, ms, hold)
            self.finish()
            with trio.fail_after(len(self.given) / 8000 + 5):
                await self.speaker.silent()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

    def judge(self, heard: bytes) -> None:
        """What was heard is what was given, but for what rose from silence."""
        assert len(heard) == len(self.given)
        rises = {at for cut in self.cuts for at in range(cut, cut + RISE)}
        differ = {at for at, code in enumerate(heard) if code != self.given[at]}
        assert differ <= rises
        was, now = (
            np.abs(np.frombuffer(ulaw_to_pcm(bytes(each)), "<i2").astype(int))
            for each in (self.given, heard)
        )
        assert (now <= was).all()
        figures = self.playout.statistics()
        assert (figures.heard, figures.dropped, figures.refused) == (len(heard), 0, 0)
        assert self.playout.idle
        if self.given:
            assert self.told.words[-1] == "over"
            pairs = itertools.pairwise(self.told.words)
            assert not [pair for pair in pairs if pair == ("over", "over")]


@asynccontextmanager
async def by_rtp() -> AsyncIterator[tuple[Leg, bytearray, Callable[[bool], None]]]:
    tape = Tape()
    stream = MediaStream(tape, now=trio.current_time)
    stream.configure(parameters(remote_rtp=SDP))
    audio = cast(Any, SimpleNamespace(stream=stream, agreed=None, held=False))
    leg = SipLeg(audio, str, up=lambda: None, over=lambda ended: None)
    stream.begin()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tape.run)
        yield leg, tape.heard, stream.pause
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def by_twilio(delay: float) -> AsyncIterator[tuple[Leg, bytearray, Callable[[bool], None]]]:
    carrier = Carrier(delay)
    start = parse(json.dumps(start_message()).encode())
    assert isinstance(start, Start)
    assert start.start.call_sid == CALL_SID
    async with trio.open_nursery() as nursery:
        nursery.start_soon(carrier.run)
        leg = TwilioLeg(cast(Any, carrier), start)

        async def listen() -> None:
            while True:
                await leg.receive()

        nursery.start_soon(listen)
        yield leg, carrier.heard, lambda held: None
        await trio.sleep(1)
        carrier.stop(trio.current_time())
        nursery.cancel_scope.cancel()


steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "wait",
                "add",
                "add",
                "finish",
                "pause",
                "pause twice",
                "near the end",
                "near the end",
                "near the end, finish",
                "add, pause",
                "pause, add",
                "hold",
            ]
        ),
        st.sampled_from([1, 7, 40, 160, 801, 4000, 8003]),
        st.floats(0, 900) | st.sampled_from([0.0, 4.9, 5.1, 20.0, 400.0]),
    ),
    max_size=12,
).map(lambda drawn: [("add", 4000, 0.0), ("wait", 0, 90.0), *drawn])


def over(make: Callable[[], Any], drawn: list[tuple[str, int, float]]) -> None:
    async def main() -> None:
        async with make() as (leg, heard, hold):
            await trio.sleep(0.5)
            booth = Booth(leg)
            await booth.play(drawn, hold)
        booth.judge(bytes(heard))

    trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(deadline=None, max_examples=150)
@given(steps)
def test_where_we_play_ourselves(steps: list[tuple[str, int, float]]) -> None:
    over(by_rtp, steps)


@settings(deadline=None, max_examples=150)
@given(steps, st.sampled_from([0.0, 0.01, 0.08]))
@example([("add", 4000, 0.0), ("near the end", 1, 1.7492039109966981)], 0.0)
def test_where_the_carrier_plays(steps: list[tuple[str, int, float]], delay: float) -> None:
    over(lambda: by_twilio(delay), steps)


@pytest.mark.parametrize("by_ms", [-5, -1, 0, 0.5, 1, 1.9, 2.1, 5])
@pytest.mark.parametrize("late", [False, True], ids=["all had come", "its end comes meanwhile"])
def test_a_turn_that_is_paused_at_its_end_ends(by_ms: float, late: bool) -> None:
    """All of it was heard, though the speaker had not noticed yet: who waits for it is told."""
    for make in (by_rtp, lambda: by_twilio(0.01)):

        async def main(make: Callable[[], Any] = make) -> None:
            async with make() as (leg, _, _):
                await trio.sleep(0.5)
                booth = Booth(leg)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(booth.speaker.run)
                    booth.add(4000)
                    if not late:
                        booth.finish()
                    await booth.near_the_end(by_ms)
                    booth.pause()
                    booth.finish()
                    await trio.sleep(1)
                    booth.speaker.resume()
                    await trio.sleep(1)
                    assert booth.told.words.count("over") == 1
                    assert booth.playout.idle
                    nursery.cancel_scope.cancel()

        trio.run(main, clock=MockClock(autojump_threshold=0))
