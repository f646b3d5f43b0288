"""A call: from its first sign to its last release.

One nursery holds its leg and its session (`Conversation`, the only place where the two meet).
Whatever ends the call cancels the nursery; when it closes, everything that the call owned has been
released. Around it stand the plugins: they hear of the call's end when it has ended.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Final

import trio

from voiced.acting import Acting
from voiced.briefing import instructions
from voiced.budget import Meter
from voiced.config.types import Agent, Price
from voiced.costwatch import CostWatch
from voiced.engine import Engine, Plan
from voiced.formats import AudioFormat
from voiced.hooks.calls import NO_HOOKS, CallHooks
from voiced.journal import Journal
from voiced.leg import CallFacts, Leg, LegClosed, Transferred, Unsupported
from voiced.playout import Playout
from voiced.plugin import Call as PluginCall
from voiced.plugin import Tool
from voiced.prompts import Prompts
from voiced.record import CallRecord
from voiced.summary import summary
from voiced.talk.clipboard import Clipboard
from voiced.talk.conversation import Conversation
from voiced.talk.dialogue import Dialogue
from voiced.talk.ending import LastWords
from voiced.talk.sounds import Sounds
from voiced.talk.toolbox import Toolbox
from voiced.talk.voice import Voice

__all__ = ["MEDIA_TIMEOUT_S", "Call", "Services", "no_hooks"]

MEDIA_TIMEOUT_S: Final = 60.0
"""How long a call waits for its stream: as long as the token in the TwiML lives. A carrier connects
within a second or two; after this nobody can."""

UNANNOUNCED_LIMIT_S: Final = 1.0  # for the carrier to take the news that the call is over

MakeHooks = Callable[[Callable[[str], PluginCall]], CallHooks]
"""Makes a call's plugins; they get their call, by the name of the plugin, from the argument."""


def no_hooks(_make: Callable[[str], PluginCall]) -> CallHooks:
    """Make a call without plugins."""
    return NO_HOOKS


@dataclass(frozen=True, slots=True)
class Services:
    """What every call of a daemon shares."""

    journal: Journal
    prompts: Prompts
    prices: Mapping[str, Price] = field(default_factory=dict)


class Call:
    """One telephone call."""

    def __init__(
        self,
        facts: CallFacts,
        agent_name: str,
        agent: Agent,
        engine: Engine,
        leg_format: AudioFormat,
        services: Services,
        *,
        media_timeout_s: float | None = None,
        make_hooks: MakeHooks = no_hooks,
        engine_shape: Mapping[str, str] = MappingProxyType({}),
        meter: Meter | None = None,
    ) -> None:
        """Make a call. It waits `media_timeout_s` for its leg: as long as one of ours may ring."""
        self.facts = facts
        self.agent_name = agent_name
        self.agent = agent
        self.engine = engine
        self.engine_shape = engine_shape  # what of its configuration shapes a voice
        self.leg_format = leg_format
        self._services = services
        self.prompts = services.prompts
        self._media_timeout_s = media_timeout_s
        self.record = CallRecord(
            facts,
            agent=agent_name,
            engine=engine.name,
            model=engine.model,
            billed=engine.billed(agent),
        )
        self.plan = Plan(
            facts.call_id,
            agent,
            instructions(agent, facts),
            leg_format,
            history=self.record.transcript.history,
        )
        self._leg: Leg | None = None
        self._attached = trio.Event()
        self._media = trio.Event()
        self.ended = trio.Event()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._conversation: Conversation | None = None
        self._begun = False  # plugins know of the call
        self.costs = CostWatch(self.record, services.prices, meter)
        self.toolbox = Toolbox(self.record.log)
        self.hooks = make_hooks(partial(Acting, self))
        self.sounds = Sounds(services.prompts, agent, leg_format, self.record.log)
        self.voice = Voice(Playout(leg_format.bytes_per_ms), self.sounds)
        self.clipboard = Clipboard(
            self.sounds.read, self.voice.playout, self.voice.queue, self.record.log
        )
        if "on_state" in self.hooks.wants:
            self.record.changed = partial(self.hooks.emit, "on_state")

    # ---- from outside ----

    @property
    def has_media(self) -> bool:
        """Whether the caller can hear anything."""
        return self._media.is_set()

    async def media_began(self) -> None:
        """Wait until the caller can hear something, no longer than a carrier may take."""
        with trio.move_on_after(MEDIA_TIMEOUT_S):
            await self._media.wait()

    @property
    def awaits_leg(self) -> bool:
        """Whether `attach` may be called."""
        return self._leg is None and not self.ended.is_set()

    def learn(self, parameters: Mapping[str, str]) -> None:
        """The carrier says more of the call, bounded by whoever tells."""
        known = self.facts.parameters
        changed = {name: value for name, value in parameters.items() if known.get(name) != value}
        if changed:
            self.facts = replace(self.facts, parameters={**known, **changed})
            if self._begun:
                self.hooks.emit("on_parameters", changed)

    def attach(self, leg: Leg) -> None:
        """The carrier's audio has come. A call takes one leg, once; RuntimeError otherwise."""
        if not self.awaits_leg:
            raise RuntimeError("the call has its leg, or is over")
        self._leg = leg
        self._attached.set()

    def end(self, reason: str) -> None:
        """End the call now, without a word. The first reason given is the one that stays."""
        if self.record.reason is None:
            self.record.reason = reason
        self._scope.cancel()

    def wind_down(self, reason: str, words: LastWords) -> None:
        """End the call with a last message, as `Ending.wind_down`; nothing where it is over."""
        if self._conversation is not None and self._nursery is not None:
            with suppress(Unsupported):
                self._conversation.ending.wind_down(reason, words)

    def finish(self, reason: str, words: LastWords) -> None:
        """Wind down as soon as the agent has said what it is saying. Raises Unsupported."""
        if self._conversation is None:
            raise Unsupported("the call is over")
        self.start(self._conversation.ending.let_finish, reason, words)

    def say(self, text: str, *, exactly: bool) -> None:
        """Have the agent say `text`, or act on it as an instruction. Raises Unsupported."""
        self.dialogue.say(text, verbatim=exactly)

    @property
    def dialogue(self) -> Dialogue:
        """The conversation, while there is one that can be heard. Raises Unsupported."""
        if not self.has_media:
            raise Unsupported("nobody hears the agent now")
        return self.opening_dialogue

    @property
    def opening_dialogue(self) -> Dialogue:
        """The conversation, also while nobody hears it yet. Raises Unsupported."""
        talk = self._conversation
        if talk is None or talk.ending.begun:
            raise Unsupported("there is no conversation now")
        return talk.dialogue

    @property
    def cost_usd(self) -> float | None:
        """What the call has cost so far; None where the price table lacks a model."""
        return self.costs.usd

    def statistics(self) -> Mapping[str, int | float | str | bool | None]:
        """Figures of the leg so far; nothing before media."""
        return {} if self._leg is None else self._leg.facts()

    def send_digits(self, digits: str) -> None:
        """Press keys. Raises Unsupported."""
        if self._leg is None or not self.has_media:
            raise Unsupported("the call has no audio yet")
        with suppress(LegClosed):  # the inbound task ends the call
            self._leg.send_digits(digits)

    async def transfer(self, target: str) -> Transferred:
        """Hand the caller over to `target`; where that fails the conversation goes on.

        Raises Unsupported, or ValueError for a target that is none.
        """
        talk = self._conversation
        if self._nursery is None or talk is None or self._leg is None or not self.has_media:
            raise Unsupported("the call has no audio yet, or is over")
        if talk.ending.begun or talk.absence.transferring:
            raise Unsupported("the call is ending or being transferred already")
        return await talk.transfers.transfer(self._leg, target)

    def start(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a task for as long as the call lives. Raises Unsupported after that."""
        if self._nursery is None:
            raise Unsupported("the call is over")
        try:
            self._nursery.start_soon(function, *args)
        except RuntimeError:  # its last task has just ended: it closes in this very step
            raise Unsupported("the call is over") from None

    def register_tool(self, tool: Tool) -> None:
        """Let the model call `tool`. Raises ValueError."""
        self.toolbox.register(tool)
        if self._conversation is not None:
            self._conversation.session.set_tools(self.toolbox.specs())

    # ---- the nursery ----

    async def run(self) -> None:
        """Run the call. Returns when nothing of it is left; never raises for a peer's fault."""
        self._services.journal.write(self.record.row)
        if self.hooks is NO_HOOKS:
            await self._live()
            return
        async with trio.open_nursery() as around:
            try:
                try:
                    await around.start(self.hooks.run)
                finally:  # cancelled by now or not: what was begun is ended, in all its parts
                    self._begun = True
                    self.hooks.emit("on_call_start")
                    await self._live()
            finally:
                await self._tell_plugins()
                around.cancel_scope.cancel()

    async def _live(self) -> None:
        try:
            with self._scope:
                async with self.engine.open(self.plan) as session:
                    try:
                        async with trio.open_nursery() as self._nursery:
                            self._conversation = Conversation(self, session, self._nursery)
                            await self._begin_media(self._conversation)
                    finally:
                        self._nursery = None  # from here on nothing is started any more
        finally:
            if trio.current_effective_deadline() == -math.inf:  # cancelled, and not by `end`
                self.record.reason = self.record.reason or "shutdown"
            try:
                if self._conversation is not None:
                    self._conversation.ended()
                if self._leg is not None:
                    with trio.move_on_after(UNANNOUNCED_LIMIT_S, shield=True):
                        await self._leg.hang_up()
            finally:
                self._release()

    def _release(self) -> None:
        """Write the call down, and let go of it, whatever is wrong with it."""
        try:
            media = None if self._leg is None else self._leg.facts()
            self._services.journal.write(self.record.finish(self._services.prices, media))
        finally:
            self.clipboard.close()
            self.costs.close()
            # They hold this call, and it them: most of it is freed now, not by a collection.
            self._conversation = None
            self.voice.close()
            self.ended.set()

    async def _begin_media(self, talk: Conversation) -> None:
        """Prepare what is heard first, and wait for the leg: a call without one ends."""
        greets = await talk.open()
        limit_s = self._media_timeout_s
        with trio.move_on_after(MEDIA_TIMEOUT_S if limit_s is None else limit_s):
            await self._attached.wait()
        if self._leg is None:
            self.end("no_media" if self.facts.direction == "inbound" else "no_answer")
            return
        talk.begin(self._leg, greets)
        self._media.set()
        self.hooks.emit("on_media")

    async def _tell_plugins(self) -> None:
        """The last hook of each; it bounds its own time. What they note goes into the row."""
        facts = dict(self.record.row.facts)
        with trio.CancelScope(shield=True):
            await self.hooks.finish(summary(self.record.row))
        if self.record.row.facts != facts:
            self._services.journal.write(self.record.row)
