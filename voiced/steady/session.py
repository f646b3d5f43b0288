"""A session that outlives its sessions: what a call talks to.

Events and commands pass through to the session that talks. `direct`, a task beside the call, makes
the next one when that is lost or about to expire; the call itself takes it over, inside `receive`,
so that everything the last one told has been acted on before the history is read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, final

import structlog
import trio

from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    EngineEvent,
    EngineFault,
    Lost,
    Plan,
    Ready,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolSpec,
)
from voiced.formats import AudioFormat
from voiced.steady.backoff import Backoff
from voiced.steady.course import PROVEN_S, Course, GiveUp, Pause
from voiced.steady.guard import Guarded, Lease
from voiced.steady.held import Held
from voiced.steady.memory import Memory
from voiced.steady.names import Names
from voiced.steady.owed import Ask, Owed
from voiced.steady.renewal import Renewal
from voiced.steady.utterance import Utterance

__all__ = ["SteadySession"]

log = structlog.get_logger("voiced.steady")

TURN_S: Final = 2.0
"""A session that has been given the caller's last turn as audio recognises it within this, or is
asked for the answer."""
LIMITED_S: Final = 1.5  # until an answer refused by a server's rate limit is asked for again
MAX_TRIES: Final = 2  # of one answer that fails, with one session
RENEW_AGAIN_S: Final = 5.0
RENEW_LIMIT_S: Final = 10.0  # for the fresh session to get ready
LOOK_S: Final = 0.2  # how often a quiet moment is looked for
NEVER: Final = math.inf

BROKE_OFF: Final = (
    'Your last answer was cut off by a fault of the line. The caller hears it up to: "{begun}" '
    "Go on from exactly there, without a greeting, an apology or a repetition."
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
        agent = plan.agent
        self._plan = plan
        self._sides = sides
        self._talks = talks
        self._nursery = nursery
        self._log = log.bind(call_id=plan.call_id)
        self._course = Course(len(sides), agent.reconnect_s, Backoff())
        self._memory = Memory(plan.history, plan.tools)
        self._owed = Owed()
        self._utterance = Utterance(plan.leg_format)
        self._renewal = Renewal(agent.transcription_model is not None)
        self._answers_turns = agent.barge_in != "confirm"
        self._output_format = plan.leg_format
        self._active: Held | None = None
        self._candidate: Held | None = None  # ready to take over
        self._pending: Held | None = None  # connecting
        self._leases: dict[int, Lease] = {}
        self._sessions = 0  # that have talked
        self._talking_since = 0.0
        self._proven = False
        self._announce = False  # tell of a fallback that was there from the beginning
        self._failed: tuple[str, Ask] | None = None  # the answer that has just failed
        self._ask_at = 0.0  # no answer is asked for before
        self._turn_at = NEVER  # then a turn that was replayed should have been recognised
        self._renew_at = NEVER
        self._over = False
        self._out: list[EngineEvent] = []  # of our own; a handful between two receives
        self._bell = trio.Event()  # for `receive`
        self._waiting: trio.CancelScope | None = None  # there while `receive` waits for the model
        self._changed = trio.Event()  # for `direct`

    # ---- the call's side -------------------------------------------------------------------

    @property
    def input_format(self) -> AudioFormat:
        """What `send_audio` takes; may change with `Ready` and `Resumed`: look each time."""
        return self._utterance.format

    @property
    def output_format(self) -> AudioFormat:
        """What `AgentAudio.payload` is; may change with `Ready` and `Resumed`."""
        return self._output_format

    async def receive(self) -> Sequence[EngineEvent]:
        """Return all engine events that one wake-up brought; blocks for ever after `Lost`."""
        while True:
            if self._out:
                await trio.lowlevel.checkpoint()
                return self._take_out()
            if self._announce and self._active is not None:
                self._announce = False
                self._out.append(self._resumed(self._active))
                continue
            if self._candidate is not None and self._may_swap(self._candidate):
                self._take_over(self._candidate)
                continue
            active = self._active
            if active is None:
                await self._bell.wait()
                self._bell = trio.Event()
                continue
            events: Sequence[EngineEvent] | None = None
            assert active.session is not None
            with trio.CancelScope() as self._waiting:
                events = await active.session.receive()
            self._waiting = None
            # A command given while the events travelled may have ended the session.
            if events is not None and self._active is active:
                taken = self._pass_on(active, events)
                if taken:
                    return taken

    def send_audio(self, payload: bytes) -> None:
        """The caller's audio; kept for the next session while there is none."""
        self._utterance.add(payload)
        active = self._active
        if active is not None:
            active.session.send_audio(payload)  # type: ignore[union-attr]  # it talks: it is there

    def respond(self, instructions: str | None = None) -> None:
        """Ask for an answer; while no session talks, of the next one."""
        if not self._over:
            self._owed.want(instructions)
            self._pump()

    def add_message(self, role: Literal["user", "assistant", "system"], text: str) -> None:
        """Put a text into the conversation, this session's and those to come."""
        if self._over:
            return
        self._memory.give(role, text)
        if self._active is not None and self._active.session is not None:
            self._active.session.add_message(role, text)

    def cancel(self) -> None:
        """Stop the running answer, want none any more, not even of the next session."""
        if self._over:
            return
        self._owed.cancel()
        self._failed = None
        self._turn_at = NEVER
        if self._active is not None and self._active.session is not None:
            self._active.session.cancel()

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Tell how much of an item was heard; of one that no living session has made, nothing."""
        active, name = self._owner(item_id)
        if active is not None and active.session is not None:
            active.session.truncate(name, content_index, audio_end_ms)

    def delete(self, item_id: str) -> None:
        """Take an item out of the conversation; one that no living session has made is not in."""
        active, name = self._owner(item_id)
        if active is not None and active.session is not None:
            self._utterance.understood(item_id)
            active.session.delete(name)

    def set_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Replace the functions that this session and those to come may call."""
        if self._over:
            return
        self._memory.tools = tuple(tools)
        if self._active is not None and self._active.session is not None:
            self._active.session.set_tools(tools)

    def tool_result(self, call_id: str, output: str) -> None:
        """Give what a function returned: as a text, if the session that called it is gone."""
        if self._over:
            return
        text = self._memory.returned(call_id, output)
        active = self._active
        if active is None or active.session is None:
            return  # the next one is told along with everything else
        if text is None:
            active.session.tool_result(active.names.inward(call_id) or call_id, output)
        elif text:
            active.session.add_message("system", text)

    def _owner(self, item_id: str) -> tuple[Held | None, str]:
        active = self._active
        name = None if active is None else active.names.inward(item_id)
        return (None, "") if name is None else (active, name)

    # ---- events ----------------------------------------------------------------------------

    def _pass_on(self, active: Held, events: Sequence[EngineEvent]) -> Sequence[EngineEvent]:
        """Note what the events mean; returns what the call is to be told."""
        if not active.names.same:
            events = [active.names.outward(event) for event in events]
        owed = self._owed
        for event in events:
            kind = type(event)
            if kind is AgentAudio:
                if owed.audio(len(event.payload)):  # type: ignore[union-attr]
                    self._utterance.answered()
            elif kind in _NOTES:
                _NOTES[kind](self, event)
        if self._failed is not None:
            self._on_failure(*self._failed)
        if self._active is not active:  # `Lost` is the last event of a session
            events = [event for event in events if type(event) is not Lost]
        if self._owed.waiting:
            self._pump()
        return [*events, *self._take_out()] if self._out else events

    def _take_out(self) -> list[EngineEvent]:
        out, self._out = self._out, []
        return out

    def _on_words(self, event: AgentTranscript) -> None:
        self._owed.words(event.item_id, event.text, final=event.final)

    def _on_audio_done(self, _event: AgentAudioDone) -> None:
        self._owed.audio_done()

    def _on_speech_started(self, _event: SpeechStarted) -> None:
        self._turn_at = NEVER
        self._utterance.started()

    def _on_speech_stopped(self, _event: SpeechStopped) -> None:
        self._utterance.stopped()

    def _on_committed(self, event: Committed) -> None:
        self._utterance.committed(event.item_id)
        self._renewal.committed(event.item_id, trio.current_time())
        if self._answers_turns:
            self._owed.turn()

    def _on_caller_transcript(self, event: CallerTranscript) -> None:
        if event.final:
            self._utterance.understood(event.item_id)
            self._renewal.transcribed(event.item_id)

    def _on_response_started(self, event: ResponseStarted) -> None:
        self._renewal.started(trio.current_time())
        if not self._owed.started(event.response_id) and self._active is not None:
            self._active.guarded.guard.record()

    def _on_response_done(self, event: ResponseDone) -> None:
        size, failed = self._owed.done(event.response_id, event.status)
        self._renewal.done(trio.current_time(), size / (1000 * self._output_format.bytes_per_ms))
        if failed is not None:
            self._failed = event.reason or "unknown", failed
        elif event.status == "completed":
            self._proven = True

    def _on_fault(self, event: EngineFault) -> None:
        if event.action == "retry" and self._failed is not None:
            self._owed.repeated(self._failed[1])  # the session sees to it
            self._failed = None

    def _on_tool_call(self, event: ToolCall) -> None:
        self._memory.called(event)
        self._utterance.answered()

    def _on_lost(self, event: Lost) -> None:
        self._lose(event)

    def _on_failure(self, code: str, ask: Ask) -> None:
        """An answer has failed and its session does nothing about it."""
        self._failed = None
        if self._active is None:
            self._owed.again(ask)
            return
        limited = code == "rate_limit_exceeded"
        message = "the server refuses to answer"
        if (limited or ask.tries + 1 >= MAX_TRIES) and self._other_side_is_free():
            self._owed.again(ask)
            self._lose(Lost(code, message, retryable=True), leave=True)
        elif ask.tries + 1 >= MAX_TRIES:
            self._owed.again(ask)
            self._lose(Lost(code, message, retryable=True))
        else:
            self._owed.again(ask)
            if limited:
                self._ask_at = trio.current_time() + LIMITED_S
                self._tell_director()

    # ---- losing one session, taking the next -----------------------------------------------

    def _lose(self, loss: Lost, *, leave: bool = False) -> None:
        """The session that talks is no more; `leave`: it is ours to leave."""
        active, now = self._active, trio.current_time()
        assert active is not None
        self._active = None
        active.release()
        if self._failed is not None:
            self._owed.again(self._failed[1])
        self._owed.lost(tools=bool(self._memory.tools))
        self._memory.lost()
        self._failed = None
        self._turn_at = self._renew_at = NEVER
        self._ask_at = 0.0
        self._announce = False  # who talks next is told in any case
        self._utterance.lost()
        guard = active.guarded.guard
        guard.count("lost", loss.code)
        proven = self._proven or now - self._talking_since >= PROVEN_S
        if leave:
            self._course.leave(now, loss)
        else:
            if not loss.retryable:
                guard.failed(loss.code, terminal=True)
            self._course.lost(now, loss, proven=proven)
        self._log.warning(
            "model session lost",
            engine=active.guarded.engine.name,
            code=loss.code,
            message=loss.message,
            retryable=loss.retryable,
        )
        step = self._course.next(now, self._wait_s)
        if isinstance(step, GiveUp) and self._candidate is None:
            self._end(loss)
        else:
            self._out.append(Reconnecting(loss.code, loss.message))
        self._tell_director()
        self._ring()

    def _may_swap(self, candidate: Held) -> bool:
        if not candidate.ready:
            return False
        if self._active is None:
            return True
        now = trio.current_time()
        if self._renewal.forced(now):
            return True
        return self._quiet(now)

    def _quiet(self, now: float) -> bool:
        busy = self._owed.any or self._utterance.open or self._memory.calls_open
        return not busy and self._renewal.quiet(now)

    def _take_over(self, held: Held) -> None:
        """From here on `held` talks. One step: nothing can come between."""
        now = trio.current_time()
        session, old = held.session, self._active
        assert session is not None
        self._candidate = None
        if old is not None:  # renewed
            old.release(give_back=True)
            del self._leases[old.side]
            old.guarded.guard.count("renewed", old.guarded.engine.name)
            self._log.info("model session renewed", engine=held.guarded.engine.name)
            self._memory.lost()
            if self._owed.running:
                self._out.append(Reconnecting("session_limit", "the session is too old"))
            self._owed.lost(tools=bool(self._memory.tools))
        turn = self._utterance.finished
        if turn:
            self._owed.turns_begin()
        first = self._sessions == 0
        self._sessions += 1
        held.names = Names(self._sessions)
        self._keep_lease(held)
        self._course.adopted(held.side)
        self._talks(held.side)
        self._active = held
        self._talking_since, self._proven = now, False
        self._output_format = session.output_format
        self._renewal.adopted(now, held.born, held.ends_at)
        self._renew_at = self._renewal.due_at
        if held.tools is not self._memory.tools:
            session.set_tools(self._memory.tools)
        for said in self._memory.take_over():
            session.add_message(said.role, said.text)
        audio = self._utterance.take_over(session.input_format, self._plan.agent.resampler)
        if audio:
            session.send_audio(audio)
        self._turn_at = now + TURN_S if turn else NEVER
        self._out += held.early
        if first:
            self._out.append(Ready())
            self._announce = held.side != 0
        else:
            self._out.append(self._resumed(held))
        self._pump()
        self._tell_director()

    def _resumed(self, held: Held) -> Resumed:
        engine = held.guarded.engine
        answering = self._owed.any or self._turn_at < NEVER
        return Resumed(engine.name, engine.model, fallback=held.side != 0, answering=answering)

    def _keep_lease(self, held: Held) -> None:
        """The place of the session that talks is the call's; all others are given back."""
        for side, lease in list(self._leases.items()):
            if lease is not held.lease:
                lease.release()
                del self._leases[side]
        self._leases[held.side] = held.lease

    def _end(self, loss: Lost) -> None:
        """Nothing is left to try."""
        self._over = True
        self._owed.cancel()
        self._out.append(loss)
        self.close()
        self._ring()

    # ---- answers, within what the engine allows --------------------------------------------

    def _pump(self) -> None:
        """Ask the session for what is wanted."""
        while self._owed.waiting and self._active is not None:
            if trio.current_time() < self._ask_at:
                return
            guard = self._active.guarded.guard
            if not guard.request():
                self._starve()
                return
            self._ask(self._active, self._owed.next())

    def _ask(self, active: Held, ask: Ask) -> None:
        session = active.session
        assert session is not None
        if ask.begun is None:
            session.respond(ask.instructions)
            return
        note = BROKE_OFF.format(begun=ask.begun)
        if ask.instructions is None:
            session.add_message("system", note)
            session.respond(None)
        else:  # they stand in place of the session's, so the note belongs with them
            session.respond(f"{ask.instructions}\n{note}")

    def _starve(self) -> None:
        """The engine has given its answers for this minute: another gives ours, or it waits."""
        active = self._active
        assert active is not None
        guard = active.guarded.guard
        if not self._owed.running and self._other_side_is_free():
            guard.count("no_request", guard.name)
            loss = Lost("requests_per_minute", "the engine is at its limit", retryable=True)
            self._lose(loss, leave=True)
            return
        if self._ask_at <= trio.current_time():
            guard.count("no_request", guard.name)
        self._ask_at = trio.current_time() + max(guard.request_wait_s(), LOOK_S)
        self._tell_director()

    def _other_side_is_free(self) -> bool:
        assert self._active is not None
        return any(
            side != self._active.side
            and self._course.usable(side)
            and self._wait_s(side, True) == 0
            for side in range(len(self._sides))
        )

    def _wait_s(self, side: int, alternative: bool) -> float:
        guard = self._sides[side].guard
        return guard.wait_s(alternative=alternative, leased=side in self._leases)

    # ---- the task beside the call ----------------------------------------------------------

    async def direct(self) -> None:
        """Make sessions as they are needed, until there is nothing left to try."""
        self._course.start(trio.current_time())
        while not self._over:
            if self._active is not None:
                await self._tend()
            elif self._candidate is not None:
                await self._wait_until(NEVER)  # for the call to take it
            else:
                await self._connect()

    async def _connect(self) -> None:
        """One step of the course, as long as nothing talks."""
        step = self._course.next(trio.current_time(), self._wait_s)
        if isinstance(step, GiveUp):
            self._end(step.loss)
            return
        if isinstance(step, Pause):
            for guarded in self._sides:
                guarded.guard.tell(self._changed)
            await self._wait_until(trio.current_time() + step.seconds)
            return
        lease = self._leases.get(step.side) or self._sides[step.side].guard.lease()
        if lease is None:
            return  # somebody was quicker; the course asks the guard again
        self._leases[step.side] = lease
        self._course.begun()
        held = self._open(step.side, lease)
        limit = NEVER if step.limit_s is None else trio.current_time() + step.limit_s
        await self._settled(held, limit)
        if self._over:
            return
        if held.ready:
            held.attempt.succeeded()
            self._candidate = held
            self._ring()
            return
        loss = held.lost or Lost("connect_timeout", "no session in time", retryable=True)
        held.attempt.failed(loss.code, terminal=not loss.retryable)
        held.release()
        self._course.failed(trio.current_time(), step.side, loss)
        self._sides[step.side].guard.count("attempt_failed", loss.code)
        self._log.info(
            "no model session", engine=held.guarded.engine.name, code=loss.code, why=loss.message
        )

    async def _tend(self) -> None:
        """While one talks: what is due by the clock, its successor above all."""
        looking = NEVER if self._candidate is None else trio.current_time() + LOOK_S
        waiting = self._ask_at if self._owed.waiting else NEVER
        due = min(self._renew_at, self._turn_at, waiting, looking)
        await self._wait_until(due)
        if self._active is None or self._over:
            return
        now = trio.current_time()
        if now >= self._turn_at:  # it made nothing of the audio
            self._turn_at = NEVER
            self._owed.want(None)
        self._pump()
        if self._candidate is not None:
            if self._may_swap(self._candidate):
                self._ring()
        elif now >= self._renew_at:
            await self._renew(self._active)

    async def _renew(self, old: Held) -> None:
        """Make a session ready beside the one that talks."""
        guard = old.guarded.guard
        self._renew_at = trio.current_time() + RENEW_AGAIN_S
        if guard.wait_s(alternative=False, leased=True) or (lease := guard.lease()) is None:
            return
        held = self._open(old.side, lease)
        await self._settled(held, trio.current_time() + RENEW_LIMIT_S, beside=old)
        if self._over:
            return
        if held.ready:
            held.attempt.succeeded()
            self._candidate = held
            self._renew_at = NEVER
            self._ring()
            return
        if held.lost is not None:
            held.attempt.failed(held.lost.code, terminal=not held.lost.retryable)
        held.release(give_back=True)

    def _open(self, side: int, lease: Lease) -> Held:
        guarded = self._sides[side]
        tools = self._memory.tools
        held = Held(side, guarded, lease, guarded.guard.attempt(), tools, self._on_held)
        plan = dataclasses.replace(self._plan, tools=tools, history=tuple)
        self._nursery.start_soon(held.run, plan)
        return held

    async def _settled(self, held: Held, deadline: float, beside: Held | None = None) -> None:
        """Wait until `held` is ready or lost; no longer than `beside` talks."""
        self._pending = held
        while not (held.ready or held.lost or self._over):
            if self._active is not beside or trio.current_time() >= deadline:
                break
            await self._wait_until(min(deadline, NEVER if beside is None else self._next_due()))
            if beside is not None:
                self._pump()
        self._pending = None

    def _next_due(self) -> float:
        return min(self._turn_at, self._ask_at if self._owed.waiting else NEVER)

    async def _wait_until(self, due: float) -> None:
        with trio.move_on_at(due):
            await self._changed.wait()
        for guarded in self._sides:
            guarded.guard.forget(self._changed)
        self._changed = trio.Event()

    def _on_held(self, held: Held) -> None:
        if held is self._active and held.lost is not None:  # it broke down while it talked
            self._lose(held.lost)
        elif held is self._candidate and held.lost is not None:
            self._candidate = None
            if self._active is not None:  # it was to succeed that one
                held.lease.release()
        self._tell_director()

    def _tell_director(self) -> None:
        self._changed.set()

    def _ring(self) -> None:
        """Have `receive` look around."""
        self._bell.set()
        if self._waiting is not None:
            self._waiting.cancel()

    def close(self) -> None:
        """Let go of every session and of every place; commands do nothing any more."""
        self._over = True
        for held in (self._active, self._candidate, self._pending):
            if held is not None:
                held.release(give_back=True)
                self._leases = {
                    s: each for s, each in self._leases.items() if each is not held.lease
                }
        self._active = self._candidate = self._pending = None
        for lease in self._leases.values():  # between two attempts
            lease.release()
        self._leases.clear()
        self._tell_director()


_S = SteadySession
_NOTES: Final[dict[type[EngineEvent], Callable[[SteadySession, Any], None]]] = {
    AgentAudioDone: _S._on_audio_done,
    AgentTranscript: _S._on_words,
    CallerTranscript: _S._on_caller_transcript,
    Committed: _S._on_committed,
    EngineFault: _S._on_fault,
    Lost: _S._on_lost,
    ResponseDone: _S._on_response_done,
    ResponseStarted: _S._on_response_started,
    SpeechStarted: _S._on_speech_started,
    SpeechStopped: _S._on_speech_stopped,
    ToolCall: _S._on_tool_call,
}
