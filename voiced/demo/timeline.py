"""What happens in a call of the demo, as it happens: of the caller's side and of the daemon's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Final

import trio

from voiced.simulate.events import (
    AgentStarted,
    AgentStopped,
    BufferCleared,
    CallerStarted,
    CallerStopped,
    CallEvent,
    DigitPressed,
    HungUp,
    MediaStarted,
)

__all__ = ["Timeline"]

ENDED_LIMIT_S: Final = 2.0  # from hanging up to the daemon's own word that the call is over


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
            case DigitPressed(digit=digit):
                self.add("caller", f"presses {digit}" if digit else "presses a secret key")
            case _:
                facts = asdict(event)
                facts["media_ms"] = facts.pop("at_ms")  # on the line's own clock
                self.add("line", type(event).__name__, **facts)

    def log_line(self, line: dict[str, Any]) -> None:
        """Note what the daemon says of itself."""
        match line.get("event"):
            case "call state":
                self.add("state", f"{line['previous']} → {line['state']}")
            case "model state":
                self.add("model", str(line["state"]))
            case "tool called":
                self.add("model", f"called {line['tool']}: {line['outcome']}, {line['ms']} ms")
            case "call ended":
                self.add("state", f"call ended: {', '.join(_summary(line))}", line=line)
                self._call_ended.set()
            case _ if line.get("level") in ("warning", "error"):
                self.add("daemon", _complaint(line), line=line)


def _summary(line: dict[str, Any]) -> Iterator[str]:
    """What the daemon says at a call's end, for people."""
    yield line["reason"]
    yield f"{line['duration_ms'] / 1000:.1f} s"
    if line["greeting_ms"] is not None:
        yield f"greeting after {line['greeting_ms']} ms"
    median = "" if line["answer_ms"] is None else f" (median {line['answer_ms']} ms)"
    yield _counted(line["answers"], "answer") + median
    yield _counted(line["barge_ins"], "interruption")


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _complaint(line: dict[str, Any]) -> str:
    """A warning or an error of the daemon: the event, and whatever stands beside it."""
    known = ("timestamp", "level", "event", "call")
    more = [
        name if value is True else f"{name} {value}"
        for name, value in line.items()
        if name not in known and value not in (None, False, "")
    ]
    return f"{line['event']}{': ' if more else ''}{', '.join(more)}"
