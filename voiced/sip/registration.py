"""Keeping one address of record registered (RFC 3261 section 10.2, RFC 3608).

A machine without a network: `find_targets` resolves the registrar for it, timers and requests go
through the transaction layer. It is meant to run for months, so it never gives up, and never
hammers: whatever fails is tried again after a wait that grows and is drawn at random.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from random import SystemRandom
from typing import Final, Literal, TypeAlias

import structlog

from voiced.sip.build import request
from voiced.sip.errors import ParseError
from voiced.sip.grants import Grant, read_grant
from voiced.sip.model import Response
from voiced.sip.outgoing import Attempt, Credentials, Outcome, send
from voiced.sip.timers import Timer
from voiced.sip.transactions import TransactionLayer
from voiced.sip.transport import Target
from voiced.sip.uri import NameAddr, SipUri

__all__ = ["FindTargets", "Registration", "RegistrationState"]

log = structlog.get_logger("voiced.sip")

RegistrationState: TypeAlias = Literal[
    "idle", "registering", "registered", "retrying", "failed", "unregistering", "unregistered"
]
FindTargets: TypeAlias = Callable[[Callable[[Sequence[Target]], None]], None]
"""Called with what takes the registrar's addresses, best first, now or later; none: unknown."""

BACKOFF_S: Final = (2.0, 300.0)
"""First and longest wait after a failure that may pass; it doubles in between."""

REFUSED_RETRY_S: Final = 600.0
"""Wait after a refusal that only an operator can mend: wrong password, unknown user. Registrars
lock accounts and ban addresses that try more often."""

LONGEST_RETRY_AFTER_S: Final = 3600.0
"""A registrar that asks for longer is asked once an hour anyhow."""

SHORTEST_LIFE_S: Final = 5.0
"""A binding that lives shorter is refreshed as if it lived that long."""

LONGEST_EXPIRES_S: Final = 86_400
"""A Min-Expires above a day is refused: the registrar would send calls to us long after our end."""

UNREGISTER_WAIT_S: Final = 4.0
"""How long `stop` waits for the registrar; the binding expires by itself."""

LOOK_UP_WAIT_S: Final = 30.0
"""How long `find_targets` may take; DNS has long given up by then."""

PATIENCE_S: Final = 8.0
"""How long an address may stay silent while the registrar has another."""

# Anything else from 300 up says that the same request would be refused again.
_PASSING: Final = frozenset({408, 429, 480, 482, 491, 500, 502, 503, 504, 580})


class Registration:
    """One binding of `contact` to `aor` at `registrar`.

    Attributes:
        state: "registering" is the first try or a new one after a failure, during which an older
            binding may still hold, see `expires_at`; a refresh stays "registered". "retrying" and
            "failed" both wait for their next try, "failed" because of a refusal, for long.
        expires_at: when our latest binding ends or ended, in seconds of the timers' clock; None:
            there is none. `registered` compares it with the clock.
        why: what the latest failure was, in words, for an operator; empty after a success.
        status: of the latest final response; None: there was none.
        next_at: when the next REGISTER is due; None: none is planned.
        service_route: the route that requests of this address of record are to take (RFC 3608).
        bindings: all contacts that the registrar named in its latest 2xx, ours included.
        changed: called, with nothing, after each change of these.
    """

    def __init__(
        self,
        layer: TransactionLayer,
        *,
        registrar: SipUri,
        aor: NameAddr,
        contact: SipUri | Callable[[Target], SipUri],
        find_targets: FindTargets,
        authenticator: Credentials | None = None,
        expires_s: int = 3600,
        headers: Sequence[tuple[str, str]] = (),
        random: Callable[[], float] | None = None,
        changed: Callable[[], None] = lambda: None,
        count: Callable[[str, str], None] = lambda event, detail: None,
    ) -> None:
        """Nothing is sent before `start`.

        Args:
            layer: sends the requests, owns the timers.
            registrar: the Request-URI, a domain without user part.
            aor: whose calls we want, To and From; a tag in it is ignored.
            contact: where we want them; a callable gets the address at which the registrar is
                tried first, to name the one of ours that faces it.
            find_targets: see `FindTargets`.
            authenticator: answers challenges.
            expires_s: asked for; the registrar may shorten it.
            headers: more for each REGISTER (User-Agent, X-…).
            random: from 0 to 1, for the waits; by default the system's.
            changed: see the attribute.
            count: gets ("registration", state) at each change of state.
        """
        self.state: RegistrationState = "idle"
        self.expires_at: float | None = None
        self.next_at: float | None = None
        self.why = ""
        self.status: int | None = None
        self.service_route: tuple[NameAddr, ...] = ()
        self.bindings: tuple[NameAddr, ...] = ()
        self.changed = changed
        self._layer = layer
        self._registrar = registrar
        self._aor = aor
        self._contact = contact
        self._our_contact: SipUri | None = None  # as last sent
        self._find_targets = find_targets
        self._authenticator = authenticator
        self._expires_s = expires_s
        self._headers = tuple(headers)
        self._random = random or SystemRandom().random
        self._count = count
        # RFC 3261 section 10.2: one Call-ID for all registrations of a UA, CSeq rising.
        self._call_id = secrets.token_hex(16)
        self._tag = secrets.token_hex(8)
        self._cseq = 0
        self._failures = 0
        self._too_brief = 0
        self._attempt: Attempt | None = None
        self._timer: Timer | None = None
        # Counts the searches and requests begun: what an older one brings is ignored.
        self._round = 0
        self._bound = False  # a REGISTER may have made a binding that nothing has removed

    @property
    def registered(self) -> bool:
        """Whether the registrar has a binding of ours that has not expired."""
        return self.expires_at is not None and self._layer.timers.now() < self.expires_at

    def start(self) -> None:
        """Register, and stay so until `stop`. Harmless when started."""
        if self.state in {"idle", "unregistering", "unregistered"}:
            self._failures = self._too_brief = 0
            self._begin("registering")

    def refresh(self) -> None:
        """Register now: our address has changed, a connection was lost, an operator asks for it."""
        if self.state in {"registered", "retrying", "failed"}:
            self._begin("registered" if self.state == "registered" else "registering")

    def stop(self) -> None:
        """Remove the binding; "unregistered" follows at once or within `UNREGISTER_WAIT_S`."""
        if self.state in {"unregistering", "unregistered"}:
            return
        self._calm()
        if not self._bound:
            self._gone()
            return
        self._become("unregistering")
        self._timer = self._layer.timers.call_later(UNREGISTER_WAIT_S, self._gone)
        self._look_up()

    # --- one REGISTER ---

    def _begin(self, state: RegistrationState) -> None:
        self._calm()
        self._become(state)
        self._look_up()

    def _calm(self) -> None:
        """Nothing is under way or planned after this."""
        self._round += 1
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.next_at = None

    def _look_up(self) -> None:
        mine = self._round
        if self.state != "unregistering":
            self._timer = self._layer.timers.call_later(LOOK_UP_WAIT_S, self._not_found)

        def found(targets: Sequence[Target]) -> None:
            if mine == self._round:
                self._register(targets)

        self._find_targets(found)

    def _not_found(self) -> None:
        self._round += 1
        self._passing(f"no address found for {self._registrar.host}", None)

    def _register(self, targets: Sequence[Target]) -> None:
        if not targets:
            self._not_found()
            return
        removing = self.state == "unregistering"
        if not removing and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        contact = self._contact
        if not isinstance(contact, SipUri):
            contact = contact(targets[0])
        if removing and self._our_contact is not None:
            contact = self._our_contact
        self._our_contact = contact
        expires = 0 if removing else self._expires_s
        self._cseq += 1
        message = request(
            "REGISTER",
            self._registrar,
            from_=self._aor.with_tag(self._tag),
            to=NameAddr(self._aor.display, self._aor.uri, {}),
            call_id=self._call_id,
            cseq=self._cseq,
            # Both forms of the same number: some registrars read only the one, some the other.
            contact=NameAddr(None, contact, {"expires": str(expires)}),
            headers=[("Expires", str(expires)), ("Supported", "path"), *self._headers],
        )
        self._bound = self._bound or not removing
        mine = self._round

        def done(outcome: Outcome) -> None:
            if mine == self._round:
                self._attempt = None
                self._done(outcome)

        self._attempt = send(
            self._layer,
            message,
            targets,
            self._authenticator,
            done,
            next_cseq=self._next_cseq,
            patience_s=PATIENCE_S,
        )

    def _next_cseq(self) -> int:
        self._cseq += 1
        return self._cseq

    # --- what came of it ---

    def _done(self, outcome: Outcome) -> None:
        if self.state == "unregistering":
            # Whatever it says: a binding that could not be removed expires.
            self._gone()
            return
        self.status = None if outcome.response is None else outcome.response.status
        try:
            self._judge(outcome)
        except ParseError as error:
            self._passing(f"the registrar's answer is malformed: {error.reason}", None)

    def _judge(self, outcome: Outcome) -> None:
        response = outcome.response
        if response is None:
            self._passing(outcome.text, None)
        elif response.status < 300:
            self._succeeded(response)
        elif response.status == 423 and self._lengthen(response):
            self._begin(self.state)
        elif response.status in _PASSING:
            self._passing(_words(response), response.retry_after)
        else:
            self._refused(response)

    def _succeeded(self, response: Response) -> None:
        assert self._our_contact is not None
        grant: Grant = read_grant(response, self._our_contact, self._expires_s)
        self.bindings = grant.bindings
        self.service_route = grant.service_route
        if grant.seconds <= 0:
            self.expires_at = None
            self._passing("the registrar took our contact and dropped it at once", None)
            return
        self._failures = self._too_brief = 0
        self.why = ""
        self.expires_at = self._layer.timers.now() + grant.seconds
        # 80 to 90 %, so that a thousand clients of a registrar that restarted spread out again.
        life = max(float(grant.seconds), SHORTEST_LIFE_S)
        self._wait(life * (0.8 + 0.1 * self._random()), "registered")

    def _lengthen(self, response: Response) -> bool:
        """RFC 3261 section 10.2.8; False if the registrar asks for too much, or for ever more."""
        wanted = response.min_expires
        self._too_brief += 1
        if wanted is None or not self._expires_s < wanted <= LONGEST_EXPIRES_S:
            return False
        if self._too_brief > 2:
            return False
        self._expires_s = wanted
        return True

    def _passing(self, why: str, retry_after: int | None) -> None:
        """A failure that may pass by itself: try again, ever more seldom."""
        if self.state == "unregistering":
            self._gone()
            return
        first, longest = BACKOFF_S
        wait = min(first * 2.0 ** min(self._failures, 30), longest)
        # RFC 5626 section 4.5: half of it at least, the rest by chance.
        wait *= 0.5 + 0.5 * self._random()
        if retry_after is not None:
            least = min(float(retry_after), LONGEST_RETRY_AFTER_S)
            wait = max(wait, least * (1.0 + 0.1 * self._random()))
        self._fail(why, wait, "retrying")

    def _refused(self, response: Response) -> None:
        """A failure that somebody has to mend. A redirect is one, too.

        RFC 3261 section 10.2.8 would let us follow it, but the credentials are for the registrar
        that the operator named.
        """
        why = _words(response)
        if response.status < 400:
            where = ", ".join(str(contact.uri) for contact in response.contacts)
            why += f" to {where or 'nowhere'}: set it as the registrar if that is right"
        elif response.status in {401, 403, 407}:
            why += ": check username and password"
        self._fail(why, REFUSED_RETRY_S * (0.5 + 0.5 * self._random()), "failed")

    def _fail(self, why: str, wait: float, state: RegistrationState) -> None:
        self._failures += 1
        self._too_brief = 0
        self.why = why
        if not self.registered:
            self.expires_at = None
        # The owner, who knows the trunk's name, is told by `changed` and does the logging.
        log.debug(
            "registration failed",
            registrar=self._registrar.host,
            why=why,
            again_in_s=round(wait, 1),
        )
        self._wait(wait, state)

    def _wait(self, seconds: float, state: RegistrationState) -> None:
        if self._timer is not None:
            self._timer.cancel()
        timers = self._layer.timers
        self._timer = timers.call_later(seconds, self._again)
        self.next_at = timers.now() + seconds
        self._become(state)

    def _again(self) -> None:
        self._begin("registered" if self.state == "registered" else "registering")

    def _gone(self) -> None:
        self._calm()
        self._bound = False
        self.expires_at = None
        self.bindings = self.service_route = ()
        self._become("unregistered")

    def _become(self, state: RegistrationState) -> None:
        if state != self.state:
            log.debug("registration", registrar=self._registrar.host, state=state)
            self._count("registration", state)
        self.state = state
        self.changed()


def _words(response: Response) -> str:
    return f"{response.status} {response.reason}".rstrip()
