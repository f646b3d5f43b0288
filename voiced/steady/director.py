"""The task beside a call that makes its sessions.

The first, the next after a loss, the successor of one that will expire: which, and when, the
`course` says. The call takes them over itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, Protocol, final

import structlog
import trio

from voiced.engine import DEAF, Lost, Plan, ToolSpec
from voiced.steady.backoff import Backoff
from voiced.steady.course import Course, GiveUp, Pause
from voiced.steady.guard import Guarded, Lease
from voiced.steady.held import Held
from voiced.steady.ledger import NEVER

__all__ = ["LOOK_S", "Conversation", "Director"]

log = structlog.get_logger("voiced.steady")

RENEW_AGAIN_S: Final = 5.0  # after a successor could not be made
RENEW_LIMIT_S: Final = 10.0  # for a successor to get ready
LOOK_S: Final = 0.2
"""How often a quiet moment is looked for, while a successor stands ready."""


class Conversation(Protocol):
    """What the director asks of the session that the call sees."""

    @property
    def active(self) -> Held | None:
        """The session that talks."""

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The functions that the model may call."""

    def due(self) -> float:
        """When something is due by the clock."""

    def on_time(self) -> None:
        """Do what is due."""

    def ring(self) -> None:
        """Look whether `candidate` is to take over."""

    def broke_down(self, held: Held, loss: Lost) -> None:
        """The session that talks has failed from within."""

    def delayed(self, loss: Lost) -> None:
        """No session can be made for now."""

    def give_up(self, loss: Lost) -> None:
        """There is nothing left to try."""


@final
class Director:
    """Owns the sessions that do not talk yet, and the call's places among `max_sessions`."""

    def __init__(
        self,
        plan: Plan,
        sides: Sequence[Guarded],
        nursery: trio.Nursery,
        conversation: Conversation,
    ) -> None:
        self.candidate: Held | None = None
        """Ready to take over."""
        self._plan = plan
        self._sides = sides
        self._nursery = nursery
        self._conversation = conversation
        self._course = Course(len(sides), plan.agent.reconnect_s, Backoff())
        self._pending: Held | None = None  # connecting
        self._leases: dict[int, Lease] = {}  # by side; of a session's successor it has its own
        self._renew_at = NEVER
        self._attentive = plan.attentive
        self._over = False
        self._changed = trio.Event()
        self._log = log.bind(call_id=plan.call_id)

    # ---- what the conversation tells

    def wake(self) -> None:
        """Something has changed, or is due at another time."""
        self._changed.set()

    def took_over(self, held: Held, renew_at: float) -> None:
        """`held` talks now. Its place is the call's; all others are given back."""
        self.candidate = None
        for side, lease in list(self._leases.items()):
            if lease is not held.lease:
                lease.release()
                del self._leases[side]
        self._leases[held.side] = held.lease
        self._course.adopted(held.side)
        self._renew_at = renew_at
        self.wake()

    def retired(self, held: Held) -> None:
        """`held` talks no more, as its successor does."""
        held.release(give_back=True)
        del self._leases[held.side]

    def lost(self, held: Held, loss: Lost, *, proven: bool, leave: bool) -> bool:
        """`held` talks no more; returns whether there is anything left to try.

        `proven`: it had shown that it works; `leave`: it works, but the call leaves it.
        """
        held.release()
        now = trio.current_time()
        # Once in a call: what is heard on a line that no server hears is no speech.
        self._attentive = self._attentive and loss.code != DEAF
        if leave:
            self._course.leave(now, loss)
        else:
            if not loss.retryable:
                held.guarded.guard.failed(loss.code, terminal=True)
            self._course.lost(now, loss, proven=proven)
        self._renew_at = NEVER
        self.wake()
        if self.candidate is not None:
            return True
        return not isinstance(self._course.next(now, self._wait_s), GiveUp)

    def other_side_is_free(self, side: int) -> bool:
        """Whether another engine than `side` would take the call now, and answer it."""
        return any(
            other != side
            and self._course.usable(other)
            and not self._wait_s(other, True)
            and not guarded.guard.request_wait_s()
            for other, guarded in enumerate(self._sides)
        )

    def close(self) -> None:
        """Let go of every session and of every place."""
        self._over = True
        for held in (self._conversation.active, self.candidate, self._pending):
            if held is not None:
                held.release(give_back=True)
                mine = self._leases.get(held.side)
                if mine is held.lease:
                    del self._leases[held.side]
        self.candidate = self._pending = None
        for lease in self._leases.values():  # between two attempts
            lease.release()
        self._leases.clear()
        self.wake()

    # ---- the task

    async def run(self) -> None:
        """Make sessions as they are needed, until there is nothing left to try."""
        self._course.start(trio.current_time())
        while not self._over:
            if self._conversation.active is not None:
                await self._tend(self._conversation.active)
            elif self.candidate is not None:
                await self._wait_until(NEVER)  # for the call to take it
            else:
                await self._connect()

    async def _connect(self) -> None:
        """One step of the course, while nothing talks."""
        step = self._course.next(trio.current_time(), self._wait_s)
        if isinstance(step, GiveUp):
            self._conversation.give_up(step.loss)
            return
        if isinstance(step, Pause):
            self._conversation.delayed(self._course.loss)
            for guarded in self._sides:
                guarded.guard.tell(self._changed)
            await self._wait_until(trio.current_time() + step.seconds)
            return
        guard = self._sides[step.side].guard
        lease = self._leases.get(step.side) or guard.lease()
        assert lease is not None  # the guard has just said so
        self._leases[step.side] = lease
        self._course.begun()
        held = self._open(step.side, lease)
        limit = NEVER if step.limit_s is None else trio.current_time() + step.limit_s
        await self._settled(held, limit, None)
        if self._over:
            return
        if held.ready:
            self._stand_by(held)
            return
        loss = held.lost or Lost("connect_timeout", "no session in time", retryable=True)
        held.attempt.failed(loss.code, terminal=not loss.retryable)
        held.release()
        self._course.failed(trio.current_time(), step.side, loss, held.retry_after_s)
        guard.count("attempt_failed", loss.code)
        self._log.info("no model session", engine=guard.name, code=loss.code, why=loss.message)

    async def _tend(self, active: Held) -> None:
        """While one talks: what is due by the clock, its successor above all."""
        due = min(self._conversation.due(), self._renew_at)
        if self.candidate is not None:
            due = min(due, trio.current_time() + LOOK_S)
        await self._wait_until(due)
        if self._over or self._conversation.active is not active:
            return
        self._conversation.on_time()
        if self.candidate is None and trio.current_time() >= self._renew_at:
            await self._renew(active)

    async def _renew(self, active: Held) -> None:
        """Make a successor ready beside the session that talks."""
        guard = active.guarded.guard
        self._renew_at = trio.current_time() + RENEW_AGAIN_S
        if guard.wait_s(alternative=False, leased=True):
            return
        lease = guard.lease()
        if lease is None:  # then it expires, and is replaced in the place that it had
            return
        held = self._open(active.side, lease)
        await self._settled(held, trio.current_time() + RENEW_LIMIT_S, active)
        if self._over:
            return
        if held.ready:
            self._renew_at = NEVER
            self._stand_by(held)
            return
        if held.lost is not None:
            held.attempt.failed(held.lost.code, terminal=not held.lost.retryable)
        held.release(give_back=True)

    def _stand_by(self, held: Held) -> None:
        held.attempt.succeeded()
        self.candidate = held
        self._conversation.ring()

    def _open(self, side: int, lease: Lease) -> Held:
        guarded, tools = self._sides[side], self._conversation.tools
        held = Held(side, guarded, lease, guarded.guard.attempt(), tools, self._on_held)
        # Whoever asks for the history tells it: not the session, of which there may be several.
        attentive = self._attentive
        plan = dataclasses.replace(self._plan, tools=tools, history=tuple, attentive=attentive)
        self._nursery.start_soon(held.run, plan)
        return held

    async def _settled(self, held: Held, deadline: float, beside: Held | None) -> None:
        """Wait until `held` is ready or lost; no longer than `beside` talks."""
        self._pending = held
        while not (held.ready or held.lost or self._over):
            if self._conversation.active is not beside or trio.current_time() >= deadline:
                break
            due = deadline if beside is None else min(deadline, self._conversation.due())
            await self._wait_until(due)
            if beside is not None:
                self._conversation.on_time()
        self._pending = None

    async def _wait_until(self, due: float) -> None:
        with trio.move_on_at(due):
            await self._changed.wait()
        for guarded in self._sides:
            guarded.guard.forget(self._changed)
        self._changed = trio.Event()

    def _wait_s(self, side: int, alternative: bool) -> float:
        guard = self._sides[side].guard
        return guard.wait_s(alternative=alternative, leased=side in self._leases)

    def _on_held(self, held: Held) -> None:
        if held.lost is not None:
            if held is self._conversation.active:
                self._conversation.broke_down(held, held.lost)
            elif held is self.candidate:
                self.candidate = None
                if self._conversation.active is not None:  # it was to succeed that one
                    held.lease.release()
        self.wake()
