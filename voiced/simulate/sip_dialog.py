"""The dialog of a simulated caller: what its messages have in common (RFC 3261 section 12)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final, Literal

from voiced.simulate import sip_sdp
from voiced.simulate.sip_digest import Credentials
from voiced.simulate.sip_message import (
    BadMessage,
    Message,
    host_and_port,
    parse_address,
    uri_of,
    write,
)
from voiced.simulate.sip_sdp import Direction, Media
from voiced.simulate.sip_transaction import Outgoing

__all__ = ["Dialog", "Settings", "beside"]

_METHODS: Final = ("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE", "INFO", "NOTIFY", "REFER")
_ALLOW: Final = ("Allow", ", ".join(_METHODS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Whom to call, and who calls. `local` is where signalling, `media` where RTP reaches us."""

    target: str
    from_user: str
    local: tuple[str, int]
    media: tuple[str, int]
    transport: Literal["udp", "tcp"] = "udp"
    credentials: Credentials | None = None
    formats: tuple[int, ...] = (0, 8)
    headers: tuple[tuple[str, str], ...] = ()  # more of the INVITE's
    call_id: str = field(default_factory=lambda: secrets.token_hex(12))
    tag: str = field(default_factory=lambda: secrets.token_hex(5))


class Dialog:
    """Both ends' names, the way to the other side, and how messages are written."""

    def __init__(self, settings: Settings) -> None:
        self._is = settings
        own = f"sip:{settings.from_user}@{host_and_port(*settings.local)}"
        tcp = settings.transport == "tcp"
        self.contact = f"{own};transport=tcp" if tcp else own
        self._session = secrets.randbits(40)
        self._version = 0
        self.cseq = secrets.randbelow(1000) + 1
        self.remote_tag: str | None = None
        self.remote_to = f"<{settings.target}>"
        self.remote_target = settings.target
        self.routes: list[str] = []

    def describe(self, direction: Direction, media: Media | None = None) -> bytes:
        """An offer, or the answer to the offer `media`; each has a version of its own."""
        self._version += 1
        host, port = self._is.media
        events: int | None = sip_sdp.EVENT_TYPE
        formats = self._is.formats
        if media is not None:  # an answer: what the offer has of ours, under the offer's numbers
            formats = tuple(each for each in media.formats if each in self._is.formats)
            events = media.events
        return sip_sdp.describe(
            host,
            port,
            session=self._session,
            version=self._version,
            formats=formats,
            events=events,
            direction=direction,
        )

    def request(
        self,
        method: str,
        cseq: int,
        branch: str,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        content_type: str = "application/sdp",
        *,
        to_header: str | None = None,
    ) -> Outgoing:
        """Write a request, outside or within the dialog, and say where it goes."""
        uri, routes, host = self.remote_target, self.routes, self._is
        to: tuple[str, int] | None = None
        if self.remote_tag is not None:
            try:
                hop = parse_address(uri_of(routes[0]) if routes else uri)
                to = hop.host, hop.port or 5060
            except BadMessage:
                to = None
        lines = [
            (
                "Via",
                f"SIP/2.0/{host.transport.upper()} {host_and_port(*host.local)}"
                f";rport;branch={branch}",
            ),
            ("Max-Forwards", "70"),
            *(("Route", route) for route in routes),
            ("From", f'"{host.from_user}" <{self.contact}>;tag={host.tag}'),
            ("To", to_header or self.remote_to),
            ("Call-ID", host.call_id),
            ("CSeq", f"{cseq} {method}"),
            *headers,
        ]
        if method in ("INVITE", "UPDATE"):
            lines.append(("Contact", f"<{self.contact}>"))
            lines.append(_ALLOW)
            lines.append(("Supported", "replaces"))
        lines.append(("User-Agent", "voiced-simulate"))
        if body:
            lines.append(("Content-Type", content_type))
        return write(f"{method} {uri} SIP/2.0", lines, body), to

    def ack(self, response: Message) -> Outgoing:
        """The ACK to a 2xx, which is a transaction of its own (section 13.2.2.4)."""
        branch = "z9hG4bK" + secrets.token_hex(8)
        return self.request("ACK", response.cseq[0], branch, to_header=response.get("to"))

    def establish(self, response: Message) -> None:
        """Take the other side's tag and the route from a 2xx (section 12.1.2)."""
        self.remote_tag = response.to_tag or ""
        self.remote_to = response.get("to") or self.remote_to
        self.routes = response.all("record-route")[::-1]

    def response(self, request: Message, status: int, reason: str, body: bytes) -> bytes:
        """Write a response to a request of the other side's (section 8.2.6)."""
        copied = ("via", "from", "to", "call-id", "cseq")
        headers = []
        for name, value in request.headers:
            if name == "to" and request.to_tag is None:
                value = f"{value};tag={self._is.tag}"
            if name in copied or (name == "record-route" and request.method == "INVITE"):
                headers.append((name.title(), value))
        if status < 300 and request.method in ("INVITE", "UPDATE", "OPTIONS", "REFER"):
            headers += [("Contact", f"<{self.contact}>"), _ALLOW]
        if status == 405:
            headers.append(_ALLOW)
        if body:
            headers.append(("Content-Type", "application/sdp"))
        return write(f"SIP/2.0 {status} {reason}", headers, body)


def beside(request: Message, method: str, to: str | None = None) -> bytes:
    """A CANCEL, or the ACK to a refusal: within the transaction of `request` (9.1, 17.1.1.3)."""
    wanted = ("via", "from", "call-id", "max-forwards", "route")
    headers = [(name.title(), value) for name, value in request.headers if name in wanted]
    headers += [("To", to or request.get("to") or ""), ("CSeq", f"{request.cseq[0]} {method}")]
    return write(f"{method} {request.uri} SIP/2.0", headers)
