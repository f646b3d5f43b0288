"""Engine events on their way to the call, and back-pressure on whoever makes an answer."""

from __future__ import annotations

from typing import Final, final

import trio

from voiced.engine import AgentAudio, AgentAudioDone, AgentTranscript, EngineEvent, Lost

__all__ = ["AHEAD_MS", "EventQueue"]

AHEAD_MS: Final = 10_000
"""Audio that may wait for the call. A call takes events as they come, until its playout holds
minutes; then the text-to-speech server has to wait."""


@final
class EventQueue:
    """What a session has to tell. Everything but audio is a handful of events for each turn."""

    def __init__(self, bytes_per_ms: int) -> None:
        self._most = AHEAD_MS * bytes_per_ms
        self._events: list[EngineEvent] = []
        self._lost = False
        self._audio = 0  # bytes that wait
        self._handed: tuple[str, int] = "", 0  # the item last handed over, and bytes of it
        self._news = trio.Event()
        self._room = trio.Event()

    def put(self, event: EngineEvent) -> None:
        """Tell the call; nothing follows `Lost`. For audio, wait for `room` before."""
        if self._lost:  # what went on in the same step
            return
        self._lost = isinstance(event, Lost)
        self._events.append(event)
        if isinstance(event, AgentAudio):
            self._audio += len(event.payload)
        self._news.set()

    async def room(self) -> None:
        """Wait until more audio may be put. A checkpoint in any case."""
        await trio.lowlevel.checkpoint()
        while self._audio >= self._most:
            self._room = trio.Event()
            await self._room.wait()

    async def take(self) -> list[EngineEvent]:
        """Wait for events; hand over all that there are."""
        await trio.lowlevel.checkpoint()
        while not self._events:
            self._news = trio.Event()
            await self._news.wait()
        taken, self._events = self._events, []
        for event in taken:
            if isinstance(event, AgentAudio):
                item_id, size = self._handed
                size = size if item_id == event.item_id else 0
                self._handed = event.item_id, size + len(event.payload)
        self._audio = 0
        self._room.set()
        return taken

    def withdraw(self, item_id: str) -> int:
        """Take back sound and words of an item that nobody has seen; returns the bytes seen."""
        kept: list[EngineEvent] = []
        for event in self._events:
            mine = isinstance(event, AgentAudio | AgentAudioDone | AgentTranscript)
            if mine and event.item_id == item_id:  # type: ignore[union-attr]
                self._audio -= len(event.payload) if isinstance(event, AgentAudio) else 0
            else:
                kept.append(event)
        self._events = kept
        self._room.set()
        return self._handed[1] if self._handed[0] == item_id else 0
