"""`voiced greeting make`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from voiced.commands.options import config_option, mistakes_reported

if TYPE_CHECKING:
    from voiced.studio import Take


@click.group("greeting")
def command() -> None:
    """Have greetings ready before the first caller."""


@command.command("make")
@click.option("--agent", "names", multiple=True, metavar="NAME", help="Only this; repeatable.")
@config_option
def make(names: tuple[str, ...], config_path: Path | None) -> None:
    """Have the agents' models speak the greetings that greeting_cache keeps.

    One that is there already is not made again. Run it as the user that the daemon runs as, after
    every change of an agent; the running daemon finds them without a reload.
    """
    import trio

    from voiced import log as logging
    from voiced.config import load
    from voiced.plugin import PluginError
    from voiced.studio import greeters
    from voiced.studio import make as make_greetings

    with mistakes_reported():
        config = load(config_path).config
    logging.configure("warning", config.daemon.log_format)
    found = greeters(config)
    if not found:
        click.echo("no number has a plugin that keeps greetings: add [plugins.greeting_cache]")
        raise click.exceptions.Exit(1)
    for name in names:
        if name not in found:
            known = ", ".join(found)
            raise click.BadParameter(f"{name} keeps no greeting; {known} do", param_hint="--agent")
    wanted = []
    for name, why_not in found.items():
        if not names or name in names:
            if why_not is None:
                wanted.append(name)
            else:
                click.echo(f"{name}: not made, {why_not}")
    outcomes = set()

    def report(take: Take) -> None:
        outcomes.add(take.outcome)
        click.echo(_line(take))

    try:
        trio.run(make_greetings, config, wanted, report)
    except* (PluginError, ValueError, OSError) as group:
        outcomes.add("failed")
        for error in _each(group):
            click.echo(f"voiced greeting: {error}", err=True)
    if outcomes & {"refused", "failed"}:
        raise click.exceptions.Exit(1)


def _each(error: BaseException) -> Iterator[BaseException]:
    """What groups of groups are made of."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _each(each)
    else:
        yield error


def _line(take: Take) -> str:
    head = f"{take.agent}, {take.rate} Hz"
    words = f"{take.ms / 1000:.1f} s, “{take.text}”"
    match take.outcome:
        case "made":
            return f"{head}: made, {words}"
        case "known":
            return f"{head}: there already, {words}"
        case "refused":
            return f"{head}: not kept, {take.why}; {words}"
        case _:
            return f"{head}: failed, {take.why}"
