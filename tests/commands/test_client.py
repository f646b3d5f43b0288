"""How the commands find the daemon and its token, and what they say where they cannot."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.commands.daemon import A, configure, done, failed
from tests.web.admin_peer import TOKEN, Site, site_in_thread, view
from voiced import cli
from voiced.commands import client
from voiced.web.token import FILE_NAME

COMMANDS = ["calls", "show", "hangup", "say", "dial", "transfer"]


# ---- finding the daemon ----


def test_no_daemon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    configure(f"127.0.0.1:{port}")
    for arguments in (("calls",), ("show", "x"), ("hangup", "x"), ("dial", "+49")):
        assert failed(*arguments) == (
            f"no daemon listens on 127.0.0.1:{port}; "
            "start one with voiced run, or name its configuration with -c\n"
        )
    configure("unix:/nonexistent/admin.sock")
    assert failed("calls").startswith("no daemon listens on unix:/nonexistent/admin.sock; ")


def test_a_socket_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Guarded(socket.socket):
        def connect(self, address: Any) -> None:
            raise PermissionError(13, "Permission denied")

    configure(f"unix:{tmp_path}/admin.sock")
    monkeypatch.setattr(socket, "socket", Guarded)
    user = pwd.getpwuid(os.getuid()).pw_name
    message = failed("calls")
    assert message.startswith(
        f"{tmp_path}/admin.sock may not be opened; {tmp_path} belongs to {user}"
    )


def test_a_port_that_cannot_be_known() -> None:
    configure("127.0.0.1:0")
    assert failed("calls").startswith("[admin] listen has port 0")


def test_a_mistake_in_the_configuration_is_said_as_everywhere() -> None:
    Path("voiced.toml").write_text("[admin]\nlisten = 5\n")
    assert failed("calls").startswith("voiced.toml:2: admin.listen: ")


def test_another_token(site: Site) -> None:
    configure(site.address, token="another")
    message = failed("calls")
    assert (
        "does not take the token of [admin] in the configuration; it runs with another" in message
    )
    assert "another\n" not in message


def test_the_token_that_the_daemon_made(site: Site, tmp_path: Path) -> None:
    configure(site.address, token=None)
    message = failed("calls")
    assert message.startswith(f"there is no admin token in {tmp_path}/state/{FILE_NAME}; ")
    Path("state").mkdir()
    Path("state", FILE_NAME).write_text("\n")
    assert "holds no token" in failed("calls")
    Path("state", FILE_NAME).write_text(f"{TOKEN}\n")
    assert done("calls") == "no live calls\n"


def test_the_token_of_a_system_daemon(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("voiced.toml").write_text(f'[admin]\nlisten = "{site.address}"\n')
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "mine"))
    assert f"{tmp_path}/mine/{FILE_NAME} or {tmp_path}/system/{FILE_NAME}; " in failed("calls")
    Path("system").mkdir()
    Path("system", FILE_NAME).write_text(TOKEN)
    assert done("calls") == "no live calls\n"


def test_a_token_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root may read everything, so the refusal is put in by hand."""
    configure("127.0.0.1:9", token=None)
    Path("state").mkdir()
    Path("state", FILE_NAME).touch(0o600)

    def refuse(folder: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(client, "read_token", refuse)
    path = tmp_path / "state" / FILE_NAME
    user = pwd.getpwuid(os.getuid()).pw_name
    assert failed("calls") == (
        f"the admin token in {path} may not be read; "
        f"{path} belongs to {user}, mode 0600: run this as that user, as with sudo -u\n"
    )
    path.unlink()
    Path("state").chmod(0o700)
    assert f"{tmp_path}/state belongs to {user}, mode 0700" in failed("calls")


def test_over_a_unix_socket(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/run/admin.sock"
    with site_in_thread(listen) as made:
        made.daemon.calls = {A: view(A)}
        configure(listen)
        assert A in done("calls")
        assert done("hangup", "last") == f"{A} hung up\n"


def test_a_listener_on_all_addresses_is_reached_on_loopback(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = site.address.rpartition(":")[2]
    configure(f"0.0.0.0:{port}")
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # which would get the token
    assert done("calls") == "no live calls\n"


@contextlib.contextmanager
def stranger(answer: bytes) -> Iterator[str]:
    """Something else on the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n<html>\xff\xfe ",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_something_else_on_that_address(answer: bytes) -> None:
    with stranger(answer) as address:
        configure(address)
        message = failed("calls")
    assert "check [admin] listen" in message
    assert message.count("\n") == 1


# ---- around ----


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli.main, [name, "--help"])
    assert result.exit_code == 0
    assert "-c, --config FILE" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_does_not_wait_for_imports(name: str) -> None:
    code = (
        "import sys; from voiced.cli import main; "
        f"main(['{name}', '--help'], standalone_mode=False); "
        "sys.exit(bool({'httpx', 'trio', 'quart'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_a_command_imports_no_server() -> None:
    code = (
        "import sys; import voiced.commands.client; "
        "sys.exit(bool({'trio', 'quart', 'hypercorn', 'prometheus_client'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
