"""A telephone behind a NAT: the way it came is the way back."""

from __future__ import annotations

import pytest

from tests.sip.calls import SDP, Peer, Phone
from tests.sip.wire import Wire


@pytest.mark.parametrize(
    ("source", "contact", "reached"),
    [
        ("203.0.113.9", "192.168.1.10", True),
        ("203.0.113.9", "100.64.0.9", True),
        ("203.0.113.9", "198.51.100.7", False),  # a public Contact is meant
        ("10.0.0.9", "192.168.1.10", False),  # networks of one company, routed
        ("203.0.113.9", "phone.example.net", False),
    ],
)
def test_requests_go_where_the_invite_came_from(source: str, contact: str, reached: bool) -> None:
    wire = Wire()
    ours = wire.node("192.0.2.1", name="voiced")
    phone = Phone(ours)
    peer = Peer(wire.node(source, name="peer"), ours)
    peer.send("INVITE", f"Contact: <sip:peer@{contact}>", SDP, contact=False)
    peer.follow()
    peer.send("ACK")
    session, _ = phone.calls[0]
    session.bye()
    wire.run(0.1)
    assert bool(peer.requests("BYE")) is reached


@pytest.mark.parametrize(
    ("source", "contact", "reached"),
    [
        ("203.0.113.9", "192.168.1.10:5060", True),
        ("203.0.113.9", "198.51.100.7", False),
        ("10.0.0.9", "192.168.1.10", False),
    ],
)
def test_a_called_exchange_behind_a_nat(source: str, contact: str, reached: bool) -> None:
    """PRACK, ACK and BYE go where its answers come from."""
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="voiced"))
    peer = Peer(wire.node(source, name="peer"), phone.node)
    session, _ = phone.call(peer.node)
    wire.run(0.05)
    (invite,) = peer.requests("INVITE")
    where = f"Contact: <sip:peer@{contact}>"
    peer.answer(invite, 183, f"{where}\nRequire: 100rel\nRSeq: 1", SDP, contact=False)
    peer.answer(invite, 200, where, SDP, contact=False)
    session.bye()
    wire.run(0.1)
    seen = [bool(peer.requests(method)) for method in ("PRACK", "ACK", "BYE")]
    assert seen == [reached] * 3


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("calls_us", [True, False])
def test_a_contact_that_changes_behind_a_nat(method: str, calls_us: bool) -> None:
    """A telephone that has restarted its stack, or was given another address."""
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="voiced"))
    peer = Peer(wire.node("203.0.113.9", name="peer"), phone.node)
    first = "Contact: <sip:peer@192.168.1.10>"
    if calls_us:
        peer.send("INVITE", first, SDP, contact=False)
        peer.follow()
        peer.send("ACK")
        bye = phone.calls[0][0].bye
    else:
        bye = phone.call(peer.node)[0].bye
        wire.run(0.05)
        (invite,) = peer.requests("INVITE")
        peer.answer(invite, 200, first, SDP, contact=False)
    peer.send(method, "Contact: <sip:peer@192.168.1.11:5062>", SDP, contact=False)
    assert peer.statuses(method)[-1] == 200
    if method == "INVITE":
        peer.send("ACK")
    bye()
    wire.run(0.1)
    assert peer.requests("BYE")


def test_a_fork_behind_a_nat_is_hung_up() -> None:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1", name="voiced"))
    peer = Peer(wire.node("203.0.113.9", name="peer"), phone.node)
    phone.call(peer.node)
    wire.run(0.05)
    (invite,) = peer.requests("INVITE")
    for number, tag in enumerate(("one", "two"), 10):
        contact = f"Contact: <sip:peer@192.168.1.{number}>"
        peer.answer(invite, 200, contact, SDP, contact=False, tag=tag)
    assert {ack.to.tag for ack in peer.requests("ACK")} == {"one", "two"}
    assert {bye.to.tag for bye in peer.requests("BYE")} == {"two"}
