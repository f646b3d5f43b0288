"""The files that are shipped: they say what the types say, and work."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from voiced.config import Config, load, prices
from voiced.config.document import parse
from voiced.config.findings import Findings
from voiced.config.mistakes import KeyPath
from voiced.config.prices import bundled_prices
from voiced.config.reference import reference
from voiced.config.resolve import STEPS
from voiced.config.schema import PLACES, check
from voiced.config.types import (
    Chat,
    EmulatorEngine,
    PipelineEngine,
    Price,
    RealtimeEngine,
    SpeechToText,
    TextToSpeech,
    Trunk,
)

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "etc" / "voiced.toml"
STARTING = ROOT / "voiced" / "starting.toml"


def uncommented(path: Path) -> str:
    """The file with all settings that stand there as comments (`#key`, but not `# prose`)."""
    return re.sub(r"^#(?=[\[a-z])", "", path.read_text("utf-8"), flags=re.MULTILINE)


def test_the_page_of_settings_is_what_the_types_say() -> None:
    command = "python -m voiced.config.reference > etc/README.md"
    assert (ROOT / "etc" / "README.md").read_text("utf-8") == reference(), f"run {command}"


def test_the_page_is_written_by_its_command() -> None:
    command = [sys.executable, "-m", "voiced.config.reference"]
    page = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    assert page == reference()


def test_the_example_is_the_defaults() -> None:
    loaded = load(EXAMPLE, environ={})
    assert loaded.config == Config()
    assert loaded.warnings == ()


def written(value: Any, above: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key that stands there, with NAME for what an operator chooses."""
    if isinstance(value, list):
        for element in value:
            yield from written(element, above)
    elif isinstance(value, dict):
        chosen = above in (("engine",), ("agent",), ("price",), ("plugins",))
        for key, below in value.items():
            path = (*above, "NAME" if chosen else key)
            yield path
            yield from written(below, path)


def test_the_example_has_every_key_and_each_is_allowed_where_it_stands() -> None:
    text = uncommented(EXAMPLE)
    document = parse(text.encode(), EXAMPLE)
    findings = Findings(document)
    check(findings)
    assert findings.mistakes == []

    there = set(written(document.data))
    # "As in stt", the file says; the three have the same kind of server.
    there |= {(*path[:2], step, *path[3:]) for path in there for step in STEPS if "stt" in path}
    missing = PLACES - there
    # Of a kind of turn detection that excludes the one shown.
    assert missing == {("agent", "NAME", "turn_detection", "eagerness")}


def test_commented_settings_with_a_default_show_it() -> None:
    shown = tomllib.loads(uncommented(EXAMPLE))
    engine, (trunk,) = shown["engine"], shown["sip"]["trunk"]
    given = {"name", "host", "allow", "register", "kind", "headers", "faults", *STEPS}
    for table, kind in (
        (engine["offline"], EmulatorEngine()),
        (engine["openai"], RealtimeEngine()),
        (engine["steps"], PipelineEngine()),
        (engine["steps"]["stt"], SpeechToText()),
        (engine["steps"]["chat"], Chat()),
        (engine["steps"]["tts"], TextToSpeech()),
        (trunk, Trunk(name="x", host="x")),
    ):
        for key in table.keys() - given:
            default = getattr(kind, key)
            default = list(default) if isinstance(default, tuple) else default
            assert default is None or default == table[key], key


def test_every_setting_of_the_example_says_why() -> None:
    lines = EXAMPLE.read_text("utf-8").splitlines()
    for above, line in pairwise(lines):
        if re.match(r"#?[a-z_]+ = ", line) and not line.startswith("kind"):
            # A comment above, or a sibling under the same comment.
            assert above.startswith("#") or re.match(r"[a-z_]+ = ", above), line


def test_the_starting_file_passes_as_it_is_and_with_its_blocks_in_use(tmp_path: Path) -> None:
    loaded = load(STARTING, environ={})
    assert loaded.warnings == ()
    assert loaded.config.engine == {"offline": EmulatorEngine()}
    full = tmp_path / "voiced.toml"
    full.write_text(uncommented(STARTING).replace('engine = "offline"', 'engine = "openai"'))
    config = load(full, environ={"OPENAI_API_KEY": "a", "TWILIO_AUTH_TOKEN": "b"}).config
    assert config.agent["reception"].engine == "openai"
    assert config.twilio.auth_token == "b"


def test_bundled_prices_lie_under_the_operators_own() -> None:
    mini = bundled_prices()["gpt-realtime-2.1-mini"]
    assert mini == Price(
        text_in=0.6,
        cached_text_in=0.06,
        text_out=2.4,
        audio_in=10,
        cached_audio_in=0.3,
        audio_out=20,
    )
    own = Price(per_minute=1)
    table = prices(Config(price={"gpt-realtime-2.1": own}))
    assert table["gpt-realtime-2.1"] == own
    assert table["gpt-realtime-2.1-mini"] == mini
    assert RealtimeEngine().model in bundled_prices()


@pytest.mark.parametrize("directive", ["ExecStart=/usr/bin/voiced run", "StateDirectory=voiced"])
def test_the_unit_runs_voiced_with_state_of_its_own(directive: str) -> None:
    assert directive in (ROOT / "etc" / "voiced.service").read_text("utf-8").splitlines()


def test_the_unit_waits_longer_than_a_drain() -> None:
    unit = (ROOT / "etc" / "voiced.service").read_text("utf-8")
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > Config().daemon.drain_s
