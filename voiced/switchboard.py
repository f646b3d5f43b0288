"""Admits calls: slots, numbers, agents, stream tokens; owns the nursery in which calls run."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from voiced import metrics
from voiced.call import Call, Services
from voiced.config import Asked, number_for
from voiced.config.types import Config, EmulatorEngine
from voiced.engine import Engine
from voiced.formats import PCMU_8K
from voiced.leg import CallFacts
from voiced.twilio.tokens import MEDIA_PATH, StreamTokens, TokensExhausted
from voiced.web.switchboard import Admitted, CallStatus, Refused, StreamStatus, VoiceRequest

__all__ = ["Setup", "Switchboard"]

log = structlog.get_logger("voiced.switchboard")

MAX_FACT: Final = 256  # characters of anything that a carrier says about a call

COLLECT_AFTER: Final = 50  # ended calls, 100 KB each, that may wait to be collected

# What Twilio says of a call that is over (twilio-media-streams section 9).
_OVER: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})


@dataclass(frozen=True, slots=True)
class Setup:
    """What new calls are made with; a reload replaces it, live calls keep theirs."""

    config: Config
    engines: Mapping[str, Engine]


class Switchboard:
    """The calls of a daemon."""

    def __init__(self, setup: Setup, services: Services) -> None:
        self.setup = setup
        self.services = services
        self._tokens = StreamTokens(
            trio.current_time, capacity=max(1024, 2 * setup.config.daemon.max_calls)
        )
        self._calls: dict[str, Call] = {}  # by carrier_call_id
        self.nursery: trio.Nursery | None = None
        """Where calls run; without one none is admitted."""
        self._uncollected = 0  # calls that have ended since the last collection
        self._draining = False
        self._idle = trio.Event()

    def __len__(self) -> int:
        return len(self._calls)

    # ---- the carrier's webhooks ----

    async def admit(self, request: VoiceRequest) -> Admitted | Refused:
        """Take a call, or say why not. A webhook that is repeated finds its call again."""
        known = self._calls.get(request.call_sid)
        call = known or self._make(request)
        if isinstance(call, Call):
            try:
                return Admitted(f"{MEDIA_PATH}{self._tokens.mint(request.call_sid)}")
            except TokensExhausted:
                call.end("no_stream_token")
                call = Refused("no stream token")
        metrics.REFUSED.labels("call", call.reason).inc()
        log.warning("call refused", why=call.reason, carrier_call=request.call_sid[:MAX_FACT])
        return call

    def _make(self, request: VoiceRequest) -> Call | Refused:
        config = self.setup.config
        if self._draining or self.nursery is None:
            return Refused("draining", "error")  # 503: the carrier may try another server
        if len(self._calls) >= config.daemon.max_calls:
            return Refused("max_calls")
        account = config.twilio.account_sid
        if account and request.account_sid != account:
            return Refused("wrong account", "rejected")
        found = number_for(
            config,
            Asked(
                request.called,
                caller=request.caller,
                trunk="twilio",
                headers=request.parameters,
            ),
        )
        if found is None:
            return Refused("no number matches", "rejected")
        name, agent = found[0].agent, found[1]
        engine = config.engine[agent.engine]
        call = Call(
            CallFacts(
                call_id=secrets.token_hex(8),
                carrier="twilio",
                carrier_call_id=request.call_sid[:MAX_FACT],
                caller=request.caller[:MAX_FACT],
                called=request.called[:MAX_FACT],
                direction=request.direction,
                parameters=request.parameters,
            ),
            name,
            agent,
            self.setup.engines[agent.engine],
            "emulator" if isinstance(engine, EmulatorEngine) else engine.model,
            PCMU_8K,
            self.services,
        )
        self._calls[request.call_sid] = call
        self.nursery.start_soon(self._run_call, request.call_sid, call)
        return call

    async def _run_call(self, key: str, call: Call) -> None:
        """Run one call; whatever goes wrong in it ends it alone."""
        try:
            await call.run()
        except Exception:
            call.record.log.exception("call failed: a bug of voiced, please report it")
        finally:
            self._tokens.revoke(key)
            del self._calls[key]
            self._uncollected += 1
            if not self._calls or self._uncollected >= max(len(self._calls), COLLECT_AFTER):
                # What calls leave are cycles (tasks, scopes, exceptions); the daemon has told the
                # collector to leave old ones to us. A collection costs as much as calls are alive.
                self._uncollected = 0
                gc.collect()
            if not self._calls:
                self._idle.set()

    def stream_status(self, status: StreamStatus) -> None:
        """A stream error is logged beside the call; the stream itself says when it is over."""
        if status.event == "stream-error":
            call = self._calls.get(status.call_sid)
            logger = log if call is None else call.record.log
            logger.warning("carrier reports a stream error", error=(status.error or "")[:MAX_FACT])

    def call_status(self, status: CallStatus) -> None:
        """A call that is over at the carrier before its stream came is given up at once."""
        call = self._calls.get(status.call_sid)
        if call is not None and status.status in _OVER:
            word = status.status.replace("-", "_")
            call.end("caller_hangup" if word == "completed" else f"carrier_{word}")

    # ---- the carrier's streams ----

    def expects(self, path: str) -> bool:
        """Whether `path` holds a token that `claim` would take."""
        return self._tokens.holds_path(path)

    def claim(self, path: str) -> Call | None:
        """The call whose one-time token stands in `path`, used up with this; None without one."""
        call_sid = self._tokens.redeem_path(path)
        return None if call_sid is None else self._calls.get(call_sid)

    # ---- shutting down ----

    async def drain(self, limit_s: float, goodbye_s: float) -> None:
        """Take no new calls; wait for the live ones, then say farewell, then cut what is left."""
        self._draining = True
        if self._calls:
            log.info("draining", calls=len(self._calls), limit_s=limit_s)
        with trio.move_on_after(limit_s):
            await self._emptied()
        for call in self._calls.values():
            if call.has_media:
                call.wind_down("shutdown", "farewell")
            else:  # nobody is there to hear it
                call.end("shutdown")
        with trio.move_on_after(goodbye_s):
            await self._emptied()
        for call in self._calls.values():
            call.end("shutdown")

    async def _emptied(self) -> None:
        while self._calls:
            self._idle = trio.Event()
            await self._idle.wait()
