"""`voiced demo`."""

from __future__ import annotations

from pathlib import Path

import click

NAMES = ("conversation", "greeting_cache", "digits", "failover", "pipeline", "tool")
"""Those of `voiced.demo.SCENARIOS`, which is not imported for `--help`; a test compares them."""


@click.command("demo")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("voiced-demo"),
    show_default=True,
    help="Where recordings, transcripts and timelines are left.",
)
@click.option(
    "--scenario",
    type=click.Choice(NAMES),
    default=NAMES[0],
    show_default=True,
    help="What is shown.",
)
@click.pass_context
def command(ctx: click.Context, directory: Path, scenario: str) -> None:
    """Call an agent on this machine over Twilio and over SIP, offline, and show what happens.

    Needs no account, key or network. Leaves call.wav, transcript.txt and timeline.json of the first
    call, and the same names with -sip of the second. Exit code 0 means that in both the caller
    heard the greeting, an answer, and silence at once when interrupting.

    Other scenarios show a greeting that is kept, keys, a model that is lost, a pipeline of three
    models, and a tool; each says what it has checked.
    """
    from voiced import demo

    ctx.exit(demo.main(directory, scenario))
