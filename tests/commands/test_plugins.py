"""`voiced plugins`: what there is, what one takes, and a new one that works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from voiced import cli
from voiced.config import load, paths

MINE = '''"""Does what I want."""
from msgspec import Struct
from voiced.plugin import Plugin, Settings

class Place(Struct):
    name: str
    """What it is called."""

class Config(Settings, frozen=True):
    often: int = 3
    """How often."""
    places: list[Place] = []
    """Where."""

class Mine(Plugin):
    Config = Config
    async def on_media(self): ...
'''


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOICED_CONFIG", raising=False)
    monkeypatch.setattr(paths, "DEFAULT_PATH", tmp_path / "none" / "voiced.toml")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["plugins", *arguments], catch_exceptions=False)


def written(folder: Path, text: str, **plugins: str) -> Path:
    (folder / "own").mkdir(mode=0o755)
    for name, code in plugins.items():
        (folder / "own" / f"{name}.py").write_text(code)
    file = folder / "voiced.toml"
    file.write_text('[daemon]\nplugin_dir = "own"\n' + text)
    return file


def test_bundled_plugins_are_listed_without_a_file() -> None:
    result = run()
    assert result.exit_code == 0
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["PLUGIN", "FROM", "ENABLED", "AS", "WHAT", "IT", "DOES"]
    recorder = next(line for line in lines if line.startswith("recorder "))
    assert "bundled" in recorder
    assert "cannot be used" not in result.stdout


def test_own_plugins_are_listed_with_the_tables_that_enable_them(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '[plugins.mine]\n[plugins.more]\nplugin = "mine"\n',
        mine=MINE,
        broken="import nothing_of_that_name",
        test_mine="raise RuntimeError('a test is no plugin')",
    )
    result = run("-c", str(file))
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "mine, more" in lines["mine"]
    assert lines["mine"].endswith("Does what I want.")
    assert "cannot be used: cannot be imported: ModuleNotFoundError" in lines["broken"]
    assert "install nothing_of_that_name" in lines["broken"]
    assert "test_mine" not in lines


def test_what_an_editor_leaves_in_the_folder_is_no_plugin(tmp_path: Path) -> None:
    file = written(tmp_path, "[plugins.mine]\n", mine=MINE)
    (tmp_path / "own" / ".#mine.py").symlink_to("somebody@somewhere.1234")  # Emacs's lock
    (tmp_path / "own" / ".mine.py").write_text("")
    (tmp_path / "own" / "folder.py").mkdir()
    os.mkfifo(tmp_path / "own" / "pipe.py")
    result = run("--config", str(file))
    assert result.exit_code == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines() if "own/" in line] == ["mine"]


def test_mistakes_are_said_and_the_plugins_listed_all_the_same(tmp_path: Path) -> None:
    file = written(tmp_path, "[plugins.recorde]\n")
    result = run("-c", str(file))
    assert result.exit_code == 1
    assert "plugins.recorde: there is no plugin recorde; did you mean recorder?" in result.stderr
    assert "\nrecorder " in result.stdout


def test_one_plugin_is_shown_with_its_keys(tmp_path: Path) -> None:
    file = written(tmp_path, "", mine=MINE)
    result = run("-c", str(file), "mine")
    assert run("mine", "-c", str(file)).output == result.output  # as all other commands take it
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"mine ({tmp_path}/own/mine.py)",
        "",
        "Does what I want.",
        "",
        "Hooks: on_media",
        "",
        "[plugins.mine]",
        "  often: integer (3)",
        "      How often.",
        "  places: list of tables ([])",
        "      Where.",
        "",
        "[[plugins.mine.places]]",
        "  name: text (required)",
        "      What it is called.",
    ]


def test_an_unknown_plugin_is_an_error_that_names_the_nearest() -> None:
    result = run("recordr")
    assert result.exit_code == 1
    assert "there is no plugin recordr; did you mean recorder?" in result.stderr


@pytest.mark.parametrize("name", ["good_bye", "plugin", "x9", "none"])
def test_a_new_plugin_works_and_its_test_passes(tmp_path: Path, name: str) -> None:
    result = run("new", name, "--directory", "own")
    assert result.exit_code == 0, result.stderr
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{name}.py"]
    ran = subprocess.run(command, cwd=tmp_path / "own", capture_output=True, encoding="utf-8")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout
    file = tmp_path / "voiced.toml"
    file.write_text(f'[daemon]\nplugin_dir = "own"\n[plugins.{name}]\nkey = "8"\n')
    (tmp_path / "own").chmod(0o755)
    assert load(file, environ={}).config.plugins[name] == {"key": "8"}
    again = run("new", name, "--directory", "own")
    assert again.exit_code == 1
    assert "is there already" in again.stderr


def test_the_test_of_a_new_plugin_notices_when_it_breaks(tmp_path: Path) -> None:
    run("new", "mine")
    text = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(text.replace("self.call.hang_up(", "self.call.hangup("))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert ran.returncode == 1
    assert "has no attribute 'hangup'" in ran.stdout


@pytest.mark.parametrize("name", ["Mine", "9", "a-b", "class", "../x"])
def test_a_name_that_is_none_is_a_usage_error(name: str) -> None:
    assert run("new", name).exit_code == 2


@pytest.mark.parametrize("name", ["calendar", "trio", "voiced", "conftest", "test_x", "new", "sys"])
def test_a_name_that_means_something_else_is_refused(name: str) -> None:
    result = run("new", name)
    assert result.exit_code == 1
    assert "choose another name" in result.stderr
    assert not Path(f"{name}.py").exists()


def test_a_bundled_plugins_name_is_taken() -> None:
    result = run("new", "recorder")
    assert result.exit_code == 1
    assert "there is a plugin recorder already" in result.stderr
