"""What every table of the configuration is made of: its base, and the kinds of its values."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

__all__ = [
    "SECRETS",
    "DaysOrForever",
    "Dollars",
    "Fraction",
    "Name",
    "NonNegative",
    "Positive",
    "Seconds",
    "SecondsOrNever",
    "Table",
]

Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
SecondsOrNever = Annotated[float, Meta(ge=0)]
Dollars = Annotated[float, Meta(ge=0)]
DaysOrForever = Annotated[float, Meta(ge=0)] | Literal["forever"]
Name = Annotated[str, Meta(min_length=1)]

SECRETS: Final = ("auth_token", "auth_token_secondary", "api_key", "password", "token")
"""Names of the fields that hold a secret, each with its `_file` and `_env` beside it."""


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TOML table."""

    def __repr__(self) -> str:
        # A table may end in a log or a traceback; its secrets may not.
        values = (
            f"{name}={'...' if name in SECRETS or name in ('headers', 'plugins') else repr(value)}"
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not None
        )
        return f"{type(self).__name__}({', '.join(values)})"
