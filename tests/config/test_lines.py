"""The locator against documents whose every key and value says its own name."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from voiced.config.lines import locate
from voiced.config.mistakes import KeyPath

# Every key and value becomes unique, with an end mark, so that its line can be told by its text.
MARKS = st.sampled_from(["", " ", ".", '"', "'", "#", "[", "=", "ü"])
SCALARS = st.sampled_from(["", " x", "\nsecond\n", '"""', "'''", '\\"', "#", "]", "}", ",", "=["])
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(st.lists(st.tuples(MARKS, inner), max_size=3).map(tuple), min_size=1, max_size=3)
        | st.lists(st.tuples(MARKS, inner), max_size=4).map(tuple)
    ),
    max_leaves=25,
)


class Names:
    def __init__(self) -> None:
        self.count = 0

    def new(self) -> str:
        self.count += 1
        return f"n{self.count}e"


def build(tree: Any, names: Names) -> Any:
    """Tuples of (mark, value) become tables, lists arrays, texts unique scalars."""
    if isinstance(tree, tuple):
        return {names.new() + mark: build(value, names) for mark, value in tree}
    if isinstance(tree, list):
        return [build(value, names) for value in tree]
    return names.new() + str(tree)


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    if path:
        yield path, value
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from leaves(item, (*path, key))


def check(text: str, document: dict[str, Any]) -> None:
    lines = locate(text)
    split = text.split("\n")
    expected = dict(leaves(document))
    assert lines.keys() == expected.keys()
    for path, value in expected.items():
        line = split[lines[path] - 1]
        if isinstance(path[-1], str):
            assert path[-1][: path[-1].index("e") + 1] in line
        elif isinstance(value, str):
            assert value[: value.index("e") + 1] in line


@given(TREES.filter(lambda tree: isinstance(tree, tuple)))
def test_every_key_and_element_of_a_generated_document_is_found(tree: Any) -> None:
    document = build(tree, Names())
    text = tomli_w.dumps(document)
    assert tomllib.loads(text) == document
    check(text, document)


def write(document: dict[str, Any], draw: st.DrawFn) -> str:
    """Write a document in forms that tomli_w does not choose."""

    def key(name: str) -> str:
        if name.isascii() and name.isalnum() and draw(st.booleans()):
            return name
        if "'" not in name and draw(st.booleans()):
            return f"'{name}'"
        return json.dumps(name, ensure_ascii=False)

    def value(item: Any) -> str:
        blank = draw(st.sampled_from([" ", "\n", "\n # a comment ] , \n"]))
        if isinstance(item, dict):
            return "{ " + ", ".join(f"{key(k)} = {value(v)}" for k, v in item.items()) + " }"
        if isinstance(item, list):
            return "[" + "".join(f"{blank}{value(v)}{blank}," for v in item) + blank + "]"
        if item.endswith(("'", "\n")) or "'''" in item or draw(st.booleans()):
            return json.dumps(item, ensure_ascii=False)
        return f"'''{item}'''"

    def pairs(table: dict[str, Any], prefix: str) -> Iterator[str]:
        for name, item in table.items():
            dotted = prefix + key(name)
            if isinstance(item, dict) and item and draw(st.booleans()):
                yield from pairs(item, dotted + draw(st.sampled_from([".", " . "])))
            else:
                yield f"  {dotted}={value(item)} # = [ comment\n"

    return "# first\n\n" + "".join(pairs(document, ""))


@given(TREES.filter(lambda tree: isinstance(tree, tuple)), st.data())
def test_dotted_keys_inline_tables_and_literal_strings_are_found(
    tree: Any, data: st.DataObject
) -> None:
    document = build(tree, Names())
    text = write(document, data.draw)  # type: ignore[arg-type]
    assert tomllib.loads(text) == document
    check(text, document)


def test_forms_by_hand() -> None:
    text = "\n".join(
        [
            "top = 1",
            'a.b."c.d" = { e = [1, { f = 2 }], "g" = 1979-05-27 07:32:00 }',
            "[x . y]",
            'text = """',
            "[not.a.table]",
            '""""  # two quotes end the text',
            "[[x.list]]",
            "one = '''",
            "k = 1'''",
            "[x.list.sub]",
            "two = true",
            "[[x.list]]",
            "[[x.list.deep]]",
            "three = [",
            "  # none",
            "  1, 2,",
            "  [ 3 ],",
            "]",
            "[top2]",
        ]
    )
    assert tomllib.loads(text)
    assert locate(text.replace("\n", "\r\n")) == locate(text)
    assert locate(text) == {
        ("top",): 1,
        ("a",): 2,
        ("a", "b"): 2,
        ("a", "b", "c.d"): 2,
        ("a", "b", "c.d", "e"): 2,
        ("a", "b", "c.d", "e", 0): 2,
        ("a", "b", "c.d", "e", 1): 2,
        ("a", "b", "c.d", "e", 1, "f"): 2,
        ("a", "b", "c.d", "g"): 2,
        ("x",): 3,
        ("x", "y"): 3,
        ("x", "y", "text"): 4,
        ("x", "list"): 7,
        ("x", "list", 0): 7,
        ("x", "list", 0, "one"): 8,
        ("x", "list", 0, "sub"): 10,
        ("x", "list", 0, "sub", "two"): 11,
        ("x", "list", 1): 12,
        ("x", "list", 1, "deep"): 13,
        ("x", "list", 1, "deep", 0): 13,
        ("x", "list", 1, "deep", 0, "three"): 14,
        ("x", "list", 1, "deep", 0, "three", 0): 16,
        ("x", "list", 1, "deep", 0, "three", 1): 16,
        ("x", "list", 1, "deep", 0, "three", 2): 17,
        ("x", "list", 1, "deep", 0, "three", 2, 0): 17,
        ("top2",): 19,
    }


@given(st.text(st.sampled_from("ab.=[]{}\"'\\#,\n \r1é")))
def test_no_text_makes_it_fail(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in locate(text).values())
