"""A folder of its own for each test, and a daemon's admin listener on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.commands.daemon import configure
from tests.web.admin_peer import Site, site_in_thread
from voiced.commands import client, dial
from voiced.config import paths


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file and no daemon of this machine has a part in any test."""
    monkeypatch.chdir(tmp_path)
    for name in ("VOICED_CONFIG", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(paths, "DEFAULT_PATH", tmp_path / "none" / "voiced.toml")
    monkeypatch.setattr(client, "SYSTEM_STATE_DIR", tmp_path / "system")
    monkeypatch.setattr(dial, "POLL_S", 0)
    with monkeypatch.context() as zone, structlog.testing.capture_logs():
        zone.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def site() -> Iterator[Site]:
    with site_in_thread() as made:
        configure(made.address)
        yield made
