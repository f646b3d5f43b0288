"""What an answer of a pipeline is billed: tokens of the chat, characters and seconds of speech."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, final

from voiced.engine import ToolSpec, Usage
from voiced.pipeline.providers import ChatPiece, Message, ToolRequest

__all__ = ["Bill"]

# An estimate: four letters of English to a token; by bytes it holds, roughly, for other scripts.
BYTES_PER_TOKEN: Final = 4
TOKENS_PER_MESSAGE: Final = 4  # what the roles and delimiters of one add


@final
class Bill:
    """Counts what one answer uses.

    A server tells a chat's tokens at its end, if it does at all. It never does so for one that was
    broken off, because the caller interrupted; that is billed all the same, and estimated here.
    """

    def __init__(self) -> None:
        self._told: Usage | None = None
        self._messages: Sequence[Message] | None = None  # asked, so far as it will be billed
        self._tools: Sequence[ToolSpec] = ()
        self._written = 0  # bytes
        self._characters = 0
        self._sounded_ms = 0.0

    def ask(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> None:
        """The chat model is asked."""
        self._messages, self._tools = messages, tools

    def refused(self) -> None:
        """It has not answered, for a fault of its own."""
        self._messages = None

    def take(self, piece: ChatPiece) -> None:
        """It has given something."""
        match piece:
            case str():
                self._written += len(piece.encode("utf-8", "replace"))
            case ToolRequest():
                self._written += len(piece.name) + len(piece.arguments.encode("utf-8", "replace"))
            case Usage() if piece != Usage():  # noughts are no figures
                self._told = piece

    def speak(self, text: str) -> None:
        """A sentence is to be spoken."""
        self._characters += len(text)

    def sound(self, ms: float) -> None:
        """So much of it has come."""
        self._sounded_ms += ms

    def usage(self) -> Usage | None:
        """What it comes to; None for nothing."""
        spoken = Usage(speech_characters=self._characters, speech_s=round(self._sounded_ms) / 1000)
        if self._told is not None:
            return self._told + spoken
        if self._messages is not None:
            return self._estimate(self._messages) + spoken
        return spoken if self._characters else None

    def _estimate(self, messages: Sequence[Message]) -> Usage:
        read = sum(len(m.content.encode("utf-8", "replace")) for m in messages)
        for message in messages:
            read += sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        for tool in self._tools:
            read += len(tool.name) + len(tool.description) + len(json.dumps(dict(tool.parameters)))
        return Usage(
            text_in=-(-read // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages),
            text_out=-(-self._written // BYTES_PER_TOKEN),
        )
