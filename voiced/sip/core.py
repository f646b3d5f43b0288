"""What every session of a user agent shares: transport, timers, names, and who is told its end."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from voiced.sip.message import Request, Response, response_to
from voiced.sip.uri import NameAddr, SipUri

if TYPE_CHECKING:
    from voiced.sip.options import Options
    from voiced.sip.session import Session
    from voiced.sip.timers import Timers
    from voiced.sip.transaction import Timing
    from voiced.sip.transactions import TransactionLayer
    from voiced.sip.transport import Flow, Target, Transport

__all__ = ["Core", "Headerlist"]

Headerlist = Sequence[tuple[str, str]]


class Core:
    """Made by a `UserAgent`, which sets `layer` and `forget`."""

    layer: TransactionLayer
    forget: Callable[[Session], None]

    def __init__(
        self,
        transport: Transport,
        timers: Timers,
        timing: Timing,
        options: Options,
        randomness: random.Random,
        targets_of: Callable[[SipUri], Sequence[Target]],
    ) -> None:
        self.transport = transport
        self.timers = timers
        self.timing = timing
        self.options = options
        self.random = randomness
        self.targets_of = targets_of

    @property
    def supported(self) -> list[str]:
        """Option tags that we serve when a peer requires them."""
        tags = ["norefersub"]
        if self.options.session_expires_s:
            tags.append("timer")
        if self.options.reliable_provisionals:
            tags.append("100rel")
        return tags

    def abilities(self) -> list[tuple[str, str]]:
        """Allow and Supported, for INVITE, UPDATE and the 2xx to them (RFC 3261 13.2.1, 13.3.1)."""
        return [("Allow", ", ".join(self.options.allow)), ("Supported", ", ".join(self.supported))]

    def new_tag(self) -> str:
        """A tag with more than the 32 random bits that RFC 3261 19.3 asks for."""
        return f"{self.random.getrandbits(64):016x}"

    def new_call_id(self) -> str:
        """A Call-ID; no host in it, which would tell about our network."""
        return f"{self.random.getrandbits(128):032x}"

    def contact(self, to: Target | Flow, *, secure: bool) -> NameAddr:
        """Our Contact as a peer at `to` can reach it; `secure`: it must be sips: (12.1.1)."""
        host, port = self.transport.contact_address(to)
        transport = to.transport
        parameters: dict[str, str | None] = (
            {} if transport == "udp" or secure else {"transport": transport}
        )
        uri = SipUri(
            "sips" if secure else "sip", self.options.contact_user, None, host, port, parameters
        )
        return NameAddr(None, uri)

    def refusal(
        self, request: Request, status: int, to_tag: str, headers: Headerlist = ()
    ) -> Response:
        """A final response of 300 to 699."""
        return response_to(request, status, to_tag=to_tag, headers=headers)

    def later(self) -> tuple[str, str]:
        """Retry-After for a 500 that says "not now" (RFC 3261 14.2, RFC 3311 5.2): 0 to 10 s."""
        return ("Retry-After", str(self.random.randint(0, 10)))
