"""The conversation as it was heard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.pipeline.history import PENDING, History
from voiced.pipeline.providers import Message, ToolRequest


def answer(history: History, item_id: str, *pieces: tuple[str, float], whole: bool = True) -> None:
    history.begin_answer(item_id)
    for text, ms in pieces:
        history.speak(item_id, text)
        history.sounded(item_id, ms)
        history.sounded(item_id, 0, whole=whole)
    history.end_answer(item_id)


def said(history: History) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in history.messages("")]


def test_a_conversation() -> None:
    history = History(40)
    answer(history, "a1", ("Hello. ", 1000), ("How can I help? ", 1200))
    history.open_turn("u1")
    assert said(history) == [("assistant", "Hello. How can I help?")]
    assert history.write_down("u1", "When are you open?")
    history.add_message("system", "The caller pressed the key 1.")
    assert history.messages("Be brief.") == [
        Message("system", "Be brief."),
        Message("assistant", "Hello. How can I help?"),
        Message("user", "When are you open?"),
        Message("system", "The caller pressed the key 1."),
    ]


def test_a_turn_without_words_is_forgotten() -> None:
    history = History(40)
    history.open_turn("u1")
    assert not history.write_down("u1", "")
    history.open_turn("u2")
    history.delete("u2")
    assert not history.write_down("u2", "Hello?")
    assert said(history) == []


@pytest.mark.parametrize(
    ("heard_ms", "left"),
    [
        (0, ""),
        (100, ""),  # not one whole word
        (600, "We are"),
        (1000, "We are open."),
        (1400, "We are open. From"),
        (2000, "We are open. From nine to five."),
        (9999, "We are open. From nine to five."),
    ],
)
def test_an_answer_ends_where_it_was_interrupted(heard_ms: int, left: str) -> None:
    history = History(40)
    answer(history, "a1", ("We are open. ", 1000), ("From nine to five. ", 1000))
    history.truncate("a1", heard_ms)
    assert said(history) == ([("assistant", left)] if left else [])


def test_a_script_without_spaces_is_cut_anywhere() -> None:
    history = History(40)
    answer(history, "a1", ("営業時間は九時から六時までです。", 1600))
    history.truncate("a1", 800)
    assert said(history) == [("assistant", "営業時間は九時か")]


def test_a_sentence_whose_sound_has_not_ended_is_longer_than_what_came() -> None:
    history = History(40)
    answer(history, "a1", ("One two three four five. ", 2500))  # 100 ms a character
    answer(history, "a2", ("Six seven eight nine ten. ", 500), whole=False)
    history.truncate("a2", 500)
    assert said(history)[-1] == ("assistant", "Six")


def test_nothing_is_added_to_what_was_cut() -> None:
    history = History(40)
    history.begin_answer("a1")
    history.speak("a1", "Hello there. ")
    history.sounded("a1", 1000, whole=True)
    history.truncate("a1", 1000)
    history.speak("a1", "How are you? ")
    history.sounded("a1", 1000, whole=True)
    assert said(history) == [("assistant", "Hello there.")]


def test_what_was_not_heard_at_all_is_gone() -> None:
    history = History(40)
    answer(history, "a1", ("Hello. ", 1000))
    history.delete("a1")
    history.begin_answer("a2")
    history.end_answer("a2")
    assert said(history) == []


def test_tools() -> None:
    history = History(40)
    history.begin_answer("a1")
    request = ToolRequest("c1", "hours", "{}")
    history.speak("a1", "One moment. ")
    history.sounded("a1", 500, whole=True)
    history.request("a1", request)
    history.end_answer("a1")
    history.add_message("user", "Hello?")
    assert history.messages("") == [
        Message("assistant", "One moment.", (request,)),
        Message("tool", PENDING, tool_call_id="c1"),
        Message("user", "Hello?"),
    ]
    assert history.result("c1", "nine to five")
    assert not history.result("c2", "nothing")
    assert history.messages("")[1] == Message("tool", "nine to five", tool_call_id="c1")
    history.delete("a1")  # the words were not heard; the call was made
    assert history.messages("")[0] == Message("assistant", "", (request,))


STEP = st.one_of(
    st.tuples(st.just("message"), st.sampled_from(["user", "system", "assistant"])),
    st.tuples(st.just("turn"), st.sampled_from(["", "words"])),
    st.tuples(st.just("answer"), st.integers(0, 3)),
    st.tuples(st.just("request"), st.integers(1, 3)),
    st.tuples(st.just("truncate"), st.integers(0, 4000)),
    st.tuples(st.just("delete"), st.integers(0, 5)),
    st.tuples(st.just("result"), st.integers(0, 10)),
)


@given(st.lists(STEP, max_size=60), st.integers(1, 12))
def test_what_is_sent_is_bounded_and_well_formed(
    steps: list[tuple[str, object]], most: int
) -> None:
    history = History(most)
    calls = 0
    for at, (kind, value) in enumerate(steps):
        match kind, value:
            case "message", str():
                history.add_message(value, f"text {at}")  # type: ignore[arg-type]
            case "turn", str():
                history.open_turn(f"i{at}")
                history.write_down(f"i{at}", value)
            case "answer", int():
                answer(history, f"i{at}", *[(f"Sentence {n}. ", 1000.0) for n in range(value)])
            case "request", int():
                history.begin_answer(f"i{at}")
                for _ in range(value):
                    calls += 1
                    history.request(f"i{at}", ToolRequest(f"c{calls}", "tool", "{}"))
                history.end_answer(f"i{at}")
            case "truncate", int():
                history.truncate(f"i{at - 1}", value)
            case "delete", int():
                history.delete(f"i{at - value}")
            case "result", int():
                history.result(f"c{value}", "done")
        told = history.messages("Be brief.")
        assert told[0] == Message("system", "Be brief.")
        # Four messages are the longest entry here, and one entry is sent in any case.
        assert len(told) - 1 <= max(most, 4)
        waiting: list[str] = []
        for message in told[1:]:
            if message.role == "tool":
                assert waiting.pop(0) == message.tool_call_id
                continue
            assert not waiting
            assert message.content or message.tool_calls
            waiting = [request.call_id for request in message.tool_calls]
        assert not waiting


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6), st.data())
def test_less_heard_is_never_more_text(lengths: list[int], data: st.DataObject) -> None:
    def after(heard: int) -> str:
        history = History(40)
        answer(
            history, "a", *[(f"This is sentence {n}. ", float(ms)) for n, ms in enumerate(lengths)]
        )
        history.truncate("a", heard)
        return "".join(message.content for message in history.messages(""))

    a = data.draw(st.integers(0, sum(lengths)))
    b = data.draw(st.integers(a, sum(lengths)))
    assert after(b).startswith(after(a))
    assert after(sum(lengths)).count("sentence") == len(lengths)
