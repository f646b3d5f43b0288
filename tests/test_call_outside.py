"""What others may ask of a call, and when they may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import trio

from tests.fakes import FACTS, FakeEngine, FakeLeg
from tests.test_call import TICK, scene
from tests.test_call_hold import transfers
from tests.test_call_plugins import Diary
from tests.test_call_plugins import scene as scene_with
from voiced.call import Call, Services
from voiced.config.types import Agent
from voiced.engine import Ready
from voiced.formats import PCMU_8K
from voiced.hooks.calls import CallHooks
from voiced.hooks.enabled import Enabled
from voiced.journal import Journal
from voiced.leg import LegClosed, LegEvent, Unsupported
from voiced.plugin import Plugin, Settings
from voiced.prompts import Prompts

QUIET = Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0)


def refused(call: Call, why: str) -> bool:
    with pytest.raises(RuntimeError, match=why):
        call.attach(FakeLeg())
    return not call.awaits_leg


async def test_a_call_takes_one_leg(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        assert refused(s.call, "has its leg")
        s.leg.hang_up_as_caller()
        await s.call.ended.wait()
    async with scene(QUIET, attach=False) as s:
        assert s.call.awaits_leg
        s.call.end("operator")
        await s.call.ended.wait()
        assert refused(s.call, "is over")


async def test_who_first_ends_a_call_that_is_being_transferred_has_the_say(
    autojump_clock: object,
) -> None:
    async with scene(QUIET) as s:
        transfers(s, done=False)
        s.model.emit(Ready())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.call.transfer, "+49301")
            await trio.sleep(0.5)
            s.call.wind_down("max_duration", "farewell")
            s.call.wind_down("cost_cap", None)
        await s.call.ended.wait()
        assert s.rows()[-1].reason == "max_duration"
        assert s.leg.bytes_played() > 0  # and it was a farewell


async def test_nobody_speaks_into_the_last_words(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        s.call.wind_down("shutdown", "farewell")
        await trio.sleep(TICK)
        with pytest.raises(Unsupported, match="now"):
            s.call.say("One more thing.", exactly=True)
        with pytest.raises(Unsupported, match="ending"):
            await s.call.transfer("+49301")


async def test_one_transfer_at_a_time(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        transfers(s, done=True)
        s.model.emit(Ready())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.call.transfer, "+49301")
            await trio.sleep(0.5)
            with pytest.raises(Unsupported, match="transferred already"):
                await s.call.transfer("+49302")
        assert s.leg.transfers == ["+49301"]


async def test_keys_for_a_carrier_that_is_gone(autojump_clock: object) -> None:
    class Gone(FakeLeg):
        def send_digits(self, digits: str) -> None:
            super().send_digits(digits)
            if self.closed:
                raise LegClosed

    call = Call(FACTS, "a", QUIET, FakeEngine(), PCMU_8K, Services(Journal(Path("x")), Prompts()))
    leg = Gone()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        with pytest.raises(Unsupported, match="no audio"):
            call.send_digits("1")
        call.attach(leg)
        with pytest.raises(Unsupported, match="no audio"):
            call.send_digits("1")  # the caller cannot hear anything yet
        await trio.sleep(TICK)
        call.send_digits("2")
        leg.closed = True
        call.send_digits("3")
        assert leg.pressed == ["2", "3"]
        call.end("operator")


class Reader(Plugin):
    """Notes what the carrier says."""

    told: ClassVar[list[dict[str, str]]] = []

    async def on_parameters(self, changed: Mapping[str, str]) -> None:
        self.told.append(dict(changed))


async def test_plugins_are_told_what_is_new_of_the_call(autojump_clock: object) -> None:
    Reader.told.clear()
    async with scene_with(Reader, agent=QUIET) as s:
        s.call.learn({"a": "1", "b": "2"})
        s.call.learn({"a": "1"})
        s.call.learn({"a": "1", "b": "3"})
        await trio.sleep(TICK)
        assert Reader.told == [{"a": "1", "b": "2"}, {"b": "3"}]
        assert s.call.facts.parameters == {"a": "1", "b": "3"}


async def test_what_was_known_before_a_call_began_is_no_news(autojump_clock: object) -> None:
    """The plugins find it in the call when they are told of that."""
    Reader.told.clear()
    reader = Enabled("reader", Reader, Settings())
    services = Services(Journal(Path("x")), Prompts())
    call = Call(
        FACTS,
        "a",
        QUIET,
        FakeEngine(),
        PCMU_8K,
        services,
        make_hooks=lambda make: CallHooks([reader], make),
    )
    call.learn({"a": "1"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        call.end("operator")
        await call.ended.wait()
    assert Reader.told == []
    assert call.facts.parameters == {"a": "1"}


# ---- the end, whoever makes it


class Polite(FakeLeg):
    """Its carrier takes a moment to hang up."""

    async def hang_up(self) -> None:
        await trio.sleep(0.3)
        await super().hang_up()


class Rude(FakeLeg):
    """Its carrier takes for ever."""

    async def hang_up(self) -> None:
        await super().hang_up()
        await trio.sleep_forever()


class Broken(FakeLeg):
    """A fault of ours."""

    async def receive(self) -> Sequence[LegEvent]:
        raise ZeroDivisionError


def call_on(leg: FakeLeg) -> Call:
    call = Call(FACTS, "a", QUIET, FakeEngine(), PCMU_8K, Services(Journal(Path("x")), Prompts()))
    call.attach(leg)
    return call


@pytest.mark.parametrize("ended", [False, True])
async def test_a_daemon_that_stops_hangs_up_all_the_same(
    autojump_clock: object, ended: bool
) -> None:
    """Who ended the call before that stays its reason."""
    call = call_on(leg := Polite())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        if ended:
            call.end("operator")
        nursery.cancel_scope.cancel()
    assert leg.hung_up
    assert call.record.row.reason == ("operator" if ended else "shutdown")


async def test_a_carrier_that_takes_for_ever_is_not_waited_for(autojump_clock: object) -> None:
    call = call_on(Rude())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        call.end("operator")
        with trio.fail_after(1.1):
            await call.ended.wait()


async def test_a_fault_of_ours_is_called_one(autojump_clock: object) -> None:
    call = call_on(leg := Broken())
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        await call.run()
    assert leg.hung_up
    assert call.record.row.reason == "internal_error"
    assert call.ended.is_set()


async def test_a_stream_is_waited_for_as_long_as_the_call_was_told(autojump_clock: object) -> None:
    services = Services(Journal(Path("x")), Prompts())
    call = Call(FACTS, "a", QUIET, FakeEngine(), PCMU_8K, services, media_timeout_s=5)
    began = trio.current_time()
    await call.run()
    assert trio.current_time() - began == pytest.approx(5, abs=0.1)
    assert call.record.row.reason == "no_media"


async def test_a_row_is_written_again_only_for_what_plugins_have_noted(
    autojump_clock: object,
) -> None:
    async with scene_with(Reader, agent=QUIET) as s:
        s.leg.hang_up_as_caller()
        await s.call.ended.wait()
    assert len(s.rows()) == 2  # as it began, and as it ended


async def test_what_plugins_note_when_all_is_over_is_in_the_journal(autojump_clock: object) -> None:
    async with scene_with(Diary, agent=QUIET) as s:
        s.leg.hang_up_as_caller()
        await s.call.ended.wait()
    rows = s.rows()
    assert len(rows) == 3
    assert rows[-1].facts == {"seen": True}
