"""What the service manager hears, at a socket in its place."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.testing

from tests.e2e.house import agent, house, until
from voiced.config.types import Config
from voiced.daemon import CLOSE_S, GOODBYE_S
from voiced.notify import Manager

ROOT = Path(__file__).parents[1]
ME = str(os.getpid())


class Listener:
    """The service manager's end."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def take(self) -> list[str]:
        """All lines so far."""
        while True:
            try:
                self.heard += self._socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return self.heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with closing(Listener(str(tmp_path / "notify"))) as listener:
        yield listener


def test_nobody_is_told_where_nobody_listens() -> None:
    with structlog.testing.capture_logs() as logs:
        for path in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}):
            Manager(path).ready("0 calls")
    assert logs == []


def test_an_abstract_socket() -> None:
    name = f"voiced-test-{ME}"
    with closing(Listener(f"\0{name}")) as listener:
        Manager({"NOTIFY_SOCKET": f"@{name}"}).ready("2 calls")
        assert listener.take() == ["READY=1", "STATUS=2 calls"]


def test_a_manager_that_has_gone_is_a_log_line(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        Manager({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready("0 calls")
    assert [line["event"] for line in logs] == ["service manager not told"]


async def test_that_is_said_once_until_one_is_there(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """A container may be given the variable, and not the socket."""
    path = tmp_path / "notify"
    manager = Manager({"NOTIFY_SOCKET": str(path)})
    with structlog.testing.capture_logs() as logs:
        for there in (False, True, False):
            with closing(Listener(str(path))) if there else nullcontext():
                with trio.move_on_after(60):
                    await manager.run(lambda: "0 calls")
    assert [line["event"] for line in logs] == ["service manager not told"] * 2


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ME}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),  # another process is meant
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_what_the_watchdog_wants(environ: dict[str, str], watchdog_s: float | None) -> None:
    assert Manager(environ).watchdog_s == watchdog_s


@pytest.mark.parametrize(("microseconds", "beats"), [("4000000", 6), ("600000000", 2), ("", 2)])
async def test_the_watchdog_hears_twice_as_often_as_it_wants(
    autojump_clock: trio.testing.MockClock,
    listener: Listener,
    tmp_path: Path,
    microseconds: str,
    beats: int,
) -> None:
    manager = Manager({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": microseconds})
    with trio.move_on_after(11):
        await manager.run(lambda: "3 calls")
    assert listener.take() == ["WATCHDOG=1", "STATUS=3 calls"] * beats


async def test_a_daemon_from_its_start_to_its_end(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    text = '[engine.offline]\nkind = "emulator"\n' + agent("waits", "offline", 'greeting = ""')
    async with house(tmp_path, text):
        await until(lambda: "WATCHDOG=1" in listener.take(), "a first word")
        assert listener.heard[:2] == ["READY=1", "STATUS=0 calls"]
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: listener.take().count("READY=1") == 2, "the end of the reload")
        assert listener.heard.index("RELOADING=1") > listener.heard.index("READY=1")
        assert any(re.fullmatch(r"MONOTONIC_USEC=\d+", line) for line in listener.heard)
        assert "STOPPING=1" not in listener.heard
    within_s = 1 + GOODBYE_S + CLOSE_S  # the house drains for a second
    assert listener.take()[-2:] == ["STOPPING=1", f"EXTEND_TIMEOUT_USEC={within_s * 1e6:.0f}"]


def test_the_unit_says_the_same() -> None:
    unit = (ROOT / "etc" / "voiced.service").read_text("utf-8").splitlines()
    assert "Type=notify" in unit
    assert "ExecReload=/bin/kill -HUP $MAINPID" in unit
    assert any(line.startswith("WatchdogSec=") for line in unit)
    (stop,) = [line for line in unit if line.startswith("TimeoutStopSec=")]
    # Until the daemon has said how long it takes; and where it cannot.
    assert int(stop.partition("=")[2]) >= Config().daemon.drain_s + GOODBYE_S + CLOSE_S
