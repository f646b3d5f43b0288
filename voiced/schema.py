"""The part of JSON Schema that tools use: whether a schema is one, and whether a value fits it.

Our own because the need is small: a full validator brings references, dialects and compiled
dependencies, and speaks to programmers. What is said here is read by a model that has to call
again, or by an operator who wrote the schema in TOML; it names places, never values, because a
value may be a caller's secret.

Known: `type properties required additionalProperties enum const items minItems maxItems
minLength maxLength pattern minimum maximum exclusiveMinimum exclusiveMaximum anyOf allOf`, as in
JSON Schema 2020-12 (json-schema.org, Validation); `pattern` is a Python regular expression,
whose `$` is the end and nothing else.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeGuard

__all__ = ["MAX_DEPTH", "check", "validate"]

MAX_DEPTH: Final = 16
"""How deep a schema may nest: far beyond what a model fills in, far below the stack."""

_MAX_PATTERN_TEXT: Final = 4096
"""Characters that a pattern is tried on: a slow expression must not stop every call."""

_END: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\$", re.DOTALL)
"""A `$`, or what may hold one that is none: an escape, a class. Python's own also stands before a
line break at the end, and no order number has one."""

_NOTES: Final = frozenset(
    {"$schema", "$id", "$comment", "title", "description", "default", "examples", "format"}
    | {"deprecated", "readOnly", "writeOnly", "strict"}
)
"""What says nothing about fitting."""


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: object) -> TypeGuard[float]:
    # "any number with a zero fractional part" (Validation, section 6.1.1)
    return _is_number(value) and not (isinstance(value, float) and not value.is_integer())


def _is_array(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


_TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "object": lambda value: isinstance(value, Mapping),
    "array": _is_array,
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "integer": _is_integer,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


# ---- is it a schema? ----


def check(schema: object) -> str | None:
    """What is wrong with a schema, in words for who wrote it; None where it can be used."""
    return _check(schema, "the schema", 0)


def _check(schema: object, where: str, depth: int) -> str | None:
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, Mapping):
        return f"{where} has to be a table"
    if depth > MAX_DEPTH:
        return f"{where} nests deeper than {MAX_DEPTH} levels"
    for key, value in schema.items():
        if key in _NOTES:
            continue
        kind = _KEYWORDS.get(key)
        if kind is None:
            near = difflib.get_close_matches(str(key), _KEYWORDS, 1)
            return f"{where} has {key}, which is not known" + (
                f"; did you mean {near[0]}?" if near else ""
            )
        if (fault := kind(value, f"{key} of {where}", depth)) is not None:
            return fault
    return None


def _type_names(value: object, where: str, _: int) -> str | None:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names:
        return f"{where} has to be a name or a list of names"
    wrong = [name for name in names if not isinstance(name, str) or name not in _TYPES]
    return f"{where} has to be of {', '.join(_TYPES)}" if wrong else None


def _schemas_by_name(value: object, where: str, depth: int) -> str | None:
    if not isinstance(value, Mapping):
        return f"{where} has to be a table"
    faults = (_check(inner, f"{name} in {where}", depth + 1) for name, inner in value.items())
    return next((fault for fault in faults if fault is not None), None)


def _schemas(value: object, where: str, depth: int) -> str | None:
    if not _is_array(value) or not value:
        return f"{where} has to be a list of schemas"
    faults = (_check(inner, f"no. {n} in {where}", depth + 1) for n, inner in enumerate(value, 1))
    return next((fault for fault in faults if fault is not None), None)


def _one_schema(value: object, where: str, depth: int) -> str | None:
    return _check(value, where, depth + 1)


def _names(value: object, where: str, _: int) -> str | None:
    if _is_array(value) and all(isinstance(name, str) for name in value):
        return None
    return f"{where} has to be a list of names"


def _values(value: object, where: str, _: int) -> str | None:
    return None if _is_array(value) and value else f"{where} has to be a list with something in it"


def _count(value: object, where: str, _: int) -> str | None:
    return None if _is_integer(value) and value >= 0 else f"{where} has to be 0 or more"


def _limit(value: object, where: str, _: int) -> str | None:
    return None if _is_number(value) and math.isfinite(value) else f"{where} has to be a number"


def _expression(value: object, where: str, _: int) -> str | None:
    try:
        _compiled(value)
    except (re.error, TypeError) as error:
        return f"{where} is no regular expression: {error}"
    return None


def _anything(value: object, where: str, _: int) -> str | None:
    return None


_KEYWORDS: Final[Mapping[str, Callable[[object, str, int], str | None]]] = {
    "type": _type_names,
    "properties": _schemas_by_name,
    "required": _names,
    "additionalProperties": _one_schema,
    "enum": _values,
    "const": _anything,
    "items": _one_schema,
    "minItems": _count,
    "maxItems": _count,
    "minLength": _count,
    "maxLength": _count,
    "pattern": _expression,
    "minimum": _limit,
    "maximum": _limit,
    "exclusiveMinimum": _limit,
    "exclusiveMaximum": _limit,
    "anyOf": _schemas,
    "allOf": _schemas,
}


# ---- does a value fit? ----


def validate(schema: Mapping[str, Any], arguments: object) -> str | None:
    """Why `arguments` do not fit `schema`, in words for who called; None where they do.

    The schema is one that `check` finds nothing wrong with. The first fault is told, by its place
    (`items[2].size`), without the value.
    """
    return _fault(schema, arguments, "")


def _fault(schema: Mapping[str, Any] | bool, value: object, place: str) -> str | None:
    here = place or "the arguments"
    if isinstance(schema, bool):
        return None if schema else f"{here} must be left out"
    names = schema.get("type")
    if names is not None:
        names = [names] if isinstance(names, str) else names
        if not any(_TYPES[name](value) for name in names):
            return f"{here} must be of type {' or '.join(names)}"
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        return f"{here} must be one of {', '.join(str(one) for one in schema['enum'])}"
    if "const" in schema and not _same(value, schema["const"]):
        return f"{here} must be {schema['const']}"
    fault = None
    if isinstance(value, str):
        fault = _text_fault(schema, value, here)
    elif isinstance(value, Mapping):
        fault = _object_fault(schema, value, place)
    elif _is_array(value):
        fault = _array_fault(schema, value, place)
    elif _is_number(value):
        fault = _number_fault(schema, value, here)
    if fault is None:
        fault = next(
            (f for one in schema.get("allOf", ()) if (f := _fault(one, value, place)) is not None),
            None,
        )
    if fault is None and "anyOf" in schema:
        faults = [_fault(one, value, place) for one in schema["anyOf"]]
        if None not in faults:
            return " or ".join(dict.fromkeys(str(one) for one in faults))
    return fault


def _text_fault(schema: Mapping[str, Any], value: str, here: str) -> str | None:
    if len(value) < schema.get("minLength", 0):
        return f"{here} must have at least {schema['minLength']} characters"
    if len(value) > schema.get("maxLength", math.inf):
        return f"{here} must have at most {schema['maxLength']} characters"
    pattern = schema.get("pattern")
    if pattern is not None:
        if len(value) > _MAX_PATTERN_TEXT:
            return f"{here} must have at most {_MAX_PATTERN_TEXT} characters"
        if _compiled(pattern).search(value) is None:
            return f"{here} must match the pattern {pattern}"
    return None


def _number_fault(schema: Mapping[str, Any], value: float, here: str) -> str | None:
    # Each told as "not (it fits)", so that NaN, which Python's JSON lets in, never does.
    if "minimum" in schema and not value >= schema["minimum"]:
        return f"{here} must be {schema['minimum']} or more"
    if "maximum" in schema and not value <= schema["maximum"]:
        return f"{here} must be {schema['maximum']} or less"
    if "exclusiveMinimum" in schema and not value > schema["exclusiveMinimum"]:
        return f"{here} must be more than {schema['exclusiveMinimum']}"
    if "exclusiveMaximum" in schema and not value < schema["exclusiveMaximum"]:
        return f"{here} must be less than {schema['exclusiveMaximum']}"
    return None


def _array_fault(schema: Mapping[str, Any], value: Sequence[object], place: str) -> str | None:
    here = place or "the arguments"
    if len(value) < schema.get("minItems", 0):
        return f"{here} must have at least {schema['minItems']} items"
    if len(value) > schema.get("maxItems", math.inf):
        return f"{here} must have at most {schema['maxItems']} items"
    if "items" in schema:
        for index, item in enumerate(value):
            if (fault := _fault(schema["items"], item, f"{place}[{index}]")) is not None:
                return fault
    return None


def _object_fault(schema: Mapping[str, Any], value: Mapping[str, Any], place: str) -> str | None:
    def inner(name: str) -> str:
        return f"{place}.{name}" if place else name

    for name in schema.get("required", ()):
        if name not in value:
            return f"{inner(name)} is missing"
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            fault = _fault(properties[name], item, inner(name))
        elif others is False:
            # A name that was made up may hold anything: only its length is bounded.
            near = ", ".join(properties) or "none"
            fault = f"{inner(str(name)[:40])} is not known; there are: {near}"
        else:
            fault = _fault(others, item, inner(str(name)[:40]))
        if fault is not None:
            return fault
    return None


def _same(one: object, other: object) -> bool:
    """Equality of JSON values: 1 is 1.0, but not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if _is_array(one) and _is_array(other):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_END.sub(lambda found: r"\Z" if found[0] == "$" else found[0], pattern))
