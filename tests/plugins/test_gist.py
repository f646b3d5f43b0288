"""What is understood of a model's answer."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voiced_plugins._gist import PROMPT, SENTIMENTS, Gist, messages, shortened, understood

from voiced.plugin import Line

WHOLE = {
    "summary": "They asked for the {hours}.\nAll is well.",
    "sentiment": "positive",
    "topics": ["opening hours", "parking"],
    "language": "tr",
}
GIST = Gist(
    "They asked for the {hours}. All is well.", "positive", ("opening hours", "parking"), "tr"
)


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        "Here it is:\n```json\n{}\n```\nAnything else?",
        '<think>The keys are {{"summary"}} and so on, perhaps {{"summary": "x"}}</think> {}',
        "{{not JSON}} {}",
        '{{"answer": 1}} {}',
        "{{" * 50 + " {}",
    ],
)
def test_the_object_is_found_in_prose(answer: str) -> None:
    text = answer.replace("{}", json.dumps(WHOLE)).replace("{{", "{").replace("}}", "}")
    assert understood(text) == GIST


@pytest.mark.parametrize(
    ("given", "gist"),
    [
        ({"sentiment": "Very Positive."}, {"sentiment": "positive"}),
        ({"sentiment": "positive, but later negative"}, {"sentiment": None}),
        ({"sentiment": 7}, {"sentiment": None}),
        ({"topics": "a, b;c、d"}, {"topics": ("a", "b", "c", "d")}),
        ({"topics": ["a", "a", "", None, ["x"], "b, c"]}, {"topics": ("a", "b c")}),
        ({"topics": {"a": 1}}, {"topics": ()}),
        ({"language": "EN_us"}, {"language": "en-us"}),
        ({"language": "the language was Turkish"}, {"language": None}),
    ],
)
def test_what_is_odd_is_made_fit_or_left_out(
    given: dict[str, object], gist: dict[str, object]
) -> None:
    found = understood(json.dumps(WHOLE | given))
    assert found is not None
    for name, value in gist.items():
        assert getattr(found, name) == value


@pytest.mark.parametrize("answer", ["", "I cannot.", '{"summary": ""}', '{"summary": 5}', "[1]"])
def test_no_summary_is_none(answer: str) -> None:
    assert understood(answer) is None


def test_long_answers_cost_little() -> None:
    began = time.process_time()
    for text in ('{"a":' * 20_000, '{"' * 40_000, "{" * 100_000, '"{' * 50_000):
        assert understood(text) is None
    assert time.process_time() - began < 5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(
    st.text(),
    st.fixed_dictionaries(
        {}, optional={"summary": JSON, "sentiment": JSON, "topics": JSON, "language": JSON}
    ),
    st.text(),
)
def test_any_answer_is_a_gist_that_fits_or_none(
    before: str, value: dict[str, object], after: str
) -> None:
    found = understood(before + json.dumps(value) + after)
    if found is None:
        return
    assert 0 < len(found.summary) <= 4000
    assert found.sentiment in (None, *SENTIMENTS)
    assert len(found.topics) <= 10
    assert not any("," in each or not each for each in found.topics)
    assert found.language is None or found.language.isascii()


@given(st.lists(st.text(max_size=200)), st.integers(10, 2000))
def test_a_transcript_keeps_its_beginning_and_its_end(texts: list[str], most: int) -> None:
    lines = [Line("caller", text, False) for text in texts]
    whole = shortened(lines, 10**9)
    found = shortened(lines, most)
    if len(whole) <= most:
        assert found == whole
    else:
        head, _, tail = found.partition("\n[…]\n")
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert len(head) + len(tail) == most


def test_the_language_is_a_setting_and_braces_are_harmless() -> None:
    system, user = messages(PROMPT, "German", 'caller: {language} "summary"')
    assert "in German" in system["content"]
    assert "{language}" not in system["content"]
    assert user == {"role": "user", "content": 'caller: {language} "summary"'}
    assert "in the caller's language" in messages(PROMPT, None, "")[0]["content"]
