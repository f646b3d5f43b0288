"""RFC 5118 section 4: IPv6 addresses in a SIP message."""

from __future__ import annotations

from tests.sip.torture.case import ACCEPTED, Case, wire

__all__ = ["CASES"]

_NO_REGISTRAR = frozenset({405, 501})
_NO_DIALOG = frozenset({481})


def _fields(name: str, method: str, *, via: str = "[2001:db8::60:1]", to_tag: str = "") -> str:
    return f"""To: sip:weaver@example.com{to_tag}
From: sip:weaver@example.com;tag=81x2
Via: SIP/2.0/UDP {via};branch=z9hG4bKas3-{name}
Call-ID: {name}.1@loom
Max-Forwards: 70
CSeq: 98176 {method}
Contact: "Weaver" <sip:weaver@[2001:db8::1]>
"""


def _register(name: str, uri: str) -> bytes:
    return wire(f"REGISTER {uri} SIP/2.0\n" + _fields(name, "REGISTER"))


_OFFER_IP6 = b"""v=0\r
o=tester 971731711378798081 0 IN IP6 2001:db8::20\r
s=-\r
c=IN IP6 2001:db8::20\r
t=0 0\r
m=audio 6000 RTP/AVP 0\r
"""

_OFFER_BOTH = b"""v=0\r
o=tester 28908445312 28908445312 IN IP4 192.0.2.40\r
s=-\r
t=0 0\r
m=audio 6000 RTP/AVP 0\r
c=IN IP6 2001:db8::1\r
m=video 6024 RTP/AVP 107\r
c=IN IP4 192.0.2.40\r
a=rtpmap:107 H263-1998/90000\r
"""

_OFFER_MAPPED = b"""v=0\r
o=tester 53655765 2353687637 IN IP6 ::ffff:192.0.2.40\r
s=-\r
c=IN IP6 ::ffff:192.0.2.40\r
t=0 0\r
m=audio 3456 RTP/AVP 0\r
"""


def _invite(name: str, offer: bytes, more: str = "", **fields: str) -> bytes:
    head = "INVITE sip:weaver@[2001:db8::10] SIP/2.0\n" + _fields(name, "INVITE", **fields)
    return wire(head + more + "Content-Type: application/sdp\n", offer)


CASES = [
    Case(
        "4.1",
        "ipv6-good",
        _register("4-1", "sip:[2001:db8::10]"),
        _NO_REGISTRAR,
        expect={
            "uri.host": "2001:db8::10",
            "uri.port": None,
            "via.host": "2001:db8::60:1",
            "contacts.0.uri.host": "2001:db8::1",
        },
    ),
    Case(
        "4.2",
        "ipv6-bad",
        _register("4-2", "sip:2001:db8::10"),
        frozenset({400}),
        400,
    ),
    Case(
        "4.3",
        "port-ambiguous",
        _register("4-3", "sip:[2001:db8::10:5070]"),
        _NO_REGISTRAR,
        expect={"uri.host": "2001:db8::10:5070", "uri.port": None},
    ),
    Case(
        "4.4",
        "port-unambiguous",
        _register("4-4", "sip:[2001:db8::10]:5070"),
        _NO_REGISTRAR,
        expect={"uri.host": "2001:db8::10", "uri.port": 5070},
    ),
    Case(
        "4.5",
        "via-received-param-with-delim",
        wire(
            "BYE sip:[2001:db8::10] SIP/2.0\n"
            + _fields(
                "4-5a",
                "BYE",
                via="[2001:db8::60:1];received=[2001:db8::60:255]",
                to_tag=";tag=bd76ya",
            )
        ),
        _NO_DIALOG,
        expect={"via.host": "2001:db8::60:1", "via.received": "2001:db8::60:255"},
    ),
    Case(
        "4.5",
        "via-received-param-no-delim",
        wire(
            "OPTIONS sip:[2001:db8::10] SIP/2.0\n"
            + _fields("4-5b", "OPTIONS", via="[2001:db8::60:1];received=2001:db8::60:255")
        ),
        ACCEPTED,
        expect={"via.host": "2001:db8::60:1", "via.received": "2001:db8::60:255"},
    ),
    Case(
        "4.6",
        "ipv6-in-sdp",
        _invite("4-6", _OFFER_IP6),
        ACCEPTED,
        expect={"body": _OFFER_IP6, "uri.host": "2001:db8::10"},
    ),
    Case(
        "4.7",
        "mult-ip-in-header",
        wire(
            "BYE sip:weaver@host.example.net SIP/2.0\n"
            "Via: SIP/2.0/UDP [2001:db8::60:1]:6050;branch=z9hG4bKas3-4-7\n"
            "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144\n"
            "Via: SIP/2.0/TCP [2001:db8::60:255];branch=z9hG4bK451jj;received=192.0.2.200\n"
            "Call-ID: 4-7.1@loom\nMax-Forwards: 70\nCSeq: 89187 BYE\n"
            "To: sip:weaver@example.net;tag=9817--94\nFrom: sip:caller@example.com;tag=81x2\n"
        ),
        _NO_DIALOG,
        expect={
            "vias.0.port": 6050,
            "vias.1.host": "192.0.2.1",
            "vias.2.host": "2001:db8::60:255",
            "vias.2.received": "192.0.2.200",
        },
    ),
    Case("4.8", "mult-ip-in-sdp", _invite("4-8", _OFFER_BOTH), ACCEPTED),
    Case(
        "4.9",
        "ipv4-mapped-ipv6",
        _invite("4-9", _OFFER_MAPPED, via="[::ffff:192.0.2.10]:19823"),
        ACCEPTED,
        expect={"via.host": "::ffff:192.0.2.10", "via.port": 19823},
    ),
    # The ABNF of RFC 3261 would have a third colon here; refusing that is no loss.
    Case(
        "4.10",
        "ipv6-bug-abnf-3-colons",
        wire("OPTIONS sip:weaver@[2001:db8:::192.0.2.1] SIP/2.0\n" + _fields("4-10a", "OPTIONS")),
        frozenset({200, 400}),
        400,
    ),
    Case(
        "4.10",
        "ipv6-correct-abnf-2-colons",
        wire("OPTIONS sip:weaver@[2001:db8::192.0.2.1] SIP/2.0\n" + _fields("4-10b", "OPTIONS")),
        ACCEPTED,
        expect={"uri.host": "2001:db8::192.0.2.1"},
    ),
]
