"""A call: one nursery around three tasks, the only place where a leg and an engine meet.

`inbound` takes the carrier's audio to the model, `outbound` (the speaker) takes the model's audio
to the carrier, `control` (the dialogue) decides. Whichever ends the call cancels the nursery; when
it closes, everything that the call owned has been released.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import trio

from voiced import audio, wav
from voiced.briefing import instructions
from voiced.config.types import Agent, Price
from voiced.dialogue import LOCAL, Dialogue, exactly
from voiced.engine import Engine, ModelState, Plan, Session
from voiced.formats import AudioFormat
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
from voiced.prompts import Prompts, tone
from voiced.record import CallRecord
from voiced.speaker import Speaker
from voiced.states import CallState

__all__ = ["Call", "Services"]

MEDIA_TIMEOUT_S: Final = 60.0
"""How long a call waits for its stream: as long as the token in the TwiML lives. A carrier connects
within a second or two; after this nobody can."""

GOODBYE_LIMIT_S: Final = (
    20.0  # a farewell is a sentence; a line that does not drain ends all the same
)
UNANNOUNCED_LIMIT_S: Final = 1.0  # for the carrier to take the news that the call is over


@dataclass(frozen=True, slots=True)
class Services:
    """What every call of a daemon shares."""

    journal: Journal
    prompts: Prompts
    prices: Mapping[str, Price]


class Call:
    """One telephone call, from its first sign to its last release."""

    def __init__(
        self,
        facts: CallFacts,
        agent_name: str,
        agent: Agent,
        engine: Engine,
        model: str,
        leg_format: AudioFormat,
        services: Services,
        *,
        media_timeout_s: float | None = None,
    ) -> None:
        """Make a call. It waits `media_timeout_s` for its leg: as long as one of ours may ring."""
        self.facts = facts
        self.agent = agent
        self._engine = engine
        self._services = services
        self._leg_format = leg_format
        self._media_timeout_s = media_timeout_s
        self._plan = Plan(facts.call_id, agent, instructions(agent, facts), leg_format)
        self.record = CallRecord(facts, agent=agent_name, engine=engine.name, model=model)
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
        self._winding_down = False
        self._transferring = False
        self._due: tuple[str, Literal["farewell", "unavailable"]] | None = None
        self._held = False
        self._clips = 0

    # ---- from outside ----

    @property
    def has_media(self) -> bool:
        """Whether the caller can hear anything."""
        return self._media.is_set()

    @property
    def awaits_leg(self) -> bool:
        """Whether `attach` may be called."""
        return self._leg is None and not self.ended.is_set()

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

    def wind_down(self, reason: str, words: Literal["farewell", "unavailable"]) -> None:
        """End the call with a last message, heard to its end; nothing if that is under way.

        A transfer that is under way is waited for: one that succeeds ends the call without it. On
        hold nobody would hear it.
        """
        if self._winding_down or self._nursery is None or self.record.reason is not None:
            return
        if self._transferring:
            # The caller is on the way to somebody else; where that fails there is still time.
            self._due = self._due or (reason, words)
            return
        if self._held:
            self.end(reason)
            return
        self._winding_down = True
        self.record.reason = reason
        self._nursery.start_soon(self._say_goodbye, reason, words)

    def say(self, text: str, *, exactly: bool) -> None:
        """Have the agent say `text`; or give it to the model as an instruction and let it speak.

        Raises Unsupported where nobody could hear it.
        """
        if not self.has_media or self._winding_down or self._dialogue is None:
            raise Unsupported("nobody hears the agent now")
        self._dialogue.say(text, verbatim=exactly)

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
        if self._winding_down or self._transferring:
            raise Unsupported("the call is ending or being transferred already")
        self._transferring = True
        outcome: list[Transferred | Exception] = []
        done = trio.Event()
        self._nursery.start_soon(self._transfer, self._leg, target, outcome, done)
        async with trio.open_nursery() as either:
            for event in (done, self.ended):
                either.start_soon(_first, event, either.cancel_scope)
        if not outcome:
            # The carrier took the caller before it had said so, or the caller did not wait.
            taken = self.record.reason == "transferred"
            return Transferred(taken, text="" if taken else "the call ended meanwhile")
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    async def _transfer(
        self, leg: Leg, target: str, outcome: list[Transferred | Exception], done: trio.Event
    ) -> None:
        """In the call's own nursery: who asked may give up, the call goes through with it."""
        self._quieten(CallState.TRANSFERRING)
        try:
            outcome.append(await leg.transfer(target))
        except (Unsupported, ValueError) as error:
            outcome.append(error)
        except LegClosed:
            outcome.append(Transferred(False, text="the call ended meanwhile"))
        self._transferring = False
        done.set()
        result = outcome[0]
        if isinstance(result, Transferred) and result.done:
            self.record.log.info("call transferred", status=result.status)
            self.end("transferred")
            return
        why = result.text if isinstance(result, Transferred) else str(result)
        status = result.status if isinstance(result, Transferred) else None
        self.record.log.warning("transfer failed", why=why[:200], status=status)
        if self._due is not None:
            self.wind_down(*self._due)
        else:
            self._resume()

    # ---- the nursery ----

    async def run(self) -> None:
        """Run the call. Returns when nothing of it is left; never raises for a peer's fault."""
        self._services.journal.write(self.record.row)
        try:
            with self._scope:
                async with self._engine.open(self._plan) as session:
                    try:
                        await self._run(session)
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
                # They hold this call, and it them: most of it is freed now, not by a collection.
                self._dialogue = self._speaker = self._session = None
                self.ended.set()

    def _note_unheard(self) -> None:
        """What the caller did not stay to hear is no part of the transcript."""
        if self._leg is not None:
            self._playout.heard_to(self._leg.heard())
        for cut in self._playout.cut():
            self.record.cut(cut)

    async def _run(self, session: Session) -> None:
        self._session = session
        self._dialogue = Dialogue(
            self, self.record, session, self._playout, self.agent, self._leg_format
        )
        if self.facts.direction == "inbound":
            self.record.to(CallState.ANSWERING)
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._dialogue.run)
            await self._prepare_opening()
            limit_s = self._media_timeout_s
            with trio.move_on_after(MEDIA_TIMEOUT_S if limit_s is None else limit_s):
                await self._attached.wait()
            if self._leg is None:
                self.end("no_media" if self.facts.direction == "inbound" else "no_answer")
                return
            self._begin_media(self._leg, self._dialogue)

    def _begin_media(self, leg: Leg, dialogue: Dialogue) -> None:
        assert self._nursery is not None
        lead_ms = self.agent.lead_ms or leg.lead_ms
        self._speaker = Speaker(self._playout, leg, lead_ms, dialogue)
        self.record.to(CallState.MEDIA_READY)
        if self._winding_down:  # the model was lost while the carrier still connected
            self._close(dialogue)
        else:
            # Recorded files that could not be read greet nobody.
            recorded = self.agent.greeting_files and not self._playout.idle
            greets = dialogue.model_greets or recorded
            self.record.to(CallState.GREETING if greets else CallState.LISTENING)
        self._nursery.start_soon(self._inbound, leg, dialogue)
        self._nursery.start_soon(self._speaker.run)
        self._nursery.start_soon(dialogue.patience.watch)
        self._media.set()

    async def _inbound(self, leg: Leg, dialogue: Dialogue) -> None:
        """The carrier's side: audio to the model, digits to the dialogue, the end to the call."""
        assert self._session is not None
        session = self._session
        to_model: audio.Converter | None = None
        model_format = leg.format
        try:
            while True:
                for event in await leg.receive():
                    match event:
                        case CallerAudio(payload):
                            if session.input_format != model_format:
                                model_format = session.input_format
                                to_model = audio.converter(
                                    leg.format, model_format, self.agent.resampler
                                )
                            if not self._winding_down:
                                session.send_audio(
                                    payload if to_model is None else to_model.convert(payload)
                                )
                        case Digit(digit):
                            dialogue.digit(digit)
                        case Held(held):
                            self._hold(held)
                        case Stopped(reason, hung_up, code):
                            self.record.log.info("carrier stopped the stream", why=reason)
                            self.end(code or (self._hung_up if hung_up else "carrier_lost"))
        except LegClosed:
            self.end("carrier_lost")

    @property
    def _hung_up(self) -> str:
        return "caller_hangup" if self.facts.direction == "inbound" else "callee_hangup"

    # ---- hold ----

    def _hold(self, held: bool) -> None:
        self._held = held
        if self._transferring or self._winding_down:
            return  # the transfer's end, or the call's, sees to it
        if held:
            self._quieten(CallState.ON_HOLD)
        else:
            self._resume()

    def _quieten(self, state: CallState) -> None:
        """Nobody listens: what the agent has to say waits."""
        assert self._dialogue is not None
        assert self._speaker is not None
        self._speaker.pause()
        self.record.to(state)
        self._dialogue.hold(True)

    def _resume(self) -> None:
        assert self._dialogue is not None
        assert self._speaker is not None
        if self._held:  # a transfer failed while the other side still holds
            self._dialogue.hold(False)
            self._quieten(CallState.ON_HOLD)
            return
        self._speaker.resume()
        self._dialogue.hold(False)

    # ---- what is said without the model ----

    async def _prepare_opening(self) -> None:
        """Connection tone, delay and recorded greeting stand first in the playout."""
        agent, form = self.agent, self._leg_format
        if agent.connection_tone:
            self._queue("tone", tone(form))
        if agent.greeting_delay_ms:
            # Silence that is played, not a timer: exact on the carrier's own clock.
            self._queue("delay", form.silence(agent.greeting_delay_ms))
        for place, path in enumerate(agent.greeting_files):  # one file may stand there twice
            try:
                self._queue(f"greeting:{place}", await self._services.prompts.file(path, form))
            except wav.WavError as error:
                self.record.log.error("greeting file left out", file=str(path), error=str(error))

    def _queue(self, name: str, payload: bytes) -> None:
        item_id = f"{LOCAL}{name}"
        self._playout.add(item_id, payload, origin="local")
        self._playout.finish(item_id)
        self.wake_speaker()

    def play_clip(self, name: str) -> None:
        """Queue a bundled message."""
        self._clips += 1  # item ids are used once
        self._queue(f"{name}:{self._clips}", self._services.prompts.clip(name, self._leg_format))

    async def _say_goodbye(self, reason: str, words: Literal["farewell", "unavailable"]) -> None:
        """The last words, heard to their last sample, then the end (design 1.6)."""
        assert self._dialogue is not None
        with trio.move_on_after(MEDIA_TIMEOUT_S):
            await self._media.wait()  # a model lost while the carrier still connects
        if self._leg is None or self._speaker is None:
            self.end(reason)
            return
        self._close(self._dialogue)
        self._speaker.resume()  # on hold too the last words are due; the line drops after them
        if words == "farewell":
            self._dialogue.cut_off()
        # What a lost model had said is heard before the message; the playout bounds it.
        rest_s = self._playout.unheard / (1000 * self._leg_format.bytes_per_ms)
        with trio.move_on_after(rest_s + GOODBYE_LIMIT_S):
            if not (words == "farewell" and await self._model_says_farewell()):
                await self._queue_last_words(words)
            await self._speaker.silent()
            with suppress(LegClosed):  # the caller did not wait for it
                await self._leg.drained()
        self.end(reason)

    def _close(self, dialogue: Dialogue) -> None:
        self.record.to(CallState.ENDING)
        dialogue.close()

    async def _model_says_farewell(self) -> bool:
        """Have the model speak the agent's farewell; False where it cannot, or does not begin."""
        assert self._dialogue is not None
        text = self.agent.farewell_text
        if text is None or self.record.model_state is not ModelState.READY:
            return False
        dialogue = self._dialogue
        dialogue.ask(exactly(text))
        with trio.move_on_after(self.agent.no_answer_s):
            await dialogue.last_words_begun.wait()
        if not dialogue.last_words_begun.is_set():
            dialogue.close()  # should it begin after all, it is not heard over the bundled one
            return False
        await dialogue.last_words_over.wait()
        return True

    async def _queue_last_words(self, words: Literal["farewell", "unavailable"]) -> None:
        path = self.agent.unavailable_file
        if words == "unavailable" and path is not None:
            try:
                self._queue(
                    "unavailable", await self._services.prompts.file(path, self._leg_format)
                )
            except wav.WavError as error:
                self.record.log.error("prompt file left out", file=str(path), error=str(error))
            else:
                return
        self.play_clip(words)

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


async def _first(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
