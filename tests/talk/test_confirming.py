"""Turns of the caller's that are to be answered or not, before it is known which item is which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from voiced.talk.confirming import COMMITTED_S, Confirming


@dataclass
class Host:
    """An agent that speaks, or does not."""

    agent_sounds: bool = True

    def pause_speaker(self) -> None:
        """It would be quiet."""

    def resume_speaker(self) -> None:
        """It would go on."""

    def interrupted(self, began: float) -> None:
        """It has stopped."""
        self.agent_sounds = False

    def judged(self, verdict: str, began: float, *, paused: bool) -> None:
        """Nobody reads it."""


class Judge:
    """Knows at once: what is said while the agent speaks is its echo, and nothing else."""

    findings = None

    def __init__(self, host: Host) -> None:
        self._host = host

    def may_echo(self, now: float) -> bool:
        return self._host.agent_sounds

    def begin(self, now: float) -> None:
        """It listens."""

    def speech_stopped(self, now: float) -> None:
        """It has heard enough."""

    def verdict(self, now: float) -> str:
        return "echo"


class Turns:
    """One caller's."""

    def __init__(self) -> None:
        self.host = Host()
        self.confirming = Confirming(self.host, cast(Any, Judge(self.host)), 400)

    def turn(self, item_id: str, at: float, *, echo: bool) -> None:
        self.host.agent_sounds = echo
        assert self.confirming.speech_started(item_id, at) is echo
        assert self.confirming.speech_stopped(at + 0.5) is not echo


async def test_an_echo_that_never_becomes_an_item_does_not_cost_the_next_turn() -> None:
    t = Turns()
    t.turn("", 0.0, echo=True)
    t.turn("", 2.0, echo=False)
    assert t.confirming.committed("u2", 2.6)


@pytest.mark.parametrize("first_is_echo", [False, True])
async def test_turns_that_become_items_late_are_answered_if_in_doubt(first_is_echo: bool) -> None:
    """Two are over before the first is an item, as after a stall: no word of the caller's is lost,
    and an echo behind their words is known for one."""
    t = Turns()
    t.turn("", 0.0, echo=first_is_echo)
    t.turn("", 2.0, echo=not first_is_echo)
    assert t.confirming.committed("u1", 2.6)
    assert t.confirming.committed("u2", 2.7) is first_is_echo


async def test_a_name_leaves_no_doubt() -> None:
    t = Turns()
    t.turn("u1", 0.0, echo=True)
    t.turn("u2", 1.0, echo=False)
    assert not t.confirming.committed("u1", 1.6)
    assert t.confirming.committed("u2", 1.7)


async def test_what_is_no_item_for_long_becomes_none() -> None:
    t = Turns()
    t.turn("", 0.0, echo=False)
    t.turn("", COMMITTED_S, echo=True)
    assert not t.confirming.committed("u2", COMMITTED_S + 0.6)
