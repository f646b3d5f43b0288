"""Tools of a plugin, whose names another one may have taken before."""

from __future__ import annotations

from collections.abc import Iterable

from voiced.plugin import Call, Tool

__all__ = ["offer"]


def offer(call: Call, tools: Iterable[Tool]) -> None:
    """Let the model call them; one that cannot be is left out, with a line in the log."""
    for tool in tools:
        try:
            call.register_tool(tool)
        except ValueError as error:  # another table's, or another plugin's, has the name
            call.log.error("tool left out", tool=tool.name, why=str(error))
