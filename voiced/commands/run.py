"""`voiced run`."""

from __future__ import annotations

from pathlib import Path

import click

from voiced.commands.options import config_option


@click.command("run")
@config_option
@click.pass_context
def command(ctx: click.Context, config_path: Path | None) -> None:
    """Answer calls until SIGTERM or Ctrl-C, then let live calls finish. SIGHUP reloads."""
    from voiced import daemon

    ctx.exit(daemon.main(config_path))
