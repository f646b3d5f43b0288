"""Transactions on both ends of a wire that a test holds, and raw requests for one of them."""

from __future__ import annotations

from collections.abc import Sequence

from tests.sip.recorders import Side
from tests.sip.wire import Packet, Wire, straight
from voiced.sip.transport import TransportName

__all__ = ["RAW", "Net", "raw"]


class Net:
    """Alice calls Bob."""

    def __init__(self, transport: TransportName = "udp", **limits: int) -> None:
        self.wire = Wire()
        self.alice = Side(self.wire, self.wire.node("192.0.2.1", name="alice", transport=transport))
        self.bob = Side(
            self.wire,
            self.wire.node("192.0.2.2", name="bob", transport=transport),
            **limits,  # type: ignore[arg-type]
        )
        self.target = self.bob.node.target()

    def lose(self, *whats: str) -> None:
        """Packets that begin like this never arrive ("alice>bob ACK")."""

        def fate(packet: Packet) -> Sequence[float]:
            return () if str(packet).startswith(whats) else (0.0,)

        self.wire.fate = fate

    def heal(self) -> None:
        self.wire.fate = straight

    def inject(self, data: bytes, *, port: int = 5060, host: str = "192.0.2.1") -> None:
        """Bob receives these bytes from that address."""
        if (host, port) != ("192.0.2.1", 5060):
            self.wire.node(host, port, name="stranger")
        self.bob.node.deliver(data, (host, port))

    def end(self) -> None:
        """All ends by itself, and nothing is left."""
        self.wire.run_until_idle(200)
        assert self.alice.idle
        assert self.bob.idle
        assert len(self.wire.timers) == 0


RAW = (
    "{method} sip:bob@example.org SIP/2.0\r\n"
    "Via: SIP/2.0/UDP {sent_by}{via}\r\n"
    "From: <sip:alice@example.com>;tag=a1\r\n"
    "To: <sip:bob@example.org>{to}\r\n"
    "Call-ID: raw\r\n"
    "CSeq: {cseq} {method}\r\n"
    "Content-Length: 0\r\n\r\n"
)


def raw(
    method: str,
    *,
    via: str = ";branch=z9hG4bKraw;rport",
    sent_by: str = "192.0.2.1",
    to: str = "",
    cseq: int = 1,
) -> bytes:
    return RAW.format(method=method, via=via, sent_by=sent_by, to=to, cseq=cseq).encode()
