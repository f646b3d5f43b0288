"""Header fields: names, order, lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.sip.grammar import split_list
from voiced.sip.headers import COMPACT, Headers


def test_names_match_without_case_and_in_compact_form() -> None:
    headers = Headers([("v", "one"), ("VIA", "two"), ("Via", "three"), ("X-Own", "four")])
    for name in ("Via", "v", "V", "vIA"):
        assert name in headers
        assert headers.get(name) == "one"
        assert headers.get_all(name) == ["one", "two", "three"]
    assert headers.get("x-oWN") == "four"
    assert headers.get("To") is None
    assert "t" not in headers
    assert headers.items()[0] == ("v", "one")


@pytest.mark.parametrize(("short", "name"), COMPACT.items())
def test_every_compact_form(short: str, name: str) -> None:
    assert Headers([(short, "x")]) == Headers([(name.title(), "x")])
    assert Headers([(short.upper(), "x")]).get(name) == "x"


def test_editing_keeps_the_order() -> None:
    headers = Headers([("A", "1"), ("B", "2"), ("a", "3")])
    headers.set("A", "4")
    assert headers.items() == [("A", "4"), ("B", "2")]
    headers.prepend("C", "0")
    headers.add("B", "5")
    assert headers.items() == [("C", "0"), ("A", "4"), ("B", "2"), ("B", "5")]
    copy = headers.copy()
    headers.remove("b")
    headers.remove("absent")
    headers.set("D", "6")
    assert list(headers) == [("C", "0"), ("A", "4"), ("D", "6")]
    assert len(copy) == 4
    assert repr(Headers([("A", "1")])) == "Headers([('A', '1')])"


def test_lists_are_split_where_the_field_is_a_list() -> None:
    headers = Headers(
        [
            ("Contact", '"A, B" <sip:a@b,c>;x="1,2" , <sip:d@e>'),
            ("Supported", " timer,,100rel ,"),
            ("Subject", "one, two"),
            ("Supported", ""),
        ]
    )
    assert headers.get_all("m") == ['"A, B" <sip:a@b,c>;x="1,2"', "<sip:d@e>"]
    assert headers.get_all("Supported") == ["timer", "100rel"]
    assert headers.get_all("Subject") == ["one, two"]
    assert headers.get_fields("k") == [" timer,,100rel ,", ""]


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        ("", [""]),
        (",", ["", ""]),
        ('"a,b', ['"a,b']),
        ("<a,b", ["<a,b"]),
        ('"a\\",b", c', ['"a\\",b"', "c"]),
        ('"a,b\\', ['"a,b\\']),
        ('<a,"b>",c', ['<a,"b>",c']),
        ("a>,b", ["a>", "b"]),
    ],
)
def test_splitting(value: str, elements: list[str]) -> None:
    assert split_list(value) == elements


@given(st.text(',"<>\\ a', max_size=40))
def test_splitting_loses_nothing_but_white_space(value: str) -> None:
    def squeezed(text: str) -> str:
        return text.replace(" ", "").replace("\t", "")

    assert squeezed(",".join(split_list(value))) == squeezed(value)


@pytest.mark.parametrize("name", ["", "A B", "A:", "Ä", "A\r\nB", "A\n"])
def test_names_that_cannot_be_written(name: str) -> None:
    with pytest.raises(ValueError, match="not a header field's name"):
        Headers().add(name, "x")


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\n", "\r"])
def test_no_field_can_be_smuggled_in(value: str) -> None:
    headers = Headers()
    for edit in (headers.add, headers.prepend, headers.set):
        with pytest.raises(ValueError, match="line break"):
            edit("Subject", value)
    with pytest.raises(ValueError, match="line break"):
        Headers([("Subject", value)])
    assert len(headers) == 0
