"""After a call: what it was about, as a chat model understands it.

    [plugins.summary]
    engine = "local"
    language = "German"

The facts `summary`, `sentiment` (`positive`, `neutral` or `negative`), `topics` (joined by commas)
and `caller_language` (an ISO 639-1 code) are added to the call's journal row some seconds after its
end; `summary_failed` says why they are not. Calls that wait for it are kept over restarts.

The engine needs a chat model: one of `kind = "pipeline"`, or the emulator. Its server gets the
transcript. What an answer costs, by its model's price, is added to the call's row and counts
towards the caps of `[cost]`, of the day on which it was given.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from voiced_plugins._courier import Again, Done, Limits, Never, Outcome
from voiced_plugins._gist import PROMPT, Gist, messages, shortened, understood
from voiced_plugins._spool import Item, Stored
from voiced_plugins._spooling import MIB, Spooler

from voiced.plugin import Host, Plugin, PluginError, Settings, Summary

__all__ = ["Summaries", "SummaryPlugin", "SummarySettings"]

SETTLE_S: Final = 7.0
"""Other plugins have 6 s after a call for what they note, and then its row is written once more:
what is noted before would be written over."""

STARTING: Final = 3
"""So often an engine may be missing: at a start services run before the engines are there."""

ANSWERS: Final = 4
"""So many answers that nobody understands are enough."""


class SummarySettings(Settings, frozen=True):
    """Which calls, by which model, in which language."""

    engine: str | None = None
    """The `[engine.NAME]` whose chat model is asked. Left out: the one that held the call."""
    language: str | None = None
    """What summary and topics are written in, e.g. `"German"`. Left out: the caller's language."""
    prompt: str = PROMPT
    """What the model is told; `{language}` is filled in. It has to ask for JSON with the key \
"summary", and may ask for "sentiment", "topics" and "language"."""
    min_s: Annotated[float, Meta(ge=0)] = 10.0
    """Calls with less audio than this, or in which the caller said nothing, are passed over."""
    max_chars: Annotated[int, Meta(ge=1000, le=1_000_000)] = 48_000
    """How much of a transcript the model gets, its beginning and its end."""
    retry_s: Annotated[float, Meta(ge=1)] = 3600.0
    """How long after a call its summary is worth asking for."""
    at_once: Annotated[int, Meta(ge=1, le=16)] = 2
    """How many are asked for at the same time."""
    max_waiting: Annotated[int, Meta(ge=1)] = 5000
    """How many calls may wait; of more the oldest are given up."""
    max_mb: Annotated[int, Meta(ge=1)] = 64
    """What may wait, in MiB."""

    def mistakes(self) -> Iterator[str]:
        """A prompt whose answers nobody understands."""
        if '"summary"' not in self.prompt or "json" not in self.prompt.lower():
            yield 'prompt: it has to ask for JSON with the key "summary"; leave it out'


class _Task(msgspec.Struct, frozen=True):
    """A call to be summed up, as the spool has it."""

    engine: str
    transcript: str


class Summaries(Spooler):
    """The calls that wait."""

    config: SummarySettings

    def __init__(self, config: SummarySettings, host: Host) -> None:
        super().__init__(config, host)
        self._missing: set[str] = set()  # engines whose lack was said: as many as there are names

    def limits(self) -> Limits:
        """What may wait, and how long."""
        config = self.config
        return Limits(
            max_items=config.max_waiting,
            max_bytes=config.max_mb * MIB,
            deadline_s=config.retry_s,
            at_once=config.at_once,
            first_s=SETTLE_S,
        )

    def put(self, call_id: str, engine: str, transcript: str) -> None:
        """Have a call summed up. Never waits."""
        if self.courier is None:
            return
        # What a model says need not be UTF-8.
        transcript = transcript.encode("utf-8", "replace").decode()
        body = msgspec.json.encode(_Task(engine, transcript))
        self.courier.put(Item(call_id, call_id, "summary", body, time.time()))

    async def deliver(self, stored: Stored) -> Outcome:
        """Ask once."""
        task = msgspec.json.decode(stored.item.body, type=_Task)
        config, call_id = self.config, stored.item.lane
        try:
            asked = messages(config.prompt, config.language, task.transcript)
            answer = await self.host.complete(task.engine, asked, call_id=call_id)
        except PluginError as error:
            if stored.tries < STARTING:
                return Again(str(error))
            self._say_missing(task.engine, error)
            return Never("there is no chat model")
        except OSError as error:
            return Again(f"{type(error).__name__}: {error}"[:200])
        gist = understood(answer)
        if gist is None:
            if stored.tries + 1 < ANSWERS:
                return Again("the model's answer has no summary")
            return Never("the model's answers have no summary")
        self._note(call_id, gist)
        return Done()

    def _note(self, call_id: str, gist: Gist) -> None:
        note = self.host.annotate
        note(call_id, "summary", gist.summary)
        if gist.sentiment is not None:
            note(call_id, "sentiment", gist.sentiment)
        if gist.topics:
            note(call_id, "topics", ", ".join(gist.topics))
        if gist.language is not None:
            note(call_id, "caller_language", gist.language)
        self.host.log.info("call summed up", call=call_id, sentiment=gist.sentiment)

    def lost(self, item: Item, why: str) -> None:
        """Say why there is no summary."""
        self.host.annotate(item.lane, "summary_failed", why[:200])

    def _say_missing(self, engine: str, error: PluginError) -> None:
        if engine not in self._missing:
            self._missing.add(engine)
            remedy = "set engine to one that has a chat model"
            self.host.log.error("no summaries", why=str(error), remedy=remedy)


class SummaryPlugin(Plugin):
    """Hands its call over when it has ended."""

    Config = SummarySettings
    Service = Summaries
    config: SummarySettings
    service: Summaries

    async def on_call_end(self, summary: Summary) -> None:
        """Have it summed up, if there is anything to."""
        config = self.config
        spoke = any(line.role == "caller" for line in summary.transcript)
        if not spoke or summary.media_ms < config.min_s * 1000:
            return
        transcript = shortened(summary.transcript, config.max_chars)
        self.service.put(summary.call_id, config.engine or self.call.engine, transcript)
        await self.service.written()
