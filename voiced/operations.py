"""What operators ask of the daemon: `voiced.web.operations.Operations` over what is running."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from voiced.call import Call
from voiced.engine import ModelState
from voiced.journal_file import remedy
from voiced.leg import Unsupported
from voiced.switchboard import Switchboard
from voiced.web.operations import (
    LAST,
    TWILIO,
    BanView,
    CallView,
    DialRequest,
    EngineView,
    OperationRefused,
    Readiness,
    Said,
    TransferResult,
    TrunkView,
    ambiguous,
    bad_target,
    by_prefix,
    no_such_call,
)

if TYPE_CHECKING:
    from voiced.sipservice import SipService
    from voiced.twiliocalls import TwilioCalls

__all__ = ["DaemonOperations"]


class DaemonOperations:
    """The daemon as its operator sees it; see the protocol for each method."""

    def __init__(
        self,
        switchboard: Switchboard,
        twilio: TwilioCalls,
        sip: SipService | None,
        health: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
    ) -> None:
        """`health` gives each engine's, as `Engines.health` does."""
        self._health = health
        self._switchboard = switchboard
        self._twilio = twilio
        self._sip = sip

    # ---- what there is

    def live(self) -> list[CallView]:
        """See `Operations`."""
        return [_view(call) for call in self._switchboard]

    def find(self, text: str) -> CallView | None:
        """See `Operations`."""
        # A view adds up a call's figures and words: made of those alone that may be meant.
        calls = [
            call
            for call in self._switchboard
            if text == LAST or call.facts.call_id.startswith(text)
        ]
        if text == LAST:
            calls = sorted(calls, key=lambda call: call.record.row.started_at)[-1:]
        return by_prefix(map(_view, calls), text)

    async def journal(self, limit: int) -> list[dict[str, Any]]:
        """See `Operations`."""
        return await self._read(self._switchboard.services.journal.calls, limit)

    async def _read(
        self, read: Callable[..., list[dict[str, Any]]], what: int | str
    ) -> list[dict[str, Any]]:
        """Read the journal; a file that cannot be used is no bug of ours."""
        try:
            return await trio.to_thread.run_sync(read, what)
        except (OSError, sqlite3.Error) as error:
            path = self._switchboard.services.journal.path
            raise OperationRefused(
                "no_journal", 503, f"the journal cannot be read: {error}", remedy(error, path)
            ) from None

    async def journalled(self, text: str) -> dict[str, Any] | None:
        """See `Operations`."""
        journal = self._switchboard.services.journal
        if text == LAST:
            rows = await self._read(journal.calls, 1)
        else:
            rows = await self._read(journal.call, text)
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

    def engines(self) -> list[EngineView]:
        """See `Operations`."""
        return [
            msgspec.convert({"name": name, **health}, EngineView)
            for name, health in self._health().items()
        ]

    def _degraded(self) -> tuple[str, ...]:
        engines = [
            f"engine {each.name} does not answer ({each.last_error})"
            for each in self.engines()
            if each.state != "closed"
        ]
        return (*engines, *(() if self._sip is None else self._sip.trunks.degraded()))

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
            degraded=self._degraded(),
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
        if call.record.model_state not in (ModelState.READY, ModelState.FALLBACK):
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
            raise bad_target(error) from None
        except Unsupported as error:
            raise OperationRefused("unsupported", 409, str(error)) from None
        return TransferResult(done=outcome.done, status=outcome.status, text=outcome.text)

    def digits(self, call_id: str, digits: str) -> None:
        """See `Operations`."""
        try:
            self._call(call_id).send_digits(digits)
        except Unsupported as error:
            raise OperationRefused("unsupported", 409, str(error)) from None

    async def dial(self, request: DialRequest) -> str:
        """See `Operations`."""
        # Only who calls out needs SIP's and the REST API's modules, ten megabytes.
        from voiced.dialling import Dialler

        call = await Dialler(self._switchboard, self._twilio, self._sip).dial(request)
        return call.facts.call_id


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
        cost_usd=None if (usd := call.cost_usd) is None else round(usd, 6),
        facts=dict(record.row.facts),
        transcript=tuple(
            Said("caller" if entry.role == "caller" else "agent", entry.text, entry.cut)
            for entry in record.transcript.entries()
        ),
    )
