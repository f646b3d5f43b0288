"""What RFC 3261 8.2 has a user agent server check of every request before it acts on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from voiced.sip.bodies import MULTIPART, SDP, has_foreign_part, sdp_of
from voiced.sip.uri import OtherUri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voiced.sip.core import Core
    from voiced.sip.message import Request

__all__ = ["DTMF_TYPES", "Refusal", "is_optional", "screen"]

DTMF_TYPES: Final = ("application/dtmf-relay", "application/dtmf")

_SIPFRAG: Final = "message/sipfrag"
_BODIES: Final = {
    "INVITE": (SDP, MULTIPART),
    "UPDATE": (SDP, MULTIPART),
    "PRACK": (SDP, MULTIPART),
    "INFO": DTMF_TYPES,
    "NOTIFY": (_SIPFRAG,),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Answer with this."""

    status: int
    headers: Sequence[tuple[str, str]] = ()


def is_optional(request: Request) -> bool:
    """Whether the sender lets us ignore a body we do not understand (RFC 3261 20.11)."""
    value = (request.headers.get("Content-Disposition") or "").lower().replace(" ", "")
    return "handling=optional" in value


def screen(request: Request, core: Core) -> Refusal | None:
    """Method, URI scheme, extensions and body, in the order of 8.2; None: carry on."""
    options = core.options
    if request.method not in options.allow:
        return Refusal(405, [("Allow", ", ".join(options.allow))])
    if isinstance(request.uri, OtherUri):
        return Refusal(416)
    unknown = [tag for tag in request.require if tag not in core.supported]
    if unknown:
        return Refusal(420, [("Unsupported", ", ".join(unknown))])
    return _screen_body(request)


def _screen_body(request: Request) -> Refusal | None:
    if request.method == "INFO" and "Info-Package" in request.headers:
        # RFC 6086 4.2.2: we list none in Recv-Info.
        return Refusal(469, [("Recv-Info", "nil")])
    if not request.body or is_optional(request):
        return None
    accepted = _BODIES.get(request.method)
    if accepted is None:
        # BYE, OPTIONS, REFER: a body says nothing that we would have to understand.
        return None
    encodings = request.headers.get_all("Content-Encoding")
    if any(encoding.lower() != "identity" for encoding in encodings):
        return Refusal(415, [("Accept-Encoding", "identity")])
    kind = request.content_type
    unusable = kind == MULTIPART and (sdp_of(request) is None or has_foreign_part(request))
    if kind not in accepted or unusable:
        return Refusal(415, [("Accept", ", ".join(accepted))])
    return None
