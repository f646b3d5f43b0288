"""The process and what it listens on: `[daemon]`, `[http]`, `[twilio]`, `[admin]`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from voiced.config.table import DaysOrForever, Positive, SecondsOrNever, Table

__all__ = ["Admin", "Daemon", "Http", "Twilio"]


class Daemon(Table, frozen=True):
    """The process."""

    state_dir: Path | None = None
    """Where the journal and everything else that outlives a restart is kept. Left out: systemd's \
state directory, else `/var/lib/voiced` for root, else `~/.local/state/voiced`."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged. `debug` includes what callers and agents say."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """`auto`: text on a terminal, JSON elsewhere."""
    max_calls: Positive = 100
    """Calls at a time; one more is refused at once, so that live calls do not suffer."""
    drain_s: SecondsOrNever = 300.0
    """How long SIGTERM lets live calls go on before they hear a farewell."""
    journal_keep_days: DaysOrForever = 90.0
    """How long the journal keeps a call that has ended, transcript and all; older ones are \
removed. 0: nothing is left behind, two minutes after the call; `"forever"`: all of them stay."""
    plugin_dir: Path | None = None
    """A folder whose `*.py` files are plugins. They run as voiced does: nobody else may write \
there."""


class Http(Table, frozen=True):
    """The listener that carriers reach."""

    listen: str = "127.0.0.1:8080"
    """`"host:port"`, `"[::1]:8080"` for IPv6. `"0.0.0.0:8080"` to be reached without a proxy."""
    public_url: str | None = None
    """What carriers call this listener, e.g. `"https://voice.example.net"`: signatures are \
checked against it and stream URLs are made from it (`https` gives `wss`, `http` gives `ws`). A \
path in it is for the proxy to take off: voiced is asked for `/twilio/…`."""
    tls_cert: Path | None = None
    """A PEM certificate chain, where voiced ends TLS itself and no proxy does."""
    tls_key: Path | None = None
    """The certificate's PEM key, without a passphrase."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose `X-Forwarded-For` is believed."""


class Twilio(Table, frozen=True):
    """The account whose calls are answered.

    Without an auth token the webhook serves loopback clients only.
    """

    account_sid: str | None = None
    """`AC` and 32 hexadecimal digits; requests for another account are refused."""
    auth_token: str | None = None
    """The primary auth token, which signs Twilio's requests."""
    auth_token_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    auth_token_env: str | None = None
    """The environment variable with it."""
    auth_token_secondary: str | None = None
    """While tokens are rotated, another one whose signatures are taken as well. The REST API is \
asked with `auth_token`: put the new one there, the old one here, and promote the new one then."""
    auth_token_secondary_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    auth_token_secondary_env: str | None = None
    """The environment variable with it."""
    validate_signature: bool = True
    """`false` takes requests from anybody who finds the port: for tests only."""
    caller_id: str | None = None
    """A number of the account, in E.164, that calls placed by `voiced dial` come from."""
    api_url: str = "https://api.twilio.com"
    """Where the REST API is; another for tests and for look-alikes."""


class Admin(Table, frozen=True):
    """The listener for operators: health, metrics, and the API that the commands use."""

    listen: str = "127.0.0.1:9180"
    """`"host:port"`, or `"unix:/run/voiced/admin.sock"`."""
    token: str | None = None
    """What API requests must show. Left out: made at the first start and kept in \
`state_dir/admin.token`, where the commands find it."""
    token_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    token_env: str | None = None
    """The environment variable with it."""
