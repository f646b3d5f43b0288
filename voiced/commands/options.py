"""What several commands have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from voiced.config import ConfigError

__all__ = ["call_argument", "config_option", "mistakes_reported"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def config_option(function: _Function) -> _Function:
    """Add `-c FILE`, passed on as `config_path`."""
    # click is not asked whether the file exists: `load` says it in the same words as the rest.
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration; else $VOICED_CONFIG, else /etc/voiced/voiced.toml.",
    )(function)


def call_argument(function: _Function) -> _Function:
    """Add `CALL`: an id, the beginning of one, or `last`."""
    return click.argument("call", callback=_not_empty)(function)


def _not_empty(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.BadParameter("write a call's id, as voiced calls lists them")
    return value.strip()


@contextmanager
def mistakes_reported(*, err: bool = True) -> Iterator[None]:
    """Turn ConfigError into one line per mistake and exit code 1."""
    try:
        yield
    except ConfigError as error:
        for mistake in error.mistakes:
            click.echo(str(mistake), err=err)
        raise click.exceptions.Exit(1) from None
