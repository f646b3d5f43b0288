"""A call: one nursery around three tasks, the only place where a leg and an engine meet.

`inbound` takes the carrier's audio to the model, `outbound` (the speaker) takes the model's audio
to the carrier, `control` (the dialogue) decides. Whichever ends the call cancels the nursery; when
it closes, everything that the call owned has been released. Around it stand the plugins: they hear
of the call's end when it has ended.
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

from voiced import audio
from voiced.acting import Acting
from voiced.briefing import instructions
from voiced.budget import Meter
from voiced.clipboard import Clipboard
from voiced.config.types import Agent, Price
from voiced.dialogue import Dialogue
from voiced.ending import LET_FINISH_S, LastWords, say_last_words
from voiced.engine import Engine, Plan, Session, ToolCall
from voiced.formats import AudioFormat
from voiced.greeting import GREETING, LOCAL, Opening
from voiced.heard import CallerClock, Ears, Overheard
from voiced.hooks.calls import NO_HOOKS, CallHooks
from voiced.journal import Journal
from voiced.leg import (
    CallerAudio,
    CallFacts,
    Digit,
    Held,
    Leg,
    LegClosed,
    Stopped,
    Transferred,
    Unsupported,
)
from voiced.playout import Cut, Playout
from voiced.plugin import Call as PluginCall
from voiced.plugin import Clip, Greeting, Tool
from voiced.prompts import Prompts
from voiced.record import CallRecord
from voiced.speaker import Speaker
from voiced.states import CallState
from voiced.summary import summary
from voiced.toolbox import Toolbox
from voiced.transferring import Transfers

__all__ = ["Call", "Services", "no_hooks"]

MEDIA_TIMEOUT_S: Final = 60.0
"""How long a call waits for its stream: as long as the token in the TwiML lives. A carrier connects
within a second or two; after this nobody can."""

MAX_KEYS: Final = 64  # keys that wait for a plugin's word; it has a second for each

COST_WATCH_S: Final = 1.0

TOOL_FILLER_S: Final = 0.7
"""A tool that returns sooner needs no filler."""

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
    """One telephone call, from its first sign to its last release."""

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
        self._playout = Playout(leg_format.bytes_per_ms)
        self._leg: Leg | None = None
        self._attached = trio.Event()
        self._media = trio.Event()
        self.ended = trio.Event()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._speaker: Speaker | None = None
        self._session: Session | None = None
        self._dialogue: Dialogue | None = None
        self._meter = meter
        self.transfers = Transfers(self, self.record, self.ended)
        self._winding_down = False
        self._due: tuple[str, LastWords] | None = None
        self._rescued = False
        self._held = False
        self._begun = False  # plugins know of the call
        self._clips = 0
        self._messages: Mapping[str, bytes] = {}
        self._model_format = leg_format
        self._to_model: audio.Converter | None = None
        self._clock = CallerClock(1000 * leg_format.bytes_per_ms)
        self._overheard: Overheard | None = None
        self.toolbox = Toolbox(self.record.log)
        self.hooks = make_hooks(partial(Acting, self))
        self.clipboard = Clipboard(self.sound, self._playout, self.queue, self.record.log)
        if "on_state" in self.hooks.wants:
            self.record.changed = self._state_changed

    # ---- from outside ----

    @property
    def has_media(self) -> bool:
        """Whether the caller can hear anything."""
        return self._media.is_set()

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
        """End the call with a last message, heard to its end; nothing if that is under way.

        A transfer that is under way is waited for: one that succeeds ends the call without it. On
        hold nobody would hear it. Where nobody is there to talk, the agent may name somebody else.
        """
        if self._winding_down or self._nursery is None or self.record.reason is not None:
            return
        if self.transfers.under_way:
            # The caller is on the way to somebody else; where that fails there is still time.
            self._due = self._due or (reason, words)
            return
        if self._held:
            self.end(reason)
            return
        if words == "unavailable" and self.agent.transfer_when_lost and not self._rescued:
            self._rescued = True
            self._nursery.start_soon(self._rescue, reason, self.agent.transfer_when_lost)
            return
        self._winding_down = True
        self.record.reason = reason
        self._nursery.start_soon(self._say_goodbye, reason, words)

    def finish(self, reason: str, words: LastWords) -> None:
        """Wind down as soon as the agent has said what it is saying. Raises Unsupported."""
        if self._nursery is None or self.ended.is_set():
            raise Unsupported("the call is over")
        self._nursery.start_soon(self._let_finish, reason, words)

    def say(self, text: str, *, exactly: bool) -> None:
        """Have the agent say `text`; or give it to the model as an instruction and let it speak.

        Raises Unsupported where nobody could hear it.
        """
        self.dialogue.say(text, verbatim=exactly)

    @property
    def dialogue(self) -> Dialogue:
        """The conversation, while there is one that can be heard. Raises Unsupported."""
        if not self.has_media or self._winding_down or self._dialogue is None:
            raise Unsupported("nobody hears the agent now")
        return self._dialogue

    @property
    def session(self) -> Session | None:
        """The model's session, while the call lives."""
        return self._session

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
        if self._nursery is None or self._leg is None or not self.has_media:
            raise Unsupported("the call has no audio yet, or is over")
        if self._winding_down or self.transfers.under_way:
            raise Unsupported("the call is ending or being transferred already")
        return await self.transfers.transfer(self._leg, target, self._nursery)

    def start(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a task for as long as the call lives. Raises Unsupported after that."""
        if self._nursery is None:
            raise Unsupported("the call is over")
        self._nursery.start_soon(function, *args)

    def register_tool(self, tool: Tool) -> None:
        """Let the model call `tool`. Raises ValueError."""
        self.toolbox.register(tool)
        if self._session is not None:
            self._session.set_tools(self.toolbox.specs())

    # ---- the nursery ----

    async def run(self) -> None:
        """Run the call. Returns when nothing of it is left; never raises for a peer's fault."""
        self._services.journal.write(self.record.row)
        if self.hooks is NO_HOOKS:
            await self._live()
            return
        async with trio.open_nursery() as around:
            await around.start(self.hooks.run)
            try:
                self._begun = True
                self.hooks.emit("on_call_start")
                await self._live()
            finally:
                await self._tell_plugins()
                around.cancel_scope.cancel()

    async def _live(self) -> None:
        try:
            with self._scope:
                async with self.engine.open(self.plan) as self._session:
                    try:
                        await self._run(self._session)
                    finally:
                        self._nursery = None  # from here on nothing is started any more
        finally:
            if trio.current_effective_deadline() == -math.inf:  # cancelled, and not by `end`
                self.record.reason = self.record.reason or "shutdown"
            try:
                self._note_unheard()
                if self._leg is not None:
                    with trio.move_on_after(UNANNOUNCED_LIMIT_S, shield=True):
                        await self._leg.hang_up()
            finally:
                media = None if self._leg is None else self._leg.facts()
                self._services.journal.write(self.record.finish(self._services.prices, media))
                self.clipboard.close()
                self._close_meter()
                # They hold this call, and it them: most of it is freed now, not by a collection.
                self._dialogue = self._speaker = self._session = None
                self.ended.set()

    async def _tell_plugins(self) -> None:
        """The last hook of each; it bounds its own time. What they note goes into the row."""
        facts = dict(self.record.row.facts)
        with trio.CancelScope(shield=True):
            await self.hooks.finish(summary(self.record.row))
        if self.record.row.facts != facts:
            self._services.journal.write(self.record.row)

    def _note_unheard(self) -> None:
        """What the caller did not stay to hear is no part of the transcript."""
        self._tell_overheard()
        if self._leg is not None:
            heard = self._leg.heard()
            self._playout.heard_to(heard)
            if self._speaker is not None:
                self._speaker.ended(heard)
        if self._dialogue is not None:
            self._dialogue.ended()
        for cut in self._playout.cut():
            self.record.cut(cut)

    async def _run(self, session: Session) -> None:
        self._dialogue = Dialogue(
            self, self.record, session, self._playout, self.agent, self.leg_format, self.hooks
        )
        if specs := self.toolbox.specs():
            session.set_tools(specs)
        if self.facts.direction == "inbound":
            self.record.to(CallState.ANSWERING)
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._dialogue.run)
            greets = await self._prepare_opening(self._dialogue)
            limit_s = self._media_timeout_s
            with trio.move_on_after(MEDIA_TIMEOUT_S if limit_s is None else limit_s):
                await self._attached.wait()
            if self._leg is None:
                self.end("no_media" if self.facts.direction == "inbound" else "no_answer")
                return
            self._begin_media(self._leg, self._dialogue, greets)

    def _begin_media(self, leg: Leg, dialogue: Dialogue, greets: bool) -> None:
        assert self._nursery is not None
        lead_ms = self.agent.lead_ms or leg.lead_ms
        self._speaker = Speaker(self._playout, leg, lead_ms, dialogue, self._ears(dialogue))
        self.record.to(CallState.MEDIA_READY)
        if self._winding_down:  # the model was lost while the carrier still connected
            self.record.to(CallState.ENDING)
            dialogue.close()
        else:
            self.record.to(CallState.GREETING if greets else CallState.LISTENING)
        self._nursery.start_soon(self._inbound, leg, dialogue)
        self._nursery.start_soon(self._speaker.run)
        self._nursery.start_soon(dialogue.patience.watch)
        if dialogue.confirming is not None:
            self._nursery.start_soon(dialogue.confirming.watch)
        if self.hooks is not NO_HOOKS:
            self._nursery.start_soon(self.clipboard.run)
        if self._meter is not None:
            self._nursery.start_soon(self._watch_cost, self._meter)
        self._media.set()
        self.hooks.emit("on_media")

    def _ears(self, dialogue: Dialogue) -> Ears | None:
        """Make ears for whoever wants to know what the caller hears; None if nobody does."""
        reference = None if dialogue.confirming is None else dialogue.confirming.judge
        wanted = "on_agent_audio" in self.hooks.wants
        if not wanted and reference is None:
            return None
        form = self.leg_format
        return Ears(
            1000 * form.bytes_per_ms,
            form.sample_bytes,
            self._agent_heard if wanted else None,
            reference,
        )

    async def _inbound(self, leg: Leg, dialogue: Dialogue) -> None:
        """The carrier's side: audio to the model, digits to the dialogue, the end to the call."""
        assert self._session is not None
        assert self._nursery is not None
        keys: trio.MemorySendChannel[str] | None = None
        if "on_digit" in self.hooks.wants:
            keys, pressed = trio.open_memory_channel[str](MAX_KEYS)
            self._nursery.start_soon(self._ask_about_keys, pressed, dialogue)
        wanted, judged = "on_caller_audio" in self.hooks.wants, dialogue.confirming is not None
        if wanted and not judged:  # who judges hears every frame at once
            bytes_per_s = 1000 * self.leg_format.bytes_per_ms
            self._overheard = Overheard(bytes_per_s, self._clock, self._caller_heard)
        overheard = self._overheard
        try:
            while True:
                for event in await leg.receive():
                    match event:
                        case CallerAudio(payload):
                            if overheard is not None:
                                overheard.add(payload, trio.current_time())
                            elif judged:
                                self._judge(payload, dialogue)
                            self._pass_on(payload, dialogue)
                        case Digit(digit):
                            self._tell_overheard()
                            dialogue.key_pressed()
                            if keys is None:
                                dialogue.digit(digit)
                            else:
                                with suppress(trio.WouldBlock):  # nobody presses that fast
                                    keys.send_nowait(digit)
                        case Held(held):
                            self._hold(held)
                        case Stopped(reason, hung_up, code):
                            self.record.log.info("carrier stopped the stream", why=reason)
                            self.end(code or (self._hung_up if hung_up else "carrier_lost"))
        except LegClosed:
            self.end("carrier_lost")

    def _pass_on(self, payload: bytes, dialogue: Dialogue) -> None:
        """Send the caller's audio to the model, in its format."""
        session = self._session
        if session is None or self._winding_down:
            return
        if dialogue.taken:  # it hears nothing, but its time goes on
            payload = self.leg_format.silence(len(payload) // self.leg_format.bytes_per_ms)
        form = session.input_format
        if form is not self._model_format:  # 50 times a second: comparing them would cost more
            if form != self._model_format:
                self._to_model = audio.converter(self.leg_format, form, self.agent.resampler)
            self._model_format = form
        session.send_audio(payload if self._to_model is None else self._to_model.convert(payload))

    def _judge(self, payload: bytes, dialogue: Dialogue) -> None:
        """Whoever judges gets the caller's audio, with the time at which it was said."""
        at_s = self._clock.said(len(payload), trio.current_time())
        if dialogue.confirming is not None:
            dialogue.confirming.caller(payload, at_s)
        self._caller_heard(payload, at_s)

    def _caller_heard(self, payload: bytes, at_s: float) -> None:
        self.hooks.emit("on_caller_audio", payload, self._at_ms(at_s))

    def _tell_overheard(self) -> None:
        """What the caller said until now comes before what happens next."""
        if self._overheard is not None:
            self._overheard.flush(trio.current_time())

    def _agent_heard(self, payload: bytes, at_s: float) -> None:
        self.hooks.emit("on_agent_audio", payload, self._at_ms(at_s))

    def _at_ms(self, at_s: float) -> int:
        began = self.record.media_at
        return 0 if began is None else max(0, round((at_s - began) * 1000))

    async def _ask_about_keys(
        self, pressed: trio.MemoryReceiveChannel[str], dialogue: Dialogue
    ) -> None:
        """Keys go to the plugins first, one after the other; what none takes goes to the model."""
        async for key in pressed:
            if not await self.hooks.digit(key):
                dialogue.digit(key)

    @property
    def _hung_up(self) -> str:
        return "caller_hangup" if self.facts.direction == "inbound" else "callee_hangup"

    def _state_changed(self, previous: CallState, state: CallState) -> None:
        self.hooks.emit("on_state", previous.value, state.value)

    # ---- cost ----

    @property
    def cost_usd(self) -> float | None:
        """What the call has cost so far; None where the price table lacks a model."""
        return self.record.spending.usd(self._services.prices, trio.current_time())

    async def _watch_cost(self, meter: Meter) -> None:
        """End the call shortly before a cap strikes."""
        unpriced: set[str] = set()
        told = False
        while True:
            usd, lacking = self._known_costs()
            for model in lacking - unpriced:
                unpriced.add(model)
                self.record.log.warning("cost not counted: no price", model=model)
            if (cap := meter.update(usd)) is not None:
                if not told:  # a transfer or a farewell may be under way for long
                    self.record.log.warning("cost cap reached", cap=cap, cost_usd=round(usd, 5))
                told = True
                self.wind_down(f"cost_{cap}", "farewell")
            await trio.sleep(COST_WATCH_S)

    def _known_costs(self) -> tuple[float, set[str]]:
        return self.record.spending.known_usd(self._services.prices, trio.current_time())

    def _close_meter(self) -> None:
        if self._meter is not None:
            self._meter.update(self._known_costs()[0])
            self._meter.close()

    # ---- tools ----

    def use_tool(self, event: ToolCall) -> None:
        """Run what the model has called; it is told the result, and asked to go on."""
        assert self._nursery is not None
        assert self._dialogue is not None
        self._nursery.start_soon(self._use_tool, event, self._dialogue)

    async def _use_tool(self, event: ToolCall, dialogue: Dialogue) -> None:
        turn = dialogue.turn
        tool = self.toolbox.get(event.name)
        async with trio.open_nursery() as nursery:
            if tool is not None and tool.filler is not None:
                nursery.start_soon(self._fill, tool)
            result = await self.toolbox.use(event, self.hooks.tool_call)
            nursery.cancel_scope.cancel()
        dialogue.tool_done(event, result, turn, answer=tool is None or tool.answer)

    async def _fill(self, tool: Tool) -> None:
        """Something to hear while a tool runs, unless the agent speaks."""
        await trio.sleep(TOOL_FILLER_S)
        if self._playout.idle and tool.filler is not None:
            with suppress(Unsupported):
                self.clipboard.play((tool.filler,))

    # ---- hold ----

    def _hold(self, held: bool) -> None:
        self._held = held
        self._tell_overheard()
        self._clock.reset()
        if self.transfers.under_way or self._winding_down:
            return  # the transfer's end, or the call's, sees to it
        if held:
            self.quieten(CallState.ON_HOLD)
        else:
            self.unquieten()

    def quieten(self, state: CallState) -> None:
        """Nobody listens: what the agent has to say waits."""
        assert self._dialogue is not None
        assert self._speaker is not None
        self._speaker.pause()
        self.record.to(state)
        self._dialogue.hold(True)

    def unquieten(self) -> None:
        """The caller listens again: go on, or end where that was only waiting for this."""
        assert self._dialogue is not None
        assert self._speaker is not None
        if self._due is not None:
            self.wind_down(*self._due)
            return
        if self._held:  # a transfer failed while the other side still holds
            self._dialogue.hold(False)
            self.quieten(CallState.ON_HOLD)
            return
        self._speaker.resume()
        self._dialogue.hold(False)

    # ---- what is said without the model ----

    async def _prepare_opening(self, dialogue: Dialogue) -> bool:
        """What is heard first, in the playout before media; says whether anything greets."""
        agent, log = self.agent, self.record.log
        messages = await self.prompts.messages(agent, self.leg_format)
        self._messages = {
            name: sound for name, sound in messages.items() if isinstance(sound, bytes)
        }
        for name in messages.keys() - self._messages.keys():
            log.error("message file left out", message=name, error=str(messages[name]))
        opening = Opening(agent, self.leg_format, self.sound, self.prompts, self.queue, log)
        planned = Greeting()
        if "greeting" in self.hooks.wants:
            planned = await self.hooks.greeting(planned)
        await opening.prepare(planned)
        if planned.audio is not None and opening.supplied:
            if planned.audio.text:
                dialogue.seed(f"{GREETING}0", planned.audio.text)
        elif agent.greeting_text or agent.greeting:
            dialogue.greet()
            return True
        return opening.recorded

    async def sound(self, clip: Clip) -> bytes:
        """The audio of whatever a plugin wants played. Raises wav.WavError, or KeyError."""
        if isinstance(clip, str) and (own := self._messages.get(clip)) is not None:
            return own
        return await self.prompts.sound(clip, self.leg_format, self.agent.language)

    def queue(self, item_id: str, payload: bytes) -> None:
        """Have audio of ours heard after all that was queued before. Ids are used once."""
        item_id = item_id if item_id.startswith(LOCAL) else f"{LOCAL}{item_id}"
        self._playout.add(item_id, payload, origin="local")
        self._playout.finish(item_id)
        self.wake_speaker()

    def play_clip(self, name: str, *, ahead: bool = False) -> None:
        """Queue a message, the agent's own or the bundled one; `ahead` of an answer run dry."""
        self._clips += 1  # item ids are used once
        sound = self._messages.get(name)
        if sound is None:
            sound = self.prompts.clip(name, self.leg_format, self.agent.language)
        item_id = f"{LOCAL}{name}:{self._clips}"
        if ahead and self._playout.add_ahead(item_id, sound):
            self.wake_speaker()
        elif not ahead:
            self.queue(item_id, sound)

    async def _let_finish(self, reason: str, words: LastWords) -> None:
        """Let the agent say what it is saying, then wind down."""
        if self._speaker is not None and self._dialogue is not None:
            with trio.move_on_after(LET_FINISH_S):
                await self._dialogue.answered()
                await self._speaker.silent()
        self.wind_down(reason, words)

    async def _rescue(self, reason: str, target: str) -> None:
        """No model is left: somebody else takes the caller, or the call ends as it would have."""
        with trio.move_on_after(MEDIA_TIMEOUT_S):
            await self._media.wait()
        if self._speaker is not None and self._nursery is not None:
            if self._dialogue is not None and not (self._held or self.transfers.under_way):
                self._speaker.resume()  # after a transfer that failed nobody has yet
                self._dialogue.hold(False)
            self.play_clip("one_moment")
            with trio.move_on_after(LET_FINISH_S):
                await self._speaker.silent()
            try:
                if (await self.transfer(target)).done:
                    return
            except (Unsupported, ValueError) as error:
                self.record.log.warning("transfer when lost failed", why=str(error))
        self.wind_down(reason, "unavailable")

    async def _say_goodbye(self, reason: str, words: LastWords) -> None:
        """The last words, heard to their last sample, then the end (design 1.6)."""
        assert self._dialogue is not None
        with trio.move_on_after(MEDIA_TIMEOUT_S):
            await self._media.wait()  # a model lost while the carrier still connects
        if self._leg is not None and self._speaker is not None:
            await say_last_words(
                self,
                words,
                self.agent,
                self.record,
                self._dialogue,
                self._speaker,
                self._playout,
                self._leg,
            )
        self.end(reason)

    # ---- what the dialogue asks for ----

    def wake_speaker(self) -> None:
        """There is new audio in the playout."""
        if self._speaker is not None:
            self._speaker.wake()

    def interrupt_speaker(self) -> list[Cut]:
        """Stop the speaker and empty the carrier's buffer, now."""
        if self._speaker is None:  # audio that came before media: nothing of it was heard
            return self._playout.cut()
        return self._speaker.interrupt()

    def pause_speaker(self) -> None:
        """Stop the speaker and keep what is unheard."""
        if self._speaker is not None:
            self._speaker.pause()

    def resume_speaker(self) -> None:
        """Go on where the caller stopped hearing, unless nobody listens."""
        if self._speaker is not None and not (self._held or self.transfers.under_way):
            self._speaker.resume()

    def settle_clips(self) -> None:
        """Something was heard or cut off."""
        self.clipboard.settle()
