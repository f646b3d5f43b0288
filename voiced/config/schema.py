"""Is each value of a document one that the types allow? All mistakes are found, not the first.

The types are read through `msgspec.inspect`, so that a new field needs no word here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from voiced.config import wording
from voiced.config.findings import Findings
from voiced.config.mistakes import KeyPath, key_name
from voiced.config.types import SECRETS, Config

__all__ = [
    "PLACES",
    "check",
    "check_table",
    "close_match",
    "convert",
    "is_optional_secret",
    "is_secret",
]

_CONFIG: Final = inspect.type_info(Config)


def check(findings: Findings) -> dict[str, Any]:
    """Return the valid part of the document; there is a mistake for everything else.

    A table that lacks a required key, or whose kind is not known, is left out whole.
    """
    valid: dict[str, Any] = _Checker(findings).value(_CONFIG, findings.document.data, ())
    return valid


def check_table(
    kind: inspect.Type, table: dict[str, Any], path: KeyPath, findings: Findings
) -> dict[str, Any]:
    """As `check`, of one table with a type of its own; empty where it cannot be used at all.

    Values of types that no table of voiced has are let through: msgspec checks them when the
    struct is made.
    """
    valid = _Checker(findings).value(kind, table, path)
    return {} if valid is _INVALID else dict(valid)


def is_optional_secret(kind: inspect.StructType) -> list[str]:
    """Name the fields of a struct that are secrets: `x` that has `x_file` and `x_env` beside it."""
    names = {field.encode_name for field in kind.fields}
    return [name for name in sorted(names) if {f"{name}_file", f"{name}_env"} <= names]


def is_secret(path: KeyPath) -> bool:
    """Say whether what stands at `path` must not be shown."""
    return bool(path) and (path[-1] in SECRETS or "headers" in path[:-1])


def close_match(name: str, known: Iterable[str]) -> str | None:
    """Find the one of `known` that was probably meant."""
    found = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), 1)
    return found[0] if found else None


class _Invalid:
    """Stands for a value that has been found wrong."""


_INVALID: Final = _Invalid()

_CHECKED: Final = (
    inspect.StructType,
    inspect.DictType,
    inspect.VarTupleType,
    inspect.ListType,
    inspect.StrType,
    inspect.BoolType,
    inspect.LiteralType,
    inspect.IntType,
    inspect.FloatType,
    inspect.NoneType,
)
"""The types of values that are judged here."""


class _Checker:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._secrets: set[KeyPath] = set()

    def value(self, kind: inspect.Type, value: Any, path: KeyPath) -> Any:
        """`value` without its invalid parts, or _INVALID."""
        match kind:
            case inspect.UnionType():
                return self._union(kind, value, path)
            case inspect.StructType():
                return self._struct(kind, value, path)
            case inspect.DictType() if isinstance(value, dict):
                for key in value:
                    if not _fits(kind.key_type, key):
                        self._mistake((*path, key), "has no name", "write one between the quotes")
                items = (
                    (key, self._item(kind, item, (*path, key)))
                    for key, item in value.items()
                    if _fits(kind.key_type, key)
                )
                return {key: item for key, item in items if item is not _INVALID}
            case inspect.VarTupleType() | inspect.ListType() if isinstance(value, list):
                elements = (
                    self.value(kind.item_type, item, (*path, index))
                    for index, item in enumerate(value)
                )
                return [item for item in elements if item is not _INVALID]
            case inspect.CustomType(cls=cls) if cls is Path:
                if isinstance(value, str) and value and "\0" not in value:
                    return value
            case _:
                if not isinstance(kind, _CHECKED) or _fits(kind, value):
                    return value
        return self._unexpected(kind, value, path)

    def _item(self, kind: inspect.DictType, item: Any, path: KeyPath) -> Any:
        if not isinstance(item, dict | list) and wording.is_table(kind.value_type):
            table = key_name((*path[:-1], "NAME"))
            self._mistake(path, "stands in no table of its own", f"write it below [{table}]")
            return _INVALID
        return self.value(kind.value_type, item, path)

    def _union(self, kind: inspect.UnionType, value: Any, path: KeyPath) -> Any:
        members = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
        if len(members) == 1:
            return self.value(members[0], value, path)
        structs = [member for member in members if isinstance(member, inspect.StructType)]
        if not isinstance(value, dict) or not structs:
            if any(not isinstance(each, _CHECKED) or _fits(each, value) for each in members):
                return value
            return self._unexpected(kind, value, path)
        if structs[0].tag_field is None:
            return self._struct(structs[0], value, path)
        tag_field = str(structs[0].tag_field)
        tags = {str(struct.tag): struct for struct in structs}
        tag = value.get(tag_field)
        if isinstance(tag, str) and tag in tags:
            return self._struct(tags[tag], value, path, structs)
        choice = wording.one_of(tags)
        if tag is None:
            self._mistake(path, f"has no {tag_field}", f"add {tag_field} = {choice}")
        else:
            self._wrong_choice(tags, tag, (*path, tag_field))
        return _INVALID

    def _struct(
        self,
        kind: inspect.StructType,
        value: Any,
        path: KeyPath,
        others: Sequence[inspect.StructType] = (),
    ) -> Any:
        """`others`: the kinds of tables that might stand there as well."""
        if not isinstance(value, dict):
            return self._unexpected(kind, value, path)
        fields = {field.encode_name: field for field in kind.fields}
        self._secrets |= {(*path, name) for name in is_optional_secret(kind)}
        valid: dict[str, Any] = {}
        whole = True
        for key, item in value.items():
            if key == kind.tag_field:
                valid[key] = item
            elif key in fields:
                checked = self.value(fields[key].type, item, (*path, key))
                if checked is not _INVALID:
                    valid[key] = checked
            elif tags := [str(o.tag) for o in others if key in {f.encode_name for f in o.fields}]:
                remedy = f"remove it, or write {kind.tag_field} = {wording.one_of(tags)}"
                message = f'unknown key where {kind.tag_field} is "{kind.tag}"'
                self._mistake((*path, key), message, remedy)
            else:
                self._unknown(fields, key, path)
        for name, field in fields.items():
            if field.required and name not in value:
                self._mistake(path, f"has no {name}", wording.addition(field.type, (*path, name)))
            whole = whole and (not field.required or name in valid)
        return valid if whole else _INVALID

    def _unknown(self, fields: Iterable[str], key: str, path: KeyPath) -> None:
        known = list(fields)
        meant = close_match(key, known)
        elsewhere = sorted(key_name(place) for place in PLACES if place[-1] == key)
        if meant is not None:
            remedy = f"did you mean {meant}?"
        elif elsewhere:
            remedy = f"did you mean {' or '.join(elsewhere)}?"
        else:
            table = f"[{key_name(path)}]" if path else "the file"
            remedy = f"remove it, or use what {table} may hold: {', '.join(known)}"
        self._mistake((*path, key), "unknown key", remedy)

    def _unexpected(self, kind: inspect.Type, value: Any, path: KeyPath) -> Any:
        literal = wording.without_none(kind)
        if isinstance(literal, inspect.LiteralType):
            self._wrong_choice([v for v in literal.values if isinstance(v, str | int)], value, path)
        else:
            secret = is_secret(path) or path in self._secrets
            found = wording.found(value, secret=secret)
            message = f"expected {wording.expected(kind)}, found {found}"
            remedy = wording.remedy(kind, value, str(path[-1]) if path else "", secret=secret)
            self._mistake(path, message, remedy)
        return _INVALID

    def _wrong_choice(self, choices: Iterable[str | int], value: Any, path: KeyPath) -> None:
        known = list(choices)
        texts = [choice for choice in known if isinstance(choice, str)]
        meant = close_match(value, texts) if isinstance(value, str) else None
        remedy = "write one of them" + (", in quotes" if texts else ", without quotes")
        remedy = f'did you mean "{meant}"?' if meant else remedy
        self._mistake(
            path, f"expected {wording.one_of(known)}, found {wording.found(value)}", remedy
        )

    def _mistake(self, path: KeyPath, message: str, remedy: str) -> None:
        self._findings.mistake(path, message, remedy)


def _fits(kind: inspect.Type, value: Any) -> bool:
    """Say whether a scalar is within its type and range."""
    match kind:
        case inspect.StrType():
            return isinstance(value, str) and len(value) >= (kind.min_length or 0)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.LiteralType():
            return value in kind.values and not isinstance(value, bool | float)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool) and _within(kind, value)
        case inspect.FloatType():
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
            return _within(kind, value)
    return False


def _within(kind: inspect.IntType | inspect.FloatType, value: float) -> bool:
    return (
        (kind.gt is None or value > kind.gt)
        and (kind.ge is None or value >= kind.ge)
        and (kind.lt is None or value < kind.lt)
        and (kind.le is None or value <= kind.le)
        # What TOML promises of integers, and msgspec takes; no infinity and no NaN is within it,
        # and an integer of any length may be asked so, while `math.isfinite` fails at 310 digits.
        and abs(value) < 2**63
    )


def _places(kind: inspect.Type, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key there is, with NAME for what an operator chooses."""
    match kind:
        case inspect.StructType():
            for field in kind.fields:
                yield (*path, field.encode_name)
                yield from _places(field.type, (*path, field.encode_name))
        case inspect.UnionType():
            for member in kind.types:
                yield from _places(member, path)
        case inspect.DictType():
            yield from _places(kind.value_type, (*path, "NAME"))
        case inspect.VarTupleType():
            yield from _places(kind.item_type, path)


PLACES: Final = frozenset(_places(_CONFIG))
"""Every key that a file may hold, with NAME for what an operator chooses."""


def convert(valid: dict[str, Any], folder: Path) -> Config:
    """Make the struct of what `check` found valid; paths are counted from `folder`."""

    def decode(_: type, value: str) -> Path:
        return (folder / value).absolute()

    return msgspec.convert(valid, Config, dec_hook=decode)
