"""`voiced simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from voiced.simulate.script import SCRIPTS


@click.command("simulate")
@click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="The daemon, or its voice webhook.",
)
@click.option(
    "--sip",
    metavar="URI",
    help="Call over SIP and RTP instead, e.g. sip:+15550100@127.0.0.1:5060 (;transport=tcp).",
)
@click.option("--username", help="Answers a SIP server's challenge; with --password.")
@click.option("--password", envvar="SIP_PASSWORD", help="Better given as $SIP_PASSWORD.")
@click.option(
    "--codecs", default="pcmu,pcma", show_default=True, help="Offered over SIP, best first."
)
@click.option("-n", "--calls", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Calls at a time."
)
@click.option(
    "--script",
    type=click.Choice(list(SCRIPTS)),
    default="conversation",
    show_default=True,
    help="What callers do.",
)
@click.option("--to", default="+15550100", show_default=True, help="The called number.")
@click.option("--from", "from_", default="+15550199", show_default=True, help="The caller's.")
@click.option(
    "--auth-token",
    envvar="TWILIO_AUTH_TOKEN",
    help="Signs requests as Twilio does; better given as $TWILIO_AUTH_TOKEN.",
)
@click.option("--public-url", help="The daemon's public_url, where --url differs from it.")
@click.option(
    "--network-delay-ms", type=click.FloatRange(0), default=0, help="Added to messages, each way."
)
@click.option("--jitter-ms", type=click.FloatRange(0), default=0, help="At most so much more.")
@click.option(
    "--echo-db",
    type=float,
    help="The callers' telephones return what they play, so loud beside it: -15. Off by default.",
)
@click.option("--echo-ms", type=int, help="So much later (120), 0 to 1000; with --echo-db.")
@click.option(
    "--stagger-ms",
    type=click.FloatRange(0),
    default=100,
    show_default=True,
    help="Between the starts of two calls.",
)
@click.option(
    "--deadline-s",
    type=click.FloatRange(0, min_open=True),
    default=120,
    show_default=True,
    help="A call is broken off after so long.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the jitter.")
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path),
    help="Certificates to trust instead of the system's.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Where the results of all calls are written; - for standard output.",
)
@click.option(
    "--wav-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where a recording of each call is written.",
)
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Place simulated calls to a running daemon, over the Twilio wire format or over SIP.

    Exit code 0 means that all of them went well.
    """
    from voiced.simulate.main import main

    ctx.exit(main(**options))
