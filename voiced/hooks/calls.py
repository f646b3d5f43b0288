"""The plugins of one call, as the call sees them: told, asked, ended. It never waits for them long.

The call tells what happens with `emit`, which neither blocks nor raises. Where a plugin may answer
the call waits `ASK_S` for each at most. Everything else is the runners'.

Trio cannot end a task that shields itself or swallows its cancellation. Hooks, and what plugins
start beside them, therefore run in a nursery of the daemon's (`House.hooks` says which), where the
call's own tasks only wait for them: a plugin that will not stop is reported and left behind with
its task, and the call ends without it. Without such a nursery it holds up the end of the call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import structlog
import trio

from voiced.hooks.enabled import Enabled
from voiced.hooks.runner import Ask, Runner
from voiced.plugin import Call, Greeting, Summary, ToolUse

__all__ = ["ASK_S", "FINISH_S", "NO_HOOKS", "STOP_S", "CallHooks"]

ASK_S: Final = 1.0
"""How long one plugin may take to answer."""

FINISH_S: Final = 5.0
"""How long plugins may take after a call, all together: they run at the same time."""

STOP_S: Final = 0.5
"""How long a plugin may take to give up when it is cancelled."""


def _no_call(name: str) -> Call:
    raise RuntimeError(f"{name} has no call")


def _no_count(name: str, what: str) -> None:
    pass


T = TypeVar("T")


class CallHooks:
    """See the module's text.

    `make_call` gives a plugin (named as in `[plugins.NAME]`) its view of the call, when its first
    hook is due. `count` gets that name and what went wrong: `failed`, `too slow`, `dropped`,
    `blocked`, `left out` or `abandoned`.
    """

    def __init__(
        self,
        enabled: Sequence[Enabled] = (),
        make_call: Callable[[str], Call] = _no_call,
        log: Any = None,
        count: Callable[[str, str], None] = _no_count,
        nursery: trio.Nursery | None = None,
    ) -> None:
        log = structlog.get_logger("voiced.plugin") if log is None else log
        self._runners = [Runner(each, make_call, log, count) for each in enabled]
        self._nursery = nursery
        self._running = False
        self._finished = False
        self._by_hook: dict[str, list[Runner]] = {}
        self._tell: dict[str, list[Callable[..., None]]] = {}
        for runner in self._runners:
            for hook in runner.hooks:
                self._by_hook.setdefault(hook, []).append(runner)
                self._tell.setdefault(hook, []).append(runner.teller(hook))
        wants = set(self._by_hook)
        if "on_digit_passed" in wants:
            wants.add("on_digit")  # keys come this way, whether anybody is asked or not
        self.wants: frozenset[str] = frozenset(wants)
        """The hooks that any plugin has; others need not be emitted."""
        for each in enabled:
            each.acquire()

    def __bool__(self) -> bool:
        """Whether there is any plugin."""
        return bool(self._runners)

    def emit(self, hook: str, *args: object) -> None:
        """Tell every plugin that wants to know. Never blocks, never raises."""
        for tell in self._tell.get(hook, ()):
            tell(*args)

    def failed(self, name: str, where: str, error: BaseException, *, words: bool = True) -> None:
        """Report what a plugin's own task raised (`where`: `task`, `tool`) as a hook's failure.

        Without `words` only its type is said: they may repeat what nobody is to read.
        """
        for runner in self._runners:
            if runner.enabled.name == name:
                runner.reports.raised(where, error, words=words)

    async def contain(
        self, name: str, where: str, function: Callable[..., Awaitable[T]], *args: object
    ) -> T:
        """Run a coroutine function of a plugin (`where`: `task NAME`, `tool NAME`).

        Returns what it returns, and raises what it raises. Where the task that waits is cancelled
        it has `STOP_S` to end, and is left behind after that. Raises RuntimeError where too many
        have been left behind already.
        """
        for runner in self._runners:
            if self._nursery is not None and runner.enabled.name == name:
                return await runner.contain(where, function, args, self._nursery, STOP_S)
        return await function(*args)

    async def greeting(self, planned: Greeting) -> Greeting:
        """Let each plugin in turn change the greeting."""
        for runner in self._by_hook.get("greeting", ()):
            answer = await self._ask(runner, "greeting", planned, Greeting)
            if answer is not None:
                planned = answer
        return planned

    async def digit(self, digit: str) -> bool:
        """Ask each plugin in turn whether it deals with a key; True: one has."""
        for runner in self._by_hook.get("on_digit", ()):
            if await self._ask(runner, "on_digit", digit, bool):
                return True
        self.emit("on_digit_passed", digit)
        return False

    async def tool_call(self, use: ToolUse) -> str | None:
        """Ask each plugin in turn for an answer to a tool call; None: none has one."""
        for runner in self._by_hook.get("on_tool_call", ()):
            answer: str | None = await self._ask(runner, "on_tool_call", use, str)
            if answer is not None:
                return answer
        return None

    async def _ask(self, runner: Runner, hook: str, arg: object, kind: type) -> Any:
        ask = Ask(trio.current_time() + ASK_S)
        if not runner.ask(hook, (arg,), ask):
            return None
        with trio.move_on_at(ask.deadline) as scope:
            await ask.answered.wait()
        if scope.cancelled_caught and not ask.answered.is_set():
            runner.withdraw(ask)
            return None
        if ask.value is not None and not isinstance(ask.value, kind):
            runner.mistook(hook, ask.value, kind)
            return None
        return ask.value

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the plugins' hooks until `finish` has ended them. Once.

        Without a nursery of the daemon's, being cancelled cuts off the hooks that run; `finish`
        runs the others.
        """
        if self._nursery is None:
            task_status.started()
            await self._work()
            return
        if self._runners and not self._running:
            self._running = True
            self._nursery.start_soon(self._work)
        task_status.started()
        for runner in self._runners:
            await runner.over.wait()

    async def _work(self) -> None:
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                for runner in self._runners:
                    nursery.start_soon(runner.contained)
        finally:
            self._running = False

    async def finish(self, summary: Summary) -> None:
        """Deliver what waits, then `on_call_end`, then, of all, `on_call_over`. Once.

        At most `FINISH_S` + `STOP_S`, and `STOP_S` more where an `on_call_over` has to be cut off.
        Plugins go on adding to `summary.facts`. To be called shielded, after the line is down.
        Nothing is emitted from here on.
        """
        if self._finished or not self._runners:
            return
        self._finished = True
        try:
            for runner in self._runners:
                runner.end(summary)
            if self._nursery is not None and not self._running:
                self._running = True
                self._nursery.start_soon(self._work)
            if self._running:
                await self._finish_running(summary)
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._work)
                    await self._finish_running(summary)
        finally:
            for runner in self._runners:
                runner.enabled.release()

    async def _finish_running(self, summary: Summary) -> None:
        deadline = trio.current_time() + FINISH_S
        with trio.move_on_at(deadline):
            for runner in self._runners:
                await runner.ended.wait()
        late = [runner for runner in self._runners if not runner.ended.is_set()]
        for runner in late:
            runner.stop()
        for runner in self._runners:
            runner.close(summary)
        await self._all_over(max(deadline, trio.current_time() + STOP_S))
        cut_off = [each for each in self._runners if not each.over.is_set() and each not in late]
        for runner in cut_off:
            runner.stop()
        if cut_off:
            await self._all_over(trio.current_time() + STOP_S)
        for runner in self._runners:
            if not runner.over.is_set():
                runner.abandon(self._nursery)

    async def _all_over(self, deadline: float) -> None:
        with trio.move_on_at(deadline):
            for runner in self._runners:
                await runner.over.wait()


NO_HOOKS: Final = CallHooks()
"""Of a call without plugins: costs nothing, keeps nothing, and can be everybody's."""
