"""`voiced transfer`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from voiced.commands.options import call_argument, config_option

TIMEOUT_S: Final = 150.0
"""The daemon waits about a minute for what becomes of a transfer, on some trunks longer."""


@click.command("transfer")
@call_argument
@click.argument("target")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
@config_option
@click.pass_context
def command(
    ctx: click.Context, call: str, target: str, as_json: bool, config_path: Path | None
) -> None:
    """Hand the caller of a live call over to TARGET, a number or a SIP URI.

    Waits for what becomes of it; exit code 0 means that the other side took the call. CALL is its
    id, the beginning of it, or "last".
    """
    import json

    from voiced.commands.client import connected
    from voiced.commands.tables import printable

    with connected(config_path) as client:
        result = client.do(call, "transfer", {"to": target}, timeout_s=TIMEOUT_S)
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
    else:
        status = f"{result['status']} " if result.get("status") else ""
        why = f": {status}{result.get('text') or ''}".rstrip(" :")
        word = "transferred" if result["done"] else "not transferred"
        click.echo(printable(f"{result['id']} {word}{why}"), err=not result["done"])
    ctx.exit(0 if result["done"] else 1)
