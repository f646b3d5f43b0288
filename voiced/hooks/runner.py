"""One plugin object in one call: what waits for it, and the task that runs its hooks.

Hooks run one after the other, in the order of what happened, each within a time limit. What a
plugin does wrong ends here, in its `Reports`.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import trio

from voiced.hooks.containing import Contained
from voiced.hooks.enabled import Enabled
from voiced.hooks.reports import Reports
from voiced.hooks.shape import AUDIO
from voiced.hooks.stepping import alone, interrupts, stepped, without_cancelled
from voiced.plugin import Call, Plugin, Summary, Words

__all__ = ["ITEMS", "SIZE", "STALLED_S", "Ask", "Runner"]

ITEMS: Final = 256
"""Events that wait for one plugin. A lively call has some 20 in a second, transcripts included, so
that a hook may take its whole time limit before anything is lost."""

SIZE: Final = 1024 * 1024
"""Bytes and characters of what waits: two minutes of telephone audio, 16 s of the widest."""

PIECE_MS: Final = 2_000
"""The longest piece of audio that is handed over."""

LAST: Final = "on_call_over"
"""Comes when `on_call_end` of all plugins has been."""

LEAST_MS: Final = 20  # whatever a plugin says; it is one frame

BLOCKED_S: Final = 0.05
"""A step that holds up every call for longer than two frames is worth a line in the log."""

STALLED_S: Final = 1.0
"""A step of this length counts as a failure, as raising does."""

T = TypeVar("T")


class Ask:
    """A question to a plugin, and its answer."""

    __slots__ = ("answered", "deadline", "value", "withdrawn")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.answered = trio.Event()
        self.value: Any = None
        self.withdrawn = False


class _Item:
    __slots__ = ("args", "ask", "end_ms", "hook", "pieces", "size")

    def __init__(self, hook: str, args: tuple[Any, ...], size: int, ask: Ask | None = None) -> None:
        self.hook = hook
        self.args = args
        self.size = size
        self.ask = ask
        self.pieces: list[bytes] | None = None
        self.end_ms = 0.0


class Runner:
    """See the module's text. `make_call` gives the plugin its view of the call."""

    def __init__(
        self,
        enabled: Enabled,
        make_call: Callable[[str], Call],
        log: Any,
        count: Callable[[str, str], None],
    ) -> None:
        self.enabled = enabled
        self.hooks = enabled.hooks
        self.ended = trio.Event()
        """`on_call_end` has been, or will not be."""
        self.over = trio.Event()
        """Nothing is run any more."""
        self.reports = Reports(enabled, log, count)
        self._make_call = make_call
        self._plugin: Plugin | None = None
        self._batch = self._piece = 0  # bytes; 0: the call's format is not known yet
        self._ms_per_byte = 0.0
        self._waiting: deque[_Item] = deque()
        self._size = 0
        self._audio: dict[str, _Item] = {}  # what a further piece may still be joined to
        self._wake = trio.Event()
        self._scope = trio.CancelScope()
        self._running: _Item | None = None
        self._ending = False
        self._dropped = 0
        self._told_blocked = False
        self._left = False

    # ---- what happens, told by the call; nothing here blocks or raises ----

    def teller(self, hook: str) -> Callable[..., None]:
        """What has `hook` called, with the arguments that it gets, when its turn comes."""
        return partial(self._tell_audio if hook in AUDIO else self._tell, hook)

    def _tell(self, hook: str, *args: Any) -> None:
        if self._take(_Item(hook, args, _size(args))):
            self._audio.clear()  # later audio stays behind this
            self._wake.set()

    def ask(self, hook: str, args: tuple[Any, ...], ask: Ask) -> bool:
        """As `tell`, with an answer; False where there will be none."""
        if not self._take(_Item(hook, args, _size(args), ask)):
            return False
        self._audio.clear()
        self._wake.set()
        return True

    def withdraw(self, ask: Ask) -> None:
        """Nobody waits for the answer any more."""
        ask.withdrawn = True
        if self._running is None or self._running.ask is not ask:  # else its own limit ends it
            self.reports.count("too slow")
            self.reports.log.error("plugin is busy and was not asked")

    def mistook(self, hook: str, value: object, kind: type) -> None:
        """The answer is of another type than it has to be."""
        why = f"returned {type(value).__name__}, not {kind.__name__} or None"
        self.reports.failed("failed", why, hook=hook)

    def end(self, summary: Summary) -> None:
        """No more will happen: what waits is delivered, then `on_call_end`."""
        self._ending = True
        self._waiting.append(_Item("on_call_end", (summary,), 0))
        self._wake.set()

    def close(self, summary: Summary) -> None:
        """All plugins have had their `on_call_end`."""
        if LAST in self.hooks:
            self._waiting.append(_Item(LAST, (summary,), 0))
            self._wake.set()

    def stop(self) -> None:
        """Give up what is not done yet."""
        self._scope.cancel()

    def abandon(self, nursery: trio.Nursery | None) -> None:
        """Its hooks do not end though they were cancelled; `nursery` is the daemon's."""
        self._waiting.clear()
        self._left = True
        hook = self._running.hook if self._running else ""
        self.reports.left(hook, self.over, nursery)

    async def contain(
        self,
        hook: str,
        function: Callable[..., Awaitable[T]],
        args: tuple[object, ...],
        nursery: trio.Nursery,
        limit_s: float,
    ) -> T:
        """Run a coroutine of the plugin's, which is left behind where it will not be stopped."""
        self.reports.check_lingering()

        def left(over: trio.Event) -> None:
            self.reports.left(hook, over, nursery)

        run = Contained(function, args, left, partial(self.reports.stopped, hook))
        return await run.outcome(nursery, limit_s)

    def _tell_audio(self, hook: str, payload: bytes, at_ms: int) -> None:
        # Runs 100 times a second in every call that is listened to.
        item = self._audio.get(hook)
        size = len(payload)
        if item is not None and item.pieces is not None:
            # Positions are rounded to a millisecond; more than that apart is a gap, or overlaps.
            follows = -1 <= item.end_ms - at_ms <= 1
            if follows and item.size < self._piece and self._size + size <= SIZE:
                item.pieces.append(payload)
                item.size += size
                self._size += size
                item.end_ms += size * self._ms_per_byte
                if item.size >= self._batch:
                    self._wake.set()
                return
        if not self._batch and self._object() is None:
            return
        item = _Item(hook, (at_ms,), size)
        item.pieces = [payload]
        item.end_ms = at_ms + size * self._ms_per_byte
        if self._take(item):
            self._audio[hook] = item
            if len(self._waiting) > len(AUDIO) or size >= self._batch:
                self._wake.set()

    def _take(self, item: _Item) -> bool:
        if self._ending or self.reports.left_out:
            return False
        if len(self._waiting) >= ITEMS or self._size + item.size > SIZE:
            self._dropped += 1
            self._audio.clear()
            if self._dropped == 1:
                self.reports.count("dropped")
                self.reports.log.error("plugin is too slow for what happens, events are dropped")
            return False
        self._waiting.append(item)
        self._size += item.size
        return True

    # ---- the task ----

    async def contained(self) -> None:
        """As `work`, in a task of its own, which a plugin may leave with a nursery still open."""
        await alone(self.work, self._broken)
        await trio.lowlevel.checkpoint_if_cancelled()

    def _broken(self, error: BaseException | None) -> None:
        if error is not None:
            self.reports.raised("", error)
            self._set_over()

    async def work(self) -> None:
        """Run hooks until the last one has been, or `stop`. Raises nothing of the plugin's."""
        with trio.CancelScope() as self._scope:
            while not await self._next():
                # A backlog holds nobody up; audio of both sides, at the most one each, is none.
                if self._waiting and (
                    self._waiting[0].pieces is None or len(self._waiting) > len(AUDIO)
                ):
                    await trio.lowlevel.checkpoint()
        if self._scope.cancelled_caught:
            self.reports.failed("too slow", "did not end in time", hook="")
        if self._ending:
            self._waiting.clear()
            self._plugin = None
            if self._dropped:
                self.reports.log.warning("events were dropped", dropped=self._dropped)
            self._set_over()

    def _set_over(self) -> None:
        self.ended.set()
        self.over.set()
        if self._left:
            self._left = False
            self.reports.stopped("")

    async def _next(self) -> bool:
        """Run the next hook; True if it was the last."""
        while not self._waiting:
            self._wake = trio.Event()
            await self._wake.wait()
        item = self._waiting.popleft()
        self._size -= item.size
        ends = item.hook == "on_call_end"
        last = item.hook == LAST or (ends and LAST not in self.hooks)
        if self._audio.get(item.hook) is item:
            del self._audio[item.hook]
        if item.pieces is not None:
            item.args = (b"".join(item.pieces), item.args[0])
        try:
            if item.hook in self.hooks and (ends or last or not self.reports.left_out):
                await self._run(item)
        finally:
            if item.ask is not None:
                item.ask.answered.set()
            if ends:
                self.ended.set()
        return last

    async def _run(self, item: _Item) -> None:
        ask = item.ask
        plugin = self._object()
        if plugin is None or (ask is not None and ask.withdrawn):
            return
        limit_s = plugin.time_limit_s
        began = trio.current_time()
        if ask is not None:
            limit_s = min(limit_s, ask.deadline - began)
        scope = trio.CancelScope(deadline=began + limit_s)
        self._running = item
        failures = self.reports.failures
        try:
            with scope:
                coroutine = getattr(plugin, item.hook)(*item.args)
                if not inspect.iscoroutine(coroutine):
                    raise TypeError(f"{item.hook} is no coroutine function any more")
                value = await stepped(coroutine, self._stepped)
                if ask is not None:
                    ask.value = value
        except BaseException as error:  # a plugin may raise anything; ours to contain
            if interrupts(error):
                raise
            left = without_cancelled(error)
            if left is not None:
                self.reports.raised(item.hook, left)
            elif trio.current_effective_deadline() > -math.inf:  # nobody cancelled it
                self.reports.failed(
                    "failed", "raised a Cancelled that was not its own", hook=item.hook
                )
        finally:
            self._running = None
        # Beyond the limit it was cut off, or kept the thread, or would not be cut off.
        over = scope.cancel_called or trio.current_time() - began > limit_s
        if over and self.reports.failures == failures:
            took = f"took longer than {limit_s:g} s"
            self.reports.failed("too slow", took, hook=item.hook)
        await trio.lowlevel.checkpoint_if_cancelled()  # where it swallowed what was meant for us

    def _object(self) -> Plugin | None:
        """The plugin's object, made when it is first needed."""
        if self._plugin is None and not self.reports.left_out and not self.over.is_set():
            try:
                call = self._make_call(self.enabled.name)
                bytes_per_ms = call.format.bytes_per_ms
                self._ms_per_byte = 1 / bytes_per_ms
                self._piece = PIECE_MS * bytes_per_ms
                self.reports.log = call.log  # of the call and the plugin
                enabled = self.enabled
                plugin = enabled.plugin(call, enabled.config, enabled.service)
                # Audio waits until there is so much of it, or something else happens: a wake-up of
                # the plugin's task costs many times what a frame does.
                self._batch = min(max(plugin.audio_ms, LEAST_MS), PIECE_MS) * bytes_per_ms
                self._plugin = plugin
            except BaseException as error:
                if interrupts(error):
                    raise
                self.reports.unusable(error)
        return self._plugin

    def _stepped(self, took_s: float) -> None:
        if took_s < BLOCKED_S:
            return
        hook = self._running.hook if self._running else ""
        self.reports.count("blocked")
        if not self._told_blocked:
            self._told_blocked = True
            ms = round(1000 * took_s)
            self.reports.log.error("plugin holds up all calls", hook=hook, blocked_ms=ms)
        if took_s >= STALLED_S:
            self.reports.failed("too slow", f"held up all calls for {took_s:.1f} s", hook=hook)


def _size(args: tuple[Any, ...]) -> int:
    """About how much memory an event holds: its texts and bytes."""
    total = 0
    for each in args:
        if isinstance(each, bytes | str):
            total += len(each)
        elif isinstance(each, Words):
            total += len(each.text)
    return total
