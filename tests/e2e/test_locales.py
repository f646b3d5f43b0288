"""The daemon as a process whose locale knows ASCII alone, operated by commands that know no more.

What callers and agents say, in any script, is in its log, its journal and on the terminal.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e.house import SOON_S, VOICE
from tests.e2e.test_operator import START_S, Daemon, running
from voiced import clips
from voiced.journal import FILE_NAME
from voiced.simulate import Script, call
from voiced.simulate.script import (
    Pause,
    Say,
    WaitForAgentSilence,
    WaitForAgentSpeech,
)

POSIX = {"LANG": "C"}
STUBBORN = {"LC_ALL": "POSIX"}
NAME = "DANIŞMA 受付 İığüş"
TOLD = "Müşteri numarasını sor: 髙橋さん İIıi"
WORDS = {
    name: clips.load(name).text
    for name in ("greeting_tr", "hours_ja", "opening_hours_ja", "goodbye_tr")
}


def configuration(folder: Path, format_: str) -> Path:
    folder.mkdir()
    quoted = partial(json.dumps, ensure_ascii=False)
    file = folder / "voiced.toml"
    file.write_text(
        f"""
[daemon]
state_dir = "{folder}/state"
log_level = "debug"
log_format = "{format_}"
[http]
listen = "127.0.0.1:0"
[admin]
listen = "unix:{folder}/admin"
[engine.offline]
kind = "emulator"
speech = "clips"
[agent.{quoted(NAME)}]
engine = "offline"
language = "tr"
greeting_text = {quoted(WORDS["greeting_tr"])}
instructions = {quoted(TOLD)}
[plugins.transcript]
[[number]]
match = "*"
agent = {quoted(NAME)}
""",
        "utf-8",
    )
    return file


def environment(locale: Mapping[str, str]) -> dict[str, str]:
    """Ours, but for the locale."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LC_", "LANG", "PYTHON"))
    }
    return {**kept, **locale}


async def command(file: Path, locale: Mapping[str, str], *words: str) -> str:
    """What a command prints."""
    done = await trio.run_process(
        [sys.executable, "-m", "voiced", *words, "-c", str(file)],
        env=environment(locale),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.returncode == 0, (words, done.stderr.decode())
    return done.stdout.decode(locale.get("PYTHONIOENCODING", "utf-8"))


async def webhook(daemon: Daemon) -> str:
    """Where the daemon listens, in whatever format its log is."""
    with trio.fail_after(START_S):
        while True:
            for line in daemon.lines:
                if "listening" in line and (found := re.search(r"http://[0-9.:]+", line)):
                    return found[0] + VOICE
            await trio.sleep(0.05)


HEARS = (WaitForAgentSpeech(300), WaitForAgentSilence(1500))


async def all_is_heard(ask: Callable[..., Awaitable[str]]) -> None:
    """Wait until what is in the last call's transcript was said to its end."""
    with trio.fail_after(4 * SOON_S):
        while json.loads(await ask("show", "last", "--json"))["state"] != "listening":
            await trio.sleep(0.5)


async def operated(daemon: Daemon, ask: Callable[..., Awaitable[str]]) -> None:
    """A call into which an operator speaks."""
    steps = (*HEARS, Say("hours_ja"), *HEARS, *HEARS, *HEARS, Pause(30_000))

    async def holds() -> None:
        script = Script("operated", "", steps)
        result = await call(script, webhook_url=await webhook(daemon), to="+15550100")
        assert result.ended_by == "agent", result.failure

    def said(words: str) -> bool:
        return any(words in line for line in daemon.lines)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(holds)
        with trio.fail_after(4 * SOON_S):
            while not said(WORDS["hours_ja"]):
                await trio.sleep(0.05)
            while WORDS["opening_hours_ja"] not in await ask("show", "last", "--json"):
                await trio.sleep(0.5)
        await ask("say", "last", WORDS["goodbye_tr"])
        await ask("say", "--tell", "last", TOLD)
        live = await ask("calls")
        assert NAME in live
        with trio.fail_after(4 * SOON_S):
            while WORDS["goodbye_tr"] not in await ask("show", "last"):
                await trio.sleep(0.5)
        await all_is_heard(ask)
        await ask("hangup", "last")


@pytest.mark.parametrize(
    ("locale", "format_"), [(POSIX, "json"), (STUBBORN, "text")], ids=["json", "text"]
)
async def test_a_daemon_that_knows_ascii_alone(
    tmp_path: Path, locale: Mapping[str, str], format_: str
) -> None:
    file = configuration(tmp_path / NAME.split()[0], format_)
    ask = partial(command, file, locale)
    async with running(file, environment(locale)) as daemon:
        await operated(daemon, ask)
        shown = await ask("show", "last")
        for words in (WORDS["greeting_tr"], WORDS["hours_ja"], WORDS["goodbye_tr"]):
            assert words in shown
        assert NAME in await ask("calls", "--all")
        assert NAME in await ask("config")
        await ask("check")
    log = "\n".join(daemon.lines)
    assert "\\u" not in log
    for words in (NAME, *(WORDS[name] for name in ("greeting_tr", "hours_ja", "goodbye_tr"))):
        assert words in log
    with closing(sqlite3.connect(daemon.state_dir / FILE_NAME)) as journal:
        ((kept,),) = journal.execute("SELECT transcript FROM call").fetchall()
    assert WORDS["opening_hours_ja"] in kept  # as it is, for other programs that read the table
    (paper,) = daemon.state_dir.rglob("*.txt")
    assert WORDS["hours_ja"] in paper.read_text("utf-8")


LATIN_5 = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "iso8859-9",
}
"""An old Turkish locale, on a machine that need not have one."""


async def test_a_locale_with_eight_bits_costs_no_word(tmp_path: Path) -> None:
    """Nor a file: the log and the names on the disk are UTF-8 all the same.

    Commands escape what their terminal cannot show.
    """
    file = configuration(tmp_path / "ı受", "json")
    ask = partial(command, file, LATIN_5)
    async with running(file, environment(LATIN_5)) as daemon, trio.open_nursery() as nursery:
        script = Script("ascii", "", (*HEARS, Pause(60_000)))
        url = await webhook(daemon)
        nursery.start_soon(partial(call, script, webhook_url=url, to="+15550100"))
        with trio.fail_after(4 * SOON_S):
            while True:
                calls = json.loads(await ask("calls", "--json"))
                shown = await ask("show", "last", "--json") if calls else "{}"
                if json.loads(shown).get("transcript"):
                    break
                await trio.sleep(0.5)
        assert json.loads(shown)["agent"] == NAME
        await ask("say", "last", WORDS["goodbye_tr"])
        with trio.fail_after(4 * SOON_S):
            while WORDS["goodbye_tr"] not in (
                line["text"]
                for line in json.loads(await ask("show", "last", "--json"))["transcript"]
            ):
                await trio.sleep(0.5)
        assert NAME.replace("受付", ascii("受付")[1:-1]) in await ask("calls")
        await all_is_heard(ask)
        await ask("hangup", "last")
    assert NAME in "\n".join(daemon.lines)
    (paper,) = daemon.state_dir.rglob("*.txt")
    assert WORDS["goodbye_tr"] in paper.read_text("utf-8")
