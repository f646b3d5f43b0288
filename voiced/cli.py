"""The `voiced` command. Exit codes: 0 done, 1 the thing failed, 2 usage.

`voiced --help` imports no command: a name and a sentence stand here, the rest in `commands/`.
"""

from __future__ import annotations

import difflib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click

from voiced import __version__

__all__ = ["main"]

_COMMANDS: Final = {
    "run": "Answer calls.",
    "check": "Check the configuration and say what would run.",
    "init": "Write a configuration to start from.",
    "plugins": "List plugins and their settings, or write a new one.",
    "config": "Print the configuration in force, secrets hidden.",
    "greeting": "Have the agents' greetings made before the first caller.",
    "recording": "Open recordings that were sealed.",
    "calls": "List the calls of the running daemon.",
    "trunks": "Show how the trunks of the running daemon fare.",
    "engines": "Show how the model engines of the running daemon do.",
    "show": "Show one call, live or of the journal.",
    "dial": "Call somebody and have an agent talk with them.",
    "say": "Have the agent say something in a live call.",
    "transfer": "Hand a live call over to somebody else.",
    "hangup": "End a live call.",
    "demo": "Place a call to an agent on this machine, offline, and show what happens.",
    "simulate": "Place simulated calls to a running daemon.",
    "emulator": "Serve the Realtime protocol offline, for trials and tests.",
}


class _LazyGroup(click.Group):
    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run the command in `args`, None: in those of the process, which is ours alone then."""
        if args is None:
            _with_utf8_names()
        return super().main(args, *more, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"voiced.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else "see voiced --help"
            ctx.fail(f"there is no command {args[0]}; {hint}")
        return super().resolve_command(ctx, args)


def _with_utf8_names() -> None:
    """Begin anew in the UTF-8 mode of Python (PEP 540) where files' names would be something else.

    Those in a configuration are UTF-8, as on most disks, in any locale; the terminal keeps its own.
    The process stays the same one, as systemd wants it.
    """
    if sys.getfilesystemencoding() == "utf-8" or "utf8" in sys._xoptions:
        return
    if not sys.executable or getattr(sys, "frozen", False):  # no interpreter that takes an option
        return
    terminal = getattr(sys.stdout, "encoding", None) or "utf-8"
    environ = {"PYTHONIOENCODING": terminal, **os.environ}
    arguments = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    os.execve(sys.executable, arguments, environ)  # noqa: S606


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A telephone daemon for speech-to-speech models.",
)
@click.version_option(__version__, "-V", "--version", message="voiced %(version)s")
def main() -> None:
    """Run the command that is named next."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal of another locale cannot show is no reason to show nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
