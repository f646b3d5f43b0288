"""`voiced demo`: whole calls on this machine alone, to be watched, listened to and read.

Starts the daemon as its own process, offline, places the calls of a scenario over the Twilio wire
format and over SIP and RTP, prints a live timeline, and leaves of each a stereo recording, the
transcript and the timeline in a folder. The daemon's side of the timeline comes from its log, the
caller's side from what the caller heard.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import trio

from voiced.demo.held import Held
from voiced.demo.helper import Helper
from voiced.demo.scenarios import SCENARIOS, Place, Scenario
from voiced.demo.timeline import Timeline
from voiced.journal import Journal
from voiced.simulate import sip_caller
from voiced.simulate.caller import call
from voiced.simulate.report import trouble
from voiced.simulate.result import CallResult

__all__ = ["BUSY_MS", "WAITED_MS", "main", "waited_ms"]

START_LIMIT_S: Final = 60.0  # half a second where nothing else goes on
CALL_LIMIT_S: Final = 40.0
STOP_LIMIT_S: Final = 10.0

BUSY_MS: Final = 60.0  # what telephones hold back against a line's unevenness, and no more
WAITED_MS: Final = 500.0  # of a call of half a minute, in all; without another load a fraction

PRESSURE: Final = "pressure/cpu"

_LISTENERS: Final = """\
[daemon]
state_dir = "{state_dir}"
log_format = "json"
drain_s = 5

[http]
listen = "127.0.0.1:0"

[admin]
listen = "127.0.0.1:0"

[sip]
listen = ["udp://127.0.0.1:0"]

[[sip.trunk]]
name = "demo"
host = "127.0.0.1"
allow = ["127.0.0.1/32"]
options_s = 0
"""

_CARRIERS: Final = {"twilio": "Twilio", "sip": "SIP"}


class DemoFailed(Exception):
    """The demo could not be held; the text says why."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the daemon listens: an HTTP URL, and a SIP host and port."""

    http: str
    sip: str


@dataclass(slots=True)
class _Daemon:
    """The daemon's process, and all that it has logged."""

    process: trio.Process
    log: list[str] = field(default_factory=list)


def main(directory: Path = Path("voiced-demo"), scenario: str = "conversation") -> int:
    """Hold the demo; returns the exit code: 0 only if all that it shows was really heard."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass  # better known now than after the calls
    except OSError as error:
        why = f"cannot write to {directory}: {error.strerror}; name a folder with --directory"
        click.echo(f"voiced demo: {why}", err=True)
        return 1
    held: Sequence[Held] = ()
    chosen = SCENARIOS[scenario]
    try:
        held = trio.run(partial(_demo, directory, chosen))
    except* DemoFailed as group:
        for each in group.exceptions:
            click.echo(f"voiced demo: {each}", err=True)
    except* KeyboardInterrupt:
        click.echo("voiced demo: interrupted, nothing of it is kept", err=True)
    passed = bool(held)
    for each_call in held:
        passed = _judge(each_call, chosen) and passed
    if held:
        click.echo("\nCaller left, agent right in the recordings:")
        width = max(len(each_call.title) for each_call in held) + 1
        for each_call in held:
            names = ("call.wav", "transcript.txt", "timeline.json")
            files = [str(each_call.file(directory, name)) for name in names]
            click.echo(f"  {each_call.title + ':':<{width}} {', '.join(files)}")
    return 0 if passed else 1


def _judge(held: Held, scenario: Scenario) -> bool:
    """Say what was heard in a call, and whether that was all that should have been."""
    result = held.result
    checks = scenario.checks(held)
    click.echo(f"\n{held.title}:")
    for text, passed in checks.items():
        click.echo(f"  {'yes' if passed else 'NO '}  {text}")
    if result.failure:
        click.echo(f"  the call failed: {result.failure}")
    elif not result.ok:
        click.echo(f"  {trouble(result)}")
    passed = all(checks.values())
    if not passed and (kept := _kept_waiting(held)):
        click.echo(
            f"  this machine was busy: it kept {kept}, "
            "which can be heard; try again when it is quiet"
        )
    return passed


def _kept_waiting(held: Held) -> str:
    """Who had to wait for this machine, and for how long; empty if nobody did."""
    if held.result.lag_ms >= BUSY_MS:
        return f"the caller waiting for {held.result.lag_ms:.0f} ms"
    if held.waited_ms >= WAITED_MS:
        return f"programs waiting for a processor, for {held.waited_ms:.0f} ms in all"
    return ""


def waited_ms(pid: int) -> float:
    """For how long so far something that could have run had no processor; 0 where nobody tells.

    Anything on this machine (Linux, Documentation/accounting/psi.rst), or else the first thread of
    a process (Documentation/scheduler/sched-stats.rst).
    """
    for name, found, per_ms in (
        (PRESSURE, r"^some .*total=(\d+)", 1e3),
        (f"{pid}/schedstat", r"^\d+ (\d+)", 1e6),
    ):
        with suppress(OSError):
            told = re.search(found, Path("/proc", name).read_text("ascii"))
            if told is not None:
                return int(told[1]) / per_ms
    return 0.0


async def _demo(directory: Path, scenario: Scenario) -> list[Held]:
    timeline = Timeline(click.echo)
    held: list[Held] = []
    with tempfile.TemporaryDirectory(prefix="voiced-demo-") as state:
        async with trio.open_nursery() as nursery:
            helper = Helper()
            url = await nursery.start(helper.serve)
            if not await helper.reached():
                raise DemoFailed(
                    "this machine does not reach itself at 127.0.0.1; bring its loopback "
                    "interface up: ip link set lo up"
                )
            config = Path(state) / "voiced.toml"
            text = _LISTENERS.format(state_dir=state) + scenario.config.replace("{helper}", url)
            config.write_text(text, "utf-8")
            process = await trio.lowlevel.open_process(
                [sys.executable, "-P", "-m", "voiced", "run", "-c", str(config)],
                stderr=-1,
                stdin=-3,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            daemon = _Daemon(process)
            try:
                addresses = await nursery.start(_follow_log, daemon, timeline)
                for index, place in enumerate(scenario.calls):
                    title = f"{place.title} over {_CARRIERS[place.over]}"
                    timeline.begin(title)
                    before = waited_ms(process.pid)
                    result = await _place(place, addresses, timeline)
                    await timeline.call_ended()
                    each = Held(title, place.suffix, index, result, timeline.entries)
                    each.asked = tuple(helper.asked)
                    each.waited_ms = waited_ms(process.pid) - before
                    held.append(each)
            finally:
                with trio.move_on_after(STOP_LIMIT_S, shield=True):
                    await _stop(daemon.process, timeline)
                nursery.cancel_scope.cancel()
        try:
            await trio.to_thread.run_sync(_keep, held, Path(state), daemon.log, directory)
        except OSError as error:
            why = f"cannot write {error.filename or directory}: {error.strerror}"
            raise DemoFailed(why) from None
    for each in held:
        transcript = each.file(directory, "transcript.txt").read_text("utf-8")
        click.echo(f"\n{each.title}, what was said:\n{transcript}", nl=False)
    return held


async def _place(place: Place, addresses: Addresses, timeline: Timeline) -> CallResult:
    options: dict[str, Any] = {"observer": timeline.observe, "deadline_s": CALL_LIMIT_S}
    if place.over == "twilio":
        webhook = f"{addresses.http}/twilio/voice"
        return await call(place.script, webhook_url=webhook, to=place.number, **options)
    uri = f"sip:{place.number}@{addresses.sip}"
    return await sip_caller.call(place.script, uri=uri, **options)


def _keep(held: Sequence[Held], state_dir: Path, log: Sequence[str], directory: Path) -> None:
    """Leave what was heard, said and logged of each call."""
    with closing(Journal(state_dir)) as journal:
        rows = {row["carrier_call_id"]: row for row in journal.calls(100)}
    for each in held:
        each.row, each.log = rows.get(each.result.call_sid, {}), log
        each.result.write_wav(each.file(directory, "call.wav"))
        document = {"timeline": each.timeline, "call": each.result.to_json()}
        each.file(directory, "timeline.json").write_text(
            json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8"
        )
        each.file(directory, "transcript.txt").write_text(_transcript(each.row), "utf-8")


def _transcript(row: dict[str, Any]) -> str:
    """The conversation as the journal has it: what was heard, not what was generated."""
    return "".join(
        f"{entry['role']}: {entry['text']}{' —' if entry['cut'] else ''}\n"
        for entry in row.get("transcript") or ()
    )


async def _follow_log(
    daemon: _Daemon, timeline: Timeline, *, task_status: trio.TaskStatus[Addresses]
) -> None:
    """Read the daemon's log; the started value is where it listens."""
    assert daemon.process.stderr is not None
    waiting, sip, buffer, seen = True, "", b"", []
    with trio.CancelScope(deadline=trio.current_time() + START_LIMIT_S) as limit:
        async for data in daemon.process.stderr:
            *lines, buffer = (buffer + data).split(b"\n")
            for raw in lines:
                daemon.log.append(raw.decode("utf-8", "replace"))
                try:
                    line = json.loads(raw)
                except ValueError:
                    seen.append(daemon.log[-1])
                    continue
                if line.get("event") == "sip listening":
                    sip = line["addresses"][0].removeprefix("udp://")
                if waiting and line.get("event") == "listening":
                    waiting, limit.deadline = False, float("inf")
                    timeline.add("daemon", f"listens on {line['address']} and udp://{sip}")
                    task_status.started(Addresses(line["address"], sip))
                timeline.log_line(line)
    if waiting:
        raise DemoFailed("the daemon did not start: " + (" ".join(seen) or "it said nothing"))


async def _stop(daemon: trio.Process, timeline: Timeline) -> None:
    """SIGTERM, as an operator would; the call is over, so the daemon ends at once."""
    if daemon.returncode is None:
        daemon.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_LIMIT_S - 1):
            await daemon.wait()
    if daemon.returncode is None:
        daemon.kill()
        await daemon.wait()
    timeline.add("daemon", f"has stopped, exit code {daemon.returncode}")
