"""Media streams and the calls that wait for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from tests.twilio.carrier import CALL_SID, connected_carrier
from voiced.handshake import RequestHead
from voiced.leg import LegEvent, Stopped, Transferred
from voiced.streams import Streams
from voiced.twilio.leg import TwilioLeg
from voiced.twiliocalls import TwilioCalls
from voiced.web.gate import Gate


class WaitingCall:
    """A call that takes its leg and ends when that stops."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.facts = SimpleNamespace(carrier_call_id=CALL_SID)
        self.awaits_leg = True
        self.ended = trio.Event()
        self.heard: list[LegEvent] = []
        self._nursery = nursery

    def attach(self, leg: TwilioLeg) -> None:
        self.awaits_leg = False
        self._nursery.start_soon(self._listen, leg)

    async def _listen(self, leg: TwilioLeg) -> None:
        while not (self.heard and isinstance(self.heard[-1], Stopped)):
            self.heard += await leg.receive()
        self.ended.set()


async def transferred(call_sid: str, target: str) -> Transferred:
    return Transferred(True)


async def test_a_stream_is_looked_after(autojump_clock: MockClock) -> None:
    async with connected_carrier() as (server, carrier):
        call = WaitingCall(carrier.nursery)
        calls = cast(TwilioCalls, SimpleNamespace(claim=lambda path: call, redirect=transferred))
        head = cast(RequestHead, SimpleNamespace(path="/twilio/media/x"))
        carrier.connected()
        carrier.start()
        carrier.say(b"hello")
        began = trio.current_time()
        await Streams(cast(Gate, None), calls).handle(server, head)
        assert trio.current_time() - began == pytest.approx(30)
        assert isinstance(call.heard[-1], Stopped)
        assert call.heard[-1].code == "media_timeout"
