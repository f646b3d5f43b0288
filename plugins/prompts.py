"""Files played in order when a call is answered, by opening hours, and what comes after them.

    [plugins.prompts]
    time_zone = "Europe/Berlin"
    hours = { mon = ["09:00-12:00", "13:00-17:30"], fri = ["09:00-12:00"] }
    holidays = ["12-25", "12-26", "2026-04-03"]
    open = { files = ["welcome.wav", "data-protection.wav"] }
    closed = { files = ["closed.wav"], then = "voicemail" }

What was played stands in the journal: `prompts` is `open`, `closed` or `holiday`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import trio
from msgspec import Meta, field
from voiced_plugins._calendar import Calendar, Kind
from voiced_plugins._targets import wrong_targets

from voiced.plugin import (
    SILENCE,
    Call,
    Greeting,
    Host,
    Plugin,
    PluginError,
    Service,
    Settings,
    SoundFile,
    Unsupported,
    WavError,
    read_wav,
)

__all__ = ["Hours", "PromptSettings", "Prompts", "Sequence"]

_VOICEMAIL: Final = "take_message"
_TRANSFER_FAILED: Final = (
    "Nobody could be reached for the caller, who has heard announcements until now. "
    "Greet the caller and offer your help."
)

Spans = tuple[str, ...]


class Hours(Settings, frozen=True):
    """When somebody is there, by day of the week.

    Spans such as `"09:00-12:30"`; `"22:00-06:00"` ends on the next day.
    """

    mon: Spans = ()
    """Monday. Left out: closed, as on every day."""
    tue: Spans = ()
    """Tuesday."""
    wed: Spans = ()
    """Wednesday."""
    thu: Spans = ()
    """Thursday."""
    fri: Spans = ()
    """Friday."""
    sat: Spans = ()
    """Saturday."""
    sun: Spans = ()
    """Sunday."""

    @property
    def by_day(self) -> Mapping[str, Spans]:
        """The spans, by the names of the days."""
        return {day: getattr(self, day) for day in self.__struct_fields__}

    def mistakes(self) -> Iterator[str]:
        """Hours that are none."""
        for day, spans in self.by_day.items():
            for span in spans:
                try:
                    Calendar({day: [span]}, (), UTC)
                except ValueError as error:
                    yield f"{day}: {error}"


class Sequence(Settings, frozen=True):
    """What callers hear, and what is done then."""

    files: tuple[SoundFile, ...] = ()
    """WAV files, played in this order."""
    then: Literal["continue", "hang_up", "transfer", "voicemail"] = "continue"
    """`continue`: the agent greets and the conversation begins; `hang_up`: the call ends; \
`transfer`: to `target`; `voicemail`: that plugin takes a message."""
    target: str | None = None
    """The number or SIP URI of `transfer`; where nobody is reached the conversation begins."""

    def mistakes(self) -> Iterator[str]:
        """Targets that are missing, too many, or none."""
        if (self.target is None) == (self.then == "transfer"):
            yield 'target belongs to then = "transfer"; add or remove it'
        if self.target is not None:
            yield from wrong_targets({"target": self.target})


class PromptSettings(Settings, frozen=True):
    """Announcements."""

    hours: Hours | None = None
    """`[plugins.prompts.hours]`: when it is open. Left out: always."""
    holidays: tuple[str, ...] = ()
    """Days on which it is not: `"2026-12-24"`, or `"12-25"` for every year."""
    time_zone: Annotated[str, Meta(min_length=1)] = "UTC"
    """Of hours and holidays, such as `"Europe/Berlin"`."""
    open: Sequence = field(default_factory=Sequence)
    """What is played when it is open."""
    closed: Sequence = field(default_factory=Sequence)
    """What is played when it is not."""
    holiday: Sequence | None = None
    """What is played on holidays. Left out: what is played when it is closed."""
    outbound: bool = False
    """Play them to people whom voiced calls, too."""

    def mistakes(self) -> Iterator[str]:
        """Days and zones that are none."""
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            yield f'time_zone: "{self.time_zone}" is not known; write one like "Europe/Berlin"'
        for day in self.holidays:
            try:
                Calendar({}, [day], UTC)
            except ValueError as error:
                yield f"holidays: {error}"

    def calendar(self) -> Calendar:
        """When it is open."""
        hours = {} if self.hours is None else self.hours.by_day
        return Calendar(hours, self.holidays, ZoneInfo(self.time_zone))

    def sequence(self, kind: Kind) -> Sequence:
        """What is played at such a time."""
        if kind == "open":
            return self.open
        return self.holiday if kind == "holiday" and self.holiday is not None else self.closed


def _duration_ms(files: Iterable[Path]) -> int:
    total = 0
    for file in files:
        try:
            total += read_wav(file).duration_ms
        except WavError as error:
            raise PluginError(f"{file} {error}") from None
    return total


class PromptService(Service):
    """The calendar, and what files there are."""

    config: PromptSettings

    def __init__(self, config: PromptSettings, host: Host) -> None:
        super().__init__(config, host)
        self.calendar = config.calendar()

    async def open(self) -> None:
        """Say how long it takes to hear them. Raises PluginError."""
        kinds: tuple[Kind, ...] = ("open", "closed", "holiday")
        for kind in kinds:
            if files := self.config.sequence(kind).files:
                ms = await trio.to_thread.run_sync(_duration_ms, files, abandon_on_cancel=True)
                self.host.log.info("prompts are ready", when=kind, files=len(files), ms=ms)

    def now(self) -> datetime:
        """The time; tests set it."""
        return datetime.now(UTC)


class Prompts(Plugin):
    """The announcements of one call."""

    Config = PromptSettings
    Service = PromptService
    config: PromptSettings
    service: PromptService

    def __init__(self, call: Call, config: PromptSettings, service: Any) -> None:
        super().__init__(call, config, service)
        self._is_for = call.direction == "inbound" or config.outbound

    @cached_property
    def _kind(self) -> Kind:
        # Once for each call: the shop does not close between its greeting and its announcement.
        return self.service.calendar.at(self.service.now())

    @property
    def _sequence(self) -> Sequence:
        return self.config.sequence(self._kind)

    async def greeting(self, planned: Greeting) -> Greeting | None:
        """Put the files before the greeting, or have none where no conversation follows."""
        if not self._is_for:
            return None
        self.call.set_fact("prompts", self._kind)
        if self._sequence.then == "continue":
            before = (*self._sequence.files, *planned.before)
            return Greeting(before=before, audio=planned.audio)
        return Greeting(audio=SILENCE)

    async def on_media(self) -> None:
        """Where no conversation follows, play without the model."""
        if self._is_for and self._sequence.then != "continue":
            self.call.start(self._play, self._sequence)

    async def _play(self, sequence: Sequence) -> None:
        async with self.call.take_over():
            if sequence.then == "hang_up" and sequence.files:
                if len(sequence.files) > 1:
                    await self.call.play(*sequence.files[:-1]).heard()
                self.call.hang_up(farewell=sequence.files[-1], reason="prompts")
                await trio.sleep_forever()  # the model stays out of it until the call has ended
            if sequence.files:
                await self.call.play(*sequence.files).heard()
            if sequence.then == "hang_up":
                self.call.hang_up(reason="prompts")
                await trio.sleep_forever()
            if sequence.then == "transfer" and await self._transfer(sequence.target or ""):
                return
            if sequence.then == "voicemail" and await self._voicemail():
                await trio.sleep_forever()
        self.call.tell(_TRANSFER_FAILED)

    async def _transfer(self, target: str) -> bool:
        try:
            outcome = await self.call.transfer(target)
        except (Unsupported, ValueError) as error:
            self.call.log.warning("transfer not possible", why=str(error))
            return False
        return outcome.done

    async def _voicemail(self) -> bool:
        try:
            await self.call.run_tool(_VOICEMAIL, {})
        except KeyError:
            self.call.log.error("no message taken", why="the plugin voicemail is not enabled")
            return False
        return True
