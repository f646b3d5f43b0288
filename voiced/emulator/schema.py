"""A small vocabulary for the shapes of client events, and the check against them.

The messages are the server's own, which name the offending field by its path; that is why msgspec's
typed decoding, whose errors read otherwise, is not used here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from voiced.emulator.errors import Refused, invalid_value, missing, unknown_parameter

__all__ = [
    "Anything",
    "Bool",
    "Choice",
    "Fields",
    "Kind",
    "ListOf",
    "MapOf",
    "Number",
    "OneOf",
    "OrNull",
    "Tagged",
    "Text",
]


class Kind(Protocol):
    """What a value has to be. `noun` names it in messages."""

    @property
    def noun(self) -> str:
        """Such as "a string"."""

    def check(self, value: Any, path: str) -> None:
        """Raise Refused where `value`, found at `path`, is something else."""


def _name(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _wrong_type(kind: Kind, value: Any, path: str) -> Refused:
    return Refused(
        "invalid_type",
        f"Invalid type for '{path}': expected {kind.noun}, but got {_name(value)} instead.",
        path,
    )


@dataclass(frozen=True)
class Anything:
    """No check: data that the server passes on."""

    noun: str = "anything"

    def check(self, value: Any, path: str) -> None:
        """Accept."""


@dataclass(frozen=True)
class Text:
    """A string of at most `limit` characters."""

    limit: int | None = None
    noun: str = "a string"

    def check(self, value: Any, path: str) -> None:
        """Refuse other types and too long a string."""
        if not isinstance(value, str):
            raise _wrong_type(self, value, path)
        if self.limit is not None and len(value) > self.limit:
            raise Refused(
                "string_above_max_length",
                f"Invalid '{path}': string too long. Expected a string with maximum length "
                f"{self.limit}, but got a string with length {len(value)} instead.",
                path,
            )


@dataclass(frozen=True)
class Bool:
    """true or false."""

    noun: str = "a boolean"

    def check(self, value: Any, path: str) -> None:
        """Refuse other types."""
        if not isinstance(value, bool):
            raise _wrong_type(self, value, path)


@dataclass(frozen=True)
class Number:
    """A number within bounds, both included."""

    low: float
    high: float
    whole: bool = False

    @property
    def noun(self) -> str:
        """By `whole`."""
        return "an integer" if self.whole else "a decimal"

    def check(self, value: Any, path: str) -> None:
        """Refuse other types and values out of bounds."""
        right = int if self.whole else (int, float)
        if not isinstance(value, right) or isinstance(value, bool):
            raise _wrong_type(self, value, path)
        for bound, sign, side in ((self.low, ">=", "below min"), (self.high, "<=", "above max")):
            if (value < bound) if sign == ">=" else (value > bound):
                raise invalid_value(
                    f"Invalid '{path}': {self.noun.split()[1]} {side}imum value. "
                    f"Expected a value {sign} {bound:g}, but got {value} instead.",
                    path,
                )


@dataclass(frozen=True)
class Choice:
    """One of a few strings or numbers."""

    values: tuple[str | int, ...]
    noun: str = "one of a list of values"

    def check(self, value: Any, path: str) -> None:
        """Refuse what is not listed, and list it."""
        if isinstance(value, bool) or value not in self.values:
            if not isinstance(value, str | int):
                raise _wrong_type(self, value, path)
            known = ", ".join(f"'{v}'" for v in self.values)
            raise invalid_value(f"Invalid value: '{value}'. Supported values are: {known}.", path)


@dataclass(frozen=True)
class OrNull:
    """Something or null."""

    kind: Kind

    @property
    def noun(self) -> str:
        """That of the something."""
        return f"{self.kind.noun} or null"

    def check(self, value: Any, path: str) -> None:
        """Accept null, check the rest."""
        if value is not None:
            self.kind.check(value, path)


@dataclass(frozen=True)
class ListOf:
    """An array of like values, at most `limit`."""

    kind: Kind
    limit: int = 1024
    noun: str = "an array"

    def check(self, value: Any, path: str) -> None:
        """Check each element under `path[index]`."""
        if not isinstance(value, list):
            raise _wrong_type(self, value, path)
        if len(value) > self.limit:
            raise invalid_value(
                f"Invalid '{path}': array too long. Expected at most {self.limit} elements, "
                f"but got {len(value)} instead.",
                path,
            )
        for index, element in enumerate(value):
            self.kind.check(element, f"{path}[{index}]")


@dataclass(frozen=True)
class MapOf:
    """An object with free keys of at most `key_limit` characters, at most `limit` of them."""

    kind: Kind
    limit: int
    key_limit: int
    noun: str = "an object"

    def check(self, value: Any, path: str) -> None:
        """Check each value under `path.key`."""
        if not isinstance(value, dict):
            raise _wrong_type(self, value, path)
        if len(value) > self.limit or any(len(key) > self.key_limit for key in value):
            raise invalid_value(
                f"Invalid '{path}': at most {self.limit} keys of at most {self.key_limit} "
                "characters.",
                path,
            )
        for key, element in value.items():
            self.kind.check(element, f"{path}.{key}")


@dataclass(frozen=True)
class Fields:
    """An object with named fields; what is not in `required` may be absent."""

    fields: Mapping[str, Kind]
    required: tuple[str, ...] = ()
    noun: str = "an object"

    def check(self, value: Any, path: str) -> None:
        """Refuse unknown fields, missing fields, and check each value."""
        if not isinstance(value, dict):
            raise _wrong_type(self, value, path)
        prefix = f"{path}." if path else ""
        for key, element in value.items():
            kind = self.fields.get(key)
            if kind is None:
                raise unknown_parameter(prefix + key)
            kind.check(element, prefix + key)
        for key in self.required:
            if key not in value:
                raise missing(prefix + key)


@dataclass(frozen=True)
class Tagged:
    """An object whose field `tag` says which fields it has."""

    tag: str
    kinds: Mapping[str, Fields]
    default: str | None = None  # the kind of an object without the tag
    noun: str = field(default="an object")

    def check(self, value: Any, path: str) -> None:
        """Check as the kind that the tag names."""
        if not isinstance(value, dict):
            raise _wrong_type(self, value, path)
        where = f"{path}.{self.tag}" if path else self.tag
        name = value.get(self.tag, self.default)
        if name is None:
            raise missing(where)
        if not isinstance(name, str):
            raise _wrong_type(Text(), name, where)
        if name not in self.kinds:
            Choice(tuple(self.kinds)).check(name, where)
        self.kinds[name].check(value, path)


@dataclass(frozen=True)
class OneOf:
    """The kind that fits the value's JSON type: strings by `text`, the rest by `other`."""

    text: Kind
    other: Kind

    @property
    def noun(self) -> str:
        """Both."""
        return f"{self.text.noun} or {self.other.noun}"

    def check(self, value: Any, path: str) -> None:
        """Choose by type."""
        (self.text if isinstance(value, str) else self.other).check(value, path)
