"""Calls that come and go over Twilio: webhooks, stream tokens, calls placed by the REST API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import trio

from voiced.call import Call
from voiced.config import Asked, number_for
from voiced.config.types import Agent
from voiced.formats import PCMU_8K
from voiced.leg import CallFacts, Transferred, Unsupported
from voiced.switchboard import MAX_FACT, NoRoom, Switchboard, bounded, fact, new_call_id
from voiced.twilio import twiml
from voiced.twilio.errors import TwilioError
from voiced.twilio.tokens import MEDIA_PATH, StreamTokens, TokensExhausted
from voiced.web.app import STATUS_PATH, VOICE_PATH
from voiced.web.switchboard import Admitted, CallStatus, Refused, StreamStatus, VoiceRequest

if TYPE_CHECKING:  # and its HTTP client are loaded where there is an account
    from voiced.twilio.rest import TwilioRest

__all__ = ["TwilioCalls"]

log = structlog.get_logger("voiced.twilio")

# What Twilio says of a call that is over (twilio-media-streams section 9).
_OVER: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})

DIAL_S: Final = 30.0
"""For Twilio to take a request for a call, its retries included."""

ANSWER_GRACE_S: Final = 15.0
"""From the end of ringing to the stream: Twilio fetches the TwiML and connects."""


class TwilioCalls:
    """The switchboard as Twilio sees it (`voiced.web.switchboard.Switchboard`), and its dialler."""

    def __init__(
        self,
        switchboard: Switchboard,
        rest: TwilioRest | None = None,
        base_url: Callable[[], str] = lambda: "",
    ) -> None:
        """`rest`: without it (no account) nothing is dialled or transferred."""
        self._switchboard = switchboard
        self._rest = rest
        self._base_url = base_url
        self._tokens = StreamTokens(
            trio.current_time,
            capacity=max(1024, 2 * switchboard.setup.config.daemon.max_calls),
        )
        self._calls: dict[str, Call] = {}  # by CallSid
        self._over: set[str] = set()  # of these, those of which Twilio says that they are over
        self._dialling = 0  # requests whose CallSid is not known yet
        self._named = trio.lowlevel.ParkingLot()  # where webhooks wait for it

    # ---- the webhooks ----

    async def admit(self, request: VoiceRequest) -> Admitted | Refused:
        """Take a call, or say why not. A webhook that is repeated finds its call again."""
        while request.direction == "outbound" and request.call_sid not in self._calls:
            if not self._dialling:
                break
            # The answer to our own request may come after the webhook that it sets off.
            await self._named.park()
        known = self._calls.get(request.call_sid)
        if known is not None and request.direction == "outbound":
            # What was not known when we placed it, such as who has answered.
            known.learn(bounded({**known.facts.parameters, **request.parameters}))
        call = known or self._make(request)
        if isinstance(call, Call):
            try:
                return Admitted(f"{MEDIA_PATH}{self._tokens.mint(request.call_sid)}")
            except TokensExhausted:
                call.end("no_stream_token")
                call = Refused("no stream token")
        self._switchboard.refuse(call.reason, request.call_sid)
        return call

    def _make(self, request: VoiceRequest) -> Call | Refused:
        config = self._switchboard.setup.config
        full = self._switchboard.full
        if full == "draining":
            return Refused("draining", "error")  # 503: the carrier may try another server
        if full is not None:
            return Refused(full)
        account = config.twilio.account_sid
        if account and request.account_sid != account:
            return Refused("wrong account", "rejected")
        asked = Asked(
            request.called,
            caller=request.caller,
            trunk="twilio",
            headers=request.parameters,
        )
        found = number_for(config, asked)
        if found is None:
            return Refused("no number matches", "rejected")
        if (why := self._switchboard.exhausted(request.called, found[0])) is not None:
            return Refused(why)
        facts = CallFacts(
            call_id=new_call_id(),
            carrier="twilio",
            carrier_call_id=request.call_sid[:MAX_FACT],
            caller=request.caller[:MAX_FACT],
            called=request.called[:MAX_FACT],
            direction=request.direction,
            parameters=bounded(request.parameters),
        )
        call = self._switchboard.start(
            facts,
            found[0].agent,
            found[1],
            PCMU_8K,
            number=found[0],
            released=partial(self._released, request.call_sid),
        )
        self._calls[request.call_sid] = call
        return call

    async def _released(self, call_sid: str, call: Call) -> None:
        self._tokens.revoke(call_sid)
        self._over.discard(call_sid)
        if self._calls.get(call_sid) is call:
            del self._calls[call_sid]

    def stream_status(self, status: StreamStatus) -> None:
        """A stream error is logged beside the call; the stream itself says when it is over."""
        if status.event == "stream-error":
            call = self._calls.get(status.call_sid)
            if call is not None:
                call.record.log.warning(
                    "carrier reports a stream error", error=(status.error or "")[:MAX_FACT]
                )

    def call_status(self, status: CallStatus) -> None:
        """A call that is over at the carrier before its stream came is given up at once."""
        call = self._calls.get(status.call_sid)
        if call is None:
            return
        if answered_by := status.parameters.get("AnsweredBy"):
            call.record.log.info("carrier says who answered", answered_by=fact(answered_by))
            call.learn({"AnsweredBy": fact(answered_by)})
        if status.status in _OVER:
            self._over.add(status.call_sid)
            word = status.status.replace("-", "_")
            hung_up = "callee_hangup" if call.facts.direction == "outbound" else "caller_hangup"
            call.end(hung_up if word == "completed" else f"carrier_{word}")

    # ---- the streams ----

    def expects(self, path: str) -> bool:
        """Whether `path` holds a token that `claim` would take."""
        return self._tokens.holds_path(path)

    def claim(self, path: str) -> Call | None:
        """The call whose one-time token stands in `path`, used up with this; None without one."""
        call_sid = self._tokens.redeem_path(path)
        return None if call_sid is None else self._calls.get(call_sid)

    async def redirect(self, call_sid: str, target: str) -> Transferred:
        """Have the REST API send a call elsewhere.

        Raises Unsupported without an account, ValueError for a target that is none.
        """
        if self._rest is None:
            raise Unsupported("transfers need account_sid and auth_token under [twilio]")
        document = twiml.dial(target)
        try:
            await self._rest.update_call(call_sid, twiml=document)
        except TwilioError as error:
            return Transferred(False, error.status or None, str(error)[:MAX_FACT])
        return Transferred(True, 200)

    # ---- calls of ours ----

    async def dial(
        self,
        to: str,
        caller: str,
        agent_name: str,
        agent: Agent,
        *,
        timeout_s: float,
        machine_detection: bool = False,
    ) -> Call:
        """Have Twilio call `to` (E.164 or a SIP URI) and connect the answer to an agent.

        Raises NoRoom, TwilioError where Twilio refuses, ValueError for a target that it would not
        take, Unsupported without an account.
        """
        if self._rest is None:
            raise Unsupported("calls over Twilio need account_sid and auth_token under [twilio]")
        switchboard = self._switchboard
        if (why := switchboard.full or switchboard.exhausted(to, None)) is not None:
            raise NoRoom(why)
        self._dialling += 1
        try:
            # Whoever asked may give up; the telephone rings all the same, so that the call has to
            # be known here.
            with trio.move_on_after(DIAL_S, shield=True):
                made = await self._rest.create_call(
                    to,
                    caller,
                    url=self._base_url() + VOICE_PATH,
                    status_callback=self._base_url() + STATUS_PATH,
                    status_callback_event=("answered", "completed"),
                    timeout_s=round(timeout_s),
                    machine_detection="Enable" if machine_detection else None,
                )
                return await self._dialled(made.sid, to, caller, agent_name, agent, timeout_s)
            raise TwilioError(f"Twilio did not answer within {DIAL_S:.0f} s")
        finally:
            self._dialling -= 1
            self._named.unpark_all()

    async def _dialled(
        self,
        call_sid: str,
        to: str,
        caller: str,
        agent_name: str,
        agent: Agent,
        timeout_s: float,
    ) -> Call:
        facts = CallFacts(
            call_id=new_call_id(),
            carrier="twilio",
            carrier_call_id=call_sid,
            caller=caller[:MAX_FACT],
            called=to[:MAX_FACT],
            direction="outbound",
        )
        try:
            call = self._switchboard.start(
                facts,
                agent_name,
                agent,
                PCMU_8K,
                media_timeout_s=timeout_s + ANSWER_GRACE_S,
                released=partial(self._hung_up, call_sid),
            )
        except NoRoom:  # while Twilio was asked
            await self._complete(call_sid)
            raise
        self._calls[call_sid] = call
        return call

    async def _hung_up(self, call_sid: str, call: Call) -> None:
        is_over = call_sid in self._over
        await self._released(call_sid, call)
        if not (is_over or call.has_media):  # it may still ring, and nobody else would stop it
            await self._complete(call_sid)

    async def _complete(self, call_sid: str) -> None:
        assert self._rest is not None
        try:
            await self._rest.update_call(call_sid, status="completed")
        except TwilioError as error:
            if not error.call_is_over:
                log.warning(
                    "carrier did not take the hang-up",
                    carrier_call=call_sid,
                    why=str(error)[:MAX_FACT],
                )
