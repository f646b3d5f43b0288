"""RFC 4475 section 3.1.2: messages that the grammar forbids.

Where the RFC leaves an element the choice to guess what was meant, we refuse: a trunk's software
does none of this, and a guess is a second parser.
"""

from __future__ import annotations

from tests.sip.torture.case import ACCEPTED, DROPPED, OFFER, Case, wire

__all__ = ["CASES"]

_REFUSED = frozenset({400})


def _common(name: str, cseq: str) -> str:
    return f"""From: sip:caller@example.net;tag=134161461246
Max-Forwards: 7
Call-ID: {name}.1@192.0.2.50
CSeq: {cseq}
"""


def _plain(name: str, cseq: str) -> str:
    """The fields that are in order where the start line is not."""
    return (
        f"Via: SIP/2.0/UDP 192.0.2.50;branch=z9hG4bK-{name}\n"
        + "To: sip:weaver@example.com\n"
        + _common(name, cseq)
    )


def _invite(name: str, start_line: str, more: str = "") -> bytes:
    head = start_line + "\n" + _plain(name, "8 INVITE") + more
    return wire(head + "Contact: <sip:caller@192.0.2.50>\nContent-Type: application/sdp\n", OFFER)


_INVITE = "INVITE sip:weaver@example.com SIP/2.0"

CASES = [
    Case(
        "3.1.2.1",
        "badinv01",
        wire(
            f"{_INVITE}\nTo: sip:weaver@example.com\n"
            + _common("badinv01", "8 INVITE")
            + "Via: SIP/2.0/UDP 192.0.2.50;;,;,,\n"
            + 'Contact: "Caller" <sip:caller@example.org>;;;;\nContent-Type: application/sdp\n',
            OFFER,
        ),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.2",
        "clerr",
        wire(
            f"{_INVITE}\n{_plain('clerr', '8 INVITE')}Content-Type: application/sdp\n",
            OFFER,
            length=9999,
        ),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.3",
        "ncl",
        wire(
            f"{_INVITE}\n{_plain('ncl', '8 INVITE')}Content-Type: application/sdp\n",
            OFFER,
            length=-999,
        ),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.4",
        "scalar02",
        wire(
            """REGISTER sip:example.com SIP/2.0
Via: SIP/2.0/TCP host129.example.com;branch=z9hG4bK342sdfoi3
To: <sip:weaver@example.com>
From: <sip:weaver@example.com>;tag=239232jh3
CSeq: 36893488147419103232 REGISTER
Call-ID: scalar02.1@192.0.2.50
Max-Forwards: 300
Expires: 10000000000000000000000000000000000000000
Contact: <sip:weaver@host129.example.com>;expires=280297596632815
"""
        ),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.5",
        "scalarlg",
        wire(
            """SIP/2.0 503 Service Unavailable
Via: SIP/2.0/TCP host129.example.com;branch=z9hG4bKzzxdiwo34sw;received=192.0.2.129
To: <sip:weaver@example.com>
From: <sip:other@example.net>;tag=2easdjfejw
CSeq: 9292394834772304023312 OPTIONS
Call-ID: scalarlg.1@192.0.2.50
Retry-After: 949302838503028349304023988
Warning: 1812 overture "In Progress"
"""
        ),
        DROPPED,
        400,
        answerable=False,
    ),
    Case(
        "3.1.2.6",
        "quotbal",
        wire(
            f'{_INVITE}\nTo: "Mr. J. Weaver <sip:j.weaver@example.com>\n'
            + "Via: SIP/2.0/UDP 192.0.2.50;branch=z9hG4bK-quotbal\n"
            + _common("quotbal", "8 INVITE")
            + "Content-Type: application/sdp\n",
            OFFER,
        ),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.7",
        "ltgtruri",
        _invite("ltgtruri", "INVITE <sip:weaver@example.com> SIP/2.0"),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.8",
        "lwsruri",
        _invite("lwsruri", "INVITE sip:weaver@example.com; lr SIP/2.0"),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.9",
        "lwsstart",
        _invite("lwsstart", "INVITE  sip:weaver@example.com  SIP/2.0"),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.10",
        "trws",
        wire("OPTIONS sip:weaver@example.com SIP/2.0  \n" + _plain("trws", "8 OPTIONS")),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.11",
        "escruri",
        _invite("escruri", "INVITE sip:weaver@example.com?Route=%3Csip:example.com%3E SIP/2.0"),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.12",
        "baddate",
        _invite("baddate", _INVITE, "Date: Fri, 01 Jan 2010 16:00:00 EST\n"),
        ACCEPTED | _REFUSED,  # we never read Date, and so need not judge it
        expect={"method": "INVITE", "headers.Date": "Fri, 01 Jan 2010 16:00:00 EST"},
    ),
    Case(
        "3.1.2.13",
        "regbadct",
        wire(
            "REGISTER sip:example.com SIP/2.0\n"
            + _plain("regbadct", "8 REGISTER")
            + "Contact: sip:weaver@example.com?Route=%3Csip:sip.example.com%3E\n"
        ),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.14",
        "badaspec",
        wire(
            'OPTIONS sip:weaver@example.org SIP/2.0\nTo: "Weaver" < sip:weaver@example.org >\n'
            + "Via: SIP/2.0/UDP 192.0.2.50;branch=z9hG4bK-badaspec\n"
            + _common("badaspec", "8 OPTIONS")
        ),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.15",
        "baddn",
        wire(
            """OPTIONS sip:k.weaver@example.org SIP/2.0
Via: SIP/2.0/UDP c.example.com:5060;branch=z9hG4bKkdjuw
Max-Forwards: 70
From: Caller, Chris <sip:c.caller@example.com>;tag=43
To: Weaver, Kim <sip:k.weaver@example.org>
Call-ID: baddn.1@c.example.com
Accept: application/sdp
CSeq: 3923239 OPTIONS
"""
        ),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.16",
        "badvers",
        wire(
            """OPTIONS sip:k.weaver@example.org SIP/7.0
Via: SIP/7.0/UDP c.example.com;branch=z9hG4bKkdjuw
Max-Forwards: 70
From: A. Caller <sip:a.caller@example.com>;tag=qweoiqpe
To: K. Weaver <sip:k.weaver@example.org>
Call-ID: badvers.1@c.example.com
CSeq: 1 OPTIONS
"""
        ),
        frozenset({505}),
        505,
    ),
    Case(
        "3.1.2.17",
        "mismatch01",
        wire("OPTIONS sip:weaver@example.com SIP/2.0\n" + _plain("mismatch01", "8 INVITE")),
        _REFUSED,
        400,
    ),
    Case(
        "3.1.2.18",
        "mismatch02",
        wire("NEWMETHOD sip:weaver@example.com SIP/2.0\n" + _plain("mismatch02", "8 INVITE")),
        frozenset({400, 501}),
        400,
    ),
    Case(
        "3.1.2.19",
        "bigcode",
        wire("SIP/2.0 4294967301 better not\n" + _plain("bigcode", "8 INVITE")),
        DROPPED,
        400,
        answerable=False,
    ),
]
