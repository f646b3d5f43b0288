"""Whatever plugins, tools, carriers and engines do to a call, in whatever order: it lives and ends.

Illegal changes of state raise here, as everywhere in tests; so does a task of the call that fails.
What the caller must have heard is known by the telephone's own tape (`Tape`), which knows nothing
of the ledger: on hold nothing, of an answer its beginning without a hole, of its words as much.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from random import Random
from typing import Any, Final
from weakref import ref

import structlog.testing
import trio
import trio.testing
from hypothesis import HealthCheck, currently_in_test_context, event, example, given, settings
from hypothesis import strategies as st

from tests.fakes import FACTS, FakeEngine, FakeLeg
from tests.test_call_properties import LedgerJournal, consistent
from tests.test_call_words import at_once
from voiced.call import MEDIA_TIMEOUT_S, Call, Services
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    Lost,
    Ready,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)
from voiced.formats import PCMU_8K
from voiced.hooks.calls import CallHooks
from voiced.hooks.enabled import Enabled
from voiced.leg import Held, LegEvent, Transferred, Unsupported
from voiced.plugin import Audio, Greeting, Playing, Plugin, Settings, Tool
from voiced.prompts import Prompts
from voiced.states import CallState
from voiced.talk.ending import GOODBYE_LIMIT_S, LET_FINISH_S
from voiced.talk.fading import FADE_MS
from voiced.talk.greeting import LOCAL
from voiced.transcript import heard_text

PROMPTS: Final = Prompts()  # converted once
CLIP: Final = Audio(b"\x55" * 4000, PCMU_8K, "Half a second.")
TRANSFER_S: Final = 3.0
TOOL_S: Final = 2.0
REST_S: Final = 20.0
SAID: Final = "what was said, word by word"
RISE: Final = FADE_MS * PCMU_8K.bytes_per_ms

MODEL = ("ready", "speech", "silence", "commit", "begin", "item", "done", "end", "words", "tool")
LINKS = ("reconnecting", "resumed", "fallback", "lost")
CARRIER = ("attach", "say", "press", "hold", "back", "hang_up", "drop")
ACTS = ("play", "play_two", "say_exactly", "tell", "interrupt", "take", "give", "fact", "start")
ENDS = ("finish", "finish_clip", "finish_now", "transfer", "transfer_well", "wind_down", "lose")


class Hand(Plugin):
    """Does what the script says; takes every other key, has a tool, and a greeting if asked to."""

    config: Any

    async def on_call_start(self) -> None:
        self.config.hands.append(self.call)
        self.call.register_tool(Tool("slow", "Slow.", self._slow, filler="one_moment"))

    async def _slow(self, _arguments: object) -> str:
        await trio.sleep(TOOL_S)
        return "done"

    async def greeting(self, planned: Greeting) -> Greeting | None:
        if not self.config.greets:
            return None
        return Greeting((*planned.before, CLIP), CLIP if self.config.greets > 1 else None)

    async def on_digit(self, digit: str) -> bool:
        return digit == "2"

    async def on_caller_audio(self, payload: bytes, at_ms: int) -> None:
        self.config.heard += len(payload)

    async def on_agent_audio(self, payload: bytes, at_ms: int) -> None:
        self.config.heard += len(payload)


def note(text: str) -> None:
    """What has happened, for hypothesis' statistics."""
    if currently_in_test_context():
        event(text)


def sound(item: str, size: int) -> bytes:
    """An item's audio: no two places of it are alike that chunks could mistake, nor two items."""
    return (Random(item).randbytes(509) * (size // 509 + 1))[:size]


class Tape(FakeLeg):
    """A telephone that keeps what was heard in it."""

    def __init__(self, play: Play) -> None:
        super().__init__()
        self._play = play
        self.held = self.transferring = False
        self.heard_of: dict[str, int] = {}  # of the model's items, bytes, until the last clear
        self._pieces: list[tuple[str, int]] = []  # sent since then: item, bytes
        self._rises = 0  # bytes that may still rise from silence, after a pause

    async def receive(self) -> Sequence[LegEvent]:
        events = await super().receive()
        for each in events:
            if isinstance(each, Held):
                self.held = each.held
        return events

    def send(self, payload: bytes) -> None:
        call = self._play.call
        if call.record.state is not CallState.ENDING:
            assert not self.held, "nobody listens"
            assert not self.transferring, "nobody listens any more"
        talk = call._conversation
        confirming = None if talk is None else talk.dialogue.turns.confirming
        assert confirming is None or not confirming.pending, "the caller may be speaking"
        super().send(payload)
        chunk = call.voice.playout.next_chunk(1)
        assert chunk is not None
        item = chunk.item_id
        if not item.startswith(LOCAL):
            at = self.heard_of.get(item, 0) + sum(n for i, n in self._pieces if i == item)
            whole = sound(item, at + len(payload))
            risen = min(self._rises, len(payload))
            assert payload[risen:] == whole[at + risen :], "a hole, or said twice"
        self._rises = max(0, self._rises - len(payload))
        self._pieces.append((item, len(payload)))

    def clear(self) -> int:
        heard = super().clear()
        self._settle(heard)
        self._rises = RISE
        return heard

    def _settle(self, heard: int) -> None:
        for item, size in self._pieces:
            part = min(size, heard)
            heard -= part
            if part:
                self.heard_of[item] = self.heard_of.get(item, 0) + part
        self._pieces.clear()

    async def transfer(self, target: str) -> Transferred:
        self.transferring = True
        try:
            return await super().transfer(target)
        finally:
            self.transferring = False

    async def hang_up(self) -> None:
        await super().hang_up()
        self._settle(self.heard())


class Play:
    """One script, on a clock of its own."""

    def __init__(self, agent: Agent, greets: int, *, batches: bool = False) -> None:
        """With `batches` the model tells all that there is at a time, as sockets are read."""
        self.batches = batches
        self.hands: list[Any] = []
        self.greets = greets
        self.heard = 0
        self.engine = FakeEngine()
        self.leg = Tape(self)
        self.given: dict[str, int] = {}  # bytes of each item that the model made
        self.leg.outcome = self.transferred  # type: ignore[method-assign]
        self.well = False
        self.attached = self.lost = self.answering = False
        self.turns = self.answers = self.tools = 0
        self.playing: list[Playing] = []
        self.taken: list[AsyncExitStack] = []
        self.nursery: trio.Nursery | None = None
        hand = Enabled("hand", Hand, Settings())
        hand.config = self
        self.call = Call(
            FACTS,
            "agent",
            agent,
            self.engine,
            PCMU_8K,
            Services(LedgerJournal(), PROMPTS, {}),
            make_hooks=lambda make: CallHooks([hand, Enabled("two", Greeter, Settings())], make),
        )

    async def transferred(self, target: str) -> Transferred:
        await trio.sleep(TRANSFER_S)
        return Transferred(self.well)

    def emit(self, *events: Any) -> None:
        if not self.lost:
            session = self.engine.sessions[-1]
            if self.batches and session.receive.__name__ != "all_at_once":
                at_once(session)
            session.emit(*events)

    async def act(self, word: str) -> None:
        call, leg, emit = self.call, self.leg, self.emit
        turn, answer = f"u{self.turns}", f"r{self.answers}"
        hand = self.hands[0] if self.hands else None
        match word:
            case "ready":
                emit(Ready())
            case "speech":
                self.turns += 1
                emit(SpeechStarted(f"u{self.turns}", 0))
            case "silence":
                emit(SpeechStopped(turn, 0))
            case "commit":
                emit(Committed(turn))
            case "words":
                emit(CallerTranscript(turn, "words", final=True))
            case "begin":
                self.answers += 1
                self.answering = True
                emit(ResponseStarted(f"r{self.answers}"))
            case "item" if self.answering:
                before = self.given.get(f"a{answer}", 0)
                self.given[f"a{answer}"] = before + 8000
                emit(
                    AgentAudio(answer, f"a{answer}", 0, sound(f"a{answer}", before + 8000)[before:])
                )
            case "done" if self.answering:
                emit(AgentTranscript(f"a{answer}", SAID, final=True))
                emit(AgentAudioDone(answer, f"a{answer}"))
            case "end":
                self.answering = False
                emit(ResponseDone(answer, "completed"))
            case "tool":
                self.tools += 1
                emit(ToolCall(f"c{self.tools}", f"t{self.tools}", "slow", "{}"))
            case "reconnecting":
                self.answering = False  # the rest of it never comes
                emit(Reconnecting("gone", "gone"))
            case "resumed" | "fallback":
                fallback = word == "fallback"
                emit(Resumed("other", "model", fallback=fallback, answering=self.turns % 2 == 0))
            case "lost" | "lose":
                emit(Lost("gone", "gone", retryable=False))
                self.lost = True
            case "attach" if not self.attached and not call.ended.is_set():
                self.attached = True
                call.attach(leg)
            case "say" if self.attached and not leg.closed:
                leg.say(b"\xff" * 800)
            case "press" if self.attached and not leg.closed:
                leg.press("12"[self.turns % 2])
            case "hold" | "back" if self.attached and not leg.closed:
                leg.hold(word == "hold")
            case "hang_up" if self.attached and not leg.closed:
                leg.hang_up_as_caller()
            case "drop" if self.attached and not leg.closed:
                leg.drop()
            case "wind_down":
                call.wind_down("asked", "farewell")
            case _ if hand is not None:
                with suppress(Unsupported):
                    await self.use(hand, word)

    async def use(self, hand: Any, word: str) -> None:
        match word:
            case "play":
                self.playing.append(hand.play(CLIP))
            case "play_two":
                self.playing.append(hand.play(CLIP, "still_there"))
            case "say_exactly":
                hand.say("Words.")
            case "tell":
                hand.tell("A text.")
            case "interrupt":
                hand.interrupt()
            case "take":
                stack = AsyncExitStack()
                await stack.enter_async_context(hand.take_over())
                self.taken.append(stack)
            case "give" if self.taken:
                await self.taken.pop().aclose()
            case "fact":
                hand.set_fact("name", self.turns)
            case "start":
                hand.start(trio.sleep, 1)
            case "finish":
                hand.hang_up()
            case "finish_clip":
                hand.hang_up(farewell=CLIP)
            case "finish_now":
                hand.hang_up(now=True)
            case "transfer" | "transfer_well":
                self.well = word == "transfer_well"
                assert self.nursery is not None
                self.nursery.start_soon(self.transfer, hand)

    async def transfer(self, hand: Any) -> None:
        with suppress(Unsupported):
            await hand.transfer("+49301234")

    async def converse(self) -> None:
        """After all that an answer is heard, and the call listens."""
        if self.over() or not self.attached:
            return
        await self.act("back")
        connecting = self.call.record.model_state.value
        if connecting in ("connecting", "reconnecting"):
            await self.act("ready" if connecting == "connecting" else "resumed")
        with trio.move_on_after(REST_S):
            while not self.over() and not self.quiet:
                await self.act("end")  # what was asked for is over
                await trio.sleep(1)
        if self.over():
            return
        note("one more turn")
        self.turns += 1000
        for word in ("speech", "silence", "commit", "begin", "item", "done", "end"):
            await self.act(word)
            if word == "speech":  # the rest is not told with it
                await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1.5)
        item = f"ar{self.answers}"
        if not self.over():
            assert self.call.voice.playout.heard_ms(item) == 1000
            assert self.call.record.state is CallState.LISTENING

    @property
    def quiet(self) -> bool:
        call, transferring = self.call, self.call.record.state is CallState.TRANSFERRING
        return call.voice.playout.idle and not transferring and not call.toolbox.running

    def said_as_heard(self) -> None:
        """The journal has of every answer that was written down what the tape has of it."""
        playout, transcript = self.call.voice.playout, self.call.record.transcript
        for item in self.given:
            entry = transcript.get(item)
            heard, received = self.leg.heard_of.get(item, 0) // 8, playout.received_ms(item)
            assert heard == playout.heard_ms(item)
            if received and entry is not None:
                assert entry.text in ("", heard_text(SAID, heard, received))
                assert entry.text or not entry.final or not heard_text(SAID, heard, received)
                assert playout.was_cut(item) or not entry.cut
                assert entry.cut or not (playout.was_cut(item) and heard < received)
                note("cut" if entry.cut else "whole")

    def over(self) -> bool:
        record = self.call.record
        ending = record.state in (CallState.ENDING, CallState.ENDED)
        return self.lost or self.leg.closed or record.reason is not None or ending


class Greeter(Plugin):
    """Puts something before whatever the others have planned."""

    async def greeting(self, planned: Greeting) -> Greeting | None:
        return Greeting(("one_moment", *planned.before), planned.audio) if planned.before else None


AGENTS = st.builds(
    Agent,
    greeting=st.sampled_from(["", "Greet."]),
    barge_in=st.sampled_from(["immediate", "confirm", "off"]),
    farewell_text=st.sampled_from([None, "Bye!"]),
    silence_prompt_s=st.sampled_from([0.0, 3.0]),
    silence_hangup_s=st.sampled_from([0.0, 6.0]),
    max_duration_s=st.sampled_from([8.0, 60.0]),
    transfer_when_lost=st.sampled_from([None, "+49301"]),
)
WAITS = st.sampled_from([0.0, 0.001, 0.02, 0.4, 1.0, 5.0])
WORDS = st.one_of(
    st.sampled_from(MODEL),
    st.sampled_from(("speech", "silence", "commit", "begin", "item")),
    st.sampled_from(CARRIER[:5]),
    st.sampled_from(ACTS),
    st.sampled_from(LINKS[:3]),
)
TALK = st.lists(st.tuples(WORDS, WAITS), max_size=25)
TROUBLE = st.tuples(st.sampled_from((*ENDS, *CARRIER[5:])), WAITS)
SCRIPTS = st.tuples(TALK, st.lists(TROUBLE, max_size=2), TALK).map(
    lambda parts: [*parts[0], *parts[1], *parts[2]]
)
PRELUDES = st.sampled_from([(), ("attach", "ready"), ("ready", "attach"), ("attach",)])


async def play(
    agent: Agent,
    greets: int,
    prelude: tuple[str, ...],
    script: list[tuple[str, float]],
    batches: bool = False,
) -> Call:
    p = Play(agent, greets, batches=batches)
    async with trio.open_nursery() as nursery:
        p.nursery = nursery
        nursery.start_soon(p.call.run)
        await trio.testing.wait_all_tasks_blocked()
        for word, wait in [*((word, 0.001) for word in prelude), *script]:
            if p.call.ended.is_set():
                break
            await p.act(word)
            await trio.sleep(wait)
            await trio.testing.wait_all_tasks_blocked()
            consistent(p.call.voice.playout)
            if p.call.record.state is CallState.SPEAKING:
                note("spoke")
        while p.taken:
            await p.taken.pop().aclose()
        await p.converse()
        rest_s = p.call.voice.playout.unheard / 8000 + TRANSFER_S + LET_FINISH_S
        limit_s = agent.max_duration_s + rest_s + GOODBYE_LIMIT_S + 3 * MEDIA_TIMEOUT_S
        with trio.fail_after(limit_s):
            await p.call.ended.wait()
        for playing in p.playing:
            with trio.fail_after(1):
                await playing.heard()
    record = p.call.record
    assert record.state is CallState.ENDED
    assert record.reason not in (None, "internal_error")
    assert p.call.voice.playout.idle
    assert p.leg.hung_up == p.attached
    assert not p.call.clipboard._unread
    assert not p.call.clipboard._unheard
    p.said_as_heard()
    note(f"reason {record.reason}")
    return p.call


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(AGENTS, st.integers(0, 2), PRELUDES, SCRIPTS, st.booleans())
@example(  # audio of words that the model was told nobody has heard
    Agent(greeting=""),
    0,
    ("attach", "ready"),
    [("begin", 0.0), ("done", 0.0), ("interrupt", 0.0), ("item", 0.0)],
    False,
)
def test_every_call_with_plugins_lives_and_ends(
    agent: Agent,
    greets: int,
    prelude: tuple[str, ...],
    script: list[tuple[str, float]],
    batches: bool,
) -> None:
    with structlog.testing.capture_logs() as logs:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(play, agent, greets, prelude, script, batches, clock=clock)
    wrong = [line for line in logs if line["log_level"] == "error" and "blocked_ms" not in line]
    assert not wrong, wrong


SOAKED: Final = 100
"""Calls, the first half of which fill every cache there is."""

MAX_LEFT: Final = 2048  # bytes a call: a reference that is kept keeps fifty times as much


def drawn(rng: Random) -> tuple[Agent, int, tuple[str, ...], list[tuple[str, float]], bool]:
    """A call like those that hypothesis draws, but long, and with all that there is in it."""
    agent = Agent(
        greeting=rng.choice(["", "Greet."]),
        barge_in=rng.choice(["immediate", "confirm", "off"]),
        farewell_text=rng.choice([None, "Bye!"]),
        silence_prompt_s=rng.choice([0.0, 3.0]),
        silence_hangup_s=rng.choice([0.0, 30.0]),
        max_duration_s=rng.choice([20.0, 120.0]),
        transfer_when_lost=rng.choice([None, "+49301"]),
    )
    turn = ("speech", "silence", "commit", "words", "begin", "item", "item", "done", "end")
    others = (*MODEL, *CARRIER[1:5], *ACTS, *LINKS[:3], "transfer")
    script: list[tuple[str, float]] = []
    for _ in range(rng.randint(1, 5)):
        script += [(word, rng.choice([0.0, 0.02, 0.4])) for word in turn]
        script += [
            (rng.choice(others), rng.choice([0.0, 0.02, 1.0])) for _ in range(rng.randint(0, 4))
        ]
    if rng.random() < 0.7:
        script.append((rng.choice((*ENDS, *CARRIER[5:], "lost")), 1.0))
    return agent, rng.randint(0, 2), ("attach", "ready"), script, rng.random() < 0.5


async def soak(seed: int, logs: list[Any]) -> tuple[Counter[str], int]:
    """Many calls one after the other; returns how they ended, and the bytes that each has left.

    `play` judges each by its tape; here it is that nothing of one outlives it.
    """
    rng, reasons = Random(seed), Counter[str]()
    gone: list[ref[Call]] = []
    before = trio.lowlevel.current_statistics().tasks_living
    base = 0
    for number in range(SOAKED):
        call = await play(*drawn(rng))
        reasons[str(call.record.reason)] += 1
        gone.append(ref(call))
        del call
        assert trio.lowlevel.current_statistics().tasks_living == before
        if number % 25 == 24:
            wrong = [line for line in logs if line["log_level"] == "error"]
            assert not [line for line in wrong if "blocked_ms" not in line]
            logs.clear()
            gc.collect()
            assert not [each for each in gone if each() is not None]
            if number < SOAKED // 2:
                base = tracemalloc.get_traced_memory()[0]
    left = tracemalloc.get_traced_memory()[0] - base
    return reasons, left // (SOAKED // 2)


def test_many_calls_leave_nothing() -> None:
    tracemalloc.start()
    try:
        with structlog.testing.capture_logs() as logs:
            clock = trio.testing.MockClock(autojump_threshold=0)
            reasons, left = trio.run(soak, 5, logs, clock=clock)
    finally:
        tracemalloc.stop()
    assert left < MAX_LEFT
    assert len(reasons) >= 6, reasons  # all sorts of ends were among them
