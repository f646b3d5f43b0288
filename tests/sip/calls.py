"""Two kinds of ends for tests of dialogs: a `Phone` is a user agent, a `Peer` writes by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.sip.wire import Node, Wire
from voiced.sip.agent import UserAgent
from voiced.sip.events import Ended, SessionEvent
from voiced.sip.headers import Headers
from voiced.sip.media import PCMA, PCMU, LocalMedia
from voiced.sip.message import Message, Request, Response, parse
from voiced.sip.negotiation import Negotiator
from voiced.sip.options import Options
from voiced.sip.policy import Admission, Admit
from voiced.sip.session import Session
from voiced.sip.transport import Flow
from voiced.sip.uac import ClientSession
from voiced.sip.uas import ServerSession
from voiced.sip.uri import NameAddr, SipUri

E = TypeVar("E")

SDP = (
    "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n"
    "m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
)
"""A description that any of our media can answer, and take as an answer."""

NO_CODEC = SDP.replace("RTP/AVP 0", "RTP/AVP 3").replace("0 PCMU", "3 GSM")


def sdp(version: int, direction: str = "sendrecv", port: int = 4000) -> str:
    """`SDP`, changed."""
    text = SDP.replace("1 1 IN", f"1 {version} IN").replace("audio 4000", f"audio {port}")
    return f"{text}a={direction}\r\n"


class Media:
    """A real negotiator as `MediaControl`; `exchanges` are the (offer, answer) pairs completed."""

    def __init__(self, address: str, port: int = 4000) -> None:
        self.negotiator = Negotiator(
            LocalMedia(address, port, None), [PCMU, PCMA], "off", 1, key=lambda: bytes(30)
        )
        self.exchanges: list[tuple[bytes, bytes]] = []
        self.offered: bytes | None = None
        self.earlies = 0
        self.rollbacks = 0

    def offer(self, held: bool, *, full: bool = False) -> bytes:
        self.offered = self.negotiator.make_offer(
            direction="sendonly" if held else "sendrecv", full=full
        )
        return self.offered

    def answer(self, offer: bytes) -> bytes:
        answer = self.negotiator.answer(offer)
        self.exchanges.append((offer, answer))
        return answer

    def take_answer(self, answer: bytes) -> None:
        self.negotiator.take_answer(answer)
        assert self.offered is not None
        self.exchanges.append((self.offered, answer))

    def rollback(self) -> None:
        self.negotiator.rollback()
        self.rollbacks += 1

    def early(self) -> None:
        self.earlies += 1


class Line:
    """A session's owner: notes events and can be told what to do about them."""

    def __init__(self, media: Media) -> None:
        self.media = media
        self.events: list[SessionEvent] = []
        self.react: Callable[[SessionEvent], None] = lambda event: None

    def on_event(self, event: SessionEvent) -> None:
        self.events.append(event)
        self.react(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def over(self) -> bool:
        """Whether it has ended; an end is checked to be the only one and the last."""
        ends = self.of(Ended)
        assert len(ends) <= 1
        assert not ends or self.events[-1] is ends[0]
        return bool(ends)

    def end(self) -> Ended:
        """How it ended."""
        assert self.over()
        return self.of(Ended)[0]


def state_of(session: Session) -> str:
    """Its state, for tests that look more than once."""
    return session.state


class Phone:
    """A user agent on a node, which is its own policy."""

    def __init__(
        self,
        node: Node,
        options: Options | None = None,
        *,
        on_invite: Callable[[ServerSession], None] = lambda session: session.accept(),
    ) -> None:
        self.node = node
        self.agent = UserAgent(
            node, node.wire.timers, self, options, randomness=random.Random(node.name)
        )
        node.attach(self.agent.layer.receive)
        self.answer = on_invite
        self.calls: list[tuple[ServerSession, Line]] = []
        self.admission: Admission = Admit("trunk")
        self.retry_after: int | None = None

    def admit(self, request: Request, flow: Flow) -> Admission:
        return self.admission

    def busy(self) -> int | None:
        return self.retry_after

    def on_invite(self, session: ServerSession) -> None:
        line = Line(Media(self.node.host))
        session.observer = line
        session.media = line.media
        self.calls.append((session, line))
        self.answer(session)

    def call(
        self, other: Node, *, timeout_s: float = 60.0, headers: Sequence[tuple[str, str]] = ()
    ) -> tuple[ClientSession, Line]:
        line = Line(Media(self.node.host))
        session = self.agent.invite(
            SipUri("sip", "bob", None, other.host, other.port, {}),
            targets=[other.target()],
            from_=NameAddr(None, SipUri("sip", "alice", None, self.node.host)),
            media=line.media,
            observer=line,
            timeout_s=timeout_s,
            headers=headers,
        )
        return session, line


class Peer:
    """Writes requests and responses by hand, at a node of its own.

    `dialog` holds what in-dialog requests need: it is filled from the last response or request.
    """

    def __init__(self, node: Node, other: Node) -> None:
        self.node = node
        self.other = other
        self.call_id = "call-1"
        self.tag = "peer"
        self.remote_tag: str | None = None
        self.remote_uri = f"sip:voiced@{other.host}:{other.port}"
        self.cseq = 0
        self.branches = 0

    @property
    def got(self) -> list[Message]:
        return self.node.received

    def responses(self, method: str) -> list[Response]:
        return [m for m in self.got if isinstance(m, Response) and m.cseq.method == method]

    def requests(self, method: str) -> list[Request]:
        return [m for m in self.got if isinstance(m, Request) and m.method == method]

    def statuses(self, method: str) -> list[int]:
        return [response.status for response in self.responses(method)]

    def last(self, method: str) -> Response:
        return self.responses(method)[-1]

    def write(self, text: str) -> Message:
        """Send text with bare line feeds and without Content-Length, which is added."""
        head, _, body = text.replace("\r\n", "\n").partition("\n\n")
        raw_body = body.replace("\n", "\r\n").encode()
        data = head.replace("\n", "\r\n").encode() + b"\r\n"
        data += b"Content-Length: %d\r\n\r\n" % len(raw_body) + raw_body
        self.node.send(data, self.other.target())
        return parse(data)

    def send(
        self,
        method: str,
        headers: str = "",
        body: str = "",
        *,
        cseq: int | None = None,
        branch: str | None = None,
        in_dialog: bool | None = None,
        content_type: str = "application/sdp",
        uri: str | None = None,
        to_tag: str | None = None,
        contact: bool = True,
        run: float = 0.05,
    ) -> Request:
        """Send a request, inside the dialog as soon as there is one, and let it arrive."""
        if cseq is None:
            if method not in {"ACK", "CANCEL"}:
                self.cseq += 1
            cseq = self.cseq
        if branch is None:
            self.branches += 1
            branch = f"z9hG4bK-{self.tag}-{self.branches}"
        if in_dialog is None:
            in_dialog = self.remote_tag is not None and method != "CANCEL"
        tag = to_tag or (self.remote_tag if in_dialog else None)
        lines = [
            f"{method} {uri or self.remote_uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.node.host}:{self.node.port};branch={branch};rport",
            "Max-Forwards: 70",
            f"From: <sip:peer@{self.node.host}>;tag={self.tag}",
            f"To: <sip:voiced@{self.other.host}>{f';tag={tag}' if tag else ''}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq} {method}",
        ]
        if contact and method in {"INVITE", "UPDATE", "REFER", "NOTIFY"}:
            lines.append(f"Contact: <sip:peer@{self.node.host}:{self.node.port}>")
        if headers:
            lines.append(headers.strip())
        if body:
            lines.append(f"Content-Type: {content_type}")
        request = self.write("\n".join(lines) + "\n\n" + body)
        assert isinstance(request, Request)
        self.node.wire.run(run)
        return request

    def invite(self, headers: str = "", body: str = SDP) -> Request:
        """A new INVITE; the To tag of its answer makes the dialog."""
        request = self.send("INVITE", headers, body)
        self.follow()
        return request

    def follow(self) -> None:
        """Take the dialog from the latest response to an INVITE."""
        for response in reversed(self.responses("INVITE")):
            if response.to.tag is not None:
                self.remote_tag = response.to.tag
                if response.contacts:
                    self.remote_uri = str(response.contacts[0].uri)
                return

    def answer(
        self,
        request: Request,
        status: int,
        headers: str = "",
        body: str = "",
        *,
        tag: str | None = None,
        contact: bool = True,
        run: float = 0.05,
        reason: str = "Whatever",
    ) -> None:
        """Answer a request; `tag`: of a fork."""
        head = Headers()
        for value in request.headers.get_fields("Via"):
            head.add("Via", value)
        head.add("From", request.headers.get("From") or "")
        to = request.headers.get("To") or ""
        if "tag=" not in to and status > 100:
            to += f";tag={tag or self.tag}"
        head.add("To", to)
        head.add("Call-ID", request.call_id)
        head.add("CSeq", str(request.cseq))
        for value in request.headers.get_fields("Record-Route"):
            head.add("Record-Route", value)
        if contact and request.method in {"INVITE", "UPDATE", "REFER"} and status > 100:
            head.add("Contact", f"<sip:peer@{self.node.host}:{self.node.port}>")
        for line in headers.strip().splitlines():
            name, _, value = line.partition(":")
            head.add(name, value.strip())
        if body:
            head.add("Content-Type", "application/sdp")
        self.node.send(bytes(Response(status, reason, head, body.encode())), self.other.target())
        self.adopt(request)
        self.node.wire.run(run)

    def adopt(self, request: Request) -> None:
        """Take the dialog from a request of the other side."""
        self.call_id = request.call_id
        self.remote_tag = request.from_.tag
        if request.contacts:
            self.remote_uri = str(request.contacts[0].uri)


def called(
    options: Options | None = None,
    *,
    on_invite: Callable[[ServerSession], None] = lambda session: session.accept(),
    headers: str = "",
    body: str = SDP,
) -> tuple[Wire, Phone, Peer]:
    """A phone that has been called by a peer; the INVITE has arrived, and what came of it too."""
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone"), options, on_invite=on_invite)
    peer = Peer(wire.node("192.0.2.9", name="peer"), phone.node)
    peer.invite(headers, body)
    return wire, phone, peer


def talking(
    options: Options | None = None, *, headers: str = "Allow: INVITE, ACK, BYE, UPDATE"
) -> tuple[Wire, Phone, Peer, Session, Line]:
    """A confirmed call from a peer to a phone."""
    wire, phone, peer = called(options, headers=headers)
    peer.send("ACK")
    session, line = phone.calls[0]
    assert session.state == "confirmed"
    return wire, phone, peer, session, line


def calling(
    options: Options | None = None, *, timeout_s: float = 60.0
) -> tuple[Wire, Phone, Peer, ClientSession, Line, Request]:
    """A phone that calls a peer, which has got the INVITE and said nothing."""
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="phone"), options)
    peer = Peer(wire.node("192.0.2.9", name="peer"), phone.node)
    session, line = phone.call(peer.node, timeout_s=timeout_s)
    wire.run(0.05)
    return wire, phone, peer, session, line, peer.requests("INVITE")[0]


def quiet(wire: Wire, *phones: Phone) -> None:
    """Let everything run out, and look that nothing is left."""
    wire.run_until_idle()
    for phone in phones:
        assert phone.agent.sessions == 0
        assert phone.agent.layer.client_transactions == 0
        assert phone.agent.layer.server_transactions == 0
    assert len(wire.timers) == 0
