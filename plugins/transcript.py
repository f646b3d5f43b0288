"""Writes down what is said, one file a call: JSON lines, a text to read, or both.

    [plugins.transcript]
    folder = "/srv/transcripts"
    keep_days = 90

`….jsonl` grows while the call lasts, a line with each sentence, and is whole at any moment, after a
crash too. `….txt` is written at the end and has the conversation as it was heard. Their places are
facts of the call: `transcript_jsonl` and `transcript_text`. Keys that callers press are in neither.

The lines, by `type`: `call` (the first; who, whom, when), `words` (of one `item_id`; with `final`
all that was said, with `cut` what was heard of it; `at_ms` since audio began) and `end` (why, how
long, and `heard`, the conversation as in the text).
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import trio
from msgspec import Meta
from voiced_plugins import _papers, _shelf
from voiced_plugins._keeping import MIB, Keeper, KeptSettings

from voiced.plugin import Plugin, Summary, Words

__all__ = ["Transcript", "TranscriptSettings", "Transcripts"]

PIECES_S: Final = 1.0
"""Pieces of sentences are written together; a thread for each would cost more than they do."""

_Result = TypeVar("_Result")


class TranscriptSettings(KeptSettings, frozen=True):
    """What is in transcripts, where they go, and how long they stay."""

    format: Literal["both", "jsonl", "text"] = "both"
    """`jsonl`: a line with each sentence as it is said; `text`: to read, when the call is over."""
    pieces: bool = False
    """In JSON lines also the words of unfinished sentences, as they become known."""
    caller_label: str = "Caller"
    """What the text calls the caller."""
    agent_label: str = "Agent"
    """What the text calls the agent."""
    max_mb: Annotated[int, Meta(ge=1, le=1000)] = 16
    """The largest file, in MiB; what is said beyond it has no line, but for the last one's \
`heard`."""


class Transcripts(Keeper):
    """The folder of transcripts."""

    config: TranscriptSettings
    kept = "transcripts"

    def files(self) -> Iterator[Path]:
        """All that are ours, begun ones too."""
        return _papers.papers(self.folder)


class Transcript(Plugin):
    """Writes down one call."""

    Config = TranscriptSettings
    Service = Transcripts
    config: TranscriptSettings
    service: Transcripts

    def __init__(self, call: Any, config: Any, service: Any) -> None:
        super().__init__(call, config, service)
        self._paper: _papers.Paper | None = None
        # What is not written yet. Whoever is cancelled while it waits for a thread leaves it to
        # the next. At most a second of pieces; a call with more is left out by its failures.
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes of all that was taken
        self._full = self._failed = False
        self._lock = threading.Lock()  # one thread at a time
        self._written_at = -PIECES_S
        self._name = ""

    async def on_transcript(self, words: Words) -> None:
        """Write down what was said."""
        if self.config.format == "text" or not (words.final or self.config.pieces):
            return
        call = self.call
        at_ms = call.media_ms
        if not self._size:
            self._take({"voiced": "transcript", "type": "call", "at": time.time(), **self._facts()})
        self._take(
            {
                "type": "words",
                "role": words.role,
                "item_id": words.item_id,
                "text": words.text,
                "final": words.final,
                "cut": words.cut,
                "at_ms": at_ms,
            }
        )
        if words.final or trio.current_time() - self._written_at >= PIECES_S:
            await self._write()

    async def on_call_end(self, summary: Summary) -> None:
        """Write the rest, and say where it is."""
        config = self.config
        if self._size:
            self._take(
                {
                    "type": "end",
                    "reason": summary.reason,
                    "duration_ms": summary.duration_ms,
                    "media_ms": summary.media_ms,
                    "heard": [
                        {"role": line.role, "text": line.text, "cut": line.cut}
                        for line in summary.transcript
                    ],
                },
                last=True,
            )
            await self._write()
            await self._end()
        if config.format != "jsonl" and summary.transcript and config.keep_days != 0:
            text = self._text(summary)
            try:
                path = await self._in_thread(
                    partial(_papers.write_text, self.service.folder, self._stem(), text)
                )
            except OSError as error:
                self.call.log.error("transcript not written", error=str(error))
                return
            self.call.set_fact("transcript_text", str(path))

    async def _end(self) -> None:
        try:
            path: Path | None = await self._in_thread(self._close)
        except OSError as error:
            self.call.log.error("transcript not removed", error=str(error))
            return
        if path is not None:
            self.call.set_fact("transcript_jsonl", str(path))

    # ---- lines ----

    def _facts(self) -> dict[str, str]:
        names = ("call_id", "carrier", "carrier_call_id", "direction", "caller", "called", "agent")
        return {name: str(getattr(self.call, name)) for name in names}

    def _stem(self) -> str:
        if not self._name:
            self._name = _shelf.fill(self.config.pattern, self._facts(), self.call.started_at)
        return self._name

    def _take(self, line: Mapping[str, Any], *, last: bool = False) -> None:
        if self._failed or (self._full and not last):
            return
        # What a model says need not be UTF-8.
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"
        data = text.encode("utf-8", "replace")
        if self._size + len(data) > self.config.max_mb * MIB and not last:
            self._full = True
            self.call.log.warning("transcript is full", max_mb=self.config.max_mb)
            return
        self._size += len(data)
        self._waiting.append(data)

    def _text(self, summary: Summary) -> bytes:
        config, facts = self.config, self._facts()
        labels = {"caller": config.caller_label, "agent": config.agent_label}
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(summary.started_at))
        lines = [
            f"Transcript of call {facts['call_id']}",
            f"{_plain(facts['caller'])} to {_plain(facts['called'])}, {facts['direction']}, "
            f"{facts['carrier']}, answered by {facts['agent']}",
            f"{began} UTC, {summary.duration_ms / 1000:.0f} s, {summary.reason}",
            "",
        ]
        lines += [
            f"{labels[line.role]}: {_plain(line.text)}{' —' if line.cut else ''}"
            for line in summary.transcript
        ]
        return ("\n".join(lines) + "\n").encode("utf-8", "replace")[: config.max_mb * MIB]

    # ---- the disk ----

    async def _write(self) -> None:
        self._written_at = trio.current_time()
        try:
            await self._in_thread(self._append)
        except OSError as error:
            self.call.log.error("transcript not written", error=str(error))

    async def _in_thread(self, function: Callable[[], _Result]) -> _Result:
        return await trio.to_thread.run_sync(
            function, abandon_on_cancel=True, limiter=self.service.limiter
        )

    # ---- in a thread ----

    def _append(self) -> None:
        with self._lock:
            while self._waiting and not self._failed:
                line = self._waiting.popleft()
                try:
                    if self._paper is None:
                        self._paper = _papers.Paper(self.service.folder, self._stem(), line)
                    else:
                        self._paper.append(line)
                except OSError:
                    self._failed = True  # a file with a hole would not be a transcript
                    raise

    def _close(self) -> Path | None:
        """Where the file is, if there is one that stays. Raises OSError."""
        with self._lock:
            paper, self._paper = self._paper, None
            if paper is None:
                return None
            paper.close()
            if self.config.keep_days != 0:
                return paper.path
            _shelf.remove(paper.path, self.service.folder)
            return None


def _plain(text: str) -> str:
    """One line without what controls a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
