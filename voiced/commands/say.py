"""`voiced say`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from voiced.commands.options import call_argument, config_option


@click.command("say")
@call_argument
@click.argument("text")
@click.option("--tell", is_flag=True, help="TEXT is an instruction, not the words themselves.")
@config_option
def command(call: str, text: str, tell: bool, config_path: Path | None) -> None:
    """Have the agent say TEXT to the caller.

    With --tell the agent is told TEXT and finds its own words: "ask for the order number".
    CALL is a live call's id, the beginning of it, or "last".
    """
    if not text.strip():
        raise click.BadParameter("there is nothing to say", param_hint="TEXT")
    from voiced.commands.client import connected

    with connected(config_path) as client:
        done = client.do(call, "say", {"text": _utf8(text), "exactly": not tell})
    click.echo(f"{done['id']} told" if tell else f"{done['id']} says it")


def _utf8(text: str) -> str:
    """What was typed, whatever the locale took it for."""
    return os.fsencode(text).decode("utf-8", "replace")
