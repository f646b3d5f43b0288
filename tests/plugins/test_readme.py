"""The page for plugin authors: its plugin works, its test passes, its file is one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from voiced.commands import newplugin
from voiced.config import load
from voiced.hooks.shape import HOOKS

ROOT = Path(__file__).parents[2]
README = (ROOT / "plugins" / "README.md").read_text("utf-8")


def block(language: str, index: int) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return found[index]


def test_the_plugin_of_the_page_works_as_its_test_and_its_file_say(tmp_path: Path) -> None:
    plugin = block("python", 0)
    assert len(plugin.splitlines()) < 40
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    (folder / "regulars.py").write_text(plugin)
    (folder / "test_regulars.py").write_text(block("python", 1))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_regulars.py"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")
    assert ran.returncode == 0, ran.stdout
    assert "1 passed" in ran.stdout
    file = tmp_path / "voiced.toml"
    file.write_text(block("toml", 0))
    loaded = load(file, environ={})
    assert loaded.warnings == ()
    assert README.count("```toml") == 1  # a further one wants a test
    assert loaded.config.plugins["regulars"]["help_number"] == "+4930123456"


def test_what_authors_begin_with_is_typed(tmp_path: Path) -> None:
    """As strictly as voiced itself, against the types that it publishes."""
    texts = {
        "regulars": block("python", 0),
        "test_regulars": block("python", 1),
        "courtesy": newplugin.plugin_text("courtesy"),
        "test_courtesy": newplugin.test_text("courtesy"),
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
    files = [str(tmp_path / f"{name}.py") for name in texts]
    command = [sys.executable, "-m", "mypy", "--strict", *files]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert ran.returncode == 0, ran.stdout


def test_the_page_is_one_page_and_names_hooks_that_there_are() -> None:
    assert len(README.splitlines()) < 150
    assert set(re.findall(r"\bon_[a-z_]+", README)) <= HOOKS
