"""`voiced calls`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from voiced.commands.options import config_option


@click.command("calls")
@click.option("--all", "all_", is_flag=True, help="Calls of the journal too.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many of the journal.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
@config_option
def command(all_: bool, limit: int, as_json: bool, config_path: Path | None) -> None:
    """List the live calls of the running daemon, the newest first."""
    import json

    from voiced.commands.client import connected

    with connected(config_path) as client:
        query: dict[str, int] = {"all": 1, "limit": limit} if all_ else {}
        calls = client.get("/api/calls", **query)["calls"]
    if as_json:
        click.echo(json.dumps(calls, indent=2, ensure_ascii=False))
    elif calls:
        click.echo(_table(calls))
    else:
        click.echo("no calls" if all_ else "no live calls")


def _table(calls: list[dict[str, Any]]) -> str:
    from voiced.commands.tables import clock, duration, table

    head = ("CALL", "BEGAN", "DIRECTION", "FROM", "TO", "AGENT", "STATE", "TIME", "USD")
    return table(
        head,
        (
            (
                call["id"],
                clock(call["started_at"]),
                call["direction"],
                call["caller"],
                call["called"],
                call["agent"],
                call["state"] if call["live"] else f"ended: {call['reason'] or 'unknown'}",
                duration(call["duration_s"]),
                "" if call["cost_usd"] is None else f"{call['cost_usd']:.4f}",
            )
            for call in calls
        ),
    )
