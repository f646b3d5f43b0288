"""What is said of the plugins that ship: every key, and examples that work."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from tests.plugins.sounds import a_wav
from voiced.config import load
from voiced.hooks.reference import bundled, reference, undocumented
from voiced.plugin import Plugin, Settings

FOLDER = Path(__file__).parents[2] / "plugins"
PLUGINS = dict(bundled())
SECRETS = {"SHOP_TOKEN": "s3cret-token", "WEBHOOK_SECRET": "a secret of sixteen and more"}


def test_the_page_is_made_from_the_types() -> None:
    command = "python -m voiced.hooks.reference > plugins/REFERENCE.md"
    assert (FOLDER / "REFERENCE.md").read_text("utf-8") == reference(), f"run {command}"


def test_all_plugins_of_the_folder_are_on_it() -> None:
    files = {path.stem for path in FOLDER.glob("[a-z]*.py")}
    assert files == set(PLUGINS) == set(re.findall(r"^## `(\w+)`$", reference(), re.MULTILINE))


@pytest.mark.parametrize("name", PLUGINS)
def test_every_key_says_what_it_means(name: str) -> None:
    assert undocumented(name, PLUGINS[name]) == []


class Inner(Settings, frozen=True):
    """A table below."""

    said: int = 1
    """It is said."""
    hushed: int = 1


class Outer(Settings, frozen=True):
    """A plugin's table."""

    within: tuple[Inner, ...] = ()
    """Tables below."""
    silent: str = ""


def test_a_key_of_which_nothing_is_said_is_found() -> None:
    class Careless(Plugin):
        Config = Outer

    assert undocumented("careless", Careless) == [
        "[plugins.careless] `silent`",
        "[[plugins.careless.within]] `hushed`",
    ]


def example(name: str) -> str:
    """The TOML in a plugin's own text: what is indented, up to the first line that is not."""
    text = importlib.import_module(f"voiced_plugins.{name}").__doc__ or ""
    block = re.search(r"(?:^(?:    .*)?\n)+", text[text.index("    [") :], re.MULTILINE)
    assert block is not None
    return re.sub(r"^    ", "", block[0], flags=re.MULTILINE)


@pytest.mark.parametrize("name", PLUGINS)
def test_the_example_of_each_plugin_passes_the_check(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in SECRETS.items():
        monkeypatch.setenv(variable, value)
    file = tmp_path / "voiced.toml"
    (tmp_path / "knowledge").mkdir()
    for named in re.findall(r'"(\S+\.wav)"', example(name)):
        a_wav(tmp_path, named, 20)
    file.write_text(example(name).replace("/etc/voiced", str(tmp_path)), "utf-8")
    loaded = load(file)
    assert not [each for each in loaded.warnings if "plugins" in str(each)]
    tables = loaded.config.plugins
    assert name in tables
    assert set(tables) == set(tomllib.loads(example(name))["plugins"])
