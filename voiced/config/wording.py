"""How a message says what a type takes, what was found in its place, and what to do."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from typing import Any, Final

from msgspec import inspect

from voiced.config.mistakes import KeyPath, key_name

__all__ = ["addition", "expected", "found", "is_table", "one_of", "remedy", "without_none"]

_SHOWN: Final = 40  # characters of a wrong text that are repeated in the message

_UNITS: Final = {"_ms": "milliseconds", "_s": "seconds", "_days": "days", "_usd": "US dollars"}


def without_none(kind: inspect.Type) -> inspect.Type:
    """Unwrap `X | None` to X; what TOML cannot write is no choice for an operator."""
    if isinstance(kind, inspect.UnionType):
        members = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
        if len(members) == 1:
            return members[0]
    return kind


def is_table(kind: inspect.Type) -> bool:
    """Say whether a value of this type is a table with keys of its own."""
    kind = without_none(kind)
    if isinstance(kind, inspect.UnionType):
        return all(is_table(member) for member in kind.types)
    return isinstance(kind, inspect.StructType)


def addition(kind: inspect.Type, path: KeyPath) -> str:
    """Say how to write what is missing at `path`."""
    match without_none(kind):
        case inspect.StructType():
            return f"add [{key_name(path)}]"
        case inspect.DictType(value_type=value) if is_table(value):
            return f"add [{key_name((*path, 'NAME'))}]"
        case inspect.DictType():
            return f"add [{key_name(path)}]"
        case inspect.VarTupleType() | inspect.ListType():
            return f"add {path[-1]} = […]"
        case inspect.BoolType():
            return f"add {path[-1]} = true, or false"
        case inspect.IntType() | inspect.FloatType():
            return f"add {path[-1]} = NUMBER"
    return f'add {path[-1]} = "…"'


def expected(kind: inspect.Type) -> str:
    """Say what a type takes: `a whole number of at least 1`."""
    match without_none(kind):
        case inspect.StrType(min_length=minimum):
            return "text that is not empty" if minimum else "text"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() as number:
            return f"a whole number{_range(number)}"
        case inspect.FloatType() as number:
            return f"a number{_range(number)}"
        case inspect.CustomType():
            return "a path"
        case inspect.VarTupleType() | inspect.ListType():
            return "a list"
        case inspect.DictType() | inspect.StructType():
            return "a table"
        case inspect.LiteralType(values=values):
            return one_of(value for value in values if isinstance(value, str | int))
        case inspect.UnionType(types=members):
            if isinstance(members[0], inspect.StructType):
                return "a table"
            if any(isinstance(member, inspect.LiteralType) for member in members):
                return " or ".join(expected(member) for member in members)
            return "true, false, a number or text"
    return "something else"


def _range(number: inspect.IntType | inspect.FloatType) -> str:
    if number.ge is not None and number.le is not None:
        return f" from {number.ge:g} to {number.le:g}"
    if number.ge is not None:
        return f" of at least {number.ge:g}"
    if number.gt is not None:
        return f" above {number.gt:g}"
    return ""


def found(value: Any, *, secret: bool = False) -> str:
    """Say what was found: `the text "ten"`. Of what may be a `secret`, nothing is repeated."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "a table"
        case list():
            return "a list"
        case datetime.date() | datetime.time():
            return "a date or time"
        case _ if secret:
            return "something else (not shown: it may be a secret)"
        case str():
            shown = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
            return f"the text {json.dumps(shown, ensure_ascii=False)}"
        case _:
            return f"the number {_number(value)}"


def _number(value: float) -> str:
    if isinstance(value, int) and abs(value) >= 2**63:
        return "of more than 18 digits"  # Python refuses to print the longest ones
    return str(value)


def remedy(kind: inspect.Type, value: Any, key: str, *, secret: bool) -> str:
    """Say what to do with a `value` of a key that `kind` does not take."""
    kind = without_none(kind)
    if isinstance(kind, inspect.UnionType):
        number = next((m for m in kind.types if isinstance(m, inspect.FloatType)), None)
        texts = [t for m in kind.types if isinstance(m, inspect.LiteralType) for t in m.values]
        if number is not None and texts and not (isinstance(value, str) and _is_number(value)):
            return f'write a number{_range(number)}, or "{texts[0]}" in quotes'
        kind = number or kind
    scalar = isinstance(value, int | float | datetime.date | datetime.time)
    match kind, value:
        case inspect.BoolType(), str() if value.lower() in ("true", "false"):
            return f"write {value.lower()} without quotes"
        case ((inspect.IntType() | inspect.FloatType()), str()) if _is_number(value):
            return f"write {value.strip()} without quotes"
        case ((inspect.IntType() | inspect.FloatType()), str()) if unit := _unit(key):
            return f"write a number of {unit}, without quotes"
        case ((inspect.StrType() | inspect.CustomType()), _) if scalar:
            return "write it in quotes"
        case inspect.VarTupleType(), str() if not secret:
            return f"write it in brackets: [{json.dumps(value[:_SHOWN], ensure_ascii=False)}]"
        case ((inspect.DictType() | inspect.StructType()), _):
            return "write a [table]"
        case inspect.VarTupleType(item_type=inspect.StructType()), dict():
            return "write [[double brackets]] around its name"
        case inspect.CustomType(), "":
            return "name a file, or remove the key"
        case _:
            return "change it, or remove it for the default"


def _unit(key: str) -> str | None:
    return next((unit for end, unit in _UNITS.items() if key.endswith(end)), None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def one_of(choices: Iterable[str | int]) -> str:
    """List choices: `"a", "b" or "c"`."""
    quoted = [f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in choices]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
