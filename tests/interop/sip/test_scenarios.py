"""The scenarios of sipp, as files: each is played and described."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.interop.sip.fragments import expand
from tests.interop.sip.sipp import SCENARIOS

HERE = Path(__file__).parent
FILES = sorted(SCENARIOS.glob("*.xml"))
NAMES = "call-id daemon ending more ms outcome password port status tone user"
VALUES = dict.fromkeys(NAMES.split(), "1")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_scenario(file: Path) -> None:
    text = expand(file.read_text("utf-8"), VALUES)
    assert "{{" not in text
    title = ElementTree.fromstring(text).attrib["name"]
    tests = "".join(each.read_text("utf-8") for each in HERE.glob("test_sipp_*.py"))
    assert f'"{file.stem}"' in tests, "nobody plays it"
    readme = (HERE / "README.md").read_text("utf-8")
    assert f"| `{file.stem}` | {title} |" in readme


def test_the_table_has_no_others() -> None:
    readme = (HERE / "README.md").read_text("utf-8")
    assert re.findall(r"^\| `(ua[cs]_\w+)`", readme, re.MULTILINE) == [each.stem for each in FILES]
