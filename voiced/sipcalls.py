"""Calls that come and go over SIP: from an INVITE to a call of the switchboard, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import trio

from voiced.call import Call
from voiced.config import Asked, number_for
from voiced.config.types import Agent, Number, Sip, Trunk
from voiced.leg import CallFacts
from voiced.rtp.socket import NoPortsLeft, RtpHub
from voiced.rtp.stream import MediaStream
from voiced.sip.agent import UserAgent
from voiced.sip.audio import AudioPlan, CallAudio, bind_address, resting
from voiced.sip.bodies import sdp_of
from voiced.sip.digest import Authenticator
from voiced.sip.errors import ParseError
from voiced.sip.events import Ended, Progress
from voiced.sip.identity import parties, uri_of
from voiced.sip.leg import SipLeg
from voiced.sip.media import LocalMedia
from voiced.sip.transport import Flow, Target
from voiced.sip.uas import ServerSession
from voiced.sip.uri import NameAddr, SipUri
from voiced.switchboard import MAX_FACT, NoRoom, Switchboard, bounded, fact, new_call_id

__all__ = ["CONTACT_USER", "Line", "SipCalls", "no_answer_reason"]

CONTACT_USER: Final = "voiced"
"""User part of our Contact: a trunk that sends a call there has the number in To."""

ANSWER_GRACE_S: Final = 5.0  # from the end of ringing to the news of it
RETRY_AFTER_S: Final = 10


@dataclass(slots=True)
class Line:
    """A trunk as calls see it."""

    trunk: Trunk
    calls: set[str] = field(default_factory=set)  # ids of live ones

    @property
    def name(self) -> str:
        """Of the trunk."""
        return self.trunk.name

    @property
    def full(self) -> bool:
        """As many calls as the operator lets it have."""
        return self.trunk.max_calls is not None and len(self.calls) >= self.trunk.max_calls


class SipCalls:
    """Makes calls of sessions. `show_address` gives the host that a peer is told, for SDP."""

    def __init__(
        self,
        sip: Sip,
        switchboard: Switchboard,
        hub: RtpHub,
        show_address: Callable[[Target | Flow], str],
    ) -> None:
        self._sip = sip
        self._switchboard = switchboard
        self._hub = hub
        self._show_address = show_address

    # ---- calls to us

    def invited(
        self, session: ServerSession, flow: Flow, line: Line, own_users: Sequence[str]
    ) -> None:
        """A trunk calls: answer it, or refuse with what it may act on."""
        request = session.request
        refusal = self._refusal(line)
        if refusal is not None:
            why, status = refusal
            self._switchboard.refuse(why, request.call_id, trunk=line.name)
            headers = [("Retry-After", str(RETRY_AFTER_S))] if status == 503 else []
            session.reject(status, headers=headers)
            return
        try:
            who = parties(request, own_users)
        except ParseError as error:
            self._switchboard.refuse("malformed", request.call_id, trunk=line.name)
            session.reject(error.status)
            return
        asked = Asked(
            who.called,
            also=who.called_uri,
            caller=who.caller,
            trunk=line.name,
            headers=who.headers,
        )
        found = number_for(self._switchboard.setup.config, asked)
        if found is None:
            self._switchboard.refuse("no number matches", request.call_id, trunk=line.name)
            session.reject(404)
            return
        if (cap := self._switchboard.exhausted(who.called, found[0])) is not None:
            self._switchboard.refuse(cap, request.call_id, trunk=line.name)
            session.reject(486)  # another server of ours has the same caps
            return
        facts = CallFacts(
            call_id=new_call_id(),
            carrier="sip",
            carrier_call_id=fact(request.call_id),
            caller=fact(who.caller),
            called=fact(who.called),
            parameters=bounded(who.headers),
            trunk=line.name,
        )
        try:
            # An offer decides the codec, and with it the call's format; without one ours does.
            audio = self._audio(flow, line.trunk, offers=sdp_of(request) is None)
        except (NoPortsLeft, OSError) as error:
            self._switchboard.refuse("no RTP ports", request.call_id, error=str(error))
            session.reject(503, headers=[("Retry-After", str(RETRY_AFTER_S))])
            return
        self._answer(
            session, _Inbound(self, facts, found[0].agent, found[1], audio, line, found[0])
        )

    def _refusal(self, line: Line) -> tuple[str, int] | None:
        full = self._switchboard.full
        if full is not None:
            return full, 503  # another server may take it
        if line.full:
            return "trunk max_calls", 486  # the operator's own limit holds on every server
        return None

    def _answer(self, session: ServerSession, incoming: _Inbound) -> None:
        leg = incoming.leg
        leg.session = session
        session.observer = leg
        session.media = incoming.audio
        if self._sip.ringing:
            # A 180 that must be acknowledged delays the answer: it has the description, so that
            # the call's format is known now.
            session.ring(early_media="100rel" in session.request.require)
        session.accept()
        if incoming.ended is not None:
            # No common codec, most likely; the session has answered and the ports are closed.
            self._switchboard.refuse(
                incoming.ended.reason.replace("_", " "),
                session.call_id,
                trunk=incoming.line.name,
                text=fact(incoming.ended.text),
            )
            return
        try:
            incoming.start(self._switchboard)
        except NoRoom as error:  # asked a moment ago; kept for the day when that changes
            self._switchboard.refuse(error.why, session.call_id, trunk=incoming.line.name)
            session.bye()

    def _audio(self, to: Target | Flow, trunk: Trunk, *, offers: bool) -> CallAudio:
        """Ports and stream of a call; `offers`: its format is fixed before anything is agreed."""
        shown = self._show_address(to)
        pair = self._hub.open(bind_address(shown))
        try:
            stream = MediaStream(
                pair,
                now=trio.current_time,
                reorder_ms=self._sip.reorder_ms,
                first_timeout_s=self._sip.rtp_timeout_s,
                timeout_s=self._sip.rtp_timeout_s,
            )
            pair.sink = stream
            if offers:
                stream.configure(resting(trunk.codecs[0]))
        except BaseException:
            pair.close()
            raise
        plan = AudioPlan(codecs=trunk.codecs, srtp=trunk.srtp)
        return CallAudio(stream, LocalMedia(shown, pair.rtp_port, pair.rtcp_port), plan)

    # ---- calls of ours

    def dial(
        self,
        agent: UserAgent,
        to: SipUri,
        targets: Sequence[Target],
        from_: NameAddr,
        line: Line,
        agent_name: str,
        talker: Agent,
        *,
        authenticator: Authenticator | None,
        headers: Mapping[str, str],
        timeout_s: float,
        called: str,
    ) -> Call:
        """Call `to` and have an agent talk to whoever answers.

        Raises NoRoom, NoPortsLeft or OSError.
        """
        if line.full:
            raise NoRoom("trunk max_calls")
        switchboard = self._switchboard
        if (why := switchboard.full or switchboard.exhausted(called, None)) is not None:
            raise NoRoom(why)
        audio = self._audio(targets[0], line.trunk, offers=True)
        facts = CallFacts(
            call_id=new_call_id(),
            carrier="sip",
            carrier_call_id="",
            caller=fact(getattr(from_.uri, "user", None) or str(from_.uri)),
            called=fact(called),
            direction="outbound",
            parameters=bounded(headers),
            trunk=line.name or None,
        )
        outgoing = _Outbound(self, facts, agent_name, talker, audio, line)
        try:
            session = agent.invite(
                to,
                targets=targets,
                from_=from_,
                headers=list(headers.items()),
                media=audio,
                observer=outgoing.leg,
                peer=line.name,
                authenticator=authenticator,
                timeout_s=timeout_s,
            )
        except BaseException:  # nobody else would give the ports back
            audio.stream.close()
            raise
        outgoing.leg.session = session
        outgoing.name(session.call_id)
        return outgoing.start(self._switchboard, media_timeout_s=timeout_s + ANSWER_GRACE_S)

    def refer_to(self, domain: str, target: str) -> str:
        """The Refer-To URI of a transfer; raises ValueError."""
        return str(uri_of(target, domain))


class _Attempt:
    """Ties a leg to its call, whichever of the two comes or goes first."""

    def __init__(
        self,
        calls: SipCalls,
        facts: CallFacts,
        agent_name: str,
        agent: Agent,
        audio: CallAudio,
        line: Line,
        number: Number | None = None,
    ) -> None:
        self.facts = facts
        self.number = number
        self.agent_name = agent_name
        self.agent = agent
        self.audio = audio
        self.line = line
        self.call: Call | None = None
        self.ended: Ended | None = None
        self._is_up = False
        self.leg = SipLeg(
            audio,
            partial(calls.refer_to, line.trunk.host),
            up=self._up,
            over=self._over,
            progress=self._progress,
        )

    def start(self, switchboard: Switchboard, *, media_timeout_s: float | None = None) -> Call:
        """Make the call. Raises NoRoom."""
        call = self.call = switchboard.start(
            self.facts,
            self.agent_name,
            self.agent,
            self.audio.stream.format,
            number=self.number,
            released=self._released,
            media_timeout_s=media_timeout_s,
        )
        self.line.calls.add(self.facts.call_id)
        if self._is_up:
            call.attach(self.leg)
        elif self.ended is not None:
            call.end(self._reason(self.ended))
        return call

    def _up(self) -> None:
        self._is_up = True
        if self.call is not None and self.call.awaits_leg:
            self.call.attach(self.leg)

    def _over(self, ended: Ended) -> None:
        self.ended = ended
        if self.call is not None and not self._is_up:
            self.call.end(self._reason(ended))  # otherwise the leg says it in its turn

    def _reason(self, ended: Ended) -> str:
        raise NotImplementedError

    def _progress(self, event: Progress) -> None:
        """Only outgoing calls make progress."""

    async def _released(self, call: Call) -> None:
        """The call is over: so is its session, and the ports are free."""
        self.line.calls.discard(self.facts.call_id)
        await self.leg.hang_up()


class _Inbound(_Attempt):
    def _reason(self, ended: Ended) -> str:
        return "caller_cancelled" if ended.reason in ("remote_bye", "cancelled") else ended.reason


class _Outbound(_Attempt):
    _rings = False

    def name(self, call_id: str) -> None:
        """The Call-ID, known once the INVITE is made."""
        self.facts = replace(self.facts, carrier_call_id=call_id[:MAX_FACT])

    def _progress(self, event: Progress) -> None:
        if event.status in (180, 183) and not self._rings:
            self._rings = True
            if self.call is not None:
                self.call.record.log.info("ringing", status=event.status)

    def _reason(self, ended: Ended) -> str:
        return no_answer_reason(ended, rings=self._rings)


def no_answer_reason(ended: Ended, *, rings: bool) -> str:
    """The journal's word for an outgoing call that was not answered (RFC 3261 section 21)."""
    match ended.reason, ended.status:
        case "rejected", 486 | 600:
            return "busy"
        case "rejected", 403 | 603 | 607 | 608:
            return "declined"
        case "rejected", 408 | 480 | 487:
            return "no_answer"
        case "rejected", 404 | 410 | 484 | 604:
            return "unreachable"
        case "rejected", 401 | 407:
            return "unauthorized"
        case "timeout", _:
            return "no_answer" if rings else "timeout"
        case "cancelled", _:
            return "no_answer"
        case "transport", _:
            return "unreachable"
        case "media_refused", _:
            return "media_refused"
    return "carrier_error"
