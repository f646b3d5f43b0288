"""The user agent core (RFC 3261 8): who gets a request, and what no session needs to see."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from voiced.sip.options import Options, targets_of

if TYPE_CHECKING:
    from voiced.sip.digest import Authenticator
    from voiced.sip.errors import ParseError
    from voiced.sip.events import MediaControl, Observer
    from voiced.sip.message import Response
    from voiced.sip.policy import Policy
    from voiced.sip.timers import Timers
    from voiced.sip.transaction import Timing
    from voiced.sip.transactions import TransactionLayer
    from voiced.sip.transport import Flow, Target, Transport
    from voiced.sip.uac import ClientSession
    from voiced.sip.uri import NameAddr, SipUri

__all__ = ["UserAgent"]


class UserAgent:
    """All dialogs of one SIP element, over one transaction layer, which it makes: `layer`.

    The shell hands every message to `layer.receive` and every parse error to `malformed`.
    """

    layer: TransactionLayer

    def __init__(
        self,
        transport: Transport,
        timers: Timers,
        policy: Policy,
        options: Options | None = None,
        *,
        timing: Timing | None = None,
        random: random.Random | None = None,
        targets_of: Callable[[SipUri], Sequence[Target]] = targets_of,
    ) -> None:
        """`random`: seeded in tests, else the system's. `targets_of`: next hops inside dialogs."""
        raise NotImplementedError

    @property
    def sessions(self) -> int:
        """Sessions that have not ended."""
        raise NotImplementedError

    def invite(
        self,
        target_uri: SipUri,
        *,
        targets: Sequence[Target],
        from_: NameAddr,
        to: NameAddr | None = None,
        headers: Sequence[tuple[str, str]] = (),
        media: MediaControl,
        observer: Observer,
        peer: str = "",
        authenticator: Authenticator | None = None,
        session_expires: int | None = None,
        timeout_s: float = 60.0,
        route: Sequence[NameAddr] = (),
    ) -> ClientSession:
        """Call `target_uri` by way of the first of `targets` that works.

        `timeout_s`: without a final answer by then, CANCEL and `Ended("timeout")`. `route`: a
        preloaded route set (outbound proxy). Raises SipError if the media cannot offer anything.
        """
        raise NotImplementedError

    def options(
        self,
        uri: SipUri,
        targets: Sequence[Target],
        done: Callable[[Response | None], None],
        *,
        from_: NameAddr | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        """Ask whether a peer is there; `done` gets its final answer, None if there was none."""
        raise NotImplementedError

    def malformed(self, error: ParseError, flow: Flow) -> None:
        """A message could not be parsed: answer it statelessly as `error` says, if it can be."""
        raise NotImplementedError

    def shutdown(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """End every session as `Session.bye` does; new INVITEs get 503 from now on."""
        raise NotImplementedError
