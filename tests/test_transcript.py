"""The transcript keeps what was heard."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voiced.transcript import MAX_ENTRIES, MAX_TEXT, Transcript, heard_text


def test_callers_words_keep_their_place_though_they_come_late() -> None:
    transcript = Transcript()
    transcript.open("caller", "u1")
    transcript.add("agent", "a1", "Good ", final=False)
    transcript.add("agent", "a1", "morning.", final=False)
    transcript.add("caller", "u1", "Günaydın", final=True)
    assert str(transcript) == "caller: Günaydın\nagent: Good morning."


def test_cut_item_keeps_what_was_heard_and_takes_no_late_words() -> None:
    transcript = Transcript()
    transcript.add("agent", "a1", "one two three four", final=False)
    transcript.cut("a1", 500, 1000)
    transcript.add("agent", "a1", "one two three four five", final=True)
    assert [(entry.text, entry.cut) for entry in transcript.entries()] == [("one two", True)]
    assert str(transcript).endswith("one two —")


def test_item_of_which_nothing_was_heard_leaves_no_words() -> None:
    transcript = Transcript()
    transcript.add("agent", "a1", "never heard", final=True)
    transcript.cut("a1", 0, 1000)
    assert transcript.entries() == []


def test_script_without_spaces_is_cut_at_a_character() -> None:
    assert heard_text("月曜日から金曜日まで", 500, 1000) == "月曜日から"


def test_unending_conversation_is_bounded() -> None:
    transcript = Transcript()
    for n in range(MAX_ENTRIES + 10):
        transcript.add("agent", f"a{n}", "x", final=True)
    transcript.add("agent", "a0", "y" * (2 * MAX_TEXT), final=True)
    assert len(transcript.entries()) == MAX_ENTRIES
    assert len(transcript.entries()[0].text) == MAX_TEXT


@given(st.text(max_size=200), st.integers(-5, 5000), st.integers(-5, 5000))
def test_heard_text_is_a_prefix_in_proportion(text: str, heard: int, received: int) -> None:
    result = heard_text(text, heard, received)
    assert text.startswith(result)
    if heard < received:
        assert len(result) <= max(0, len(text) * heard // max(received, 1)) or heard <= 0
    elif received > 0:
        assert result == text
