"""`voiced config`."""

from __future__ import annotations

from pathlib import Path

import click

from voiced.commands.options import config_option, mistakes_reported


@click.command("config")
@config_option
def command(config_path: Path | None) -> None:
    """Print the configuration in force as TOML: files, drop-ins and defaults, secrets hidden."""
    from voiced.config import load
    from voiced.config.render import render

    with mistakes_reported():
        loaded = load(config_path)
    sources = ", ".join(map(str, loaded.sources)) or "no file: these are the defaults"
    click.echo(f"# from {sources}" if loaded.sources else f"# {sources}")
    click.echo(render(loaded.config), nl=False)
