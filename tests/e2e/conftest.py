"""What tests of the daemon whole have."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from tests.e2e.virtual import let_time_jump, of_this_clock


@pytest.fixture
async def virtual_time(mock_clock: MockClock) -> AsyncIterator[None]:
    """A test that has this waits for nothing: see `tests.e2e.virtual`."""
    let_time_jump(mock_clock)
    with of_this_clock(mock_clock):
        yield
