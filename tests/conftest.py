"""What every test has."""

from __future__ import annotations

import pytest

from voiced.record import CallRecord


@pytest.fixture(autouse=True)
def _strict_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of state that the table lacks fails the test that made it."""
    monkeypatch.setattr(CallRecord, "strict", True)
