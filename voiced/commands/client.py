"""What the commands that operate a running daemon share: finding it, asking it, saying why not."""

from __future__ import annotations

import pwd
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import click
import httpx

from voiced import config as configuration
from voiced.commands.options import mistakes_reported
from voiced.config import Config, parse_listen
from voiced.config.paths import SYSTEM_STATE_DIR
from voiced.web.token import FILE_NAME, read_token

__all__ = ["AdminClient", "AdminError", "connected"]

UNIX: Final = "unix:"
TIMEOUT_S: Final = 10.0  # the daemon answers within milliseconds, or something is wrong

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


class AdminError(Exception):
    """It could not be done. `code` is the API's word, or `unreachable`, `no_token` or `odd`."""

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    source: str  # for messages


class AdminClient:
    """Asks the daemon that a configuration describes. Methods raise AdminError."""

    def __init__(self, listen: str, token: _Token) -> None:
        self._listen = listen
        self._token = token
        uds: str | None = None
        base = "http://voiced"
        if listen.startswith(UNIX):
            uds = listen.removeprefix(UNIX)
            _try_socket(uds)
        else:
            base = f"http://{_reachable(listen)}"
        self._http = httpx.Client(
            base_url=base,
            headers={"Authorization": f"Bearer {token.text}"},
            # Of its own, so that no proxy of the environment gets the token.
            transport=httpx.HTTPTransport(uds=uds),
            timeout=TIMEOUT_S,
        )

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """Ask for something."""
        return self._ask("GET", path, params=query)

    def post(
        self, path: str, body: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """Have something done."""
        return self._ask("POST", path, json=dict(body), timeout=timeout_s)

    def call(self, name: str) -> dict[str, Any]:
        """Show a call, live or of the journal."""
        return self.get(f"/api/calls/{quote(name, safe='')}")

    def do(
        self, name: str, deed: str, body: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """Do something to a live call."""
        return self.post(f"/api/calls/{quote(name, safe='')}/{deed}", body, timeout_s=timeout_s)

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.ConnectError:
            raise _nobody(self._listen) from None
        except httpx.TimeoutException:
            raise AdminError(
                "unreachable",
                f"what listens on {self._listen} does not answer",
                "see whether the daemon is well",
            ) from None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise AdminError(
                "odd", f"{self._listen} does not answer as a daemon: {error}", _OTHER_ADDRESS
            ) from None
        return self._judged(response)

    def _judged(self, response: httpx.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise AdminError(
                "odd",
                f"what listens on {self._listen} is no daemon's admin listener",
                _OTHER_ADDRESS,
            )
        if response.is_success:
            return answer
        code = str(answer.get("error", "odd"))
        if response.status_code == 401:
            raise AdminError(
                code,
                f"the daemon on {self._listen} does not take the token of {self._token.source}",
                "it runs with another configuration or state_dir: name its configuration with -c, "
                "or run this as its user",
            )
        message = str(answer.get("message") or f"the daemon answered HTTP {response.status_code}")
        raise AdminError(code, message, str(answer.get("remedy", "")))


_OTHER_ADDRESS: Final = "check [admin] listen, or name the daemon's configuration with -c"


@contextmanager
def connected(config_path: Path | None) -> Iterator[AdminClient]:
    """Give a client for the daemon of that configuration; failures are said and exit with 1."""
    with mistakes_reported():
        config = configuration.load(config_path).config
    try:
        with AdminClient(config.admin.listen, _token(config)) as client:
            yield client
    except AdminError as error:
        click.echo(_one_line(str(error)), err=True)
        raise click.exceptions.Exit(1) from None


def _nobody(listen: str) -> AdminError:
    return AdminError(
        "unreachable",
        f"no daemon listens on {listen}",
        "start one with voiced run, or name its configuration with -c",
    )


def _try_socket(path: str) -> None:
    """Connect once, since the HTTP client tells no error numbers. Raises AdminError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(TIMEOUT_S)
        try:
            probe.connect(path)
        except PermissionError:
            raise AdminError(
                "unreachable",
                f"{path} may not be opened",
                f"{_who_may(Path(path))}: run this as that user, or as one of its group",
            ) from None
        except OSError:
            raise _nobody(UNIX + path) from None


def _token(config: Config) -> _Token:
    """The configured token, or the one that the daemon made at its first start."""
    if config.admin.token:
        return _Token(config.admin.token, "[admin] in the configuration")
    folders = [configuration.state_dir(config)]
    # Where a daemon under systemd keeps it, whose STATE_DIRECTORY is not ours.
    if config.daemon.state_dir is None and SYSTEM_STATE_DIR not in folders:
        folders.append(SYSTEM_STATE_DIR)
    for folder in folders:
        path = folder / FILE_NAME
        try:
            return _Token(read_token(folder), str(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            raise AdminError(
                "no_token",
                f"the admin token in {path} may not be read",
                f"{_who_may(path)}: run this as that user, as with sudo -u",
            ) from None
        except (OSError, ValueError) as error:
            raise AdminError("no_token", f"the admin token cannot be read: {error}") from None
    looked = " or ".join(str(folder / FILE_NAME) for folder in folders)
    raise AdminError(
        "no_token",
        f"there is no admin token in {looked}",
        "the daemon makes it when it first starts: start it, or name its configuration with -c",
    )


def _who_may(path: Path) -> str:
    """Say to whom a file belongs, or else the first folder on the way that says so."""
    for place in (path, *path.parents):
        try:
            status = place.stat()
        except OSError:
            continue
        try:
            owner = pwd.getpwuid(status.st_uid).pw_name
        except KeyError:
            owner = f"user {status.st_uid}"
        return f"{place} belongs to {owner}, mode {stat.S_IMODE(status.st_mode):04o}"
    return "nothing on the way to it can be looked at"


def _reachable(listen: str) -> str:
    """Where to connect to reach a listener on `listen`."""
    host, port = parse_listen(listen)
    if port == 0:
        raise AdminError(
            "unreachable",
            "[admin] listen has port 0, which is another at each start",
            "give it a port",
        )
    host = _EVERYWHERE.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _one_line(text: str) -> str:
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
