"""Typed views of a message's header fields, read when first asked for and then remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from voiced.sip.errors import ParseError
from voiced.sip.grammar import WHITE, parse_number, split_list
from voiced.sip.headers import Headers
from voiced.sip.uri import NameAddr, parse_name_addr
from voiced.sip.values import (
    LARGEST_SECONDS,
    CSeq,
    RAck,
    Replaces,
    SessionExpires,
    SubscriptionState,
    Via,
    parse_cseq,
    parse_rack,
    parse_replaces,
    parse_seconds,
    parse_session_expires,
    parse_subscription_state,
    parse_via,
    split_value,
)

if TYPE_CHECKING:
    from voiced.sip.model import Request

__all__ = ["Views"]

T = TypeVar("T")


def _seconds(reason: str) -> Callable[[str], int]:
    return lambda text: parse_seconds(text.partition(";")[0].partition("(")[0], reason)


def _call_id(text: str) -> str:
    if not text or " " in text or "\t" in text:
        raise ParseError("malformed Call-ID")
    return text


class Views:
    """What `Request` and `Response` share: one property for each field we understand.

    A field that is absent is None or empty; `via`, `from_`, `to`, `call_id` and `cseq`, which
    every message must have, raise instead.

    Raises:
        ParseError: status 400, from each property whose field is malformed; `head` is the
            request itself.
    """

    __slots__ = ("_revision", "_viewed", "_views", "headers")

    headers: Headers
    _views: dict[str, Any]
    _viewed: Headers  # what `_views` were read from, and its revision then
    _revision: int

    def _answerable(self) -> Request | None:
        return None

    def _view(self, name: str, make: Callable[[], T]) -> T:
        headers = self.headers
        if self._revision != headers.revision or self._viewed is not headers:
            self._views.clear()
            self._viewed, self._revision = headers, headers.revision
        try:
            return cast(T, self._views[name])
        except KeyError:
            pass
        try:
            value = self._views[name] = make()
        except ParseError as error:
            error.head = self._answerable()
            raise
        return value

    def _one(self, key: str, parse: Callable[[str], T]) -> T | None:
        def make() -> T | None:
            value = self.headers.get(key)
            return None if value is None else parse(value)

        return self._view(key, make)

    def _needed(self, key: str, parse: Callable[[str], T]) -> T:
        value = self._one(key, parse)
        if value is None:
            raise ParseError(f"no {key}", head=self._answerable())
        return value

    def _many(self, key: str, parse: Callable[[str], T]) -> list[T]:
        def make() -> list[T]:
            return [
                parse(element)
                for value in self.headers.get_fields(key)
                for element in split_list(value)
            ]

        return self._view(key, make)

    def _tags(self, key: str, *, lower: bool = True) -> tuple[str, ...]:
        def make() -> tuple[str, ...]:
            values = self.headers.get_all(key)
            return tuple(value.lower() for value in values) if lower else tuple(values)

        return self._view(key, make)

    @property
    def via(self) -> Via:
        """The topmost Via."""

        def make() -> Via:
            value = self.headers.get("via")
            if value is None:
                raise ParseError("no via")
            return parse_via(split_list(value)[0])

        return self._view("top via", make)

    @property
    def vias(self) -> list[Via]:
        """All Via values, topmost first."""
        return list(self._many("via", parse_via))

    @property
    def from_(self) -> NameAddr:
        """From."""
        return self._needed("from", parse_name_addr)

    @property
    def to(self) -> NameAddr:
        """To."""
        return self._needed("to", parse_name_addr)

    @property
    def call_id(self) -> str:
        """Call-ID."""
        return self._needed("call-id", _call_id)

    @property
    def cseq(self) -> CSeq:
        """CSeq."""
        return self._needed("cseq", parse_cseq)

    @property
    def contact_is_star(self) -> bool:
        """Whether Contact is `*`, which a REGISTER says to remove all bindings."""
        return self.headers.get_fields("contact") == ["*"]

    @property
    def contacts(self) -> list[NameAddr]:
        """Contact; empty where it is `*`."""
        return [] if self.contact_is_star else list(self._many("contact", parse_name_addr))

    @property
    def routes(self) -> list[NameAddr]:
        """Route, topmost first."""
        return list(self._many("route", parse_name_addr))

    @property
    def record_routes(self) -> list[NameAddr]:
        """Record-Route, topmost first."""
        return list(self._many("record-route", parse_name_addr))

    @property
    def max_forwards(self) -> int | None:
        """0 to 255."""
        return self._one(
            "max-forwards",
            lambda text: parse_number(text.strip(WHITE), 255, "malformed Max-Forwards"),
        )

    @property
    def expires(self) -> int | None:
        """Seconds."""
        return self._one("expires", _seconds("malformed Expires"))

    @property
    def min_expires(self) -> int | None:
        """Seconds."""
        return self._one("min-expires", _seconds("malformed Min-Expires"))

    @property
    def require(self) -> tuple[str, ...]:
        """Option tags in lower case."""
        return self._tags("require")

    @property
    def proxy_require(self) -> tuple[str, ...]:
        """Option tags in lower case."""
        return self._tags("proxy-require")

    @property
    def supported(self) -> tuple[str, ...]:
        """Option tags in lower case."""
        return self._tags("supported")

    @property
    def unsupported(self) -> tuple[str, ...]:
        """Option tags in lower case."""
        return self._tags("unsupported")

    @property
    def allow(self) -> tuple[str, ...]:
        """Methods."""
        return self._tags("allow", lower=False)

    @property
    def content_type(self) -> str | None:
        """The media type in lower case, without parameters."""
        return self._one(
            "content-type", lambda text: "".join(text.partition(";")[0].lower().split())
        )

    @property
    def session_expires(self) -> SessionExpires | None:
        """Session-Expires."""
        return self._one("session-expires", parse_session_expires)

    @property
    def min_se(self) -> int | None:
        """Min-SE in seconds."""
        return self._one("min-se", _seconds("malformed Min-SE"))

    @property
    def rseq(self) -> int | None:
        """RSeq."""
        return self._one(
            "rseq", lambda text: parse_number(text.strip(WHITE), LARGEST_SECONDS, "malformed RSeq")
        )

    @property
    def rack(self) -> RAck | None:
        """RAck."""
        return self._one("rack", parse_rack)

    @property
    def refer_to(self) -> NameAddr | None:
        """Refer-To."""
        return self._one("refer-to", parse_name_addr)

    @property
    def event(self) -> str | None:
        """The event package in lower case, without parameters."""
        return self._one("event", lambda text: split_value(text)[0].lower())

    @property
    def subscription_state(self) -> SubscriptionState | None:
        """Subscription-State."""
        return self._one("subscription-state", parse_subscription_state)

    @property
    def retry_after(self) -> int | None:
        """Seconds, comment and parameters ignored."""
        return self._one("retry-after", _seconds("malformed Retry-After"))

    @property
    def replaces(self) -> Replaces | None:
        """Replaces."""
        return self._one("replaces", parse_replaces)
