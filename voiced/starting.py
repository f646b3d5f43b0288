"""What a start needs from outside: files, addresses, certificates; each failure with its remedy."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import structlog
import trio

from voiced import config as configuration
from voiced import metrics
from voiced.config import Config
from voiced.config.addresses import is_loopback, parse_listen
from voiced.journal import Journal
from voiced.journal_file import remedy
from voiced.operations import DaemonOperations
from voiced.server import server_tls
from voiced.switchboard import Switchboard
from voiced.web.admin import create_admin_app
from voiced.web.listening import ListenError, serve_admin
from voiced.web.token import read_or_make_token

if TYPE_CHECKING:
    from voiced.sipservice import SipService
    from voiced.twilio.rest import TwilioRest

__all__ = [
    "StartError",
    "admin_token",
    "http_listeners",
    "http_tls",
    "journal_unusable",
    "leaves",
    "only_daemon",
    "open_journal",
    "sip_service",
    "start_admin",
    "start_sip",
    "twilio_rest",
]

log = structlog.get_logger("voiced.daemon")

LOCK_NAME: Final = "daemon.lock"

BACKLOG: Final = 512  # connections that wait to be accepted: a burst of callers, not a queue


class StartError(Exception):
    """The daemon cannot start; the text is for the operator, with the remedy."""


@contextmanager
def only_daemon(config: Config) -> Iterator[None]:
    """Have the state directory for this daemon alone. Raises StartError where another has it.

    Two would take each other's live calls for cut ones, and neither would know what the other has
    spent. The kernel lets go of the lock when the process ends, whatever ends it.
    """
    state_dir = configuration.state_dir(config)
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        lock = (state_dir / LOCK_NAME).open("a+")
    except OSError:  # the journal cannot be used there either, and says what to do
        yield
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StartError(
                f"another voiced uses {state_dir} (process {lock.read(20).strip() or 'unknown'}); "
                "stop it, or name another folder as [daemon] state_dir"
            ) from None
        except OSError as error:  # a file system without locks
            log.warning("nothing keeps a second daemon out", folder=str(state_dir), why=str(error))
        with suppress(OSError):  # on a full disk it is a lock all the same
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), b"%d\n" % os.getpid())
        yield


def open_journal(config: Config) -> Journal:
    """Open the journal. Raises StartError."""
    journal = Journal(configuration.state_dir(config))
    try:
        journal.open()
    except (OSError, sqlite3.Error) as error:
        raise journal_unusable(journal, error) from None
    return journal


def journal_unusable(journal: Journal, error: OSError | sqlite3.Error) -> StartError:
    """Say what is wrong with the journal's file, and what to do."""
    what = remedy(error, journal.path)
    return StartError(f"the journal {journal.path} cannot be used: {error}; {what}")


def http_tls(config: Config) -> ssl.SSLContext | None:
    """TLS of the webhook listener, if voiced ends it. Raises StartError."""
    if config.http.tls_cert is None or config.http.tls_key is None:
        return None
    try:
        return server_tls(config.http.tls_cert, config.http.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise StartError(
            f"[http] tls_cert and tls_key cannot be used: {error}; check that both are PEM files "
            "and belong together"
        ) from None


async def http_listeners(config: Config) -> list[trio.SocketListener]:
    """Listen for webhooks. Raises StartError."""
    host, port = configuration.parse_listen(config.http.listen)
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        cause = error.__cause__
        causes = leaves(cause) if isinstance(cause, BaseExceptionGroup) else [error]
        code = next((e.errno for e in causes if isinstance(e, OSError) and e.errno), None)
        remedy = {
            errno.EADDRINUSE: "another program uses it: stop that one, or change the port",
            errno.EACCES: "ports below 1024 need a privilege: take a higher port behind a proxy",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
        }.get(code or 0, "change the address")
        what = os.strerror(code) if code else str(error)
        raise StartError(
            f"cannot listen on {config.http.listen} ({what}); {remedy} ([http] listen)"
        ) from None


def twilio_rest(config: Config) -> TwilioRest | None:
    """The account's REST API; None without an account."""
    twilio = config.twilio
    if twilio.account_sid is None or twilio.auth_token is None:
        return None
    from voiced.twilio.rest import TwilioRest

    return TwilioRest(twilio.account_sid, twilio.auth_token, base_url=twilio.api_url)


def sip_service(config: Config, switchboard: Switchboard) -> SipService | None:
    """SIP, where the configuration wants it. Raises StartError."""
    if not config.sip.listen:
        return None
    # Some megabytes and a quarter of a second that only trunks need.
    from voiced.sip.errors import SipError
    from voiced.sipservice import SipService

    try:
        return SipService(config, switchboard)
    except (SipError, OSError, ValueError) as error:
        raise StartError(f"[sip]: {error}") from None


async def start_sip(sip: SipService, nursery: trio.Nursery) -> None:
    """Listen for SIP. Raises StartError."""
    from voiced.sip.errors import SipError

    why = ""
    try:
        await nursery.start(sip.run)
    except* (SipError, OSError) as group:
        why = "; ".join(str(each) for each in leaves(group))
    if why:
        raise StartError(f"{why}; change the address or the port ([sip] listen)")


def admin_token(config: Config) -> str:
    """The token of the operators' API, made at the first start. Raises StartError."""
    if config.admin.token is not None:
        return config.admin.token
    state_dir = configuration.state_dir(config)
    try:
        return read_or_make_token(state_dir)
    except (OSError, ValueError) as error:
        raise StartError(
            f"the admin token cannot be kept: {error}; make {state_dir} writable for this user, or "
            "set token_file under [admin]"
        ) from None


async def start_admin(
    config: Config, operations: DaemonOperations, nursery: trio.Nursery, stop: trio.Event
) -> str:
    """Listen for operators; returns the address. Raises StartError."""
    hosts: list[str] = []
    if not config.admin.listen.startswith("unix:"):
        host, _ = parse_listen(config.admin.listen)
        if not is_loopback(host):
            hosts.append(host)

    def count(what: str, result: str) -> None:
        metrics.ADMIN.labels(what, result).inc()

    app = create_admin_app(operations, admin_token(config), hosts=hosts, count=count)

    async def serve(*, task_status: trio.TaskStatus[str]) -> None:
        await serve_admin(config.admin.listen, app, stop=stop, task_status=task_status)

    why = ""
    address = ""
    try:
        address = await nursery.start(serve)
    except* ListenError as group:
        why = "; ".join(str(each) for each in leaves(group))
    if why:
        raise StartError(f"{why} ([admin] listen)")
    return address


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions of a group, however deep they are nested."""
    found: list[BaseException] = []
    for each in group.exceptions:
        found += leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found
