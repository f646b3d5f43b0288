"""The end of a call that is not cut short: last words, heard to their last sample (design 1.6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal

import trio

from voiced.config.types import Agent
from voiced.engine import ModelState, exactly
from voiced.leg import Transferred, Unsupported
from voiced.record import CallRecord
from voiced.states import CallState
from voiced.talk.absence import Absence
from voiced.talk.dialogue import Dialogue
from voiced.talk.voice import Voice

__all__ = ["GOODBYE_LIMIT_S", "HOLD_LIMIT_S", "LET_FINISH_S", "Ending", "LastWords"]

GOODBYE_LIMIT_S: Final = 20.0
"""A farewell is a sentence; a line that does not drain ends all the same."""

LET_FINISH_S: Final = 20.0
"""How long an answer that is being spoken may go on before a call that is to end ends."""

HOLD_LIMIT_S: Final = 180.0
"""How long a caller on hold, whom somebody else is to take, is waited for. Telephones remind
whoever holds after one to three minutes; who does not come back then has forgotten the call, which
keeps a line of the trunk meanwhile. It costs nothing more: there is no model."""

LastWords = Literal["farewell", "unavailable"] | bytes | None
"""What is said: the agent's farewell, the message that nobody is there, audio of the leg's format,
or nothing more than what is being said already."""


class Ending:
    """One call's."""

    def __init__(
        self,
        record: CallRecord,
        agent: Agent,
        bytes_per_ms: int,
        voice: Voice,
        dialogue: Dialogue,
        absence: Absence,
        start: Callable[..., None],
        *,
        media: Callable[[], Awaitable[None]],
        transfer: Callable[[str], Awaitable[Transferred]],
        end: Callable[[str], None],
    ) -> None:
        """`start` runs a task of the call, and raises Unsupported where that is over.

        `media` waits, not for ever, until the caller hears; `end` ends the call at once.

        `transfer` hands the caller over. Raises Unsupported, ValueError.
        """
        self._record = record
        self._agent = agent
        self._bytes_per_ms = bytes_per_ms
        self._voice = voice
        self._dialogue = dialogue
        self._absence = absence
        self._start = start
        self._media = media
        self._transfer = transfer
        self._end = end
        self._waits = False  # for the caller's return
        self._rescued = False
        self.begun = False
        """The call is winding down: nothing new is begun, and the model hears no more."""

    def wind_down(self, reason: str, words: LastWords) -> None:
        """End the call with a last message, heard to its end; nothing if that is under way.

        A transfer that is under way is waited for: one that succeeds ends the call without it.
        Where nobody is there to talk, the agent may name somebody else, who takes the caller; on
        hold that waits for the caller's return, and any other end comes at once: nobody would hear
        the message.
        """
        if self.begun or self._record.reason is not None:
            return
        if self._absence.transferring:
            # The caller is on the way to somebody else; where that fails there is still time.
            self._absence.wait_to(lambda: self.wind_down(reason, words))
            return
        target = self._agent.transfer_when_lost if words == "unavailable" else None
        rescues = target is not None and not self._rescued
        if self._absence.held and rescues:
            self._absence.wait_to(lambda: self.wind_down(reason, words))
            if not self._waits:
                self._start(self._wait_for_caller, reason)
                self._waits = True
            return
        if self._absence.held:
            self._end(reason)
            return
        if target is not None and rescues:
            self._start(self._rescue, reason, target)
            self._rescued = True
            return
        self._start(self._say_goodbye, reason, words)
        self.begun = True
        self._absence.stop()
        self._record.reason = reason

    async def let_finish(self, reason: str, words: LastWords) -> None:
        """Let the agent say what it is saying, then wind down."""
        if self._voice.audible:
            with trio.move_on_after(LET_FINISH_S):
                await self._dialogue.answered()
                await self._voice.silent()
        self.wind_down(reason, words)

    async def _wait_for_caller(self, reason: str) -> None:
        """End the call if the caller does not come back from hold in time."""
        await trio.sleep(HOLD_LIMIT_S)
        if not (self._rescued or self.begun):
            self._end(reason)

    async def _rescue(self, reason: str, target: str) -> None:
        """No model is left: somebody else takes the caller, or the call ends as it would have."""
        await self._media()
        if self._voice.audible:
            if not self._absence.away:
                self._voice.resume()  # after a transfer that failed nobody has yet
                self._dialogue.hold(False)
            self._voice.play_clip("one_moment")
            with trio.move_on_after(LET_FINISH_S):
                await self._voice.silent()
            try:
                if (await self._transfer(target)).done:
                    return
            except (Unsupported, ValueError) as error:
                self._record.log.warning("transfer when lost failed", why=str(error))
        self.wind_down(reason, "unavailable")

    async def _say_goodbye(self, reason: str, words: LastWords) -> None:
        await self._media()  # a model lost while the carrier still connects
        if self._voice.audible:
            await self._say_last_words(words)
        self._end(reason)

    async def _say_last_words(self, words: LastWords) -> None:
        """Say goodbye; returns when it has been heard, or nobody can hear it."""
        voice = self._voice
        self._record.to(CallState.ENDING)
        self._dialogue.close()
        voice.resume()  # on hold too the last words are due; the line drops after them
        if words == "farewell":
            self._dialogue.interruption.cut_off()
        # What a lost model had said is heard before the message; the playout bounds it.
        rest_s = voice.playout.unheard / (1000 * self._bytes_per_ms)
        with trio.move_on_after(rest_s + GOODBYE_LIMIT_S):
            if isinstance(words, bytes):
                voice.queue("last-words", words)
            elif words is not None and not (
                words == "farewell" and await self._model_says_farewell()
            ):
                voice.play_clip(words)
            await voice.silent()
            await voice.drained()

    async def _model_says_farewell(self) -> bool:
        """Have the model speak the agent's farewell; False where it cannot, or does not begin."""
        text, answers = self._agent.farewell_text, self._dialogue.answers
        if text is None or self._record.model_state not in (ModelState.READY, ModelState.FALLBACK):
            return False
        answers.ask(exactly(text))
        with trio.move_on_after(self._agent.no_answer_s):
            await answers.last_words_begun.wait()
        if not answers.last_words_begun.is_set():
            self._dialogue.close()  # should it begin after all, it is not heard over the bundled
            return False
        await answers.last_words_over.wait()
        return True
