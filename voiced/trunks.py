"""The trunks: who may call over SIP, over which of them we call, and how each of them fares."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import structlog

from voiced import metrics
from voiced.config import parse_host
from voiced.config.types import Sip, Trunk
from voiced.sip.digest import Authenticator, Credentials, Verdict, Verifier
from voiced.sip.grammar import format_host
from voiced.sip.guard import Guard, is_scanner
from voiced.sip.message import Request, Response
from voiced.sip.policy import Admission, Admit, Drop, Refuse
from voiced.sip.registration import Registration
from voiced.sip.transport import Flow
from voiced.sip.uas import ServerSession
from voiced.sip.uri import NameAddr, SipUri, escape_user, parse_uri
from voiced.sipcalls import CONTACT_USER, RETRY_AFTER_S, Line, SipCalls
from voiced.switchboard import Switchboard
from voiced.web.operations import TrunkView

__all__ = ["TrunkState", "Trunks"]

log = structlog.get_logger("voiced.trunks")

REALM: Final = "voiced"
"""Of our challenges; a telephone is told this and its user name."""

TELL_S: Final = 1.0
"""Between two log lines about wrong passwords; whoever guesses them must not fill the disk."""


class TrunkState(Line):
    """A trunk while the daemon runs."""

    __slots__ = ("authenticator", "last_error", "reachable", "registration", "resolved")

    def __init__(self, trunk: Trunk) -> None:
        super().__init__(trunk)
        self.resolved: tuple[str, ...] = ()  # addresses of host and proxy
        self.registration: Registration | None = None
        self.reachable: bool | None = None
        self.last_error = ""
        self.authenticator = (
            Authenticator(Credentials(trunk.username, trunk.password))
            if trunk.username is not None and trunk.password is not None
            else None
        )

    @property
    def networks(self) -> tuple[str, ...]:
        """Where its calls come from."""
        return self.trunk.allow or self.resolved

    @property
    def domain(self) -> SipUri:
        """Its Request-URI without a user: registrar, and whom OPTIONS asks."""
        uri = parse_uri(f"sip:{self.trunk.host}")
        assert isinstance(uri, SipUri)
        return self._travelling(uri)

    @property
    def next_hop(self) -> SipUri:
        """Where its requests are sent."""
        if self.trunk.proxy is None:
            return self.domain
        uri = parse_uri(f"sip:{self.trunk.proxy}")
        assert isinstance(uri, SipUri)
        return self._travelling(uri)

    def _travelling(self, uri: SipUri) -> SipUri:
        if self.trunk.transport == "udp":
            return uri
        return uri.replace(parameters={**uri.parameters, "transport": self.trunk.transport})

    def address(self, user: str | None = None) -> NameAddr:
        """Our own address at the trunk: of record, and in From."""
        own = user or self.trunk.caller_id or self.trunk.username or CONTACT_USER
        host, _ = parse_host(self.trunk.host)
        uri = parse_uri(f"sip:{escape_user(own)}@{format_host(host)}")
        return NameAddr(None, uri, {})

    def view(self, now: Callable[[], float]) -> TrunkView:
        """What the operator sees. `now`: the clock of the registration's times."""
        registration = self.registration
        until = None if registration is None else registration.expires_at
        return TrunkView(
            name=self.name,
            registration=None if registration is None else registration.state,
            until=None if until is None else time.time() + until - now(),
            reachable=self.reachable,
            calls=len(self.calls),
            max_calls=self.trunk.max_calls,
            last_error=(registration.why if registration else "") or self.last_error or None,
        )


class Trunks:
    """Judges what comes in (a `voiced.sip.policy.Policy`). Nobody but a trunk is served.

    A request belongs to the trunk whose networks it comes from, or to the one that proves its user
    name by digest; from anywhere else it gets nothing, or 403. Nothing is ever passed on to third
    parties.
    """

    def __init__(
        self,
        sip: Sip,
        guard: Guard,
        switchboard: Switchboard,
        calls: SipCalls,
        now: Callable[[], float],
    ) -> None:
        self._guard = guard
        self._switchboard = switchboard
        self._calls = calls
        self._now = now
        self._forbid = sip.strangers == "forbid"
        self._states: dict[str, TrunkState] = {}
        self._verifier: Verifier | None = None
        self._passwords: dict[str, tuple[str, TrunkState]] = {}  # by user name
        self._flow: Flow | None = None  # of the request that is being judged
        self._tell_at = -math.inf  # when a wrong password may be logged again
        self.load(sip)

    def __iter__(self) -> Iterator[TrunkState]:
        return iter(self._states.values())

    def load(self, sip: Sip) -> list[TrunkState]:
        """Take the trunks of a configuration; those that stay as they are keep what they have.

        Returns those that are new or changed.
        """
        old = self._states
        self._states = {
            trunk.name: known
            if (known := old.get(trunk.name)) is not None and known.trunk == trunk
            else TrunkState(trunk)
            for trunk in sip.trunk
        }
        for name, state in self._states.items():
            if (before := old.get(name)) is not None and before is not state:
                state.calls = before.calls  # they count on, under the new limit
        self._forbid = sip.strangers == "forbid"
        asking = [state for state in self._states.values() if state.trunk.authenticate]
        algorithms = ["SHA-256" if state.trunk.digest == "sha-256" else "MD5" for state in asking]
        self._passwords = {
            state.trunk.username: (state.trunk.password, state)
            for state in asking
            if state.trunk.username is not None and state.trunk.password is not None
        }
        self._verifier = (
            Verifier(REALM, tuple(dict.fromkeys(algorithms)), self._now) if asking else None
        )
        self.allow()
        return [state for name, state in self._states.items() if old.get(name) is not state]

    def allow(self) -> None:
        """Put the networks of all trunks in force."""
        self._guard.set_allow(
            [(network, state.name) for state in self._states.values() for network in state.networks]
        )

    def get(self, name: str) -> TrunkState | None:
        """The trunk of that name."""
        return self._states.get(name)

    def at(self, uri: SipUri) -> TrunkState | None:
        """The first trunk whose domain `uri` names, its port included where either gives one."""
        for state in self._states.values():
            host, port = parse_host(state.trunk.host)
            if host.lower() == uri.host and uri.port in (None, port):
                return state
        return None

    def first(self) -> TrunkState | None:
        """The first trunk of the configuration."""
        return next(iter(self._states.values()), None)

    # ---- the policy

    def admit(self, request: Request, flow: Flow) -> Admission:
        """See `Policy`."""
        self._flow = flow
        source = flow.remote[0]
        name = self._guard.trunk_of(source)
        if name is not None and name in self._states:
            return Admit(name, self._states[name].authenticator)
        if is_scanner(request.headers.get("User-Agent") or ""):
            # Banned by this very request: whatever it were told, it would note that we are here.
            self._turn_away("scanner", request, source)
            return Drop()
        if self._verifier is not None:
            return self._challenge(self._verifier, request, source)
        return self._turn_away("stranger", request, source)

    def _challenge(self, verifier: Verifier, request: Request, source: str) -> Admission:
        result = verifier.verify(request, self._password)
        match result.verdict:
            case Verdict.OK:
                found = self._passwords.get(result.username or "")
                if found is not None:
                    self._guard.expect(source)  # from here on no stranger, whatever it sends
                    return Admit(found[1].name, found[1].authenticator)
            case Verdict.MISSING | Verdict.STALE:
                stale = result.verdict is Verdict.STALE
                self._guard.refused(source, "unauthenticated", request.headers.get("User-Agent"))
                challenges = verifier.challenge(stale=stale)
                return Refuse(401, [("WWW-Authenticate", value) for value in challenges])
        # The challenge has told that somebody is here: silence now would hide nothing, and keep
        # whoever mistyped a password waiting. A source that guesses is banned before long.
        if self._now() >= self._tell_at:
            self._tell_at = self._now() + TELL_S
            log.info("wrong user name or password", source=source)
        self._turn_away("credentials", request, source)
        return Refuse(403)

    def _password(self, username: str) -> str | None:
        found = self._passwords.get(username)
        return None if found is None else found[0]

    def _turn_away(self, why: str, request: Request, source: str) -> Admission:
        metrics.REFUSED.labels("sip", why).inc()
        self._guard.refused(source, why, request.headers.get("User-Agent"))
        return Refuse(403) if self._forbid else Drop()

    def busy(self) -> int | None:
        """See `Policy`."""
        return None if self._switchboard.full is None else RETRY_AFTER_S

    def on_invite(self, session: ServerSession) -> None:
        """See `Policy`."""
        state = self._states.get(session.peer)
        if state is None or self._flow is None:
            session.reject(403)
            return
        own = [CONTACT_USER]
        if state.trunk.username is not None:
            own.append(state.trunk.username)
        self._calls.invited(session, self._flow, state, own)

    # ---- how they fare

    def heard_from(self, state: TrunkState, response: Response | None) -> None:
        """A trunk answered OPTIONS, with anything at all, or did not."""
        reachable = response is not None
        if reachable is not state.reachable:
            (log.info if reachable else log.warning)(
                "trunk answers" if reachable else "trunk does not answer", trunk=state.name
            )
        state.reachable = reachable
        state.last_error = "" if reachable else "does not answer OPTIONS"

    def views(self) -> list[TrunkView]:
        """All of them, in the order of the configuration."""
        return [state.view(self._now) for state in self._states.values()]

    def degraded(self) -> list[str]:
        """What an operator should look at."""
        found = []
        for state in self._states.values():
            if state.registration is not None and not state.registration.registered:
                found.append(f"trunk {state.name} is not registered")
            elif state.reachable is False:
                found.append(f"trunk {state.name} does not answer")
        return found

    def bans(self) -> Mapping[str, float]:
        """Banned sources and until when, on the clock `now`."""
        return self._guard.banned()
