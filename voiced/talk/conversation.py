"""The live half of a call: what there is while a session is open, put together and started.

`Caller` takes the carrier's audio to the model, the speaker the model's audio to the carrier, the
dialogue decides; beside them stand what happens in silence, on hold, and at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from voiced.engine import Session
from voiced.hooks.calls import NO_HOOKS
from voiced.leg import Leg
from voiced.plugin import Greeting
from voiced.states import CallState
from voiced.talk.absence import Absence
from voiced.talk.caller import Caller
from voiced.talk.dialogue import Dialogue
from voiced.talk.ending import Ending
from voiced.talk.far_end import Ears
from voiced.talk.greeting import GREETING, Opening
from voiced.talk.speaker import Speaker
from voiced.talk.transferring import Transfers

if TYPE_CHECKING:
    from voiced.call import Call

__all__ = ["Conversation"]


class Conversation:
    """One call's, in the call's `nursery`; it lasts as long as that."""

    def __init__(self, call: Call, session: Session, nursery: trio.Nursery) -> None:
        self._call = call
        self._nursery = nursery
        self._caller: Caller | None = None
        self.session = session
        self.dialogue = Dialogue(call, session, nursery)
        self.absence = Absence(call.record, call.voice, self.dialogue)
        self.transfers = Transfers(call.record, self.absence, call.start, call.end, call.ended)
        self.ending = Ending(
            call.record,
            call.agent,
            call.leg_format.bytes_per_ms,
            call.voice,
            self.dialogue,
            self.absence,
            call.start,
            media=call.media_began,
            transfer=call.transfer,
            end=call.end,
        )
        if specs := call.toolbox.specs():
            session.set_tools(specs)
        if call.facts.direction == "inbound":
            call.record.to(CallState.ANSWERING)
        nursery.start_soon(self.dialogue.run)

    async def open(self) -> bool:
        """Put what is heard first into the playout; says whether anything greets."""
        call, agent, log = self._call, self._call.agent, self._call.record.log
        await call.sounds.load()
        opening = Opening(
            agent, call.leg_format, call.sounds.read, call.prompts, call.voice.queue, log
        )
        planned = Greeting()
        if "greeting" in call.hooks.wants:
            planned = await call.hooks.greeting(planned)
        await opening.prepare(planned)
        if planned.audio is not None and opening.supplied:
            if planned.audio.text:
                self.dialogue.truth.seed(f"{GREETING}0", planned.audio.text)
        elif agent.greeting_text or agent.greeting:
            self.dialogue.connection.greet()
            return True
        return opening.recorded

    def begin(self, leg: Leg, greets: bool) -> None:
        """There is media: `greets` says whether the agent has the first word."""
        call, dialogue, start = self._call, self.dialogue, self._nursery.start_soon
        lead_ms = call.agent.lead_ms or leg.lead_ms
        speaker = Speaker(call.voice.playout, leg, lead_ms, dialogue.hearing, self._ears())
        call.voice.begin(speaker)
        call.record.to(CallState.MEDIA_READY)
        if self.ending.begun:  # the model was lost while the carrier still connected
            call.record.to(CallState.ENDING)
            dialogue.close()
        else:
            call.record.to(CallState.GREETING if greets else CallState.LISTENING)
        self._caller = Caller(call, leg, self.session, dialogue, self.absence, self.ending)
        start(self._caller.run, self._nursery)
        start(speaker.run)
        start(dialogue.patience.watch)
        if dialogue.turns.confirming is not None:
            start(dialogue.turns.confirming.watch)
        if call.hooks is not NO_HOOKS:
            start(call.clipboard.run)
        if call.costs.capped:
            start(call.costs.watch, self.ending.wind_down)

    def _ears(self) -> Ears | None:
        """Make ears for whoever wants to know what the caller hears; None if nobody does."""
        hooks, record, form = self._call.hooks, self._call.record, self._call.leg_format
        confirming = self.dialogue.turns.confirming
        wanted = "on_agent_audio" in hooks.wants
        if not wanted and confirming is None:
            return None

        def heard(payload: bytes, at_s: float) -> None:
            hooks.emit("on_agent_audio", payload, record.media_ms(at_s))

        return Ears(
            1000 * form.bytes_per_ms,
            form.sample_bytes,
            heard if wanted else None,
            None if confirming is None else confirming.judge,
        )

    def ended(self) -> None:
        """The call is over: what the caller did not stay to hear is no part of the transcript."""
        call = self._call
        if self._caller is not None:
            self._caller.flush()
        call.voice.ended()
        self.dialogue.answers.lost()  # whose usage nobody tells any more
        self.dialogue.truth.ended()
        for cut in call.voice.playout.cut():
            call.record.cut(cut)
