"""One simulated call from beginning to end: webhook, TwiML, media stream, hang-up."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

import trio

from voiced.simulate.client import MediaSocket, Network, RequestFailed, SocketClosed
from voiced.simulate.events import Observer
from voiced.simulate.line import Line
from voiced.simulate.phone import Phone
from voiced.simulate.result import CallResult, Setup, judge
from voiced.simulate.script import Script
from voiced.simulate.signature import sign
from voiced.simulate.twiml import CallRefused, StreamOrder, parse_twiml
from voiced.simulate.wire import Identifiers

__all__ = ["call"]

_WEBHOOK_S = 15.0  # what Twilio allows in all
_HANDSHAKE_S = 10.0
_STATUS_S = 5.0
_TWIML_TYPES = ("text/xml", "application/xml")


async def call(
    script: Script,
    *,
    webhook_url: str,
    auth_token: str | None = None,
    public_url: str | None = None,
    to: str = "+15550100",
    from_: str = "+15550199",
    observer: Observer | None = None,
    line: Line | None = None,
    network_delay_ms: float = 0,
    jitter_ms: float = 0,
    rng: int = 0,
    integers: bool = False,
    record: bool = True,
    deadline_s: float = 120.0,
    identifiers: Identifiers | None = None,
    network: Network | None = None,
) -> CallResult:
    """Place a call and carry `script` out. Raises nothing for what the server does: see the result.

    Args:
        script: what the caller does.
        webhook_url: where the voice webhook is reached, e.g. `http://127.0.0.1:8080/twilio/voice`.
        auth_token: signs the webhook, the handshake and status callbacks; None: not signed.
        public_url: what stands for the scheme and host of `webhook_url` in signed URLs, as behind
            a proxy. A stream or callback URL beginning with it is reached where the webhook is.
        to: the called number.
        from_: the calling number, or what a carrier gives instead.
        observer: told of every event as it happens.
        line: what the caller's telephone returns of what it plays; None: nothing.
        network_delay_ms: added to every message, each way.
        jitter_ms: at most so much more on each message, never out of order.
        rng: the seed of the jitter.
        integers: send numbers as numbers, not as Twilio's strings.
        record: keep what was said and heard, 16 kB for each second.
        deadline_s: the whole call is broken off after so long.
        identifiers: the carrier's names for this call; random by default.
        network: how servers are reached; TCP by default.
    """
    placed = _Call(
        script=script,
        webhook_url=webhook_url,
        auth_token=auth_token,
        public_url=public_url.rstrip("/") if public_url else None,
        to=to,
        from_=from_,
        identifiers=identifiers or Identifiers(),
        network=network or Network(),
    )
    phone = Phone(
        script,
        placed.identifiers,
        delay_us=round(network_delay_ms * 1000),
        jitter_us=round(jitter_ms * 1000),
        rng=random.Random(rng),  # noqa: S311 (jitter is no secret)
        integers=integers,
        record=record,
        observer=observer,
        line=line,
    )
    setup = Setup(script.name, placed.identifiers.call_sid)
    with trio.move_on_after(deadline_s) as scope:
        await placed.run(phone, setup)
    if scope.cancelled_caught:
        setup.failure = f"the call was not over after {deadline_s:g} s"
    return judge(setup, phone)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    script: Script
    webhook_url: str
    auth_token: str | None
    public_url: str | None
    to: str
    from_: str
    identifiers: Identifiers
    network: Network

    async def run(self, phone: Phone, setup: Setup) -> None:
        began = trio.current_time()
        try:
            order = await self._fetch_order()
            setup.webhook_ms = (trio.current_time() - began) * 1000
            setup.next_verbs = order.next_verbs
            async with self.network.open_media(
                self._reachable(order.url),
                headers=self._signed(order.url),
                timeout_s=_HANDSHAKE_S,
            ) as socket:
                setup.setup_ms = (trio.current_time() - began) * 1000
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._report, order, "stream-started", phone)
                    setup.close_code = await _Line(socket, phone).run(order.parameters)
            await self._report(order, "stream-stopped", phone)
        except* (RequestFailed, CallRefused) as group:
            setup.failure = "; ".join(str(error) for error in _leaves(group))

    async def _fetch_order(self) -> StreamOrder:
        signed_url = self._public(self.webhook_url)
        fields = [
            ("CallSid", self.identifiers.call_sid),
            ("AccountSid", self.identifiers.account_sid),
            ("ApiVersion", "2010-04-01"),
            ("From", self.from_),
            ("To", self.to),
            ("Caller", self.from_),
            ("Called", self.to),
            ("CallStatus", "ringing"),
            ("Direction", "inbound"),
            ("FromCity", ""),
            ("FromCountry", "US"),
            ("StirVerstat", "TN-Validation-Passed-A"),
        ]
        answer = await self.network.post_form(
            self.webhook_url,
            fields,
            headers=self._signed(signed_url, fields),
            timeout_s=_WEBHOOK_S,
        )
        if answer.status != 200:
            hint = "" if answer.status != 403 else self._how_to_sign()
            raise CallRefused(f"the webhook answered HTTP {answer.status} (11200){hint}")
        if answer.content_type.partition(";")[0].strip().lower() not in _TWIML_TYPES:
            raise CallRefused(f"the webhook answered {answer.content_type!r}, not XML (12300)")
        return parse_twiml(answer.body)

    async def _report(self, order: StreamOrder, event: str, phone: Phone) -> None:
        """Send the stream's status callback, if one is asked for."""
        if order.status_callback is None:
            return
        ids = self.identifiers
        fields = [
            ("AccountSid", ids.account_sid),
            ("CallSid", ids.call_sid),
            ("StreamSid", ids.stream_sid),
            ("StreamName", order.name or ids.stream_sid),
            ("StreamEvent", event),
            ("Timestamp", datetime.now(UTC).isoformat(timespec="milliseconds")),
        ]
        url = order.status_callback
        headers = self._signed(url, fields)
        try:
            answer = await self.network.post_form(
                self._reachable(url), fields, headers=headers, timeout_s=_STATUS_S
            )
        except RequestFailed as error:
            phone.complain(11200, f"status callback {event}: {error}")
        else:
            if not 200 <= answer.status < 300:
                phone.complain(11200, f"status callback {event}: HTTP {answer.status}")

    def _signed(
        self, url: str, fields: list[tuple[str, str]] | None = None
    ) -> list[tuple[str, str]]:
        if self.auth_token is None:
            return []
        return [("X-Twilio-Signature", sign(self.auth_token, url, fields or ()))]

    def _how_to_sign(self) -> str:
        if self.auth_token is None:
            return "; sign with the daemon's auth_token: --auth-token, or $TWILIO_AUTH_TOKEN"
        return "; see that --auth-token and --public-url are the daemon's own"

    def _public(self, url: str) -> str:
        """The URL as the public knows it, which is what is signed."""
        if self.public_url is None:
            return url
        parts = urlsplit(url)
        return self.public_url + urlunsplit(("", "", parts.path, parts.query, ""))

    def _reachable(self, url: str) -> str:
        """Where a public URL of the daemon's is reached from here."""
        if self.public_url is None:
            return url
        parts, public = urlsplit(url), urlsplit(self.public_url)
        if parts.netloc != public.netloc or not parts.path.startswith(f"{public.path}/"):
            return url
        local = urlsplit(self.webhook_url)
        secure = local.scheme == "https"
        web_socket = parts.scheme in ("ws", "wss")
        scheme = {True: "wss", False: "ws"}[secure] if web_socket else local.scheme
        # A proxy before the daemon takes off the path that is only the public's.
        path = parts.path.removeprefix(public.path)
        return urlunsplit((scheme, local.netloc, path, parts.query, ""))


class _Line:
    """Moves messages between the socket and the phone, at the phone's times."""

    def __init__(self, socket: MediaSocket, phone: Phone) -> None:
        self._socket = socket
        self._phone = phone
        self._start = trio.current_time()
        self._kick = trio.Event()
        self._sleeping_until = 0
        self._close_code: int | None = None

    async def run(self, parameters: Mapping[str, str]) -> int | None:
        """Until the stream is over; returns the server's close code when it was the server's."""
        self._phone.begin(parameters)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            await self._write()
            nursery.cancel_scope.cancel()
        if self._phone.polite:
            await self._socket.close()
        else:
            await self._socket.cut()
        return self._close_code

    def _now_us(self) -> int:
        # Rounded, so that waking at a due time in binary seconds is not a microsecond early.
        return round((trio.current_time() - self._start) * 1e6)

    async def _write(self) -> None:
        phone = self._phone
        while True:
            for text in phone.poll(self._now_us()):
                try:
                    await self._socket.send(text)
                except SocketClosed as closed:
                    self._closed(closed)
                    break
            if phone.finished:
                return
            self._sleeping_until = phone.next_us()
            if self._kick.is_set():
                self._kick = trio.Event()
            # An absolute time: what one round is late, the next one is not.
            with trio.move_on_at(self._start + self._sleeping_until / 1e6):
                await self._kick.wait()

    async def _read(self) -> None:
        phone = self._phone
        while True:
            try:
                message = await self._socket.receive()
            except SocketClosed as closed:
                self._closed(closed)
                return
            phone.receive(self._now_us(), message)
            if phone.finished or phone.next_us() < self._sleeping_until:
                self._kick.set()
            while phone.congested:  # noqa: ASYNC110 (it waits for time itself to pass)
                await trio.sleep_until(self._start + phone.next_us() / 1e6)

    def _closed(self, closed: SocketClosed) -> None:
        if self._close_code is None:
            self._close_code = closed.code
            self._phone.receive_close(self._now_us())
            self._kick.set()


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
