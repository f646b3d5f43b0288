"""Menus of keys: a digit or a sequence plays, says, transfers, runs a tool, asks for a number.

    [plugins.dtmf.menu.main.keys]
    0 = { transfer = "+4930123456" }
    1 = { menu = "orders" }

    [plugins.dtmf.menu.orders]
    prompt = "orders.wav"
    [plugins.dtmf.menu.orders.keys.1.collect]
    prompt = "order-number.wav"
    min_length = 6
    max_length = 6
    then = { tool = "order_status", arguments = { order = "{digits}" }, tell = "{result}" }

Keys that lead somewhere are not told to the model. Name this plugin before others that act on
keys: what is secret then is secret from them, too. Those that only report keys, such as `webhook`,
never see what is taken here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Literal

import trio
from voiced_plugins._keypad import Act, Action, Begin, Effect, Home, Keypad, Menu, Refuse

from voiced.plugin import SILENCE, Call, Greeting, Playing, Plugin, Settings, Unsupported

__all__ = ["Dtmf", "Menus"]

_WAITING: Final = 32
"""Effects that wait while an action is under way: more keys than anybody presses meanwhile."""

_ROOM: Final = 6
"""For what one key does, and one deadline: an effect that was left out would leave the caller in a
menu that is no more, and the model out of the call."""

_NO_RESULT: Final = "that did not work"


class Menus(Settings, frozen=True):
    """Menus of keys."""

    menu: dict[str, Menu]
    """The menus, `[plugins.dtmf.menu.NAME]`."""
    start: str = "main"
    """The menu that a call begins with; its keys work whenever there is no other."""
    while_speaking: Literal["interrupt", "keep", "ignore"] = "interrupt"
    """A key pressed while the caller hears something: `interrupt` silences it, `keep` lets it go \
on, `ignore` takes no keys then."""

    def mistakes(self) -> Iterator[str]:
        """Menus that are named and not there."""
        named = [("start", self.start)]
        named += [("menu", each.menu) for each in self.actions() if each.menu is not None]
        for key, name in named:
            if name not in self.menu:
                near = difflib.get_close_matches(name, self.menu, 1) or list(self.menu)
                there = ", ".join(near) or "none"
                yield f'{key}: "{name}": there is no such menu; there is {there}'

    def actions(self) -> Iterator[Action]:
        """All actions of all menus."""

        def within(action: Action | None) -> Iterator[Action]:
            if action is not None:
                yield action
                if action.collect is not None:
                    yield from within(action.collect.then)
                    yield from within(action.collect.otherwise)

        for menu in self.menu.values():
            for action in (*menu.keys.values(), menu.otherwise):
                yield from within(action)


class Dtmf(Plugin):
    """The menus of one call."""

    Config = Menus
    config: Menus

    def __init__(self, call: Call, config: Menus, service: Any) -> None:
        super().__init__(call, config, service)
        self._keypad = Keypad(config.menu, config.start)
        self._send, self._effects = trio.open_memory_channel[Effect](_WAITING)
        self._changed = trio.Event()
        self._playing: Playing | None = None
        self._told_full = False
        self._greets_later = False

    async def greeting(self, planned: Greeting) -> Greeting | None:
        """Nobody greets a caller who has the first menu to deal with; it would be cut off."""
        if not self.config.menu[self.config.start].alone:
            return None
        self._greets_later = True
        return Greeting(planned.before, SILENCE)

    async def on_media(self) -> None:
        """The first menu begins."""
        self._emit(self._keypad.begin(trio.current_time()))
        self.call.start(self._watch)
        self.call.start(self._work)

    async def on_digit(self, digit: str) -> bool | None:
        """A key: taken by the menus, or left to the model."""
        speaking = self._playing is not None or self.call.state in ("greeting", "speaking")
        if speaking and self.config.while_speaking == "ignore":
            return True
        if self._send.statistics().current_buffer_used > _WAITING - _ROOM:
            if not self._told_full:
                self._told_full = True
                self.call.log.warning("too many keys at a time: some are passed over")
            return True
        effects = self._keypad.press(digit, trio.current_time())
        if effects is None:
            return None
        if self.config.while_speaking == "interrupt":
            self._silence()
        self._emit(effects)
        return True

    def _silence(self) -> None:
        try:
            self.call.interrupt()
        except Unsupported:
            return  # nobody speaks to a call that is ending

    def _emit(self, effects: list[Effect]) -> None:
        self._changed.set()
        self._changed = trio.Event()
        for effect in effects:
            self._send.send_nowait(effect)

    async def _watch(self) -> None:
        """Wake the keypad at its deadlines."""
        while True:
            changed, deadline = self._changed, self._keypad.deadline
            with trio.move_on_at(trio.current_time() + 3600 if deadline is None else deadline):
                await changed.wait()
                continue
            self._emit(self._keypad.expire(trio.current_time()))

    # ---- what keys do ----

    async def _work(self) -> None:
        """Do what is due, one after the other; while `alone` is open the model is out of it."""
        async with AsyncExitStack() as alone:
            quiet = False
            async for effect in self._effects:
                match effect:
                    case Begin(turn, prompt, wants_quiet):
                        if wants_quiet and not quiet:
                            await alone.enter_async_context(self.call.take_over())
                        elif quiet and not wants_quiet:
                            await alone.aclose()
                        quiet = wants_quiet
                        # Whoever knows the menus types ahead of what is heard.
                        if self._keypad.awaits(turn, first=self.config.while_speaking != "keep"):
                            await self._play(prompt)
                        self._keypad.heard(turn, trio.current_time())
                        self._emit([])
                    case Refuse(clip):
                        await self._play(clip)
                    case Home():
                        await alone.aclose()
                        quiet = False
                        self._greet_late()
                    case Act(action):
                        result = await self._prepare(effect)
                        if not action.stays:
                            await alone.aclose()
                            quiet = False
                        await self._finish(effect, result)

    async def _play(self, *clips: Path | None) -> None:
        paths = [clip for clip in clips if clip is not None]
        if not paths:
            return
        try:
            self._playing = self.call.play(*paths)
            await self._playing.heard()
        except Unsupported as error:
            self.call.log.info("prompt not played", why=str(error))
        finally:
            self._playing = None

    async def _prepare(self, act: Act) -> str:
        """Clips and tool; returns what the tool said."""
        action = act.action
        self.call.log.info("keys pressed", action=_kind(action))  # which keys is nobody's business
        if not action.hang_up:
            await self._play(*action.play)
        if action.tool is None:
            return ""
        try:
            result = await self.call.run_tool(action.tool, _filled(action.arguments, act.digits))
        except KeyError:
            self.call.log.warning("no plugin has this tool", tool=action.tool)
            return _NO_RESULT
        except Exception as error:  # another plugin's, and its text may repeat a secret
            self.call.log.warning("tool failed", tool=action.tool, error=type(error).__name__)
            return _NO_RESULT
        return result.replace(act.digits, "…") if act.secret and act.digits else result

    async def _finish(self, act: Act, result: str) -> None:
        action = act.action
        digits = "" if act.secret else act.digits
        if action.say or action.tell or action.transfer or action.hang_up:
            self._greets_later = False  # there is something else to say

        def words(text: str) -> str:
            return text.replace("{digits}", digits).replace("{result}", result)

        try:
            if action.say is not None:
                self.call.say(words(action.say))
            elif action.tell is not None:
                self.call.tell(words(action.tell))
            elif action.transfer is not None:
                await self._transfer(words(action.transfer))
            elif action.hang_up:
                await self._play(*action.play[:-1])
                farewell = action.play[-1] if action.play else True
                self.call.hang_up(farewell=farewell, reason="keys")
        except Unsupported as error:
            self.call.log.info("keys had no effect", action=_kind(action), why=str(error))

    def _greet_late(self) -> None:
        """After the first menu the conversation begins, with the agent's greeting if it has one."""
        if not self._greets_later:
            return
        self._greets_later = False
        shaping = self.call.shaping
        try:
            if text := shaping.get("greeting_text"):
                self.call.say(text)
            elif wish := shaping.get("greeting"):
                self.call.tell(wish)
        except Unsupported as error:
            self.call.log.info("nobody is greeted", why=str(error))

    async def _transfer(self, target: str) -> None:
        try:
            outcome = await self.call.transfer(target)
        except ValueError as error:
            self.call.log.warning("keys lead to no number", why=str(error))
        else:
            if outcome.done:
                return
        self.call.tell("The caller asked to be transferred by a key, but nobody could be reached.")


def _kind(action: Action) -> str:
    """What an action does, without what it does it with."""
    names = (name for name in action.__struct_fields__ if name != "arguments")
    return " ".join(name for name in names if getattr(action, name))


def _filled(value: Any, digits: str) -> Any:
    """A tool's arguments with the digits that were collected."""
    if isinstance(value, str):
        return value.replace("{digits}", digits)
    if isinstance(value, dict):
        return {name: _filled(inner, digits) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, digits) for inner in value]
    return value
