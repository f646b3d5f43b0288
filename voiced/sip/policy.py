"""Who may ask what of the user agent: the owner's answers to requests outside any dialog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from voiced.sip.message import Request
    from voiced.sip.outgoing import Credentials
    from voiced.sip.transport import Flow
    from voiced.sip.uas import ServerSession

__all__ = ["Admission", "Admit", "Drop", "Policy", "Refuse"]


@dataclass(frozen=True, slots=True)
class Admit:
    """Let it in, as a request of the peer with this name (a trunk).

    `authenticator`: answers for us where the peer challenges our own requests in this call.
    """

    peer: str
    authenticator: Credentials | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer `status` with these extra headers (a challenge, Retry-After), and no more."""

    status: int
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Drop:
    """No answer at all, as if nobody were here."""


Admission = Admit | Refuse | Drop


class Policy(Protocol):
    """The owner of the user agent; all synchronous."""

    def admit(self, request: Request, flow: Flow) -> Admission:
        """Judge a request that belongs to no dialog of ours, before anything else is looked at.

        Asked too before a malformed request is answered, as far as it could be read.
        """

    def busy(self) -> int | None:
        """Seconds for Retry-After while no call can be taken (full, draining), else None.

        While it is not None, OPTIONS and new INVITEs get 503.
        """

    def on_invite(self, session: ServerSession) -> None:
        """A new call. Set `session.observer` now, `session.media` before the session needs it.

        Sooner or later accept or reject it. One without an observer when this returns is refused
        with 500.
        """
