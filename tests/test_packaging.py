"""What the package says of itself agrees with the tree."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import voiced

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_every_package_is_listed() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "voiced").rglob("__init__.py")
    }
    found |= {
        ".".join(("voiced_plugins", *path.parent.relative_to(ROOT / "plugins").parts))
        for path in (ROOT / "plugins").rglob("__init__.py")
    }
    assert listed == found


def test_every_data_file_is_matched_by_a_pattern() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["voiced"]
    package = ROOT / "voiced"
    matched = {path for pattern in patterns for path in package.glob(pattern)}
    shipped = {
        path
        for path in package.rglob("*")
        if path.is_file()
        and path.suffix not in {".py", ".pyc", ".so"}
        and "__pycache__" not in path.parts
    }
    assert shipped <= matched


def test_native_sources_are_listed() -> None:
    extension = PROJECT["tool"]["setuptools"]["ext-modules"][0]
    listed = set(extension["sources"]) | set(extension["depends"])
    found = {f"native/{path.name}" for path in (ROOT / "native").glob("*.[ch]")}
    assert found <= listed


def test_data_files_exist() -> None:
    for files in PROJECT["tool"]["setuptools"]["data-files"].values():
        assert all((ROOT / name).is_file() for name in files)


def test_version_is_in_the_changelog() -> None:
    assert f"## {voiced.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
