"""The daemon: nested nurseries, so that a shutdown runs from the inside out.

    journal ⊃ engines ⊃ listener ⊃ calls

Calls end first, while their sockets still live; then the listener; then the offline engines; the
journal last, when every row has been handed to it.
"""

from __future__ import annotations

import dataclasses
import errno
import gc
import os
import signal
import sqlite3
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from voiced import config as configuration
from voiced import log as logging
from voiced import metrics
from voiced.call import Services
from voiced.config import Config, ConfigError, Loaded
from voiced.engines import Engines
from voiced.journal import Journal
from voiced.prompts import Prompts
from voiced.server import MediaRoute, Server, server_tls
from voiced.streams import Streams
from voiced.switchboard import Setup, Switchboard
from voiced.twilio.events import MAX_MESSAGE_BYTES
from voiced.twilio.tokens import MEDIA_PATH
from voiced.web.app import create_app
from voiced.web.gate import Gate, base_url

__all__ = ["StartError", "main", "serve"]

log = structlog.get_logger("voiced.daemon")

GOODBYE_S: Final = 12.0
"""For the farewells of calls that outlive `drain_s`: a sentence, and its model's delay."""

BACKLOG: Final = 512  # connections that wait to be accepted: a burst of callers, not a queue


# Net allocations until the youngest objects are looked at, and how often that happens until the
# next older ones are: a frame allocates and frees, so that only what a call keeps counts here.
GC_YOUNG: Final = 10_000
GC_MIDDLE: Final = 50
GC_NEVER: Final = 1_000_000


class StartError(Exception):
    """The daemon cannot start; the text is for the operator, with the remedy."""


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
        for each in _leaves(group):
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

    Raises StartError, perhaps in a group, as nurseries do.
    """
    config = loaded.config
    for warning in loaded.warnings:
        log.warning("configuration", warning=str(warning))
    journal = _open_journal(config)
    tls = _tls(config)
    listeners = await _listen(config)
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as journalling:
        journalling.start_soon(journal.run)
        try:
            async with trio.open_nursery() as offline:
                engines = Engines(offline)
                setup = await _setup(config, engines)
                services = Services(journal, Prompts(), configuration.prices(config))
                switchboard = Switchboard(setup, services)
                server = _server(config, switchboard, port, tls)
                stop = trio.Event()
                async with trio.open_nursery() as listening, trio.open_nursery() as calls:
                    switchboard.nursery = calls
                    await listening.start(_serve_http, server, listeners, stop)
                    local = msgspec.structs.replace(config.http, public_url=None)
                    address = base_url(local, port)
                    _settle()
                    log.info("listening", address=address, agents=sorted(config.agent))
                    task_status.started(address)
                    await _until_told_to_stop(config, config_path, engines, switchboard)
                    calls.cancel_scope.cancel()
                    stop.set()
                offline.cancel_scope.cancel()
        finally:
            journal.close()
    log.info("stopped")


async def _serve_http(
    server: Server,
    listeners: Sequence[trio.SocketListener],
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[object],
) -> None:
    await server.serve(listeners, stop=stop, task_status=task_status)


def _server(
    config: Config, switchboard: Switchboard, port: int, tls: ssl.SSLContext | None
) -> Server:
    def count(what: str, why: str) -> None:
        metrics.REFUSED.labels(what, why).inc()

    gate = Gate(config.http, config.twilio, count)
    app = create_app(gate, switchboard, lambda: base_url(config.http, port), count)
    streams = Streams(gate, switchboard)
    route = MediaRoute(MEDIA_PATH, streams.authorize, streams.handle, MAX_MESSAGE_BYTES)
    return Server(app, [route], tls=tls)


async def _until_told_to_stop(
    config: Config, config_path: Path | None, engines: Engines, switchboard: Switchboard
) -> None:
    """Reload on SIGHUP; on SIGTERM or SIGINT drain, and on a second one stop draining."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP:
                await _reload(config, config_path, engines, switchboard)
                continue
            log.info("stopping", signal=signal.Signals(number).name, calls=len(switchboard))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_on_second, signals, nursery.cancel_scope)
                await switchboard.drain(switchboard.setup.config.daemon.drain_s, GOODBYE_S)
                nursery.cancel_scope.cancel()
            return


async def _cancel_on_second(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        if number != signal.SIGHUP:
            log.warning("told again, calls are cut")
            scope.cancel()
            return


async def _reload(
    config: Config, config_path: Path | None, engines: Engines, switchboard: Switchboard
) -> None:
    """Check the file again; new calls follow it, live ones keep theirs."""
    try:
        loaded = await trio.to_thread.run_sync(configuration.load, config_path)
        new = loaded.config
        if (new.http, new.twilio, new.daemon.state_dir) != (
            config.http,
            config.twilio,
            config.daemon.state_dir,
        ):
            log.warning("[http], [twilio] and state_dir take effect at the next start")
            new = msgspec.structs.replace(new, http=config.http, twilio=config.twilio)
        switchboard.setup = await _setup(new, engines)
        prices = configuration.prices(new)
        switchboard.services = dataclasses.replace(switchboard.services, prices=prices)
        for warning in loaded.warnings:
            log.warning("configuration", warning=str(warning))
    except ConfigError as error:
        for mistake in error.mistakes:
            log.error("configuration not reloaded", mistake=str(mistake))
    except StartError as error:
        log.error("configuration not reloaded", mistake=str(error))
    else:
        logging.configure(new.daemon.log_level, new.daemon.log_format)
        log.info("configuration reloaded", agents=sorted(new.agent))


async def _setup(config: Config, engines: Engines) -> Setup:
    try:
        return Setup(config, await engines.make(config.engine))
    except (ValueError, OSError) as error:
        raise StartError(f"[engine]: {error}") from None


def _open_journal(config: Config) -> Journal:
    state_dir = configuration.state_dir(config)
    journal = Journal(state_dir)
    try:
        journal.open()
    except (OSError, sqlite3.Error) as error:
        raise StartError(
            f"the journal {journal.path} cannot be used: {error}; make {state_dir} writable for "
            "this user, or name another folder as [daemon] state_dir"
        ) from None
    return journal


def _tls(config: Config) -> ssl.SSLContext | None:
    if config.http.tls_cert is None or config.http.tls_key is None:
        return None
    try:
        return server_tls(config.http.tls_cert, config.http.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise StartError(
            f"[http] tls_cert and tls_key cannot be used: {error}; check that both are PEM files "
            "and belong together"
        ) from None


async def _listen(config: Config) -> list[trio.SocketListener]:
    host, port = configuration.parse_listen(config.http.listen)
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        cause = error.__cause__
        leaves = _leaves(cause) if isinstance(cause, BaseExceptionGroup) else [error]
        code = next((e.errno for e in leaves if isinstance(e, OSError) and e.errno), None)
        remedy = {
            errno.EADDRINUSE: "another program uses it: stop that one, or change the port",
            errno.EACCES: "ports below 1024 need a privilege: take a higher port behind a proxy",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
        }.get(code or 0, "change the address")
        what = os.strerror(code) if code else str(error)
        raise StartError(
            f"cannot listen on {config.http.listen} ({what}); {remedy} ([http] listen)"
        ) from None


def _settle() -> None:
    """What start-up made lives as long as the process: keep it out of every later collection.

    Full ones are left to the switchboard: with 200 calls alive one takes tens of milliseconds,
    which every caller hears, and the collector's own rule would run it every few seconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG, GC_MIDDLE, GC_NEVER)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found
