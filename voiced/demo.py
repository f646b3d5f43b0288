"""`voiced demo`: two whole calls on this machine alone, to be watched, listened to and read.

Starts the daemon as its own process on the emulator, places a call with bundled speech over the
Twilio wire format and then one over SIP and RTP, prints a live timeline, and leaves of each a
stereo recording, the transcript and the timeline in a folder. The daemon's side of the timeline
comes from its log, the caller's side from what the caller heard.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import trio

from voiced.journal import Journal
from voiced.simulate import sip_caller
from voiced.simulate.caller import call
from voiced.simulate.events import (
    AgentStarted,
    AgentStopped,
    BufferCleared,
    CallerStarted,
    CallerStopped,
    CallEvent,
    HungUp,
    MediaStarted,
)
from voiced.simulate.report import trouble
from voiced.simulate.result import CallResult
from voiced.simulate.script import SCRIPTS

__all__ = ["main"]

START_LIMIT_S: Final = 15.0
CALL_LIMIT_S: Final = 25.0
ENDED_LIMIT_S: Final = 2.0  # from hanging up to the daemon's own word that the call is over
STOP_LIMIT_S: Final = 10.0

_CONFIG: Final = """\
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

[engine.offline]
kind = "emulator"

[agent.reception]
engine = "offline"
greeting_text = "Hello, this is the reception. How can I help you?"

[[number]]
match = "*"
agent = "reception"
"""


class DemoFailed(Exception):
    """The demo could not be held; the text says why."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the daemon listens: an HTTP URL, and a SIP host and port."""

    http: str
    sip: str


@dataclass(frozen=True, slots=True)
class Held:
    """A call of the demo's; `suffix` tells its files from those of the other."""

    over: str
    suffix: str
    result: CallResult

    def file(self, directory: Path, name: str) -> Path:
        """Where its file of that kind is."""
        stem, _, kind = name.partition(".")
        return directory / f"{stem}{self.suffix}.{kind}"


class Timeline:
    """Prints what happens as it happens, and keeps it."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo
        self._began = time.monotonic()
        self._call_ended = trio.Event()
        self.entries: list[dict[str, Any]] = []

    def begin(self, title: str) -> None:
        """Begin the timeline of another call."""
        self._echo(f"\n{title}")
        self._began, self.entries, self._call_ended = time.monotonic(), [], trio.Event()

    async def call_ended(self) -> None:
        """Wait for the daemon to say that the call is over; not for long."""
        with trio.move_on_after(ENDED_LIMIT_S):
            await self._call_ended.wait()

    def add(self, who: str, text: str, **facts: object) -> None:
        """Note something that happened now."""
        at_ms = round((time.monotonic() - self._began) * 1000)
        self.entries.append({"at_ms": at_ms, "who": who, "text": text, **facts})
        self._echo(f"{at_ms / 1000:7.2f} s  {who:<7}  {text}")

    def observe(self, event: CallEvent) -> None:
        """Note what the caller did or heard."""
        match event:
            case MediaStarted():
                self.add("line", "media flows")
            case AgentStarted():
                self.add("caller", "hears the agent")
            case AgentStopped(at_ms=end, started_ms=start, cut=cut):
                how = "is cut off" if cut else "has finished"
                self.add("caller", f"hears that the agent {how} ({(end - start) / 1000:.1f} s)")
            case CallerStarted(text=text, interrupting=interrupting):
                verb = "interrupts" if interrupting else "says"
                self.add("caller", f"{verb}: {text}")
            case CallerStopped():
                self.add("caller", "has spoken")
            case BufferCleared(discarded_ms=ms):
                self.add("line", f"play-out buffer cleared, {ms:.0f} ms thrown away")
            case HungUp(by=by):
                self.add("line", f"hung up by the {by}")
            case _:
                self.add("line", type(event).__name__, **asdict(event))

    def log_line(self, line: dict[str, Any]) -> None:
        """Note what the daemon says of itself."""
        match line.get("event"):
            case "call state":
                self.add("state", f"{line['previous']} → {line['state']}")
            case "model state":
                self.add("model", str(line["state"]))
            case "call ended":
                latency = line.get("answer_ms")
                self.add(
                    "state",
                    f"call ended: {line['reason']}, {line['duration_ms'] / 1000:.1f} s, greeting "
                    f"after {line['greeting_ms']} ms, {line['answers']} answers "
                    f"(median {latency} ms), {line['barge_ins']} barge-ins",
                    line=line,
                )
                self._call_ended.set()
            case _ if line.get("level") in ("warning", "error"):
                self.add("daemon", json.dumps(line, ensure_ascii=False))


def main(directory: Path = Path("voiced-demo")) -> int:
    """Hold the demo; returns the exit code: 0 only if all that it shows was really heard."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        click.echo(f"voiced demo: cannot write to {directory}: {error.strerror}", err=True)
        return 1
    held: Sequence[Held] = ()
    try:
        held = trio.run(partial(_demo, directory))
    except* DemoFailed as group:
        for each in group.exceptions:
            click.echo(f"voiced demo: {each}", err=True)
    passed = bool(held)
    for each_call in held:
        passed = _judge(each_call) and passed
    if held:
        click.echo("\nCaller left, agent right in both recordings:")
    for each_call in held:
        names = ("call.wav", "transcript.txt", "timeline.json")
        files = [str(each_call.file(directory, name)) for name in names]
        click.echo(f"  over {each_call.over + ':':<8} {', '.join(files)}")
    return 0 if passed else 1


def _judge(held: Held) -> bool:
    """Say what was heard in a call, and whether that was all that should have been."""
    result = held.result
    checks = {
        "the caller heard the greeting": result.heard_greeting(),
        "the caller heard an answer": result.heard_answer(),
        "the caller's interruption was heeded at once": result.clean_barge_in(),
        "nothing else went wrong": result.ok,
    }
    click.echo(f"\nOver {held.over}:")
    for text, passed in checks.items():
        click.echo(f"  {'yes' if passed else 'NO '}  {text}")
    if result.failure:
        click.echo(f"  the call failed: {result.failure}")
    elif not result.ok:
        click.echo(f"  {trouble(result)}")
    return all(checks.values())


async def _demo(directory: Path) -> list[Held]:
    timeline = Timeline(click.echo)
    held = []
    with tempfile.TemporaryDirectory(prefix="voiced-demo-") as state:
        config = Path(state) / "voiced.toml"
        config.write_text(_CONFIG.format(state_dir=state), "utf-8")
        async with trio.open_nursery() as nursery:
            daemon = await trio.lowlevel.open_process(
                [sys.executable, "-P", "-m", "voiced", "run", "-c", str(config)],
                stderr=-1,
                stdin=-3,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            try:
                addresses = await nursery.start(_follow_log, daemon, timeline)
                for over, suffix, place in _calls(addresses, timeline):
                    timeline.begin(f"A call over {over}")
                    result = await place()
                    await timeline.call_ended()
                    held.append(Held(over, suffix, result))
                    await trio.to_thread.run_sync(_write, held[-1], directory, timeline.entries)
            finally:
                with trio.move_on_after(STOP_LIMIT_S, shield=True):
                    await _stop(daemon, timeline)
                nursery.cancel_scope.cancel()
        for each in held:
            transcript = _transcript(Path(state), each.result.call_sid)
            each.file(directory, "transcript.txt").write_text(transcript, "utf-8")
            click.echo(f"\nWhat was said over {each.over}:\n{transcript}", nl=False)
    return held


def _calls(
    addresses: Addresses, timeline: Timeline
) -> list[tuple[str, str, Callable[[], Awaitable[CallResult]]]]:
    """The calls of the demo: over what, the suffix of its files, and how it is placed."""
    options: dict[str, Any] = {"observer": timeline.observe, "deadline_s": CALL_LIMIT_S}
    twilio, sip = SCRIPTS["conversation"], SCRIPTS["interruption"]
    webhook, uri = f"{addresses.http}/twilio/voice", f"sip:+15550100@{addresses.sip}"
    return [
        ("Twilio", "", partial(call, twilio, webhook_url=webhook, **options)),
        ("SIP", "-sip", partial(sip_caller.call, sip, uri=uri, **options)),
    ]


def _write(held: Held, directory: Path, entries: list[dict[str, Any]]) -> None:
    held.result.write_wav(held.file(directory, "call.wav"))
    document = {"timeline": entries, "call": held.result.to_json()}
    held.file(directory, "timeline.json").write_text(
        json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8"
    )


async def _follow_log(
    daemon: trio.Process, timeline: Timeline, *, task_status: trio.TaskStatus[Addresses]
) -> None:
    """Read the daemon's log; the started value is where it listens."""
    assert daemon.stderr is not None
    waiting, sip, buffer, seen = True, "", b"", []
    with trio.CancelScope(deadline=trio.current_time() + START_LIMIT_S) as limit:
        async for data in daemon.stderr:
            *lines, buffer = (buffer + data).split(b"\n")
            for raw in lines:
                try:
                    line = json.loads(raw)
                except ValueError:
                    seen.append(raw.decode("utf-8", "replace"))
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


def _transcript(state_dir: Path, call_sid: str) -> str:
    """The conversation as the journal has it: what was heard, not what was generated."""
    with closing(Journal(state_dir)) as journal:
        rows = [row for row in journal.calls(10) if row["carrier_call_id"] == call_sid]
    return "".join(
        f"{entry['role']}: {entry['text']}{' —' if entry['cut'] else ''}\n"
        for entry in (rows[0]["transcript"] if rows else ())
    )
