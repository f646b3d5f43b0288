"""`voiced recording decrypt`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from voiced.regular import open_regular


@click.group("recording")
def command() -> None:
    """Open recordings that the plugin `recorder` has sealed (`encrypt_to`)."""


_KEYS = """\b
A pair of keys is made with
  openssl genpkey -algorithm x25519 -out private.pem
  openssl pkey -in private.pem -pubout -out public.pem
"""


@command.command("decrypt", epilog=_KEYS)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option(
    "--key",
    "key_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The private key, a PEM file, of the public one that they were sealed to.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the WAV files go, instead of beside the sealed ones.",
)
def decrypt(files: tuple[Path, ...], key_path: Path, directory: Path | None) -> None:
    """Write the WAV file that each sealed FILE holds, without `.sealed` in its name.

    What is there already is not overwritten. Of a file that a crash has cut short you get what
    there is, and are told so.
    """
    try:
        from voiced_plugins._sealed import BadKey, private_key
    except ImportError:
        click.echo(
            "this needs the package cryptography: pip install 'voiced[encryption]'", err=True
        )
        raise click.exceptions.Exit(1) from None

    try:
        key = private_key(key_path)
    except BadKey as error:
        click.echo(f"{key_path} {error}", err=True)
        raise click.exceptions.Exit(1) from None
    outcomes = [_decrypt(path, key, directory or path.parent) for path in files]
    if not all(outcomes):
        raise click.exceptions.Exit(1)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _decrypt(path: Path, key: object, directory: Path) -> bool:
    from voiced_plugins._sealed import NotSealed, unseal

    name = path.name.removesuffix(".sealed")
    target = directory / (name if name != path.name else f"{name}.wav")
    made = False
    try:
        with open_regular(path) as source:
            directory.mkdir(parents=True, exist_ok=True)
            # What was sealed is not for every user of the machine now.
            with open(target, "x+b", opener=_private) as out:
                made = True
                found = unseal(source, out, key)  # type: ignore[arg-type]
    except FileExistsError:
        click.echo(f"{target} is there already: nothing is overwritten", err=True)
        return False
    except (NotSealed, OSError) as error:
        why = error.strerror or error if isinstance(error, OSError) else error
        click.echo(f"{path} {why}" if isinstance(error, NotSealed) else f"{path}: {why}", err=True)
        if made:
            target.unlink(missing_ok=True)
        return False
    cut = "" if found.whole else "; it was cut short, by a crash or by somebody"
    click.echo(f"{target}: call {found.call_id}, {found.audio_bytes} bytes of audio{cut}")
    return True
