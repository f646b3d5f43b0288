"""Twilio's REST API, as far as calls need it: create one, change one, look at one.

Source: Twilio's "Call resource" page, API version 2010-04-01; HTTP Basic with the account's SID and
auth token; forms in, JSON out. Outgoing calls start at one a second per account by default; Twilio
queues what comes faster and says `queued` (protocol notes section 11).

What is tried again: 429, which Twilio never processes, for every request; other failures of Twilio
or the network where a second request does no more than the first. Creating a call that Twilio may
have created already would ring somebody twice, so there only what surely did not arrive.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Literal

import httpx
import msgspec
import structlog
import trio

from voiced import __version__
from voiced.client import Client, body_of
from voiced.twilio.errors import SERVER_TROUBLE, TwilioError

__all__ = ["API_URL", "CallResource", "TwilioError", "TwilioRest"]

API_URL: Final = "https://api.twilio.com"
_VERSION: Final = "2010-04-01"

MAX_TWIML: Final = 4000
"""Characters of TwiML in a request (Call resource, `Twiml`)."""

TIMEOUT_S: Final = 10.0
"""For each step (connecting, writing, reading) of one attempt."""

ATTEMPT_S: Final = 20.0  # for all of its steps

ATTEMPTS: Final = 4
FIRST_DELAY_S: Final = 0.5  # then doubled, with up to half as much again at random
MAX_DELAY_S: Final = 5.0  # also for what Retry-After asks: an operator waits for the answer

MAX_ANSWER: Final = 256 * 1024  # bytes; a call resource has 2 KB

_CALL_SID: Final = re.compile(r"CA[0-9a-fA-F]{32}")
_NOT_TAKEN: Final = frozenset({429, 503})  # refused before anything was done

Event = Literal["initiated", "ringing", "answered", "completed"]

_log = structlog.get_logger("voiced.twilio")


class CallResource(msgspec.Struct, frozen=True, kw_only=True):
    """A call as Twilio tells it."""

    sid: str
    status: str
    """queued, ringing, in-progress, canceled, completed, busy, no-answer or failed."""
    to: str | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    direction: str | None = None
    answered_by: str | None = None
    queue_time: str | None = None  # ms, as text


class _ErrorBody(msgspec.Struct):
    code: int | None = None
    message: str | None = None
    more_info: str | None = None


class TwilioRest:
    """An account's API. To be closed with `aclose`, or used as `async with`.

    Every method raises TwilioError, and ValueError for arguments that Twilio would not take.
    """

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        *,
        base_url: str = API_URL,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = trio.sleep,
    ) -> None:
        """Prepare; nothing is sent. `transport` and `sleep` are for tests."""
        self._calls = f"/{_VERSION}/Accounts/{account_sid}/Calls"
        self._sleep = sleep
        self._client = Client(
            base_url=base_url.rstrip("/"),
            auth=httpx.BasicAuth(account_sid, auth_token),
            headers={"Accept": "application/json", "User-Agent": f"voiced/{__version__}"},
            timeout=TIMEOUT_S,
            transport=transport,
            follow_redirects=False,  # nobody else gets the credentials
        )

    async def __aenter__(self) -> TwilioRest:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def create_call(
        self,
        to: str,
        from_: str,
        *,
        twiml: str | None = None,
        url: str | None = None,
        status_callback: str | None = None,
        status_callback_event: Sequence[Event] = (),
        timeout_s: int | None = None,
        time_limit_s: int | None = None,
        send_digits: str | None = None,
        machine_detection: Literal["Enable", "DetectMessageEnd"] | None = None,
        async_amd: bool | None = None,
        async_amd_status_callback: str | None = None,
        sip_auth: tuple[str, str] | None = None,
    ) -> CallResource:
        """Call `to` ("+49…" or "sip:…") from a number of the account, or a user name towards SIP.

        Once it is answered Twilio runs `twiml`, or asks `url`; exactly one of them. `timeout_s` is
        how long it rings, 60 by default, 5 s may be added. `status_callback` is called with each
        `status_callback_event`, or with `completed` alone. `machine_detection` holds the TwiML back
        until Twilio knows who has answered; not so with `async_amd`, which tells its own callback.
        `sip_auth` is user name and password for the SIP peer.
        """
        _one_of(twiml, url)
        if timeout_s is not None and not 1 <= timeout_s <= 600:
            raise ValueError("timeout_s must be 1 to 600")
        user, password = sip_auth or (None, None)
        form = {
            "To": to,
            "From": from_,
            "Url": url,
            "Twiml": twiml,
            "StatusCallback": status_callback,
            "StatusCallbackEvent": list(status_callback_event) or None,
            "StatusCallbackMethod": "POST" if status_callback else None,
            "Timeout": timeout_s,
            "TimeLimit": time_limit_s,
            "SendDigits": send_digits,
            "MachineDetection": machine_detection,
            "AsyncAmd": None if async_amd is None else str(async_amd).lower(),
            "AsyncAmdStatusCallback": async_amd_status_callback,
            "AsyncAmdStatusCallbackMethod": "POST" if async_amd_status_callback else None,
            "SipAuthUsername": user,
            "SipAuthPassword": password,
        }
        return await self._request("POST", f"{self._calls}.json", form, repeatable=False)

    async def update_call(
        self,
        sid: str,
        *,
        twiml: str | None = None,
        url: str | None = None,
        status: Literal["completed", "canceled"] | None = None,
    ) -> CallResource:
        """Hand the call to new TwiML, or end it: `completed` at any time, `canceled` unanswered.

        New TwiML ends the call's media stream, and is not sent again where no answer came in time:
        by then somebody may have been reached, and would be cut off. TwilioError.call_is_over: it
        had ended before.
        """
        _one_of(twiml, url, status)
        form = {"Url": url, "Twiml": twiml, "Status": status}
        return await self._request("POST", self._path(sid), form, belated=status is not None)

    async def fetch_call(self, sid: str) -> CallResource:
        """Look at a call."""
        return await self._request("GET", self._path(sid), {})

    def _path(self, sid: str) -> str:
        if not _CALL_SID.fullmatch(sid):  # it becomes part of a path
            raise ValueError("not a call SID: CA and 32 hexadecimal digits")
        return f"{self._calls}/{sid}.json"

    async def _request(
        self,
        method: str,
        path: str,
        form: Mapping[str, Any],
        *,
        repeatable: bool = True,
        belated: bool = True,
    ) -> CallResource:
        """`repeatable`: even where it may have been carried out; `belated`: long ago, too."""
        data = {name: value for name, value in form.items() if value is not None}
        delay = FIRST_DELAY_S
        for attempt in range(1, ATTEMPTS + 1):
            wait = delay * random.uniform(1.0, 1.5)  # noqa: S311 - spreads retries
            try:
                status, headers, body = await self._exchange(method, path, data)
            except httpx.TransportError as error:
                # Without a connection nothing was asked; with one, nobody knows.
                unasked = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                again = unasked or (
                    repeatable and (belated or not isinstance(error, httpx.TimeoutException))
                )
                failure = TwilioError(f"Twilio cannot be reached: {_why(error)}")
            else:
                if status in (200, 201):
                    return _resource(body)
                failure = _refusal(status, body)
                again = status in (SERVER_TROUBLE | _NOT_TAKEN if repeatable else _NOT_TAKEN)
                wait = max(wait, _retry_after(headers))
            if not again or attempt == ATTEMPTS:
                raise failure from None
            _log.warning("twilio asked again", why=failure.message, status=failure.status)
            await self._sleep(min(wait, MAX_DELAY_S))
            delay *= 2
        raise AssertionError("unreachable")

    async def _exchange(
        self, method: str, path: str, data: Mapping[str, Any]
    ) -> tuple[int, httpx.Headers, bytes]:
        read = bytearray()
        with trio.move_on_after(ATTEMPT_S) as patience:
            async with (
                self._client.stream(method, path, data=data or None) as response,
                aclosing(body_of(response)) as parts,
            ):
                async for part in parts:
                    if len(read) <= MAX_ANSWER:  # the rest is read and dropped
                        read += part
        if patience.cancelled_caught:
            raise httpx.ReadTimeout(f"no whole answer within {ATTEMPT_S:.0f} s")
        return response.status_code, response.headers, bytes(read)


def _one_of(*values: str | None) -> None:
    if sum(value is not None for value in values) != 1:
        raise ValueError("exactly one of twiml, url and status says what the call is to do")
    twiml = values[0]
    if twiml is not None and len(twiml) > MAX_TWIML:
        raise ValueError(f"the TwiML has {len(twiml)} characters, Twilio takes {MAX_TWIML}")


def _resource(body: bytes) -> CallResource:
    try:
        return msgspec.json.decode(body, type=CallResource)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TwilioError("Twilio's answer is no call resource", status=200) from None


def _refusal(status: int, body: bytes) -> TwilioError:
    try:
        told = msgspec.json.decode(body, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        told = _ErrorBody()
    return TwilioError(
        (told.message or f"Twilio answered HTTP {status}")[:500],
        status=status,
        code=told.code or 0,
        more_info=(told.more_info or "")[:200],
    )


def _retry_after(headers: httpx.Headers) -> float:
    """Read Retry-After in seconds; the other form, a date, is not what Twilio sends."""
    text = headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _why(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
