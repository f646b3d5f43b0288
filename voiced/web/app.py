"""The carrier's webhooks: `POST /twilio/voice` and `POST /twilio/status`, on quart-trio.

The media streams, 100 messages a second per call, do not come this way: the daemon's listener
takes their upgrade requests out before hypercorn sees them.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import structlog
import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import RequestEntityTooLarge

from voiced.twilio import twiml
from voiced.web import forms
from voiced.web.gate import Gate, Request, joined
from voiced.web.switchboard import Admitted, Refused, Switchboard

__all__ = ["ADMIT_TIMEOUT_S", "MAX_BODY_BYTES", "STATUS_PATH", "VOICE_PATH", "create_app"]

VOICE_PATH = "/twilio/voice"
STATUS_PATH = "/twilio/status"

MAX_BODY_BYTES = 64 * 1024
"""A voice webhook has about 1 KiB; STIR passports and SIP headers may add a few more."""

BODY_TIMEOUT_S = 5.0
ADMIT_TIMEOUT_S = 8.0
"""Twilio gives a webhook 15 s in all; these two leave it time to read a busy signal."""

_log = structlog.get_logger("voiced.web")


def create_app(
    gate: Gate,
    switchboard: Switchboard,
    base_url: Callable[[], str],
    refused: Callable[[str, str], None] = lambda what, why: None,
) -> QuartTrio:
    """Make the ASGI application.

    `base_url` gives the public address without a slash at its end (see `gate.base_url`); it is
    asked for each call, since a port may be known only once it is bound. `refused` is called with
    ("call" or "webhook", why) for what is turned down here, to count it: malformed requests and
    admissions that take too long. The gate and the switchboard log and count their own refusals.
    """
    app = QuartTrio("voiced.web", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.strict_slashes = False

    async def voice() -> Response:
        """Answer an incoming call: TwiML that connects it to its stream, or refuses it."""
        try:
            pairs = await _authentic_pairs(gate)
            if pairs is None:
                return _text("forbidden", 403)
            call = forms.voice_request(pairs)
        except forms.FormError as error:
            return _malformed(error, refused)
        answer: Admitted | Refused = Refused("admission timed out")
        with trio.move_on_after(ADMIT_TIMEOUT_S) as patience:
            answer = await switchboard.admit(call)
        if patience.cancelled_caught:
            refused("call", "admission timed out")
            _log.warning("call refused", why="admission timed out", carrier_call=call.call_sid)
        if isinstance(answer, Refused):
            if answer.answer == "error":
                return _text("unavailable", 503)
            return Response(twiml.reject(answer.answer), content_type=twiml.CONTENT_TYPE)
        base = base_url()
        document = twiml.connect_stream(
            _websocket_url(base) + answer.stream_path, answer.parameters, base + STATUS_PATH
        )
        return Response(document, content_type=twiml.CONTENT_TYPE)

    async def status() -> Response:
        """Pass on what the carrier tells of a stream or a call."""
        try:
            pairs = await _authentic_pairs(gate)
            if pairs is None:
                return _text("forbidden", 403)
            stream = forms.stream_status(pairs)
            if stream is not None:
                switchboard.stream_status(stream)
            else:
                switchboard.call_status(forms.call_status(pairs))
        except forms.FormError as error:
            return _malformed(error, refused)
        return Response("", status=204)

    for path, view in ((VOICE_PATH, voice), (STATUS_PATH, status)):
        # First, or HEAD would be served as a GET and admit a call.
        app.add_url_rule(path, f"{view.__name__}_head", _no_head, methods=["HEAD"])
        app.add_url_rule(path, view.__name__, view, methods=["GET", "POST"])
    return app


async def _authentic_pairs(gate: Gate) -> forms.Pairs | None:
    """Read the request in hand and have it judged; its parameters, or None when refused.

    Raises FormError.
    """
    body: bytes = b""
    if request.method == "POST":
        with trio.move_on_after(BODY_TIMEOUT_S) as patience:
            try:
                body = bytes(await request.body)
            except RequestEntityTooLarge:
                raise forms.FormError(f"more than {MAX_BODY_BYTES} bytes", 413) from None
        if patience.cancelled_caught:
            raise forms.FormError("the body did not arrive", 408)
    is_form = request.method == "GET" or not body or request.mimetype == _FORM
    posted = forms.parse_pairs(body) if is_form else ()
    query: bytes = request.scope["query_string"]
    path = request.scope.get("raw_path") or quote(request.path).encode("ascii")
    target = path.partition(b"?")[0] + (b"?" + query if query else b"")
    client = request.scope.get("client")
    judged = Request(
        target=target.decode("latin-1"),
        headers=joined(request.headers),
        peer=client[0] if client else None,
        parameters=posted,
        body=None if is_form else body,
    )
    if not gate.webhook(judged):
        return None
    return forms.parse_pairs(query) if request.method == "GET" else posted


_FORM = "application/x-www-form-urlencoded"


async def _no_head() -> Response:
    return Response("method not allowed\n", status=405, headers={"Allow": "GET, POST"})


def _malformed(error: forms.FormError, refused: Callable[[str, str], None]) -> Response:
    refused("webhook", "malformed")
    _log.warning("webhook malformed", why=str(error), path=request.path[:200])
    return _text(str(error), error.status)


def _text(body: str, status: int) -> Response:
    return Response(body + "\n", status=status, content_type="text/plain; charset=utf-8")


def _websocket_url(base: str) -> str:
    """Turn `http` into `ws`, `https` into `wss`."""
    return "ws" + base.removeprefix("http") if base.startswith("http") else base
