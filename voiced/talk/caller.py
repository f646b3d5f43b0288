"""The carrier's side of a call: audio to the model, keys to the dialogue, the end to the call.

Whoever listens in is told what the caller says before anything that happens after it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from voiced import audio
from voiced.engine import Session
from voiced.leg import CallerAudio, Digit, Held, Leg, LegClosed, Stopped
from voiced.talk.absence import Absence
from voiced.talk.dialogue import Dialogue
from voiced.talk.ending import Ending
from voiced.talk.near_end import CallerClock, Overheard

if TYPE_CHECKING:
    from voiced.call import Call

__all__ = ["Caller"]

MAX_KEYS: Final = 64  # keys that wait for a plugin's word; it has a second for each


class Caller:
    """Who talks through the leg of one call."""

    def __init__(
        self,
        call: Call,
        leg: Leg,
        session: Session,
        dialogue: Dialogue,
        absence: Absence,
        ending: Ending,
    ) -> None:
        self._record = call.record
        self._hooks = call.hooks
        self._end = call.end
        self._hung_up = "caller_hangup" if call.facts.direction == "inbound" else "callee_hangup"
        self._leg = leg
        self._session = session
        self._dialogue = dialogue
        self._confirming = dialogue.turns.confirming
        self._floor = dialogue.floor
        self._absence = absence
        self._ending = ending
        self._leg_format = call.leg_format
        self._model_format = call.leg_format
        self._to_model: audio.Converter | None = None
        self._resampler = call.agent.resampler
        bytes_per_s = 1000 * call.leg_format.bytes_per_ms
        self._clock = CallerClock(bytes_per_s)
        self._overheard: Overheard | None = None
        if "on_caller_audio" in call.hooks.wants and self._confirming is None:
            # Who judges hears every frame at once, and plugins with them.
            self._overheard = Overheard(bytes_per_s, self._clock, self._tell_heard)

    async def run(self, nursery: trio.Nursery) -> None:
        """Take what the leg brings until it is gone; plugins are asked about keys in `nursery`."""
        keys: trio.MemorySendChannel[str] | None = None
        if "on_digit" in self._hooks.wants:
            keys, pressed = trio.open_memory_channel[str](MAX_KEYS)
            nursery.start_soon(self._ask_about_keys, pressed)
        leg, overheard, judged = self._leg, self._overheard, self._confirming is not None
        try:
            while True:
                for event in await leg.receive():
                    match event:
                        case CallerAudio(payload):
                            if overheard is not None:
                                overheard.add(payload, trio.current_time())
                            elif judged:
                                self._judge(payload)
                            self._pass_on(payload)
                        case Digit(digit):
                            self._press(digit, keys)
                        case Held(held):
                            self.flush()
                            self._clock.reset()
                            self._absence.hold(held)
                        case Stopped(reason, hung_up, code):
                            self._record.log.info("carrier stopped the stream", why=reason)
                            self._end(code or (self._hung_up if hung_up else "carrier_lost"))
        except LegClosed:
            self._end("carrier_lost")

    def flush(self) -> None:
        """What the caller said until now comes before what happens next."""
        if self._overheard is not None:
            self._overheard.flush(trio.current_time())

    def _pass_on(self, payload: bytes) -> None:
        """Send the caller's audio to the model, in its format."""
        if self._ending.begun:
            return
        if self._floor.deaf:  # it hears nothing, but its time goes on
            payload = self._leg_format.silence(len(payload) // self._leg_format.bytes_per_ms)
        session = self._session
        form = session.input_format
        if form is not self._model_format:  # 50 times a second: comparing them would cost more
            if form != self._model_format:
                self._to_model = audio.converter(self._leg_format, form, self._resampler)
            self._model_format = form
        session.send_audio(payload if self._to_model is None else self._to_model.convert(payload))

    def _judge(self, payload: bytes) -> None:
        """Whoever judges gets the caller's audio, with the time at which it was said."""
        at_s = self._clock.said(len(payload), trio.current_time())
        if self._confirming is not None:
            self._confirming.caller(payload, at_s)
        self._tell_heard(payload, at_s)

    def _tell_heard(self, payload: bytes, at_s: float) -> None:
        self._hooks.emit("on_caller_audio", payload, self._record.media_ms(at_s))

    def _press(self, digit: str, keys: trio.MemorySendChannel[str] | None) -> None:
        self.flush()
        self._dialogue.turns.key_pressed()
        if keys is None:
            self._dialogue.digit(digit)
        else:
            with suppress(trio.WouldBlock):  # nobody presses that fast
                keys.send_nowait(digit)

    async def _ask_about_keys(self, pressed: trio.MemoryReceiveChannel[str]) -> None:
        """Keys go to the plugins first, one after the other; what none takes goes to the model."""
        async for key in pressed:
            if not await self._hooks.digit(key):
                self._dialogue.digit(key)
