"""The conversation as it was heard, and as the chat model is told of it. Pure.

An answer is kept as the pieces that were spoken, each with the length of its sound, so that an
answer of which the caller heard four seconds ends for the model where it ended for the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, final

from voiced.pipeline.providers import Message, ToolRequest
from voiced.pipeline.sentences import width

__all__ = ["PENDING", "History"]

PENDING: Final = "(no result yet)"
"""What the model reads of a tool that is still at work: every request must have a result."""

MS_A_CHARACTER: Final = 65.0  # of Latin script, until this voice's own pace is known
# Entries beyond what is sent: they may be empty yet, or deleted later.
SPARE: Final = 16
MAX_RESULT_CHARS: Final = 65_536  # of a tool; more would crowd out the conversation


@dataclass(slots=True)
class _Piece:
    text: str
    ms: float = 0.0
    whole: bool = False  # its sound has come to its end


@dataclass(slots=True)
class _Said:
    """A text of a caller, of us, or given to the model. None: it is being written down."""

    item_id: str
    role: Literal["system", "user", "assistant"]
    text: str | None


@dataclass(slots=True)
class _Answer:
    item_id: str
    pieces: list[_Piece] = field(default_factory=list)
    requests: list[ToolRequest] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@final
class History:
    """One conversation; at most `max_messages` of it are sent, the newest."""

    def __init__(self, max_messages: int) -> None:
        self._max = max_messages
        self._entries: list[_Said | _Answer] = []
        self._spoken_ms = self._spoken_width = 0.0  # of whole pieces

    # --- what is said -----------------------------------------------------------------------

    def add_message(self, role: Literal["system", "user", "assistant"], text: str) -> None:
        """Put a text at the end."""
        self._add(_Said("", role, text))

    def open_turn(self, item_id: str) -> None:
        """The caller has said something here; the words come with `write_down`."""
        self._add(_Said(item_id, "user", None))

    def write_down(self, item_id: str, text: str) -> bool:
        """The words of a turn; without any the turn is forgotten. Returns whether it is there."""
        for entry in self._entries:
            if isinstance(entry, _Said) and entry.item_id == item_id:
                if text:
                    entry.text = text
                else:
                    self._entries.remove(entry)
                return bool(text)
        return False  # deleted meanwhile

    def begin_answer(self, item_id: str) -> None:
        """An answer comes here. It is not sent as long as nothing of it was heard."""
        self._add(_Answer(item_id))

    def speak(self, item_id: str, text: str) -> None:
        """The next piece of an answer begins to sound."""
        answer = self._answer(item_id)
        if answer is not None and not answer.cut:
            answer.pieces.append(_Piece(text))

    def sounded(self, item_id: str, ms: float, *, whole: bool = False) -> None:
        """`ms` more of the last piece have come; `whole`: and that was the end of it."""
        answer = self._answer(item_id)
        if answer is None or answer.cut or not answer.pieces:
            return
        piece = answer.pieces[-1]
        piece.ms += ms
        if whole and not piece.whole:
            piece.whole = True
            self._spoken_ms += piece.ms
            self._spoken_width += width(piece.text)

    def request(self, item_id: str, request: ToolRequest) -> None:
        """The model calls a tool as part of an answer."""
        answer = self._answer(item_id)
        if answer is not None:
            answer.requests.append(request)

    def result(self, call_id: str, output: str) -> bool:
        """What a tool returned; False for a call that the model has not made."""
        for entry in reversed(self._entries):
            if isinstance(entry, _Answer) and any(r.call_id == call_id for r in entry.requests):
                entry.results[call_id] = output[:MAX_RESULT_CHARS]
                return True
        return False

    # --- what was heard of it ---------------------------------------------------------------

    def truncate(self, item_id: str, heard_ms: float) -> None:
        """Only the first `heard_ms` of an answer were heard; nothing is added to it any more."""
        answer = self._answer(item_id)
        if answer is None:
            return
        answer.cut = True
        left = heard_ms
        kept: list[_Piece] = []
        for piece in answer.pieces:
            if left <= 0:
                break
            length = piece.ms
            if not piece.whole:  # its end has not come: guess its length by the voice's pace
                length = max(length, width(piece.text) * self._pace)
            if left < length:
                text = _part(piece.text, left / length)
                if text.strip():
                    kept.append(_Piece(text, left, whole=True))
                break
            kept.append(_Piece(piece.text, length, whole=True))
            left -= length
        answer.pieces = kept
        self._drop_if_empty(answer)

    def delete(self, item_id: str) -> None:
        """Nothing of an item was heard, or a turn was no speech. Requests of tools stay."""
        for entry in self._entries:
            if item_id and entry.item_id == item_id:
                if isinstance(entry, _Answer):
                    entry.cut = True
                    entry.pieces.clear()
                    self._drop_if_empty(entry)
                else:
                    self._entries.remove(entry)
                return

    def end_answer(self, item_id: str) -> None:
        """No more of an answer will come."""
        answer = self._answer(item_id)
        if answer is not None:
            self._drop_if_empty(answer)

    @property
    def _pace(self) -> float:
        """Milliseconds a character, as far as is known."""
        if self._spoken_width < 20:
            return MS_A_CHARACTER
        return self._spoken_ms / self._spoken_width

    # --- for the model ----------------------------------------------------------------------

    def messages(self, instructions: str) -> Sequence[Message]:
        """The newest messages, behind the instructions. A request is never without its result."""
        sent: list[list[Message]] = []
        count = 0
        for entry in reversed(self._entries):
            messages = _messages(entry)
            if messages and count + len(messages) > self._max and sent:
                break
            count += len(messages)
            sent.append(messages)
        told = [message for messages in reversed(sent) for message in messages]
        if not instructions:
            return told
        return [Message("system", instructions), *told]

    def _add(self, entry: _Said | _Answer) -> None:
        self._entries.append(entry)
        if len(self._entries) > self._max + SPARE:
            del self._entries[0]

    def _answer(self, item_id: str) -> _Answer | None:
        for entry in reversed(self._entries):
            if isinstance(entry, _Answer) and entry.item_id == item_id:
                return entry
        return None

    def _drop_if_empty(self, answer: _Answer) -> None:
        if not answer.pieces and not answer.requests and answer in self._entries:
            self._entries.remove(answer)


def _messages(entry: _Said | _Answer) -> list[Message]:
    if isinstance(entry, _Said):
        return [] if entry.text is None else [Message(entry.role, entry.text)]
    text = "".join(piece.text for piece in entry.pieces).strip()
    if not text and not entry.requests:
        return []
    return [
        Message("assistant", text, tuple(entry.requests)),
        *(
            Message("tool", entry.results.get(r.call_id, PENDING), tool_call_id=r.call_id)
            for r in entry.requests
        ),
    ]


def _part(text: str, share: float) -> str:
    """The first `share` of a text, whole words only where it has spaces."""
    size = int(len(text) * share)
    part = text[:size]
    if size < len(text) and not text[size].isspace() and " " in text.strip():
        part = part[: part.rfind(" ") + 1]
    return part
