"""`voiced trunks`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from voiced.commands.options import config_option


@click.command("trunks")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts; banned sources too.")
@config_option
def command(as_json: bool, config_path: Path | None) -> None:
    """Show how the trunks of the running daemon fare."""
    import json

    from voiced.commands.client import connected

    with connected(config_path) as client:
        trunks = client.get("/api/trunks")["trunks"]
        bans = client.get("/api/bans")["bans"]
    if as_json:
        click.echo(json.dumps({"trunks": trunks, "bans": bans}, indent=2, ensure_ascii=False))
        return
    click.echo(_table(trunks) if trunks else "no trunks")
    if bans:
        click.echo(f"{len(bans)} banned: {', '.join(ban['source'] for ban in bans[:10])}")


def _table(trunks: list[dict[str, Any]]) -> str:
    from voiced.commands.tables import table

    head = ("TRUNK", "KIND", "REGISTRATION", "ANSWERS", "CALLS", "LAST ERROR")
    answers = {None: "not asked", True: "yes", False: "no"}
    return table(
        head,
        (
            (
                trunk["name"],
                trunk["kind"],
                trunk["registration"] or "none",
                answers[trunk["reachable"]],
                f"{trunk['calls']} of {trunk['max_calls']}"
                if trunk["max_calls"]
                else str(trunk["calls"]),
                trunk["last_error"] or "",
            )
            for trunk in trunks
        ),
    )
