"""What the tests of the commands share: a configuration, and ways to run a command."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from tests.web.admin_peer import TOKEN
from voiced import cli

A = "aaaa000000000001"
B = "aabb000000000002"


def configure(listen: str, token: str | None = TOKEN) -> None:
    lines = ["[daemon]", 'state_dir = "state"', "[admin]", f'listen = "{listen}"']
    if token:
        lines.append(f'token = "{token}"')
    Path("voiced.toml").write_text("\n".join(lines) + "\n")
    Path("voiced.toml").chmod(0o600)


def run(*arguments: str) -> Result:
    command = [*arguments, "-c", "voiced.toml"]
    return CliRunner().invoke(cli.main, command, catch_exceptions=False)


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def failed(*arguments: str, code: int = 1) -> str:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    return result.stderr
