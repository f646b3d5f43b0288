"""Whole calls whose packets are damaged on their way: nothing escapes, nothing is left."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sip.calls import Phone, quiet
from tests.sip.wire import Node, Wire
from voiced.sip.options import Options
from voiced.sip.session import InvalidState, Session
from voiced.sip.uas import ServerSession

PIECES = [
    b"\0",
    b'"',
    b"<",
    b";",
    b",",
    b":",
    b"\xff",
    b"0",
    b"-1",
    b"99",
    b"[",
    b"\r\n",
    b"=",
    b"m=",
]
STATUSES = [b"180", b"200", b"302", b"401", b"422", b"481", b"491", b"500"]
LINES = [
    b"Require: 100rel",
    b"RSeq: many",
    b"RSeq: 1",
    b"Session-Expires: 1",
    b"Session-Expires: soon",
    b"Min-SE: 4294967295",
    b"Min-SE: <",
    b"Retry-After: x",
    b"Contact: *",
    b"Contact: <<",
    b"Record-Route: <sip:[::1];lr>",
    b"Record-Route: <<",
    b"Content-Length: 5",
    b"CSeq: 1 ACK",
    b"To: <sip:x>;tag=",
    b"Expires: 0",
    b'WWW-Authenticate: Digest realm="x", nonce=',
]
WISHES = ["hold", "resume", "update", "reinvite", "refer", "info", "bye", "wait"]

damages = st.dictionaries(
    st.integers(0, 15),
    st.one_of(
        st.tuples(st.just("body"), st.integers(0, 250), st.sampled_from(PIECES)),
        st.tuples(st.just("head"), st.integers(0, 500), st.sampled_from(PIECES)),
        st.tuples(st.just("status"), st.just(0), st.sampled_from(STATUSES)),
        st.tuples(st.just("line"), st.integers(0, 20), st.sampled_from(LINES)),
    ),
    min_size=1,
    max_size=6,
)
Damage = tuple[str, int, bytes]


def damaged(data: bytes, part: str, at: int, new: bytes) -> bytes:
    """Lengths stay as they are, or every damage would be one of the framing."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    if part == "body":
        body = (body[:at] + new + body[at + len(new) :])[: len(body)]
    elif part == "line":
        lines.insert(1 + at % len(lines), new)
    elif part == "status" and head.startswith(b"SIP/2.0 "):
        lines[0] = b"SIP/2.0 " + new + lines[0][11:]
    elif part == "head":
        head = head[:at] + new + head[at + len(new) :]
        lines = head.split(b"\r\n")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class RoughWire(Wire):
    """One that damages some of its packets, by their number."""

    def __init__(self, damage: dict[int, Damage]) -> None:
        super().__init__()
        self.damage = damage

    def carry(self, source: Node, host: str, port: int, data: bytes, failed: object) -> None:
        spot = self.damage.get(len(self.log))
        if spot is not None:
            data = damaged(data, *spot)
        # The log is read by nobody here: it may hold what cannot be.
        super().carry(source, host, port, data, failed)  # type: ignore[arg-type]


def wish(session: Session, what: str) -> None:
    match what:
        case "hold":
            session.hold(True)
        case "resume":
            session.hold(False)
        case "update":
            session.update()
        case "reinvite":
            session.reinvite()
        case "refer":
            session.refer("sip:desk@192.0.2.8")
        case "info":
            session.info(b"Signal=1\r\n", "application/dtmf-relay")
        case "bye":
            session.bye()


@settings(max_examples=100, deadline=None)
@given(damage=damages, wishes=st.lists(st.sampled_from(WISHES), max_size=6), rings=st.booleans())
def test_a_call_over_a_rough_wire(
    damage: dict[int, Damage], wishes: list[str], rings: bool
) -> None:
    wire = RoughWire(damage)

    def answer(session: ServerSession) -> None:
        if rings:
            session.ring(early_media=True)
        session.accept()

    alice = Phone(wire.node("192.0.2.1", name="alice"), Options(follow_redirects=1))
    bob = Phone(wire.node("192.0.2.2", name="bob"), on_invite=answer)
    for phone in (alice, bob):
        phone.node.on_malformed = phone.agent.malformed
    session, line = alice.call(bob.node, headers=[("Require", "100rel")] if rings else [])

    def sessions() -> list[Session]:
        return [session, *(theirs for phone in (alice, bob) for theirs, _ in phone.calls)]

    for number, what in enumerate(wishes):
        wire.run(1.0)
        asked = sessions()
        try:
            wish(asked[number % len(asked)], what)
        except InvalidState:
            continue
    for _ in range(3):  # a repeated INVITE may make a call while the others end
        for each in sessions():
            each.bye()
        wire.run_until_idle()
    quiet(wire, alice, bob)
    assert line.over()
    assert all(ours.over() for phone in (alice, bob) for _, ours in phone.calls)
