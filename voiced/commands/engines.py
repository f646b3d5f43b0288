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

    def used(engine: dict[str, Any], what: str, limit: str) -> str:
        if engine[limit] is None:
            return str(engine[what] or 0) if what == "sessions" else "no limit"
        return f"{engine[what]} of {engine[limit]}"

    return table(
        ("ENGINE", "ANSWERS", "SESSIONS", "ANSWERS A MINUTE", "LAST ERROR"),
        (
            (
                engine["name"],
                _answers(engine),
                used(engine, "sessions", "max_sessions"),
                used(engine, "requests", "requests_per_minute"),
                engine["last_error"] or "",
            )
            for engine in engines
        ),
    )


def _answers(engine: dict[str, Any]) -> str:
    """What is known of it, which before its first call is nothing."""
    match engine["state"]:
        case "half_open":
            return "trying"
        case "open":
            return f"no, again in {engine['retry_in_s'] or 0:.0f} s"
    if failures := engine["failures"]:
        return f"failed {failures} times" if failures > 1 else "failed once"
    return "yes" if engine.get("answered", True) else "not tried"
