"""Every fault of the emulator can be had from a flag and from a TOML table, and is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import click.testing
import msgspec
import pytest

from voiced import config
from voiced.cli import main
from voiced.config.types import EmulatorEngine
from voiced.emulator import server
from voiced.emulator.options import EmulatorOptions, Faults, parse_faults

DEFAULTS = Faults()


def another(name: str) -> Any:
    """A value of the fault that is not its default."""
    (field,) = [each for each in msgspec.structs.fields(Faults) if each.name == name]
    kind = get_type_hints(Faults)[name]
    if get_origin(kind) is not None:  # Literal
        return next(value for value in get_args(kind) if value != field.default)
    if kind is bool:
        return True
    if kind is str:
        return "session.audio" if name == "reject_update" else "server_error"
    return 3001 if field.default else 7


def toml(value: Any) -> str:
    return msgspec.json.encode(value).decode()  # of bool, int and str the same in both


@pytest.mark.parametrize("name", Faults.__struct_fields__)
@pytest.mark.parametrize("quoted", [True, False])
def test_a_fault_by_flag_and_by_table(
    name: str, quoted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = another(name)
    assert value != getattr(DEFAULTS, name)
    wanted = msgspec.structs.replace(DEFAULTS, **{name: value})
    given: list[EmulatorOptions] = []

    async def serve(host: str, port: int, options: EmulatorOptions, *, task_status: Any) -> None:
        given.append(options)
        task_status.started(port)

    monkeypatch.setattr(server, "serve", serve)
    text = toml(value) if quoted or not isinstance(value, str) else value
    flags = ["emulator", "--fault", f"{name}={text}"]
    result = click.testing.CliRunner().invoke(main, flags)
    assert result.exit_code == 0, result.output
    assert [options.faults for options in given] == [wanted]

    file = tmp_path / "voiced.toml"
    file.write_text(f'[engine.e]\nkind = "emulator"\nfaults = {{ {name} = {toml(value)} }}\n')
    engine = config.load(file).config.engine["e"]
    assert isinstance(engine, EmulatorEngine)
    assert parse_faults(engine.faults) == wanted


def test_help_names_every_fault() -> None:
    said = click.testing.CliRunner().invoke(main, ["emulator", "--help"]).output
    assert set(Faults.__struct_fields__) <= set(said.replace(",", " ").split())
