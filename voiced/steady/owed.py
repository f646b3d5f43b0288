"""What the model owes: answers asked for, answers to the caller's turns, the rest of a lost one.

Pure. Nothing that is owed is ever forgotten but by `cancel`, by an answer, or, of more than
`MAX_ASKS`, the oldest.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal, final

__all__ = ["MAX_ASKS", "MAX_QUOTE", "Ask", "Owed"]

MAX_ASKS: Final = 8  # a greeting, a prompt and a farewell are three
MAX_QUOTE: Final = 240  # characters of a lost answer's last words, as the model is reminded of them
MAX_ITEMS: Final = 64  # of answers that are over, whose words may still be under way


@dataclass(slots=True, eq=False)
class Ask:
    """An answer that is wanted.

    `begun`: the last words of it that were given by a session that is gone. `turn`: the session
    gives it by itself, because the caller's turn is over.
    """

    instructions: str | None = None
    begun: str | None = None
    turn: bool = False
    tries: int = 0


@dataclass(slots=True, eq=False)
class _Running:
    response_id: str
    ask: Ask
    audio: int = 0  # bytes
    whole: bool = False  # its last item has ended, and no other has begun
    # Bounded by the longest answer of a model, some thousand words.
    words: dict[str, list[str]] = field(default_factory=dict)  # by item
    item: str = ""  # that audio came of last
    sounded: list[str] = field(default_factory=list)  # items, in their order

    def last_words(self) -> str | None:
        """Not those that ran ahead of audio. None where none came: it is asked for from the top."""
        heard = ["".join(self.words.get(item_id, ())).strip() for item_id in self.sounded]
        return " ".join(filter(None, heard))[-MAX_QUOTE:] or None


@final
class Owed:
    """The asks of one call, in their order: waiting, with the session, being answered."""

    def __init__(self) -> None:
        self._waiting: deque[Ask] = deque(maxlen=MAX_ASKS)
        self._sent: deque[Ask] = deque(maxlen=MAX_ASKS)
        self._running: _Running | None = None
        self._before: deque[str] = deque(maxlen=MAX_ITEMS)  # items of answers that are over

    @property
    def any(self) -> bool:
        """Whether an answer is owed or being given."""
        return bool(self._waiting or self._sent or self._running is not None)

    @property
    def running(self) -> bool:
        """Whether an answer is being given."""
        return self._running is not None

    @property
    def turn_waits(self) -> bool:
        """Whether the answer to the caller's last turn has not begun."""
        return any(ask.turn for ask in self._sent)

    @property
    def given(self) -> int:
        """Bytes of audio of the answer that is being given."""
        return 0 if self._running is None else self._running.audio

    @property
    def waiting(self) -> bool:
        """Whether there are asks that no session knows of."""
        return bool(self._waiting)

    # ---- commands

    def want(self, instructions: str | None) -> None:
        """An answer is asked for. A plain one behind a plain one says nothing new."""
        if instructions is None and self._waiting and self._waiting[-1].instructions is None:
            return
        self._waiting.append(Ask(instructions))

    def next(self) -> Ask:
        """The ask that the session is to be told now."""
        ask = self._waiting.popleft()
        self._sent.append(ask)
        return ask

    def cancel(self) -> None:
        """Nothing is wanted any more."""
        self._waiting.clear()
        self._sent.clear()
        self._over()

    def _over(self) -> None:
        if self._running is not None:
            self._before.extend({*self._running.sounded, *self._running.words})
            self._running = None

    # ---- from the session

    def turn(self) -> None:
        """The caller's turn is over, and the session answers it by itself."""
        if not self.turn_waits:
            self._sent.append(Ask(turn=True))

    def started(self, response_id: str) -> bool:
        """An answer has begun; False where the session began it by itself.

        No server says what its answer is to. They come in the order in which they were owed, but
        for a turn that ends within the round trip of an ask.
        """
        ask = self._sent.popleft() if self._sent else Ask(turn=True)
        self._over()
        self._running = _Running(response_id, ask)
        return not ask.turn

    def audio(self, item_id: str, size: int) -> bool:
        """Audio of the answer has come; whether that is the first."""
        running = self._running
        if running is None:
            return False
        if item_id != running.item:
            running.item = item_id
            if item_id not in running.sounded:
                running.sounded.append(item_id)
        first = not running.audio
        running.audio += size
        running.whole = False
        return first

    def words(self, item_id: str, text: str, *, final: bool) -> None:
        """Words of the answer have come, or late ones of an item that was cut before."""
        running = self._running
        if running is None or item_id in self._before:
            return
        if item_id not in running.words and item_id not in running.sounded:
            running.whole = False  # they run ahead: its audio is to come
        if final:
            running.words[item_id] = [text]
        else:
            running.words.setdefault(item_id, []).append(text)

    def audio_done(self, item_id: str) -> None:
        """No more audio of the item comes."""
        if self._running is not None and item_id == self._running.item:
            ahead = self._running.words.keys() - self._running.sounded
            self._running.whole = not ahead

    def done(
        self, response_id: str, status: Literal["completed", "cancelled", "incomplete", "failed"]
    ) -> tuple[int, Ask | None]:
        """An answer has ended: returns the bytes of its audio, and the ask that has failed."""
        running = self._running
        if running is None or running.response_id != response_id:
            return 0, None
        self._over()
        if status != "failed":
            return running.audio, None
        return running.audio, self._left_of(running, tools=False)

    def repeated(self, ask: Ask) -> None:
        """The session asks again by itself for what has failed."""
        self._sent.appendleft(ask)

    def again(self, ask: Ask) -> None:
        """Ask again for what has failed."""
        ask.tries += 1
        ask.turn = False
        self._waiting.appendleft(ask)

    def turns_begin(self) -> None:
        """The next session hears the caller's last turn and answers that by itself."""
        self._waiting = deque(
            (ask for ask in self._waiting if ask.instructions is not None or ask.begun),
            maxlen=MAX_ASKS,
        )

    def lost(self, *, tools: bool) -> None:
        """The session is gone: everything that it owed waits for the next.

        `tools`: a model that had said something whole may have been about to call a function.
        """
        asks = [*self._sent, *self._waiting]
        left = None if self._running is None else self._left_of(self._running, tools=tools)
        if left is not None:
            asks.insert(0, left)
        self._over()
        self._sent.clear()
        self._waiting.clear()
        plain = False
        for ask in asks:
            ask.turn = False
            ask.tries = 0
            if ask.instructions is not None or ask.begun is not None:
                self._waiting.append(ask)
            elif not plain:
                plain = True
                self._waiting.append(ask)

    def _left_of(self, running: _Running, *, tools: bool) -> Ask | None:
        ask = running.ask
        if not running.audio:
            return ask
        if running.whole and not tools:
            return None
        return Ask(ask.instructions, begun=running.last_words(), tries=ask.tries)
