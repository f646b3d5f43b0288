"""A session that outlives its sessions: what a call talks to.

Events and commands pass through to the session that talks. When that is lost, or about to expire,
the `director` makes another one ready, and the call itself takes it over, inside `receive`: so
everything that the last one told has been acted on before the history is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, final

import structlog
import trio

from voiced.engine import (
    DEAF,
    AgentAudio,
    EngineEvent,
    Lost,
    Plan,
    Ready,
    Reconnecting,
    Resumed,
    Session,
    ToolSpec,
)
from voiced.formats import AudioFormat
from voiced.steady.asking import LIMITED, Asking
from voiced.steady.course import PROVEN_S
from voiced.steady.director import Director
from voiced.steady.guard import Guarded
from voiced.steady.held import Held
from voiced.steady.ledger import Ledger
from voiced.steady.names import Names
from voiced.steady.replay import Replay
from voiced.steady.waiting import Waiting

__all__ = ["SteadySession"]

log = structlog.get_logger("voiced.steady")

UNHEARD: Final = (
    "A fault of the line kept you from hearing what the caller has just said. Ask them, in one "
    "short sentence, to say it again."
)


@final
class SteadySession:
    """One call's conversation (`voiced.engine.Session`), from `SteadyEngine.open`."""

    def __init__(
        self,
        plan: Plan,
        sides: Sequence[Guarded],
        talks: Callable[[int], None],
        nursery: trio.Nursery,
    ) -> None:
        """`talks` is told which side talks from now on."""
        self._plan = plan
        self._talks = talks
        self.input_format = plan.leg_format
        """What `send_audio` takes; may change with `Ready` and `Resumed`: look each time."""
        self._ledger = Ledger(plan, trio.current_time, self._count_answer)
        self._keep_audio = self._ledger.utterance.add
        self._director = Director(plan, sides, nursery, self)
        self._asking = Asking(self._ledger, self._lose, self._other_is_free, self._director.wake)
        self._active: Held | None = None
        self._live: Session | None = None  # the active one's
        self._sessions = 0  # that have talked
        self._talking_since = 0.0
        self._announce = False  # tell of a fallback that was there from the beginning
        self._delayed = False  # the first session, which has been told
        self._left = False  # an engine that works, for the other one; no answer since
        self._replay = Replay(interrupts=plan.agent.barge_in == "immediate")
        self._over = False
        self._out: list[EngineEvent] = []  # of our own; a handful between two receives
        self._waiting = Waiting(plan.call_id)
        self._log = log.bind(call_id=plan.call_id)

    # ---- the call's side -------------------------------------------------------------------

    @property
    def output_format(self) -> AudioFormat:
        """What `AgentAudio.payload` is; may change with `Ready` and `Resumed`."""
        return self._ledger.output_format

    async def receive(self) -> Sequence[EngineEvent]:
        """Return all engine events that one wake-up brought; blocks for ever after `Lost`."""
        while True:
            if self._out:
                await trio.lowlevel.checkpoint()
                return self._take_out()
            active, live = self._active, self._live
            if self._announce and active is not None:
                self._announce = False
                self._out.append(self._resumed(active))
            elif self._director.candidate is not None and self._may_swap(self._director.candidate):
                self._take_over(self._director.candidate)
            elif active is None or live is None:
                await self._waiting.for_ring()
            else:
                events: Sequence[EngineEvent] = active.late
                if events:
                    active.late = []
                else:
                    events = await self._waiting.for_events(active, live)
                # A command given while they travelled may have ended the session.
                if events and self._active is active:
                    events = self._pass_on(active, events)
                    if events:
                        return events

    def send_audio(self, payload: bytes) -> None:
        """The caller's audio; kept for the next session while there is none."""
        self._keep_audio(payload)
        if self._live is not None:
            self._live.send_audio(payload)

    def respond(self, instructions: str | None = None) -> None:
        """Ask for an answer; while no session talks, of the next one."""
        if not self._over:
            self._ledger.owed.want(instructions)
            self._pump()

    def add_message(self, role: Literal["user", "assistant", "system"], text: str) -> None:
        """Put a text into the conversation, this session's and those to come."""
        if not self._over:
            self._ledger.memory.give(role, text)
            if self._live is not None:
                self._live.add_message(role, text)

    def cancel(self) -> None:
        """Stop the running answer, want none any more, not even of the next session."""
        if not self._over:
            self._ledger.cancel()
            if self._live is not None:
                self._live.cancel()

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Tell how much of an item was heard; of one that a former session made, nothing."""
        name = self._inward(item_id)
        if self._live is not None and name is not None:
            self._ledger.renewal.cut(trio.current_time())
            self._live.truncate(name, content_index, audio_end_ms)

    def delete(self, item_id: str) -> None:
        """Take an item out of the conversation; one that a former session made is not in it."""
        self._ledger.utterance.understood(item_id)  # nor is it heard by a session to come
        name = self._inward(item_id)
        if self._live is not None and name is not None:
            self._live.delete(name)

    def set_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Replace the functions that this session and those to come may call."""
        if not self._over:
            self._ledger.memory.tools = tuple(tools)
            if self._live is not None:
                self._live.set_tools(tools)

    def tool_result(self, call_id: str, output: str) -> None:
        """Give what a function returned: as a text, if the session that called it is gone."""
        if self._over:
            return
        text = self._ledger.memory.returned(call_id, output)
        name = self._inward(call_id)
        if self._live is None:
            return  # the next one is told along with everything else
        if text:
            self._live.add_message("system", text)
        elif text is None and name is not None:
            self._live.tool_result(name, output)

    def _inward(self, name: str) -> str | None:
        return None if self._active is None else self._active.names.inward(name)

    # ---- events ----------------------------------------------------------------------------

    def _pass_on(self, active: Held, events: Sequence[EngineEvent]) -> Sequence[EngineEvent]:
        """Note what the events mean; returns what the call is to be told."""
        if not active.names.same:
            events = [active.names.outward(event) for event in events]
        ledger, replay = self._ledger, self._replay
        for place, event in enumerate(events):
            if type(event) is AgentAudio:
                ledger.audio(event.item_id, len(event.payload))
            elif type(event) is Lost:
                before = replay.news(events[:place])
                limited = event.code == LIMITED  # which the next session would find out as well
                self._lose(active, event, leave=limited and self._other_is_free(active))
                return [*before, *self._take_out()]
            else:
                ledger.note(event)
        if replay.awaited:  # before what follows ends the session
            events = replay.news(events)
        if ledger.failed is not None:
            assert active.session is not None
            self._asking.failed(active, active.session, *ledger.failed)
        elif ledger.owed.waiting:
            self._pump()
        return [*events, *self._take_out()] if self._out else events

    def _pump(self) -> None:
        """Ask the session that talks for what is wanted."""
        if self._active is not None and self._live is not None:
            self._asking.ask(self._active, self._live)

    def _other_is_free(self, active: Held) -> bool:
        """Whether the call may leave the engine that talks; not back and forth, with no answer."""
        in_vain = self._left and not self._ledger.answered
        return not in_vain and self._director.other_side_is_free(active.side)

    def _take_out(self) -> list[EngineEvent]:
        out, self._out = self._out, []
        return out

    def _count_answer(self) -> None:
        if self._active is not None:
            self._active.guarded.guard.record()

    # ---- losing one session, taking the next -----------------------------------------------

    def _lose(self, active: Held, loss: Lost, *, leave: bool = False) -> None:
        """The session that talks is no more; `leave`: it is ours to leave."""
        self._active = self._live = None
        self._announce = False  # who talks next is told in any case
        self._replay.over()
        self._asking.anew()
        proven = self._ledger.answered or trio.current_time() - self._talking_since >= PROVEN_S
        self._left = leave or (self._left and not self._ledger.answered)
        self._ledger.lost()
        self._ledger.utterance.lost()
        if loss.code == DEAF and not self._ledger.owed.any:  # somebody waits for an answer
            self._ledger.memory.give("system", UNHEARD)
            self._ledger.owed.want(None)
        active.guarded.guard.count("lost", loss.code)
        self._log.info(
            "model session lost",
            engine=active.guarded.engine.name,
            code=loss.code,
            message=loss.message,
            retryable=loss.retryable,
        )
        if self._director.lost(active, loss, proven=proven, leave=leave):
            self._out.append(Reconnecting(loss.code, loss.message))
            self.ring()
        else:
            self.give_up(loss)

    def _may_swap(self, candidate: Held) -> bool:
        now = trio.current_time()
        return self._active is None or self._ledger.renewal.forced(now) or self._ledger.quiet(now)

    def _take_over(self, held: Held) -> None:
        """From here on `held` talks. One step: nothing can come between."""
        session, old, ledger = held.session, self._active, self._ledger
        assert session is not None
        first = self._sessions == 0
        self._sessions += 1
        held.names = Names(self._sessions)
        now = self._talking_since = trio.current_time()
        if old is not None:
            if ledger.owed.running:
                self._out.append(Reconnecting("session_limit", "the session is at its limit"))
            ledger.lost()
            self._left = self._left and not ledger.answered
            old.guarded.guard.count("renewed", old.guarded.engine.name)
            self._log.info("model session renewed", engine=held.guarded.engine.name)
            self._director.retired(old)
        ledger.taken_over()
        ledger.output_format = session.output_format
        ledger.renewal.adopted(now, held.born, held.ends_at)
        self._active, self._live = held, session
        utterance = ledger.utterance
        self._replay.begin(open_turn=utterance.open, finished=utterance.finished)
        self._director.took_over(held, ledger.renewal.due_at)
        self._talks(held.side)
        if held.tools is not ledger.memory.tools:
            session.set_tools(ledger.memory.tools)
        for said in ledger.memory.take_over(first=first):
            session.add_message(said.role, said.text)
        audio = ledger.utterance.take_over(session.input_format, self._plan.agent.resampler)
        self.input_format = session.input_format
        if audio:
            session.send_audio(audio)
        self._out += held.faults
        if first:
            self._out.append(Ready())
            self._announce = held.side != 0
        else:
            self._out.append(self._resumed(held))
        self._pump()

    def _resumed(self, held: Held) -> Resumed:
        engine = held.guarded.engine
        billed = engine.billed(self._plan.agent)
        return Resumed(
            engine.name,
            engine.model,
            held.side != 0,
            self._ledger.answering,
            billed.transcription,
            billed.speech,
        )

    # ---- for the director and the engine ---------------------------------------------------

    @property
    def active(self) -> Held | None:
        """The session that talks."""
        return self._active

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The functions that the model may call."""
        return self._ledger.memory.tools

    async def direct(self) -> None:
        """The task beside the call."""
        await self._director.run()

    def due(self) -> float:
        """When something is due by the clock."""
        return min(self._ledger.turn_at, self._asking.due)

    def on_time(self) -> None:
        """Do what is due."""
        if trio.current_time() >= self._ledger.turn_at:  # it made nothing of the replayed turn
            self._ledger.turn_missed()
            self._replay.over()
        self._pump()
        if self._director.candidate is not None and self._may_swap(self._director.candidate):
            self.ring()

    def ring(self) -> None:
        """Have `receive` look around."""
        self._waiting.ring()

    def broke_down(self, held: Held, loss: Lost) -> None:
        """The session that talks has failed from within."""
        self._lose(held, loss)

    def delayed(self, loss: Lost) -> None:
        """The first session is not to be had at once: the call covers for it, as for a lost one."""
        if not self._sessions and not self._delayed:
            self._delayed = True
            self._out.append(Reconnecting(loss.code, loss.message))
            self.ring()

    def give_up(self, loss: Lost) -> None:
        """Nothing is left to try: this is the end of it."""
        self._ledger.cancel()
        self.close()
        self._out.append(loss)
        self.ring()

    def close(self) -> None:
        """Let go of everything; commands do nothing any more."""
        self._over = True
        self._director.close()
        self._active = self._live = None
