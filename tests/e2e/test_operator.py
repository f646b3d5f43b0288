"""The daemon as a process of its own: what an operator does to it, mistakes and signals too."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from tests.e2e.house import (
    SOON_S,
    VOICE,
    Outcomes,
    Scenes,
    address_of,
    agent,
    house,
    judge,
    until,
)
from voiced import clips
from voiced.journal import FILE_NAME, Journal, Row
from voiced.simulate import SCRIPTS, CallEvent, CallResult, Network, Script, call
from voiced.simulate.events import AgentStarted
from voiced.simulate.script import HangUp, WaitForAgentSpeech, WaitForHangUp

OFFLINE = '[engine.offline]\nkind = "emulator"\nspeech = "clips"\n'
GREETS = agent("greets", "offline", f'greeting_text = "{clips.load("greeting").text}"')
START_S = 60.0

scenes: Scenes[Path] = Scenes()


@dataclass
class Daemon:
    """A `voiced run` of its own."""

    process: trio.Process
    state_dir: Path
    lines: list[str] = field(default_factory=list)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.lines]

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait for a line of the log."""
        with trio.fail_after(START_S):
            while True:
                for line in self.log:
                    if line["event"] == event:
                        return line
                assert self.process.returncode is None, self.lines
                await trio.sleep(0.02)

    async def ended(self) -> int:
        """Wait for the end; returns the exit code."""
        with trio.fail_after(START_S):
            return await self.process.wait()

    def rows(self) -> list[dict[str, Any]]:
        """The journal's rows."""
        with closing(Journal(self.state_dir)) as journal:
            return journal.calls()

    async def call(
        self, script: Script, to: str, observer: Callable[[CallEvent], None] | None = None
    ) -> CallResult:
        """Hold a call."""
        listening = await self.logged("listening")
        return await call(
            script, webhook_url=listening["address"] + VOICE, to=address_of(to), observer=observer
        )


def write(folder: Path, text: str, head: str | None = None) -> Path:
    """Write a configuration; `head` instead of its own state_dir and a free port."""
    if head is None:
        head = f'[daemon]\nstate_dir = "{folder}/state"\n[http]\nlisten = "127.0.0.1:0"\n'
    folder.mkdir(exist_ok=True)
    file = folder / "voiced.toml"
    if "[admin]" not in head + text:
        text += '[admin]\nlisten = "127.0.0.1:0"\n'
    file.write_text(head + text, "utf-8")
    return file


# Half a second of a core for each: two dozen at a time would time each other out.
starting = trio.Semaphore(3)


@asynccontextmanager
async def running(file: Path, environment: Mapping[str, str] = os.environ) -> AsyncIterator[Daemon]:
    """`voiced run -c FILE`, killed if it is still there at the end."""
    async with trio.open_nursery() as nursery:
        await starting.acquire()
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "voiced", "run", "-c", str(file)],
            stderr=-1,
            stdin=-3,
            env={**environment, "PYTHONUNBUFFERED": "1"},
        )
        daemon = Daemon(process, file.parent / "state")
        begun, read = trio.Event(), trio.Event()

        async def follow() -> None:
            assert process.stderr is not None
            buffer = b""
            async with process.stderr as stream:
                async for data in stream:
                    *lines, buffer = (buffer + data).split(b"\n")
                    daemon.lines += [line.decode() for line in lines]
                    begun.set()
            begun.set()
            read.set()

        nursery.start_soon(follow)
        try:
            await begun.wait()
            starting.release()
            yield daemon
        finally:
            with trio.move_on_after(SOON_S, shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()
                await read.wait()


# ---- mistakes: exit 1, one line each, no traceback


async def mistaken(folder: Path, name: str, text: str, head: str | None, said: list[str]) -> None:
    async with running(write(folder / name, text, head)) as daemon:
        assert await daemon.ended() == 1
    assert len(daemon.lines) == len(said), daemon.lines
    for line, expected in zip(daemon.lines, said, strict=True):
        assert expected in line
    assert "Traceback" not in "".join(daemon.lines)


for name, text, head, said in (
    ("unknown_key", '[daemon]\nlog_levle = "info"\n', "", ["log_level"]),
    (
        "three_mistakes",
        '[daemon]\nmax_calls = 0\nlog_levle = "x"\n[agent.a]\nengine = "none"\n',
        "",
        ["max_calls", "log_levle", "none"],
    ),
    ("no_toml", "[daemon\n", "", ["voiced.toml:1"]),
    (
        "unknown_fault",
        '[engine.x]\nkind = "emulator"\nfaults = { silnet = true }\n',
        "",
        ["silent"],
    ),
    (
        "unusable_state_dir",
        "",
        '[daemon]\nstate_dir = "/proc/voiced"\n[http]\nlisten = "127.0.0.1:0"\n',
        ["state_dir"],
    ),
    (
        "address_of_another",
        "",
        '[daemon]\nstate_dir = "state"\n[http]\nlisten = "203.0.113.1:8080"\n',
        ["without an auth token", "does not have that address"],
    ),
):
    scenes[name] = partial(mistaken, name=name, text=text, head=head, said=said)


@scenes
async def plugin_that_spins(folder: Path) -> None:
    """Its file and line are named, and the process ends all the same."""
    plugins = folder / "plugin_that_spins" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "spinner.py").write_text("while True:\n    pass\n")
    head = '[daemon]\nplugin_dir = "plugins"\n[plugins.spinner]\n'
    said = ["voiced.toml:3: plugins.spinner: importing it takes longer than 10 s (spinner.py, line"]
    await mistaken(folder, "plugin_that_spins", "", head, said)


@scenes
async def no_file(folder: Path) -> None:
    async with running(folder / "nowhere.toml") as daemon:
        assert await daemon.ended() == 1
    assert len(daemon.lines) == 1
    assert "nowhere.toml" in daemon.lines[0]


@scenes
async def port_in_use(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        head = f'[daemon]\nstate_dir = "state"\n[http]\nlisten = "127.0.0.1:{port}"\n'
        await mistaken(folder, "port", "", head, [f"127.0.0.1:{port}"])


@scenes
async def another_key(folder: Path) -> None:
    """A certificate and a key that do not belong together."""
    authority = trustme.CA()
    here = folder / "another_key"
    here.mkdir()
    one, other = authority.issue_cert("127.0.0.1"), authority.issue_cert("127.0.0.1")
    one.cert_chain_pems[0].write_to_path(here / "cert.pem")
    other.private_key_pem.write_to_path(here / "key.pem")
    head = '[http]\nlisten = "127.0.0.1:0"\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n'
    await mistaken(folder, "another_key", "", head, ["tls_key"])


@scenes
async def broken_journal(folder: Path) -> None:
    state = folder / "broken" / "state"
    state.mkdir(parents=True)
    (state / FILE_NAME).write_bytes(b"This is no database. " * 100)
    await mistaken(folder, "broken", "", None, [f"mv {state / FILE_NAME} "])


@scenes
async def newer_journal(folder: Path) -> None:
    state = folder / "newer" / "state"
    state.mkdir(parents=True)
    with closing(sqlite3.connect(state / FILE_NAME)) as database:
        database.execute("PRAGMA user_version = 99")
    await mistaken(folder, "newer", "", None, ["newer voiced"])


# ---- signals


def when(kind: type[CallEvent], event: trio.Event) -> Callable[[CallEvent], None]:
    """An observer that sets `event`."""

    def observe(seen: CallEvent) -> None:
        if isinstance(seen, kind):
            event.set()

    return observe


@scenes
async def sigterm_drains(folder: Path) -> None:
    """A call that is live is finished, then the daemon ends."""
    async with running(write(folder / "drains", OFFLINE + GREETS)) as daemon:
        results, heard = [], trio.Event()

        async def talk() -> None:
            script = SCRIPTS["listener"]
            results.append(await daemon.call(script, "greets", when(AgentStarted, heard)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            await heard.wait()
            daemon.process.send_signal(signal.SIGTERM)
            await daemon.logged("draining")
        assert await daemon.ended() == 0
    (result,) = results
    assert result.failure is None
    assert result.ended_by == "caller"
    assert [row["reason"] for row in daemon.rows()] == ["caller_hangup"]
    assert daemon.log[-1]["event"] == "stopped"
    assert not [line for line in daemon.log if line["level"] in ("warning", "error")]


@scenes
async def sigterm_twice_cuts(folder: Path) -> None:
    async with running(write(folder / "cuts", OFFLINE + GREETS)) as daemon:
        results, heard = [], trio.Event()

        async def talk() -> None:
            script = Script("stays", "", (WaitForHangUp(),))
            results.append(await daemon.call(script, "greets", when(AgentStarted, heard)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            await heard.wait()
            daemon.process.send_signal(signal.SIGTERM)
            await daemon.logged("draining")
            daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.ended() == 0
    (result,) = results
    assert (result.failure, result.ended_by) == (None, "agent")
    assert [row["reason"] for row in daemon.rows()] == ["shutdown"]
    assert "Traceback" not in "".join(daemon.lines)


SLOW = """
from pathlib import Path
import trio
from voiced.plugin import Plugin, Service


class Opening(Service):
    async def open(self):
        self.host.log.info("opens")
        while not (Path(__file__).parent / "go").exists():
            await trio.sleep(0.02)


class Slow(Plugin):
    Service = Opening
"""
SLOW_HEAD = (
    '[daemon]\nstate_dir = "state"\nplugin_dir = "plugins"\n[http]\nlisten = "127.0.0.1:0"\n'
)


def slow(folder: Path, text: str) -> Path:
    """A configuration beside a plugin that opens when there is a file `plugins/go`."""
    (folder / "plugins").mkdir(parents=True)
    (folder / "plugins" / "slow.py").write_text(SLOW, "utf-8")
    return write(folder, OFFLINE + text, SLOW_HEAD)


async def stops_at_once(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGTERM)
    with trio.fail_after(SOON_S):
        assert await daemon.ended() == 0
    assert daemon.log[-1]["event"] == "stopped"
    assert "Traceback" not in "".join(daemon.lines)


@scenes
async def sigterm_while_a_plugin_opens(folder: Path) -> None:
    async with running(slow(folder / "opens", "[plugins.slow]\n")) as daemon:
        await daemon.logged("opens")
        await stops_at_once(daemon)
    assert not [line for line in daemon.log if line["event"] == "listening"]


@scenes
async def sigterm_while_a_reload_opens_a_plugin(folder: Path) -> None:
    file = slow(folder / "reopens", "")
    async with running(file) as daemon:
        await daemon.logged("listening")
        file.write_text(file.read_text("utf-8") + "[plugins.slow]\n", "utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.logged("opens")
        await stops_at_once(daemon)


@scenes
async def sighup_while_a_plugin_opens(folder: Path) -> None:
    """It ends nothing: the file is read again once voiced has started."""
    async with running(slow(folder / "waits", "[plugins.slow]\n")) as daemon:
        await daemon.logged("opens")
        daemon.process.send_signal(signal.SIGHUP)
        (folder / "waits" / "plugins" / "go").touch()
        await daemon.logged("listening")
        await daemon.logged("configuration reloaded")
        await stops_at_once(daemon)


@scenes
async def a_plugin_that_holds_up_everything_can_be_killed(folder: Path) -> None:
    file = slow(folder / "holds", "[plugins.slow]\n")
    plugin = folder / "holds" / "plugins" / "slow.py"
    plugin.write_text(SLOW.replace("await trio.sleep(0.02)", "pass"), "utf-8")
    async with running(file) as daemon:
        await daemon.logged("opens")
        with trio.fail_after(SOON_S):
            while daemon.process.returncode is None:
                daemon.process.send_signal(signal.SIGTERM)
                await trio.sleep(0.1)
        assert await daemon.ended() == -signal.SIGTERM


@scenes
async def sighup_reloads(folder: Path) -> None:
    """A broken file changes nothing; a good one changes new calls, and leaves live ones theirs."""
    file = write(folder / "reloads", OFFLINE + GREETS)
    brief = Script("brief", "", (WaitForAgentSpeech(200), HangUp()))
    async with running(file) as daemon, trio.open_nursery() as nursery:
        heard = trio.Event()
        stays = Script("stays", "", (WaitForHangUp(),))
        nursery.start_soon(daemon.call, stays, "greets", when(AgentStarted, heard))
        await heard.wait()

        write(folder / "reloads", '[agent.greets]\ngreting = ""\nmax_duration_s = "x"\n')
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.logged("configuration not reloaded")
        assert (await daemon.call(brief, "greets")).failure is None

        limited = agent("limited", "offline", 'greeting = ""\nmax_duration_s = 0.2')
        write(folder / "reloads", OFFLINE + limited.replace("sip:limited", "sip:greets"))
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.logged("configuration reloaded")
        result = await daemon.call(Script("stays", "", (WaitForHangUp(),)), "greets")
        assert result.ended_by == "agent"

        def live() -> list[str]:
            return [row["agent"] for row in daemon.rows() if row["ended_at"] is None]

        await until(lambda: live() == ["greets"], "the end of the limited call, and only of that")
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.logged("draining")
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.ended() == 0
    found = sorted((row["agent"], row["reason"]) for row in daemon.rows())
    assert found == [
        ("greets", "caller_hangup"),
        ("greets", "shutdown"),
        ("limited", "max_duration"),
    ]
    mistakes = [line for line in daemon.log if line["event"] == "configuration not reloaded"]
    assert len(mistakes) == 2
    assert "greeting" in mistakes[0]["mistake"]


@scenes
async def a_second_daemon_is_refused(folder: Path) -> None:
    """It would take the live calls of the first for cut ones."""
    head = '[daemon]\nstate_dir = "state"\n[http]\nlisten = "127.0.0.1:0"\n'
    file = write(folder / "both", OFFLINE + GREETS, head)
    async with running(file) as daemon, trio.open_nursery() as nursery:
        heard = trio.Event()
        stays = Script("stays", "", (WaitForHangUp(),))
        nursery.start_soon(daemon.call, stays, "greets", when(AgentStarted, heard))
        await heard.wait()
        await mistaken(folder, "both", OFFLINE + GREETS, head, [f"process {daemon.process.pid}"])
        assert [row["reason"] for row in daemon.rows()] == [None]
        daemon.process.send_signal(signal.SIGKILL)
        await daemon.ended()
    async with running(file) as daemon:  # what a crash leaves keeps nobody out
        await daemon.logged("listening")
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.ended() == 0


@scenes
async def a_reload_changes_what_the_journal_keeps(folder: Path) -> None:
    """A call of a year ago stays for ever, until the file says otherwise."""
    keeps = 'journal_keep_days = "forever"\n'
    head = '[daemon]\nstate_dir = "state"\n{}[http]\nlisten = "127.0.0.1:0"\n'
    old = time.time() - 365 * 86400
    row = Row("old", "sip", "x", "inbound", "", "", "a", "e", "m", started_at=old, ended_at=old)
    state = folder / "keeps" / "state"
    with closing(Journal(state)) as journal:
        journal.open()
        journal.write(row)
        journal.close()
        await journal.run()
    async with running(write(folder / "keeps", OFFLINE, head.format(keeps))) as daemon:
        await daemon.logged("listening")
        assert [row["call_id"] for row in daemon.rows()] == ["old"]
        write(folder / "keeps", OFFLINE, head.format(""))
        daemon.process.send_signal(signal.SIGHUP)
        pruned = await daemon.logged("journal pruned")
        assert (pruned["calls"], pruned["older_than_days"]) == (1, 90)
        assert daemon.rows() == []
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.ended() == 0


@scenes
async def a_crash_is_told(folder: Path) -> None:
    """After kill -9 the journal says which calls were cut."""
    file = write(folder / "crashes", OFFLINE + GREETS)
    heard = trio.Event()
    async with running(file) as daemon, trio.open_nursery() as nursery:
        stays = Script("stays", "", (WaitForHangUp(),))
        nursery.start_soon(daemon.call, stays, "greets", when(AgentStarted, heard))
        await heard.wait()
        await until(lambda: len(daemon.rows()) == 1, "the row of a live call")
        assert daemon.rows()[0]["ended_at"] is None
        daemon.process.send_signal(signal.SIGKILL)
        assert await daemon.ended() == -signal.SIGKILL
    async with running(file) as daemon:
        warning = await daemon.logged("calls were cut by an earlier crash")
        assert warning["calls"] == 1
        await daemon.logged("listening")
        assert [row["reason"] for row in daemon.rows()] == ["daemon_crash"]
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.ended() == 0


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    async def afterwards(folder: Path) -> None:
        await trio.lowlevel.checkpoint()

    return trio.run(scenes.play, tmp_path_factory.mktemp("operator"), afterwards)


@pytest.mark.parametrize("name", scenes)
def test_operator(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)


async def test_tls(tmp_path: Path) -> None:
    """The listener ends TLS itself: https for the webhook, wss for the media."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    with (tmp_path / "cert.pem").open("wb") as chain:
        chain.writelines(pem.bytes() for pem in issued.cert_chain_pems)
    text = '[http]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n' + OFFLINE + GREETS
    context = trust(authority)
    async with house(tmp_path, text, network=Network(tls=context)) as here:
        assert here.address.startswith("https://127.0.0.1:")
        script = Script("hears", "", (WaitForAgentSpeech(500), HangUp()))
        result = await here.call(script, "greets")
        assert result.failure is None
        assert not result.violations
        assert (await here.row(result.call_sid))["reason"] == "caller_hangup"
        # Who does not speak TLS, or does not trust, costs nobody anything.
        plain = here.address.replace("https", "http") + VOICE
        outcome = await call(script, webhook_url=plain)
        assert outcome.failure is not None
        outcome = await call(script, webhook_url=here.webhook, network=Network(tls=trust(None)))
        assert outcome.failure is not None
        assert "TLS" in outcome.failure
        assert not here.tracebacks()


def trust(authority: trustme.CA | None) -> ssl.SSLContext:
    """What a client has that trusts this authority, or none that the daemon's is from."""
    context = ssl.create_default_context()
    if authority is not None:
        authority.configure_trust(context)
    return context
