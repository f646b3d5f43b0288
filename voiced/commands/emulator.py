"""`voiced emulator`."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Iterator
from functools import partial
from typing import get_args

import click
import msgspec
import trio

from voiced.config import parse_listen
from voiced.emulator.options import EmulatorOptions, Faults, OptionsError, parse_faults


def _choices(field: msgspec.structs.FieldInfo) -> str:
    """A fault's name, and its values where those are words: the first is the usual one."""
    words = [value for value in get_args(field.type) if isinstance(value, str)]
    return f"{field.name} ({'|'.join(words)})" if words else field.name


_FAULTS = textwrap.fill(
    ", ".join(map(_choices, msgspec.structs.fields(Faults))), 78, break_on_hyphens=False
)
_HELP = f"""\b
Faults:
{_FAULTS}

\b
dialect=beta speaks the interface of 2024: other names, a flat session, and
a handshake with `OpenAI-Beta: realtime=v1`.
unnamed_calls=true leaves `name` out of a function call's last event.
half_calls=N cuts the first N function calls half-way until they are cancelled.
order=... sends an answer's events as other servers do: created_late
(response.created behind the first delta), items_first (an item is done before
its parts are), items_late (it joins the conversation last), words_first and
words_last (the transcript before or behind the audio).
"""


@click.command("emulator", epilog=_HELP)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8090",
    show_default=True,
    help="Port 0 takes a free one.",
)
@click.option(
    "--speech",
    type=click.Choice(["auto", "espeak", "clips", "echo"]),
    default="auto",
    show_default=True,
    help="How it speaks: espeak-ng, bundled clips, or the caller's own words.",
)
@click.option("--api-key", help="Demanded of clients; any will do if it is left out.")
@click.option(
    "--fault", "faults", multiple=True, metavar="KEY=VALUE", help="A way to misbehave; repeatable."
)
def command(listen: str, speech: str, api_key: str | None, faults: tuple[str, ...]) -> None:
    """Serve the Realtime protocol offline until Ctrl-C, for trials and tests.

    Point a client at the URL that is printed; it needs no account and no network.
    """
    from voiced.emulator.server import serve

    try:
        host, port = parse_listen(listen)
    except ValueError as error:
        raise click.BadParameter(f"{listen} {error}", param_hint="--listen") from None
    try:
        options = EmulatorOptions(
            speech=speech,  # type: ignore[arg-type]  # click has checked it
            api_key=api_key,
            faults=parse_faults(dict(map(_fault, faults))),
        )
    except OptionsError as error:
        raise click.BadParameter(str(error), param_hint="--fault") from None

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            bound = await nursery.start(partial(serve, host, port, options))
            shown = f"[{host}]" if ":" in host else host
            click.echo(f"listening on ws://{shown}:{bound}/v1/realtime")

    failures: list[str] = []
    try:
        trio.run(run)
    except* OSError as group:
        failures += [
            f"cannot listen on {listen}: {error.strerror or error}; choose another --listen"
            for error in _leaves(group)
            if isinstance(error, OSError)
        ]
    except* OptionsError as group:
        failures += map(str, _leaves(group))
    except* KeyboardInterrupt:
        pass  # the usual end
    if failures:
        raise click.ClickException("\n".join(failures))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _fault(text: str) -> tuple[str, object]:
    """Read `KEY=VALUE`; the value as TOML, or as text where it is none."""
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text} has no value; write {text}=…", param_hint="--fault")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
