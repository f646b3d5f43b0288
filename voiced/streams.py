"""Media streams: from the carrier's handshake to the call that waits for it."""

from __future__ import annotations

from functools import partial

import structlog
import trio

from voiced import metrics
from voiced.call import Call
from voiced.handshake import RequestHead
from voiced.twilio.errors import StreamRefused
from voiced.twilio.leg import LOOK_S, accept_start
from voiced.twiliocalls import TwilioCalls
from voiced.web.gate import Gate, Request, joined
from voiced.websocket import WebSocket

__all__ = ["Streams"]

log = structlog.get_logger("voiced.streams")

FORBIDDEN = 403
POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class Streams:
    """Takes the carrier's media sockets. Fails closed: signature, token and CallSid must agree."""

    def __init__(self, gate: Gate, calls: TwilioCalls) -> None:
        self._gate = gate
        self._calls = calls

    def authorize(self, head: RequestHead) -> int | None:
        """Judge an upgrade request: None, or the status of the refusal, logged and counted."""
        request = Request(target=head.target, headers=joined(head.headers), peer=head.client)
        if not self._gate.handshake(request):
            return FORBIDDEN
        if not self._calls.expects(head.path):
            self._refuse("wrong or used token")
            return FORBIDDEN
        return None

    async def handle(self, socket: WebSocket, head: RequestHead) -> None:
        """Serve a media socket until its call has ended."""
        call = self._calls.claim(head.path)
        if call is None:  # taken by another socket since the handshake
            self._refuse("wrong or used token")
            await socket.aclose(POLICY_VIOLATION, "not expected")
            return
        try:
            leg = await accept_start(socket, call.facts.carrier_call_id)
        except StreamRefused as error:
            self._refuse(error.reason, call)
            if call.awaits_leg:
                call.end("stream_refused")
            return
        if not call.awaits_leg:  # it ended meanwhile, or a repeated webhook led to two streams
            self._refuse("not expected any more", call)
            await socket.aclose(POLICY_VIOLATION, "not expected any more")
            return
        leg.redirect = partial(self._calls.redirect, call.facts.carrier_call_id)
        call.attach(leg)
        while not call.ended.is_set():
            with trio.move_on_after(LOOK_S):
                await call.ended.wait()
            leg.look_after()

    def _refuse(self, why: str, call: Call | None = None) -> None:
        metrics.REFUSED.labels("stream", why).inc()
        (log if call is None else call.record.log).warning("stream refused", why=why)
