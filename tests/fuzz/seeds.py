"""What fuzzing starts from: plain examples of each kind of input, and the words in them."""

from __future__ import annotations

__all__ = ["SIP_WORDS", "lines", "sip_seeds", "stream_seeds", "uri_seeds"]


def lines(text: str) -> bytes:
    """Text with the line ends that the wire has."""
    return text.replace("\n", "\r\n").encode()


_SDP = """v=0
o=- 20518 0 IN IP4 203.0.113.7
s=-
c=IN IP4 203.0.113.7
t=0 0
m=audio 30000 RTP/AVP 0 8 101
a=rtpmap:101 telephone-event/8000
"""

_INVITE = f"""INVITE sip:+4930111@198.51.100.2:5060;transport=udp SIP/2.0
Via: SIP/2.0/UDP 203.0.113.7:5060;branch=z9hG4bK74bf9;rport, SIP/2.0/TCP [2001:db8::9]:5070
Record-Route: <sip:203.0.113.1;lr>
Max-Forwards: 70
From: "A \\"Caller\\"" <sip:alice@example.org;user=phone>;tag=9fxced76sl
To: Bob <sip:+4930111@198.51.100.2>
Call-ID: 3848276298220188511@example.org
CSeq: 1 INVITE
Contact: <sip:alice@203.0.113.7:5060;transport=tcp>;expires=300, <tel:+1-555>
Supported: timer, 100rel
Session-Expires: 1800;refresher=uac
Min-SE: 90
Require: 100rel
Content-Type: application/sdp
Content-Length: {len(lines(_SDP))}

{_SDP}"""

_RESPONSE = """SIP/2.0 183 Session Progress
v: SIP/2.0/UDP 203.0.113.7;branch=z9hG4bK74bf9;received=203.0.113.7;rport=5060
f: sip:alice@example.org;tag=1
t: sip:bob@example.org;tag=2
i: abc@203.0.113.7
CSeq: 0009
  INVITE
RSeq: 813520
Retry-After: 120 (in a meeting);duration=60
Warning: 399 example.org "text"
l: 0

"""

_NOTIFY = """NOTIFY sip:alice@203.0.113.7 SIP/2.0
Via: SIP/2.0/TLS example.net;branch=z9hG4bKna998sk
From: <sips:bob@example.net:5061>;tag=2
To: <sip:alice@example.org>;tag=1
Call-ID: nt@example.net
CSeq: 314159 NOTIFY
Event: refer;id=93809823
Subscription-State: terminated;reason=noresource;expires=0
Refer-To: <sip:carol@example.com?Replaces=12%40x%3Bto-tag%3D1%3Bfrom-tag%3D2>
Replaces: 12@x;to-tag=1;from-tag=2;early-only
RAck: 776656 1 INVITE
Contact: *
Content-Length: 0

"""


def sip_seeds() -> list[bytes]:
    """Whole messages."""
    return [lines(_INVITE), lines(_RESPONSE), lines(_NOTIFY)]


def stream_seeds() -> list[bytes]:
    """Messages in a row and keep-alives; the first byte is the step of the cuts."""
    invite, response, notify = sip_seeds()
    return [
        b"\x07" + invite + b"\r\n\r\n" + response,
        b"\x01\r\n\r\n\r\n" + notify,
        b"\xff" + notify + response + invite,
    ]


def uri_seeds() -> list[bytes]:
    """URIs and addresses."""
    return [
        b"sip:alice:secret@example.org:5060;transport=tcp;lr?Subject=x&Priority=urgent",
        b"sips:[2001:db8::1]:5061;maddr=239.255.255.1;ttl=15",
        b"tel:+1-201-555-0123;phone-context=example.com",
        b'"A \\"Quote\\"" <sip:a%20b@example.org;user=phone>;tag=1;x="y;z"',
        b"Token Words <urn:service:sos>;q=0.5",
    ]


SIP_WORDS = [
    *("SIP/2.0", "SIP/2.0/UDP ", "sip:", "sips:", "tel:", "\r\n", "\r\n ", "\r\n\r\n"),
    *("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "NOTIFY", "UPDATE", "PRACK"),
    *("Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: ", "Contact: ", "Content-Length: "),
    *("Max-Forwards: ", "Route: ", "Record-Route: ", "Require: ", "Expires: ", "l: ", "v: "),
    *(";tag=", ";branch=z9hG4bK", ";rport", ";received=", ";lr", ";transport=", "<", ">", ", "),
    *("[2001:db8::1]", "[::ffff:192.0.2.1]", '"', '\\"', "%41", "%00", "@", "*", "?a=b&c=d"),
]
"""Words for the fuzzer's dictionary."""
