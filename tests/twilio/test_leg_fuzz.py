"""The leg under random carriers and random use, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twilio.carrier import Carrier, frames_of, stream
from tests.twilio.test_inbound import messages
from voiced.frames import BinaryMessage
from voiced.leg import CallerAudio, Digit, LegClosed, Stopped
from voiced.twilio.leg import TwilioLeg
from voiced.websocket import WebSocketClosed


class Run:
    """One call; what may be raised and what must hold is checked at every step."""

    def __init__(self, leg: TwilioLeg, carrier: Carrier) -> None:
        self.leg = leg
        self.carrier = carrier
        self.heard = 0
        self.stopped = False

    def check(self) -> None:
        heard, sent = self.leg.heard(), self.leg.sent()
        assert self.heard <= heard <= sent, "heard goes back, or beyond what was sent"
        self.heard = heard
        assert self.leg.seconds_until(sent) >= 0
        assert self.leg.seconds_until(0) == 0

    async def receive(self) -> None:
        while True:
            try:
                events = await self.leg.receive()
            except LegClosed:
                assert self.stopped, "LegClosed before Stopped"
                return
            assert not self.stopped
            assert events
            for event in events:
                assert isinstance(event, CallerAudio | Digit | Stopped)
            self.stopped = isinstance(events[-1], Stopped)
            self.check()

    async def send(self, size: int) -> None:
        before = self.leg.sent()
        try:
            self.leg.send(frames_of(size))
            assert self.leg.sent() == before + size * 8
            await self.leg.ready()
        except LegClosed:
            return

    async def clear(self, _: int) -> None:
        sent = self.leg.sent()
        assert self.heard <= self.leg.clear() <= sent
        assert self.leg.sent() == 0
        self.heard = 0

    async def drained(self, patience: int) -> None:
        with trio.move_on_after(patience / 100):
            with suppress(LegClosed):
                await self.leg.drained()

    async def hang_up(self, _: int) -> None:
        await self.leg.hang_up()

    async def sleep(self, hundredths: int) -> None:
        await trio.sleep(hundredths / 100)

    async def say(self, message: bytes | BinaryMessage) -> None:
        with suppress(WebSocketClosed):
            if isinstance(message, BinaryMessage):
                self.carrier.raw(message.payload, binary=True)
            else:
                self.carrier.raw(message)

    async def echo(self, number: int) -> None:
        """A mark of ours comes back once more, or too early."""
        marks = self.carrier.of("mark")
        with suppress(WebSocketClosed):
            if marks:
                self.carrier.tell("mark", marks[number % len(marks)]["mark"])

    async def cut(self, _: int) -> None:
        self.carrier.ws.abort("cut")


NUMBER = st.integers(0, 300)
ENDINGS = st.tuples(st.sampled_from([Run.hang_up, Run.cut]), NUMBER)
STEPS = st.one_of(
    st.tuples(st.just(Run.say), messages()),
    st.tuples(st.sampled_from([Run.send, Run.sleep, Run.clear, Run.drained, Run.echo]), NUMBER),
    st.tuples(st.sampled_from([Run.send, Run.sleep]), NUMBER),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(STEPS, max_size=25),
    ENDINGS,
    st.lists(STEPS, max_size=4),
    st.sampled_from([0.0, 0.04]),
    st.booleans(),
)
def test_random_use(
    steps: list[tuple[Callable[..., object], object]],
    ending: tuple[Callable[..., object], object],
    afterwards: list[tuple[Callable[..., object], object]],
    delay: float,
    echoes: bool,
) -> None:
    async def call() -> None:
        async with stream(delay=delay, echoes=echoes) as (leg, carrier):
            run = Run(leg, carrier)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.receive)
                for step, argument in [*steps, ending, *afterwards]:
                    await step(run, argument)  # type: ignore[misc]
                    run.check()
            assert run.stopped

    trio.run(call, clock=trio.testing.MockClock(autojump_threshold=0))
