"""The daemon: nested nurseries, so that a shutdown runs from the inside out.

    journal ⊃ engines ⊃ listeners ⊃ calls

Calls end first, while their sockets still live; then the listeners (carriers' webhooks, SIP and
RTP, the operators'); then the offline engines; the journal last, when every row has been handed to
it.
"""

from __future__ import annotations

import dataclasses
import gc
import sqlite3
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from voiced import config as configuration
from voiced import log as logging
from voiced import metrics
from voiced.budget import DAY_S, DAYS, Budget, day_of
from voiced.call import Services
from voiced.completing import Completer
from voiced.config import Config, ConfigError, Loaded
from voiced.engines import Engines
from voiced.hooks import House
from voiced.journal import Journal
from voiced.notify import Manager
from voiced.operations import DaemonOperations
from voiced.plugin import PluginError
from voiced.prompts import Prompts
from voiced.server import MediaRoute, Server
from voiced.signals import Signals
from voiced.starting import (
    StartError,
    http_listeners,
    http_tls,
    journal_unusable,
    leaves,
    only_daemon,
    open_journal,
    sip_service,
    start_admin,
    start_sip,
    twilio_rest,
)
from voiced.streams import Streams
from voiced.switchboard import Setup, Switchboard
from voiced.twilio.events import MAX_MESSAGE_BYTES
from voiced.twilio.tokens import MEDIA_PATH
from voiced.twiliocalls import TwilioCalls
from voiced.web.app import create_app
from voiced.web.gate import Gate, base_url

__all__ = ["StartError", "main", "serve"]

log = structlog.get_logger("voiced.daemon")

GOODBYE_S: Final = 12.0
"""For the farewells of calls that outlive `drain_s`: a sentence, and its model's delay."""

CLOSE_S: Final = 30.0
"""For everything after the last call: requests under way, plugins' services, the last rows."""

# Net allocations until the youngest objects are looked at, and how often that happens until the
# next older ones are: a frame allocates and frees, so that only what a call keeps counts here.
GC_YOUNG: Final = 10_000
GC_MIDDLE: Final = 50
GC_NEVER: Final = 1_000_000


def main(config_path: Path | None = None) -> int:
    """`voiced run`: returns the exit code, 0 after a clean end, 1 where it could not start."""
    try:
        loaded = configuration.load(config_path)
    except ConfigError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return 1
    logging.configure(loaded.config.daemon.log_level, loaded.config.daemon.log_format)
    code = 0
    try:
        trio.run(serve, loaded, config_path)
    except* StartError as group:
        for each in leaves(group):
            log.error("cannot start", why=str(each))
        code = 1
    except* KeyboardInterrupt:
        code = 1
    return code


async def serve(
    loaded: Loaded,
    config_path: Path | None = None,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until SIGTERM or SIGINT, then drain. `started` gives the listener's base URL.

    Told so before it listens, it ends at once. Raises StartError, perhaps in a group, as nurseries
    do.
    """
    with only_daemon(loaded.config), Signals.open() as signals:
        await _serve(loaded, config_path, signals, task_status)
    log.info("stopped")


async def _serve(
    loaded: Loaded,
    config_path: Path | None,
    signals: Signals,
    task_status: trio.TaskStatus[str],
) -> None:
    config = loaded.config
    for warning in loaded.warnings:
        log.warning("configuration", warning=str(warning))
    journal = open_journal(config)
    journal.keep(config.daemon.journal_keep_days)
    tls = http_tls(config)
    listeners = await http_listeners(config)
    completer = Completer()
    async with AsyncExitStack() as stack, trio.open_nursery() as journalling:
        for listener in listeners:
            stack.push_async_callback(listener.aclose)
        journalling.start_soon(journal.run)
        try:
            async with (
                trio.open_nursery() as offline,
                _plugins(config, journal, completer) as plugins,
            ):
                engines = Engines(offline, count_engine_event)

                async def set_up() -> Setup:
                    await set_up_plugins(plugins, config)
                    setup = await _setup(config, engines, plugins)
                    await _know_chat_models(config, engines, completer)
                    return setup

                setup = await signals.unless_stopped(set_up)
                if setup is None or signals.stopped is not None:
                    assert signals.stopped is not None
                    log.info("stopping", signal=signals.stopped.name, calls=0)
                    signals.close()
                    offline.cancel_scope.cancel()
                    return
                services = Services(journal, Prompts(), configuration.prices(config))
                switchboard = Switchboard(setup, services, plugins)
                completer.used = switchboard.used_afterwards
                journal.renewed = switchboard.write_down
                await _remember(switchboard.budget, journal)
                house = _House(
                    config, config_path, engines, switchboard, plugins, completer, signals
                )
                await house.serve(listeners, tls, task_status)
                offline.cancel_scope.cancel()
        finally:
            journal.close()


async def _remember(budget: Budget, journal: Journal) -> None:
    """Tell the budget what was spent before this start. Raises StartError.

    Not today alone: a clock that is set may yet make today of a day beside it.
    """
    try:
        days = await trio.to_thread.run_sync(journal.days, day_of(time.time() - DAY_S))
        for day in days[:DAYS]:
            spent = await trio.to_thread.run_sync(journal.spent, day)
            budget.remember(spent, await trio.to_thread.run_sync(journal.struck, day))
    except sqlite3.Error as error:
        raise journal_unusable(journal, error) from None


class _House:
    """What stands between the engines below and the calls above: carriers, and the operator."""

    def __init__(
        self,
        config: Config,
        config_path: Path | None,
        engines: Engines,
        switchboard: Switchboard,
        plugins: House,
        completer: Completer,
        signals: Signals,
    ) -> None:
        self._signals = signals
        self._completer = completer
        self._config = config
        self._plugins = plugins
        self._config_path = config_path
        self._engines = engines
        self._switchboard = switchboard
        self._sip = sip_service(config, switchboard)
        self._manager = Manager()

    def _status(self) -> str:
        """What there is, for the service manager."""
        calls = len(self._switchboard)
        return f"{calls} {'call' if calls == 1 else 'calls'}"

    async def serve(
        self,
        listeners: list[trio.SocketListener],
        tls: ssl.SSLContext | None,
        task_status: trio.TaskStatus[str],
    ) -> None:
        """Serve until told to stop; let calls end, then everything else."""
        config, switchboard, sip = self._config, self._switchboard, self._sip
        port = listeners[0].socket.getsockname()[1]
        stop = trio.Event()
        async with AsyncExitStack() as stack:
            rest = twilio_rest(config)
            if rest is not None:
                stack.push_async_callback(rest.aclose)
            twilio = TwilioCalls(switchboard, rest, lambda: base_url(config.http, port))
            server = _server(config, twilio, port, tls)
            async with trio.open_nursery() as listening:
                await listening.start(_serve_http, server, listeners, stop)
                async with trio.open_nursery() as carriers:
                    if sip is not None:
                        await start_sip(sip, carriers)
                    operations = DaemonOperations(switchboard, twilio, sip, self._engines.health)
                    admin = await start_admin(config, operations, listening, stop)
                    async with trio.open_nursery() as calls:
                        switchboard.nursery = calls
                        local = msgspec.structs.replace(config.http, public_url=None)
                        address = base_url(local, port)
                        _settle()
                        log.info(
                            "listening", address=address, admin=admin, agents=sorted(config.agent)
                        )
                        task_status.started(address)
                        self._manager.ready(self._status())
                        carriers.start_soon(self._manager.run, self._status)
                        await self._until_told_to_stop()
                        calls.cancel_scope.cancel()
                    if sip is not None:
                        await sip.close()
                    carriers.cancel_scope.cancel()
                stop.set()

    async def _until_told_to_stop(self) -> None:
        """Reload on SIGHUP; on SIGTERM or SIGINT drain, and on a second one stop draining."""
        signals, switchboard = self._signals, self._switchboard
        while await signals.told_to_reload():
            # A plugin's service may take a minute to open; who wants voiced to end does not wait.
            self._manager.reloading()
            await signals.unless_stopped(self._reload)
            self._manager.ready(self._status())
        assert signals.stopped is not None
        log.info("stopping", signal=signals.stopped.name, calls=len(switchboard))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_second, signals, nursery.cancel_scope)
            drain_s = switchboard.setup.config.daemon.drain_s
            self._manager.stopping(drain_s + GOODBYE_S + CLOSE_S)
            await switchboard.drain(drain_s, GOODBYE_S)
            nursery.cancel_scope.cancel()
        signals.close()  # whatever hangs from here on can be killed

    async def _reload(self) -> None:
        """Check the file again; new calls follow it, live ones keep theirs."""
        switchboard = self._switchboard
        try:
            read = partial(configuration.load, self._config_path, again=True)
            loaded = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
            new = self._restrained(loaded.config)
            await self._take_over(new)
            prices = configuration.prices(new)
            switchboard.services = dataclasses.replace(switchboard.services, prices=prices)
            switchboard.services.journal.keep(new.daemon.journal_keep_days)
            if self._sip is not None:
                self._sip.reload(new.sip)
            for warning in loaded.warnings:
                log.warning("configuration", warning=str(warning))
        except ConfigError as error:
            for mistake in error.mistakes:
                log.error("configuration not reloaded", mistake=str(mistake))
        except StartError as error:
            log.error("configuration not reloaded", mistake=str(error))
        except Exception:  # the calls that there are go on
            log.exception("configuration not reloaded: a bug of voiced, please report it")
        else:
            logging.configure(new.daemon.log_level, new.daemon.log_format)
            log.info("configuration reloaded", agents=sorted(new.agent))

    async def _take_over(self, new: Config) -> None:
        """Make what `new` needs; all of it or, where something cannot be made, nothing."""
        switchboard = self._switchboard
        old = switchboard.setup.config
        try:
            await set_up_plugins(self._plugins, new)
            # No checkpoint between the engines and the agents that talk through them.
            switchboard.setup = await _setup(new, self._engines, self._plugins)
            await _know_chat_models(new, self._engines, self._completer)
        except Exception:
            await set_up_plugins(self._plugins, old)
            switchboard.setup = await _setup(old, self._engines, self._plugins)
            raise

    def _restrained(self, new: Config) -> Config:
        """`new`, but for what takes effect at the next start alone."""
        config = self._config
        tables = ("http", "twilio", "admin")
        fixed = [f"[{name}]" for name in tables if getattr(new, name) != getattr(config, name)]
        if new.daemon.state_dir != config.daemon.state_dir:
            fixed.append("state_dir")
        if msgspec.structs.replace(new.sip, trunk=config.sip.trunk) != config.sip:
            fixed.append("[sip] but for its trunks")
        if fixed:
            log.warning("these take effect at the next start", settings=fixed)
        return msgspec.structs.replace(
            new,
            http=config.http,
            twilio=config.twilio,
            admin=config.admin,
            sip=msgspec.structs.replace(config.sip, trunk=new.sip.trunk),
        )


async def _serve_http(
    server: Server,
    listeners: Sequence[trio.SocketListener],
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[object],
) -> None:
    await server.serve(listeners, stop=stop, task_status=task_status)


def _server(config: Config, calls: TwilioCalls, port: int, tls: ssl.SSLContext | None) -> Server:
    def count(what: str, why: str) -> None:
        metrics.REFUSED.labels(what, why).inc()

    gate = Gate(config.http, config.twilio, count)
    app = create_app(gate, calls, lambda: base_url(config.http, port), count)
    streams = Streams(gate, calls)
    route = MediaRoute(MEDIA_PATH, streams.authorize, streams.handle, MAX_MESSAGE_BYTES)
    return Server(app, [route], tls=tls)


async def _cancel_on_second(signals: Signals, scope: trio.CancelScope) -> None:
    await signals.told_again()
    log.warning("told again, calls are cut")
    scope.cancel()


def count_engine_event(what: str, why: str) -> None:
    """Count what happens to engines: `why` is an engine's name, or a server's code."""
    metrics.ENGINE_EVENTS.labels(what, metrics.code(why)).inc()


def _plugins(
    config: Config, journal: Journal, completer: Completer
) -> AbstractAsyncContextManager[House]:
    """A place for plugins, and what their services may ask of the daemon."""

    def count(name: str, what: str) -> None:
        metrics.PLUGIN_FAULTS.labels(name, what.replace(" ", "_")).inc()

    return House.open(configuration.state_dir(config), journal.annotate, completer, count)


async def set_up_plugins(plugins: House, config: Config) -> None:
    """Enable the plugins of `config`. Raises StartError; then those there were go on."""
    try:
        await plugins.set_up(config)
    except PluginError as error:
        raise StartError(str(error)) from None


async def _setup(config: Config, engines: Engines, plugins: House) -> Setup:
    try:
        await engines.make(config.engine, plugins.providers)
        return Setup(config, engines.for_agent)
    except (ValueError, OSError) as error:
        raise StartError(f"[engine]: {error}") from None


async def _know_chat_models(config: Config, engines: Engines, completer: Completer) -> None:
    try:
        if config.plugins:
            completer.models = await engines.chat_models()
    except (ValueError, OSError) as error:
        raise StartError(f"[engine]: {error}") from None


def _settle() -> None:
    """What start-up made lives as long as the process: keep it out of every later collection.

    Full ones are left to the switchboard: with 200 calls alive one takes tens of milliseconds,
    which every caller hears, and the collector's own rule would run it every few seconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG, GC_MIDDLE, GC_NEVER)
