"""Secrets: from the file itself, another file, systemd's credentials, the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from voiced.config import ConfigError, load
from voiced.config.types import RealtimeEngine

ENGINE = '[engine.m]\nkind = "realtime"\n'


def api_key(folder: Path, line: str, **environ: str) -> str | None:
    file = folder / "voiced.toml"
    file.write_text(ENGINE + line)
    engine = load(file, environ=environ).config.engine["m"]
    assert isinstance(engine, RealtimeEngine)
    return engine.api_key


def test_a_secret_is_found_in_each_of_its_places(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-file\n")
    assert api_key(tmp_path, 'api_key = "sk-inline"') == "sk-inline"
    assert api_key(tmp_path, 'api_key_file = "key"') == "sk-file"
    assert api_key(tmp_path, f'api_key_file = "{tmp_path}/key"') == "sk-file"
    assert api_key(tmp_path, 'api_key_env = "KEY"', KEY="sk-env") == "sk-env"


def test_a_relative_file_is_looked_for_among_credentials_first(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (tmp_path / "key").write_text("sk-beside")
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert api_key(tmp_path, 'api_key_file = "key"', **environ) == "sk-beside"
    (credentials / "key").write_text("sk-credential")
    assert api_key(tmp_path, 'api_key_file = "key"', **environ) == "sk-credential"
    absolute = f'api_key_file = "{tmp_path}/key"'
    assert api_key(tmp_path, absolute, **environ) == "sk-beside"


@pytest.mark.parametrize("value", ["", "  \n"])
def test_an_empty_variable_is_a_mistake(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="the environment variable KEY is empty; put the secret"):
        api_key(tmp_path, 'api_key_env = "KEY"', KEY=value)


def test_a_file_that_is_no_secret_at_all_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        api_key(tmp_path, 'api_key_file = "key"')
    (tmp_path / "key").write_text("x" * 20_000)
    with pytest.raises(ConfigError, match="is larger than 16384 bytes"):
        api_key(tmp_path, 'api_key_file = "key"')


def test_a_secret_in_place_of_a_variables_name_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not the name of an environment variable") as caught:
        api_key(tmp_path, 'api_key_env = "sk-secret"')
    assert "sk-secret" not in str(caught.value)


def test_a_header_may_hold_the_credential(tmp_path: Path) -> None:
    assert api_key(tmp_path, 'headers = { Authorization = "Bearer x" }') is None


@pytest.mark.parametrize("line", ['url = "ws://[::1]:9"', 'server = "localai"'])
def test_a_local_server_needs_no_key(tmp_path: Path, line: str) -> None:
    assert api_key(tmp_path, line) is None


def test_a_secret_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "voiced.toml"
    file.write_text(ENGINE + 'model = "gpt-realtime-2.1"\napi_key = "sk-secret"\n')
    file.chmod(0o640)
    before = load(file, environ={}).warnings
    file.chmod(0o644)
    warnings = set(load(file, environ={}).warnings) - set(before)
    (warning,) = warnings
    assert (warning.line, warning.key) == (4, "engine.m.api_key")
    assert "every user of this machine can read this secret; chmod 640" in str(warning)
    assert "sk-secret" not in str(warning)


def test_secrets_do_not_show_when_a_table_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "voiced.toml"
    file.write_text(ENGINE + 'api_key = "sk-secret"\nheaders = { X-Key = "sk-secret" }\n')
    loaded = load(file, environ={})
    assert "sk-secret" not in repr(loaded)
    assert "model='gpt-realtime-2.1'" in repr(loaded)
