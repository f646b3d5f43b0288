"""Whole calls with a server that keeps its contract: whatever happens, nothing is left unanswered.

The session that outlives its sessions is real, and so is the judge of interruptions; the server
finds turns in the audio that it gets. It is lost, is renewed, calls functions, while the caller
speaks over it, coughs, presses keys, is put on hold and almost transferred.

Here the model always answers within a second: so no call may end for its silence, every word of the
caller's must have come to a session that kept it, and after all that a question is answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog.testing
import trio
import trio.testing
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.fakes import FACTS, FakeLeg, FakeSession
from tests.test_call_confirm import CALLER, ulaw
from tests.test_call_properties import consistent
from voiced.call import Call, Services
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    Billed,
    CallerTranscript,
    Committed,
    EngineEvent,
    Lost,
    Plan,
    Ready,
    ResponseDone,
    ResponseStarted,
    Session,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)
from voiced.formats import PCMU_8K
from voiced.journal import Journal
from voiced.leg import Transferred, Unsupported
from voiced.plugin import Tool
from voiced.prompts import Prompts
from voiced.states import CallState
from voiced.steady import Guard, Guarded, SteadyEngine

PROMPTS: Final = Prompts()  # converted once
FRAME: Final = 160
SILENCE: Final = b"\xff" * FRAME
HEARS: Final = 3  # frames with a sound until the server reports speech
ENDS: Final = 25  # silent ones until the turn is over
THINKS_S: Final = 0.3
ANSWER_MS: Final = 1200
SAID_MS: Final = 1000
MAX_SAID: Final = 40
COUGH: Final = [bytes([0x9A, 0x1A] * 80)] * 4

SAID: Final = [
    [sound[at : at + FRAME] for at in range(0, len(sound), FRAME)]
    for sound in (
        ulaw(CALLER[: 16 * SAID_MS], 1 - number / 100).replace(b"\xff", b"\xfe")
        for number in range(MAX_SAID)
    )
]
"""What the caller says, never the same, so that it is known again wherever it comes to."""

WHOSE: Final = {
    frame: number for number, frames in enumerate(SAID) for frame in frames if len(set(frame)) > 20
}


class Server(FakeSession):
    """A session that finds turns, answers in time, and does as it is told."""

    def __init__(self, world: World, plan: Plan) -> None:
        super().__init__(plan)
        self.world = world
        self.expires_in_s = world.expires_in_s
        self.retry_after_s = 0.0
        self.interrupt = None
        self.asked = trio.Event()
        self.answered = False
        self.wanted = 0
        self.items: dict[str, set[int]] = {}  # of the caller's: what was said in it
        self._name = len(world.servers)
        self._loud = self._quiet = self._made = 0
        self._said: set[int] = set()
        self._rest = b""
        self._turn: str | None = None
        self._response: str | None = None
        self._making = trio.CancelScope()

    async def receive(self) -> Sequence[EngineEvent]:
        events = [await self._events.receive()]
        while True:
            try:
                events.append(self._events.receive_nowait())
            except trio.WouldBlock:
                return events

    # ---- turns

    def send_audio(self, payload: bytes) -> None:
        payload = self._rest + payload
        whole = len(payload) // FRAME * FRAME
        self._rest = payload[whole:]
        for at in range(0, whole, FRAME):
            self._frame(payload[at : at + FRAME])

    def _frame(self, frame: bytes) -> None:
        if frame == SILENCE:
            self._loud, self._quiet = 0, self._quiet + 1
            if self._turn is not None and self._quiet == ENDS:
                self._commit(self._turn)
            return
        self._loud, self._quiet = self._loud + 1, 0
        if frame in WHOSE:
            self._said.add(WHOSE[frame])
        if self._turn is None and self._loud == HEARS:
            self._turn = self._new("u")
            self.emit(SpeechStarted(self._turn, 0))
            if self.plan.agent.barge_in == "immediate":
                self._making.cancel()
                self.wanted = 0

    def _commit(self, turn: str) -> None:
        self.emit(SpeechStopped(turn, 0), Committed(turn))
        self.items[turn], self._said, self._turn = self._said, set(), None
        self.world.nursery.start_soon(self._write_down, turn)
        if self.plan.agent.barge_in != "confirm":
            self.respond()

    async def _write_down(self, turn: str) -> None:
        words = " ".join(f"said-{number}" for number in sorted(self.items[turn])) or "hm"
        await trio.sleep(0.4)
        self.emit(CallerTranscript(turn, words, final=True))

    def delete(self, item_id: str) -> None:
        self.items.pop(item_id, None)

    def _new(self, kind: str) -> str:
        self._made += 1
        return f"{kind}{self._name}-{self._made}"

    # ---- answers

    def respond(self, instructions: str | None = None) -> None:
        super().respond(instructions)
        if instructions is not None or self.wanted < 2:
            self.wanted += 1
        self.asked.set()

    def cancel(self) -> None:
        super().cancel()
        self.wanted = 0
        self._making.cancel()

    def tool_result(self, call_id: str, output: str) -> None:
        super().tool_result(call_id, output)

    async def run(self) -> None:
        await trio.sleep(0.05)
        if self.world.down:
            self.emit(Lost("http_503", "down", retryable=True))
            return
        self.emit(Ready())
        while True:
            self.asked = trio.Event()
            while not self.wanted:
                await self.asked.wait()
                self.asked = trio.Event()
            self.wanted -= 1
            response, status = self._new("r"), "cancelled"
            with trio.CancelScope() as self._making:
                await trio.sleep(THINKS_S)
                await self._answer(response)
                status = "completed"
            if self._response == response:
                self._response = None
                self.answered = status == "completed"
                self.emit(ResponseDone(response, status))  # type: ignore[arg-type]

    async def _answer(self, response: str) -> None:
        self._response = response
        self.emit(ResponseStarted(response))
        if self.world.calls:
            self.world.calls -= 1
            self.emit(ToolCall(self._new("c"), self._new("t"), "slow", "{}"))
            return
        item = self._new("a")
        for _ in range(0, ANSWER_MS, 200):
            self._tell(response, AgentAudio(response, item, 0, b"\x21" * 1600))
            await trio.sleep(0.04)
        self._tell(response, AgentTranscript(item, "one two three four", final=True))
        self._tell(response, AgentAudioDone(response, item))

    def _tell(self, response: str, event: EngineEvent) -> None:
        if not self._making.cancel_called:
            self.emit(event)


class World:
    """The engine of one call, its caller, and what becomes of both."""

    expires_in_s: float | None = None
    retry_after_s = 0.0
    name, model = "world", "model"

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.servers: list[Server] = []
        self.down = False
        self.calls = 0  # functions that are called instead of the next answers
        self.leg = FakeLeg()
        self.leg.outcome = self.refused  # type: ignore[method-assign]
        self.held = self.away = False
        self.spoken = 0  # utterances so far
        self.owed: set[int] = set()  # of these, what the model must have got
        self._frames: list[bytes] = []
        self.call = Call(
            FACTS,
            "agent",
            agent,
            SteadyEngine(Guarded(self, Guard("world"))),
            PCMU_8K,
            Services(Journal(Path("unused")), PROMPTS),
        )
        self.call.register_tool(Tool("slow", "Slow.", self.slow))

    # ---- an engine (`voiced.engine.Engine`)

    def billed(self, agent: Agent) -> Billed:
        return Billed(self.model)

    @asynccontextmanager
    async def open(self, plan: Plan) -> AsyncIterator[Session]:
        server = Server(self, plan)
        self.servers.append(server)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.run)
                yield server
                nursery.cancel_scope.cancel()
        finally:
            server.closed = True

    async def slow(self, _arguments: object) -> str:
        await trio.sleep(1.5)
        return "done"

    async def refused(self, target: str) -> Transferred:
        await trio.sleep(2)
        return Transferred(False, 486)

    # ---- the caller

    async def phone(self) -> None:
        """A frame every 20 ms, but on hold."""
        at = trio.current_time()
        while not self.call.ended.is_set():
            at += 0.02
            await trio.sleep_until(at)
            frame = self._frames.pop(0) if self._frames else SILENCE
            if not self.held:
                self.leg.say(frame)

    async def act(self, word: str) -> None:
        match word:
            case "speak" if self.spoken < MAX_SAID - 1 and not (self.held or self.away):
                await self.speak()
            case "cough" if not self._frames:
                self._frames += COUGH
            case "press":
                self.leg.press("5")
            case "hold" | "back":
                self.held = word == "hold"
                self.leg.hold(self.held)
            case "transfer" if not (self.held or self.away or self._frames):
                self.away = True
                self.nursery.start_soon(self.transfer)
            case "lose" | "lose for long":
                self.lose(2.5 if "long" in word else 0.0)
            case "tool":
                self.calls = 1
            case "tell":
                with suppress(Unsupported):
                    self.call.dialogue.tell("system", "They are angry.", answer=True)
            case "renew":
                self.expires_in_s = 12.0
                self.lose(0.0)

    async def speak(self) -> None:
        """A sentence. Nothing keeps it from the model, which must have got it in the end."""
        number, self.spoken = self.spoken, self.spoken + 1
        self._frames += SAID[number]
        self.owed.add(number)

    async def transfer(self) -> None:
        with suppress(Unsupported):
            await self.call.transfer("+49301234")
        self.away = False

    def lose(self, down_s: float) -> None:
        if not self.servers[-1].answered:
            return  # who loses one after the other, with no answer between, is given up
        for server in self.servers:
            if not server.closed:
                server.emit(Lost("close_1006", "gone", retryable=True))
        if down_s and not self.down:
            self.down = True
            self.nursery.start_soon(self.come_back, down_s)

    async def come_back(self, after_s: float) -> None:
        await trio.sleep(after_s)
        self.down = False

    # ---- what must hold

    def kept(self) -> set[int]:
        """What the caller has said and a session has kept."""
        return {
            number for server in self.servers for said in server.items.values() for number in said
        }

    async def run(self, script: list[tuple[str, float]]) -> None:
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self.call.run)
            await trio.sleep(0.1)
            self.call.attach(self.leg)
            self.nursery.start_soon(self.phone)
            await trio.sleep(0.5)
            for word, wait in script:
                if word in ("hold", "transfer") and self._frames:
                    await trio.sleep(0.02 * len(self._frames) + 1)
                await self.act(word)
                await trio.sleep(wait)
                consistent(self.call.voice.playout)
                assert not self.call.ended.is_set(), self.call.record.reason
            await self.act("back")
            await self.settle()
            before = self.call.voice.playout.statistics().heard
            await self.speak()
            await self.settle()
            heard = self.call.voice.playout.statistics().heard - before
            assert heard >= ANSWER_MS * 8, "the last question was not answered"
            assert self.call.record.reason is None
            assert self.call.record.state is CallState.LISTENING
            assert self.owed <= self.kept(), f"lost: {self.owed - self.kept()}"
            self.leg.hang_up_as_caller()
            await self.call.ended.wait()
            self.nursery.cancel_scope.cancel()
        event(f"{len(self.servers)} sessions, {self.spoken} sentences")

    async def settle(self) -> None:
        """All that was going on is over."""
        await trio.sleep(0.02 * len(self._frames) + 12)


AGENTS = st.builds(
    Agent,
    greeting=st.sampled_from(["", "Greet."]),
    barge_in=st.sampled_from(["immediate", "confirm", "confirm", "off"]),
    silence_prompt_s=st.just(0.0),
    silence_hangup_s=st.just(0.0),
    max_duration_s=st.just(3600.0),
)
WORDS = st.sampled_from(
    [
        "speak",
        "speak",
        "speak",
        "cough",
        "press",
        "hold",
        "back",
        "transfer",
        "lose",
        "lose for long",
        "tool",
        "tell",
        "renew",
    ]
)
WAITS = st.sampled_from([0.0, 0.1, 0.7, 1.1, 1.6, 2.2, 4.0])
SCRIPTS = st.lists(st.tuples(WORDS, WAITS), max_size=9)


async def play(agent: Agent, script: list[tuple[str, float]]) -> None:
    await World(agent).run(script)


@settings(
    max_examples=40,
    derandomize=True,  # the same calls each time: a longer search is for whoever changes something
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(AGENTS, SCRIPTS)
def test_nothing_is_left_unanswered(agent: Agent, script: list[tuple[str, float]]) -> None:
    with structlog.testing.capture_logs() as logs:
        trio.run(play, agent, script, clock=trio.testing.MockClock(autojump_threshold=0))
    wrong: list[Any] = [each for each in logs if each["log_level"] == "error"]
    assert not [each for each in wrong if "blocked_ms" not in each], wrong
