"""Steps that fail, refuse, hang or talk nonsense: who waits is not forgotten. Virtual clock."""

from __future__ import annotations

import struct
from array import array
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.pipeline.house import Stt, Thinker, Voice, house, tone
from voiced.config.types import Agent, OwnVad
from voiced.engine import (
    AgentAudio,
    AgentTranscript,
    CallerTranscript,
    Committed,
    EngineFault,
    Lost,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)
from voiced.pipeline.answer import MAX_SENTENCE_S
from voiced.pipeline.providers import DetectorSettings, Ended, ProviderError, ToolRequest
from voiced.pipeline.session import INAUDIBLE
from voiced.vad import VadEvent, VadStarted

ANSWER = (
    "We are open from nine to five on weekdays. On Saturdays we close at two already. "
    "Would you like to book a table for this evening?"
)
PAUSE = Agent(turn_detection=OwnVad(silence_ms=300))
SLOW_ONE_BY_ONE = {"stt": 2.5, "chat": 1.5, "tts": 2.5}
REQUEST = ToolRequest("c1", "hours", "{}")


def passing(code: str = "http_503", **more: float) -> ProviderError:
    return ProviderError(code, "busy", "retry", **more)


@pytest.mark.parametrize("step", ["stt", "chat", "tts"])
@pytest.mark.parametrize("failure", [passing(), OSError("gone"), ValueError("a bug")])
async def test_a_step_that_fails_is_tried_again(
    step: str, failure: Exception, autojump_clock: MockClock
) -> None:
    async with house() as h:
        if step == "stt":
            h.stt.texts = [failure]
        elif step == "chat":
            h.chat.answers = [[failure]]
        else:
            h.tts.failures = [(0, failure)]
        await h.turn()
        await h.until(ResponseDone)
    assert h.done() == ["completed"]
    assert [fault.action for fault in h.of(EngineFault)] == ["retry"]
    assert h.sound()


@pytest.mark.parametrize("step", ["stt", "chat", "tts"])
async def test_a_step_that_fails_twice_is_lost(step: str, autojump_clock: MockClock) -> None:
    async with house() as h:
        h.stt.texts = [passing("http_500"), passing()] if step == "stt" else []
        h.chat.answers = [[passing("http_500")], [passing()]] if step == "chat" else []
        h.tts.failures = [(0, passing("http_500")), (0, passing())] if step == "tts" else []
        await h.turn()
        await h.until(Lost)
        assert h.of(Lost) == [Lost("http_503", "busy", retryable=True)]
        assert isinstance(h.events[-1][1], Lost)
        if step != "stt":
            assert h.done() == ["failed"]
        count = len(h.events)
        h.session.respond()
        h.session.send_audio(tone(600))
        h.session.cancel()
        await trio.sleep(10)
        assert len(h.events) == count


@pytest.mark.parametrize(
    ("failure", "retryable"),
    [
        (ProviderError("insufficient_quota", "pay", "terminal"), False),
        (passing("rate_limit_exceeded", retry_after_s=30), True),
    ],
)
async def test_what_will_not_pass_in_time_is_not_tried_again(
    failure: ProviderError, retryable: bool, autojump_clock: MockClock
) -> None:
    async with house(chat=Thinker([[failure]])) as h:
        h.session.respond()
        await h.until(Lost)
    assert h.of(Lost) == [Lost(failure.code, failure.message, retryable)]
    assert len(h.chat.asked) == 1


@pytest.mark.parametrize("slow", [{"stt": 60.0}, {"chat": 60.0}, {"tts": 60.0}, SLOW_ONE_BY_ONE])
async def test_nothing_is_waited_for_longer_than_a_step_may_take(
    slow: dict[str, float], autojump_clock: MockClock
) -> None:
    """A second try, or one slow step behind the other, is no better for who waits."""
    stt, chat = Stt(delay_s=slow.get("stt", 0.2)), Thinker(gap_s=slow.get("chat", 0.05))
    async with house(stt=stt, chat=chat, tts=Voice(delay_s=slow.get("tts", 0.3))) as h:
        await h.turn()
        await h.until(Lost)
        assert h.at(Lost)[0] - h.at(SpeechStopped)[0] == pytest.approx(5, abs=0.1)
    assert (h.of(Lost)[0].code, h.of(Lost)[0].retryable) == ("silent", True)


async def test_an_answer_that_has_begun_has_its_time(autojump_clock: MockClock) -> None:
    """Sound is a sign of life, and so is a tool that is called."""
    async with house(chat=Thinker(gap_s=3)) as h:
        h.chat.answers = [
            [REQUEST, "And now ", "what it says. "],
            ["It is nine. And ", "now ", "ten. "],
        ]
        h.session.respond()
        await h.until(ResponseDone)
        assert h.at(ResponseDone)[0] - h.at(ResponseStarted)[0] > 8
        h.session.respond()
        await h.until(ResponseDone)
        assert h.at(AgentAudio)[-1] - h.at(ResponseStarted)[1] > 8
    assert h.done() == ["completed", "completed"]


async def test_a_sentence_that_breaks_off_goes_on_where_it_did(autojump_clock: MockClock) -> None:
    async with house(tts=Voice(failures=[(3, passing())])) as h:
        h.chat.say("This is the only sentence.")
        h.session.respond()
        await h.until(ResponseDone)
    values = [struct.unpack_from("<h", e.payload)[0] for e in h.of(AgentAudio)]
    assert values == list(range(len("This is the only sentence.") // 2))


async def test_an_answer_that_breaks_off_is_said_as_far_as_it_came(
    autojump_clock: MockClock,
) -> None:
    async with house() as h:
        h.chat.answers = [["We are open ", "from nine to ", passing()]]
        h.session.respond()
        await h.until(ResponseDone)
        assert h.of(ResponseDone)[0].status == "incomplete"
        assert h.of(AgentTranscript)[-1].text == "We are open from nine to"
        assert [fault.action for fault in h.of(EngineFault)] == ["alarm"]
        assert not h.of(Lost)


async def test_the_token_limit_is_told(autojump_clock: MockClock) -> None:
    async with house() as h:
        h.chat.say("And then", Ended("length"))
        h.session.respond()
        await h.until(ResponseDone)
    assert h.of(ResponseDone)[0].status == "incomplete"
    assert h.of(ResponseDone)[0].reason == "max_output_tokens"


async def test_one_refusal_costs_a_turn_and_two_the_session(autojump_clock: MockClock) -> None:
    """The caller spoke and waits: the model is told that nobody understood it."""
    refused = ProviderError("http_400", "no", "refused")
    async with house(stt=Stt([refused, "Hello?", refused, refused])) as h:
        for said in (INAUDIBLE, "Hello?", INAUDIBLE):
            await h.turn()
            await h.until(ResponseDone)
            assert h.chat.conversation()[-1] == ("user", said)
        assert [event.text for event in h.of(CallerTranscript)] == ["", "Hello?", ""]
        assert h.done() == ["completed"] * 3
        assert not h.of(Lost)
        await h.turn()
        await h.until(Lost)
    assert h.of(Lost)[0].retryable is False


async def test_a_sentence_that_cannot_be_spoken_costs_itself_alone(
    autojump_clock: MockClock,
) -> None:
    refused = ProviderError("http_400", "no", "refused")
    async with house(tts=Voice(failures=[(0, refused)])) as h:
        h.chat.say("This is the first sentence. This is the second sentence.")
        h.session.respond()
        await h.until(ResponseDone)
    assert h.of(AgentTranscript)[-1].text == "This is the second sentence."
    assert h.done() == ["completed"]


class Mute(Voice):
    """Says that it has spoken."""

    async def stream(
        self, text: str, *, voice: str, language: str | None
    ) -> AsyncGenerator[bytes, None]:
        await trio.sleep(0.1)
        for _ in range(0):
            yield b""


@pytest.mark.parametrize("mute", [False, True])
async def test_an_answer_without_any_sound_is_none(mute: bool, autojump_clock: MockClock) -> None:
    """Refused or empty, whatever is asked for: that is no voice."""
    refused = ProviderError("no_sound", "no", "refused")
    tts = Mute() if mute else Voice(failures=[(0, refused)] * 4)
    async with house(tts=tts) as h:
        for number in (1, 2):
            h.chat.say("This is the first sentence. This is the second sentence.")
            h.session.respond()
            await h.until(ResponseDone)
            assert h.done() == ["failed"] * number
        await h.until(Lost)
    assert not h.sound()
    assert (h.of(Lost)[0].code, h.of(Lost)[0].retryable) == ("no_sound", False)


async def test_a_tool_that_was_called_is_an_answer(autojump_clock: MockClock) -> None:
    """To fail would have the answer given again, and the tool called twice."""
    refused = ProviderError("http_400", "no", "refused")
    async with house(tts=Voice(failures=[(0, refused)])) as h:
        h.chat.say("Let me look that up.", REQUEST)
        h.session.respond()
        await h.until(ResponseDone)
    assert h.done() == ["completed"]
    assert len(h.of(ToolCall)) == 1


@pytest.mark.parametrize("retry_after_s", [-1.0, float("nan")])
async def test_a_wait_that_is_none(retry_after_s: float, autojump_clock: MockClock) -> None:
    """Plugins may do sums with clocks."""
    async with house(chat=Thinker([[passing(retry_after_s=retry_after_s)]])) as h:
        h.session.respond()
        await h.until(ResponseDone)
    assert h.done() == ["completed"]


async def test_an_answer_between_two_refusals(autojump_clock: MockClock) -> None:
    refused = ProviderError("http_400", "no", "refused")
    chat = Thinker([[refused], ["Certainly. "], [refused], ["Of course. "]])
    async with house(chat=chat) as h:
        for _ in range(4):
            h.session.respond()
            await h.until(ResponseDone)
        assert not h.of(Lost)
    assert h.done() == ["failed", "completed"] * 2


class Endless(Voice):
    """Has gone mad."""

    async def stream(
        self, text: str, *, voice: str, language: str | None
    ) -> AsyncGenerator[bytes, None]:
        while True:
            await trio.sleep(0.1)
            yield bytes(32_000)


async def test_a_sentence_without_end_is_ended(autojump_clock: MockClock) -> None:
    async with house(tts=Endless()) as h:
        h.session.respond()
        await h.until(ResponseDone)
    assert [fault.code for fault in h.of(EngineFault)] == ["bad_audio"]
    assert len(h.sound()) == 32_000 * MAX_SENTENCE_S


class Odd(Voice):
    """A plugin's, which yields what it likes."""

    def __init__(self, piece: Any) -> None:
        super().__init__()
        self.piece = piece

    async def stream(
        self, text: str, *, voice: str, language: str | None
    ) -> AsyncGenerator[bytes, None]:
        await trio.sleep(0.1)
        yield self.piece


@pytest.mark.parametrize("piece", [bytearray(b"\1\2"), memoryview(b"\1\2"), array("h", [0x201])])
async def test_any_buffer_is_sound(piece: Any, autojump_clock: MockClock) -> None:
    async with house(tts=Odd(piece)) as h:
        h.session.respond()
        await h.until(ResponseDone)
    assert h.sound() == b"\1\2"
    assert all(type(event.payload) is bytes for event in h.of(AgentAudio))


@pytest.mark.parametrize("step", ["stt", "tts"])
async def test_what_is_no_answer_of_a_step_is_its_fault(
    step: str, autojump_clock: MockClock
) -> None:
    """Told as such; nothing is taken for a fault of voiced."""

    class Wrong(Stt):
        async def transcribe(self, pcm16: bytes, rate: int, language: str | None) -> Any:
            return "Hello?"

    stt, tts = (Wrong(), Voice()) if step == "stt" else (Stt(), Odd("sound"))
    async with house(stt=stt, tts=tts) as h:
        await h.turn()
        await h.until(Lost)
    assert h.of(Lost) == [Lost("step_raised", "TypeError", retryable=True)]


async def test_more_turns_than_speech_to_text_keeps_up_with(autojump_clock: MockClock) -> None:
    async with house(PAUSE, stt=Stt(delay_s=4.9)) as h:
        for _ in range(12):
            await h.turn(ms=100, quiet_ms=320)
        assert [fault.code for fault in h.of(EngineFault)][:1] == ["stt_backlog"]
        assert len(h.of(Committed)) < len(h.of(SpeechStopped)) == 12
        await h.until(ResponseDone)


class Broken:
    """A detector that gives up in the midst of a turn."""

    def __init__(self, settings: DetectorSettings) -> None:
        assert settings == DetectorSettings(8000, 0.5, 300, 300, None)
        self._fed = 0

    def feed(self, pcm16: bytes) -> Sequence[VadEvent]:
        self._fed += len(pcm16) // 16
        if self._fed == 200:
            return [VadStarted(100)]
        if self._fed > 300:
            raise RuntimeError("no more")
        return []


async def test_a_detector_that_raises_is_replaced(autojump_clock: MockClock) -> None:
    async with house(PAUSE, detector=Broken) as h:
        await h.turn(ms=1000)
        await h.until(ResponseDone)
    assert h.of(SpeechStarted)[0].audio_start_ms == 100
    assert h.of(SpeechStopped)[0].audio_end_ms == 300
    # Our own hears the rest of what is being said as a turn of its own.
    assert len(h.of(SpeechStarted)) == 2
    assert h.of(SpeechStopped)[1].audio_end_ms == pytest.approx(1300, abs=60)


async def test_leaving_a_session_is_quick_whatever_it_does(autojump_clock: MockClock) -> None:
    async with house() as h:
        h.chat.say(ANSWER)
        await h.turn()
        await h.until(AgentAudio)
        left = trio.current_time()
    assert trio.current_time() - left < 1
    assert h.tts.running == 0
