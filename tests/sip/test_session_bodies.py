"""Bodies of several parts: the session description is found, alone or among others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sip.calls import SDP, Peer, Phone
from tests.sip.wire import Wire
from voiced.sip.bodies import has_foreign_part, sdp_of
from voiced.sip.message import Headers, Request
from voiced.sip.uri import SipUri

ISUP = "--b1\r\nContent-Type: application/ISUP;version=x\r\n{}\r\nxyz\r\n"
PART = "--b1\r\nContent-Type: Application/SDP\r\n\r\n{}\r\n"
END = "--b1--\r\nepilogue"
MIXED = 'multipart/mixed;boundary="b1"'


def message(body: str | bytes, kind: str = MIXED) -> Request:
    data = body.encode() if isinstance(body, str) else body
    headers = Headers([("Content-Type", kind)])
    return Request("INVITE", SipUri("sip", None, None, "x"), headers, data)


@pytest.mark.parametrize(
    ("body", "kind", "found"),
    [
        (SDP, "application/sdp", SDP),
        (SDP, "text/plain", None),
        ("", "application/sdp", None),
        (PART.format(SDP) + END, MIXED, SDP),
        (PART.format(SDP) + END, "multipart/mixed; boundary=b1", SDP),
        ("preamble\r\n" + ISUP.format("") + PART.format(SDP) + END, MIXED, SDP),
        (PART.format("first") + PART.format("second") + END, MIXED, "first"),
        (PART.format(SDP), MIXED, SDP + "\r\n"),  # the end is missing
        ("--b11\r\nx\r\n" + PART.format(SDP) + END, MIXED, SDP),
        (ISUP.format("") + END, MIXED, None),
        ("--b1\r\n\r\nno type\r\n" + END, MIXED, None),
        ("--b1\r\nno end of head\r\n" + END, MIXED, None),
        (PART.format(SDP) + END, "multipart/mixed", None),
        (PART.format(SDP) + END, "multipart/mixed;;;", None),
        (PART.format(SDP) + END, "multipart/mixed;boundary=b2", None),
    ],
)
def test_the_description(body: str, kind: str, found: str | None) -> None:
    expected = None if found is None else found.encode()
    assert sdp_of(message(body, kind)) == expected


def test_parts_that_must_be_understood() -> None:
    needed = "Content-Disposition: signal ;handling = required\r\n"
    assert has_foreign_part(message(ISUP.format(needed) + PART.format(SDP) + END))
    assert not has_foreign_part(message(ISUP.format("") + PART.format(SDP) + END))


@given(st.binary(max_size=200))
def test_anything(body: bytes) -> None:
    found = sdp_of(message(b"--b1" + body))
    assert found is None or found in body


def invited(body: str) -> tuple[Phone, Peer]:
    wire = Wire()
    phone = Phone(wire.node("192.0.2.1"))
    peer = Peer(wire.node("192.0.2.9"), phone.node)
    peer.send("INVITE", body=body, content_type=MIXED)
    return phone, peer


def test_a_call_from_a_carrier_that_adds_isup() -> None:
    optional = "Content-Disposition: signal;handling=optional\r\n"
    phone, peer = invited(PART.format(SDP) + ISUP.format(optional) + END)
    assert peer.statuses("INVITE") == [200]
    assert peer.last("INVITE").content_type == "application/sdp"
    assert phone.calls[0][1].media.negotiator.agreed is not None


@pytest.mark.parametrize(
    "body",
    [
        ISUP.format("") + END,
        PART.format(SDP) + ISUP.format("Content-Disposition: x;handling=required\r\n") + END,
    ],
)
def test_a_call_that_cannot_be_understood(body: str) -> None:
    phone, peer = invited(body)
    assert peer.statuses("INVITE") == [415]
    assert "application/sdp" in peer.last("INVITE").headers.get_all("Accept")
    assert not phone.calls
