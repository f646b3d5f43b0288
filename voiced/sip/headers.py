"""The header fields of a message: ordered, named without regard to case or to compact form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from voiced.sip.grammar import is_token, split_list

__all__ = ["COMPACT", "KEYS", "LIST_HEADERS", "Headers", "header_key"]

COMPACT: Final = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
"""Compact forms by the IANA registry; RFC 3261 section 7.3.3 makes them the same name."""

LIST_HEADERS: Final = frozenset(
    [
        "accept",
        "accept-contact",
        "accept-encoding",
        "accept-language",
        "alert-info",
        "allow",
        "allow-events",
        "call-info",
        "contact",
        "content-encoding",
        "content-language",
        "diversion",
        "error-info",
        "history-info",
        "in-reply-to",
        "p-asserted-identity",
        "p-preferred-identity",
        "path",
        "proxy-require",
        "reason",
        "record-route",
        "recv-info",
        "reject-contact",
        "request-disposition",
        "require",
        "route",
        "security-client",
        "security-server",
        "security-verify",
        "service-route",
        "supported",
        "unsupported",
        "user-to-user",
        "via",
        "warning",
    ]
)
"""Fields whose values may be joined with commas; in any other a comma is a part of the value."""

_SPELLINGS: Final = [
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Max-Forwards",
    "Content-Type",
    "Content-Length",
    "Route",
    "Record-Route",
    "Allow",
    "Supported",
    "Require",
    "Proxy-Require",
    "Unsupported",
    "User-Agent",
    "Server",
    "Expires",
    "Min-Expires",
    "Session-Expires",
    "Min-SE",
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Authorization",
    "Proxy-Authorization",
    "WWW-Authenticate",
    "Proxy-Authenticate",
    "RSeq",
    "RAck",
    "Refer-To",
    "Referred-By",
    "Event",
    "Subscription-State",
    "Retry-After",
    "Replaces",
    "Date",
    "Timestamp",
    "Subject",
    "Organization",
    "Warning",
    "Reason",
    "P-Asserted-Identity",
    "Diversion",
    "User-to-User",
    "Allow-Events",
    "Content-Disposition",
    "Privacy",
]

# Names as peers usually spell them, so that most fields cost one look-up.
KEYS: Final[dict[str, str]] = {
    **{spelling: spelling.lower() for spelling in _SPELLINGS},
    **{spelling.lower(): spelling.lower() for spelling in _SPELLINGS},
    "Call-Id": "call-id",
    "Cseq": "cseq",
    **COMPACT,
    **{short.upper(): name for short, name in COMPACT.items()},
}


def header_key(name: str) -> str:
    """The one name under which all spellings of a field's name are the same."""
    key = KEYS.get(name)
    if key is None:
        key = name.lower()
    return key


class Headers:
    """Header fields in their order.

    `get` gives the first field's whole value; `get_all` one string for each value, fields of
    `LIST_HEADERS` split at their commas. Changes count in `revision`, by which a message knows
    that what it has cached of them is old.

    Raises:
        ValueError: from whatever adds a field: a name that is no token, or a line break in the
            value, with which a peer's text could smuggle in fields of its own.
    """

    __slots__ = ("fields", "revision")

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self.fields: list[tuple[str, str, str]] = []
        self.revision = 0
        for name, value in fields:
            self.fields.append(_field(name, value))

    @classmethod
    def parsed(cls, fields: list[tuple[str, str, str]]) -> Headers:
        """Fields as (key, name as written, value) that a parser has checked."""
        headers = cls()
        headers.fields = fields
        return headers

    def get(self, name: str) -> str | None:
        """The value of the first field of that name."""
        wanted = header_key(name)
        for key, _, value in self.fields:
            if key == wanted:
                return value
        return None

    def get_fields(self, name: str) -> list[str]:
        """The values of all fields of that name, unsplit."""
        wanted = header_key(name)
        return [value for key, _, value in self.fields if key == wanted]

    def get_all(self, name: str) -> list[str]:
        """Every value of that name, lists split, empty elements left out."""
        fields = self.get_fields(name)
        if header_key(name) not in LIST_HEADERS:
            return fields
        return [element for value in fields for element in split_list(value) if element]

    def add(self, name: str, value: str) -> None:
        """Append a field."""
        self.fields.append(_field(name, value))
        self.revision += 1

    def prepend(self, name: str, value: str) -> None:
        """Put a field before all others: a Via, a Route."""
        self.fields.insert(0, _field(name, value))
        self.revision += 1

    def set(self, name: str, value: str) -> None:
        """Make this the only field of its name, in the place of the first one there was."""
        new = _field(name, value)
        fields: list[tuple[str, str, str]] = []
        placed = False
        for old in self.fields:
            if old[0] != new[0]:
                fields.append(old)
            elif not placed:
                fields.append(new)
                placed = True
        if not placed:
            fields.append(new)
        self.fields = fields
        self.revision += 1

    def remove(self, name: str) -> None:
        """Take out every field of that name; none is no error."""
        unwanted = header_key(name)
        self.fields = [each for each in self.fields if each[0] != unwanted]
        self.revision += 1

    def items(self) -> list[tuple[str, str]]:
        """Names as written and values, in order."""
        return [(name, value) for _, name, value in self.fields]

    def keyed_items(self) -> list[tuple[str, str]]:
        """Lower-case full names and values, in order."""
        return [(key, value) for key, _, value in self.fields]

    def copy(self) -> Headers:
        """An independent copy."""
        return Headers.parsed(self.fields.copy())

    def __contains__(self, name: str) -> bool:
        wanted = header_key(name)
        return any(key == wanted for key, _, _ in self.fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.items())

    def __len__(self) -> int:
        return len(self.fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.keyed_items() == other.keyed_items()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Headers({self.items()!r})"


def _field(name: str, value: str) -> tuple[str, str, str]:
    key = KEYS.get(name)
    if key is None:
        if not is_token(name):
            raise ValueError(f"not a header field's name: {name!r}")
        key = name.lower()
    if "\r" in value or "\n" in value:
        raise ValueError(f"a line break in the value of {name}")
    return key, name, value
