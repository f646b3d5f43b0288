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
