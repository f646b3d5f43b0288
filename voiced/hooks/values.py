"""A plugin's table, value by value, each with what the plugin's types say of it.

The types are read as they are written, not through `msgspec.inspect`, which leaves out the marks of
`Annotated` that are not its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin, get_type_hints

import msgspec

from voiced.config.mistakes import KeyPath
from voiced.plugin import Checked

__all__ = ["Value", "make_absolute", "secrets_of", "values"]


@dataclass(frozen=True, slots=True)
class Value:
    """What stands at a place of a table."""

    kind: Any
    """What it is by its type, without `Annotated`; a union has a `Value` for each member."""
    checks: tuple[Checked, ...]
    patterns: tuple[str, ...]
    """Regular expressions that a text has to fit."""
    path: KeyPath
    """Below the table."""
    value: Any
    holder: Any = None
    """What it is a part of: a dict or a list; None for the table itself."""

    @property
    def is_table(self) -> bool:
        """Whether it is a table that becomes a struct."""
        return _is_struct(self.kind) and isinstance(self.value, dict)

    @property
    def file(self) -> Path | None:
        """The path that stands there now, if it is one."""
        if self.kind is Path and self.holder is not None and isinstance(self.value, str):
            return Path(self.holder[self.path[-1]])
        return None


def values(
    kind: Any, value: Any, path: KeyPath = (), holder: Any = None, marks: tuple[Any, ...] = ()
) -> Iterator[Value]:
    """`value` and everything in it, what is inside first."""
    for plain, own in _plain(kind, marks):
        arguments = get_args(plain)
        if _is_struct(plain) and isinstance(value, dict):
            if not _is_tagged(plain, value):
                continue
            hints = get_type_hints(get_origin(plain) or plain, include_extras=True)
            for field in msgspec.structs.fields(plain):
                key = field.encode_name
                if key in value:
                    yield from values(hints[field.name], value[key], (*path, key), value, ())
        elif isinstance(value, dict) and arguments:
            for key, item in value.items():
                yield from values(arguments[-1], item, (*path, key), value, own)
        elif isinstance(value, list) and arguments:
            each = [arguments[0]] * len(value)
            if get_origin(plain) is tuple and arguments[-1] is not ...:
                each = list(arguments)
            for index, (inner, item) in enumerate(zip(each, value, strict=False)):
                yield from values(inner, item, (*path, index), value, own)
        looks = tuple(mark for mark in own if isinstance(mark, Checked))
        patterns = tuple(
            mark.pattern for mark in own if isinstance(mark, msgspec.Meta) and mark.pattern
        )
        yield Value(plain, looks, patterns, path, value, holder)


def secrets_of(table: Value) -> list[str]:
    """The keys of a table that are secrets: `x` that has `x_file` and `x_env` beside it."""
    names = {field.encode_name for field in msgspec.structs.fields(table.kind)}
    return [name for name in sorted(names) if {f"{name}_file", f"{name}_env"} <= names]


def make_absolute(value: Value, folder: Path) -> None:
    """Count a path from `folder`, where it is one."""
    if (file := value.file) is not None:
        value.holder[value.path[-1]] = str((folder / file).absolute())


def _plain(kind: Any, marks: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The types that a type allows, each with its marks."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from _plain(arguments[0], (*marks, *kind.__metadata__))
    elif origin in (Union, UnionType):
        for each in arguments:
            yield from _plain(each, marks)
    else:
        yield kind, marks


def _is_struct(kind: Any) -> TypeGuard[type[msgspec.Struct]]:
    kind = get_origin(kind) or kind
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _is_tagged(kind: Any, table: dict[str, Any]) -> bool:
    config = (get_origin(kind) or kind).__struct_config__
    return config.tag_field is None or table.get(config.tag_field) == config.tag
