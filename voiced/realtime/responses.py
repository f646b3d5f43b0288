"""Which responses are wanted, asked for, running and over. Sans-I/O; knows no wire format.

The service allows one response at a time in the default conversation. Its turn detection creates
responses without being asked, nothing in `response.created` says whose one is, and a
`response.create` that comes second is refused and forgotten by the server. So ours are queued, at
most one is outstanding, and one that was refused goes back to the head of the queue.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, final

from voiced.realtime.recent import Recent

__all__ = ["MAX_QUEUED", "MAX_REFUSALS", "Ask", "Responses", "Running"]

# A call has at most a greeting, a prompt and a farewell to ask for; more than this is a mistake,
# and the oldest of them is the most stale.
MAX_QUEUED: Final = 8
# Each refusal waits for a whole response to end; after three the moment has passed.
MAX_REFUSALS: Final = 3
# Late events trail their response by seconds. One response is over before the next but one begins.
REMEMBERED: Final = 64


@dataclass(slots=True, eq=False)
class Ask:
    """A response that voiced wants. `cancelled` once the caller of `cancel` wants it no more.

    `turn`: the number of the caller's turn that it answers, where voiced has found that.
    """

    instructions: str | None = None
    turn: int = 0
    refusals: int = 0
    cancelled: bool = False


@dataclass(slots=True, eq=False)
class Running:
    """A response between created and done. `muted` drops its audio and words."""

    response_id: str
    ask: Ask | None  # ours, as far as can be told
    muted: bool = False


@final
class Responses:
    """The life of every response in the default conversation."""

    def __init__(self) -> None:
        self._queue: deque[Ask] = deque(maxlen=MAX_QUEUED)
        self._pending: tuple[str, Ask] | None = None  # sent, nothing heard of it
        self._last: tuple[str, Ask] | None = None  # the last one sent, to know its refusal by
        self._running: dict[str, Running] = {}
        self._active: str | None = None  # the newest of the running ones
        self._blocked = False  # the server is busy with a response that we have not seen
        self._finished = Recent(REMEMBERED)
        self._elsewhere = Recent(REMEMBERED)  # out-of-band ones

    @property
    def owed(self) -> bool:
        """Whether an answer is to come that somebody still wants."""
        return (
            bool(self._queue)
            or (self._pending is not None and not self._pending[1].cancelled)
            or any(not running.muted for running in self._running.values())
        )

    def want(self, ask: Ask) -> None:
        """Queue `ask`. A plain one behind a plain one says nothing new."""
        if ask.instructions is None and self._queue and self._queue[-1].instructions is None:
            self._queue[-1].turn = max(self._queue[-1].turn, ask.turn)
            return
        self._queue.append(ask)

    def want_first(self, ask: Ask) -> None:
        """Put `ask` at the head of the queue: it has had its turn already."""
        if len(self._queue) < MAX_QUEUED:
            self._queue.appendleft(ask)

    def next_to_send(self) -> Ask | None:
        """Take from the queue what may be sent now; `sent` has to follow."""
        if self._pending or self._active is not None or self._blocked or not self._queue:
            return None
        return self._queue.popleft()

    def sent(self, event_id: str, ask: Ask) -> None:
        """`ask` went out as `event_id`."""
        self._pending = self._last = (event_id, ask)

    def outstanding(self, event_id: str | None) -> bool:
        """Whether nothing has been heard yet of what went out as `event_id`."""
        return self._pending is not None and self._pending[0] == event_id

    def refused(self, event_id: str | None) -> Ask | None:
        """Return our response that the server did not create, if the error is about one.

        An error without `event_id` (clones) is about the outstanding one. One that came after a
        `response.created` tells that that response was not ours.
        """
        if self._pending and event_id in (None, self._pending[0]):
            ask = self._pending[1]
            self._pending = None
            return ask
        if self._last is None or self._last[0] != event_id:
            return None
        ask = self._last[1]
        self._last = None
        for running in self._running.values():
            if running.ask is ask:
                running.ask = None
        return ask

    def busy_with(self, response_id: str | None) -> None:
        """The server says it is at work on this response (None: it does not say which)."""
        if self._active is None and (response_id is None or response_id not in self._finished):
            self._blocked = True

    def created(self, response_id: str) -> Running | None:
        """A response has begun; None for one that is known already."""
        if response_id in self._running or response_id in self._finished:
            return None
        ask = None
        if self._pending is not None:
            ask = self._pending[1]
            self._pending = None
        running = Running(response_id, ask, muted=ask is not None and ask.cancelled)
        self._running[response_id] = running
        if len(self._running) > MAX_QUEUED:  # a server that never ends what it begins
            self._finish(next(iter(self._running)))
        self._active = response_id
        self._blocked = False
        return running

    def elsewhere(self, response_id: str) -> None:
        """An out-of-band response has begun: none of its events concern the caller."""
        self._elsewhere.add(response_id)

    def done(self, response_id: str) -> Running | None:
        """A response is over; None where that is known already, or where it is out-of-band."""
        if response_id in self._finished or response_id in self._elsewhere:
            return None
        running = self._running.get(response_id) or Running(response_id, None, muted=True)
        self._finish(response_id)
        return running

    def _finish(self, response_id: str) -> None:
        self._running.pop(response_id, None)
        self._finished.add(response_id)
        self._blocked = False
        if self._active == response_id:
            self._active = None

    def audible(self, response_id: str) -> bool:
        """Whether audio and words of this response are to be delivered."""
        running = self._running.get(response_id)
        return running is not None and not running.muted

    def muted(self, response_id: str) -> bool:
        """Whether this is a response of the conversation that was cancelled and still runs."""
        running = self._running.get(response_id)
        return running is not None and running.muted

    def adoptable(self, response_id: str) -> bool:
        """Whether this may be a response whose `response.created` a clone has not sent.

        Not beside another one: what runs there is no part of the default conversation.
        """
        return (
            bool(response_id)
            and self._active is None
            and response_id not in self._finished
            and response_id not in self._elsewhere
        )

    def release(self, response_id: str) -> None:
        """Wait for this response no more; its `response.done` still counts if it comes."""
        if self._active == response_id:
            self._active = None

    def cancel(self, told: float = math.inf) -> list[str]:
        """Want nothing any more; returns the responses to be cancelled at the server.

        Answers to turns later than the turn `told` are not meant: nobody knew of them.
        One whose `response.created` is still to come is cancelled then: before it, the server
        would ignore a `response.cancel`.
        """
        kept = [ask for ask in self._queue if ask.turn > told]
        self._queue.clear()
        self._queue.extend(kept)
        # Outstanding, or taken for created and perhaps refused yet.
        if self._last is not None and self._last[1].turn <= told:
            self._last[1].cancelled = True
        audible = [
            running
            for running in self._running.values()
            if not running.muted and (running.ask is None or running.ask.turn <= told)
        ]
        for running in audible:
            running.muted = True
        return [running.response_id for running in audible]
