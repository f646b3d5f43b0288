"""Corners of a call in which it once got stuck, said the wrong thing, or remembered it wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.fakes import FACTS, FakeEngine, FakeLeg
from tests.test_call import PRICES, TICK, Scene, answer, in_real_time, in_virtual_time, scene, turn
from voiced import clips
from voiced.call import Call, Services
from voiced.config.types import Agent, Config
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    Lost,
    Ready,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
)
from voiced.formats import PCM16_24K, PCMU_8K
from voiced.journal import Journal
from voiced.prompts import Prompts
from voiced.states import CallState
from voiced.switchboard import Setup, Switchboard
from voiced.twiliocalls import TwilioCalls
from voiced.web.switchboard import Admitted, VoiceRequest


def heard(s: Scene) -> int:
    return sum(len(payload) for _, payload in s.leg.played)


def states(s: Scene) -> list[str]:
    return [state for state, _ in s.call.record._states]


# ---- states that were never left


@pytest.mark.parametrize("status", ["completed", "incomplete"])
async def test_greeting_without_audio_is_over(autojump_clock: object, status: str) -> None:
    async with scene(Agent(greeting="Greet.", silence_hangup_s=30)) as s:
        s.model.emit(Ready(), ResponseStarted("r"), ResponseDone("r", status))  # type: ignore[arg-type]
        await trio.sleep(TICK)
        assert s.at(CallState.LISTENING)
        with trio.fail_after(40):
            await s.call.ended.wait()
        assert s.rows()[-1].reason == "caller_silence"


async def test_greeting_files_that_all_fail_leave_the_caller_the_word(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    in_real_time(autojump_clock)
    async with scene(Agent(greeting_files=(tmp_path / "none.wav",))) as s:
        while s.call.record.media_at is None:
            await trio.sleep(TICK)
        in_virtual_time(autojump_clock)
        await trio.sleep(TICK)
        assert s.at(CallState.LISTENING)


async def test_tone_does_not_end_the_greeting_that_is_still_to_come(autojump_clock: object) -> None:
    async with scene(Agent(greeting="Greet.", connection_tone=True)) as s:
        await trio.sleep(1)  # the tone is over, the model not yet there
        assert s.at(CallState.GREETING)
        s.model.emit(Ready(), *answer("g", 1000))
        await trio.sleep(1.1)
        assert states(s)[3:] == ["greeting", "listening"]


async def test_slow_connection_is_covered_like_a_slow_answer(autojump_clock: object) -> None:
    async with scene(Agent(greeting="Greet.", no_answer_s=4)) as s:
        await trio.sleep(4.1)
        assert heard(s) > 0


async def test_response_that_ends_without_audio_done_ends_the_turn(autojump_clock: object) -> None:
    async with scene() as s:
        s.model.emit(Ready(), ResponseStarted("r"), AgentAudio("r", "a", 0, b"\x21" * 1600))
        s.model.emit(ResponseDone("r", "failed", "server_error"))
        await trio.sleep(1)
        assert s.at(CallState.LISTENING)


async def test_commit_that_never_comes_is_covered(autojump_clock: object) -> None:
    async with scene(Agent(no_answer_s=4)) as s:
        s.model.emit(Ready(), SpeechStarted("u", 0), SpeechStopped("u", 900))
        await trio.sleep(4.1)
        assert s.at(CallState.COMMITTING)
        assert heard(s) > 0


async def test_server_that_answers_without_saying_committed(autojump_clock: object) -> None:
    async with scene() as s:
        s.model.emit(Ready(), SpeechStarted("u", 0), SpeechStopped("u", 900))
        s.model.emit(ResponseStarted("r"), ResponseDone("r", "completed"))
        await trio.sleep(TICK)
        assert s.at(CallState.LISTENING)


async def test_answer_without_audio_during_the_filler(autojump_clock: object) -> None:
    async with scene(Agent(no_answer_s=4, silence_prompt_s=0, silence_hangup_s=0)) as s:
        s.model.emit(Ready(), *turn(), ResponseStarted("r"))
        await trio.sleep(4.2)  # "one moment" is being played
        s.model.emit(ResponseDone("r", "completed"))
        await trio.sleep(15)
        assert s.at(CallState.LISTENING)


async def test_answer_without_audio_while_barge_in_is_off(autojump_clock: object) -> None:
    agent = Agent(barge_in="off", silence_prompt_s=0, silence_hangup_s=0)
    async with scene(agent) as s:
        s.model.emit(Ready(), *answer("a", 3000))
        await trio.sleep(0.1)
        s.model.emit(*turn(), ResponseStarted("r2"), ResponseDone("r2", "completed"))
        await trio.sleep(20)
        assert s.at(CallState.LISTENING)
        assert heard(s) == 3000 * 8


async def test_done_of_a_cancelled_response_settles_nothing_newer(autojump_clock: object) -> None:
    async with scene(Agent(no_answer_s=4)) as s:
        s.model.emit(Ready(), ResponseStarted("r1"), *turn("u1"))
        await trio.sleep(TICK)
        s.model.emit(ResponseDone("r1", "cancelled"))
        await trio.sleep(TICK)
        assert s.at(CallState.THINKING)
        s.model.emit(ResponseStarted("r2"), ResponseDone("r1", "cancelled"))
        await trio.sleep(TICK)
        s.model.commands.clear()
        s.model.emit(SpeechStarted("u2", 0))
        await trio.sleep(TICK)
        assert s.model.commands == [("cancel",)]


# ---- interruptions


async def test_caller_who_goes_on_takes_back_the_question(autojump_clock: object) -> None:
    """The response is asked for and not begun: it must not be spoken over the caller."""
    async with scene(Agent(greeting="Greet.")) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        s.model.emit(SpeechStarted("u", 0))
        await trio.sleep(TICK)
        assert s.model.commands == [("respond", "Greet."), ("cancel",)]


async def test_tail_of_the_resampler_belongs_to_its_part(autojump_clock: object) -> None:
    async with scene(output_format=PCM16_24K) as s:
        s.model.emit(Ready(), ResponseStarted("r"), AgentAudio("r", "a", 1, bytes(9600)))
        s.model.emit(AgentAudioDone("r", "a"), ResponseDone("r", "completed"))
        await trio.sleep(1)
        assert {item.content_index for item in s.call.voice.playout.snapshot()} == {1}


# ---- the end


@pytest.mark.parametrize("how", ["caller", "operator", "farewell"])
async def test_transcript_ends_where_the_call_did(autojump_clock: object, how: str) -> None:
    async with scene(Agent(max_duration_s=1.0 if how == "farewell" else 99)) as s:
        s.model.emit(Ready(), *answer("a", 2000), *answer("b", 2000))
        await trio.sleep(1 - TICK)
        if how == "caller":
            s.leg.hang_up_as_caller()
        elif how == "operator":
            s.call.end("operator")
        await s.call.ended.wait()
        entries = s.rows()[-1].transcript
    assert [(e.item_id, e.text, e.cut) for e in entries] == [("a", "one two three four five", True)]


async def test_farewell_tells_the_model_what_it_cut(autojump_clock: object) -> None:
    async with scene(Agent(max_duration_s=1)) as s:
        s.model.emit(Ready(), *answer("a", 2000)[:-2])
        await trio.sleep(1.1)
        assert [command[0] for command in s.model.commands] == ["cancel", "truncate"]


async def test_model_lost_in_its_farewell_does_not_hold_the_line(autojump_clock: object) -> None:
    async with scene(Agent(max_duration_s=1, farewell_text="Bye!")) as s:
        s.model.emit(Ready())
        await trio.sleep(1.1)
        s.model.emit(ResponseStarted("r"), AgentAudio("r", "bye", 0, b"\x21" * 1600))
        await trio.sleep(TICK)
        s.model.emit(Lost("1006", "gone", retryable=True))
        with trio.fail_after(2):
            await s.call.ended.wait()


async def test_message_is_heard_behind_a_long_rest(autojump_clock: object) -> None:
    async with scene() as s:
        s.model.emit(Ready(), *answer("a", 40_000), Lost("1006", "gone", retryable=True))
        await s.call.ended.wait()
        message = clips.load("unavailable").duration_ms
        assert heard(s) == pytest.approx((40_000 + message) * 8, abs=160)


async def test_answer_that_is_owed_is_not_taken_for_the_farewell(autojump_clock: object) -> None:
    async with scene(Agent(max_duration_s=1, farewell_text="Bye!")) as s:
        s.model.emit(Ready())
        await trio.sleep(0.9)
        s.model.emit(*turn())
        await trio.sleep(0.2)
        assert [command[0] for command in s.model.commands] == ["cancel", "respond"]


async def test_model_lost_before_media_with_its_greeting_at_hand(autojump_clock: object) -> None:
    for _ in range(8):  # which task comes first is Trio's choice
        async with scene(attach=False) as s:
            s.model.emit(Ready(), *answer("g", 400))
            await trio.sleep(TICK)
            s.model.emit(Lost("1006", "gone", retryable=True))
            await trio.sleep(TICK)
            s.call.attach(s.leg)
            await s.call.ended.wait()
            assert s.rows()[-1].reason == "model_lost"
            assert states(s)[2:] == ["media_ready", "ending", "ended"]


async def test_first_reason_stays(autojump_clock: object) -> None:
    async with scene() as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        s.call.end("operator")
        s.call.wind_down("model_lost", "unavailable")
        await s.call.ended.wait()
        assert s.rows()[-1].reason == "operator"


class SlowLeg(FakeLeg):
    """Its carrier takes long to hang up."""

    async def hang_up(self) -> None:
        await trio.sleep_forever()


async def test_farewell_asked_of_a_call_that_is_being_released(autojump_clock: object) -> None:
    journal = Journal(Path("unused"))
    services = Services(journal, Prompts(), PRICES)
    call = Call(FACTS, "a", Agent(), FakeEngine(), PCMU_8K, services)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        call.attach(leg := SlowLeg())
        await trio.sleep(TICK)
        leg.hang_up_as_caller()
        await trio.sleep(0.5)
        assert not call.ended.is_set()
        call.wind_down("shutdown", "farewell")
    assert call.record.reason == "caller_hangup"


@pytest.mark.parametrize("attached", [True, False])
async def test_cancelled_from_outside_is_a_shutdown(autojump_clock: object, attached: bool) -> None:
    call = Call(
        FACTS, "a", Agent(), FakeEngine(), PCMU_8K, Services(Journal(Path("x")), Prompts(), {})
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        if attached:
            call.attach(FakeLeg())
        await trio.sleep(TICK)
        nursery.cancel_scope.cancel()
    assert call.record.row.reason == "shutdown"


class BrokenLeg(FakeLeg):
    """It cannot even hang up."""

    async def hang_up(self) -> None:
        raise OSError("broken")


async def test_row_is_written_whatever_the_release_raises(autojump_clock: object) -> None:
    journal = Journal(Path("unused"))
    call = Call(FACTS, "a", Agent(), FakeEngine(), PCMU_8K, Services(journal, Prompts(), PRICES))

    async def run() -> None:
        with pytest.raises(OSError, match="broken"):
            await call.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(TICK)
        call.attach(leg := BrokenLeg())
        leg.hang_up_as_caller()
    assert call.ended.is_set()
    assert call.record.row.reason == "caller_hangup"
    assert journal._receive.statistics().current_buffer_used == 2


# ---- latencies and deadlines


async def test_recorded_greeting_has_its_latency(
    autojump_clock: trio.testing.MockClock,
) -> None:
    source = Path(clips.__file__).parent / "still_there.wav"
    in_real_time(autojump_clock)
    agent = Agent(greeting_files=(source,), greeting_delay_ms=500)
    async with scene(agent, attach=False) as s:
        while s.call.voice.playout.unheard <= 4000:
            await trio.sleep(TICK)
        in_virtual_time(autojump_clock)
        s.call.attach(s.leg)
        await trio.sleep(5)
        s.call.end("operator")
        await s.call.ended.wait()
        assert s.rows()[-1].latencies["greeting_ms"] == pytest.approx(500, abs=5)


async def test_caller_is_asked_in_time_however_patient_we_are_with_the_model(
    autojump_clock: object,
) -> None:
    async with scene(Agent(no_answer_s=20, silence_prompt_s=5, silence_hangup_s=9)) as s:
        s.model.emit(Ready())
        await trio.sleep(5.1)
        assert heard(s) > 0


# ---- the same call again


async def test_second_stream_of_a_call_does_not_end_it(autojump_clock: object) -> None:
    engine = FakeEngine()
    config = Config()
    services = Services(Journal(Path("unused")), Prompts(), PRICES)
    switchboard = Switchboard(Setup(config, lambda _agent: engine), services)
    request = VoiceRequest("CA1", "AC1", "+1", "+2")
    calls = TwilioCalls(switchboard)
    async with trio.open_nursery() as nursery:
        switchboard.nursery = nursery
        first = await calls.admit(request)
        again = await calls.admit(request)
        assert isinstance(first, Admitted)
        assert isinstance(again, Admitted)
        assert len(switchboard) == 1
        assert calls.claim(first.stream_path) is None
        call = calls.claim(again.stream_path)
        assert call is not None
        await trio.sleep(TICK)
        call.attach(FakeLeg())
        await trio.sleep(TICK)
        assert not call.awaits_leg
        call.end("operator")
    assert len(switchboard) == 0


async def test_answer_that_begins_after_the_call_began_to_end_is_not_heard(
    autojump_clock: object,
) -> None:
    """The server answers words that it heard while the farewell was already on its way."""
    async with scene(Agent(max_duration_s=1)) as s:
        s.model.emit(Ready())
        await trio.sleep(1.1)
        assert s.at(CallState.ENDING)
        s.model.emit(*turn(), *answer("late", 3000))
        await s.call.ended.wait()
        assert s.model.commands == [("cancel",)]
        assert heard(s) == pytest.approx(clips.load("farewell").duration_ms * 8, abs=160)
