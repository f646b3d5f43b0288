"""The last words of a call: heard to their last sample, then the end (design 1.6)."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, Literal, Protocol

import trio

from voiced.config.types import Agent
from voiced.dialogue import Dialogue
from voiced.engine import ModelState, exactly
from voiced.leg import Leg, LegClosed
from voiced.playout import Playout
from voiced.record import CallRecord
from voiced.speaker import Speaker
from voiced.states import CallState

__all__ = ["GOODBYE_LIMIT_S", "LET_FINISH_S", "LastWords", "say_last_words"]

GOODBYE_LIMIT_S: Final = (
    20.0  # a farewell is a sentence; a line that does not drain ends all the same
)

LET_FINISH_S: Final = 20.0
"""How long an answer that is being spoken may go on before a call that is to end ends."""

LastWords = Literal["farewell", "unavailable"] | bytes | None
"""What is said: the agent's farewell, the message that nobody is there, audio of the leg's format,
or nothing more than what is being said already."""


class EndingHost(Protocol):
    """The call that ends."""

    def queue(self, item_id: str, payload: bytes) -> None:
        """Have audio heard after all that was queued before."""

    def play_clip(self, name: str) -> None:
        """Queue a message."""


async def say_last_words(
    host: EndingHost,
    words: LastWords,
    agent: Agent,
    record: CallRecord,
    dialogue: Dialogue,
    speaker: Speaker,
    playout: Playout,
    leg: Leg,
) -> None:
    """Say goodbye; returns when it has been heard, or nobody can hear it."""
    record.to(CallState.ENDING)
    dialogue.close()
    speaker.resume()  # on hold too the last words are due; the line drops after them
    if words == "farewell":
        dialogue.cut_off()
    # What a lost model had said is heard before the message; the playout bounds it.
    rest_s = playout.unheard / (1000 * leg.format.bytes_per_ms)
    with trio.move_on_after(rest_s + GOODBYE_LIMIT_S):
        if isinstance(words, bytes):
            host.queue("last-words", words)
        elif words is not None and not (
            words == "farewell" and await _model_says_farewell(agent, record, dialogue)
        ):
            host.play_clip(words)
        await speaker.silent()
        with suppress(LegClosed):  # the caller did not wait for it
            await leg.drained()


async def _model_says_farewell(agent: Agent, record: CallRecord, dialogue: Dialogue) -> bool:
    """Have the model speak the agent's farewell; False where it cannot, or does not begin."""
    text = agent.farewell_text
    if text is None or record.model_state not in (ModelState.READY, ModelState.FALLBACK):
        return False
    dialogue.ask(exactly(text))
    with trio.move_on_after(agent.no_answer_s):
        await dialogue.last_words_begun.wait()
    if not dialogue.last_words_begun.is_set():
        dialogue.close()  # should it begin after all, it is not heard over the bundled one
        return False
    await dialogue.last_words_over.wait()
    return True
