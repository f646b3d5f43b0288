"""Logs: one event, one line, JSON or text, on standard error (systemd keeps it).

What callers say, and secrets, are never logged above `debug` (requirements F, design 7).
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, Literal, TextIO, cast

import msgspec
import structlog

from voiced.text import encodable

__all__ = ["configure"]

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    format_: Literal["auto", "json", "text"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Set up logging for the process.

    `auto` is text on a terminal and JSON elsewhere. `stream` is standard error by default.
    """
    stream = stream or sys.stderr
    if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
        # Whatever the locale: a log in which no one can say what is said is of no use.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if format_ == "json" or (format_ == "auto" and not stream.isatty()):
        processors += [structlog.processors.format_exc_info, _json_line]
    else:
        processors.append(structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=36))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Lossy(stream))),
        cache_logger_on_first_use=False,
    )
    # Libraries that log through the standard module (hypercorn, trio-websocket) speak up only when
    # something is wrong; their lines go the same way as ours.
    logging.basicConfig(stream=stream, level=logging.WARNING, format="%(levelname)s %(message)s")


class _Lossy:
    """A stream that loses what it cannot write.

    A disk may be full, a terminal closed, the program at a pipe's other end gone: a line less, and
    no call that ends because something is said of it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def _json_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """Render a line as JSON: when, how bad and what first, since people read logs too."""
    line = {name: event.pop(name, None) for name in ("timestamp", "level", "event")}
    whole = {**line, **event}
    try:
        return msgspec.json.encode(whole, enc_hook=repr).decode()
    except UnicodeEncodeError:  # peers' words need not be UTF-8, and no call must end for that
        return encodable(json.dumps(whole, ensure_ascii=False, default=repr))
