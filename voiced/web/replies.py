"""The admin listener's requests and answers in quart's terms: who asks, JSON in, JSON out."""

from __future__ import annotations

import json
from typing import Final, TypeVar

import msgspec
import trio
from quart import Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from voiced.text import encodable
from voiced.web.access import Denied, Seen
from voiced.web.gate import joined
from voiced.web.operations import Body, OperationRefused
from voiced.web.requests import MAX_BODY_BYTES, decode

__all__ = ["json_answer", "problem", "read_body", "requester", "short"]

BODY_TIMEOUT_S: Final = 5.0

_Body = TypeVar("_Body", bound=Body)


def requester() -> Seen:
    """Say what the request in hand is judged by."""
    client = request.scope.get("client")
    return Seen(joined(request.headers), client[0] if client else None, request.scheme == "https")


async def read_body(kind: type[_Body]) -> _Body:
    """Read and check the JSON body; none at all is `{}`. Raises OperationRefused."""
    data: bytes = b""
    with trio.move_on_after(BODY_TIMEOUT_S) as patience:
        try:
            data = bytes(await request.body)
        except RequestEntityTooLarge:
            raise OperationRefused(
                "too_large", 413, f"the body has more than {MAX_BODY_BYTES} bytes", "send less"
            ) from None
    if patience.cancelled_caught:
        raise OperationRefused("too_slow", 408, "the body did not arrive", "send all of it at once")
    return decode(kind, data, request.mimetype)


def short(name: str) -> str:
    """Give at most an id's worth of what a client calls a call."""
    return name if len(name) <= 40 else name[:40] + "…"


def problem(denied: Denied) -> Response:
    """Answer with an error."""
    response = json_answer(
        {"error": denied.code, "message": denied.message, "remedy": denied.remedy}, denied.status
    )
    if denied.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="voiced"'  # RFC 9110 section 15.5.2
    return response


def json_answer(value: object, status: int = 200) -> Response:
    """Answer with a value, structs as objects."""
    try:
        body: str | bytes = msgspec.json.encode(value)
    except UnicodeEncodeError:  # peers' words need not be UTF-8
        body = encodable(json.dumps(msgspec.to_builtins(value), ensure_ascii=False))
    response = Response(body, status=status, content_type="application/json; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
