"""`voiced init`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click


@click.command("init")
@click.argument("path", type=click.Path(path_type=Path), default=Path("voiced.toml"))
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
def command(path: Path, *, force: bool) -> None:
    """Write a configuration to start from to PATH (voiced.toml).

    It runs as it is, on the emulator; OpenAI and Twilio stand in it as comments. Secrets are
    named there by file or environment variable, so that it need not be hidden itself.
    """
    text = resources.files("voiced").joinpath("starting.toml").read_text("utf-8")
    try:
        path = path / "voiced.toml" if path.is_dir() else path
        if path.exists() and not force:
            raise click.ClickException(f"{path} is there already; replace it with --force")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"{path} cannot be written: {reason}; name another path"
        raise click.ClickException(message) from None
    click.echo(f"wrote {path}; next: voiced check -c {path}, voiced run -c {path}")
