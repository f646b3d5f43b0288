"""Where state is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from voiced.config import Config, state_dir
from voiced.config.types import Daemon


def test_the_file_comes_first_then_systemd() -> None:
    environ = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}
    assert state_dir(Config(daemon=Daemon(state_dir=Path("/x"))), environ) == Path("/x")
    assert state_dir(Config(), environ) == Path("/var/lib/a")


def test_root_and_others_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert state_dir(Config(), {"XDG_STATE_HOME": "/x"}) == Path("/var/lib/voiced")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    assert state_dir(Config(), {"XDG_STATE_HOME": "/x"}) == Path("/x/voiced")
    home = Path("/home/me/.local/state/voiced")
    assert state_dir(Config(), {"XDG_STATE_HOME": "relative"}) == home
    assert state_dir(Config(), {}) == home


def test_a_user_without_a_name_and_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container: where that may not be written, the start says what to set."""
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    monkeypatch.delenv("HOME")
    assert state_dir(Config(), {}) == Path("/var/lib/voiced")
