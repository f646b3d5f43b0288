"""Whatever is lost when, whatever the call asks for: nothing owed is forgotten, one session counts.

The model answers by itself what it is asked for, one after the other, and goes on emitting after
its session is lost, as a socket's last events would. A script of losses and commands runs over it.
"""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import trio
from hypothesis import given, settings
from trio.testing import MockClock

from tests.steady.fakes import REFUSED, Call, FakeEngine, FakeSession
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    EngineEvent,
    Lost,
    Plan,
    Ready,
    Reconnecting,
    Resumed,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolSpec,
)
from voiced.steady.session import SteadySession

TURN = "a turn"


class Model(FakeSession):
    """Answers with the words that it was asked for."""

    def __init__(self, engine: FakeEngine, plan: Plan) -> None:
        super().__init__(engine, plan)
        self._asks, self._taken = trio.open_memory_channel[str](math.inf)
        self._current: trio.CancelScope | None = None
        self.said = 0

    def respond(self, instructions: str | None = None) -> None:
        super().respond(instructions)
        self._asks.send_nowait((instructions or TURN).partition("\n")[0])

    def cancel(self) -> None:
        super().cancel()
        while True:
            try:
                self._taken.receive_nowait()
            except trio.WouldBlock:
                break
        if self._current is not None:
            self._current.cancel()

    def turn(self, *, written: bool) -> None:
        self.said += 1
        item = f"c{self.said}"
        self.emit(SpeechStarted(item, 0), SpeechStopped(item, 0), Committed(item))
        if written:
            self.emit(CallerTranscript(item, "words", final=True))
        self._asks.send_nowait(TURN)

    async def work(self) -> None:
        async for words in self._taken:
            with trio.CancelScope() as self._current:
                await trio.sleep(0.2)
                self.said += 1
                response, item = f"r{self.said}", f"i{self.said}"
                self.start(response)
                await trio.sleep(0.1)
                self.speak(200, words, item, response)
                await trio.sleep(0.3)
                self.end(item, response)
            self._current = None


class ModelEngine(FakeEngine):
    def _session(self, plan: Plan) -> Model:
        return Model(self, plan)

    async def _run(self, session: FakeSession) -> None:
        assert isinstance(session, Model)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._connect, session)
            nursery.start_soon(session.work)


class Judge(Call):
    """Keeps account of what is owed."""

    def __init__(self, *engines: FakeEngine, **settings: Any) -> None:
        super().__init__(*engines, **settings)
        self.owed: list[str] = []
        self._words: dict[str, str] = {}
        self._first: dict[str, str] = {}

    def ask(self, words: str) -> None:
        self.owed.append(words)
        self.session.respond(words)

    def cancel(self) -> None:
        self.owed.clear()
        self.session.cancel()

    def talking(self) -> Model | None:
        """The model that the call talks to."""
        assert isinstance(self.session, SteadySession)
        held = self.session.active
        return held.session if held and isinstance(held.session, Model) else None

    def on_event(self, event: EngineEvent) -> None:
        super().on_event(event)
        if isinstance(event, Committed) and TURN not in self.owed:
            self.owed.append(TURN)
        elif isinstance(event, AgentTranscript):
            self._words[event.item_id] = event.text
        elif isinstance(event, AgentAudioDone) and self._words[event.item_id] in self.owed:
            self.owed.remove(self._words[event.item_id])

    def check_order(self) -> None:
        """Events come in an order that a call can follow."""
        names = [
            name for name in self.kinds() if name in {"Ready", "Reconnecting", "Resumed", "Lost"}
        ]
        text = " ".join(names)
        assert names.count("Ready") <= 1
        assert "Lost " not in text, text
        assert "Reconnecting Reconnecting" not in text, text
        if names[:1] == ["Reconnecting"]:  # the first session was not to be had at once
            names = names[1:]
        if "Ready" in names:
            assert names[0] == "Ready"
        else:
            assert names in ([], ["Lost"])
        waiting = False
        for event in self.events:
            if isinstance(event, Ready | Resumed):
                waiting = False
            elif isinstance(event, Reconnecting):
                waiting = True
            else:
                assert isinstance(event, Lost) or not waiting, "an event of a dead session"


def live(*engines: FakeEngine) -> list[Model]:
    return [s for e in engines for s in e.sessions if isinstance(s, Model) and not s.closed]


OFTEN = ["ask", "turn", "lose"] * 4
ACTIONS = st.sampled_from([*OFTEN, "cancel", "down", "up", "audio", "text", "tool", "cut"])
DELAYS = st.sampled_from([0.0, 0.01, 0.06, 0.15, 0.3, 0.5, 1.0, 3.0])
SCRIPTS = st.lists(st.tuples(DELAYS, ACTIONS, st.integers(0, 9)), min_size=4, max_size=25)


@settings(max_examples=120, deadline=None)
@given(
    script=SCRIPTS,
    fallback=st.booleans(),
    reconnect_s=st.sampled_from([0.0, 2.0, 8.0]),
    expires=st.sampled_from([None, 4.0]),
    end_after=st.sampled_from([0.2, 30.0, 30.0, 30.0]),
)
def test_a_call_survives(
    script: list[tuple[float, str, int]],
    fallback: bool,
    reconnect_s: float,
    expires: float | None,
    end_after: float,
) -> None:
    async def main() -> None:
        engines = [ModelEngine("one", expires_in_s=expires)]
        if fallback:
            engines.append(ModelEngine("two"))
        call = Judge(*engines, agent=Agent(reconnect_s=reconnect_s))
        tools = (ToolSpec("f", "does", {}),)
        async with call.talk():
            for number, (delay, what, how) in enumerate(script):
                await trio.sleep(delay)
                session = next(iter(live(*engines)), None)
                if what == "ask":
                    if len(call.owed) < 8:
                        call.ask(f"ask {number}")
                elif what == "cancel":
                    call.cancel()
                elif what == "turn" and (talking := call.talking()) is not None:
                    if TURN in call.owed:
                        continue  # a caller who speaks again has the answer cancelled first
                    talking.turn(written=how > 4)
                    # What is asked for in the same moment may be answered before or after.
                    await trio.testing.wait_all_tasks_blocked()
                elif what == "lose" and session is not None:
                    session.lose(retryable=how > 0)
                elif what in ("down", "up"):
                    engines[how % len(engines)].down = REFUSED if what == "down" else None
                elif what == "audio":
                    before = [len(each.heard) for e in engines for each in e.sessions]
                    call.session.send_audio(bytes(160 * how))
                    after = [len(each.heard) for e in engines for each in e.sessions]
                    grown = [b for a, b in zip(before, after, strict=True) if b > a]
                    assert len(grown) <= 1, "two sessions hear the caller"
                elif what == "text":
                    call.session.add_message("system", f"text {number}")
                elif what == "tool" and (talking := call.talking()) is not None:
                    talking.emit(ToolCall("f1", "t1", "f", "{}"))
                    call.session.set_tools(tools if how > 4 else ())
                    if how > 4:
                        call.session.tool_result("f1", "done")
                elif what == "cut":
                    call.session.truncate("i1" if how > 4 else "2:i1", 0, 10)
                    call.session.delete("i2" if how > 4 else "2:i2")
            for engine in engines:
                engine.down = None
            await trio.sleep(end_after)
            call.check_order()
            if end_after > 20 and not call.of(Lost):
                assert call.owed == [], "an answer was forgotten"
        assert [engine.open_now for engine in engines] == [0] * len(engines)
        assert all(guard.health()["sessions"] == 0 for guard in call.guards)
        assert all(guard.health()["state"] != "half_open" for guard in call.guards)

    trio.run(main, clock=MockClock(autojump_threshold=0))
