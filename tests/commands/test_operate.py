"""The commands that operate a running daemon, against a live admin listener."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tests.web.admin_peer import NOW, TOKEN, Site, row, site_in_thread, view
from voiced import cli
from voiced.commands import client, dial, tables
from voiced.config import paths
from voiced.web.operations import CallView, DialRequest, OperationRefused, TransferResult
from voiced.web.token import FILE_NAME

A = "aaaa000000000001"
B = "aabb000000000002"
COMMANDS = ["calls", "show", "hangup", "say", "dial", "transfer"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file and no daemon of this machine has a part in any test."""
    monkeypatch.chdir(tmp_path)
    for name in ("VOICED_CONFIG", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(paths, "DEFAULT_PATH", tmp_path / "none" / "voiced.toml")
    monkeypatch.setattr(client, "SYSTEM_STATE_DIR", tmp_path / "system")
    monkeypatch.setattr(dial, "POLL_S", 0)
    with monkeypatch.context() as zone, structlog.testing.capture_logs():
        zone.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def site() -> Iterator[Site]:
    with site_in_thread() as made:
        configure(made.address)
        yield made


def configure(listen: str, token: str | None = TOKEN) -> None:
    lines = ["[daemon]", 'state_dir = "state"', "[admin]", f'listen = "{listen}"']
    if token:
        lines.append(f'token = "{token}"')
    Path("voiced.toml").write_text("\n".join(lines) + "\n")
    Path("voiced.toml").chmod(0o600)


def run(*arguments: str) -> Result:
    command = [*arguments, "-c", "voiced.toml"]
    return CliRunner().invoke(cli.main, command, catch_exceptions=False)


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def failed(*arguments: str, code: int = 1) -> str:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    return result.stderr


# ---- looking ----


def test_no_calls(site: Site) -> None:
    assert done("calls") == "no live calls\n"
    assert done("calls", "--all") == "no calls\n"
    assert json.loads(done("calls", "--json")) == []


def test_calls_are_a_table(site: Site) -> None:
    site.daemon.calls = {
        A: view(A, caller="\x1b[2Jevil\n", duration_s=75),
        B: view(B, started_at=NOW + 1, duration_s=3675.4, caller="", state="thinking"),
    }
    head, second, first = done("calls").splitlines()
    assert head.split() == ["CALL", "BEGAN", "DIRECTION", "FROM", "TO", "AGENT", "STATE", "TIME"]
    assert second.split() == [
        *(B, "2026-09-21", "14:13:21", "inbound", "-", "+4930222", "reception"),
        *("thinking", "1:01:15"),
    ]
    assert "\\x1b[2Jevil\\n" in first
    assert "\x1b" not in first
    assert first.split()[-1] == "1:15"
    assert head.index("STATE") == second.index("thinking") == first.index("listening")


def test_all_calls_and_how_they_ended(site: Site) -> None:
    site.daemon.calls = {A: view(A)}
    site.daemon.rows = [row("cccc"), row("dddd", reason=None, duration_ms=None, ended_at=None)]
    _, live, ended, cut = done("calls", "--all", "--limit", "7").splitlines()
    assert live.startswith(A)
    assert "ended: caller_hangup" in ended
    assert ended.endswith(" 1:00")
    assert cut.split()[-3:] == ["ended:", "unknown", "-"]
    assert site.daemon.deeds == [("journal", 7)]
    shown = json.loads(done("calls", "--all", "--json"))
    assert [call["id"] for call in shown] == [A, "cccc", "dddd"]


def test_showing_a_live_call(site: Site) -> None:
    statistics = {"lost": 1, "jitter_ms": 0.50001234}
    site.daemon.calls = {A: view(A, statistics=statistics)}
    text = done("show", "aaa")
    assert text == done("show", "last")
    for line in (
        f"call        {A}",
        "state       listening since 2026-09-21 14:13:20, model ready",
        "direction   inbound over sip, trunk berlin",
        "agent       reception on offline (emulator)",
        "duration    0:12",
        "  X-Ticket  77",
        "  jitter_ms  0.5",
        "  agent: Good morning.",
        "  caller: Hello? —",
    ):
        assert line in text.splitlines()
    assert json.loads(done("show", A, "--json"))["statistics"] == statistics


def test_showing_a_call_of_the_journal(site: Site) -> None:
    site.daemon.rows = [row("cccc", direction="outbound", reason="carrier_lost")]
    lines = done("show", "cccc").splitlines()
    for line in (
        "state       ended: carrier_lost",
        "outcome     broken",
        "direction   outbound over twilio",
        "cost        0.0125 USD",
        "  answers_ms   700, 900",
        "      0.200 s  media_ready",
        "  agent: Good morning.",
    ):
        assert line in lines, line


# ---- doing ----


def test_deeds(site: Site) -> None:
    site.daemon.calls = {A: view(A)}
    assert done("say", "aaaa", "One moment, please.") == f"{A} says it\n"
    assert done("say", "last", "ask for the order number", "--tell") == f"{A} told\n"
    assert done("transfer", A, "+4930999") == f"{A} transferred: 200 OK\n"
    assert done("hangup", A) == f"{A} hung up\n"
    assert site.daemon.deeds == [
        ("say", A, "One moment, please.", True),
        ("say", A, "ask for the order number", False),
        ("transfer", A, "+4930999"),
        ("hangup", A, "operator"),
    ]
    assert failed("hangup", A) == (
        f"there is no live call {A}; see voiced calls for those there are\n"
    )


def test_a_transfer_that_failed(site: Site) -> None:
    site.daemon.calls = {A: view(A)}
    site.daemon.transferred = TransferResult(done=False, status=486, text="Busy Here")
    assert failed("transfer", A, "+49") == f"{A} not transferred: 486 Busy Here\n"
    result = run("transfer", A, "+49", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "id": A,
        "done": False,
        "status": 486,
        "text": "Busy Here",
    }


@pytest.mark.parametrize("command", [("show",), ("hangup",), ("say", "x"), ("transfer", "+49")])
def test_calls_that_are_none(site: Site, command: tuple[str, ...]) -> None:
    name, *rest = command
    assert failed(name, "../x", *rest).startswith("there is no")
    assert "as voiced calls lists them" in failed(name, "", *rest, code=2)
    site.daemon.calls = {A: view(A), B: view(B)}
    assert failed(name, "aa", *rest) == "several calls begin with aa; write more of the id\n"
    assert site.daemon.deeds == []


def test_nothing_to_say(site: Site) -> None:
    assert "there is nothing to say" in failed("say", A, "  ", code=2)


# ---- dialling ----

DIALLED = "d1a1000000000000"


def dialled(state: str) -> CallView:
    return view(DIALLED, direction="outbound", state=state)


def ended(reason: str, *states: str) -> dict[str, Any]:
    return row(
        DIALLED,
        direction="outbound",
        reason=reason,
        states=[[state, 0] for state in ("dialling", *states, "ended")],
    )


def test_dialling_asks_for_what_the_options_say(site: Site) -> None:
    options = ["--agent", "sales", "--trunk", "berlin", "--from", "+4930111", "--timeout", "20"]
    options += [
        "--header",
        "X-Ticket: 7: 8",
        "--header",
        "User-to-User:00ab",
        "--machine-detection",
    ]
    assert done("dial", "+4930444", *options, "--no-wait") == f"{DIALLED} dialling\n"
    assert site.daemon.deeds == [
        (
            "dial",
            DialRequest(
                to="+4930444",
                agent="sales",
                trunk="berlin",
                caller="+4930111",
                headers={"X-Ticket": "7: 8", "User-to-User": "00ab"},
                timeout_s=20,
                machine_detection=True,
            ),
        )
    ]
    assert json.loads(done("dial", "+49", "--no-wait", "--json")) == {"id": "d1a1000000000001"}
    assert site.daemon.deeds[1] == ("dial", DialRequest(to="+49"))


def test_dialling_follows_the_call_to_its_end(site: Site) -> None:
    views = [None, dialled("dialling"), dialled("media_ready"), dialled("listening")]
    site.daemon.dialled = iter(views)  # the first row is not written yet when we first ask

    class Late(list[dict[str, Any]]):
        """The last row is written a little after the call has gone."""

        def __iter__(self) -> Iterator[dict[str, Any]]:
            asked.append(1)
            if len(asked) == 1:
                return iter(())
            if len(asked) < 4:
                return iter([{**ended("operator", "media_ready"), "ended_at": None}])
            return iter([ended("operator", "media_ready")])

    asked: list[int] = []
    site.daemon.rows = Late()
    assert done("dial", "+49").splitlines() == [
        f"{DIALLED} dialling",
        f"{DIALLED} answered",
        f"{DIALLED} ended after 1:00: operator",
    ]
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("reason", "states", "code", "words"),
    [
        ("busy", (), 3, "busy"),
        ("carrier_busy", (), 3, "busy (carrier_busy)"),
        ("declined", (), 4, "declined"),
        ("no_answer", (), 5, "no answer"),
        ("unreachable", (), 6, "unreachable"),
        ("timeout", (), 6, "timeout"),
        ("internal_error", (), 1, "failed (internal_error)"),
        ("carrier_lost", ("media_ready",), 1, "broken (carrier_lost)"),
    ],
)
def test_exit_codes(
    site: Site, reason: str, states: tuple[str, ...], code: int, words: str
) -> None:
    site.daemon.rows = [ended(reason, *states)]
    assert failed("dial", "+49", code=code) == f"{DIALLED} {words}\n"
    site.daemon.rows[0]["call_id"] = "d1a1000000000001"  # the second call
    result = run("dial", "+49", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["reason"] == reason


def test_dialling_as_json_is_one_document(site: Site) -> None:
    site.daemon.dialled = iter([dialled("listening")])
    site.daemon.rows = [ended("caller_hangup", "listening")]
    shown = json.loads(done("dial", "+49", "--json"))
    assert (shown["id"], shown["outcome"]) == (DIALLED, "answered")


def test_a_call_of_which_nothing_is_left(site: Site) -> None:
    assert "the journal does not say how it ended" in failed("dial", "+49")
    site.daemon.rows = [{**ended("busy"), "ended_at": None}]
    assert "the journal does not say how it ended" in failed("dial", "+49")


def test_an_interrupted_command_leaves_the_call(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    site.daemon.dialled = iter([dialled("dialling")])
    monkeypatch.setattr(time, "sleep", interrupt)
    message = f"the call goes on; end it with: voiced hangup {DIALLED}\n"
    assert failed("dial", "+49") == message


def test_what_the_daemon_refuses_to_dial(site: Site) -> None:
    site.daemon.refusal = OperationRefused("full", 503, "100 calls are live", "hang one up")
    assert failed("dial", "+49") == "100 calls are live; hang one up\n"
    site.daemon.refusal = None
    assert "one line of text" in failed("dial", "a\nb")
    assert "cannot be set; use X-" in failed("dial", "+49", "--header", "Via: x")


@pytest.mark.parametrize(
    "options", [("--header", "X"), ("--header", ": x"), ("--timeout", "0"), ("--timeout", "601")]
)
def test_options_that_are_none(site: Site, options: tuple[str, ...]) -> None:
    failed("dial", "+49", *options, code=2)
    assert site.daemon.deeds == []


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


@given(st.lists(st.lists(st.text(max_size=9), min_size=2, max_size=2), max_size=5))
def test_tables_have_a_line_a_row_and_nothing_that_a_terminal_obeys(rows: list[list[str]]) -> None:
    lines = tables.table(("A", "B"), rows).split("\n")
    assert len(lines) == len(rows) + 1
    assert all(line.isprintable() for line in lines)


@given(st.floats(0, 1e7))
def test_durations_add_up(seconds: float) -> None:
    parts = [int(part) for part in tables.duration(seconds).split(":")]
    total = 0
    for part in parts:
        total = total * 60 + part
    assert total == round(seconds)
