"""What a new session is told of the conversation so far. Pure but for the plan's `history`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, final

from voiced.engine import Said, ToolCall, ToolSpec

__all__ = ["MAX_HISTORY", "Memory"]

MAX_HISTORY: Final = 512  # texts: more than an hour of talk
MAX_GIVEN: Final = 256  # of these, what the call gave: keys, results of tools, greetings
MAX_OPEN_CALLS: Final = 64  # a call that asks for more functions at a time has gone mad
LONG: Final = 500  # characters: no two texts of that length are alike to their end by chance
MAX_RESULT: Final = 4000  # characters of a function's result that are remembered

CALLED: Final = (
    "You have called the function {name} with the arguments {arguments}. "
    "Its result is still to come: do not call it again."
)
RETURNED: Final = (
    "The function {name}, which you called with the arguments {arguments}, returned: {output}"
)


@final
class Memory:
    """The conversation's text, the functions, and the function calls that are still open."""

    def __init__(self, history: Callable[[], Sequence[Said]], tools: Sequence[ToolSpec]) -> None:
        self._history = history
        self.tools = tuple(tools)
        self._given: deque[tuple[int, Said]] = deque(maxlen=MAX_GIVEN)  # at which place
        self._calls: dict[str, ToolCall] = {}  # of the session that talks
        self._orphans: dict[str, ToolCall] = {}  # of those before

    @property
    def calls_open(self) -> bool:
        """Whether a function of the session that talks is at work."""
        return bool(self._calls)

    def give(self, role: Literal["user", "assistant", "system"], text: str) -> None:
        """A text was put into the conversation."""
        self._given.append((len(self._history()), Said(role, text)))

    def called(self, call: ToolCall) -> None:
        """The model calls a function."""
        self._calls[call.call_id] = call
        if len(self._calls) > MAX_OPEN_CALLS:
            del self._calls[next(iter(self._calls))]

    def returned(self, call_id: str, output: str) -> str | None:
        """A function returned. None: tell the session that talks, whose call it is.

        Otherwise the text to be given, empty for a call that nobody made.
        """
        mine = call_id in self._calls
        call = self._calls.pop(call_id, None) or self._orphans.pop(call_id, None)
        if call is None:
            return ""
        text = RETURNED.format(name=call.name, arguments=call.arguments, output=output[:MAX_RESULT])
        self.give("system", text)
        return None if mine else text

    def lost(self) -> None:
        """The session is gone: results of its functions will be texts."""
        self._orphans |= self._calls
        self._calls.clear()
        while len(self._orphans) > MAX_OPEN_CALLS:
            del self._orphans[next(iter(self._orphans))]

    def take_over(self, *, first: bool = False) -> list[Said]:
        """All that a new session has to be told, in order.

        Texts that were given may stand in the history as well, those of the agent only as far as
        they were heard: a session that is the `first` is told the whole, since they are still to
        be heard, later ones what the history has.
        """
        history = list(self._history())
        given = deque(self._given)
        extra: deque[tuple[int, Said]] = deque()
        for place, said in given:
            at = next((i for i, each in enumerate(history) if _same(each, said)), None)
            if at is None:
                extra.append((place, said))
            elif first:
                history[at] = said
        told: list[Said] = []
        for place, said in enumerate(history):
            while extra and extra[0][0] <= place:
                told.append(extra.popleft()[1])
            told.append(said)
        told += [said for _, said in extra]
        told += [
            Said("system", CALLED.format(name=call.name, arguments=call.arguments))
            for call in self._orphans.values()
        ]
        return told[-MAX_HISTORY:]


def _same(recorded: Said, given: Said) -> bool:
    """Whether the history has a text that was given: as far as it was heard, or kept."""
    if recorded.role != given.role or not recorded.text:
        return False
    if given.role == "assistant" or len(recorded.text) >= LONG:
        return given.text.startswith(recorded.text)
    return given.text == recorded.text
