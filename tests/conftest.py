"""What every test has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from voiced.record import CallRecord

settings.register_profile("voiced", deadline=None)  # how busy the machine is proves nothing
settings.load_profile("voiced")


@pytest.fixture(autouse=True)
def _strict_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of state that the table lacks fails the test that made it."""
    monkeypatch.setattr(CallRecord, "strict", True)


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A command that logs warnings alone does so for itself, not for the tests after it."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
