"""Messages that the tests of this folder take apart."""

from __future__ import annotations

__all__ = ["INVITE", "VIA", "edited", "minimal"]

VIA = "Via: SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bK1;rport"

_HEAD = f"""INVITE sip:+493011@198.51.100.2:5060;transport=udp SIP/2.0
Record-Route: <sip:192.0.2.1;lr;ftag=a>, <sip:192.0.2.2;lr>
{VIA}
Via: SIP/2.0/TCP [2001:db8::5];branch=z9hG4bK0;received=192.0.2.77
Max-Forwards: 67
From: "A. Caller" <sip:+15551@trunk.example>;tag=a1
To: <sip:+493011@198.51.100.2>
Call-ID: 8a1b2c3d@trunk.example
CSeq: 1 INVITE
Contact: <sip:+15551@192.0.2.9:5062;transport=udp>
Allow: INVITE, ACK,CANCEL , BYE
Supported: Timer, 100rel
X-Own: a \udcff b
Timestamp: 54
Content-Type: Application/SDP;charset=utf-8
Content-Length: 4

"""

INVITE: bytes = _HEAD.replace("\n", "\r\n").encode("utf-8", "surrogateescape") + b"v=0\n"
"""A typical INVITE of a trunk behind a proxy."""

_MINIMAL = f"""OPTIONS sip:a@b.example SIP/2.0
{VIA}
From: <sip:c@d.example>;tag=1
To: <sip:a@b.example>
Call-ID: x@y
CSeq: 7 OPTIONS
Content-Length: 0

"""


def edited(old: str, new: str, text: str = _MINIMAL) -> bytes:
    """The small OPTIONS request with one change; lines end as on the wire."""
    assert text.count(old) == 1, old
    return text.replace(old, new).replace("\n", "\r\n").encode("utf-8", "surrogateescape")


def minimal(*fields: str) -> bytes:
    """The small OPTIONS request with more fields."""
    return edited("CSeq: 7 OPTIONS\n", "\n".join(["CSeq: 7 OPTIONS", *fields, ""]))
