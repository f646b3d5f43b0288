"""`plugins/REFERENCE.md`, of the plugins that come with voiced, made from their types.

python -m voiced.hooks.reference > plugins/REFERENCE.md
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Final

from voiced.config.reference import rows_of, tables_below
from voiced.hooks.registry import Registry
from voiced.hooks.shape import overridden
from voiced.plugin import Plugin

__all__ = ["bundled", "reference", "undocumented"]

_INTRODUCTION: Final = """\
# The plugins that come with voiced

This page is made from their types; `voiced plugins NAME` shows the same of one. A table
`[plugins.NAME]` switches a plugin on; [README.md](README.md) says how to write one.

All of them can be tried without a telephone, an account or a network: with an agent on the emulator
(`engine = "offline"`, the default), `voiced run`, and from another terminal `voiced simulate`, with
`--sip` over SIP. `--script digits` presses 1, 2 and #. The emulator calls a tool when the caller's
words share some with its name or description: those of `--script conversation` ask for opening
hours, and say goodbye. `voiced show last` has what the plugins noted of the call.
"""


def bundled() -> Iterator[tuple[str, type[Plugin]]]:
    """Each of them: its name and its class."""
    registry = Registry()
    for each in registry:
        if each.source == "bundled":
            yield each.kind, registry.load(each.kind)


def reference() -> str:
    """Write the page."""
    return "\n".join([_INTRODUCTION, *(_section(name, plugin) for name, plugin in bundled())])


def undocumented(name: str, plugin: type[Plugin]) -> list[str]:
    """Keys of a plugin's tables that have no string under them."""
    return [
        f"{title} {row[0]}"
        for title, table in tables_below(plugin.Config, f"[plugins.{name}]")
        for row in rows_of(table)
        if not row[3].strip()
    ]


def _section(name: str, plugin: type[Plugin]) -> str:
    words = inspect.cleandoc(getattr(inspect.getmodule(plugin), "__doc__", None) or "")
    lines = [f"## `{name}`", "", words, "", f"Hooks: {', '.join(sorted(overridden(plugin)))}."]
    for title, table in tables_below(plugin.Config, f"[plugins.{name}]"):
        rows = list(rows_of(table))
        if rows:
            lines += ["", f"### `{title}`", ""]
            lines += ["| Key | Value | Default | Meaning |", "| --- | --- | --- | --- |"]
            lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.stdout.write(reference())
