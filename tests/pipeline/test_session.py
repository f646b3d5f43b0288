"""A conversation on a virtual clock: turns, answers, interruptions, tools, trouble."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from tests.pipeline.house import BYTES_PER_MS, USED, House, Stt, Thinker, Voice, house, tone
from voiced.config.types import Agent, OwnVad, SemanticVad, ServerVad
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    Ready,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolSpec,
    Usage,
    exact_words,
    exactly,
)
from voiced.formats import PCM16_16K, PCMU_8K, AudioFormat, Encoding
from voiced.pipeline.providers import ToolRequest

ANSWER = (
    "We are open from nine to five on weekdays. On Saturdays we close at two already. "
    "Would you like to book a table for this evening?"
)
PAUSE = Agent(turn_detection=OwnVad(silence_ms=300))
CONFIRM = Agent(barge_in="confirm", turn_detection=OwnVad(silence_ms=300))
PATIENT = Agent(barge_in="off", turn_detection=OwnVad(silence_ms=300))


def spoken(h: House, chat: Usage = USED) -> Usage:
    """What the chat has used, and all that the voice was asked for and gave."""
    ms = sum(len(event.payload) for event in h.of(AgentAudio)) // BYTES_PER_MS
    characters = sum(len(text) for text, _ in h.tts.said)
    return chat + Usage(speech_characters=characters, speech_s=ms / 1000)


# --- turns and answers


async def test_a_turn_is_answered(autojump_clock: MockClock) -> None:
    async with house(Agent(voice="marin", language="tr-TR")) as h:
        h.stt.texts = ["When are you open?"]
        h.chat.say(ANSWER)
        await h.turn()
        await h.until(ResponseDone)
    assert h.kinds() == [
        "Ready", "SpeechStarted", "SpeechStopped", "Committed", "CallerTranscript",
        "ResponseStarted", "AgentTranscript", "AgentAudio", "AgentTranscript", "AgentAudio",
        "AgentTranscript", "AgentAudio", "AgentTranscript", "AgentAudioDone", "ResponseDone",
    ]  # fmt: skip
    (turn,) = {event.item_id for event in h.of(SpeechStarted, SpeechStopped, Committed)}
    (words,) = h.of(CallerTranscript)
    assert (words.item_id, words.text, words.final) == (turn, "When are you open?", True)
    length_ms, rate, language = h.stt.heard[0]
    assert (rate, language) == (8000, "tr")
    assert length_ms == h.of(SpeechStopped)[0].audio_end_ms - h.of(SpeechStarted)[0].audio_start_ms
    assert words.usage == Usage(transcription_s=length_ms / 1000)
    assert h.chat.conversation() == [("system", "Be brief."), ("user", "When are you open?")]
    pieces = [event.text for event in h.of(AgentTranscript)]
    assert pieces[-1] == ANSWER == "".join(pieces[:-1]).strip()
    assert [event.final for event in h.of(AgentTranscript)] == [False, False, False, True]
    (item,) = {event.item_id for event in h.of(AgentAudio, AgentTranscript, AgentAudioDone)}
    assert item != turn
    (response,) = {event.response_id for event in h.of(AgentAudio, ResponseStarted)}
    assert h.of(ResponseDone) == [ResponseDone(response, "completed", None, spoken(h))]
    assert h.tts.voices == {("marin", "tr")}


async def test_the_answer_sounds_before_it_is_written(autojump_clock: MockClock) -> None:
    async with house(chat=Thinker(gap_s=0.2)) as h:
        h.chat.say(ANSWER)
        h.session.respond()
        await h.until(AgentAudio)
        assert h.chat.finished == 0  # 4 s of writing are to come
        assert trio.current_time() - h.at(ResponseStarted)[0] < 10 * 0.2 + 0.3 + 0.1
        await h.until(ResponseDone)
    assert h.chat.finished == 1


async def test_the_next_sentence_is_made_while_one_sounds_and_no_other(
    autojump_clock: MockClock,
) -> None:
    text = " ".join(f"This is sentence number {n} of them." for n in range(6))
    async with house(chat=Thinker(gap_s=0.001), tts=Voice(delay_s=0.3)) as h:
        h.chat.say(text)
        h.session.respond()
        await h.until(ResponseDone)
    assert h.tts.most == 2
    assert [sentence for sentence, _ in h.tts.said] == [
        f"This is sentence number {n} of them." for n in range(6)
    ]
    begun = [at for at, event in h.events if isinstance(event, AgentTranscript)][:6]
    # Each is there before the ones before it, 1.6 s each, have sounded.
    assert all(at - begun[0] <= n * 1.6 for n, at in enumerate(begun))
    values = [struct.unpack_from("<h", e.payload)[0] for e in h.of(AgentAudio)]
    assert values.count(0) == 6
    assert all(b in (0, a, a + 1) for a, b in pairwise(values))


async def test_a_greeting_by_its_own_instructions(autojump_clock: MockClock) -> None:
    async with house() as h:
        h.session.add_message("assistant", "Hello, this is the Harbour Hotel.")
        h.session.respond("Ask for the name.")
        await h.until(ResponseDone)
        h.session.respond()
        await h.until(ResponseDone)
    assert h.chat.conversation(0) == [
        ("system", "Ask for the name."),
        ("assistant", "Hello, this is the Harbour Hotel."),
    ]
    assert h.chat.conversation(1)[0] == ("system", "Be brief.")
    assert h.chat.conversation(1)[2] == ("assistant", "Certainly.")


async def test_exact_words_are_nobodys_but_the_calls(autojump_clock: MockClock) -> None:
    words = 'Hello, this is "The Harbour".\nHow can I help you today?'
    assert exact_words(exactly(words)) == words
    assert exact_words("Say something.") is None
    async with house() as h:
        h.session.respond(exactly(words))
        await h.until(ResponseDone)
        assert h.chat.asked == []
        h.session.respond()
        await h.until(ResponseDone)
    assert h.of(AgentTranscript)[-2].text != words  # of the second answer
    usage = h.of(ResponseDone)[0].usage
    assert usage is not None
    assert (usage.text_in, usage.text_out) == (0, 0), "no model was asked"
    assert usage.speech_characters == len(words) - 1  # the line break
    told = 'Hello, this is "The Harbour". How can I help you today?'
    assert h.chat.conversation()[1:] == [("assistant", told)]


async def test_an_answer_that_the_call_does_not_know_of_is_not_meant_to_be_cancelled(
    autojump_clock: MockClock,
) -> None:
    async with house(PAUSE, listen=False, tts=Voice(delay_s=0.01)) as h:
        h.chat.gap_s = 0.01
        assert list(await h.session.receive()) == [Ready()]
        await h.turn(quiet_ms=600)  # by now it is being answered, and the call has seen nothing
        taken = list(await h.session.receive())
        assert isinstance(taken[0], SpeechStarted)
        h.session.cancel()  # what it does about that, late
        async with trio.open_nursery() as nursery:
            nursery.start_soon(h.listen)
            await h.until(ResponseDone)
            assert h.done() == ["completed"]
            h.session.respond()
            await h.until(ResponseStarted)
            h.session.cancel()
            await h.until(ResponseDone)
            nursery.cancel_scope.cancel()
    assert h.done() == ["completed", "cancelled"]


async def test_commands_before_ready_are_kept(autojump_clock: MockClock) -> None:
    async with house(listen=False) as h:
        h.session.respond("Greet.")
        h.session.add_message("system", "The caller is a guest.")
        h.session.send_audio(PCMU_8K.silence(5000) + tone(600) + PCMU_8K.silence(600))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(h.listen)
            await h.until(CallerTranscript)
            nursery.cancel_scope.cancel()
    assert isinstance(h.events[0][1], Ready)
    # Of the audio the newest two seconds: 800 ms of silence, then speech, less the padding.
    assert h.of(SpeechStarted)[0].audio_start_ms == 500
    assert ("system", "The caller is a guest.") in h.chat.conversation(0)


@pytest.mark.parametrize("turn_detection", [ServerVad(), OwnVad(), SemanticVad()])
@pytest.mark.parametrize("leg", [PCMU_8K, PCM16_16K, AudioFormat(Encoding.PCMA, 8000)])
async def test_formats_and_endpointing(
    turn_detection: ServerVad | OwnVad | SemanticVad, leg: AudioFormat, autojump_clock: MockClock
) -> None:
    async with house(Agent(turn_detection=turn_detection), leg_format=leg) as h:
        assert h.session.input_format == leg
        assert h.session.output_format == PCM16_16K
        if leg.encoding is not Encoding.PCMA:
            await h.turn()
            await h.until(ResponseDone)
            assert h.stt.heard[0][1] == leg.rate
            assert 1100 <= h.stt.heard[0][0] <= 1500


async def test_a_turn_without_words_gets_no_answer(autojump_clock: MockClock) -> None:
    async with house(stt=Stt([""])) as h:
        await h.turn()
        await h.until(ResponseDone)
        assert h.chat.asked == []
        assert h.of(ResponseDone)[0].reason == "no_speech"
        h.session.respond()  # asked for in so many words
        await h.until(ResponseDone)
    assert h.chat.conversation() == [("system", "Be brief.")]


async def test_a_turn_that_goes_on_is_answered_in_parts(autojump_clock: MockClock) -> None:
    async with house(PAUSE, max_utterance_s=2, stt=Stt(["One", "two", "three"])) as h:
        await h.talk((tone(400) + PCMU_8K.silence(100)) * 10 + PCMU_8K.silence(600))
        await trio.sleep(5)
    assert len(h.of(SpeechStarted)) == 1
    items = [event.item_id for event in h.of(Committed)]
    assert len(set(items)) == 3
    assert items == [event.item_id for event in h.of(SpeechStopped)]
    assert [ms for ms, _, _ in h.stt.heard][:2] == [2000, 2000]
    assert sum(ms for ms, _, _ in h.stt.heard) == 4900 + 300
    assert h.at(AgentAudio)[0] < h.at(Committed)[2]  # while the caller still speaks
    assert [words for role, words in h.chat.conversation(0) if role == "user"] == ["One"]
    users = [words for role, words in h.chat.conversation() if role == "user"]
    assert users == ["One", "two", "three"]


# --- interruptions


def cut_short(h: House) -> int:
    """What a call does at once when the caller interrupts; milliseconds of audio received."""
    item = h.item()
    received = sum(len(e.payload) for e in h.of(AgentAudio) if e.item_id == item) // BYTES_PER_MS
    h.session.cancel()
    h.session.truncate(item, 0, min(received, 1000))
    return received


async def test_an_interruption_stops_all_of_it(autojump_clock: MockClock) -> None:
    async with house(chat=Thinker(gap_s=0.3)) as h:
        h.chat.say(ANSWER)
        h.session.respond()
        await h.until(AgentAudio, count=10)
        await h.talk(tone(200))
        assert isinstance(h.of(SpeechStarted)[0], SpeechStarted)
        received = cut_short(h)
        assert received >= 1000
        await h.talk(PCMU_8K.silence(600))
        await h.until(ResponseDone)
        assert h.done() == ["cancelled"]
        assert h.chat.cancelled == 1
        assert h.tts.running == 0
        usage = h.of(ResponseDone)[0].usage
        assert usage is not None
        assert usage.text_in == -(-len("Be brief.") // 4) + 4, "an estimate: it was broken off"
        assert 5 < usage.text_out < len(ANSWER) / 4
        assert usage.speech_characters == sum(len(text) for text, _ in h.tts.said)
        assert usage.speech_s >= received / 1000
        stopped = h.at(SpeechStarted)[0]
        assert all(at <= stopped for at in h.at(AgentAudio) if at < h.at(Committed)[0])
        await h.until(AgentAudio)
    # A second is 15 characters of a voice whose pace is not known yet: "We are open fro".
    assert h.chat.conversation() == [
        ("system", "Be brief."),
        ("assistant", "We are open"),
        ("user", "Hello?"),
    ]


async def test_late_sound_of_an_interrupted_answer_is_not_delivered(
    autojump_clock: MockClock,
) -> None:
    async with house(listen=False) as h:
        h.chat.say(ANSWER)
        h.session.respond()
        await trio.sleep(2)  # much is ready, and nobody has taken it
        h.session.cancel()
        await trio.sleep(2)
        taken = list(await h.session.receive())
    assert [type(event) for event in taken] == [Ready, ResponseStarted, ResponseDone]
    assert taken[-1].status == "cancelled"  # type: ignore[union-attr]


async def test_words_that_nobody_answered_are_answered_with_the_next(
    autojump_clock: MockClock,
) -> None:
    async with house(PAUSE, stt=Stt(["I would like", "a table", ""], delay_s=1.0)) as h:
        await h.turn(quiet_ms=400)
        await h.turn(quiet_ms=400)  # before the first is written down
        await h.turn(quiet_ms=400)  # a cough
        await h.until(ResponseDone)
    assert len(h.chat.asked) == 1
    assert h.chat.conversation()[1:] == [("user", "I would like"), ("user", "a table")]


async def test_a_noise_that_cut_an_answer_before_it_sounded_has_it_made_again(
    autojump_clock: MockClock,
) -> None:
    async with house(PAUSE, stt=Stt(["When?", ""]), tts=Voice(delay_s=1.0)) as h:
        await h.turn(quiet_ms=700)
        assert len(h.chat.asked) == 1
        assert not h.of(AgentAudio)
        await h.turn(ms=100, quiet_ms=500)
        await h.until(ResponseDone, count=2)
    assert h.done() == ["cancelled", "completed"]
    assert h.chat.conversation(0) == h.chat.conversation(1)


async def test_without_barge_in_the_answer_goes_on(autojump_clock: MockClock) -> None:
    async with house(PATIENT) as h:
        h.chat.say(ANSWER)
        h.session.respond()
        await h.until(AgentAudio)
        await h.turn()
        await h.until(ResponseDone, count=2)
    assert h.done() == ["completed", "completed"]
    assert h.chat.conversation()[1:] == [("assistant", ANSWER), ("user", "Hello?")]


async def test_to_confirm_is_the_calls_business(autojump_clock: MockClock) -> None:
    async with house(CONFIRM, stt=Stt(["", "Hello?"])) as h:
        h.chat.say(ANSWER)
        h.session.respond()
        await h.until(AgentAudio)
        await h.turn()
        await h.until(ResponseDone)
        await trio.sleep(5)
        assert h.done() == ["completed"]
        h.session.respond()  # to a turn that held no words
        await h.until(ResponseDone)
        assert h.of(ResponseDone)[-1].reason == "no_speech"
        await h.turn()
        h.session.respond()
        await h.until(AgentAudioDone)
    assert h.done() == ["completed"] * 3
    assert h.chat.conversation()[-1] == ("user", "Hello?")


async def test_a_turn_can_be_deleted(autojump_clock: MockClock) -> None:
    async with house(CONFIRM) as h:
        await h.turn()
        h.session.delete(h.of(Committed)[0].item_id)
        await trio.sleep(1)
        h.session.respond("Go on.")
        await h.until(ResponseDone)
    assert h.chat.conversation() == [("system", "Go on.")]


async def test_a_call_that_does_not_listen_holds_the_voice_up(autojump_clock: MockClock) -> None:
    text = " ".join(f"This is sentence number {n} of them." for n in range(30))
    async with house(listen=False) as h:
        h.chat.say(text)
        h.session.respond()
        await trio.sleep(60)
        assert len(h.tts.said) < 12  # 10 s of sound, 1.8 s a sentence
        assert h.tts.running <= 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(h.listen)
            await h.until(ResponseDone)
            nursery.cancel_scope.cancel()
    assert h.of(AgentTranscript)[-1].text == text


async def test_the_call_cancels_what_it_knows_of(autojump_clock: MockClock) -> None:
    """The answer to a turn, too, once the call has heard of the turn."""
    async with house(PATIENT) as h:
        h.chat.say(ANSWER)
        await h.turn()
        await h.until(AgentAudio)
        h.session.cancel()
        await trio.sleep(10)
    assert h.done() == ["cancelled"]
    assert h.chat.cancelled == 1


async def test_an_interruption_forgets_what_waits_to_be_said(autojump_clock: MockClock) -> None:
    async with house() as h:
        h.chat.say(ANSWER)
        h.session.respond("Greet.")
        await h.until(AgentAudio)
        h.session.respond("Ask for the name.")
        await h.turn()
        await h.until(ResponseDone, count=2)
        await trio.sleep(5)
    assert [asked[0][0].content for asked in h.chat.asked] == ["Greet.", "Be brief."]


async def test_all_that_was_said_is_answered_at_once(autojump_clock: MockClock) -> None:
    """The second half of a question comes while the first is being written down."""
    stt = Stt(["We would like", "a table for two."], delay_s=2)
    async with house(PAUSE, stt=stt) as h:
        await h.turn(ms=300, quiet_ms=400)
        await h.turn(ms=300, quiet_ms=400)
        await h.until(AgentAudio)
    ((asked, _),) = h.chat.asked
    assert [message.content for message in asked[1:]] == ["We would like", "a table for two."]


async def test_what_must_be_answered_stays_so_behind_a_noise(autojump_clock: MockClock) -> None:
    """The call asks for an answer just when a turn ends that holds no words."""
    async with house(PATIENT, stt=Stt([""])) as h:
        h.chat.say(ANSWER)
        h.session.respond("Greet.")
        await h.until(AgentAudio)
        await h.turn()
        h.session.respond()
        await h.until(ResponseDone, count=2)
    assert len(h.chat.asked) == 2
    assert h.of(ResponseDone)[1].reason is None


async def test_what_nobody_took_was_not_said(autojump_clock: MockClock) -> None:
    async with house(listen=False) as h:
        h.chat.say(ANSWER)
        h.session.respond("Greet.")
        await trio.sleep(2)
        assert h.tts.said
        h.session.cancel()
        h.session.respond("Ask.")
        await trio.sleep(1)
    assert [roles for roles, _ in h.chat.conversation()] == ["system"]


async def test_what_was_heard_to_its_end_is_whole(autojump_clock: MockClock) -> None:
    """However quick the voice: its own length counts, not what is commonly needed."""
    async with house() as h:
        h.chat.say("This is the first of them. And this is the second one.")
        h.session.respond()
        await h.until(ResponseDone)
        first_ms = len("This is the first of them.") // 2 * 100
        h.session.truncate(h.item(), 0, first_ms + 1)
        h.session.respond()
        await h.until(ResponseDone)
    assert h.chat.conversation()[-1] == ("assistant", "This is the first of them.")


# --- tools


HOURS = ToolSpec("hours", "Opening hours", {"type": "object", "properties": {}})


async def test_a_tool_is_called_and_its_result_told(autojump_clock: MockClock) -> None:
    async with house(tools=(HOURS,)) as h:
        request = ToolRequest("c1", "hours", '{"day":"Mon"}')
        h.chat.say("Let me have a look at that for you.", request)
        await h.turn()
        await h.until(ToolCall)
        (call,) = h.of(ToolCall)
        assert (call.call_id, call.name, call.arguments) == ("c1", "hours", '{"day":"Mon"}')
        assert not h.of(AgentAudio)  # it is at work while that is being said
        h.session.set_tools([])
        h.session.tool_result("c1", "nine to five")
        h.session.tool_result("c9", "nobody asked")
        h.session.respond()
        await h.until(ResponseDone, count=2)
    assert [list(tools) for _, tools in h.chat.asked] == [[HOURS], []]
    assert h.chat.conversation() == [
        ("system", "Be brief."),
        ("user", "Hello?"),
        ("assistant", "Let me have a look at that for you."),
        ("tool", "nine to five"),
    ]
    assert h.chat.asked[-1][0][2].tool_calls == (request,)


async def test_a_tool_call_alone_is_an_answer_without_sound(autojump_clock: MockClock) -> None:
    async with house(tools=(HOURS,)) as h:
        h.chat.answers = [[ToolRequest("c1", "hours", "{}")]]
        h.session.respond()
        await h.until(ResponseDone)
    assert h.kinds() == ["Ready", "ResponseStarted", "ToolCall", "ResponseDone"]
