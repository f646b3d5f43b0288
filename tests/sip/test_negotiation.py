from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from voiced.sip.crypto import SUITES
from voiced.sip.media import G722, PCMA, PCMU, Agreed, Codec, Direction, LocalMedia
from voiced.sip.negotiation import Negotiator, NotAcceptable, Srtp
from voiced.sip.sdp import SdpError, SessionDescription, parse

DATA = Path(__file__).parent / "data"
LOCAL = LocalMedia("192.0.2.1", 20000)
TEXT_KEY = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"


def counted_keys() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield bytes([number]) * 30


def negotiator(
    *codecs: Codec,
    srtp: Srtp = "off",
    local: LocalMedia = LOCAL,
    ptime: int = 20,
) -> Negotiator:
    keys = counted_keys()
    return Negotiator(local, codecs or (PCMU, PCMA), srtp, 7, ptime, lambda: next(keys))


def captured(name: str) -> bytes:
    return (DATA / f"{name}.sdp").read_bytes()


def body(
    *lines: str,
    head: str = "m=audio 4000 RTP/AVP 0 8 101",
    address: str = "IP4 198.51.100.1",
    session: tuple[str, ...] = (),
) -> bytes:
    top = ["v=0", "o=peer 1 1 IN IP4 198.51.100.1", "s=-", f"c=IN {address}", "t=0 0", *session]
    rows = [*top, head, "a=rtpmap:101 telephone-event/8000", *lines]
    return "".join(row + "\r\n" for row in rows).encode()


def agreed(side: Negotiator) -> Agreed:
    assert side.agreed is not None
    return side.agreed


def refused(side: Negotiator, offer: bytes) -> str:
    before = side.agreed
    with pytest.raises(NotAcceptable) as caught:
        side.answer(offer)
    assert side.agreed is before
    assert caught.value.status == 488
    return caught.value.warning


def direction(description: bytes) -> str:
    read = parse(description)
    return read.direction_of(next(media for media in read.media if media.port))


def version(description: bytes) -> int:
    origin = parse(description).origin
    assert origin.session_id == "7"
    return int(origin.version)


def read(description: bytes) -> SessionDescription:
    result = parse(description)
    assert bytes(result) == description
    return result


def test_first_offer_to_the_byte() -> None:
    offer = negotiator(PCMU, PCMA, G722).make_offer()
    assert offer.decode().split("\r\n") == [
        "v=0",
        "o=- 7 1 IN IP4 192.0.2.1",
        "s=-",
        "c=IN IP4 192.0.2.1",
        "t=0 0",
        "m=audio 20000 RTP/AVP 0 8 9 101",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:9 G722/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-15",
        "a=ptime:20",
        "a=sendrecv",
        "",
    ]


def test_ipv6_and_an_rtcp_port_of_its_own() -> None:
    side = negotiator(local=LocalMedia("2001:db8::5", 20000, 30001))
    description = read(side.make_offer())
    assert description.origin.family == "IP6"
    assert description.media[0].attribute("rtcp") == "30001"
    side.rollback()
    assert read(side.answer(body(address="IP6 2001:db8::9"))).media[0].attribute("rtcp") == "30001"
    assert agreed(side).remote_rtcp == ("2001:db8::9", 4001)


# What each peer's offer comes to: codec, payload type, telephone-event, comfort noise, RTCP.
PEERS = {
    "sipp_offer": (PCMU, 0, None, None, ("127.0.0.1", 6001)),
    "baresip_offer": (PCMU, 0, 101, None, ("127.0.0.1", 39171)),
    "baresip_late_offer": (PCMU, 0, 101, None, ("127.0.0.1", 39387)),
    "baresip_srtp_offer": (PCMU, 0, 101, None, ("127.0.0.1", 39166)),  # rtcp-mux
    "twilio_offer": (PCMU, 0, 101, None, ("168.86.137.21", 12645)),
    "telnyx_offer": (G722, 9, 101, 13, ("64.16.250.10", 27835)),
    "asterisk22_offer": (PCMU, 0, 101, None, ("192.0.2.20", 13915)),
}


@pytest.mark.parametrize("name", PEERS)
def test_offers_of_real_peers(name: str) -> None:
    side = negotiator(G722, PCMA, PCMU)
    answer = read(side.answer(captured(name)))
    result = agreed(side)
    codec, number, event, noise, rtcp = PEERS[name]
    assert (result.codec, result.payload_type) == (codec, number)
    assert (result.telephone_event, result.comfort_noise) == (event, noise)
    assert (result.remote_address, result.remote_rtcp) == (rtcp[0], rtcp)
    assert (result.send, result.receive, result.held, result.srtp) == (True, True, False, None)
    assert result.ptime_ms == 20
    wanted = [str(n) for n in (number, noise, event) if n is not None]
    assert list(answer.media[0].formats) == wanted
    assert answer.media[0].attribute("rtcp-mux") == ("" if result.rtcp_mux else None)


@pytest.mark.parametrize("name", ["twilio_secure_offer", "baresip_srtp_mand_offer"])
@pytest.mark.parametrize("srtp", ["optional", "required"])
def test_srtp_offers_of_real_peers(name: str, srtp: Srtp) -> None:
    side = negotiator(srtp=srtp)
    answer = read(side.answer(captured(name)))
    assert answer.media[0].profile == "RTP/SAVP"
    (line,) = answer.media[0].attributes("crypto")
    assert line.startswith("1 AES_CM_128_HMAC_SHA1_80 inline:")
    assert "|" not in line
    keys = agreed(side).srtp
    assert keys is not None
    assert (keys.suite, keys.local) == ("AES_CM_128_HMAC_SHA1_80", bytes([1]) * 30)
    assert len(keys.remote) == 30
    assert keys.remote != keys.local


def test_several_sections_and_suites() -> None:
    side = negotiator(srtp="optional")
    answer = read(side.answer(captured("freeswitch_offer")))
    assert [(m.kind, m.port, m.profile, m.formats) for m in answer.media] == [
        ("audio", 20000, "RTP/SAVP", ("0", "13", "104")),
        ("video", 0, "RTP/SAVP", ("105",)),
        ("image", 0, "udptl", ("t38",)),
    ]
    assert answer.media[0].attributes("crypto")[0].startswith("3 AES_CM_128_HMAC_SHA1_80 ")
    result = agreed(side)
    assert (result.telephone_event, result.comfort_noise) == (104, 13)
    assert (result.rtcp_mux, result.remote_rtcp) == (True, ("198.51.100.7", 24584))


def test_avpf_is_answered_under_the_same_profile() -> None:
    side = negotiator(srtp="required")
    answer = read(side.answer(captured("baresip_srtp_mandf_offer")))
    assert answer.media[0].profile == "RTP/SAVPF"
    plain = negotiator()
    offer = body(head="m=audio 4000 RTP/AVPF 0")
    assert read(plain.answer(offer)).media[0].profile == "RTP/AVPF"


@pytest.mark.parametrize(
    ("srtp", "name", "warning"),
    [
        ("off", "twilio_secure_offer", '302 voiced "SRTP is switched off"'),
        ("required", "twilio_offer", '302 voiced "SRTP is required"'),
        ("off", "webrtc_offer", '302 voiced "transport not supported"'),
        ("optional", "webrtc_offer", '302 voiced "transport not supported"'),
    ],
)
def test_offers_turned_down(srtp: Srtp, name: str, warning: str) -> None:
    assert refused(negotiator(srtp=srtp), captured(name)) == warning


@pytest.mark.parametrize(
    ("offer", "warning"),
    [
        (body(head="m=audio 4000 RTP/AVP 18 3"), '305 voiced "no codec in common"'),
        (body(head="m=audio 4000 RTP/AVP 101"), '305 voiced "no codec in common"'),
        (body(head="m=audio 4000 RTP/AVP"), '305 voiced "no codec in common"'),
        (body(head="m=audio 0 RTP/AVP 0"), '304 voiced "no audio offered"'),
        (body(head="m=video 4000 RTP/AVP 0"), '304 voiced "no audio offered"'),
        (body(address="IP6 2001:db8::9"), '300 voiced "other IP version"'),
        (body(address="IP4 gw.example"), '301 voiced "media address is not an IP address"'),
        (body(address="IP4 224.1.2.3"), '330 voiced "multicast not available"'),
        (body("a=rtpmap:0 G729/8000", head="m=audio 4000 RTP/AVP 0"), '305 voiced "no codec'),
        (body("a=rtpmap:0 PCMU/16000", head="m=audio 4000 RTP/AVP 0"), '305 voiced "no codec'),
        (body("a=rtpmap:0 PCMU/8000/2", head="m=audio 4000 RTP/AVP 0"), '305 voiced "no codec'),
        (body("a=rtpmap:9 G722/16000", head="m=audio 4000 RTP/AVP 9"), '305 voiced "no codec'),
    ],
)
def test_warnings(offer: bytes, warning: str) -> None:
    assert refused(negotiator(PCMU, PCMA, G722), offer).startswith(warning)


def test_no_address_at_all() -> None:
    offer = body().replace(b"c=IN IP4 198.51.100.1\r\n", b"")
    with pytest.raises(SdpError, match="no connection line"):
        negotiator().answer(offer)


def test_offered_order_is_the_peers_filtered_by_ours() -> None:
    side = negotiator(PCMU, PCMA)
    side.answer(body("a=rtpmap:99 opus/48000/2", head="m=audio 4000 RTP/AVP 99 8 0"))
    assert agreed(side).codec is PCMA


def test_dynamic_numbers_are_answered_as_offered() -> None:
    side = negotiator(G722)
    lines = ("a=rtpmap:97 g722/8000", "a=rtpmap:121 telephone-event/8000/1", "a=fmtp:121 0-11")
    answer = read(side.answer(body(*lines, head="m=audio 4000 RTP/AVP 97 121")))
    assert answer.media[0].formats == ("97", "121")
    assert answer.media[0].attributes("rtpmap") == ["97 G722/8000", "121 telephone-event/8000"]
    assert agreed(side).payload_type == 97
    assert agreed(side).remote_payload_types == frozenset({97})
    assert agreed(side).telephone_event == 121
    assert (agreed(side).codec.clock_rate, agreed(side).codec.rate) == (8000, 16000)


def test_second_audio_section_where_the_first_cannot_be_used() -> None:
    side = negotiator()
    lines = ("m=audio 5000 RTP/AVP 8", "c=IN IP4 198.51.100.2", "m=audio 6000 RTP/AVP 0")
    offer = body(*lines, head="m=audio 4000 RTP/SAVP 0")
    answer = read(side.answer(offer))
    assert [media.port for media in answer.media] == [0, 20000, 0]
    assert (agreed(side).remote_address, agreed(side).remote_rtp_port) == ("198.51.100.2", 5000)
    # The place is kept in later exchanges, in both directions.
    assert [media.port for media in read(side.make_offer()).media] == [0, 20000, 0]
    side.rollback()
    both = body(*lines, head="m=audio 4000 RTP/AVP 0")
    assert [media.port for media in read(side.answer(both)).media] == [0, 20000, 0]


@pytest.mark.parametrize(
    ("line", "address", "answered", "send", "receive", "held"),
    [
        ("a=sendrecv", "198.51.100.1", "sendrecv", True, True, False),
        ("a=sendonly", "198.51.100.1", "recvonly", False, True, True),
        ("a=recvonly", "198.51.100.1", "sendonly", True, False, False),
        ("a=inactive", "198.51.100.1", "inactive", False, False, True),
        ("a=sendrecv", "0.0.0.0", "recvonly", False, True, True),
        ("a=sendonly", "0.0.0.0", "recvonly", False, True, True),
        ("a=inactive", "0.0.0.0", "inactive", False, False, True),
    ],
)
@pytest.mark.parametrize("level", ["media", "session"])
def test_hold_and_resume(
    line: str, address: str, answered: str, send: bool, receive: bool, held: bool, level: str
) -> None:
    side = negotiator()
    first = side.answer(body())
    before = agreed(side)
    address = f"IP4 {address}"
    offer = body(line, address=address)
    if level == "session":
        offer = body(address=address, session=(line,))
    answer = side.answer(offer)
    assert direction(answer) == answered
    now = agreed(side)
    assert (now.send, now.receive, now.held) == (send, receive, held)
    assert (now.remote_address, now.remote_rtcp) == (before.remote_address, before.remote_rtcp)
    side.answer(body())
    assert agreed(side) == before
    assert version(answer) - version(first) == (0 if answered == "sendrecv" else 1)


def test_hold_by_real_peers() -> None:
    side = negotiator()
    side.answer(captured("baresip_offer"))
    before = agreed(side)
    assert direction(side.answer(captured("baresip_hold"))) == "recvonly"
    assert agreed(side).held
    side.answer(captured("baresip_resume"))
    assert agreed(side) == before
    old = negotiator()
    assert direction(old.answer(captured("old_gateway_hold"))) == "recvonly"
    assert agreed(old).comfort_noise == 19
    assert agreed(old).remote_address == "0.0.0.0"


def test_opportunistic_srtp_with_a_real_peer() -> None:
    side = negotiator(srtp="optional")
    answer = read(side.answer(captured("baresip_srtp_offer")))
    assert answer.media[0].profile == "RTP/AVP"
    keys = agreed(side).srtp
    assert keys is not None
    side.answer(captured("baresip_srtp_hold"))
    assert agreed(side).srtp == keys
    assert agreed(side).held
    # With SRTP off the keys beside RTP/AVP are not looked at.
    plain = negotiator()
    assert read(plain.answer(captured("baresip_srtp_offer"))).media[0].attributes("crypto") == []
    assert agreed(plain).srtp is None


def test_our_offers_by_srtp_setting() -> None:
    off, optional, required = (
        read(negotiator(srtp=srtp).make_offer()).media[0]
        for srtp in ("off", "optional", "required")
    )
    assert (off.profile, off.attributes("crypto")) == ("RTP/AVP", [])
    assert (optional.profile, required.profile) == ("RTP/AVP", "RTP/SAVP")
    for section in (optional, required):
        lines = section.attributes("crypto")
        assert [line.split()[:2] for line in lines] == [["1", SUITES[0]], ["2", SUITES[1]]]
        assert len({line.split()[2] for line in lines}) == 2


@pytest.mark.parametrize(
    ("lines", "profile", "reason"),
    [
        ((), "RTP/SAVP", "no usable SRTP key"),
        ((), "RTP/AVP", "SRTP is required"),
        ((f"a=crypto:3 {SUITES[0]} inline:{TEXT_KEY}",), "RTP/SAVP", "no usable SRTP key"),
        ((f"a=crypto:1 {SUITES[1]} inline:{TEXT_KEY}",), "RTP/SAVP", "no usable SRTP key"),
        ((f"a=crypto:1 {SUITES[0]} inline:{TEXT_KEY}|1:1",), "RTP/SAVP", "no usable SRTP key"),
        ((f"a=crypto:1 {SUITES[0]} inline:{TEXT_KEY}",), "UDP/TLS/RTP/SAVP", "transport not"),
    ],
)
def test_answers_without_a_key_that_fits(lines: tuple[str, ...], profile: str, reason: str) -> None:
    side = negotiator(srtp="required")
    side.make_offer()
    with pytest.raises(NotAcceptable, match=reason):
        side.take_answer(body(*lines, head=f"m=audio 4000 {profile} 0"))
    assert side.agreed is None
    assert side.offering


def test_an_answer_that_mirrors_our_key_is_refused() -> None:
    side = negotiator(srtp="required")
    with pytest.raises(NotAcceptable, match="answer repeats our SRTP key"):
        side.take_answer(side.make_offer())


def test_either_suite_may_be_answered() -> None:
    for tag, suite in enumerate(SUITES, 1):
        side = negotiator(srtp="required")
        side.make_offer()
        line = f"a=crypto:{tag} {suite} inline:{TEXT_KEY}"
        side.take_answer(body(line, head="m=audio 4000 RTP/SAVP 0"))
        keys = agreed(side).srtp
        assert keys is not None
        assert (keys.suite, keys.local) == (suite, bytes([tag]) * 30)


def test_rekeying_changes_both_keys_and_nothing_else_does() -> None:
    side = negotiator(srtp="optional")
    offer = captured("twilio_secure_offer")
    side.answer(offer)
    first = agreed(side).srtp
    side.answer(offer.replace(b"a=sendrecv", b"a=sendonly"))
    assert agreed(side).srtp == first
    side.answer(offer.replace(b"inline:d0Rm", b"inline:e0Rm"))
    second = agreed(side).srtp
    assert first is not None
    assert second is not None
    assert first.local != second.local
    assert first.remote != second.remote
    repeated = read(side.make_offer()).media[0].attributes("crypto")
    assert [parse_key(line) for line in repeated] == [second.local]


def parse_key(line: str) -> bytes:
    return base64.b64decode(line.rpartition(":")[2])


def test_a_suite_taken_up_again_gets_a_new_key() -> None:
    side = negotiator(srtp="required")
    keys = []
    for tag in (1, 2, 1):
        side.make_offer()
        line = f"a=crypto:{tag} {SUITES[tag - 1]} inline:{TEXT_KEY}"
        side.take_answer(body(line, head="m=audio 4000 RTP/SAVP 0"))
        srtp = agreed(side).srtp
        assert srtp is not None
        keys.append(srtp.local)
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    ("lines", "ptime", "expected"),
    [
        ((), 20, 20),
        ((), 30, 30),
        (("a=ptime:10",), 20, 10),
        (("a=ptime:30",), 20, 30),
        (("a=ptime:60",), 20, 60),
        (("a=ptime:20.0",), 30, 20),
        (("a=ptime:5",), 20, 20),
        (("a=ptime:25",), 20, 20),
        (("a=ptime:200",), 20, 20),
        (("a=ptime:abc",), 20, 20),
        (("a=maxptime:10",), 20, 10),
        (("a=maxptime:3",), 20, 10),
        (("a=ptime:40", "a=maxptime:35"), 20, 30),
        (("a=maxptime:150",), 20, 20),
    ],
)
def test_packet_times(lines: tuple[str, ...], ptime: int, expected: int) -> None:
    side = negotiator(ptime=ptime)
    answer = read(side.answer(body(*lines)))
    assert agreed(side).ptime_ms == expected
    assert answer.media[0].attribute("ptime") == str(expected)


@pytest.mark.parametrize(
    ("lines", "rtcp", "mux"),
    [
        ((), ("198.51.100.1", 4001), False),
        (("a=rtcp:5555",), ("198.51.100.1", 5555), False),
        (("a=rtcp:5555 IN IP4 198.51.100.7",), ("198.51.100.7", 5555), False),
        (("a=rtcp:5555 IN IP4 gw.example",), ("198.51.100.1", 5555), False),
        (("a=rtcp:0",), ("198.51.100.1", 4001), False),
        (("a=rtcp:99999",), ("198.51.100.1", 4001), False),
        (("a=rtcp-mux",), ("198.51.100.1", 4000), True),
        (("a=rtcp-mux", "a=rtcp:5555"), ("198.51.100.1", 4000), True),
    ],
)
def test_where_rtcp_goes(lines: tuple[str, ...], rtcp: tuple[str, int], mux: bool) -> None:
    side = negotiator()
    side.answer(body(*lines))
    assert (agreed(side).remote_rtcp, agreed(side).rtcp_mux) == (rtcp, mux)
    assert (read(side.make_offer()).media[0].attribute("rtcp-mux") is not None) is mux


@pytest.mark.parametrize("name", ["baresip_answer", "sipp_offer", "twilio_offer"])
def test_answers_of_real_peers(name: str) -> None:
    side = negotiator(PCMU, PCMA)
    side.make_offer()
    side.take_answer(captured(name))
    assert agreed(side).codec is PCMU
    assert not side.offering


def test_an_answer_with_numbers_of_its_own() -> None:
    side = negotiator(PCMU, G722)
    side.make_offer()
    lines = ("a=rtpmap:97 G722/8000", "a=rtpmap:96 telephone-event/8000")
    side.take_answer(body(*lines, head="m=audio 4000 RTP/AVP 97 0 96"))
    result = agreed(side)
    assert (result.codec, result.payload_type, result.telephone_event) == (G722, 97, 96)
    assert result.remote_payload_types == frozenset({9, 97})
    assert result.remote_telephone_events == frozenset({96, 101})
    assert result.formats == ((9, G722), (0, PCMU), (97, G722))


def test_an_answer_that_leaves_out_the_map_of_telephone_events() -> None:
    side = negotiator()
    side.make_offer()
    answer = body(head="m=audio 4000 RTP/AVP 0 101")
    side.take_answer(answer.replace(b"a=rtpmap:101 telephone-event/8000\r\n", b""))
    assert agreed(side).telephone_event == 101
    # An offer has nothing to refer to.
    other = negotiator()
    other.answer(answer.replace(b"a=rtpmap:101 telephone-event/8000\r\n", b""))
    assert agreed(other).telephone_event is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (body(head="m=audio 0 RTP/AVP 0"), "audio refused"),
        (body(head="m=audio 4000 RTP/AVP 9"), "no codec in common"),
        (body(head="m=video 4000 RTP/AVP 0"), "answer lacks our audio"),
        (b"v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\n", "answer lacks our audio"),
        (body(address="IP6 ::1"), "other IP version"),
    ],
)
def test_answers_that_end_the_first_exchange(answer: bytes, reason: str) -> None:
    side = negotiator()
    side.make_offer()
    with pytest.raises(NotAcceptable, match=reason):
        side.take_answer(answer)
    assert side.agreed is None


def test_answer_without_an_offer() -> None:
    side = negotiator()
    with pytest.raises(SdpError, match="answer without an offer"):
        side.take_answer(body())
    side.answer(body())
    with pytest.raises(SdpError, match="answer without an offer"):
        side.take_answer(body())


def test_offer_while_ours_is_open() -> None:
    side = negotiator()
    side.make_offer()
    with pytest.raises(NotAcceptable) as caught:
        side.answer(body())
    assert caught.value.status == 491
    side.rollback()
    side.answer(body())
    assert side.agreed is not None


def test_forks_each_bring_an_answer() -> None:
    side = negotiator()
    side.make_offer()
    side.take_answer(body(head="m=audio 4000 RTP/AVP 0"))
    side.take_answer(body(head="m=audio 5000 RTP/AVP 8"))
    assert (agreed(side).codec, agreed(side).remote_rtp_port) == (PCMA, 5000)


def test_reoffers_repeat_what_stands() -> None:
    side = negotiator(PCMU, PCMA, G722, srtp="optional")
    first = side.make_offer()
    side.take_answer(captured("baresip_answer"))
    assert side.make_offer() == first
    assert side.make_offer() == first  # as after a 401, or a 491
    side.take_answer(captured("baresip_answer"))
    hold = side.make_offer(direction="sendonly")
    assert version(hold) == version(first) + 1
    side.rollback()
    assert version(side.make_offer()) == version(hold) + 1

    called = negotiator(PCMU, PCMA)
    answer = called.answer(captured("baresip_offer"))
    assert called.answer(captured("baresip_offer")) == answer
    assert called.make_offer() == answer


def test_a_reoffer_that_failed_leaves_the_old_state() -> None:
    side = negotiator()
    side.answer(body())
    before = agreed(side)
    side.make_offer(direction="inactive")
    with pytest.raises(NotAcceptable):
        side.take_answer(body(head="m=audio 4000 RTP/AVP 18"))
    side.rollback()
    side.rollback()
    assert agreed(side) is before
    assert direction(side.answer(body())) == "sendrecv"


def test_full_offer_for_a_third_party() -> None:
    side = negotiator(PCMU, PCMA, G722, srtp="optional")
    side.answer(body("a=rtpmap:8 iLBC/8000", head="m=audio 4000 RTP/AVP 8 0"))
    media = read(side.make_offer(full=True)).media[0]
    assert media.formats == ("0", "8", "9", "101")
    assert len(media.attributes("crypto")) == 2
    side.take_answer(body(head="m=audio 4000 RTP/AVP 8"))
    assert agreed(side).codec is PCMA


def test_our_hold_lasts_through_the_peers_reoffers() -> None:
    side = negotiator()
    side.answer(body())
    side.make_offer(direction="sendonly")
    side.take_answer(body("a=recvonly"))
    assert (agreed(side).send, agreed(side).receive, agreed(side).held) == (True, False, False)
    assert direction(side.answer(body("a=sendrecv"))) == "sendonly"
    assert direction(side.answer(body("a=sendonly"))) == "inactive"
    assert agreed(side).held
    # An offer that would not send anything leaves open whether we are held.
    side.make_offer(direction="inactive")
    side.take_answer(body("a=inactive"))
    assert agreed(side).held
    side.make_offer()
    side.take_answer(body("a=sendrecv"))
    assert (agreed(side).send, agreed(side).receive, agreed(side).held) == (True, True, False)


def test_codec_in_use_is_kept_in_reoffers() -> None:
    side = negotiator(PCMU, PCMA)
    side.make_offer()
    side.take_answer(body(head="m=audio 4000 RTP/AVP 8"))
    side.answer(body(head="m=audio 4000 RTP/AVP 0 8"))
    assert agreed(side).codec is PCMA
    side.answer(body(head="m=audio 4000 RTP/AVP 0"))
    assert agreed(side).codec is PCMU


def test_stream_switched_off_and_on() -> None:
    side = negotiator()
    side.answer(body())
    before = agreed(side)
    answer = read(side.answer(body(head="m=audio 0 RTP/AVP 0")))
    assert [(media.kind, media.port) for media in answer.media] == [("audio", 0)]
    assert (agreed(side).send, agreed(side).receive, agreed(side).held) == (False, False, True)
    side.answer(body())
    assert agreed(side) == before
    side.make_offer()
    side.take_answer(body(head="m=audio 0 RTP/AVP 0"))
    assert (agreed(side).send, agreed(side).receive) == (False, False)
    side.make_offer()
    side.take_answer(body())
    assert agreed(side).send


def test_reoffer_without_any_audio_is_refused() -> None:
    side = negotiator()
    side.answer(body())
    assert refused(side, body(head="m=video 4000 RTP/AVP 31")).startswith("304 ")


def test_peer_that_lets_sections_vanish() -> None:
    side = negotiator()
    side.answer(body("m=audio 5000 RTP/AVP 0", head="m=video 4000 RTP/AVP 31"))
    side.answer(body(head="m=audio 0 RTP/AVP 0"))
    offer: Direction = "sendrecv"
    assert [media.port for media in read(side.make_offer(direction=offer)).media] == [0, 20000]


@pytest.mark.parametrize("held", [False, True])
def test_an_offer_that_wants_nothing_tells_nothing_of_a_hold(held: bool) -> None:
    """Whoever is offered no audio can only answer that it receives none."""
    side = negotiator()
    side.answer(body("a=sendonly" if held else "a=sendrecv"))
    assert agreed(side).held is held
    side.make_offer(direction="inactive")
    side.take_answer(body("a=inactive"))
    assert agreed(side).held is held
    side.make_offer(direction="sendonly")
    side.take_answer(body("a=inactive"))
    assert agreed(side).held is True
