"""Configurations that somebody has spoilt in every way: mistakes in words, never a traceback."""

from __future__ import annotations

import copy
import math
import re
import string
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from voiced.commands.check import summary
from voiced.config import ConfigError, Loaded, load
from voiced.config.mistakes import Mistake
from voiced.config.render import render

ROOT = Path(__file__).parents[2]
SECRET = "sEcReT-4711"

Path_ = tuple[str | int, ...]


def whole() -> dict[str, Any]:
    """The example with nearly everything in it in use, secrets too, and what it leaves out."""
    text = (ROOT / "etc" / "voiced.toml").read_text("utf-8")
    data = tomllib.loads(re.sub(r"^#(?=[\[a-z])", "", text, flags=re.MULTILINE))
    reception = data["agent"]["reception"]
    for table, keys in (
        (reception, ("instructions_file", "greeting_files", "greeting_text", "unavailable_file")),
        (reception, ("one_moment_file", "still_there_file", "farewell_file")),
        (data["daemon"], ("state_dir", "plugin_dir")),
        (data["http"], ("tls_cert", "tls_key")),
        (data["sip"], ("tls_cert", "tls_key", "ca_file")),
        (data["engine"]["openai"], ("ca_file",)),
    ):
        for key in keys:
            table.pop(key, None)  # files that are not there
    secrets = [
        (data["twilio"], "auth_token"),
        (data["twilio"], "auth_token_secondary"),
        (data["admin"], "token"),
        (data["sip"]["trunk"][0], "password"),
        (data["engine"]["openai"], "api_key"),
        *((data["engine"]["steps"][step], "api_key") for step in ("stt", "chat", "tts")),
    ]
    for table, key in secrets:
        table.pop(f"{key}_file", None)
        table.pop(f"{key}_env", None)
        table[key] = SECRET
    data["engine"]["openai"]["headers"] = {"Authorization": SECRET}
    data["sip"]["listen"] = ["udp://127.0.0.1:5060"]
    reception["fallback_engine"] = "steps"
    data["agent"]["night"] = {**reception, "engine": "steps", "fallback_engine": "openai"}
    menu = {"main": {"keys": {"1": {"say": "x"}}}}
    data["plugins"] = {"recorder": {}, "transcript": {}, "dtmf": {"menu": menu}}
    return data


WHOLE = whole()


def places(value: object, above: Path_ = ()) -> Iterator[Path_]:
    """Every key and element there is."""
    items: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    for key, item in items:
        yield (*above, key)
        yield from places(item, (*above, key))


PLACES = sorted(places(WHOLE), key=str)


def around(data: dict[str, Any], path: Path_) -> Any:
    """The table or list that holds what stands at `path`; None if it is there no longer."""
    value: Any = data
    for step in path[:-1]:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    try:
        value[path[-1]]
    except (KeyError, IndexError, TypeError):
        return None
    return value if isinstance(value, dict | list) else None


NASTY = (
    *(
        "",
        " ",
        "x",
        "*",
        "true",
        "NaN",
        "-1",
        "0",
        "\0",
        "a\nb",
        "\x1b[2J",
        "\u202e",
        "ı受",
        "é" * 500,
    ),
    *(
        "http://[",
        "wss://[::1",
        "https://h:99999999/",
        "udp://",
        "tls://[::]:0",
        "unix:",
        ":",
        "[::]:",
    ),
    *(
        "1-2",
        "٣٤٥",
        "²:²",
        "127.0.0.1:²",
        "/",
        "/dev/null",
        "../..",
        "a" * 300,
        "sip:",
        "sip:*",
        "+*",
    ),
    *(
        "10.0.0.0/33",
        "::ffff:1.2.3.4",
        "%",
        "%s {0} {x}",
        "$HOME",
        "offline",
        "steps",
        "night",
        "plugin",
    ),
)
values = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=30),
    st.sampled_from([0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**64), 10**400, True, False]),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.5, 1e308, 5e-324, -1e-9]),
    st.sampled_from([date(2026, 11, 21), datetime(2026, 11, 21), time(1, 2)]),
    st.sampled_from([[], {}, [[]], [{}], [1, "a"], {"": 1}, {"kind": "x"}, [{"match": "*"}]]),
    st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)
slips = st.tuples(
    st.sampled_from(["drop", "replace", "misspell", "add", "repeat", "wrap"]),
    st.sampled_from(PLACES),
    values,
    st.sampled_from(string.ascii_lowercase + "-_ .ı"),
)


def spoil(data: dict[str, Any], slip: tuple[str, Path_, Any, str]) -> None:
    how, path, value, letter = slip
    table, key = around(data, path), path[-1]
    if table is None:
        return
    there = table[key]
    if how == "drop":
        del table[key]
    elif how == "replace":
        table[key] = value
    elif how == "wrap":
        table[key] = [there] if isinstance(there, dict) else {"value": there}
    elif how == "repeat" and isinstance(table, list):
        table.append(copy.deepcopy(there))
    elif isinstance(table, dict) and isinstance(key, str):
        if how == "misspell":
            middle = len(key) // 2
            table[key[:middle] + letter + key[middle + 1 :]] = table.pop(key)
        else:
            table[f"{key}{letter}"] = copy.deepcopy(value)


def judged(content: bytes) -> list[Mistake]:
    """What is said of a file, in whichever way it is said."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "voiced.toml"
        file.write_bytes(content)
        file.chmod(0o600)
        try:
            loaded: Loaded | None = load(file, environ={})
        except ConfigError as error:
            said, loaded = list(error.mistakes), None
            assert said
        if loaded is not None:
            said = list(loaded.warnings)
            shown = summary(loaded) + render(loaded.config) + repr(loaded.config)
            assert SECRET not in shown
        for mistake in said:
            assert mistake.file == file, mistake
            assert mistake.message, mistake
            assert mistake.remedy, mistake
            assert str(mistake).isprintable()
            assert len(str(mistake)) < 4000, "nobody reads more in a line"
    return said


def test_unspoilt_it_is_right() -> None:
    assert judged(tomli_w.dumps(WHOLE).encode()) == []


@given(st.lists(slips, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_slip_or_four(slipped: list[tuple[str, Path_, Any, str]]) -> None:
    data = copy.deepcopy(WHOLE)
    for slip in slipped:
        spoil(data, slip)
    try:
        text = tomli_w.dumps(data)
    except (TypeError, ValueError):  # a number that Python does not write
        return
    for mistake in judged(text.encode("utf-8", "surrogatepass")):
        assert SECRET not in str(mistake)
        table = mistake.key.split(".")[0]
        assert mistake.line is not None or table not in data, mistake  # it is only implied


TEXT = (ROOT / "etc" / "voiced.toml").read_bytes()


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(TEXT)),
            st.integers(0, 30),
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from([b'"', b"'''", b"[", b"]]", b"=", b"\r\n", b"{", b"\xef\xbb\xbf"]),
            ),
        ),
        min_size=1,
        max_size=3,
    )
)
@example([(0, len(TEXT), b"")])
@example([(0, 0, b"[" * 5000)])
@settings(max_examples=100, deadline=None)
def test_a_file_that_an_editor_has_torn(cuts: list[tuple[int, int, bytes]]) -> None:
    text = TEXT
    for at, length, put in cuts:
        text = text[:at] + put + text[at + length :]
    judged(text)
