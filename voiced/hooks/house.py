"""The plugins of the daemon: their services, and which plugins a call has.

A service lives for as long as its settings: a reload keeps those that have not changed, opens the
new ones before anything is replaced, and closes an old one when the last call that began with it
has ended.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
import trio
from msgspec import UNSET, UnsetType

from voiced.config.types import Config
from voiced.hooks.calls import NO_HOOKS, CallHooks
from voiced.hooks.enabled import ABANDONED, Enabled
from voiced.hooks.stepping import described, interrupts, without_cancelled
from voiced.hooks.tables import decode
from voiced.plugin import Call, Json, Plugin, PluginError, Service, Settings

__all__ = ["ABANDONED", "CLOSE_S", "OPEN_S", "Annotate", "Complete", "House"]

OPEN_S: Final = 60.0
"""How long a service may take to open: an index of a folder of texts is made in it."""

CLOSE_S: Final = 3.0
"""How long a service may take to close, as `voiced.plugin.Service.close` says."""

Annotate = Callable[[str, str, Json], None]
"""Takes a call's id, a fact's name and its value."""
Complete = Callable[[str, Sequence[Mapping[str, str]], str | None], Awaitable[str]]
"""Takes an engine's name, messages and the call that pays, returns the answer."""

log = structlog.get_logger("voiced.hooks")


class House:
    """See the module's text. Made by `House.open`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        state_dir: Path,
        annotate: Annotate,
        complete: Complete,
        count: Callable[[str, str], None],
    ) -> None:
        self._nursery = nursery
        self._state_dir = state_dir
        self._annotate = annotate
        self._complete = complete
        self._count = count
        self._current: dict[str, _Kept] = {}
        self._retired: list[_Kept] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        state_dir: Path,
        annotate: Annotate,
        complete: Complete,
        count: Callable[[str, str], None] = lambda name, what: None,
    ) -> AsyncIterator[House]:
        """Keep a house without plugins; leaving the context closes the services, after all calls.

        `count` gets a plugin's name and what went wrong.
        """
        async with trio.open_nursery() as nursery:
            house = cls(nursery, state_dir, annotate, complete, count)
            try:
                yield house
            finally:
                nursery.cancel_scope.cancel()
                kept = [*house._current.values(), *house._retired]
                with trio.CancelScope(shield=True):  # each close has its own limit
                    await _close_all(kept)
                stuck = {e.enabled.name: e.enabled.lingering for e in kept if e.enabled.lingering}
                if stuck:
                    log.error("plugins that will not stop keep voiced from ending", tasks=stuck)

    async def set_up(self, config: Config) -> None:
        """Have the plugins of `config` from now on. Raises PluginError, and changes nothing then.

        `config` has been through `load`.
        """
        wanted = await trio.to_thread.run_sync(decode, config)
        new: dict[str, _Kept] = {}
        opened: list[_Kept] = []
        try:
            for name, (kind, plugin, settings) in wanted.items():
                kept = self._current.get(name)
                if kept is None or not kept.is_for(plugin, settings):
                    kept = await self._open(Enabled(name, plugin, settings, kind=kind))
                    opened.append(kept)
                new[name] = kept
        except BaseException:
            with trio.CancelScope(shield=True):
                await _close_all(opened)
            raise
        for kept in opened:
            kept.start(self._nursery, self._count)
        before, self._current = self._current, new
        for name, kept in before.items():
            kept.enabled.abandoned.clear()
            if new.get(name) is not kept:
                self._retire(kept)

    async def add(self, name: str, plugin: type[Plugin], settings: Settings) -> Enabled:
        """Have one more plugin, of any class. Raises PluginError."""
        kept = await self._open(Enabled(name, plugin, settings))
        kept.start(self._nursery, self._count)
        self._current[name] = kept
        return kept.enabled

    def enabled(self, names: Sequence[str] | UnsetType = UNSET) -> tuple[Enabled, ...]:
        """The plugins of a call, in order; of a `[[number]]` that names none, all there are."""
        if isinstance(names, UnsetType):
            names = tuple(self._current)
        found = [self._current[name].enabled for name in names if name in self._current]
        return tuple(each for each in found if not each.stuck)

    def hooks(
        self, names: Sequence[str] | UnsetType, make_call: Callable[[str], Call]
    ) -> CallHooks:
        """Make the plugins of a call; it has to end with their `finish`, whatever became of it."""
        enabled = self.enabled(names)
        if not enabled:
            return NO_HOOKS
        return CallHooks(enabled, make_call, count=self._count, nursery=self._nursery)

    @property
    def providers(self) -> Mapping[str, Mapping[str, Callable[[Any], Any]]]:
        """What makes the steps of pipelines that plugins supply, by the plugin's table and kind.

        Equal for as long as the plugin and its settings are.
        """
        return {name: kept.providers for name, kept in self._current.items() if kept.providers}

    async def _open(self, enabled: Enabled) -> _Kept:
        host = _Host(enabled.name, self._state_dir, self._annotate, self._complete)
        try:
            with trio.move_on_after(OPEN_S) as limit:
                service = enabled.plugin.Service(enabled.config, host)
                enabled.service = service
                await service.open()
        except (PluginError, OSError) as error:
            raise PluginError(f"[plugins.{enabled.name}] cannot start: {error}") from error
        except BaseException as error:  # a stranger's may raise anything, sys.exit() included
            left = without_cancelled(error)
            if left is None or interrupts(error):
                raise
            log.error("plugin failed", plugin=enabled.name, hook="Service.open", exc_info=left)
            text = described(left)
            raise PluginError(f"[plugins.{enabled.name}] cannot start: {text}") from left
        if limit.cancelled_caught:
            raise PluginError(f"[plugins.{enabled.name}] takes longer than {OPEN_S:g} s")
        return _Kept(enabled, service)

    def _retire(self, kept: _Kept) -> None:
        self._retired.append(kept)

        def close() -> None:
            kept.enabled.on_idle = None
            self._nursery.start_soon(self._close_retired, kept)

        kept.enabled.on_idle = close
        if kept.enabled.calls == 0:
            close()

    async def _close_retired(self, kept: _Kept) -> None:
        await _close_all([kept])
        self._retired.remove(kept)


class _Kept:
    """A service and its background work."""

    def __init__(self, enabled: Enabled, service: Service) -> None:
        self.enabled = enabled
        self.service = service
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        self._runs = False
        self.providers: Mapping[str, Callable[[Any], Any]] = {
            kind: partial(_made, make, service) for kind, make in enabled.plugin.providers.items()
        }

    def is_for(self, plugin: type, settings: object) -> bool:
        return self.enabled.plugin is plugin and bool(self.enabled.config == settings)

    def start(self, nursery: trio.Nursery, count: Callable[[str, str], None]) -> None:
        """Begin the background work, where there is any."""
        if type(self.service).run is not Service.run:
            self._runs = True
            nursery.start_soon(self._run, count)

    async def _run(self, count: Callable[[str, str], None]) -> None:
        """What it raises costs nothing else."""
        name = self.enabled.name
        try:
            with self._scope:
                await self.service.run()
        except BaseException as error:
            if interrupts(error):
                raise
            if (left := without_cancelled(error)) is not None:
                count(name, "failed")
                log.error("plugin failed", plugin=name, hook="Service.run", exc_info=left)
        finally:
            self._stopped.set()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def close(self) -> None:
        """End the background work, then the service."""
        name = self.enabled.name
        try:
            with trio.move_on_after(CLOSE_S, shield=True) as scope:
                self._scope.cancel()
                if self._runs:
                    with trio.move_on_after(CLOSE_S / 2):
                        await self._stopped.wait()
                await self.service.close()
        except BaseException as error:
            if interrupts(error):
                raise
            if (left := without_cancelled(error)) is not None:
                log.error("plugin failed", plugin=name, hook="Service.close", exc_info=left)
        if scope.cancelled_caught:
            log.error("plugin takes too long to close", plugin=name, limit_s=CLOSE_S)


def _made(make: Callable[[Any, Any], Any], service: Service, settings: Any) -> Any:
    return make(settings, service)


async def _close_all(kept: Sequence[_Kept]) -> None:
    async with trio.open_nursery() as nursery:
        for each in kept:
            nursery.start_soon(each.close)


def _make(folder: Path) -> None:
    """Make a folder where there is none, for whoever has the one that it is in."""
    try:
        folder.mkdir(0o750, parents=True)
    except FileExistsError:
        return
    if os.geteuid() == 0:  # `voiced greeting make` by root, for a daemon that is not
        owner = folder.parent.stat()
        os.chown(folder, owner.st_uid, owner.st_gid)


class _Host:
    """What a service sees of the daemon: `voiced.plugin.Host`."""

    def __init__(self, name: str, state_dir: Path, annotate: Annotate, complete: Complete) -> None:
        self.name = name
        self.log = structlog.get_logger("voiced.plugin").bind(plugin=name)
        self._folder = state_dir / "plugins" / name
        self._annotate = annotate
        self._complete = complete

    @property
    def state_dir(self) -> Path:
        for folder in (self._folder.parent.parent, self._folder.parent, self._folder):
            _make(folder)
        return self._folder

    def annotate(self, call_id: str, name: str, value: Json) -> None:
        self._annotate(call_id, name, value)

    async def complete(
        self, engine: str, messages: Sequence[Mapping[str, str]], *, call_id: str | None = None
    ) -> str:
        return await self._complete(engine, messages, call_id)
