"""The table of a call's states."""

from __future__ import annotations

import pytest
import trio.testing

from tests.fakes import FACTS
from voiced.record import CallRecord
from voiced.states import SUCCESSORS, CallState, IllegalTransition

S = CallState


def test_every_state_has_its_row_and_reaches_the_end() -> None:
    assert set(SUCCESSORS) == set(CallState)
    for state in CallState:
        assert state is S.ENDED or S.ENDED in SUCCESSORS[state]


def test_every_state_is_reached_from_a_beginning() -> None:
    reached, border = {S.RINGING, S.DIALLING}, [S.RINGING, S.DIALLING]
    while border:
        for state in SUCCESSORS[border.pop()] - reached:
            reached.add(state)
            border.append(state)
    assert reached == set(CallState)


def test_nothing_follows_the_end_and_nothing_but_it_follows_ending() -> None:
    assert SUCCESSORS[S.ENDED] == frozenset()
    assert SUCCESSORS[S.ENDING] == {S.ENDED}


async def test_illegal_change_raises_in_tests_and_is_not_made_in_life(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    record = CallRecord(FACTS, agent="a", engine="e", model="m")
    with pytest.raises(IllegalTransition, match="ringing → speaking"):
        record.to(S.SPEAKING)
    monkeypatch.setattr(CallRecord, "strict", False)
    record.to(S.SPEAKING)
    assert record.state is S.RINGING
    record.finish({})
