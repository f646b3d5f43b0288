"""`voiced dial`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from voiced.commands.options import config_option

if TYPE_CHECKING:
    from voiced.commands.client import AdminClient

EXIT_CODES: Final = {
    "answered": 0,
    "busy": 3,
    "declined": 4,
    "no_answer": 5,
    "unreachable": 6,
    "timeout": 6,
}
"""By the outcome of a call that has ended (voiced/web/outcomes.py); any other: 1."""

BEGIN_S: Final = 90.0
"""For the daemon to begin the call: names to look up, a carrier's API that is asked repeatedly."""

POLL_S = 0.25

# A call's first row may be asked for before it is written, and its last one is written after the
# call has gone; the journal is a second behind at most. 10 s without either: it will not come.
MAX_MISSING: Final = 40


@click.command("dial")
@click.argument("target")
@click.option("--agent", help="The [agent.NAME] that talks.")
@click.option("--trunk", help='The [[sip.trunk]] to call through, or "twilio".')
@click.option("--from", "caller", help="The number to show.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="'X-NAME: VALUE'",
    help="A SIP header field to send; may be repeated.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(1, 600),
    default=60,
    show_default=True,
    help="Seconds that it may ring.",
)
@click.option("--machine-detection", is_flag=True, help="Ask Twilio whether a machine answered.")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Follow the call to its end."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
@config_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    target: str,
    headers: tuple[str, ...],
    wait: bool,
    as_json: bool,
    config_path: Path | None,
    **request: Any,
) -> None:
    """Call TARGET, a number or a SIP URI, and have an agent talk with whoever answers.

    Follows the call and exits with 0 once it was answered and has ended, 3 busy, 4 declined, 5 no
    answer, 6 unreachable, 1 anything else. With --no-wait: 0 as soon as it was begun.
    """
    import json

    body = {name: value for name, value in request.items() if value is not None}
    body |= {"to": target, "headers": dict(_header(text) for text in headers)}
    from voiced.commands.client import connected

    with connected(config_path) as client:
        call_id = client.post("/api/calls", body, timeout_s=BEGIN_S)["id"]
        if not as_json:
            click.echo(f"{call_id} dialling")
        if not wait:
            if as_json:
                click.echo(json.dumps({"id": call_id}))
            return
        try:
            call = _follow(client, call_id, quiet=as_json)
        except KeyboardInterrupt:
            click.echo(f"the call goes on; end it with: voiced hangup {call_id}", err=True)
            ctx.exit(1)
    if as_json:
        click.echo(json.dumps(call, indent=2, ensure_ascii=False))
    else:
        _say_end(call)
    ctx.exit(EXIT_CODES.get(call["outcome"], 1))


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.BadParameter(
            f"{text!r} is no header field; write 'X-Name: value'", param_hint="--header"
        )
    return name.strip(), value.strip()


def _follow(client: AdminClient, call_id: str, *, quiet: bool) -> dict[str, Any]:
    """Ask for the call until it has ended; returns its journal row."""
    from voiced.commands.client import AdminError
    from voiced.web.outcomes import ANSWERED_STATES

    answered, missing = quiet, 0
    while missing < MAX_MISSING:
        try:
            call = client.call(call_id)
        except AdminError as error:
            if error.code != "no_such_call":
                raise
            missing += 1
        else:
            if call["live"]:
                missing = 0
                if not answered and call["state"] in ANSWERED_STATES:
                    answered = True
                    click.echo(f"{call_id} answered")
            elif call["ended_at"] is not None:
                return call
            else:
                missing += 1
        time.sleep(POLL_S)
    raise AdminError(
        "odd",
        f"the call {call_id} is over and the journal does not say how it ended",
        "see the daemon's log",
    )


def _say_end(call: dict[str, Any]) -> None:
    from voiced.commands.tables import duration, printable

    if call["outcome"] == "answered":
        click.echo(f"{call['id']} ended after {duration(call['duration_s'])}: {call['reason']}")
        return
    outcome = str(call["outcome"]).replace("_", " ")
    reason = "" if call["reason"] == call["outcome"] else f" ({call['reason']})"
    click.echo(printable(f"{call['id']} {outcome}{reason}"), err=True)
