"""`voiced engines`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from voiced.commands.options import config_option


@click.command("engines")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
@config_option
def command(as_json: bool, config_path: Path | None) -> None:
    """Show how the model engines of the running daemon do."""
    import json

    from voiced.commands.client import connected

    with connected(config_path) as client:
        engines = client.get("/api/engines")["engines"]
    if as_json:
        click.echo(json.dumps({"engines": engines}, indent=2, ensure_ascii=False))
        return
    click.echo(_table(engines))


def _table(engines: list[dict[str, Any]]) -> str:
    from voiced.commands.tables import table

    states = {"closed": "yes", "half_open": "trying"}

    def used(engine: dict[str, Any], what: str, limit: str) -> str:
        if engine[limit] is None:
            return str(engine[what] or 0) if what == "sessions" else "no limit"
        return f"{engine[what]} of {engine[limit]}"

    return table(
        ("ENGINE", "ANSWERS", "SESSIONS", "ANSWERS A MINUTE", "LAST ERROR"),
        (
            (
                engine["name"],
                states.get(engine["state"], f"no, again in {engine['retry_in_s'] or 0:.0f} s"),
                used(engine, "sessions", "max_sessions"),
                used(engine, "requests", "requests_per_minute"),
                engine["last_error"] or "",
            )
            for engine in engines
        ),
    )
