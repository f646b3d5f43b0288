"""Whatever a model, a caller and an operator do, in whatever order: what holds of every call."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import structlog.testing
import trio
import trio.testing
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.fakes import FACTS, FakeEngine, FakeLeg, FakeSession
from voiced.call import MEDIA_TIMEOUT_S, Call, Services
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    Committed,
    EngineEvent,
    Lost,
    Ready,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
)
from voiced.formats import PCMU_8K
from voiced.journal import Journal, Row
from voiced.playout import Playout
from voiced.prompts import Prompts
from voiced.states import CallState
from voiced.talk.ending import GOODBYE_LIMIT_S
from voiced.talk.speaker import CHUNK_MS

RATE: Final = 8  # bytes a millisecond
MAX_ITEMS: Final = 100  # an item's audio is its number in every byte: below every code of silence
PROMPTS: Final = Prompts()  # converted once
MODEL: Final = ("ready", "speech", "silence", "commit", "begin", "audio", "item", "done", "end")
Status = Literal["completed", "cancelled", "incomplete", "failed"]


class LedgerJournal(Journal):
    """Keeps what was written, as it was when it was written."""

    def __init__(self) -> None:
        super().__init__(Path("unused"))
        self.written: list[tuple[str | None, bool]] = []

    def write(self, row: Row) -> None:
        self.written.append((row.reason, row.ended_at is not None))


class WatchedLeg(FakeLeg):
    """A carrier that knows whose audio it plays, and how far ahead it was sent."""

    def __init__(self, lead_ms: int) -> None:
        super().__init__()
        self._most = max(lead_ms, 2 * CHUNK_MS) * RATE
        self._generation: list[bytes] = []
        self.heard_of: dict[int, int] = {}  # item to bytes, of generations that are over
        self._cut: set[int] = set()

    def send(self, payload: bytes) -> None:
        super().send(payload)
        assert self.sent() - self.heard() <= self._most, "further ahead than the lead"
        owner = whose(payload)
        assert owner is None or owner not in self._cut, "audio of an item that was cut"
        self._generation.append(payload)

    def clear(self) -> int:
        heard = left = super().clear()
        for payload in self._generation:
            owner, step = whose(payload), min(left, len(payload))
            left -= step
            if owner is not None:
                self.heard_of[owner] = self.heard_of.get(owner, 0) + step
                if step < len(payload):
                    self._cut.add(owner)
        self._generation.clear()
        return heard


def whose(payload: bytes) -> int | None:
    """The model's item that `payload` is of; None for what voiced plays itself."""
    return payload[0] if 0 < payload[0] <= MAX_ITEMS and len(set(payload)) == 1 else None


@dataclass
class Model:
    """Turns words of the script into events that keep the engine's contract, and checks commands.

    The contract is kept as little as it can be: events come twice, not at all, or too late.
    """

    session: FakeSession
    leg: WatchedLeg
    response: str | None = None
    items: int = 0
    responses: int = 0
    received: dict[int, int] = field(default_factory=dict)
    judged: int = 0  # commands that were looked at

    def emit(self, *events: EngineEvent) -> None:
        self.judge()
        self.session.emit(*events)

    def act(self, word: str, amount: int) -> None:
        turn = f"u{self.responses}"
        match word:
            case "ready":
                self.emit(Ready())
            case "speech":
                self.emit(SpeechStarted(turn, 0))
            case "silence":
                self.emit(SpeechStopped(turn, 0))
            case "commit":
                self.emit(Committed(turn))
            case "begin":
                self.responses += 1
                self.response = f"r{self.responses}"
                self.emit(ResponseStarted(self.response))
            case "item":
                if self.items < MAX_ITEMS:
                    self.items += 1
                    self.say(amount)
            case "audio":
                self.say(amount)  # late, if the caller has interrupted it
            case "done" if self.response and self.items:
                self.emit(AgentTranscript(str(self.items), "what was said here", final=True))
                self.emit(AgentAudioDone(self.response, str(self.items)))
            case "end" if self.response:
                statuses: tuple[Status, ...] = ("completed", "cancelled", "incomplete", "failed")
                self.emit(ResponseDone(self.response, statuses[amount % 4]))

    def say(self, amount: int) -> None:
        # A session delivers no audio of a response that was cancelled, but for what is under way.
        if self.response and self.items:
            self.received[self.items] = self.received.get(self.items, 0) + amount
            payload = bytes([self.items]) * amount
            self.emit(AgentAudio(self.response, str(self.items), 0, payload))

    def judge(self) -> None:
        """What the model was told of its items is what the carrier played of them."""
        for command in self.session.commands[self.judged :]:
            if command[0] == "truncate":
                _, item, _, ms = command
                played = self.leg.heard_of.get(int(str(item)), 0)
                assert ms == played // RATE
                assert isinstance(ms, int)
                assert ms * RATE <= self.received[int(str(item))]
            elif command[0] == "delete":
                assert self.leg.heard_of.get(int(str(command[1])), 0) < RATE
        self.judged = len(self.session.commands)


def consistent(playout: Playout) -> None:
    """The ledger's own promises (design section 2)."""
    for item in playout.snapshot():
        assert 0 <= item.heard <= item.sent <= item.received
    total = playout.statistics()
    assert total.received == total.heard + total.unheard + total.dropped


AGENTS = st.builds(
    Agent,
    greeting=st.sampled_from([None, "Greet."]),
    connection_tone=st.booleans(),
    greeting_delay_ms=st.sampled_from([0, 500]),
    barge_in=st.sampled_from(["immediate", "off"]),
    farewell_text=st.sampled_from([None, "Bye!"]),
    silence_prompt_s=st.sampled_from([0.0, 3.0]),
    silence_hangup_s=st.sampled_from([0.0, 6.0]),
    max_duration_s=st.sampled_from([5.0, 60.0]),
    lead_ms=st.sampled_from([None, 100, 1000]),
)
WAITS = st.sampled_from([0.0, 0.001, 0.02, 0.33, 1.0, 5.0])
AMOUNTS = st.sampled_from([1, 7, 160, 1601, 8000, 40_000])
STEPS = st.tuples(
    st.one_of(
        st.sampled_from(MODEL),
        st.sampled_from(("begin", "item", "item", "end")),
        st.sampled_from(["attach", "say", "press", "stall", "flow"]),
    ),
    AMOUNTS,
    WAITS,
)
TALK = st.lists(STEPS, max_size=30)
TROUBLE = ("farewell", "unavailable", "lose", "hang_up", "drop", "operator")
SCRIPTS = st.one_of(
    TALK,
    st.tuples(TALK, st.tuples(st.sampled_from(TROUBLE), AMOUNTS, WAITS), TALK).map(
        lambda parts: [*parts[0], parts[1], *parts[2]]
    ),
)
ENDINGS = st.sampled_from(["stay", "hang_up", "drop", "operator", "cancel"])
TURNS = st.sampled_from(
    [
        ("speech", "silence", "commit", "begin", "item", "done", "end"),
        ("begin", "item", "end"),
        ("begin", "end"),
    ]
)
PRELUDES = st.sampled_from([(), ("attach", "ready"), ("ready", "attach")])


class Play:
    """One script, on a clock of its own."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.engine = FakeEngine()
        self.journal = LedgerJournal()
        self.leg = WatchedLeg(agent.lead_ms or FakeLeg.lead_ms)
        services = Services(self.journal, PROMPTS, {})
        self.call = Call(FACTS, "agent", agent, self.engine, PCMU_8K, services)
        self.attached = self.lost = False

    async def run(self, prelude: tuple[str, ...], script: list[tuple[str, int, float]]) -> None:
        await trio.testing.wait_all_tasks_blocked()
        self.model = Model(self.engine.sessions[0], self.leg)
        for word in prelude:
            await self.step(word, 0, 0.001)
        for word, amount, wait in script:
            if self.call.ended.is_set():
                break
            await self.step(word, amount, wait)

    async def step(self, word: str, amount: int, wait: float) -> None:
        self.do(word, amount)
        if wait:
            await trio.sleep(wait)
        await trio.testing.wait_all_tasks_blocked()
        self.model.judge()
        consistent(self.call.voice.playout)

    def do(self, word: str, amount: int) -> None:
        call, leg = self.call, self.leg
        match word:
            case "attach" if not self.attached:
                self.attached = True
                call.attach(leg)
            case "say" if not leg.closed:
                leg.say(b"\xff" * amount)
            case "press" if not leg.closed:
                leg.press("1")
            case "stall" if leg.stalled is None:
                leg.stalled = trio.Event()
            case "flow" if leg.stalled is not None:
                leg.stalled.set()
                leg.stalled = None
            case "farewell" | "unavailable":
                call.wind_down("asked", word)
            case "lose" if not self.lost:
                self.lost = True
                self.model.emit(Lost("gone", "", retryable=True))
            case "hang_up" if self.attached and not leg.closed:
                leg.hang_up_as_caller()
            case "drop" if self.attached and not leg.closed:
                leg.drop()
            case "operator":
                call.end("operator")
            case _ if word in MODEL and not self.lost:
                self.model.act(word, amount)

    async def converse(self, words: tuple[str, ...]) -> None:
        """After all that, a turn that the model completes ends in `listening`."""
        self.do("flow", 0)
        over = self.lost or self.call.record.reason is not None or not self.attached
        if over or self.call.record.state is CallState.ENDING:
            return
        if self.call.record.state is CallState.CALLER_SPEAKING and "speech" not in words:
            return  # the caller has the word
        event("one more turn")
        if self.call.record.model_state.value == "connecting":
            self.do("ready", 0)
        for word in words:
            self.model.act(word, 0 if word == "end" else 800)
        await trio.testing.wait_all_tasks_blocked()
        rest_s = self.call.voice.playout.unheard / (1000 * RATE)
        await trio.sleep(rest_s + 0.1)
        assert self.call.record.reason or self.call.record.state is CallState.LISTENING


async def play(
    agent: Agent,
    prelude: tuple[str, ...],
    script: list[tuple[str, int, float]],
    turn: tuple[str, ...],
    ending: str,
) -> None:
    p = Play(agent)
    async with trio.open_nursery() as outer:
        calls = await outer.start(serve, p)
        await p.run(prelude, script)
        if not p.call.ended.is_set():
            await p.converse(turn)
        limit_s = 1.1  # a hang-up is the end at once
        gone = p.attached and ending in ("hang_up", "drop")
        if ending == "cancel":
            calls.cancel()
        elif gone or ending == "operator":
            p.do(ending, 0)
        else:  # nobody does anything any more: `max_duration` ends it, or that no stream came
            p.do("flow", 0)
            rest_s = p.call.voice.playout.unheard / (1000 * RATE)
            limit_s = agent.max_duration_s + rest_s + GOODBYE_LIMIT_S + 2 * MEDIA_TIMEOUT_S
        with trio.fail_after(limit_s):
            await p.call.ended.wait()
        outer.cancel_scope.cancel()
    p.model.judge()
    consistent(p.call.voice.playout)
    assert p.call.voice.playout.idle
    assert p.call.record.state is CallState.ENDED
    (first, live), (reason, over) = p.journal.written  # one row, begun and completed
    assert (first, live, over) == (None, False, True)
    assert reason not in (None, "internal_error")
    assert p.model.session.closed
    assert p.leg.hung_up == p.attached
    event(f"reason {reason}")


async def serve(p: Play, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    """The nursery of a daemon's calls."""
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await p.call.run()


@settings(
    max_examples=800,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(AGENTS, PRELUDES, SCRIPTS, TURNS, ENDINGS)
def test_every_call_keeps_its_promises(
    agent: Agent,
    prelude: tuple[str, ...],
    script: list[tuple[str, int, float]],
    turn: tuple[str, ...],
    ending: str,
) -> None:
    with structlog.testing.capture_logs():
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(play, agent, prelude, script, turn, ending, clock=clock)
