"""`voiced demo`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("demo")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("voiced-demo"),
    show_default=True,
    help="Where the recording, the transcript and the timeline are left.",
)
@click.pass_context
def command(ctx: click.Context, directory: Path) -> None:
    """Place a call to an agent on this machine, offline, and show what happens.

    Needs no account, key or network. Exit code 0 means that the caller heard the greeting, an
    answer, and silence at once when interrupting.
    """
    from voiced import demo

    ctx.exit(demo.main(directory))
