"""RFC 4475 section 3.1.1: messages that look wrong and are right."""

from __future__ import annotations

from tests.sip.torture.case import ACCEPTED, DROPPED, OFFER, Case, wire

__all__ = ["CASES"]

_UNKNOWN_METHOD = frozenset({405, 501})
_NO_REGISTRAR = frozenset({405, 501})

_WSINV = wire(
    """INVITE sip:operator@exchange.example.com;novelty SIP/2.0
TO :
 sip:operator@exchange.example.com ;   tag    = 77afk2
from   : "K Weaver \\\\\\""       <sip:weaver@example.com>
  ;
  tag = 12lk
MaX-fOrWaRdS: 0068
Call-ID: wsinv.q8w7@192.0.2.40
cseq: 0009
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.40;branch=plainbranch
s :
UnheardOf:   one value
 that goes on here
UnheardOfAndOdd: ;;,,;;,;
Content-Type: application/sdp
Route:
 <sip:hop.example.com;lr;known=yes;bare>
v:  SIP  / 2.0  / TCP     loom.example.com   ;
  branch  =   z9hG4bK1weft  ,
 SIP  /    2.0   / UDP  192.168.240.11   ; branch=
 z9hG4bK2warp
m:"In \\"quotes\\"" <sip:weaver@example.com> ; fresh =
      thread ;
  bare ; q = 0.33
Content-Length   : """
    + f"{len(OFFER)}\n",
    OFFER,
    length=None,
)

_METHOD = "!.Odd_Method%49*+`~'"

_USER = "2_odd.User~(or-not!so)&wasn't+it$/mad?,/;;*"
_PASSWORD = "&it+was=2,odd!*pass$wd_2.(isn't-it)"

_INTMETH = wire(
    f"""{_METHOD} sip:{_USER}:{_PASSWORD}@example.com SIP/2.0
Via: SIP/2.0/UDP odd.example.com;branch=z9hG4bK-.!%66*_+`'~
To: "BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f" <sip:{_USER}@example.com>
From: word1~` word2'+_ word3*%!.- <sip:plain@example.com>;param''~+*_!.-%="ткач";tag=_t~2'+`*%!-.
Call-ID: intmeth.word%QX-!.*_+'@word`~)(><:\\/"][?}}{{
CSeq: 139122385 {_METHOD}
Max-Forwards: 255
X-odd-!.%*+_`'~:\ufeff織機
"""
)

_ESC01 = wire(
    """INVITE sip:sips%3Aweaver%40example.com@example.net SIP/2.0
To: sip:%77eave%72@example.com
From: <sip:with%20some%20room@example.net>;tag=814
Max-Forwards: 87
i: esc01.1k2j3h@192.0.2.40
CSeq: 14 INVITE
Via: SIP/2.0/UDP loom.example.net;branch=z9hG4bKe5c1
C: application/sdp
Contact:
  <sip:weave%72@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>
""",
    OFFER,
)

_ESCNUL = wire(
    """REGISTER sip:example.com SIP/2.0
To: sip:nil-%00-nil@example.com
From: sip:nil-%00-nil@example.com;tag=90210
Max-Forwards: 70
Call-ID: escnul.33k1@192.0.2.40
CSeq: 14398234 REGISTER
Via: SIP/2.0/UDP host5.example.com;branch=z9hG4bKnilnil
Contact: <sip:%00@host5.example.com>
Contact: <sip:%00%00@host5.example.com>
"""
)

_ESC02 = wire(
    """RE%47IST%45R sip:exchange.example.com SIP/2.0
To: "%Q%45" <sip:thing@example.com>
From: "%Q%45" <sip:thing@example.com>;tag=f232
Call-ID: esc02.88xx@192.0.2.40
CSeq: 29344 RE%47IST%45R
Via: SIP/2.0/TCP host.example.com;branch=z9hG4bK209%fzsn
Max-Forwards: 70
Contact: <sip:one@host1.example.com>
C%6Fntact: <sip:two@host2.example.com>
Contact: <sip:three@host3.example.com>
"""
)

_LWSDISP = wire(
    """OPTIONS sip:weaver@example.com SIP/2.0
To: sip:weaver@example.com
From: caller<sip:caller@example.com>;tag=323
Max-Forwards: 70
Call-ID: lwsdisp.12@192.0.2.40
CSeq: 60 OPTIONS
Via: SIP/2.0/UDP funky.example.com;branch=z9hG4bKkdjuw
"""
)

_LONG = "long" * 60

_LONGREQ = wire(
    f"""INVITE sip:weaver@example.com SIP/2.0
To: "{_LONG}" <sip:weaver{_LONG}@example.com;name{_LONG}={_LONG}>
F: sip:{_LONG}caller@example.com;tag=12{_LONG}34;p{_LONG}={_LONG};bare{_LONG}
Call-ID: longreq.one{_LONG}call
CSeq: 3882340 INVITE
Unknown-{_LONG}-Name: unknown-{_LONG}-value; of {_LONG}
Via: SIP/2.0/TCP sip33.example.com
v: SIP/2.0/TCP sip32.example.com, SIP/2.0/TCP sip31.example.com;hop{_LONG}={_LONG}
V: SIP/2.0/TCP sip30.example.com
Max-Forwards: 70
Contact: <sip:{_LONG}caller@host5.example.net>
Content-Type: application/sdp
""",
    OFFER,
)

_DBLREQ = wire(
    """REGISTER sip:example.com SIP/2.0
To: sip:weaver@example.com
From: sip:weaver@example.com;tag=43251
Max-Forwards: 8
Call-ID: dblreq.first@192.0.2.40
CSeq: 8 REGISTER
Via: SIP/2.0/UDP 192.0.2.40;branch=z9hG4bKdbl1
"""
)

_DBLREQ_REST = wire(
    """INVITE sip:weaver@example.com SIP/2.0
To: sip:weaver@example.com
From: sip:caller@example.net;tag=141334
Max-Forwards: 8
Call-ID: dblreq.second@192.0.2.40
CSeq: 8 INVITE
Via: SIP/2.0/UDP 192.0.2.40;branch=z9hG4bKdbl2
Content-Type: application/sdp
""",
    OFFER,
)

_SEMIURI = wire(
    """OPTIONS sip:weaver;hint=o%40example.net@example.com SIP/2.0
To: sip:weaver@example.com
From: sip:caller@example.org;tag=33242
Max-Forwards: 3
Call-ID: semiuri.4@192.0.2.40
CSeq: 8 OPTIONS
Via: SIP/2.0/UDP 192.0.2.40;branch=z9hG4bKsemi
Accept: application/sdp, application/pkcs7-mime,
        multipart/mixed, multipart/signed
"""
)

_TRANSPORTS = wire(
    """OPTIONS sip:weaver@example.com SIP/2.0
To: sip:weaver@example.com
From: <sip:caller@example.com>;tag=323
Max-Forwards: 70
Call-ID: transports.5@192.0.2.40
CSeq: 60 OPTIONS
Via: SIP/2.0/UDP t1.example.com;branch=z9hG4bKtr1
Via: SIP/2.0/SCTP t2.example.com;branch=z9hG4bKtr2
Via: SIP/2.0/TLS t3.example.com;branch=z9hG4bKtr3
Via: SIP/2.0/PIGEON t4.example.com;branch=z9hG4bKtr4
Via: SIP/2.0/TCP t5.example.com;branch=z9hG4bKtr5
"""
)

_PARTS = (
    b"--cut-here\r\nContent-Type: text/plain\r\n\r\nHello\r\n"
    b"--cut-here\r\nContent-Type: application/octet-stream\r\n\r\n"
    b"\x00\x01\xff\xfe\r\n\r\n\x80\x0d\x0a\x00\r\n--cut-here--\r\n"
)

_MPART01 = wire(
    """MESSAGE sip:weaver@example.org SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40:5070;branch=z9hG4bK-mpart
Max-Forwards: 70
Route: <sip:192.0.2.41;lr>
From: <sip:caller@example.org>;tag=2fb0
To: sip:weaver@example.org
Call-ID: mpart01.6@192.0.2.40
CSeq: 1 MESSAGE
MIME-Version: 1.0
Content-Type: multipart/mixed;boundary=cut-here
""",
    _PARTS,
)

_REASON = "= 2**3 * 52 ткач 織 :-)"

_UNREASON = wire(
    f"""SIP/2.0 200 {_REASON}
Via: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1324923
Call-ID: unreason.7@192.0.2.40
CSeq: 35 INVITE
From: sip:caller@example.com;tag=11141343
To: sip:weaver@example.edu;tag=2229
Contact: <sip:weaver@host198.example.com>
Content-Type: application/sdp
""",
    OFFER,
)

_NOREASON = wire(
    """SIP/2.0 100\u0020
Via: SIP/2.0/UDP 192.0.2.105;branch=z9hG4bK2398ndaoe
Call-ID: noreason.8@192.0.2.40
CSeq: 35 INVITE
From: <sip:caller@example.com>;tag=39ansfi3
To: <sip:weaver@example.edu>;tag=902jndnke3
Contact: <sip:weaver@host105.example.com>
"""
)

CASES = [
    Case(
        "3.1.1.1",
        "wsinv",
        _WSINV,
        frozenset({481}),  # its To has a tag, and we are in no dialog
        expect={
            "method": "INVITE",
            "uri.user": "operator",
            "uri.parameters": {"novelty": None},
            "to.tag": "77afk2",
            "to.uri.host": "exchange.example.com",
            "from_.display": 'K Weaver \\"',
            "from_.tag": "12lk",
            "max_forwards": 68,
            "cseq.number": 9,
            "cseq.method": "INVITE",
            "vias.0.host": "192.0.2.40",
            "vias.0.branch": "plainbranch",
            "vias.1.transport": "TCP",
            "vias.1.branch": "z9hG4bK1weft",
            "vias.2.host": "192.168.240.11",
            "vias.2.branch": "z9hG4bK2warp",
            "routes.0.uri.lr": True,
            "routes.0.uri.parameters": {"lr": None, "known": "yes", "bare": None},
            "contacts.0.display": 'In "quotes"',
            "contacts.0.parameters": {"fresh": "thread", "bare": None, "q": "0.33"},
            "headers.UnheardOf": "one value that goes on here",
            "headers.UnheardOfAndOdd": ";;,,;;,;",
            "headers.Subject": "",
            "body": OFFER,
        },
    ),
    Case(
        "3.1.1.2",
        "intmeth",
        _INTMETH,
        _UNKNOWN_METHOD,
        expect={
            "method": _METHOD,
            "uri.user": _USER,
            "uri.password": _PASSWORD,
            "uri.host": "example.com",
            "to.display": "BEL:\x07 NUL:\x00 DEL:\x7f",
            "from_.display": "word1~` word2'+_ word3*%!.-",
            "from_.tag": "_t~2'+`*%!-.",
            "from_.parameters": {"param''~+*_!.-%": '"ткач"', "tag": "_t~2'+`*%!-."},
            "call_id": "intmeth.word%QX-!.*_+'@word`~)(><:\\/\"][?}{",
            "via.branch": "z9hG4bK-.!%66*_+`'~",
            "headers.X-odd-!.%*+_`'~": "\ufeff織機",
        },
    ),
    Case(
        "3.1.1.3",
        "esc01",
        _ESC01,
        ACCEPTED,
        expect={
            "uri.scheme": "sip",
            "uri.user": "sips%3Aweaver%40example.com",
            "uri.unescaped_user": "sips:weaver@example.com",
            "uri.host": "example.net",
            "to.uri.unescaped_user": "weaver",
            "from_.uri.unescaped_user": "with some room",
            # Escapes in names are not undone when names are looked up: %6C%72 is not yet lr.
            "contacts.0.uri.parameters": {"%6c%72": None, "n%61me": "v%61lue%25%34%31"},
            "body": OFFER,
        },
    ),
    Case(
        "3.1.1.4",
        "escnul",
        _ESCNUL,
        _NO_REGISTRAR,
        expect={
            "to.uri.unescaped_user": "nil-\0-nil",
            "contacts.0.uri.unescaped_user": "\0",
            "contacts.1.uri.unescaped_user": "\0\0",
        },
    ),
    Case(
        "3.1.1.5",
        "esc02",
        _ESC02,
        _UNKNOWN_METHOD,
        expect={
            "method": "RE%47IST%45R",
            "to.display": "%Q%45",
            "contacts.0.uri.user": "one",
            "contacts.1.uri.user": "three",
            "headers.C%6Fntact": "<sip:two@host2.example.com>",
            "via.branch": "z9hG4bK209%fzsn",
        },
    ),
    Case(
        "3.1.1.6",
        "lwsdisp",
        _LWSDISP,
        ACCEPTED,
        expect={"from_.display": "caller", "from_.uri.user": "caller", "from_.tag": "323"},
    ),
    Case(
        "3.1.1.7",
        "longreq",
        _LONGREQ,
        ACCEPTED,
        expect={
            "to.display": _LONG,
            "to.uri.user": f"weaver{_LONG}",
            "from_.tag": f"12{_LONG}34",
            "call_id": f"longreq.one{_LONG}call",
            "vias.0.host": "sip33.example.com",
            "vias.2.parameters": {f"hop{_LONG}": _LONG},
            "vias.3.host": "sip30.example.com",
            "contacts.0.uri.user": f"{_LONG}caller",
            "body": OFFER,
        },
    ),
    Case(
        "3.1.1.8",
        "dblreq",
        _DBLREQ + _DBLREQ_REST,
        _NO_REGISTRAR,
        expect={"method": "REGISTER", "body": b"", "bytes": _DBLREQ},
    ),
    Case(
        "3.1.1.9",
        "semiuri",
        _SEMIURI,
        ACCEPTED,
        expect={
            "uri.user": "weaver;hint=o%40example.net",
            "uri.unescaped_user": "weaver;hint=o@example.net",
            "uri.host": "example.com",
            "uri.parameters": {},
        },
    ),
    Case(
        "3.1.1.10",
        "transports",
        _TRANSPORTS,
        ACCEPTED,
        expect={
            "vias.0.transport": "UDP",
            "vias.1.transport": "SCTP",
            "vias.2.transport": "TLS",
            "vias.3.transport": "PIGEON",
            "vias.4.transport": "TCP",
        },
    ),
    Case(
        "3.1.1.11",
        "mpart01",
        _MPART01,
        _UNKNOWN_METHOD,
        expect={"content_type": "multipart/mixed", "body": _PARTS},
    ),
    Case(
        "3.1.1.12",
        "unreason",
        _UNREASON,
        DROPPED,
        expect={"status": 200, "reason": _REASON, "body": OFFER},
    ),
    Case("3.1.1.13", "noreason", _NOREASON, DROPPED, expect={"status": 100, "reason": ""}),
]
