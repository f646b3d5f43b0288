"""Placing calls for an operator: by whom, over what, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voiced.call import Call
from voiced.config.types import Agent
from voiced.leg import Unsupported
from voiced.switchboard import NoRoom, Switchboard
from voiced.twilio.errors import TwilioError
from voiced.twiliocalls import TwilioCalls
from voiced.web.operations import TWILIO, DialRequest, OperationRefused, bad_target

if TYPE_CHECKING:  # some megabytes, loaded where there is [sip]
    from voiced.sipservice import SipService
    from voiced.trunks import TrunkState

__all__ = ["Dialler"]


class Dialler:
    """Chooses agent and carrier of a call, and says in an operator's words what is in the way."""

    def __init__(
        self, switchboard: Switchboard, twilio: TwilioCalls, sip: SipService | None
    ) -> None:
        self._switchboard = switchboard
        self._twilio = twilio
        self._sip = sip

    async def dial(self, request: DialRequest) -> Call:
        """Begin a call. Raises OperationRefused."""
        name, agent = self._agent(request.agent)
        trunk = self._route(request)
        try:
            if trunk == TWILIO:
                call = await self._dial_twilio(request, name, agent)
            else:
                assert not isinstance(trunk, str)
                call = await self._dial_sip(request, trunk, name, agent)
        except ValueError as error:
            raise bad_target(error) from None
        except NoRoom as error:
            code = "draining" if error.why == "draining" else "full"
            raise OperationRefused(code, 503, f"no call can be placed: {error.why}") from None
        except TwilioError as error:
            raise OperationRefused("carrier_refused", 502, str(error)) from None
        except Unsupported as error:
            raise OperationRefused("no_trunk", 422, str(error)) from None
        except OSError as error:
            raise OperationRefused("carrier_refused", 502, str(error)) from None
        return call

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
        from voiced.sip.identity import is_number, uri_of

        if not is_number(request.to) and not request.to.lower().startswith("tel:"):
            try:
                return trunks.at(uri_of(request.to, ""))
            except ValueError as error:
                raise bad_target(error) from None
        first = trunks.first()
        if first is None:
            remedy = "add a [[sip.trunk]], or call a sip: address"
            raise OperationRefused("no_trunk", 422, "no trunk takes telephone numbers", remedy)
        return first

    async def _dial_sip(
        self, request: DialRequest, trunk: TrunkState | None, name: str, agent: Agent
    ) -> Call:
        from voiced.rtp.socket import NoPortsLeft
        from voiced.sip.errors import SipError
        from voiced.sip.hosts import ResolveError

        assert self._sip is not None
        try:
            return await self._sip.dial(
                request.to,
                trunk,
                name,
                agent,
                caller=request.caller,
                headers=request.headers,
                timeout_s=request.timeout_s,
            )
        except ResolveError as error:
            raise OperationRefused("unreachable", 502, str(error), "check the name") from None
        except (NoPortsLeft, OSError, SipError) as error:
            raise OperationRefused("carrier_refused", 502, str(error)) from None

    async def _dial_twilio(self, request: DialRequest, name: str, agent: Agent) -> Call:
        caller = request.caller or self._switchboard.setup.config.twilio.caller_id
        if caller is None:
            remedy = "set caller_id under [twilio], or give --from"
            raise OperationRefused("no_caller", 422, "Twilio wants a number to call from", remedy)
        if request.headers:
            remedy = "call through a SIP trunk, or leave them out"
            raise OperationRefused("bad_target", 422, "Twilio passes no headers on", remedy)
        return await self._twilio.dial(
            request.to,
            caller,
            name,
            agent,
            timeout_s=request.timeout_s,
            machine_detection=request.machine_detection,
        )
