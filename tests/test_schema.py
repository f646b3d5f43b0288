"""Tool schemas: which are schemas, and what fits them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from voiced.schema import MAX_DEPTH, check, validate

BOOKING: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 10},
        "date": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"},
        "guests": {"type": "integer", "minimum": 1, "maximum": 20},
        "seats": {"type": "array", "items": {"enum": ["window", "hall"]}, "maxItems": 2},
        "phone": {"anyOf": [{"type": "string", "pattern": "^[+]"}, {"type": "null"}]},
        "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"name": "Ada"}, None),
        ({"name": "Ada", "guests": 4.0, "seats": ["hall"], "phone": None, "share": 0.5}, None),
        ({}, "name is missing"),
        ([], "the arguments must be of type object"),
        ({"name": ""}, "name must have at least 1 characters"),
        ({"name": "A" * 11}, "name must have at most 10 characters"),
        ({"name": "A", "date": "tomorrow"}, r"date must match the pattern ^\d{4}-\d\d-\d\d$"),
        ({"name": "A", "guests": True}, "guests must be of type integer"),
        ({"name": "A", "guests": 2.5}, "guests must be of type integer"),
        ({"name": "A", "guests": 0}, "guests must be 1 or more"),
        ({"name": "A", "guests": 21}, "guests must be 20 or less"),
        ({"name": "A", "share": 0}, "share must be more than 0"),
        ({"name": "A", "share": 1}, "share must be less than 1"),
        ({"name": "A", "share": float("nan")}, "share must be more than 0"),
        ({"name": "A", "seats": ["hall", "roof"]}, "seats[1] must be one of window, hall"),
        ({"name": "A", "seats": ["hall"] * 3}, "seats must have at most 2 items"),
        ({"name": "A", "seats": "hall"}, "seats must be of type array"),
        (
            {"name": "A", "phone": "0301"},
            "phone must match the pattern ^[+] or phone must be of type null",
        ),
        (
            {"name": "A", "Gäste": 2},
            "Gäste is not known; there are: name, date, guests, seats, phone, share",
        ),
    ],
)
def test_what_fits(arguments: object, fault: str | None) -> None:
    assert check(BOOKING) is None
    assert validate(BOOKING, arguments) == fault


def test_nested_places_are_named() -> None:
    schema = {"properties": {"a": {"items": {"properties": {"b": {"type": "string"}}}}}}
    assert validate(schema, {"a": [{"b": "x"}, {"b": 1}]}) == "a[1].b must be of type string"


def test_all_of_and_const_and_booleans() -> None:
    schema = {"properties": {"x": {"allOf": [{"minimum": 1}, {"maximum": 2}]}, "y": {"const": 1}}}
    assert validate(schema, {"x": 2, "y": 1.0}) is None
    assert validate(schema, {"x": 3}) == "x must be 2 or less"
    assert validate(schema, {"y": True}) == "y must be 1"
    assert validate({"additionalProperties": {"type": "null"}}, {"z": 1}) is not None
    assert validate({"properties": {"x": False}}, {"x": 1}) == "x must be left out"


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ([], "the schema has to be a table"),
        ({"type": "text"}, "type of the schema has to be of object, array"),
        ({"type": []}, "type of the schema has to be a name"),
        (
            {"propertys": {}},
            "the schema has propertys, which is not known; did you mean properties",
        ),
        ({"$ref": "#/x"}, "the schema has $ref, which is not known"),
        ({"properties": {"a": 1}}, "a in properties of the schema has to be a table"),
        ({"properties": []}, "properties of the schema has to be a table"),
        ({"properties": {"a": {"pattern": "("}}}, "pattern of a in properties of the schema is no"),
        ({"pattern": 1}, "pattern of the schema is no"),
        ({"required": "a"}, "required of the schema has to be a list of names"),
        ({"enum": []}, "enum of the schema has to be a list with"),
        ({"anyOf": {}}, "anyOf of the schema has to be a list of schemas"),
        (
            {"anyOf": [{"minimum": "1"}]},
            "minimum of no. 1 in anyOf of the schema has to be a number",
        ),
        ({"maxItems": -1}, "maxItems of the schema has to be 0 or more"),
        ({"items": {"items": 3}}, "items of items of the schema has to be a table"),
    ],
)
def test_mistakes_in_schemas_are_named(schema: object, fault: str) -> None:
    assert (check(schema) or "").startswith(fault)


def test_depth_is_bounded() -> None:
    schema: dict[str, Any] = {}
    for _ in range(MAX_DEPTH):
        schema = {"items": schema}
    assert check(schema) is None
    assert "nests deeper" in (check({"items": schema}) or "")


# A schema with a value that fits it, built side by side: fitting is known, not computed.

Pair = tuple[dict[str, Any], Any]


@st.composite
def strings(draw: st.DrawFn) -> Pair:
    value = draw(st.text(max_size=8))
    return {"type": "string", "minLength": len(value), "maxLength": len(value)}, value


@st.composite
def integers(draw: st.DrawFn) -> Pair:
    value = draw(st.integers(-1000, 1000))
    schema = {"type": "integer", "minimum": value, "maximum": value + draw(st.integers(0, 3))}
    return schema, draw(st.sampled_from([value, float(value)]))


@st.composite
def enums(draw: st.DrawFn) -> Pair:
    values = draw(st.lists(st.text(max_size=3) | st.integers() | st.none(), min_size=1, max_size=4))
    return {"enum": values}, draw(st.sampled_from(values))


LEAVES = strings() | integers() | enums() | st.booleans().map(lambda b: ({"type": "boolean"}, b))


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Pair]) -> Pair:
    item, value = draw(inner)
    count = draw(st.integers(0, 3))
    return {"type": "array", "items": item, "maxItems": count}, [value] * count


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Pair]) -> Pair:
    fields = draw(st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3))
    return {
        "type": "object",
        "properties": {name: schema for name, (schema, _) in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }, {name: value for name, (_, value) in fields.items()}


@st.composite
def choices(draw: st.DrawFn, inner: st.SearchStrategy[Pair]) -> Pair:
    (one, value), (other, _) = draw(inner), draw(inner)
    return {"anyOf": draw(st.permutations([one, other]))}, value


PAIRS = st.recursive(LEAVES, lambda i: arrays(i) | objects(i) | choices(i), max_leaves=8)


@given(PAIRS)
def test_what_was_made_to_fit_fits(pair: Pair) -> None:
    schema, value = pair
    assert check(schema) is None
    assert validate(schema, value) is None


@given(objects(LEAVES), st.data())
def test_an_object_that_lacks_or_adds_something_does_not_fit(
    pair: Pair, data: st.DataObject
) -> None:
    schema, value = pair
    assume(len(value) > 0)
    name = data.draw(st.sampled_from(sorted(value)))
    assert validate(schema, {k: v for k, v in value.items() if k != name}) == f"{name} is missing"
    assert "is not known" in (validate(schema, {**value, "other than all": 1}) or "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda i: st.lists(i, max_size=3) | st.dictionaries(st.text(max_size=5), i, max_size=3),
    max_leaves=10,
)


@given(PAIRS, JSON)
def test_any_value_gets_an_answer(pair: Pair, value: object) -> None:
    fault = validate(pair[0], value)
    assert fault is None or fault


KEYS = st.sampled_from(
    ["type", "properties", "required", "enum", "items", "anyOf", "pattern", "minimum", "maxLength"]
)


@given(st.dictionaries(KEYS, JSON, max_size=4), JSON)
def test_a_schema_that_is_found_good_never_fails(schema: dict[str, Any], value: object) -> None:
    if check(schema) is None:
        validate(schema, value)


@given(st.text(alphabet="0123456789", min_size=6, max_size=10))
def test_values_are_not_repeated(secret: str) -> None:
    schema = {"properties": {"pin": {"type": "string", "maxLength": 4}, "n": {"type": "null"}}}
    assert secret not in (validate(schema, {"pin": secret}) or secret)
    assert secret not in (validate(schema, {"n": int(secret)}) or secret)


@pytest.mark.parametrize("end", ["$", r"\Z"])
def test_the_end_of_a_pattern_is_the_end(end: str) -> None:
    schema = {"properties": {"order": {"type": "string", "pattern": f"^[0-9]{{6}}{end}"}}}
    assert check(schema) is None
    assert validate(schema, {"order": "123456"}) is None
    assert validate(schema, {"order": "123456\n"}) is not None


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^\$[0-9]+$", "$5"),
        ("^[$€][0-9]$", "$5"),
        (r"^[\]$]$", "$"),
        ("^[]$]$", "$"),
        ("^[^$]$", "x"),
        ("^(a$|b$)", "b"),
    ],
)
def test_other_dollars_are_dollars(pattern: str, text: str) -> None:
    schema = {"properties": {"a": {"pattern": pattern}}}
    assert check(schema) is None
    assert validate(schema, {"a": text}) is None
