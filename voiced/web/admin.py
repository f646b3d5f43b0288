"""The admin listener: health, metrics, and the API that operators and the commands use.

| request                              | answers                                              |
|--------------------------------------|------------------------------------------------------|
| GET /healthz                         | 200 for as long as the event loop turns              |
| GET /readyz                          | 200 or 503, and why                                  |
| GET /metrics                         | Prometheus or OpenMetrics text                       |
| GET /api/calls?all=1&limit=N         | live calls; with `all` the newest of the journal too |
| POST /api/calls (DialRequest)        | 201 {id}, before anybody has answered                |
| GET /api/calls/ID                    | one call, live or of the journal                     |
| POST /api/calls/ID/hangup, say, transfer, digits | 200 {id, …}                              |
| GET /api/trunks, /api/bans, /api/engines |                                                  |

ID is a call's id, the unique beginning of one, or `last`. /api needs the token everywhere. /healthz
and the bare yes or no of /readyz are for anybody; /metrics and the reasons of /readyz are open on
loopback and Unix sockets, where only this machine's users come from, and need the token elsewhere.

An error is JSON: `error`, a fixed word, `message` and `remedy`, a sentence each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec
import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from quart import Response, g, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from voiced.web.access import Access, Denied
from voiced.web.operations import (
    LAST,
    CallView,
    DialRequest,
    DigitsRequest,
    HangupRequest,
    OperationRefused,
    Operations,
    SayRequest,
    TransferRequest,
    no_such_call,
)
from voiced.web.replies import json_answer, problem, read_body, requester, short
from voiced.web.requests import MAX_BODY_BYTES, checked_headers, read_limit
from voiced.web.views import journal_view, live_view

__all__ = ["create_admin_app"]

_OPENMETRICS: Final = "application/openmetrics-text"

_log = structlog.get_logger("voiced.admin")


class _Refused(Exception):
    """Unwinds a view; `denied` is the answer."""

    def __init__(self, denied: Denied) -> None:
        super().__init__(denied.message)
        self.denied = denied


def create_admin_app(
    operations: Operations,
    token: str,
    *,
    hosts: Iterable[str] = (),
    count: Callable[[str, str], None] = lambda what, result: None,
    registry: CollectorRegistry = REGISTRY,
) -> QuartTrio:
    """Make the ASGI application, to be served by `listening.serve_admin`.

    `hosts`: further names that the listener is called by (see `Access`). `count` is called once a
    request with (what, result): what is `calls`, `call`, `dial`, `hangup`, `say`, `transfer`,
    `digits`, `trunks`, `engines`, `bans`, `metrics`, `ready` or `other`; result is `ok` or the
    error's word.
    Raises ValueError for an empty token.
    """
    return _Admin(operations, Access(token, hosts), count, registry).app


class _Admin:
    """The views, bound to what they show."""

    def __init__(
        self,
        operations: Operations,
        access: Access,
        count: Callable[[str, str], None],
        registry: CollectorRegistry,
    ) -> None:
        self._operations = operations
        self._access = access
        self._count = count
        self._registry = registry
        self.app = QuartTrio("voiced.admin", static_folder=None, template_folder=None)
        self.app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
        self.app.url_map.strict_slashes = False
        self.app.register_error_handler(HTTPException, self._http_error)
        self.app.register_error_handler(Exception, self._bug)
        for path, method, what, view in (
            ("/api/calls", "GET", "calls", self._calls),
            ("/api/calls", "POST", "dial", self._dial),
            ("/api/calls/<name>", "GET", "call", self._call),
            ("/api/calls/<name>/hangup", "POST", "hangup", self._hangup),
            ("/api/calls/<name>/say", "POST", "say", self._say),
            ("/api/calls/<name>/transfer", "POST", "transfer", self._transfer),
            ("/api/calls/<name>/digits", "POST", "digits", self._digits),
            ("/api/trunks", "GET", "trunks", self._trunks),
            ("/api/engines", "GET", "engines", self._engines),
            ("/api/bans", "GET", "bans", self._bans),
        ):
            self._add(path, method, what, self._guarded(what, view))
        self._add("/metrics", "GET", "metrics", self._answered("metrics", self._metrics))
        self._add("/readyz", "GET", "ready", self._answered("ready", self._ready))
        self._add("/healthz", "GET", "health", self._health)

    def _add(
        self, path: str, method: str, name: str, view: Callable[..., Awaitable[Response]]
    ) -> None:
        self.app.add_url_rule(path, name, view, methods=[method], provide_automatic_options=False)

    # ---- what surrounds a view ----

    def _guarded(
        self, what: str, view: Callable[..., Awaitable[Response]]
    ) -> Callable[..., Awaitable[Response]]:
        """Judge the request first; afterwards an operator's deed is written down."""

        async def guarded(**values: str) -> Response:
            denied = self._access.api(requester())
            if denied is not None:
                raise _Refused(denied)
            return await view(**values)

        return self._answered(what, guarded, audit=True)

    def _answered(
        self, what: str, view: Callable[..., Awaitable[Response]], *, audit: bool = False
    ) -> Callable[..., Awaitable[Response]]:
        """Turn refusals into their answers, count, and log what somebody did or tried to."""

        async def answered(**values: str) -> Response:
            seen, result = requester(), "ok"
            try:
                response = await view(**values)
            except _Refused as error:
                self._count(what, error.denied.code)
                _log.warning(
                    "admin request refused", what=what, why=error.denied.code, who=seen.who
                )
                return problem(error.denied)
            except OperationRefused as error:
                result = error.code
                response = problem(Denied(error.status, error.code, error.message, error.remedy))
            self._count(what, result)
            if audit and request.method == "POST":
                # Who, what, which call and how it went; never what is said, nor to whom.
                call = g.get("call_id") or short(values.get("name", "")) or None
                _log.info("operator", what=what, call=call, result=result, who=seen.who)
            return response

        return answered

    async def _http_error(self, error: HTTPException) -> Response:
        """Unknown paths and methods, in the form of all errors."""
        status = error.code or 500
        code, message, remedy = "not_found", "there is nothing here", "see /api/calls"
        headers: dict[str, str] = {}
        if isinstance(error, MethodNotAllowed):
            code, message = "method_not_allowed", "this path does not take that method"
            headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
            remedy = f"use {headers['Allow']}"
        elif status != 404:
            code, message, remedy = "bad_request", error.name, ""
        self._count("other", code)
        response = problem(Denied(status, code, message, remedy))
        response.headers.extend(headers)
        return response

    async def _bug(self, error: Exception) -> Response:
        self._count("other", "internal_error")
        _log.exception("admin request failed: a bug of voiced, please report it", exc_info=error)
        return problem(
            Denied(500, "internal_error", "voiced failed at this", "see the daemon's log")
        )

    # ---- health and metrics ----

    async def _health(self) -> Response:
        return Response("ok\n", content_type="text/plain; charset=utf-8")

    async def _ready(self) -> Response:
        state = self._operations.ready()
        shown: Any = state
        if self._access.open(requester()) is not None:
            shown = {"ready": state.ready}
        return json_answer(shown, 200 if state.ready else 503)

    async def _metrics(self) -> Response:
        denied = self._access.open(requester())
        if denied is not None:
            raise _Refused(denied)
        # The client's Accept is not passed on as it is: its version and escaping would be echoed.
        wanted = _OPENMETRICS in request.headers.get("Accept", "")
        encode, content_type = choose_encoder(f"{_OPENMETRICS}; version=1.0.0" if wanted else "")
        return Response(encode(self._registry), content_type=content_type)

    # ---- calls ----

    async def _calls(self) -> Response:
        limit = read_limit(request.args.get("limit"))
        calls = sorted(self._operations.live(), key=lambda call: call.started_at, reverse=True)
        shown = [live_view(call, details=False) for call in calls]
        if request.args.get("all", "0") not in ("0", "", "false"):
            live = {call.id for call in calls}
            rows = await self._operations.journal(limit)
            ended = (row for row in rows if row["call_id"] not in live)
            shown += [journal_view(row, details=False) for row in ended]
        return json_answer({"calls": shown})

    async def _call(self, name: str) -> Response:
        call = self._operations.find(name)
        if call is not None:
            return json_answer(live_view(call, details=True))
        if name == LAST:
            row = next(iter(await self._operations.journal(1)), None)
        else:
            row = await self._operations.journalled(name)
        if row is None:
            raise OperationRefused(
                "no_such_call",
                404,
                f"there is no call {short(name)}, neither live nor in the journal",
                "see voiced calls --all for those there are",
            )
        return json_answer(journal_view(row, details=True))

    def _live(self, name: str) -> CallView:
        call = self._operations.find(name)
        if call is None:
            raise no_such_call(short(name))
        g.call_id = call.id
        return call

    async def _dial(self) -> Response:
        asked = await read_body(DialRequest)
        checked_headers(asked.headers)
        g.call_id = call_id = await self._operations.dial(asked)
        response = json_answer({"id": call_id}, 201)
        response.headers["Location"] = f"/api/calls/{call_id}"
        return response

    async def _hangup(self, name: str) -> Response:
        asked = await read_body(HangupRequest)
        call = self._live(name)
        self._operations.hangup(call.id, asked.reason)
        return json_answer({"id": call.id})

    async def _say(self, name: str) -> Response:
        asked = await read_body(SayRequest)
        call = self._live(name)
        self._operations.say(call.id, asked.text, asked.exactly)
        return json_answer({"id": call.id})

    async def _transfer(self, name: str) -> Response:
        asked = await read_body(TransferRequest)
        call = self._live(name)
        result = await self._operations.transfer(call.id, asked.to)
        return json_answer({"id": call.id, **msgspec.structs.asdict(result)})

    async def _digits(self, name: str) -> Response:
        asked = await read_body(DigitsRequest)
        call = self._live(name)
        self._operations.digits(call.id, asked.digits)
        return json_answer({"id": call.id})

    # ---- trunks, engines and bans ----

    async def _engines(self) -> Response:
        return json_answer({"engines": self._operations.engines()})

    async def _trunks(self) -> Response:
        return json_answer({"trunks": self._operations.trunks()})

    async def _bans(self) -> Response:
        return json_answer({"bans": self._operations.bans()})
