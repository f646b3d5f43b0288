"""What operators ask of the daemon: `voiced.web.operations.Operations` over what is running."""

from __future__ import annotations

import time
from typing import Any

import structlog
import trio

from voiced.call import Call
from voiced.config.types import Agent
from voiced.engine import ModelState
from voiced.leg import Unsupported
from voiced.rtp.socket import NoPortsLeft
from voiced.sip.errors import SipError
from voiced.sip.hosts import ResolveError
from voiced.sip.identity import is_number, uri_of
from voiced.sipservice import SipService
from voiced.switchboard import NoRoom, Switchboard
from voiced.trunks import TrunkState
from voiced.twilio.rest import TwilioError
from voiced.twiliocalls import TwilioCalls
from voiced.web.operations import (
    BanView,
    CallView,
    DialRequest,
    OperationRefused,
    Readiness,
    Said,
    TransferResult,
    TrunkView,
    ambiguous,
    by_prefix,
    no_such_call,
)

__all__ = ["DaemonOperations"]

log = structlog.get_logger("voiced.operations")

TWILIO = "twilio"


class DaemonOperations:
    """The daemon as its operator sees it; see the protocol for each method."""

    def __init__(
        self, switchboard: Switchboard, twilio: TwilioCalls, sip: SipService | None
    ) -> None:
        self._switchboard = switchboard
        self._twilio = twilio
        self._sip = sip

    # ---- what there is

    def live(self) -> list[CallView]:
        """See `Operations`."""
        return [_view(call) for call in self._switchboard]

    def find(self, text: str) -> CallView | None:
        """See `Operations`."""
        return by_prefix(self.live(), text)

    async def journal(self, limit: int) -> list[dict[str, Any]]:
        """See `Operations`."""
        return await trio.to_thread.run_sync(self._switchboard.services.journal.calls, limit)

    async def journalled(self, text: str) -> dict[str, Any] | None:
        """See `Operations`."""
        journal = self._switchboard.services.journal
        if text == "last":
            rows = await trio.to_thread.run_sync(journal.calls, 1)
        else:
            rows = await trio.to_thread.run_sync(journal.call, text)
        if len(rows) > 1:
            raise ambiguous(text)
        return rows[0] if rows else None

    def trunks(self) -> list[TrunkView]:
        """See `Operations`."""
        views = [] if self._sip is None else self._sip.trunks.views()
        if self._switchboard.setup.config.twilio.auth_token is not None:
            calls = sum(call.facts.carrier == TWILIO for call in self._switchboard)
            views.append(TrunkView(name=TWILIO, kind="twilio", calls=calls))
        return views

    def bans(self) -> list[BanView]:
        """See `Operations`."""
        if self._sip is None:
            return []
        began = time.time() - trio.current_time()
        return [
            BanView(source=source, until=began + until)
            for source, until in self._sip.trunks.bans().items()
        ]

    def ready(self) -> Readiness:
        """See `Operations`."""
        full = self._switchboard.full
        why = {"draining": "draining", "max_calls": "full"}
        return Readiness(
            ready=full is None,
            reasons=() if full is None else (why[full],),
            degraded=() if self._sip is None else tuple(self._sip.trunks.degraded()),
            calls=len(self._switchboard),
            max_calls=self._switchboard.setup.config.daemon.max_calls,
        )

    # ---- what is done with a call

    def _call(self, call_id: str) -> Call:
        call = self._switchboard.get(call_id)
        if call is None:
            raise no_such_call(call_id)
        return call

    def hangup(self, call_id: str, reason: str) -> None:
        """See `Operations`."""
        self._call(call_id).end(reason)

    def say(self, call_id: str, text: str, exactly: bool) -> None:
        """See `Operations`."""
        call = self._call(call_id)
        if call.record.model_state is not ModelState.READY:
            raise OperationRefused("no_model", 409, "the model is not connected", "try again")
        try:
            call.say(text, exactly=exactly)
        except Unsupported as error:
            raise OperationRefused("no_media", 409, str(error)) from None

    async def transfer(self, call_id: str, to: str) -> TransferResult:
        """See `Operations`."""
        call = self._call(call_id)
        try:
            outcome = await call.transfer(to)
        except ValueError as error:
            raise _bad_target(error) from None
        except Unsupported as error:
            raise OperationRefused("unsupported", 409, str(error)) from None
        return TransferResult(done=outcome.done, status=outcome.status, text=outcome.text)

    def digits(self, call_id: str, digits: str) -> None:
        """See `Operations`."""
        try:
            self._call(call_id).send_digits(digits)
        except Unsupported as error:
            raise OperationRefused("unsupported", 409, str(error)) from None

    # ---- calls of ours

    async def dial(self, request: DialRequest) -> str:
        """See `Operations`."""
        name, agent = self._agent(request.agent)
        trunk = self._route(request)
        try:
            if trunk == TWILIO:
                call = await self._dial_twilio(request, name, agent)
            else:
                assert self._sip is not None
                assert not isinstance(trunk, str)
                call = await self._sip.dial(
                    request.to,
                    trunk,
                    name,
                    agent,
                    caller=request.caller,
                    headers=request.headers,
                    timeout_s=request.timeout_s,
                )
        except ValueError as error:
            raise _bad_target(error) from None
        except NoRoom as error:
            code = "draining" if error.why == "draining" else "full"
            raise OperationRefused(code, 503, f"no call can be placed: {error.why}") from None
        except TwilioError as error:
            raise OperationRefused("carrier_refused", 502, str(error)) from None
        except Unsupported as error:
            raise OperationRefused("no_trunk", 422, str(error)) from None
        except ResolveError as error:
            raise OperationRefused("unreachable", 502, str(error), "check the name") from None
        except (NoPortsLeft, OSError, SipError) as error:
            raise OperationRefused("carrier_refused", 502, str(error)) from None
        return call.facts.call_id

    def _agent(self, name: str | None) -> tuple[str, Agent]:
        agents = self._switchboard.setup.config.agent
        if name is None:
            if len(agents) > 1:
                remedy = f"name one of {', '.join(sorted(agents))}"
                raise OperationRefused("unknown_agent", 422, "there are several agents", remedy)
            name = next(iter(agents))
        if name not in agents:
            remedy = f"use one of {', '.join(sorted(agents))}"
            raise OperationRefused("unknown_agent", 422, f"there is no agent {name}", remedy)
        return name, agents[name]

    def _route(self, request: DialRequest) -> TrunkState | str | None:
        """The trunk to use, `twilio`, or None for a SIP address that is no trunk's."""
        trunks = None if self._sip is None else self._sip.trunks
        if request.trunk == TWILIO:
            return TWILIO
        if request.trunk is not None:
            found = None if trunks is None else trunks.get(request.trunk)
            if found is None:
                names = [TWILIO] if trunks is None else [TWILIO, *(each.name for each in trunks)]
                raise OperationRefused(
                    "unknown_trunk",
                    422,
                    f"there is no trunk {request.trunk}",
                    f"use one of {', '.join(names)}",
                )
            return found
        if trunks is None:
            if self._switchboard.setup.config.twilio.auth_token is None:
                remedy = "set up [sip] with a [[sip.trunk]], or [twilio]"
                raise OperationRefused("no_trunk", 422, "nothing here can place calls", remedy)
            return TWILIO
        if not is_number(request.to) and not request.to.lower().startswith("tel:"):
            try:
                return trunks.at(uri_of(request.to, "").host)
            except ValueError as error:
                raise _bad_target(error) from None
        first = trunks.first()
        if first is None:
            remedy = "add a [[sip.trunk]], or call a sip: address"
            raise OperationRefused("no_trunk", 422, "no trunk takes telephone numbers", remedy)
        return first

    async def _dial_twilio(self, request: DialRequest, name: str, agent: Agent) -> Call:
        caller = request.caller or self._switchboard.setup.config.twilio.caller_id
        if caller is None:
            remedy = "set caller_id under [twilio], or give --from"
            raise OperationRefused("no_caller", 422, "Twilio wants a number to call from", remedy)
        return await self._twilio.dial(
            request.to,
            caller,
            name,
            agent,
            timeout_s=request.timeout_s,
            machine_detection=request.machine_detection,
        )


def _bad_target(error: ValueError) -> OperationRefused:
    remedy = 'write "+4930…" or "sip:user@host"'
    return OperationRefused("bad_target", 422, str(error), remedy)


def _view(call: Call) -> CallView:
    facts, record = call.facts, call.record
    return CallView(
        id=facts.call_id,
        carrier=facts.carrier,
        carrier_call_id=facts.carrier_call_id,
        trunk=facts.trunk,
        direction=facts.direction,
        caller=facts.caller,
        called=facts.called,
        agent=record.row.agent,
        engine=record.row.engine,
        model=record.row.model,
        state=record.state.value,
        model_state=record.model_state.value,
        since=record.state_since,
        started_at=record.row.started_at,
        duration_s=round(time.time() - record.row.started_at, 3),
        statistics=call.statistics(),
        parameters=facts.parameters,
        transcript=tuple(
            Said("caller" if entry.role == "caller" else "agent", entry.text, entry.cut)
            for entry in record.transcript.entries()
        ),
    )
