"""Events of an answer in another order than OpenAI's, as other servers send them. No I/O.

The reference promises little about the order between response.created and response.done, and
servers that speak the protocol differ in it. None of them delays an event past the response's end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from voiced.emulator.options import Order

__all__ = ["Ordering"]


@dataclass(frozen=True)
class _Rule:
    """Events of the kinds `held` wait for one of `until`, and are sent behind it.

    Where none comes they are sent before the response is over.
    """

    held: frozenset[str]
    until: frozenset[str]


_DELTAS: Final = frozenset(
    {
        "response.output_audio.delta",
        "response.output_text.delta",
        "response.function_call_arguments.delta",
    }
)
_PARTS_DONE: Final = frozenset(
    {
        "response.content_part.done",
        "response.function_call_arguments.done",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.output_text.done",
    }
)
_WORDS: Final = frozenset({"response.output_audio_transcript.delta"})
_OVER: Final = frozenset({"response.done"})
_RULES: Final[dict[Order, _Rule | None]] = {
    "usual": None,
    "created_late": _Rule(frozenset({"response.created", "rate_limits.updated"}), _DELTAS),
    "items_first": _Rule(_PARTS_DONE, frozenset({"response.output_item.done"})),
    "items_late": _Rule(frozenset({"conversation.item.added", "conversation.item.done"}), _OVER),
    "words_first": None,  # they have to be known before the audio: the performer's to do
    "words_last": _Rule(_WORDS, frozenset({"response.output_audio.done"})),
}


@final
class Ordering:
    """Holds back what comes too early in `order`: at most the events of one answer but its audio.

    Only within a response, so that what answers a client's own event is never late for long.
    """

    def __init__(self, order: Order) -> None:
        self._rule = _RULES[order]
        self._held: list[bytes] = []
        self._running = 0

    def take(self, kind: str, message: bytes) -> list[bytes]:
        """Return the messages to send now; `kind` is the GA name of the event in `message`."""
        rule = self._rule
        if rule is None:
            return [message]
        if kind == "response.created":
            self._running += 1
        elif kind == "response.done":
            self._running -= 1
        over = kind == "response.done"
        if kind in rule.held and (self._running or over):
            self._held.append(message)
            return []
        if kind in rule.until:
            return [message, *self._release()]
        return [*self._release(), message] if over else [message]

    def _release(self) -> list[bytes]:
        held, self._held = self._held, []
        return held
