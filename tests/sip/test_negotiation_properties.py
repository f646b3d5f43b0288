from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from voiced.sip.crypto import SUITES
from voiced.sip.media import CODECS, Direction, LocalMedia
from voiced.sip.negotiation import Negotiator, NotAcceptable, Srtp
from voiced.sip.sdp import SdpError, parse

CAPTURED = [path.read_bytes() for path in sorted((Path(__file__).parent / "data").glob("*.sdp"))]

DIRECTIONS: list[Direction] = ["sendrecv", "sendonly", "recvonly", "inactive"]
SRTP: list[Srtp] = ["off", "optional", "required"]

codecs = st.permutations(list(CODECS.values())).flatmap(
    lambda order: st.integers(1, len(order)).map(lambda size: order[:size])
)
directions = st.sampled_from(DIRECTIONS)


def keys() -> Any:
    numbers = count(1)
    return lambda: next(numbers).to_bytes(30, "big")


# One sequence for all sides, so that equal keys are the same key.
KEY = keys()


@st.composite
def negotiators(draw: st.DrawFn, srtp: Srtp | None = None, session_id: int = 1) -> Negotiator:
    port = draw(st.integers(1024, 60000))
    local = LocalMedia(
        draw(st.sampled_from(["192.0.2.1", "198.51.100.77"])),
        port,
        draw(st.sampled_from([None, port + 1, 9999])),
    )
    return Negotiator(
        local,
        draw(codecs),
        draw(st.sampled_from(SRTP)) if srtp is None else srtp,
        session_id,
        draw(st.sampled_from([10, 20, 30, 60])),
        KEY,
    )


def expect(condition: bool) -> None:
    """An assertion about an exception that may come or not, which `pytest.raises` cannot say."""
    assert condition


def agree_on(offerer: Negotiator, answerer: Negotiator) -> None:
    """Both sides' outcomes say the same."""
    one, other = offerer.agreed, answerer.agreed
    assert one is not None
    assert other is not None
    assert one.codec == other.codec
    assert one.payload_type in other.remote_payload_types
    assert other.payload_type in one.remote_payload_types
    for sender, receiver in ((one, other), (other, one)):
        assert sender.telephone_event is not None
        assert sender.telephone_event in receiver.remote_telephone_events
        assert sender.send == receiver.receive
    assert one.rtcp_mux == other.rtcp_mux
    assert one.ptime_ms == other.ptime_ms
    if one.srtp is None or other.srtp is None:
        assert one.srtp is other.srtp is None
    else:
        assert one.srtp.suite == other.srtp.suite
        assert one.srtp.local == other.srtp.remote
        assert other.srtp.local == one.srtp.remote
        assert one.srtp.local != one.srtp.remote


@given(negotiators(session_id=1), negotiators(session_id=2), directions)
def test_what_one_offers_the_other_answers(
    offerer: Negotiator, answerer: Negotiator, direction: Direction
) -> None:
    offer = offerer.make_offer(direction=direction)
    try:
        answer = answerer.answer(offer)
    except NotAcceptable as refusal:
        shared = {f for f in parse(offer).media[0].formats if f in "089"}
        own = parse(answerer.make_offer()).media[0]
        profiles = {parse(offer).media[0].profile, own.profile}
        no_codec = not shared & set(own.formats)
        expect(refusal.code in {302, 305})
        assert no_codec or profiles == {"RTP/AVP", "RTP/SAVP"}
        return
    offerer.take_answer(answer)
    agree_on(offerer, answerer)
    assert len(parse(answer).media) == 1


class Dialog(RuleBasedStateMachine):
    """Two sides that go on offering to each other, with failures in between."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[Negotiator] = []
        self.versions = [0, 0]
        self.bodies = ["", ""]
        self.numbers: list[dict[str, str]] = [{}, {}]

    @precondition(lambda self: not self.sides)
    @rule(srtp=st.sampled_from(SRTP), data=st.data())
    def begin(self, srtp: Srtp, data: st.DataObject) -> None:
        self.sides = [data.draw(negotiators(srtp, session_id=number)) for number in (1, 2)]

    def said(self, side: int, body: bytes) -> bytes:
        description = parse(body)
        origin = description.origin
        assert origin.session_id == str(side + 1)
        content = body.decode().split("\r\n", 2)[2]
        # The same words have the same version, others the next.
        step = int(content != self.bodies[side])
        assert int(origin.version) == self.versions[side] + step
        self.versions[side] += step
        self.bodies[side] = content
        # A payload type never comes to mean something else.
        for media in description.media:
            for value in media.attributes("rtpmap"):
                number, meaning = value.split(" ")
                assert self.numbers[side].setdefault(number, meaning) == meaning
        return body

    @precondition(lambda self: self.sides)
    @rule(
        caller=st.sampled_from([0, 1]),
        direction=directions,
        full=st.booleans(),
        outcome=st.sampled_from(["answered", "answered", "failed", "twice"]),
    )
    def exchange(self, caller: int, direction: Direction, full: bool, outcome: str) -> None:
        offerer, answerer = self.sides[caller], self.sides[1 - caller]
        before = offerer.agreed
        offer = self.said(caller, offerer.make_offer(direction=direction, full=full))
        if outcome == "failed":
            offerer.rollback()
            assert offerer.agreed is before
            return
        try:
            answer = self.said(1 - caller, answerer.answer(offer))
        except NotAcceptable as refusal:
            expect(refusal.code == 305)
            assert before is None
            offerer.rollback()
            return
        assert len(parse(answer).media) == len(parse(offer).media)
        offerer.take_answer(answer)
        if outcome == "twice":
            again = offerer.agreed
            offerer.take_answer(answer)
            assert offerer.agreed == again
        agree_on(offerer, answerer)
        if before is not None and offerer.agreed is not None:
            assert offerer.agreed.srtp == before.srtp

    @invariant()
    def nobody_waits(self) -> None:
        assert not any(side.offering for side in self.sides)


TestDialog = Dialog.TestCase


LINES = [
    "m=audio 4000 RTP/AVP 0",
    "m=audio 4000 RTP/AVP 0 8 9 13 101 96",
    "m=audio 4000 RTP/SAVP 8 101",
    "m=audio 0 RTP/AVP 0",
    "m=audio 65535 rtp/avpf 96 0",
    "m=video 5000 RTP/AVP 31",
    "m=image 5002 udptl t38",
    "m=audio 9 UDP/TLS/RTP/SAVPF 0",
    "m=audio 4002 RTP/AVP",
    "c=IN IP4 192.0.2.9",
    "c=IN IP4 0.0.0.0",
    "c=IN IP6 ::1",
    "c=IN IP4 host.example",
    "c=IN IP4 999.1.1.1",
    "c=nonsense",
    "a=sendonly",
    "a=inactive",
    "a=recvonly",
    "a=ptime:30",
    "a=ptime:x",
    "a=maxptime:0",
    "a=rtcp-mux",
    "a=rtcp:7000 IN IP4 192.0.2.10",
    "a=rtcp:x",
    "a=rtpmap:96 telephone-event/8000",
    "a=rtpmap:101 telephone-event/16000",
    "a=rtpmap:0 PCMA/8000",
    "a=rtpmap:8",
    "a=rtpmap:96 G722/8000",
    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz",
    "a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:XVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz",
    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:short",
    "a=crypto",
    "a=",
    "x=y",
]
HEAD = ["v=0", "o=- 5 5 IN IP4 192.0.2.9"]
assembled = st.lists(st.sampled_from(LINES), max_size=14).map(
    lambda lines: "\r\n".join([*HEAD, *lines, ""]).encode()
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(st.sampled_from(CAPTURED)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(body) - 1))
        length = draw(st.integers(0, 8))
        body[place : place + length] = draw(st.binary(max_size=8))
        if not body:
            break
    return bytes(body)


bodies = st.one_of(assembled, damaged(), st.binary())


@given(negotiators(), st.lists(st.tuples(st.sampled_from("oa"), bodies), max_size=4))
def test_whatever_the_peer_says(side: Negotiator, steps: list[tuple[str, bytes]]) -> None:
    version = 0
    for kind, body in steps:
        before = side.agreed
        try:
            if kind == "o":
                answer = side.answer(body)
                offered = parse(body).media
                answered = parse(answer).media
                assert [m.kind for m in answered] == [m.kind for m in offered]
                assert [m.profile for m in answered] == [m.profile for m in offered]
                assert all(o.port or not a.port for a, o in zip(answered, offered, strict=True))
                assert sum(bool(media.port) for media in answered) <= 1
                for media in answered:
                    lines = media.attributes("crypto")
                    assert len(lines) <= 1
                    assert not lines or lines[0].split()[1] in SUITES
            else:
                answer = side.make_offer()
                side.take_answer(body)
        except (SdpError, NotAcceptable) as error:
            expect(bool(error.reason) and error.status in {400, 413, 488})
            assert side.agreed is before
            side.rollback()
            continue
        now = int(parse(answer).origin.version)
        assert now >= version
        version = now
        agreed = side.agreed
        assert agreed is not None
        assert agreed.payload_type in agreed.remote_payload_types
        assert 10 <= agreed.ptime_ms <= 60
        assert agreed.ptime_ms % 10 == 0
        assert not (agreed.held and agreed.send)


@pytest.mark.parametrize("srtp", SRTP)
def test_a_late_offer_is_an_offer_like_any_other(srtp: Srtp) -> None:
    callee = Negotiator(LocalMedia("192.0.2.1", 4000), list(CODECS.values()), srtp, 1, 20, KEY)
    caller = Negotiator(LocalMedia("192.0.2.2", 5000), list(CODECS.values()), srtp, 2, 20, KEY)
    in_the_2xx = callee.make_offer()
    in_the_ack = caller.answer(in_the_2xx)
    callee.take_answer(in_the_ack)
    agree_on(callee, caller)
