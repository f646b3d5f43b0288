"""Cutting an answer into what can be spoken."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.pipeline.sentences import FIRST_CLAUSE, MAX, Sentences, speakable, width


def split(*pieces: str) -> list[str]:
    sentences = Sentences()
    return [s for piece in pieces for s in sentences.feed(piece)] + sentences.end()


def spoken(text: str) -> list[str]:
    return [s.strip() for s in split(text)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["We are open from nine.", "You can also write to us."],
        ["Certainly!", "Shall I book a table for you?", "It is free until half past eight."],
        ["Dr. Smith is in at 9 a.m. on Mon. and Tue. only.", "Shall I put you through?"],
        ["That makes 3.50 euros, or 1,250.75 in all.", "Do you want to pay now, please?"],
        ["Please see J. R. Tolkien, e.g. the first part.", "It is on the second shelf."],
        ["He said: \u201cWe are closed.\u201d", "Then he hung up on me again."],
        ["Is that so?!", "I would not have thought it possible..."],
        ["No.", "I am afraid that we have none of these left."],
        ["Der Bgm. hat heute leider keine Zeit.", "Passt es Ihnen morgen um drei?"],
        ["It stands in room no. 5 on the left.", "The door has the same number."],
        ["It began in 2024.", "The next one comes in a year or two."],
        ["Am 3. Mai haben wir z. B. bis 18 Uhr geöffnet.", "Passt Ihnen das so?"],
        ["Üçüncü kat değil, 3. kat, Dr. Yılmaz'ın yanı.", "Başka bir sorunuz var mı acaba?"],
        ["Saat 9.30'da açılıyoruz, Sn. Kaya.", "Size nasıl yardımcı olabilirim acaba?"],
        [
            "はい、承知しました。",
            "営業時間は午前九時から午後六時までです。",
            "ほかにご質問はありますか？",
        ],
        ["彼は「もう閉店です。」と言いました。", "また明日お越しください。"],
    ],
)
def test_sentences_end_where_a_reader_ends_them(sentences: list[str]) -> None:
    joiner = "" if width(sentences[0]) > len(sentences[0]) + 3 else " "
    assert spoken(joiner.join(sentences)) == sentences


def test_the_first_piece_is_short() -> None:
    text = "We are open from Monday to Friday, from nine in the morning until six, and on Saturday."
    first, *rest = split(text)
    assert FIRST_CLAUSE <= width(first) < 40
    assert first == "We are open from Monday to Friday, "
    assert "".join(rest) == text[len(first) :]
    assert len(rest) == 1  # later commas do not cut


def test_the_first_piece_comes_before_its_sentence_has_ended() -> None:
    sentences = Sentences()
    assert sentences.feed("We are open from Monday to Friday,") == []
    assert sentences.feed(" from") == ["We are open from Monday to Friday, "]


def test_short_sentences_are_joined_but_for_the_first() -> None:
    text = "Certainly. Yes. Of course. We can do that for you. Wait."
    assert spoken(text) == ["Certainly.", "Yes. Of course. We can do that for you.", "Wait."]


def test_a_long_sentence_is_cut_at_a_comma() -> None:
    clauses = ", ".join(f"and then there is the number {n}" for n in range(30))
    pieces = split("Well then. " + clauses)
    assert all(piece.endswith(", ") for piece in pieces[1:-1])
    assert all(60 < width(piece) <= 190 for piece in pieces[1:-1])


def test_a_long_sentence_without_commas_is_cut_between_words() -> None:
    pieces = split("word " * 200)
    assert all(piece.endswith("word ") for piece in pieces)
    assert max(map(width, pieces)) <= MAX


def test_lines_end_sentences() -> None:
    text = "Our opening hours are\n- Monday to Friday\n- Saturday from ten until two\nSee you"
    assert spoken(text) == [
        "Our opening hours are",
        "- Monday to Friday\n- Saturday from ten until two",
        "See you",
    ]


def test_a_line_ends_what_is_said_first() -> None:
    sentences = Sentences()
    assert sentences.feed("One moment.\n") == ["One moment.\n"]
    assert sentences.feed("Yes.\n") == [], "later ones are joined with what follows"


TEXT = st.text(
    st.one_of(
        st.sampled_from(" .,!?\n。、」'a1Ağ日本の*"), st.characters(exclude_categories=["Cs"])
    ),
    max_size=600,
)


@given(TEXT, st.lists(st.integers(0, 600), max_size=20))
def test_nothing_is_lost_and_cuts_do_not_matter(text: str, places: list[int]) -> None:
    whole = split(text)
    assert "".join(whole) == text
    ends = sorted({0, len(text), *(min(place, len(text)) for place in places)})
    parts = [text[a:b] for a, b in pairwise(ends)]
    assert split(*parts) == whole
    assert all(whole)
    assert max(map(width, whole), default=0) <= MAX + 1  # a wide character more at the most


@given(TEXT)
def test_what_is_spoken_has_words_and_no_layout(text: str) -> None:
    said = speakable(text)
    assert said == speakable(said) or "[" in said or "#" in said or "-" in said
    assert not said or any(c.isalnum() for c in said)
    assert "*" not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("**Monday** to `Friday`. ", "Monday to Friday."),
        ("# Opening hours\n", "Opening hours"),
        ("- from nine", "from nine"),
        ("See [our page](https://example.net/a).", "See our page."),
        ("Gladly! 😊", "Gladly!"),
        ("***\n", ""),
        (" … ", ""),
        ("はい。", "はい。"),
    ],
)
def test_speakable(written: str, said: str) -> None:
    assert speakable(written) == said
