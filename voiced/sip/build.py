"""Building requests and the responses to them (RFC 3261 sections 8.1.1 and 8.2.6)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from voiced.sip.errors import ParseError
from voiced.sip.grammar import WHITE
from voiced.sip.headers import Headers
from voiced.sip.model import Request, Response
from voiced.sip.uri import NameAddr, Uri
from voiced.sip.values import CSeq

__all__ = ["REASONS", "request", "response_to"]

REASONS: Final[dict[int, str]] = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    199: "Early Dialog Terminated",
    200: "OK",
    202: "Accepted",
    204: "No Notification",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Moved Temporarily",
    305: "Use Proxy",
    380: "Alternative Service",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    410: "Gone",
    412: "Conditional Request Failed",
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    421: "Extension Required",
    422: "Session Interval Too Small",
    423: "Interval Too Brief",
    428: "Use Identity Header",
    429: "Provide Referrer Identity",
    433: "Anonymity Disallowed",
    436: "Bad Identity Info",
    437: "Unsupported Credential",
    438: "Invalid Identity Header",
    439: "First Hop Lacks Outbound Support",
    469: "Bad Info Package",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    484: "Address Incomplete",
    485: "Ambiguous",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    493: "Undecipherable",
    494: "Security Agreement Required",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    505: "Version Not Supported",
    513: "Message Too Large",
    580: "Precondition Failure",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    606: "Not Acceptable",
    607: "Unwanted",
    608: "Rejected",
}
"""Reason phrases by the IANA registry."""

_DIALOG_CREATING: Final = frozenset({"INVITE", "SUBSCRIBE", "REFER", "NOTIFY"})


def request(
    method: str,
    uri: Uri,
    *,
    from_: NameAddr,
    to: NameAddr,
    call_id: str,
    cseq: int,
    max_forwards: int = 70,
    contact: NameAddr | None = None,
    routes: Iterable[NameAddr] = (),
    headers: Iterable[tuple[str, str]] = (),
    content_type: str | None = None,
    body: bytes = b"",
) -> Request:
    """A request without Via, which its client transaction puts on top.

    Raises:
        ValueError: a header field that cannot be written, see `Headers`.
    """
    fields = Headers([("Route", str(route)) for route in routes])
    fields.add("Max-Forwards", str(max_forwards))
    fields.add("From", str(from_))
    fields.add("To", str(to))
    fields.add("Call-ID", call_id)
    fields.add("CSeq", str(CSeq(cseq, method)))
    if contact is not None:
        fields.add("Contact", str(contact))
    for name, value in headers:
        fields.add(name, value)
    if content_type is not None:
        fields.add("Content-Type", content_type)
    return Request(method, uri, fields, body)


def response_to(
    request: Request,
    status: int,
    reason: str | None = None,
    *,
    to_tag: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    content_type: str | None = None,
    body: bytes = b"",
) -> Response:
    """A response with what RFC 3261 section 8.2.6.2 has it repeat.

    That is every Via, From, To, Call-ID, CSeq; Timestamp in a 100; Record-Route in a provisional
    or successful response to a request that creates a dialog (section 12.1.1). `to_tag` is
    appended to a To that has no tag yet, except in a 100.

    Raises:
        ValueError: a header field that cannot be written, see `Headers`.
    """
    copied: list[tuple[str, str, str]] = []
    routes = 100 < status < 300 and request.method in _DIALOG_CREATING
    for item in request.headers.fields:
        key = item[0]
        if key in {"via", "from", "call-id", "cseq"}:
            copied.append(item)
        elif key == "to":
            if to_tag is not None and status > 100 and _has_no_tag(request):
                item = (key, item[1], f"{item[2].rstrip(WHITE)};tag={to_tag}")
            copied.append(item)
        elif (key == "record-route" and routes) or (key == "timestamp" and status == 100):
            copied.append(item)
    fields = Headers.parsed(copied)
    for name, value in headers:
        fields.add(name, value)
    if content_type is not None:
        fields.add("Content-Type", content_type)
    return Response(status, REASONS.get(status, "") if reason is None else reason, fields, body)


def _has_no_tag(request: Request) -> bool:
    try:
        return request.to.tag is None
    except ParseError:
        return False  # what cannot be read is sent back as it came
