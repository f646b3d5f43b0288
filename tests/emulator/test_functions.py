"""Which function words ask for, and arguments that fit its schema whatever that is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiced import clips, schema
from voiced.emulator.functions import arguments_for, wanted_tool

TOOLS = [
    {"name": "opening_hours", "description": "Looks up when we are open."},
    {"name": "end_call", "description": "Ends the call after the caller has said goodbye."},
    {"name": "transferCall", "description": "Hands the caller over to a colleague."},
    {"name": "book", "description": "Books an appointment."},
    {"name": "search", "description": "Searches our documents: prices, delivery, warranty."},
]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (clips.load("hello").text, None),
        (clips.load("interrupt").text, None),
        (clips.load("hours").text, "opening_hours"),
        (clips.load("hours_tr").text, "opening_hours"),
        (clips.load("hours_ja").text, "opening_hours"),
        (clips.load("appointment").text, "book"),
        (clips.load("appointment_ja").text, "book"),
        (clips.load("thanks").text, "end_call"),
        (clips.load("transfer").text, "transferCall"),
        ("What are the prices for delivery?", "search"),
        ("How are you?", None),
        ("", None),
    ],
)
def test_words_find_their_tool(words: str, expected: str | None) -> None:
    found = wanted_tool(TOOLS, words)
    assert (found and found["name"]) == expected


def test_a_choice_forbids_demands_and_names() -> None:
    hours = clips.load("hours").text
    assert wanted_tool(TOOLS, hours, "none") is None
    assert wanted_tool(TOOLS, "How are you?", "required") in TOOLS
    for named in ({"name": "search"}, {"type": "function", "function": {"name": "search"}}):
        assert wanted_tool(TOOLS, hours, named) is TOOLS[4]
    assert wanted_tool(TOOLS, hours, {"name": "unheard_of"}) is None
    assert wanted_tool([], hours, "required") is None


def arguments(words: str, required: list[str] | None = None, **properties: Any) -> Any:
    shape: dict[str, Any] = {"type": "object", "properties": properties}
    if required is not None:
        shape["required"] = required
    filled = json.loads(arguments_for({"name": "x", "parameters": shape}, words))
    assert schema.validate(shape, filled) is None
    return filled


def test_arguments_are_taken_from_the_words() -> None:
    text, whole = {"type": "string"}, {"type": "integer"}
    said = clips.load("appointment").text
    assert arguments(said, when=text) == {"when": "tomorrow morning"}
    assert arguments(said, query=text) == {"query": said}
    assert arguments(clips.load("transfer").text, to=text) == {"to": "sales department"}
    assert arguments("A table for four people", people=whole) == {"people": 4}
    assert arguments("A table for 12 people", people={**whole, "maximum": 8}) == {"people": 8}
    assert arguments("My number is 555 01-99.", number=text) == {"number": "5550199"}
    assert arguments("order forty-two", order_id=text) == {"order_id": "42"}
    where = {"type": "string", "enum": ["technical_support", "sales"]}
    assert arguments(clips.load("transfer").text, department=where) == {"department": "sales"}
    assert arguments("Hello", department=where) == {"department": "technical_support"}


def test_numbers_with_a_pattern() -> None:
    number = {
        "type": "string",
        "pattern": r"^(\+49|\+43)[0-9]{1,14}$",
        "description": "In E.164, such as +4930123456.",
    }
    assert arguments("My number is +43 1 5550.", number=number) == {"number": "+4315550"}
    assert arguments("Connect me to sales.", number=number) == {"number": "+4930123456"}
    assert arguments("Hm", code={"type": "string", "pattern": r"^\d+$"}) == {"code": "1"}


def test_what_is_not_required_is_left_out_unless_it_was_named() -> None:
    size = {"type": "string", "enum": ["small", "large"]}
    both = {"size": size, "note": {"type": "string"}, "what": {"type": "string"}}
    assert set(arguments("A pizza", ["what"], **both)) == {"what"}
    assert arguments("A large pizza", ["what"], **both)["size"] == "large"


SIMPLE = st.one_of(
    st.just({"type": "string"}),
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 20)),
    st.builds(lambda n: {"type": "string", "minLength": n}, st.integers(0, 20)),
    st.builds(lambda e: {"enum": e}, st.lists(st.text(), min_size=1, max_size=3)),
    st.builds(lambda n: {"type": "integer", "minimum": n}, st.integers(-50, 50)),
    st.builds(lambda n: {"type": "number", "maximum": n}, st.floats(-50, 50)),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": 7}, {}]),
    st.just({"type": ["string", "null"]}),
)
SCHEMAS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds(lambda s: {"type": "array", "items": s}, inner),
        st.builds(lambda s: {"anyOf": s}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(
            lambda p: {"type": "object", "properties": p, "required": list(p)},
            st.dictionaries(st.text(max_size=8), inner, max_size=3),
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=8), SCHEMAS, max_size=4), st.text(max_size=60))
def test_arguments_fit_their_schema(properties: dict[str, Any], words: str) -> None:
    shape = {"type": "object", "properties": properties, "required": list(properties)}
    filled = json.loads(arguments_for({"name": "x", "parameters": shape}, words))
    assert schema.validate(shape, filled) is None


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "type",
                        "properties",
                        "enum",
                        "items",
                        "required",
                        "anyOf",
                        "format",
                        "minimum",
                        "x",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_odd_schemas_cost_nothing(parameters: Any) -> None:
    arguments_for({"name": "x", "parameters": {"properties": {"x": parameters}}}, "Hello")
    json.loads(arguments_for({"name": "x", "parameters": parameters}, "Hello"))


def test_a_bottomless_schema_ends() -> None:
    shape: dict[str, Any] = {"type": "object", "properties": {}, "required": ["x"]}
    shape["properties"]["x"] = shape
    assert len(arguments_for({"name": "x", "parameters": shape}, "Hello")) < 200
