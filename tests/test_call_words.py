"""What stands in the transcript of an answer that was cut: its words, in whatever order they come.

Servers write an answer down ahead of its audio, beside it, or after it. In the journal, and in the
history that another session is told, stands what the caller heard.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from tests.fakes import FakeSession
from tests.test_call import Scene, answer, scene, turn
from tests.test_call_plugins import Diary
from tests.test_call_plugins import scene as scene_with
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    EngineEvent,
    Lost,
    Ready,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Said,
    SpeechStarted,
    ToolCall,
)
from voiced.transcript import Entry

WORDS = "one two three four five six seven eight nine ten"
QUIET = Agent(greeting="")


def spoken(ms: int, item: str = "a1", response: str = "r1") -> list[EngineEvent]:
    """An answer's audio, without words."""
    return [
        ResponseStarted(response),
        *(AgentAudio(response, item, 0, b"\x21" * 1600) for _ in range(ms // 200)),
    ]


def pieces(text: str, item: str = "a1") -> list[EngineEvent]:
    return [AgentTranscript(item, f"{word} ", final=False) for word in text.split()]


def entries(s: Scene) -> list[tuple[str, str, bool]]:
    return [(entry.role, entry.text, entry.cut) for entry in s.call.record.transcript.entries()]


def row(s: Scene) -> list[tuple[str, str, bool]]:
    """As the journal has it."""
    last = s.rows()[-1]
    assert last.ended_at is not None
    lines: Sequence[Entry] = last.transcript
    return [(line.role, line.text, line.cut) for line in lines]


async def interrupted(s: Scene, after_s: float, *events: EngineEvent) -> None:
    """The caller speaks `after_s` into an answer."""
    s.model.emit(Ready(), *turn(), CallerTranscript("item_u1", "Hello?", final=True), *events)
    await trio.sleep(after_s)
    s.model.emit(SpeechStarted("item_u2", 0))
    await trio.sleep(0.05)


@pytest.mark.parametrize("whole", ["pieces", "final", "both"])
@pytest.mark.parametrize("done", [True, False], ids=["made", "in the making"])
async def test_words_that_come_after_the_cut_are_kept_as_far_as_heard(
    autojump_clock: object, whole: str, done: bool
) -> None:
    """In their place: before those of the caller who interrupted."""
    async with scene(QUIET) as s:
        made = [AgentAudioDone("r1", "a1")] if done else []
        await interrupted(s, 1.0, *spoken(2000), *made)
        assert ("truncate", "a1", 0, 1000) in s.model.commands
        assert entries(s) == [("caller", "Hello?", False)]
        s.model.emit(CallerTranscript("item_u2", "Wait.", final=True))
        heard = []
        for event in [] if whole == "final" else pieces(WORDS):
            s.model.emit(event)
            await trio.sleep(0.001)
            known = [entry for entry in entries(s) if entry[0] == "agent"]
            _, text, cut = known[0] if known else ("agent", "", True)
            assert cut
            assert WORDS.startswith(text)
            heard.append(text)
        assert heard == sorted(heard, key=len)  # never less than was known before
        if whole != "pieces":
            s.model.emit(AgentTranscript("a1", WORDS, final=True))
        s.model.emit(ResponseDone("r1", "completed" if done else "cancelled"))
        await trio.sleep(0.1)
        expected = [
            ("caller", "Hello?", False),
            ("agent", "one two three four five", True),
            ("caller", "Wait.", False),
        ]
        assert entries(s) == expected
        assert s.call.plan.history() == [
            Said("user", "Hello?"),
            Said("assistant", "one two three four five"),
            Said("user", "Wait."),
        ]
        s.leg.hang_up_as_caller()
        await s.call.ended.wait()
        assert row(s) == expected


@pytest.mark.parametrize("order", ["before", "beside", "after"])
async def test_whichever_comes_first_the_same_stands_there(
    autojump_clock: object, order: str
) -> None:
    words, audio = pieces(WORDS), spoken(2000)
    beside = [audio[0]]
    for sound, word in zip(audio[1:], words, strict=True):
        beside += [sound, word]
    final = AgentTranscript("a1", WORDS, final=True)
    first = {
        "before": [audio[0], *words, final, *audio[1:]],
        "beside": [*beside, final],
        "after": audio,
    }[order]
    async with scene(QUIET) as s:
        await interrupted(s, 1.0, *first)
        if order == "after":
            s.model.emit(*words, final)
        await trio.sleep(0.1)
        assert entries(s)[1:] == [("agent", "one two three four five", True)]
        assert ("delete", "a1") not in s.model.commands


@pytest.mark.parametrize("first", [0, 1, 4])
async def test_words_that_run_ahead_count_no_more_after_the_cut(
    autojump_clock: object, first: int
) -> None:
    """They are of audio that was never sent, though some of it came before the first word."""
    async with scene(QUIET) as s:
        began, *audio = spoken(1000)
        words = pieces("one two three four")
        await interrupted(s, 0.5, began, *audio[:first], *words, *audio[first:])
        s.model.emit(*pieces("five six"), AgentTranscript("a1", WORDS, final=True))
        await trio.sleep(0.1)
        assert entries(s)[1:] == [("agent", "one two", True)]


async def test_a_server_that_writes_sentence_by_sentence_behind_its_voice(
    autojump_clock: object,
) -> None:
    """The words of the first sentence have come, those of the second follow the cut."""
    async with scene(QUIET) as s:
        first = pieces("one two three four five")
        more = [AgentAudio("r1", "a1", 0, b"\x21" * 8000)]
        await interrupted(s, 1.5, *spoken(1000), *first, *more)
        assert entries(s)[1][2]
        s.model.emit(*pieces("six seven eight nine ten"))
        await trio.sleep(0.1)
        assert entries(s)[1:] == [("agent", "one two three four five six seven", True)]


async def test_of_what_was_not_heard_no_words_are_kept(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), SpeechStarted("item_u2", 0))
        s.model.emit(*spoken(600), *spoken(600, "a2")[1:])
        await trio.sleep(0.2)
        s.model.emit(SpeechStarted("item_u3", 0))
        await trio.sleep(0.05)
        s.model.emit(*pieces(WORDS, "a2"), AgentTranscript("a2", WORDS, final=True))
        s.model.emit(AgentTranscript("a1", WORDS, final=True))
        await trio.sleep(0.05)
        assert ("delete", "a2") in s.model.commands
        assert entries(s) == [("agent", "one two three", True)]


async def test_all_of_an_answer_was_heard_before_its_words_came(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        done = [AgentAudioDone("r1", "a1")]
        await interrupted(s, 3.0, *spoken(2000), *done)
        s.model.emit(AgentTranscript("a1", WORDS, final=True))
        await trio.sleep(0.05)
        assert entries(s)[1:] == [("agent", WORDS, False)]


async def test_plugins_learn_it_once(autojump_clock: object) -> None:
    async with scene_with(Diary, agent=QUIET) as s:
        await interrupted(s, 1.0, *spoken(2000))
        s.model.emit(*pieces(WORDS), AgentTranscript("a1", WORDS, final=True))
        await trio.sleep(0.1)
        told = [entry for entry in Diary.entries if entry[:2] == ("words", "agent")]
        assert told == [("words", "agent", "one two three four five", True, True)]


async def test_plugins_learn_at_the_end_what_no_last_word_closed(autojump_clock: object) -> None:
    async with scene_with(Diary, agent=QUIET) as s:
        await interrupted(s, 1.0, *spoken(2000))
        s.model.emit(*pieces(WORDS))
        await trio.sleep(0.1)
        assert not [entry for entry in Diary.entries if entry[:2] == ("words", "agent")]
        s.leg.hang_up_as_caller()
        await s.call.ended.wait()
    told = [entry for entry in Diary.entries if entry[:2] == ("words", "agent")]
    assert told == [("words", "agent", "one two three four five", True, True)]


# ---- words ahead of audio that never comes


@pytest.mark.parametrize("end", ["speech", "cancelled", "failed", "gone", "lost", "hang up"])
async def test_words_whose_audio_never_came_were_not_said(autojump_clock: object, end: str) -> None:
    """The caller was quicker than the first sound: the model is told, the journal says nothing."""
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), ResponseStarted("r1"), *pieces("one two"))
        await trio.sleep(0.05)
        match end:
            case "speech":
                s.model.emit(SpeechStarted("item_u2", 0))
            case "cancelled" | "failed":
                s.model.emit(ResponseDone("r1", end))
            case "gone":
                s.model.emit(Reconnecting("gone", "gone"))
            case "lost":
                s.model.emit(Lost("gone", "gone", retryable=False))
            case "hang up":
                s.leg.hang_up_as_caller()
        await trio.sleep(0.05)
        assert ("delete", "a1") in s.model.commands
        s.model.emit(AgentTranscript("a1", WORDS, final=True))
        await trio.sleep(0.05)
        assert entries(s) == []
        assert Said("assistant", "one two") not in s.call.plan.history()


async def test_the_audio_of_words_that_were_taken_back_is_not_played(
    autojump_clock: object,
) -> None:
    """It was under way. The model was told that nothing of it was heard."""
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), ResponseStarted("r1"), *pieces(WORDS))
        await trio.sleep(0.05)
        s.call.dialogue.silence()
        assert ("delete", "a1") in s.model.commands
        s.model.emit(*spoken(400)[1:])
        await trio.sleep(1)
        assert s.leg.bytes_played() == 0
        assert entries(s) == []


async def test_an_answer_that_found_no_place_is_not_taken_for_unheard(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transcript that is full keeps no words; the model is told what was heard all the same."""
    monkeypatch.setattr("voiced.transcript.MAX_ENTRIES", 1)
    async with scene(QUIET) as s:
        await interrupted(s, 1.0, *spoken(2000), *pieces(WORDS))
        assert ("truncate", "a1", 0, 1000) in s.model.commands
        assert ("delete", "a1") not in s.model.commands


async def test_an_answer_in_words_alone_is_kept(autojump_clock: object) -> None:
    """Nobody heard it, but it is whole, and the model goes by it."""
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), ResponseStarted("r1"))
        s.model.emit(AgentTranscript("a1", WORDS, final=True), ResponseDone("r1", "completed"))
        await trio.sleep(0.05)
        s.model.emit(SpeechStarted("item_u2", 0))
        await trio.sleep(0.05)
        assert entries(s) == [("agent", WORDS, False)]
        assert ("delete", "a1") not in s.model.commands


async def test_two_answers_one_after_the_other_keep_their_words(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), *answer("a1", 400))
        await trio.sleep(1)
        s.model.emit(*turn("item_u2"), *answer("a2", 400), SpeechStarted("item_u3", 0))
        await trio.sleep(0.05)
        assert entries(s) == [("agent", WORDS, False)]


# ---- one wake-up brings the interruption and what it made stale


def at_once(session: FakeSession) -> None:
    """Have the session tell all that there is, as a socket's read does."""

    async def all_at_once() -> Sequence[EngineEvent]:
        events = [await session._events.receive()]
        while True:
            try:
                events.append(session._events.receive_nowait())
            except trio.WouldBlock:
                return events

    session.receive = all_at_once  # type: ignore[method-assign]


@pytest.mark.parametrize("known", [True, False], ids=["begun", "asked for"])
async def test_an_answer_that_came_with_the_interruption_is_not_begun(
    autojump_clock: object, known: bool
) -> None:
    async with scene(QUIET) as s:
        at_once(s.model)
        s.model.emit(Ready())
        await trio.sleep(0.01)
        s.model.emit(*turn())
        await trio.sleep(0.01)
        if known:
            s.model.emit(ResponseStarted("r1"))
            await trio.sleep(0.01)
        late = [*spoken(1000), *pieces(WORDS), AgentAudioDone("r1", "a1")]
        s.model.emit(SpeechStarted("item_u2", 0), *late[1 if known else 0 :])
        s.model.emit(ToolCall("c1", "t1", "nothing", "{}"), *turn("item_u2")[1:])
        await trio.sleep(0.5)
        assert ("cancel",) in s.model.commands
        assert s.leg.bytes_played() == 0
        assert s.call.voice.playout.idle
        assert entries(s) == []
        # The next one is.
        s.model.emit(*answer("a2", 400))
        await trio.sleep(1)
        assert s.leg.bytes_played() == 3200
        assert entries(s) == [("agent", WORDS, False)]


async def test_what_came_before_the_interruption_in_the_same_step_is_cut(
    autojump_clock: object,
) -> None:
    async with scene(QUIET) as s:
        at_once(s.model)
        s.model.emit(Ready())
        await trio.sleep(0.01)
        s.model.emit(*turn(), *spoken(1000), SpeechStarted("item_u2", 0))
        await trio.sleep(0.5)
        assert ("delete", "a1") in s.model.commands
        assert s.leg.bytes_played() == 0


async def test_a_whole_turn_in_one_step_is_answered_though_its_answer_was_cancelled(
    autojump_clock: object,
) -> None:
    """After a stall: what is cancelled with the interrupted answer is asked for anew."""
    async with scene(QUIET) as s:
        at_once(s.model)
        s.model.emit(Ready())
        await trio.sleep(0.01)
        s.model.emit(*turn(), *spoken(1000))
        await trio.sleep(0.5)
        s.model.commands.clear()
        s.model.emit(*turn("item_u2"), *spoken(1000, "a2", "r2"))
        await trio.sleep(0.5)
        kinds = [command[0] for command in s.model.commands]
        assert kinds == ["cancel", "truncate", "respond"]
        assert s.call.voice.playout.idle
        s.model.emit(ResponseDone("r1", "cancelled"), ResponseDone("r2", "cancelled"))
        await trio.sleep(0.01)
        assert s.call.dialogue.patience.owed
        s.model.emit(*answer("a3", 400))
        await trio.sleep(1)
        assert entries(s)[-1] == ("agent", WORDS, False)
