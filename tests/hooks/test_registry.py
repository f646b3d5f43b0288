"""Plugins are found in three places, and imported when they are asked for."""

from __future__ import annotations

import os
import re
import sys
import threading
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from voiced.hooks import registry as registry_module
from voiced.hooks.registry import Registry, Unusable
from voiced.plugin import Plugin

GOOD = "from voiced.plugin import Plugin\nclass Mine(Plugin):\n    pass\n"


def unusable(folder: Path, code: str) -> str:
    (folder / "mine.py").write_text(code)
    with pytest.raises(Unusable) as caught:
        Registry(folder).load("mine")
    return str(caught.value)


def test_bundled_plugins_are_found_and_all_can_be_used() -> None:
    registry = Registry()
    kinds = [each.kind for each in registry]
    assert {"dtmf", "recorder", "tools"} <= set(kinds)
    assert not [kind for kind in kinds if kind.startswith("_")]
    for kind in kinds:
        assert issubclass(registry.load(kind), Plugin)


def test_a_file_is_a_plugin_and_one_class_until_it_changes(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    first = Registry(tmp_path).load("mine")
    assert first.__name__ == "Mine"
    assert Registry(tmp_path).load("mine") is first
    (tmp_path / "mine.py").write_text(GOOD.replace("Mine", "Other"))
    os.utime(tmp_path / "mine.py", (1, 1))
    assert Registry(tmp_path).load("mine").__name__ == "Other"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py"]


def test_files_that_are_no_plugins_are_passed_over(tmp_path: Path) -> None:
    for name in ("_helper.py", "test_mine.py", "conftest.py", "notes.txt"):
        (tmp_path / name).write_text("raise RuntimeError")
    assert [each for each in Registry(tmp_path) if each.source != "bundled"] == []


def test_base_classes_and_imported_plugins_do_not_count(tmp_path: Path) -> None:
    code = (
        "from voiced.plugin import Plugin\n"
        "from voiced_plugins.dtmf import Dtmf\n"
        "class _Base(Plugin): pass\nclass Mine(_Base): pass\n"
    )
    (tmp_path / "mine.py").write_text(code)
    assert Registry(tmp_path).load("mine").__name__ == "Mine"


def test_annotations_of_settings_are_found(tmp_path: Path) -> None:
    code = (
        "from __future__ import annotations\nfrom pathlib import Path\n"
        "from voiced.plugin import Plugin, Settings\n"
        "class Own(Settings, frozen=True):\n    x: Path | None = None\n"
        "class Mine(Plugin):\n    Config = Own\n"
    )
    (tmp_path / "mine.py").write_text(code)
    import msgspec

    plugin = Registry(tmp_path).load("mine")
    assert msgspec.convert({}, plugin.Config) == plugin.Config()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", "its module defines no plugin; write one class in it that derives from voiced.plug"),
        (GOOD + "class Two(Plugin): pass", "its module defines 2 plugins: Mine, Two; keep one to"),
        ("def f(:", "is not Python: invalid syntax (line 1); correct the file"),
        ("import no_such_thing.x", "cannot be imported: ModuleNotFoundError: No module named 'no"),
        ("x = 1\n1 / 0", "cannot be imported: ZeroDivisionError: division by zero (mine.py, line "),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3 (mine.py, line 1); correct the"),
        (GOOD + "    async def on_dgit(self, d): ...", "Mine: on_dgit is no hook; did you mean on"),
        ("from voiced.plugin import nope", "cannot be imported: ImportError: cannot import name"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(
    tmp_path: Path, code: str, expected: str
) -> None:
    before = set(sys.modules)
    text = unusable(tmp_path, code)
    assert text.startswith(expected)
    assert "\n" not in text
    if "imported" in expected:
        assert "voiced_plugin_dir.mine" not in set(sys.modules) - before


def test_an_import_that_hangs_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "IMPORT_S", 0.05)
    text = unusable(tmp_path, "import time\ntime.sleep(0.5)\n")
    said = "importing it takes longer than 0.05 s (mine.py, line 2); work in the service's open()"
    assert text.startswith(said)


def test_an_import_that_spins_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it took turns with the calls, for ever."""
    monkeypatch.setattr(registry_module, "IMPORT_S", 0.05)
    before = set(threading.enumerate())
    text = unusable(tmp_path, "import json\n\nwhile True:\n    json.loads('[1]')\n")
    assert re.match(r"importing it takes longer than 0.05 s \(mine.py, line [34]\); ", text)
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive()


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "recorder.py").write_text(GOOD)
    with pytest.raises(Unusable, match="there are 2 plugins recorder: bundled and "):
        Registry(tmp_path).load("recorder")


def test_an_unknown_one_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="there is no plugin recordr; did you mean recorder"):
        Registry().load("recordr")
    with pytest.raises(Unusable, match="there is no plugin xyzzy; there are: dtmf, "):
        Registry().load("xyzzy")


def test_packages_declare_theirs_as_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("menu", "voiced_plugins.dtmf:Dtmf", "voiced.plugins"),
        EntryPoint("no_plugin", "pathlib:Path", "voiced.plugins"),
        EntryPoint("gone", "no_such_package:Thing", "voiced.plugins"),
    ]

    def entry_points(**selected: Any) -> list[EntryPoint]:
        assert selected == {"group": "voiced.plugins"}
        return points

    monkeypatch.setattr(registry_module, "entry_points", entry_points)
    registry = Registry()
    assert registry.load("menu").__name__ == "Dtmf"
    with pytest.raises(Unusable, match="Path is no plugin; derive it from"):
        registry.load("no_plugin")
    with pytest.raises(Unusable, match="install no_such_package for the Python that runs voiced"):
        registry.load("gone")
