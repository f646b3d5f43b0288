"""Logs: one event, one line, JSON or text, on standard error (systemd keeps it).

What callers say, and secrets, are never logged above `debug` (requirements F, design 7).
"""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import structlog

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
    as_json = format_ == "json" or (format_ == "auto" and not stream.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=36)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info
            if as_json
            else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    # Libraries that log through the standard module (hypercorn, trio-websocket) speak up only when
    # something is wrong; their lines go the same way as ours.
    logging.basicConfig(stream=stream, level=logging.WARNING, format="%(levelname)s %(message)s")
