"""Menus of keys as a state machine: keys and times in, what is to be done out.

Nothing here waits or plays. Times are seconds of any one clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta, field
from voiced_plugins._targets import wrong_targets

from voiced.plugin import Settings, SoundFile

__all__ = ["Act", "Action", "Begin", "Collect", "Effect", "Home", "Keypad", "Menu", "Refuse"]

Seconds = Annotated[float, Meta(gt=0, le=300)]
SecondsOrNever = Annotated[float, Meta(ge=0, le=300)]
Tries = Annotated[int, Meta(ge=1, le=20)]

_SEQUENCE: Final = re.compile(r"[0-9*#A-D]{1,16}")
_DIGITS: Final = "{digits}"
_RESULT: Final = "{result}"


class Action(Settings, frozen=True):
    """What keys do. What is given is done in this order: `play`, `tool`, then one of the others."""

    play: tuple[SoundFile, ...] = ()
    """WAV files that the caller hears first; before `hang_up` they are the farewell."""
    tool: str | None = None
    """The name of a tool to run, of any plugin."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """The tool's arguments; `{digits}` in a text stands for the number that was collected."""
    say: str | None = None
    """Words that the agent speaks exactly; `{digits}` and the tool's `{result}` are filled in."""
    tell: str | None = None
    """A text for the model, which answers it; `{digits}` and `{result}` are filled in."""
    transfer: str | None = None
    """The number or SIP URI that the caller is handed over to; `{digits}` is filled in."""
    hang_up: bool = False
    """End the call, with the agent's farewell."""
    menu: str | None = None
    """The menu to go to."""
    collect: Collect | None = None
    """A number to ask for."""

    def mistakes(self) -> Iterator[str]:
        """What cannot be done, or not together."""
        last = ("say", "tell", "transfer", "hang_up", "menu", "collect")
        given = [name for name in last if getattr(self, name)]
        if len(given) > 1:
            yield f"{' and '.join(given)} cannot go together; keep one of them"
        if not (given or self.play or self.tool):
            yield f"does nothing; add play, tool, {', '.join(last[:-1])} or {last[-1]}"
        if self.transfer is not None:
            yield from wrong_targets({"transfer": self.transfer.replace(_DIGITS, "1" * 8)})
        if self.arguments and not self.tool:
            yield "arguments: they are a tool's; add tool"
        if not self.tool and any(_RESULT in text for text in (self.say or "", self.tell or "")):
            yield "{result} is a tool's; add tool"

    @property
    def stays(self) -> bool:
        """Whether the caller is still at the keys afterwards."""
        return self.menu is not None or self.collect is not None

    @property
    def shown(self) -> tuple[str, ...]:
        """Texts that the model, or a log of transfers, gets to see."""
        return tuple(text for text in (self.say, self.tell, self.transfer) if text)


class Collect(Settings, frozen=True):
    """A number that the caller types."""

    then: Action
    """What is done with it."""
    prompt: SoundFile | None = None
    """A WAV file that asks for it."""
    min_length: Annotated[int, Meta(ge=1, le=64)] = 1
    """The fewest digits."""
    max_length: Annotated[int, Meta(ge=1, le=64)] = 16
    """The most; with these it is complete."""
    terminator: Annotated[str, Meta(pattern=r"^[*#]?$")] = "#"
    """The key that ends it: `"#"`, `"*"`, or `""` for none."""
    digit_timeout_s: Seconds = 5.0
    """How long the next digit may take; then what is there counts."""
    timeout_s: Seconds = 30.0
    """How long all of it may take, from the end of the prompt on."""
    secret: bool = False
    """The digits are for `tool` alone: no log, transcript or journal has them, no model hears."""
    wrong: SoundFile | None = None
    """A WAV file played where it was too short; then the prompt again."""
    tries: Tries = 3
    """How often it is asked for."""
    otherwise: Action | None = None
    """What is done when the tries are used up. Left out: the conversation goes on."""

    def mistakes(self) -> Iterator[str]:
        """Numbers that nobody can type, and digits where there are none."""
        if self.min_length > self.max_length:
            yield "min_length: it is more than max_length; change one of them"
        if self.secret and any(_DIGITS in text for text in self.then.shown):
            yield "then: secret digits are for a tool's arguments; take them out of the texts"
        if self.otherwise is not None and _DIGITS in repr(
            (self.otherwise.shown, self.otherwise.arguments)
        ):
            yield "otherwise: there are no {digits} where the tries are used up; take them out"


class Menu(Settings, frozen=True):
    """Keys that may be pressed, at one time."""

    keys: dict[str, Action]
    """What each does: `[plugins.dtmf.menu.NAME.keys."1"]`; sequences such as `"*9"` too."""
    prompt: SoundFile | None = None
    """A WAV file that says what can be pressed. Left out: nothing is heard."""
    wrong: SoundFile | None = None
    """A WAV file played after a key that does nothing; then the prompt again."""
    tries: Tries = 3
    """How many wrong or missing keys there may be."""
    otherwise: Action | None = None
    """What is done then. Left out: the conversation goes on."""
    next_key_s: Seconds = 2.0
    """How long more keys are waited for where they could mean something else."""
    timeout_s: SecondsOrNever = 0.0
    """How long the first key may take before that counts as wrong, too; 0: for ever."""
    pass_on: bool = False
    """Keys that do nothing here are left to the model and to other plugins."""
    alone: bool | None = None
    """The model neither hears nor speaks meanwhile. Left out: in all menus but the first. With \
`true` in that one, the agent greets when the caller has left it and nothing else is said."""

    def mistakes(self) -> Iterator[str]:
        """Keys that no telephone has, and digits where there are none."""
        for keys in self.keys:
            if not _SEQUENCE.fullmatch(keys):
                yield f'keys: "{keys}" are no keys; write up to 16 of 0-9 * # A-D'
        if not self.keys:
            yield 'keys: a menu needs keys; write e.g. 1 = { say = "…" }'
        actions = [*self.keys.values(), *([self.otherwise] if self.otherwise else [])]
        if any(_DIGITS in repr((one.shown, one.arguments)) for one in actions):
            yield "there are no {digits} but those of collect; take them out"


@dataclass(frozen=True, slots=True)
class Begin:
    """A menu or collection is to be heard; `Keypad.heard(turn)` says when it has been."""

    turn: int
    prompt: Path | None
    alone: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """A key or number was wrong."""

    clip: Path | None


@dataclass(frozen=True, slots=True)
class Act:
    """An action is due; `digits` were collected for it."""

    action: Action
    digits: str
    secret: bool


@dataclass(frozen=True, slots=True)
class Home:
    """The caller is back at the first menu, and in the conversation."""


Effect = Begin | Refuse | Act | Home


class Keypad:
    """Where a caller is in the menus, and what they have typed."""

    def __init__(self, menus: Mapping[str, Menu], start: str) -> None:
        self._menus = menus
        self._start = menus[start]
        self._at: Menu | Collect = self._start
        self._home = False  # in the conversation, the first menu's keys at hand
        self._turn = 0
        self._tries = 0
        self._restart()
        # A collection that was complete before its terminator came: whoever types it does no harm.
        self._spare: tuple[str, float] | None = None

    def _restart(self) -> None:
        self._typed = ""
        self._next_due: float | None = None
        self._all_due: float | None = None

    @property
    def typed(self) -> str:
        """Keys that wait for more."""
        return self._typed

    def awaits(self, turn: int, *, first: bool = True) -> bool:
        """Whether the caller is still at `turn`, and, with `first`, has pressed nothing there."""
        return turn == self._turn and not (first and self._typed)

    @property
    def deadline(self) -> float | None:
        """When `expire` is to be called."""
        dues = [due for due in (self._next_due, self._all_due) if due is not None]
        return min(dues, default=None)

    def begin(self, now: float) -> list[Effect]:
        """The call begins: the first menu."""
        return self._go(self._start, now)

    def heard(self, turn: int, now: float) -> None:
        """The prompt of `turn` is over: the caller's time runs."""
        if not self.awaits(turn):
            return
        if isinstance(self._at, Collect):
            self._next_due = now + self._at.digit_timeout_s
            self._all_due = now + self._at.timeout_s
        elif self._at.timeout_s:
            self._next_due = now + self._at.timeout_s

    def press(self, digit: str, now: float) -> list[Effect] | None:
        """A key; None where it is not for these menus."""
        spare, self._spare = self._spare, None
        if spare is not None and spare[0] == digit and now < spare[1]:
            return []
        if isinstance(self._at, Collect):
            return self._press_collect(self._at, digit, now)
        return self._press_menu(self._at, digit, now)

    def _press_menu(self, menu: Menu, digit: str, now: float) -> list[Effect] | None:
        typed = self._typed + digit
        possible = [keys for keys in menu.keys if keys.startswith(typed)]
        if not possible:
            if menu.pass_on and not self._typed:
                return None
            return self._wrong(menu, now)
        if possible == [typed]:
            return self._act(menu.keys[typed], now)
        self._typed = typed
        self._next_due = now + menu.next_key_s
        return []

    def _press_collect(self, collect: Collect, digit: str, now: float) -> list[Effect]:
        if digit == collect.terminator:
            return self._complete(collect, now)
        if not digit.isdecimal():
            return []
        if self._all_due is None:  # pressed into the prompt
            self._all_due = now + collect.timeout_s
        self._typed += digit
        if len(self._typed) == collect.max_length:
            if collect.terminator:
                self._spare = collect.terminator, now + collect.digit_timeout_s
            return self._complete(collect, now)
        self._next_due = now + collect.digit_timeout_s
        return []

    def expire(self, now: float) -> list[Effect]:
        """A deadline has passed; nothing where none has."""
        due = self.deadline
        if due is None or now < due:
            return []
        if isinstance(self._at, Collect):
            return self._complete(self._at, now)
        action = self._at.keys.get(self._typed)
        return self._wrong(self._at, now) if action is None else self._act(action, now)

    def _complete(self, collect: Collect, now: float) -> list[Effect]:
        if len(self._typed) < collect.min_length:
            return self._wrong(collect, now)
        return self._act(collect.then, now, self._typed, collect.secret)

    def _wrong(self, at: Menu | Collect, now: float) -> list[Effect]:
        if self._home:
            self._restart()
            return [Refuse(at.wrong)]
        self._tries += 1
        if self._tries < at.tries:
            return [Refuse(at.wrong), *self._again(now)]
        if at.otherwise is not None:
            return [Refuse(at.wrong), *self._act(at.otherwise, now)]
        return [Refuse(at.wrong), *self._leave()]

    def _act(
        self, action: Action, now: float, digits: str = "", secret: bool = False
    ) -> list[Effect]:
        act = Act(action, digits, secret)
        if action.menu is not None:
            return [act, *self._go(self._menus[action.menu], now)]
        if action.collect is not None:
            return [act, *self._go(action.collect, now)]
        return [act, *self._leave()]

    def _go(self, to: Menu | Collect, now: float) -> list[Effect]:
        self._at, self._tries, self._home = to, 0, False
        return self._again(now)

    def _again(self, now: float) -> list[Effect]:
        self._restart()
        self._turn += 1
        at = self._at
        alone = isinstance(at, Collect) or (at is not self._start if at.alone is None else at.alone)
        return [Begin(self._turn, at.prompt, alone)]

    def _leave(self) -> list[Effect]:
        self._restart()
        self._turn += 1
        self._at, self._tries, self._home = self._start, 0, True
        return [Home()]
