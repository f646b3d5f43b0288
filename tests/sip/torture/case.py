"""What a torture case is: bytes, and what an element makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ACCEPTED", "DROPPED", "OFFER", "Case", "wire"]

ACCEPTED = frozenset({200})
DROPPED: frozenset[int] = frozenset()

OFFER = b"""v=0\r
o=tester 81120 81120 IN IP4 192.0.2.40\r
s=-\r
c=IN IP4 192.0.2.40\r
t=0 0\r
m=audio 41220 RTP/AVP 0 8\r
"""
"""An offer that any telephone can answer."""


@dataclass(frozen=True)
class Case:
    """One message.

    Attributes:
        section, name: of the RFC, the name being that of its file there.
        data: one UDP datagram.
        refused: None where `parse` takes it, else the status of its `ParseError`.
        answerable: whether a refusal can be answered, that is, has a head.
        uas: the final statuses that the RFC allows a user agent that receives it, where that
            agent accepts every INVITE, is no registrar, knows the methods INVITE, ACK, CANCEL,
            BYE and OPTIONS, and is in no dialog; empty: nothing is sent.
        expect: what has to be read from it: paths like `vias.1.transport`, with their values.
    """

    section: str
    name: str
    data: bytes
    uas: frozenset[int]
    refused: int | None = None
    answerable: bool = True
    expect: Mapping[str, object] = field(default_factory=dict)


def wire(head: str, body: bytes = b"", *, length: int | None = -1) -> bytes:
    """A head written with plain line ends and a body, as they are on the wire.

    `length` is what Content-Length says: by default the truth; None leaves it out. The head's
    code points up to 0xFF that are written as \\xNN stay single bytes only in the body; text in
    the head is UTF-8.
    """
    if length is not None:
        head += f"Content-Length: {len(body) if length == -1 else length}\n"
    return head.replace("\n", "\r\n").encode("utf-8", "surrogateescape") + b"\r\n" + body
