"""Dialogs (RFC 3261 12): who the two ends are, by what path, and which request comes next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from voiced.sip.errors import ParseError
from voiced.sip.message import Message, Request, Response
from voiced.sip.message import request as build_request
from voiced.sip.uri import NameAddr, SipUri

__all__ = ["Dialog"]

# Parameters that a URI must not have as a Request-URI, taken from where it stood (19.1.1).
_NOT_IN_REQUEST_URI: Final = frozenset({"method"})

# Requests that refresh the target, or make a subscription (RFC 3261 12.1.1, 12.2.1.1; RFC 6665).
_WITH_CONTACT: Final = frozenset({"INVITE", "UPDATE", "REFER", "NOTIFY", "SUBSCRIBE"})


def _target(message: Message) -> SipUri | None:
    """The URI of the first Contact, if there is one that can be called, fit for a Request-URI."""
    contacts = message.contacts
    uri = contacts[0].uri if contacts else None
    return _as_request_uri(uri) if isinstance(uri, SipUri) else None


class Dialog:
    """One dialog as this end sees it; `local` and `remote` carry the tags.

    It is made by a response with a To tag (`uac`) or by the INVITE that is answered (`uas`), and
    only counts and addresses: what requests mean is the session's business.
    """

    __slots__ = (
        "call_id",
        "confirmed",
        "contact",
        "local",
        "local_seq",
        "local_tag",
        "remote",
        "remote_seq",
        "remote_tag",
        "remote_target",
        "route_set",
        "secure",
    )

    def __init__(
        self,
        *,
        call_id: str,
        local: NameAddr,
        remote: NameAddr,
        local_seq: int,
        remote_seq: int | None,
        remote_target: SipUri,
        route_set: Sequence[NameAddr],
        contact: NameAddr,
        secure: bool,
    ) -> None:
        self.call_id = call_id
        self.local = local
        self.remote = remote
        self.local_tag = local.tag or ""
        # An RFC 2543 peer has no tag: that is the null value of 12.1.1, which compares as such.
        self.remote_tag = remote.tag or ""
        self.local_seq = local_seq
        self.remote_seq = remote_seq
        self.remote_target = remote_target
        self.route_set = tuple(route_set)
        self.contact = contact
        self.secure = secure
        self.confirmed = False

    @classmethod
    def uac(cls, request: Request, response: Response, contact: NameAddr) -> Dialog:
        """The dialog that `response` (101 to 299) to our INVITE makes (12.1.2).

        A response without a usable Contact leaves the Request-URI as the target: wrong of the
        peer, yet the only address left. `contact`: ours.
        """
        fallback = request.uri
        target = _target(response)
        if target is None:
            if not isinstance(fallback, SipUri):
                raise ParseError("no usable Contact")
            target = fallback
        return cls(
            call_id=request.call_id,
            local=request.from_,
            remote=response.to,
            local_seq=request.cseq.number,
            remote_seq=None,
            remote_target=target,
            route_set=list(reversed(response.record_routes)),
            contact=contact,
            secure=isinstance(fallback, SipUri) and fallback.scheme == "sips",
        )

    @classmethod
    def uas(cls, request: Request, local_tag: str, contact: NameAddr) -> Dialog:
        """The dialog that our answer to `request` makes (12.1.1).

        A peer of RFC 2543 may name no Contact, and is then sent requests at its From. Raises
        ParseError where neither can be called.
        """
        target = _target(request)
        if target is None and "Contact" not in request.headers:
            address = request.from_.uri
            target = address if isinstance(address, SipUri) else None
        if target is None:
            raise ParseError("no usable Contact")
        return cls(
            call_id=request.call_id,
            local=request.to.with_tag(local_tag),
            remote=request.from_,
            # Ours begin anywhere below 2**31; 1 leaves the most room.
            local_seq=0,
            remote_seq=request.cseq.number,
            remote_target=target,
            route_set=request.record_routes,
            contact=contact,
            secure=isinstance(request.uri, SipUri) and request.uri.scheme == "sips",
        )

    def confirm(self, response: Response) -> None:
        """A 2xx to the INVITE came: the route set is computed anew from it (13.2.2.4)."""
        self.confirmed = True
        self.route_set = tuple(reversed(response.record_routes))
        self.refresh(response)

    def refresh(self, message: Message) -> None:
        """Target refresh: the Contact of an INVITE or UPDATE, or of a 2xx to one (12.2).

        A secure dialog is not led to an insecure target (12.1.1: every Contact in it is sips:).
        """
        target = _target(message)
        if target is not None and (target.scheme == "sips" or not self.secure):
            self.remote_target = target

    def matches(self, request: Request) -> bool:
        """Whether a request that came to us belongs to this dialog."""
        return (
            request.call_id == self.call_id
            and (request.to.tag or "") == self.local_tag
            and (request.from_.tag or "") == self.remote_tag
        )

    def accepts(self, request: Request) -> int | None:
        """Check and note the CSeq of a request inside the dialog (12.2.2).

        Returns the status to refuse it with: 500 for a number not above the last one. ACK and
        CANCEL repeat their INVITE's number and are never refused.
        """
        if request.method in {"ACK", "CANCEL"}:
            return None
        number = request.cseq.number
        if self.remote_seq is not None and number <= self.remote_seq:
            return 500
        self.remote_seq = number
        return None

    def next_seq(self) -> int:
        """The next CSeq number of ours."""
        self.local_seq += 1
        return self.local_seq

    def next_hop(self) -> SipUri:
        """Where requests are sent: the first route, loose or strict, else the remote target."""
        if self.route_set:
            uri = self.route_set[0].uri
            if isinstance(uri, SipUri):
                return uri
        return self.remote_target

    def request(
        self,
        method: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
        cseq: int | None = None,
    ) -> Request:
        """A request inside the dialog, with the next CSeq, or `cseq` for an ACK (12.2.1.1).

        A strict router at the head of the route set takes the Request-URI, and the remote target
        goes to the end of the routes.
        """
        if cseq is None:
            cseq = self.next_seq()
        uri: SipUri = self.remote_target
        routes = list(self.route_set)
        first = routes[0].uri if routes else None
        if isinstance(first, SipUri) and not first.lr:
            uri = _as_request_uri(first)
            routes = [*routes[1:], NameAddr(None, self.remote_target)]
        return build_request(
            method,
            uri,
            from_=self.local,
            to=self.remote,
            call_id=self.call_id,
            cseq=cseq,
            contact=self.contact if method in _WITH_CONTACT else None,
            routes=routes,
            headers=headers,
            content_type=content_type if body else None,
            body=body,
        )


def _as_request_uri(uri: SipUri) -> SipUri:
    parameters = {
        name: value for name, value in uri.parameters.items() if name not in _NOT_IN_REQUEST_URI
    }
    return uri.replace(parameters=parameters, headers=())
