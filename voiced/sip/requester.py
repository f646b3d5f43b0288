"""Sends the requests of a dialog, and the ACKs that belong to no transaction."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from voiced.sip import outgoing
from voiced.sip.errors import ParseError
from voiced.sip.message import Headers, Response

if TYPE_CHECKING:
    from voiced.sip.core import Core
    from voiced.sip.dialog import Dialog
    from voiced.sip.message import Request
    from voiced.sip.transport import Flow, Target

__all__ = ["Requester", "final_response", "is_local", "readable"]

# What this package reads of responses, but for what the parser has checked.
_OPTIONAL: Final = (
    ("Contact", "contacts"),
    ("Record-Route", "record_routes"),
    ("Session-Expires", "session_expires"),
    ("Min-SE", "min_se"),
    ("Retry-After", "retry_after"),
    ("RSeq", "rseq"),
)


# RFC 1918, RFC 6598, RFC 4193.
_PRIVATE: Final = tuple(
    ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)


def final_response(outcome: outgoing.Outcome) -> Response:
    """What became of a request as a response.

    A timeout counts as 408 and a transport that fails as 503 (RFC 3261 8.1.3.1); made up by us,
    such a response has no Via: see `is_local`.
    """
    if outcome.response is None:
        return Response(outcome.status, outcome.text, Headers())
    return readable(outcome.response)


def readable(response: Response) -> Response:
    """A response without those optional fields that cannot be read.

    There is nobody to answer 400 to, and a call is worth more than its Session-Expires.
    """
    for name, view in _OPTIONAL:
        if name in response.headers:
            try:
                getattr(response, view)
            except ParseError:
                response.headers.remove(name)
    return response


def is_local(response: Response) -> bool:
    """Whether a response was made up by `final_response`."""
    return "Via" not in response.headers


MAX_FLOWS: Final = 16
"""Next hops of a session whose flows are known: its dialog's newest, and each fork's."""


def _is_behind_nat(host: str, source: str) -> bool:
    """Whether `host` is an address of a private network, and `source`, where it came from, not."""
    try:
        inside, outside = ip_address(host), ip_address(source)
    except ValueError:
        return False
    return any(inside in network for network in _PRIVATE) and not any(
        outside in network for network in _PRIVATE
    )


class Requester:
    """Of one session, for all its dialogs."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.authenticator: outgoing.Credentials | None = None
        self._flows: dict[str, Flow] = {}  # by next hop

    def use_flow(self, flow: Flow | None, dialog: Dialog, *, called_us: bool) -> None:
        """Prefer this flow for as long as the dialog's next hop stays what it is now.

        The private address in the Contact of a telephone or a PBX behind a NAT leads nowhere, while
        the way by which it was heard is open; and a peer that reached us (`called_us`) over TCP or
        TLS may not take a connection from us.
        """
        hop = dialog.next_hop()
        if flow is None:
            return
        if (called_us and flow.reliable) or _is_behind_nat(hop.host, flow.remote[0]):
            self._flows.pop(str(hop), None)
            self._flows[str(hop)] = flow
            if len(self._flows) > MAX_FLOWS:  # there are peers that change their Contact each time
                del self._flows[next(iter(self._flows))]

    def targets(self, dialog: Dialog) -> list[Target | Flow]:
        """Where requests of `dialog` go, in order of preference."""
        hop = dialog.next_hop()
        targets: list[Target | Flow] = list(self._core.targets_of(hop))
        flow = self._flows.get(str(hop))
        if flow is not None:
            targets.insert(0, flow)
        return targets

    def send(self, dialog: Dialog, request: Request, done: Callable[[Response], None]) -> None:
        """Send a request; `done` gets its final response, made up if there was none.

        A 2xx to a re-INVITE is acknowledged as often as it comes, and has refreshed the dialog's
        target before `done` is called.
        """
        again: list[Callable[[], None]] = []

        def finished(outcome: outgoing.Outcome) -> None:
            response = final_response(outcome)
            if request.method in {"INVITE", "UPDATE"} and outcome.succeeded:
                dialog.refresh(response)
                self.use_flow(outcome.flow, dialog, called_us=False)
            if request.method == "INVITE" and outcome.succeeded:
                again.append(self.acknowledge(dialog, outcome.request))
            done(response)

        outgoing.send(
            self._core.layer,
            request,
            self.targets(dialog),
            self.authenticator,
            finished,
            next_cseq=dialog.next_seq,
            # A transaction waits for ever once a provisional has come (17.1.1.2), and an exchange
            # that goes on for ever would keep all others out.
            timeout_s=64 * self._core.timing.t1 if request.method == "INVITE" else None,
            repeated=lambda response, flow: again[0](),
        )

    def acknowledge(
        self, dialog: Dialog, invite: Request, cseq: int | None = None
    ) -> Callable[[], None]:
        """Send the ACK to a 2xx to `invite`; returns what sends the same ACK again.

        `cseq`: of the 2xx, where it answers an earlier try of `invite`.
        """
        credentials = [
            (name, value)
            for name in ("Authorization", "Proxy-Authorization")
            for value in invite.headers.get_fields(name)
        ]
        # 13.2.2.4: with the credentials of the INVITE, which nobody can challenge anew.
        ack = dialog.request("ACK", headers=credentials, cseq=cseq or invite.cseq.number)
        target = self.targets(dialog)[0]

        def send() -> None:
            self._core.layer.send_ack(ack, target)

        send()
        return send
