"""`voiced hangup`."""

from __future__ import annotations

from pathlib import Path

import click

from voiced.commands.options import call_argument, config_option


@click.command("hangup")
@call_argument
@config_option
def command(call: str, config_path: Path | None) -> None:
    """End a live call at once.

    CALL is its id, the beginning of it, or "last".
    """
    from voiced.commands.client import connected

    with connected(config_path) as client:
        done = client.do(call, "hangup", {})
    click.echo(f"{done['id']} hung up")
