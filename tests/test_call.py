"""The call on a virtual clock: a fake leg, a fake model, everything between them real."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import structlog.testing
import trio
import trio.testing

from tests.fakes import FACTS, FakeEngine, FakeLeg, FakeSession
from voiced import clips, prompts
from voiced.audio import convert
from voiced.call import Call, Services
from voiced.config.types import Agent, Price
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    EngineEvent,
    Lost,
    Ready,
    ResponseDone,
    ResponseStarted,
    Said,
    SpeechStarted,
    SpeechStopped,
    Usage,
)
from voiced.formats import PCM16_8K, PCM16_24K, PCMU_8K
from voiced.journal import Journal, Row
from voiced.prompts import Prompts
from voiced.states import CallState

PRICES = {"test-model": Price(audio_in=10.0, audio_out=20.0)}
USAGE = Usage(audio_in=1000, audio_out=2000)
TICK = 0.001


@dataclass
class Scene:
    """A call that runs, with its leg attached and its model at hand."""

    call: Call
    leg: FakeLeg
    engine: FakeEngine
    journal: Journal

    @property
    def model(self) -> FakeSession:
        return self.engine.sessions[0]

    def at(self, state: CallState) -> bool:
        return self.call.record.state is state

    def rows(self) -> list[Row]:
        rows: list[Row] = []
        while True:
            try:
                entry = self.journal._receive.receive_nowait()
                assert isinstance(entry, Row)
                rows.append(entry)
            except trio.WouldBlock:
                return rows


@asynccontextmanager
async def scene(
    agent: Agent | None = None, *, attach: bool = True, **formats: object
) -> AsyncIterator[Scene]:
    engine = FakeEngine(**formats)  # type: ignore[arg-type]
    journal = Journal(Path("unused"))
    engine.model = "test-model"
    call = Call(
        FACTS,
        "reception",
        agent or Agent(),
        engine,
        PCMU_8K,
        Services(journal, Prompts(), PRICES),
    )
    leg = FakeLeg()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        if attach:
            call.attach(leg)
        await trio.sleep(TICK)
        yield Scene(call, leg, engine, journal)
        call.end("test_over")
        with trio.fail_after(30):
            await call.ended.wait()


def answer(item: str, ms: int, *, response: str | None = None) -> list[EngineEvent]:
    """A whole answer of `ms`, in deltas of 200 ms, as a server sends it."""
    response = response or f"resp_{item}"
    audio = [
        AgentAudio(response, item, 0, b"\x21" * (8 * min(200, ms - at))) for at in range(0, ms, 200)
    ]
    return [
        ResponseStarted(response),
        *audio,
        AgentTranscript(item, "one two three four five six seven eight nine ten", final=True),
        AgentAudioDone(response, item),
        ResponseDone(response, "completed", usage=USAGE),
    ]


def turn(item: str = "item_u1") -> list[EngineEvent]:
    return [SpeechStarted(item, 0), SpeechStopped(item, 1000), Committed(item)]


async def test_the_line_at_the_end_says_how_long_each_state_lasted(autojump_clock: object) -> None:
    """However often it was entered; in the row every change has its time."""
    with structlog.testing.capture_logs() as logs:
        async with scene(Agent(greeting="")) as s:
            s.model.emit(Ready())
            for number in range(3):
                await trio.sleep(1)
                s.model.emit(*turn(f"item_u{number}"))
                await trio.sleep(0.5)
                s.model.emit(*answer(f"item_a{number}", 2000))
                await trio.sleep(2 + TICK)
    (ended,) = [each for each in logs if each["event"] == "call ended"]
    lasted = ended["state_ms"]
    row = s.rows()[-1]
    assert set(lasted) == {state for state, _ in row.states} - {"ended"}
    assert lasted["listening"] == pytest.approx(3000, abs=100)
    assert lasted["thinking"] == pytest.approx(1500, abs=100)
    assert lasted["speaking"] == pytest.approx(6000, abs=100)
    assert sum(lasted.values()) == row.duration_ms
    for (state, at), (_, until) in pairwise(row.states):
        lasted[state] -= until - at
    assert not any(lasted.values())


async def test_conversation_goes_round_the_states(autojump_clock: trio.testing.MockClock) -> None:
    async with scene(Agent(greeting="Greet.")) as s:
        assert s.at(CallState.GREETING)
        s.model.emit(Ready())
        await trio.sleep(TICK)
        assert s.model.commands == [("respond", "Greet.")]
        s.model.emit(*answer("item_g", 1000))
        await trio.sleep(0.5)
        assert s.at(CallState.GREETING)
        await trio.sleep(0.6)
        assert s.at(CallState.LISTENING)
        s.leg.say(b"\x55" * 160)
        await trio.sleep(TICK)
        assert s.model.heard == b"\x55" * 160
        s.model.emit(SpeechStarted("item_u1", 100))
        await trio.sleep(1)
        assert s.at(CallState.CALLER_SPEAKING)
        s.model.emit(SpeechStopped("item_u1", 1100), Committed("item_u1"))
        await trio.sleep(TICK)
        assert s.at(CallState.THINKING)
        await trio.sleep(0.3)
        s.model.emit(*answer("item_a", 2000))
        s.model.emit(CallerTranscript("item_u1", "Merhaba", final=True))
        await trio.sleep(TICK)
        assert s.at(CallState.SPEAKING)
        await trio.sleep(2.1)
        assert s.at(CallState.LISTENING)
        s.leg.hang_up_as_caller()
        await s.call.ended.wait()
        row = s.rows()[-1]
    assert row.reason == "caller_hangup"
    assert [state for state, _ in row.states] == [
        *("ringing", "answering", "media_ready", "greeting", "listening"),
        *("caller_speaking", "committing", "thinking", "speaking", "listening", "ended"),
    ]
    assert [(e.role, e.text[:7], e.cut) for e in row.transcript] == [
        ("agent", "one two", False),
        ("caller", "Merhaba", False),
        ("agent", "one two", False),
    ]
    assert row.usage == {"audio_in": 2000, "audio_out": 4000}
    assert row.cost_usd == pytest.approx(2 * (1000 * 10 + 2000 * 20) / 1e6)
    # Speech ended 500 ms (the silence of the turn detection) before speech_stopped came.
    assert row.latencies["answers_ms"] == [pytest.approx(801, abs=3)]
    assert s.leg.hung_up
    assert s.model.closed


async def test_first_frame_does_not_wait_for_the_second(autojump_clock: object) -> None:
    async with scene() as s:
        s.model.emit(Ready(), ResponseStarted("r"), AgentAudio("r", "a", 0, b"\x21" * 160))
        await trio.testing.wait_all_tasks_blocked()
        assert [payload for _, payload in s.leg.played] == [b"\x21" * 160]


async def test_audio_ahead_of_the_play_clock_is_bounded(autojump_clock: object) -> None:
    async with scene(Agent(lead_ms=1000)) as s:
        s.model.emit(Ready(), *answer("item_a", 10_000))
        began = trio.current_time()
        while not s.at(CallState.LISTENING) or trio.current_time() - began < 1:
            await trio.sleep(0.05)
            assert s.leg.sent() - s.leg.heard() <= 1000 * 8
        assert s.leg.bytes_played() == 80_000
        # Never dry: what had been sent always reached past the moment the next piece went out.
        played = 0.0
        for at, payload in s.leg.played:
            assert at - began <= played + 1e-6
            played += len(payload) / 8000


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("generating", [("cancel",), ("truncate", "item_a", 0, 700)]),
        ("all sent, still playing", [("truncate", "item_a", 0, 700)]),
        ("second item queued", [("truncate", "item_a", 0, 700), ("delete", "item_b")]),
    ],
)
async def test_barge_in_while_heard(
    autojump_clock: object, phase: str, expected: list[tuple[object, ...]]
) -> None:
    async with scene(Agent(lead_ms=2000)) as s:
        s.model.emit(Ready())
        events = answer("item_a", 1400)
        if phase == "generating":
            events = events[:-2]
        s.model.emit(*events)
        if phase == "second item queued":
            s.model.emit(*answer("item_b", 1400))
        await trio.sleep(0.7)
        s.model.emit(SpeechStarted("item_u", 0))
        await trio.testing.wait_all_tasks_blocked()
        assert s.model.commands == expected
        assert len(s.leg.clears) == 1
        assert s.at(CallState.CALLER_SPEAKING)
        # Late deltas of what was cut are not heard.
        sent = s.leg.bytes_played()
        s.model.emit(AgentAudio("resp_item_a", "item_a", 0, b"\x21" * 1600))
        await trio.sleep(1)
        assert s.leg.bytes_played() == sent
        # And the next answer is.
        s.model.emit(SpeechStopped("item_u", 900), Committed("item_u"), *answer("item_c", 400))
        await trio.sleep(0.1)
        assert s.leg.bytes_played() == sent + 400 * 8
        text = {e.item_id: (e.text, e.cut) for e in s.call.record.transcript.entries()}
        assert text["item_a"] == ("one two three four five", True)
        assert "item_b" not in text


async def test_barge_in_before_anything_is_heard(autojump_clock: object) -> None:
    async with scene(attach=False) as s:
        s.model.emit(Ready(), *answer("item_a", 1400))
        await trio.testing.wait_all_tasks_blocked()
        s.model.emit(SpeechStarted("item_u", 0))
        await trio.testing.wait_all_tasks_blocked()
        assert s.model.commands == [("delete", "item_a")]
        s.call.attach(s.leg)
        await trio.sleep(1)
        assert s.leg.played == []


async def test_barge_in_before_the_response_exists(autojump_clock: object) -> None:
    async with scene() as s:
        s.model.emit(Ready(), *turn(), ResponseStarted("r1"))
        await trio.testing.wait_all_tasks_blocked()
        s.model.emit(SpeechStarted("item_u2", 2000))
        await trio.testing.wait_all_tasks_blocked()
        assert s.model.commands == [("cancel",)]
        assert s.leg.clears  # an empty buffer is cleared too: it costs nothing and is safe


async def test_no_barge_in_where_it_is_off(autojump_clock: object) -> None:
    async with scene(Agent(barge_in="off")) as s:
        s.model.emit(Ready(), *answer("item_a", 1000))
        await trio.sleep(0.2)
        s.model.emit(SpeechStarted("item_u", 0))
        await trio.sleep(1)
        assert s.leg.clears == []
        assert s.leg.bytes_played() == 8000


def in_real_time(clock: trio.testing.MockClock) -> None:
    """Files are read in threads, which know nothing of a virtual clock: let it run as theirs."""
    clock.autojump_threshold, clock.rate = math.inf, 1.0


def in_virtual_time(clock: trio.testing.MockClock) -> None:
    clock.autojump_threshold, clock.rate = 0.0, 0.0


async def test_tone_delay_and_recorded_greeting_stand_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    source = Path(clips.__file__).parent / "still_there.wav"
    agent = Agent(connection_tone=True, greeting_delay_ms=500, greeting_files=(source, source))
    lead = prompts.tone(PCMU_8K) + PCMU_8K.silence(500)
    spoken = convert(clips.load("still_there").pcm, PCM16_8K, PCMU_8K)
    in_real_time(autojump_clock)
    async with scene(agent, attach=False) as s:
        while s.call.voice.playout.unheard < len(lead) + 2 * len(spoken):
            await trio.sleep(TICK)
        in_virtual_time(autojump_clock)
        s.call.attach(s.leg)
        await trio.sleep(10)
        assert b"".join(payload for _, payload in s.leg.played) == lead + spoken + spoken


async def test_unreadable_greeting_file_is_a_log_line(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    in_real_time(autojump_clock)
    with structlog.testing.capture_logs() as logs:
        async with scene(Agent(greeting_files=(tmp_path / "bad.wav", tmp_path / "none.wav"))) as s:
            while not s.at(CallState.LISTENING):  # nobody is greeted
                await trio.sleep(TICK)
            in_virtual_time(autojump_clock)
    left_out = [line["error"] for line in logs if line["event"] == "greeting file left out"]
    assert left_out == ["is not a WAV file", "cannot be read: No such file or directory"]


async def test_model_speaks_pcm(autojump_clock: object) -> None:
    async with scene(input_format=PCM16_24K, output_format=PCM16_24K) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        s.leg.say(b"\xff" * 1600)
        s.model.emit(
            ResponseStarted("r"),
            AgentAudio("r", "a", 0, bytes(9600)),
            AgentAudioDone("r", "a"),
            ResponseDone("r", "completed"),
        )
        await trio.sleep(1)
        assert len(s.model.heard) == pytest.approx(9600, abs=48 * 6)
        assert s.leg.bytes_played() == pytest.approx(1600, abs=8 * 6)


@pytest.mark.parametrize("first", [True, False])
async def test_lost_model_ends_with_a_message(autojump_clock: object, first: bool) -> None:
    async with scene() as s:
        if not first:
            s.model.emit(Ready())
            await trio.sleep(1)
        s.model.emit(Lost("1006", "gone", retryable=True))
        began = trio.current_time()
        await s.call.ended.wait()
        message = clips.load("unavailable").duration_ms / 1000
        assert trio.current_time() - began == pytest.approx(message, abs=0.3)
        assert s.leg.bytes_played() == pytest.approx(message * 8000, abs=160)
        assert s.rows()[-1].reason == ("model_unreachable" if first else "model_lost")


async def test_model_lost_before_the_stream_came(autojump_clock: object) -> None:
    async with scene(attach=False) as s:
        s.model.emit(Lost("401", "no", retryable=False))
        await trio.sleep(2)
        s.call.attach(s.leg)
        await s.call.ended.wait()
        assert s.leg.played
        assert s.rows()[-1].reason == "model_unreachable"


async def test_silent_model_is_covered_then_given_up(autojump_clock: object) -> None:
    async with scene(Agent(no_answer_s=4.0, silence_prompt_s=60, silence_hangup_s=90)) as s:
        s.model.emit(Ready(), *turn())
        began = trio.current_time()
        await trio.sleep(4.1)
        assert s.leg.played
        assert s.leg.played[0][0] - began == pytest.approx(4.0, abs=0.05)
        await s.call.ended.wait()
        assert s.rows()[-1].reason == "model_silent"
        assert trio.current_time() - began == pytest.approx(
            12 + clips.load("unavailable").duration_ms / 1000, abs=0.5
        )


async def test_silent_caller_is_asked_once_then_the_call_ends(autojump_clock: object) -> None:
    async with scene(Agent(silence_prompt_s=15, silence_hangup_s=30)) as s:
        s.model.emit(Ready())
        began = trio.current_time()
        await s.call.ended.wait()
        assert s.rows()[-1].reason == "caller_silence"
        assert s.leg.played[0][0] - began == pytest.approx(15, abs=0.1)
        spoken = clips.load("still_there").duration_ms + clips.load("farewell").duration_ms
        assert s.leg.bytes_played() == pytest.approx(spoken * 8, abs=320)
        assert trio.current_time() - began == pytest.approx(
            30 + clips.load("farewell").duration_ms / 1000, abs=0.5
        )


async def test_longest_duration_ends_with_the_agents_farewell(autojump_clock: object) -> None:
    async with scene(Agent(max_duration_s=10, farewell_text="Bye!")) as s:
        s.model.emit(Ready())
        await trio.sleep(10.1)
        assert s.at(CallState.ENDING)
        assert s.model.commands == [
            ("respond", 'Say exactly the following words and nothing else: "Bye!"')
        ]
        s.model.emit(*answer("item_bye", 1000))
        await s.call.ended.wait()
        assert s.rows()[-1].reason == "max_duration"
        at, _ = s.leg.played[0]
        assert trio.current_time() - at == pytest.approx(1.0, abs=0.1)  # to its last sample


async def test_farewell_that_does_not_come_is_replaced(autojump_clock: object) -> None:
    async with scene(Agent(max_duration_s=5, farewell_text="Bye!")) as s:
        s.model.emit(Ready())
        await s.call.ended.wait()
        assert s.leg.bytes_played() == pytest.approx(
            clips.load("farewell").duration_ms * 8, abs=160
        )


async def test_stream_that_never_comes(autojump_clock: object) -> None:
    async with scene(attach=False) as s:
        with trio.fail_after(61):
            await s.call.ended.wait()
        assert s.rows()[-1].reason == "no_media"
        assert s.model.closed


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.3, 1.5, 2.5])
@pytest.mark.parametrize("how", ["stop", "drop", "end"])
async def test_hang_up_at_any_moment_releases_everything(
    autojump_clock: object, moment: float, how: str
) -> None:
    async with scene(Agent(greeting="Hi", connection_tone=True)) as s:
        s.model.emit(Ready(), *answer("g", 1000), *turn(), *answer("a", 1000))
        await trio.sleep(moment)
        if how == "stop":
            s.leg.hang_up_as_caller()
        elif how == "drop":
            s.leg.drop()
        else:
            s.call.end("operator")
        with trio.fail_after(0.5):
            await s.call.ended.wait()
        assert s.model.closed
        assert s.leg.hung_up


async def test_slow_carrier_holds_the_model_back(autojump_clock: object) -> None:
    async with scene(Agent(silence_prompt_s=0, silence_hangup_s=0)) as s:
        s.leg.stalled = trio.Event()
        s.model.emit(Ready(), ResponseStarted("r"))
        for _ in range(2500):  # 500 s of audio
            s.model.emit(AgentAudio("r", "a", 0, b"\x21" * 1600))
        s.model.emit(AgentAudioDone("r", "a"))
        await trio.sleep(5)
        assert s.call.voice.playout.unheard <= 240_000 * 8 + 1600
        s.leg.stalled.set()
        await trio.sleep(520)
        assert s.leg.bytes_played() == 2500 * 1600


async def test_caller_who_speaks_keeps_the_call(autojump_clock: object) -> None:
    async with scene(Agent(silence_prompt_s=5, silence_hangup_s=8)) as s:
        s.model.emit(Ready())
        for n in range(5):
            await trio.sleep(4)
            s.model.emit(*turn(f"u{n}"), *answer(f"a{n}", 1000))
            await trio.sleep(1.5)
            assert s.at(CallState.LISTENING)
        s.leg.press("5")
        await trio.sleep(4)
        assert s.at(CallState.LISTENING)
        assert s.model.commands[-1] == ("add_message", "system", "The caller pressed the key 5.")


def test_agent_settings_are_whole() -> None:
    """The fakes above rely on these defaults."""
    agent = Agent()
    assert (agent.silence_prompt_s, agent.silence_hangup_s, agent.no_answer_s) == (15, 30, 4)
    assert msgspec.structs.replace(agent, lead_ms=1).lead_ms == 1
    assert not math.isnan(agent.max_duration_s)


async def test_a_text_in_the_callers_name_is_theirs_in_the_history(autojump_clock: object) -> None:
    """And nowhere said: the transcript is what was heard."""
    async with scene(Agent(greeting="")) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        s.call.dialogue.tell("system", "They have an account.", answer=False)
        s.call.dialogue.tell("user", "I am in a hurry.", answer=False)
        assert s.call.plan.history() == [
            Said("system", "They have an account."),
            Said("user", "I am in a hurry."),
        ]
    assert s.rows()[-1].transcript == []
