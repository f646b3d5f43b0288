"""What happens in a call of the demo, as it happens: of the caller's side and of the daemon's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
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
                self.add("caller", "presses a key", digit=digit)
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
