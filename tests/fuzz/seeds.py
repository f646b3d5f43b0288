"""What fuzzing starts from: plain examples of each kind of input, and the words in them."""

from __future__ import annotations

__all__ = [
    "DIGEST_WORDS",
    "SDP_WORDS",
    "SIP_WORDS",
    "event_seeds",
    "lines",
    "packet_seeds",
    "rtcp_seeds",
    "rtp_seeds",
    "sdp_seeds",
    "sip_seeds",
    "stream_seeds",
    "uri_seeds",
]


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


def sdp_seeds() -> list[bytes]:
    """Offers of a telephone, with keys, of a browser's shape, and on hold."""
    keys = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
    return [
        lines(_SDP),
        lines(
            "v=0\no=- 1 1 IN IP6 2001:db8::1\ns=-\nc=IN IP6 2001:db8::1\nt=0 0\na=sendonly\n"
            "m=video 0 RTP/AVP 31\nm=audio 30000 RTP/SAVP 9 8 96 13\na=rtpmap:9 G722/8000\n"
            "a=rtpmap:96 telephone-event/8000\na=fmtp:96 0-16\na=rtcp:30001 IN IP4 192.0.2.9\n"
            f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{keys}|2^20\na=ptime:30\na=maxptime:60\n"
        ),
        lines(
            "v=0\no=x y 2 2 IN IP4 host.invalid\ns= \nt=0 0\na=group:BUNDLE 0\n"
            "m=audio 9 UDP/TLS/RTP/SAVPF 111 0\nc=IN IP4 0.0.0.0\na=mid:0\na=rtcp-mux\n"
            "a=rtpmap:111 opus/48000/2\na=inactive\n"
        ),
    ]


SDP_WORDS = [
    *("v=0\r\n", "o=- 1 1 IN IP4 192.0.2.1\r\n", "c=IN IP4 ", "c=IN IP6 ::1", "m=audio 4000 "),
    *(
        "RTP/AVP",
        "RTP/SAVP",
        "RTP/AVPF",
        " 0 8 101",
        "a=rtpmap:",
        "a=fmtp:",
        "PCMU/8000",
        "G722/8000",
    ),
    *(
        "telephone-event/8000",
        "a=sendonly\r\n",
        "a=recvonly\r\n",
        "a=inactive\r\n",
        "a=ptime:20\r\n",
    ),
    *(
        "a=crypto:1 ",
        "AES_CM_128_HMAC_SHA1_32",
        " inline:",
        "|2^20|1:4",
        "a=rtcp:",
        "a=rtcp-mux\r\n",
    ),
]


def _run(*items: tuple[int, bytes]) -> bytes:
    """Datagrams as the RTP target reads them: a byte of flags and waiting, a length, the bytes."""
    return b"".join(bytes([flags, len(data)]) + data for flags, data in items)


def _rtp(kind: int, sequence: int, timestamp: int, payload: bytes, first: int = 0x80) -> bytes:
    head = bytes([first, kind]) + sequence.to_bytes(2, "big") + timestamp.to_bytes(4, "big")
    return head + b"\x00\x00\x12\x34" + payload


def packet_seeds() -> list[bytes]:
    """Single RTP packets: plain, padded, with sources and an extension."""
    return [
        _rtp(0, 1, 2, b"audio"),
        _rtp(0x80, 50, 9000, b"\x01\x02\x03\x02", 0xA0),
        _rtp(8, 51, 9160, b"\x00\x00\x00\x09\xbe\xde\x00\x01abcdxx", 0x91),
    ]


def rtp_seeds() -> list[bytes]:
    """Packets in order, out of order, with a pause, with a key; reports among them."""
    audio = [
        (4, _rtp(0, 65533 + n & 0xFFFF, 4294966976 + 160 * n & 0xFFFFFFFF, bytes([n]) * 40))
        for n in range(6)
    ]
    key = [
        (4, _rtp(101, 10 + n, 1600, bytes([5, 0x80 * (n > 1) | 10, 0, 160 * n & 0xFF])))
        for n in range(4)
    ]
    odd = [
        (1, _rtp(0, 50, 9000, b"\x01\x02\x03\x02", 0xA0)),
        (90, _rtp(8, 51, 9160, b"\xbe\xde\x00\x01abcd" + b"x" * 20, 0x90)),
        (1, _rtp(13, 52, 9320, b"\x28", 0x81)),
        (0x81, rtcp_seeds()[0]),
    ]
    return [
        _run(*audio),
        _run(audio[0], audio[2], audio[1], audio[4], audio[3], *key),
        _run(*key, (100, audio[5][1]), *odd),
    ]


def rtcp_seeds() -> list[bytes]:
    """A sender report with a block, a name and a goodbye; a receiver report."""
    block = bytes.fromhex("00005678 01000002 00010005 00000007 12340000 00000100")
    sender = bytes.fromhex("81c8000c 00001234 83aa7e80 00000000 00000640 0000000a 00000640")
    name = b"\x81\xca\x00\x03\x00\x00\x12\x34\x01\x03abc\x00\x00\x00"
    return [
        sender + block + name[:12] + b"\x00" * 4 + b"\x81\xcb\x00\x01\x00\x00\x12\x34",
        b"\x81\xc9\x00\x07\x00\x00\x12\x34" + block,
    ]


def event_seeds() -> list[bytes]:
    """A press with its three ends, and a long one in two segments."""
    press = b"".join(bytes([5, end | 10, 0, 160, 2, 1, 2, 3]) for end in (0, 0, 0x80, 0x80, 0x80))
    return [press, bytes([11, 10, 255, 255, 2, 1, 2, 4, 11, 0x8A, 0, 99, 2, 2, 2, 3])]


DIGEST_WORDS = [
    *("Digest ", "realm=", "nonce=", "opaque=", "stale=true", 'qop="auth"', "qop=auth,auth-int"),
    *("algorithm=", "MD5", "MD5-sess", "SHA-256", "username=", "uri=", "response=", "nc=00000001"),
    *("cnonce=", ", ", '"', '\\"', "="),
]
