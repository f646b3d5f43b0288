"""Ids of items, responses and function calls, kept apart where several sessions made them.

A clone numbers them from one in each session. The first session's stay as they are, which costs
nothing; later ones carry the session's number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    EngineEvent,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)

__all__ = ["Names"]

_RENAME: Final[dict[type[EngineEvent], Callable[[Callable[[str], str], Any], EngineEvent]]] = {
    AgentAudio: lambda n, e: AgentAudio(n(e.response_id), n(e.item_id), e.content_index, e.payload),
    AgentAudioDone: lambda n, e: AgentAudioDone(n(e.response_id), n(e.item_id)),
    AgentTranscript: lambda n, e: AgentTranscript(n(e.item_id), e.text, e.final),
    CallerTranscript: lambda n, e: CallerTranscript(n(e.item_id), e.text, e.final, e.usage),
    Committed: lambda n, e: Committed(n(e.item_id)),
    ResponseDone: lambda n, e: ResponseDone(n(e.response_id), e.status, e.reason, e.usage),
    ResponseStarted: lambda n, e: ResponseStarted(n(e.response_id)),
    SpeechStarted: lambda n, e: SpeechStarted(n(e.item_id), e.audio_start_ms),
    SpeechStopped: lambda n, e: SpeechStopped(n(e.item_id), e.audio_end_ms),
    ToolCall: lambda n, e: ToolCall(n(e.call_id), n(e.item_id), e.name, e.arguments),
}


@final
class Names:
    """The names of the call's session `number`, which begins at 1."""

    def __init__(self, number: int) -> None:
        self._prefix = "" if number == 1 else f"{number}:"
        self._first = number == 1

    @property
    def same(self) -> bool:
        """Whether the session's own names are used."""
        return self._first

    def outward(self, event: EngineEvent) -> EngineEvent:
        """The event as the call sees it."""
        rename = _RENAME.get(type(event))
        return event if rename is None else rename(self._name, event)

    def _name(self, name: str) -> str:
        return self._prefix + name if name else name  # no id stays none

    def inward(self, name: str) -> str | None:
        """The session's own name; None for one of another session."""
        if self._first:
            return name
        return name[len(self._prefix) :] if name.startswith(self._prefix) else None
