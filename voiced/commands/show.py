"""`voiced show`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from voiced.commands.options import call_argument, config_option


@click.command("show")
@call_argument
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
@config_option
def command(call: str, as_json: bool, config_path: Path | None) -> None:
    """Show a call, live or of the journal: who, how it went, what was said.

    CALL is its id, the beginning of it, or "last".
    """
    import json

    from voiced.commands.client import connected

    with connected(config_path) as client:
        shown = client.call(call)
    if as_json:
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join(_sections(shown)))


def _sections(call: dict[str, Any]) -> Iterator[str]:
    from voiced.commands.tables import pairs, printable

    yield pairs(_facts(call))
    for name in ("parameters", "facts", "statistics", "latencies", "usage"):
        values = call.get(name) or {}
        if values:
            items = ((key, _short(value)) for key, value in values.items())
            yield f"{name}\n{pairs(items, indent='  ')}"
    if states := call.get("states"):
        yield "states\n" + pairs(
            ((f"{ms / 1000:9.3f} s", state) for state, ms in states), indent="  "
        )
    if transcript := call.get("transcript"):
        lines = (
            f"  {item['role']}: {printable(item['text'])}{' —' if item['cut'] else ''}"
            for item in transcript
        )
        yield "conversation (— where it was cut)\n" + "\n".join(lines)


def _facts(call: dict[str, Any]) -> Iterator[tuple[str, object]]:
    from voiced.commands.tables import clock, duration

    yield "call", call["id"]
    if call["live"]:
        yield "state", f"{call['state']} since {clock(call['since'])}, model {call['model_state']}"
    else:
        yield "state", f"ended: {call['reason'] or 'unknown'}"
        if call.get("outcome"):
            yield "outcome", call["outcome"]
    trunk = f", trunk {call['trunk']}" if call.get("trunk") else ""
    yield "direction", f"{call['direction']} over {call['carrier']}{trunk}"
    yield "from", call["caller"]
    yield "to", call["called"]
    yield "agent", f"{call['agent']} on {call['engine']} ({call['model']})"
    yield "began", clock(call["started_at"])
    yield "duration", duration(call["duration_s"])
    if call.get("cost_usd") is not None:
        yield "cost", f"{call['cost_usd']:.4f} USD"
    yield "carrier id", call["carrier_call_id"]


def _short(value: object) -> object:
    """Lists on one line, fractions to four digits; --json has all of them."""
    if isinstance(value, list):
        return ", ".join(str(_short(each)) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else value
