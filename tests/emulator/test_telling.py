"""What the emulator makes of data and of conversations: words that an agent could say."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from voiced.emulator.chat import _json_answer
from voiced.emulator.items import Item
from voiced.emulator.telling import first_sentences, gist, in_words, last_sentences

LONG = "I have a very long question about my order, " * 9 + "and then there is my invoice."
PROMPT = 'Answer with JSON: "summary", "sentiment", "topics", "language".'


def summed_up(transcript: str) -> dict[str, Any]:
    def item(role: str, text: str) -> Item:
        part = {"type": "input_text", "text": text}
        return Item({"id": "i", "type": "message", "role": role, "content": [part]})

    answer: dict[str, Any] = json.loads(
        _json_answer({}, [item("system", PROMPT), item("user", transcript)])
    )
    return answer


def test_a_summary_begins_with_a_whole_word() -> None:
    said = summed_up(
        f"agent: Good morning.\ncaller: {LONG} When are you open?\n"
        "agent: From nine to five, Monday to —"
    )
    assert said["summary"] == (
        'The caller said: "When are you open?" The agent said: "From nine to five, Monday to"'
    )
    assert (said["sentiment"], said["language"]) == ("neutral", "en")
    words = summed_up(f"caller: {LONG}")["summary"].partition('"')[2]
    assert words.split()[0] in LONG.split()
    assert words.endswith('and then there is my invoice."')
    assert len(words) > 150


def test_one_side_alone_and_texts_that_are_no_transcripts() -> None:
    assert gist("caller: Hello? —") == 'The caller said: "Hello?"'
    assert gist("") == ""
    assert gist("Just this.") == "Just this."
    assert gist(f"{LONG} Is it here? It is.") == "Is it here? It is."


TEXT = st.text(st.sampled_from("ab .!?。"), max_size=60)


@given(TEXT, st.integers(1, 30))
@example("abc", 2)
def test_what_is_shortened_is_part_of_the_text_and_no_longer(text: str, most: int) -> None:
    first, last = first_sentences(text, most), last_sentences(text, most)
    assert text.startswith(first)
    assert max(len(first), len(last)) <= most
    assert "".join(text.split()).endswith("".join(last.split()))
    if len(text) <= most:
        assert (first, last) == (text, text)
    elif not text.isspace():
        assert first
        assert last
    if " " in text[1:most] and len(text) > most:
        assert not (first[-1] in "ab" and text[len(first)] in "ab"), "in mid-word"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=9,
)


@given(JSON)
def test_anything_has_words_or_none(value: object) -> None:
    said = in_words(value)
    assert isinstance(said, str)
    assert not isinstance(value, dict) or ": " not in said or ": " in json.dumps(value)
