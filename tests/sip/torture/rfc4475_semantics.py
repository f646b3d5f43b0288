"""RFC 4475 sections 3.2 to 3.4: messages that a parser takes and somebody above has to judge."""

from __future__ import annotations

from tests.sip.torture.case import ACCEPTED, DROPPED, OFFER, Case, wire

__all__ = ["CASES"]

_NO_REGISTRAR = frozenset({405, 501})


def _fields(name: str, method: str) -> str:
    return f"""Via: SIP/2.0/UDP 192.0.2.60:5060;branch=z9hG4bK-{name}
Max-Forwards: 70
To: sip:weaver@example.com
From: sip:caller@example.net;tag=342{name}
Call-ID: {name}.1@192.0.2.60
CSeq: 9 {method}
"""


def _options(name: str, uri: str, more: str = "") -> bytes:
    return wire(f"OPTIONS {uri} SIP/2.0\n" + _fields(name, "OPTIONS") + more)


def _register(name: str, more: str) -> bytes:
    return wire("REGISTER sip:example.com SIP/2.0\n" + _fields(name, "REGISTER") + more)


_URI = "sip:weaver@example.com"

_BCAST = wire(
    """SIP/2.0 200 OK
Via: SIP/2.0/UDP 192.0.2.60;branch=z9hG4bK1324923
Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK1saber23
Call-ID: bcast.1@192.0.2.60
CSeq: 35 INVITE
From: sip:caller@example.com;tag=11141343
To: sip:weaver@example.edu;tag=2229
Contact: <sip:weaver@host28.example.com>
Content-Type: application/sdp
""",
    OFFER,
)

_MULTI01 = wire(
    """INVITE sip:weaver@company.example.com SIP/2.0
Contact: <sip:caller@host25.example.net>
Via: SIP/2.0/UDP 192.0.2.60;branch=z9hG4bKkdj.insuf
CSeq: 5 INVITE
Call-ID: multi01.one@192.0.2.60
CSeq: 59 INVITE
Call-ID: multi01.two@192.0.2.60
From: sip:caller@example.net;tag=3413415
From: sip:other@example.net;tag=2923420123
To: sip:weaver@example.com
To: sip:else@example.com
Max-Forwards: 5
Max-Forwards: 6
Content-Type: application/sdp
""",
    OFFER,
)

_INSUF = wire(
    """INVITE sip:weaver@example.com SIP/2.0
CSeq: 193942 INVITE
Via: SIP/2.0/UDP 192.0.2.60;branch=z9hG4bKkdj.insuf
Content-Type: application/sdp
""",
    OFFER,
)

_UNKSM2 = wire(
    """REGISTER sip:example.com SIP/2.0
To: isbn:2983792873
From: <http://www.example.com>;tag=3234233
Call-ID: unksm2.1@192.0.2.60
CSeq: 234902 REGISTER
Max-Forwards: 70
Via: SIP/2.0/UDP 192.0.2.60;branch=z9hG4bKunksm2
Contact: <name:Kim_Weaver>
"""
)

_INV2543 = wire(
    """INVITE sip:UserB@example.com SIP/2.0
Via: SIP/2.0/UDP ifs.example.com
From: <sip:+13035551111@ift.client.example.net;user=phone>
Record-Route: <sip:UserB@example.com;maddr=ss1.example.com>
To: sip:+16505552222@ss1.example.net;user=phone
Call-ID: inv2543.1717@ift.client.example.com
CSeq: 56 INVITE
Content-Type: application/sdp
""",
    OFFER,
    length=None,
)

CASES = [
    Case(
        "3.2.1",
        "badbranch",
        wire(
            "OPTIONS sip:weaver@example.com SIP/2.0\n"
            + _fields("", "OPTIONS").replace("bK-", "bK").replace(": .1", ": badbranch.1")
        ),
        ACCEPTED,
        expect={"via.branch": "z9hG4bK"},
    ),
    # The RFC would also have a 400, best effort; there is no transaction it could belong to.
    Case("3.3.1", "insuf", _INSUF, DROPPED, 400, answerable=False),
    Case(
        "3.3.2",
        "unkscm",
        _options("unkscm", "schemeOfNobody:wholly-opaque"),
        frozenset({416}),
        expect={"uri.scheme": "schemeofnobody", "uri.rest": "wholly-opaque"},
    ),
    Case(
        "3.3.3",
        "novelsc",
        _options("novelsc", "soap.beep://192.0.2.103:3002"),
        frozenset({416}),
        expect={"uri.scheme": "soap.beep", "uri.rest": "//192.0.2.103:3002"},
    ),
    Case(
        "3.3.4",
        "unksm2",
        _UNKSM2,
        _NO_REGISTRAR | frozenset({400}),
        expect={
            "to.uri.scheme": "isbn",
            "from_.uri.scheme": "http",
            "from_.tag": "3234233",
            "contacts.0.uri.rest": "Kim_Weaver",
        },
    ),
    Case(
        "3.3.5",
        "bext01",
        _options(
            "bext01",
            _URI,
            "Require: Nobody-has-this, norThis\nProxy-Require: no-proxy-has-this, nor-this\n",
        ),
        frozenset({420}),
        expect={
            "require": ("nobody-has-this", "northis"),
            "proxy_require": ("no-proxy-has-this", "nor-this"),
        },
    ),
    Case(
        "3.3.6",
        "invut",
        wire(
            f"INVITE {_URI} SIP/2.0\n{_fields('invut', 'INVITE')}"
            "Contact: <sip:caller@192.0.2.60>\nContent-Type: application/unheard-of\n",
            b"<audio>\r\n <pcmu port='443'/>\r\n</audio>\r\n",
        ),
        frozenset({415}),
        expect={"content_type": "application/unheard-of"},
    ),
    Case(
        "3.3.7",
        "regaut01",
        _register("regaut01", 'Authorization: SchemeOfNobody opaque-data="here", more=x\n'),
        _NO_REGISTRAR | frozenset({401}),
        expect={"headers.Authorization": 'SchemeOfNobody opaque-data="here", more=x'},
    ),
    Case("3.3.8", "multi01", _MULTI01, frozenset({400}), 400),
    Case(
        "3.3.9",
        "mcl01",
        wire(
            f"OPTIONS {_URI} SIP/2.0\n{_fields('mcl01', 'OPTIONS')}"
            "Content-Length: 13\nContent-Length: 5\nContent-Type: text/plain\n",
            b"There are two lengths.",
            length=None,
        ),
        frozenset({400}),
        400,
    ),
    Case(
        "3.3.10",
        "bcast",
        _BCAST,
        DROPPED,
        expect={"status": 200, "vias.1.host": "255.255.255.255"},
    ),
    Case(
        "3.3.11",
        "zeromf",
        wire(
            f"OPTIONS {_URI} SIP/2.0\n"
            + _fields("zeromf", "OPTIONS").replace("Max-Forwards: 70", "Max-Forwards: 0")
        ),
        ACCEPTED,
        expect={"max_forwards": 0},
    ),
    Case(
        "3.3.12",
        "cparam01",
        _register("cparam01", "Contact: sip:+19725552222@gw1.example.net;novelty\n"),
        _NO_REGISTRAR,
        expect={"contacts.0.parameters": {"novelty": None}, "contacts.0.uri.parameters": {}},
    ),
    Case(
        "3.3.13",
        "cparam02",
        _register("cparam02", "Contact: <sip:+19725552222@gw1.example.net;novelty>\n"),
        _NO_REGISTRAR,
        expect={"contacts.0.parameters": {}, "contacts.0.uri.parameters": {"novelty": None}},
    ),
    Case(
        "3.3.14",
        "regescrt",
        _register("regescrt", "Contact: <sip:weaver@example.com?Route=%3Csip:a.example%3E>\n"),
        _NO_REGISTRAR,
        expect={"contacts.0.uri.headers": (("Route", "%3Csip:a.example%3E"),)},
    ),
    Case(
        "3.3.15",
        "sdp01",
        wire(
            f"INVITE {_URI} SIP/2.0\n{_fields('sdp01', 'INVITE')}"
            "Contact: <sip:caller@192.0.2.60>\nAccept: text/unheard-of\n"
            "Content-Type: application/sdp\n",
            OFFER,
        ),
        frozenset({406, 200}),  # an answer in SDP is what an offer in SDP asks for
        expect={"headers.Accept": "text/unheard-of"},
    ),
    Case(
        "3.4.1",
        "inv2543",
        _INV2543,
        ACCEPTED,
        expect={
            "via.branch": None,
            "from_.tag": None,
            "max_forwards": None,
            "to.parameters": {"user": "phone"},
            "record_routes.0.uri.parameters": {"maddr": "ss1.example.com"},
            "body": OFFER,
        },
    ),
]
