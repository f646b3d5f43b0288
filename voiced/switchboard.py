"""The calls of a daemon, whatever carries them: slots, agents, the nursery in which they run."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
import trio
from msgspec import UNSET

from voiced import metrics
from voiced.budget import Budget
from voiced.call import Call, Services, no_hooks
from voiced.completing import Used
from voiced.config.types import Agent, Config, EngineConfig, Number, PipelineEngine
from voiced.cost import cost_usd, expected_usd_s, told
from voiced.engine import Engine
from voiced.formats import AudioFormat
from voiced.hooks import House
from voiced.journal import Added
from voiced.leg import CallFacts
from voiced.text import printable

__all__ = ["MAX_FACT", "NoRoom", "Setup", "Switchboard", "bounded", "fact", "new_call_id"]

log = structlog.get_logger("voiced.switchboard")

MAX_FACT: Final = 256
"""Characters of anything that a carrier says about a call."""

MAX_FACTS: Final = 64
"""Parameters or headers of a call that are kept."""

COLLECT_AFTER: Final = 50  # ended calls, 100 KB each, that may wait to be collected

RELEASE_S: Final = 2.0
"""For a carrier to give back what its call held: ports at once, a last message soon."""


class NoRoom(Exception):
    """No call can be taken now; `why`, a metric's label, is `draining`, `max_calls` or `cost_…`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Setup:
    """What new calls are made with; a reload replaces it, live calls keep theirs."""

    config: Config
    engine_for: Callable[[Agent], Engine]


def engine_shape(
    config: EngineConfig, plugins: Mapping[str, Mapping[str, object]]
) -> dict[str, str]:
    """What of an engine's configuration shapes how its model sounds, secrets left out.

    Of a step that one of `plugins` supplies also a digest of its table, where its voice may stand.
    """
    names = ("url", "dialect", "server", "output_format", "speech")
    shape = {name: str(value) for name in names if (value := getattr(config, name, None))}
    if isinstance(config, PipelineEngine):
        for step in (config.chat, config.tts):
            kind = type(step).__name__.lower()
            shape[kind] = f"{step.provider} {step.url} {step.model} {getattr(step, 'voice', '')}"
            if (table := plugins.get(step.provider)) is not None:
                text = repr(sorted(table.items())).encode("utf-8", "surrogatepass")
                shape[kind] += f" {hashlib.sha256(text).hexdigest()}"
    return {"kind": type(config).__name__, **shape}


def new_call_id() -> str:
    """Make a call id: 16 hexadecimal digits, ours, unique for ever."""
    return secrets.token_hex(8)


def bounded(facts: Mapping[str, str]) -> dict[str, str]:
    """What a carrier says of a call, printable and cut to a size that a call may keep."""
    items = list(facts.items())[:MAX_FACTS]
    return {fact(name): fact(value) for name, value in items}


def fact(text: str) -> str:
    """One thing that a carrier says, printable and cut to `MAX_FACT`."""
    return printable(text[:MAX_FACT])


class Switchboard:
    """Knows every live call; carriers `start` them and keep their own names for them."""

    def __init__(self, setup: Setup, services: Services, house: House | None = None) -> None:
        """`house` has the plugins; without one calls have none."""
        self.setup = setup
        self.budget = Budget(services.journal.spend)
        self.services = services
        self._house = house
        self.nursery: trio.Nursery | None = None
        """Where calls run; without one none is taken."""
        self._calls: dict[str, Call] = {}  # by call_id
        self._uncollected = 0  # calls that have ended since the last collection
        self._unpriced: set[str] = set()  # models whose lack was said; as many as there are
        self._draining = False
        self._idle = trio.Event()

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls.values()))

    def get(self, call_id: str) -> Call | None:
        """The live call with that id."""
        return self._calls.get(call_id)

    @property
    def full(self) -> str | None:
        """Why no call can be taken now, `draining` or `max_calls`; None where one can."""
        if self._draining or self.nursery is None:
            return "draining"
        if len(self._calls) >= self.setup.config.daemon.max_calls:
            return "max_calls"
        return None

    def exhausted(self, called: str, number: Number | None) -> str | None:
        """Which cap on costs forbids another call, as a metric's label; None where none does."""
        agent = None if number is None else self.setup.config.agent.get(number.agent)
        return self._exhausted(called, number, 0.0 if agent is None else self._usd_s(agent))

    def _exhausted(self, called: str, number: Number | None, usd_s: float) -> str | None:
        self.budget.cost = self.setup.config.cost
        cap = self.budget.exhausted(called, number, usd_s)
        return None if cap is None else f"cost_{cap}"

    def _usd_s(self, agent: Agent) -> float:
        """What a second with an agent is expected to cost."""
        billed = self.setup.engine_for(agent).billed(agent)
        return expected_usd_s(self.services.prices, billed)

    def start(
        self,
        facts: CallFacts,
        agent_name: str,
        agent: Agent,
        leg_format: AudioFormat,
        *,
        number: Number | None = None,
        media_timeout_s: float | None = None,
        released: Callable[[Call], Awaitable[None]] | None = None,
    ) -> Call:
        """Make a call (see `Call` for `media_timeout_s`) and run it. Raises NoRoom.

        `number`: the block that the called number belongs to; it says which plugins take part.
        `released` runs when the call is over, whatever ended it, in at most `RELEASE_S`: there a
        carrier lets go of what the call held.
        """
        usd_s = self._usd_s(agent)
        if (why := self.full or self._exhausted(facts.called, number, usd_s)) is not None:
            raise NoRoom(why)
        assert self.nursery is not None
        plugins = UNSET if number is None else number.plugins
        config = self.setup.config
        call = Call(
            facts,
            agent_name,
            agent,
            self.setup.engine_for(agent),
            leg_format,
            self.services,
            media_timeout_s=media_timeout_s,
            make_hooks=no_hooks if self._house is None else partial(self._house.hooks, plugins),
            engine_shape=engine_shape(config.engine[agent.engine], config.plugins),
            meter=self.budget.open(facts.call_id, facts.called, number, usd_s),
        )
        self._calls[facts.call_id] = call
        self.nursery.start_soon(self._run_call, call, released)
        return call

    async def _run_call(
        self, call: Call, released: Callable[[Call], Awaitable[None]] | None
    ) -> None:
        """Run one call; whatever goes wrong in it ends it alone."""
        try:
            await call.run()
        except Exception:
            call.record.log.exception("call failed: a bug of voiced, please report it")
        finally:
            try:
                if released is not None:
                    with trio.move_on_after(RELEASE_S, shield=True):
                        await released(call)
            finally:
                self._ended(call)

    def _ended(self, call: Call) -> None:
        del self._calls[call.facts.call_id]
        self._uncollected += 1
        if not self._calls or self._uncollected >= max(len(self._calls), COLLECT_AFTER):
            # What calls leave are cycles (tasks, scopes, exceptions); the daemon has told the
            # collector to leave old ones to us. A collection costs as much as calls are alive.
            self._uncollected = 0
            gc.collect()
        if not self._calls:
            self._idle.set()

    def used_afterwards(self, used: Used) -> None:
        """What a plugin has asked a chat model is paid: by its call, and by the day in any case."""
        model, usage, journal = used.model, told(used.usage), self.services.journal
        price = self.services.prices.get(model)
        if price is None:
            if model not in self._unpriced:
                self._unpriced.add(model)
                log.warning("cost not counted: no price", model=model)
            return
        usd = cost_usd(price, usage, 0.0)
        call = None if used.call_id is None else self._calls.get(used.call_id)
        if call is not None and not call.ended.is_set():
            call.record.spending.use_beside(model, usage, usd)  # paid with all the rest of it
            return
        metrics.COST_USD.labels(model).inc(usd)
        self.budget.charge(used.call_id, usd)
        if used.call_id is None:
            return
        added = Added(used.call_id, {k: v for k, v in dataclasses.asdict(usage).items() if v}, usd)
        if call is None:
            journal.add(added)
        else:  # its plugins have their last word, after which its row may be written again
            call.record.row.add(added)
            journal.write(call.record.row)

    def write_down(self) -> None:
        """Write the rows of all live calls, and the sums, into a journal that lacks them now."""
        for call in self:
            self.services.journal.write(call.record.row)
        self.budget.write_down()

    def refuse(self, why: str, carrier_call: str, **more: str) -> None:
        """Count and log a call that is not taken."""
        metrics.REFUSED.labels("call", why).inc()
        log.warning("call refused", why=why, carrier_call=fact(carrier_call), **more)

    # ---- shutting down ----

    async def drain(self, limit_s: float, goodbye_s: float) -> None:
        """Take no new calls; wait for the live ones, then say farewell, then cut what is left."""
        self._draining = True
        if self._calls:
            log.info("draining", calls=len(self._calls), limit_s=limit_s)
        with trio.move_on_after(limit_s):
            await self._emptied()
        for call in self:
            if call.has_media:
                call.wind_down("shutdown", "farewell")
            else:  # nobody is there to hear it
                call.end("shutdown")
        with trio.move_on_after(goodbye_s):
            await self._emptied()
        for call in self:
            call.end("shutdown")

    async def _emptied(self) -> None:
        while self._calls:
            self._idle = trio.Event()
            await self._idle.wait()
