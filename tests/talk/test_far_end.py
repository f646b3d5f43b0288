"""What the judge of echoes is told of the far end is what goes out, sample for sample."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.rtp.peer import SDP, parameters
from tests.talk.test_buffered_far_end import RATE, Track
from tests.talk.test_fading import Nobody
from voiced import clips
from voiced.audio import pcm_to_ulaw
from voiced.formats import PCMU_8K
from voiced.leg import Leg, PlayingLeg
from voiced.playout import Playout
from voiced.rtp.media import Address, Paced
from voiced.rtp.packet import parse
from voiced.rtp.stream import MediaStream
from voiced.sip.leg import SipLeg
from voiced.talk.far_end import Ears
from voiced.talk.speaker import Speaker
from voiced.testing.leg import FakeLeg

SOUND = pcm_to_ulaw(clips.load("opening_hours").pcm)
SILENCE = 0xFF

steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 900)),
        st.tuples(st.just("say"), st.integers(1, 1500)),
        st.tuples(st.just("more"), st.integers(1, 900)),  # of an answer that has not ended
        st.tuples(st.just("clip"), st.integers(1, 500)),
        st.tuples(st.just("pause"), st.integers(0, 700)),
        st.tuples(st.just("interrupt"), st.just(0)),
        st.tuples(st.just("stall"), st.integers(1, 120)),
        st.tuples(st.just("key"), st.just(0)),
        st.tuples(st.just("hold"), st.integers(0, 300)),
    ),
    max_size=12,
).map(lambda drawn: [("say", 1500), ("wait", 90), *drawn])


class Wire:
    """A `MediaTransport` on Trio's clock: what has left, at the samples that timestamps tell."""

    def __init__(self) -> None:
        self.samples: dict[int, int] = {}
        self.first = 0.0
        self._timestamp: int | None = None
        self._paced: Paced | None = None

    def begin(self, paced: Paced) -> float:
        self._paced = paced
        self.first = trio.current_time()
        return self.first

    async def run(self) -> None:
        assert self._paced is not None
        due = self.first
        while True:
            await trio.sleep_until(due)
            while due <= trio.current_time():
                due = self._paced.tick(due, trio.current_time())

    def send_rtp(self, data: bytes, to: Address) -> None:
        packet = parse(data)
        if self._timestamp is None:
            self._timestamp = packet.timestamp
        if packet.payload_type == 0:
            at = (packet.timestamp - self._timestamp & 0xFFFFFFFF) + round(self.first * RATE)
            assert at not in self.samples
            self.samples |= {
                at + n: code for n, code in enumerate(packet.payload) if code != SILENCE
            }

    def send_rtcp(self, data: bytes, to: Address) -> None: ...

    def keep_time(self) -> None: ...

    def close(self) -> None: ...


class Carrier(FakeLeg):
    """Plays at once and knows at which sample it played what."""

    def __init__(self) -> None:
        super().__init__()
        self.samples: dict[int, int] = {}

    def send(self, payload: bytes) -> None:
        at = round(max(trio.current_time(), self._play_until) * RATE)
        super().send(payload)
        self.samples |= {at + n: code for n, code in enumerate(payload) if code != SILENCE}

    def clear(self) -> int:
        heard = super().clear()
        now = trio.current_time() * RATE
        self.samples = {at: code for at, code in self.samples.items() if at < now - 1e-3}
        return heard


class Call:
    """A speaker on a leg, and what its ears tell."""

    def __init__(self, leg: Leg) -> None:
        self.leg = leg
        self.track = Track()
        self.playout = Playout(PCMU_8K.bytes_per_ms)
        ears = Ears(RATE, 1, None, self.track)
        self.speaker = Speaker(self.playout, leg, leg.lead_ms, Nobody(), ears)
        self._items = self._at = 0

    def add(self, item_id: str, ms: int, origin: Any = "model") -> None:
        size = ms * 8
        self._at = (self._at + size) % (len(SOUND) - 12_000)
        self.playout.add(item_id, SOUND[self._at : self._at + size], origin=origin)
        self.speaker.wake()

    async def step(self, what: str, ms: int) -> bool:
        """False: it is for the leg to do."""
        if what == "wait":
            await trio.sleep(ms / 1000)
        elif what == "say":
            self._items += 1
            self.add(f"answer {self._items}", ms)
        elif what == "more":
            self.add(f"answer {self._items}", ms)
        elif what == "clip":
            self._items += 1
            self.add(f"clip {self._items}", ms, "local")
            self.playout.finish(f"clip {self._items}")
            self.speaker.wake()
        elif what == "pause":
            self.speaker.pause()
            await trio.sleep(ms / 1000)
            self.speaker.resume()
        elif what == "interrupt":
            self.speaker.interrupt()
            self._items += 1
        else:
            return False
        return True

    def told(self) -> dict[int, int]:
        """By sample, silence left out."""
        return {at: code for at, code in self.track.samples.items() if code != SILENCE}


@asynccontextmanager
async def running(call: Call) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.speaker.run)
        await trio.sleep(0.001)  # the first packet has left
        yield
        await trio.sleep(0.3)
        call.speaker.pause()
        nursery.cancel_scope.cancel()


@settings(deadline=None, max_examples=120)
@given(steps)
def test_where_we_play_ourselves(steps: list[tuple[str, int]]) -> None:
    """Whatever holds the packets up: stalls of ours, keys, hold; and packets that are part full."""

    async def main() -> None:
        wire = Wire()
        stream = MediaStream(wire, now=trio.current_time)
        stream.configure(parameters(remote_rtp=SDP))
        audio = cast(Any, SimpleNamespace(stream=stream, agreed=None, held=False))
        leg = SipLeg(audio, str, up=lambda: None, over=lambda ended: None)
        assert isinstance(leg, PlayingLeg)
        stream.begin()
        call = Call(leg)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.run)
            async with running(call):
                for what, ms in steps:
                    if await call.step(what, ms):
                        continue
                    if what == "stall":
                        clock.jump(ms / 1000)
                    elif what == "key":
                        stream.send_digits("5")
                    else:
                        stream.pause(True)
                        await trio.sleep(0.03)
                        call.speaker.pause()
                        await trio.sleep(ms / 1000)
                        stream.pause(False)
                        call.speaker.resume()
            nursery.cancel_scope.cancel()
        assert call.told() == wire.samples

    clock = MockClock(autojump_threshold=0)
    trio.run(main, clock=clock)


@settings(deadline=None, max_examples=60)
@given(steps)
def test_where_the_carrier_plays_in_time(steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        leg = Carrier()
        assert not isinstance(leg, PlayingLeg)
        call = Call(leg)
        async with running(call):
            for what, ms in steps:
                if not await call.step(what, ms) and what == "stall":
                    clock.jump(ms / 1000)
        assert call.told() == leg.samples

    clock = MockClock(autojump_threshold=0)
    trio.run(main, clock=clock)
