"""One call's audio over RTP, on a wire and a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rtp.peer import SDP, Wire, audio, digits, key, parameters, rtp, stream_on, voice
from voiced import audio as native
from voiced.formats import PCM16_16K, PCMU_8K
from voiced.leg import CallerAudio
from voiced.rtp import rtcp
from voiced.rtp.media import Address, MediaClosed, QueueFull, SrtpKeys
from voiced.rtp.srtp import Srtp
from voiced.rtp.stream import MediaStream

STRANGER: Address = ("198.51.100.66", 6666)
KEYS = SrtpKeys("AES_CM_128_HMAC_SHA1_80", bytes(range(30)), bytes(range(50, 80)))
THEIRS = SrtpKeys(KEYS.suite, KEYS.remote, KEYS.local)


# Functions, because properties may change between two looks.
def gone(stream: MediaStream) -> bool:
    return stream.timed_out


def pressing(stream: MediaStream) -> bool:
    return stream.sending_digits


# ---- out


def test_silence_flows_from_the_beginning() -> None:
    """For NATs, latches and inactivity timers of the other side."""
    wire = Wire()
    stream_on(wire)
    wire.run(1.0)
    assert {(data[12:], to) for _, data, to in wire.rtp} == {(b"\xff" * 160, SDP)}
    packets = wire.packets()
    assert len(packets) == 50
    assert [p.marker for p in packets] == [True] + [False] * 49
    assert all(p.payload_type == 0 for p in packets)


def test_nothing_leaves_before_begin_and_the_queue_waits() -> None:
    wire = Wire()
    stream = MediaStream(wire, now=wire.now)
    with pytest.raises(RuntimeError):
        stream.begin()
    with pytest.raises(RuntimeError):
        stream.send(b"x")
    with pytest.raises(RuntimeError):
        _ = stream.format
    stream.configure(parameters())
    stream.send(bytes(800))
    assert stream.seconds_until(800) == pytest.approx(0.1)
    wire.run(1.0)
    assert (wire.rtp, stream.heard()) == ([], 0)
    stream.begin()
    stream.begin()
    wire.run(0.1)
    assert stream.heard() == 800


@given(st.lists(st.tuples(st.integers(0, 4000), st.floats(0, 0.5)), max_size=20), st.data())
def test_seconds_until_is_when_it_is_heard(
    pieces: list[tuple[int, float]], data: st.DataObject
) -> None:
    wire = Wire()
    stream = stream_on(wire)
    for size, pause in pieces:
        stream.send(bytes(size))
        wire.run(pause)
        assert 0 <= stream.heard() <= stream.sent()
    position = data.draw(st.integers(0, stream.sent()))
    left = stream.seconds_until(position)
    assert (left == 0) == (stream.heard() >= position)
    wire.run(max(0.0, left - 0.0011))
    assert stream.heard() < position or left <= 0.0011
    wire.run(0.0012)
    assert stream.heard() >= position
    wire.run(stream.seconds_until(stream.sent()) + 1e-5)
    assert stream.heard() == stream.sent()
    assert stream.seconds_until(stream.sent()) == 0


def test_a_part_of_a_frame_is_played_when_its_time_comes() -> None:
    wire = Wire()
    stream = stream_on(wire)
    wire.run(0.02)
    stream.send(b"\x05" * 200)
    wire.run(0.04)
    assert stream.heard() == stream.sent() == 200
    stream.send(b"\x06" * 160)
    wire.run(0.02)
    assert [p.payload for p in wire.packets()[1:]] == [
        b"\x05" * 160,
        b"\x05" * 40 + b"\xff" * 120,
        b"\x06" * 160,
    ]


def test_clear_is_at_once() -> None:
    wire = Wire()
    stream = stream_on(wire)
    stream.send(b"\x05" * 8000)
    wire.run(0.1)
    heard = stream.heard()
    assert stream.clear() == heard == 800
    assert (stream.sent(), stream.heard()) == (0, 0)
    wire.packets()
    wire.run(0.1)
    assert {p.payload for p in wire.packets()} == {b"\xff" * 160}
    assert stream.heard() == 0


def test_a_stall_is_passed_over() -> None:
    """Nothing in a burst, no word lost, the timestamp as far on as the clock, and the marker."""
    wire = Wire()
    stream = stream_on(wire)
    stream.send(bytes(n % 200 for n in range(1600)))
    wire.run(0.06)
    before = wire.packets()
    wire.stall(0.51)
    after = wire.packets()
    assert 1 <= len(after) <= 2
    assert after[0].marker
    assert (after[0].sequence - before[-1].sequence) & 0xFFFF == 1
    gap = (after[0].timestamp - before[-1].timestamp) & 0xFFFFFFFF
    assert gap == pytest.approx(0.5 * 8000, abs=320)
    wire.run(1.0)
    everything = b"".join(p.payload for p in [*before, *after, *wire.packets()])
    assert everything.startswith(bytes(n % 200 for n in range(1600)))
    assert stream.statistics().skipped_ms == pytest.approx(500, abs=40)
    grid = {round(at * 1000 - 1_000_000, 3) % 20 for at, _, _ in wire.rtp}
    assert grid <= {0.0}


def test_a_short_delay_is_caught_up() -> None:
    wire = Wire()
    stream = stream_on(wire)
    wire.run(0.1)
    wire.packets()
    wire.stall(0.039)
    assert len(wire.packets()) == 2
    assert stream.statistics().skipped_ms == 0


def test_the_queue_is_bounded() -> None:
    wire = Wire()
    stream = MediaStream(wire, now=wire.now, max_queued_ms=100)
    stream.configure(parameters())
    with pytest.raises(QueueFull):
        stream.send(bytes(801))


def test_keys_are_pressed() -> None:
    wire = Wire()
    stream = stream_on(wire)
    other = stream_on(Wire())
    stream.send(b"\x05" * 1600)
    stream.send_digits("12#")
    assert pressing(stream)
    wire.run(1.0)
    assert not pressing(stream)
    assert stream.heard() == 1600
    for at, data, _ in wire.rtp:
        other.rtp_received(data, SDP, at)
    taken = other.take()
    assert digits(taken) == "12#"
    assert audio(taken).count(b"\x05") == 1600
    assert len(audio(taken)) == pytest.approx(8000, abs=320)


def test_keys_that_the_peer_does_not_take() -> None:
    stream = stream_on(Wire(), telephone_event=None)
    assert not stream.takes_digits
    with pytest.raises(ValueError, match="telephone events"):
        stream.send_digits("1")


# ---- in


def test_there_is_something_to_take() -> None:
    wire = Wire()
    stream = stream_on(wire)
    told: list[int] = []
    stream.on_media = lambda: told.append(1)
    for n in range(3):
        stream.rtp_received(rtp(n, voice(n)), SDP, wire.at)
    assert told == [1]
    assert stream.take() == [CallerAudio(voice(0) + voice(1) + voice(2))]
    stream.rtp_received(key(3, 480, "5", 160), SDP, wire.at)
    assert told == [1, 1]


def test_strangers_are_not_heard_and_do_not_steer() -> None:
    wire = Wire()
    stream = stream_on(wire)
    stream.rtp_received(rtp(0, voice(0)), SDP, wire.at)
    for n in range(50):
        stream.rtp_received(rtp(n, voice(99), ssrc=66), STRANGER, wire.at)
        stream.rtcp_received(rtcp.build(rtcp.Compound(66, bye=True)), STRANGER, wire.at)
    assert audio(stream.take()) == voice(0)
    assert stream.remote == SDP
    assert not stream.said_bye
    assert stream.statistics().strangers == 100


def test_behind_a_nat_nothing_is_lost_and_answers_go_there() -> None:
    wire = Wire()
    stream = stream_on(wire, remote_rtp=("10.0.0.4", 4000), remote_rtcp=("10.0.0.4", 4001))
    outside = ("203.0.113.5", 50_000)
    for n in range(6):
        stream.rtp_received(rtp(n, voice(n)), outside, wire.at)
    assert audio(stream.take()) == b"".join(voice(n) for n in range(6))
    wire.run(20)
    assert wire.rtp[-1][2] == outside
    assert wire.rtcp[-1][2] == ("203.0.113.5", 50_001)


def test_what_is_no_rtp_on_the_rtp_port() -> None:
    wire = Wire()
    stream = stream_on(wire, rtcp_mux=True)
    stun, dtls = b"\0\1\0\0" + bytes(16), b"\x16\xfe\xff" + bytes(20)
    for data in (b"", stun, dtls, b"\x80\x00", b"hello world!!"):
        stream.rtp_received(data, SDP, wire.at)
    stream.rtp_received(rtcp.build(rtcp.Compound(7, bye=True)), SDP, wire.at)
    assert stream.said_bye
    assert stream.statistics().malformed == 5
    wire.run(10)
    assert wire.rtcp == []
    assert any(192 <= data[1] < 224 for _, data, _ in wire.rtp)


@given(st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=30))
def test_noise_breaks_nothing(noise: list[tuple[bytes, bool]]) -> None:
    wire = Wire()
    stream = stream_on(wire)
    for data, control in noise:
        (stream.rtcp_received if control else stream.rtp_received)(data, SDP, wire.at)
        wire.run(0.02)
        stream.take()


def test_types_the_peer_may_change_between() -> None:
    """It was told of both laws, and sends now one, now the other."""
    wire = Wire()
    stream = stream_on(wire, accepted={0: "PCMU", 8: "PCMA", 101: "telephone-event"})
    stream.rtp_received(rtp(0, b"\xff" * 160), SDP, wire.at)
    stream.rtp_received(rtp(1, b"\xd5" * 160, payload_type=8), SDP, wire.at)
    stream.rtp_received(rtp(2, b"\xff" * 160), SDP, wire.at)
    taken = audio(stream.take())
    assert len(taken) == 480
    assert taken == b"\xff" * 160 + native.alaw_to_ulaw(b"\xd5" * 160) + b"\xff" * 160


@pytest.mark.parametrize(
    ("named", "used"),
    [
        (None, ("192.0.2.7", 30001)),
        (("192.0.2.9", 5), ("192.0.2.9", 5)),
        (("a.b", 5), (SDP[0], 30001)),
    ],
)
def test_where_reports_go(named: Address | None, used: Address) -> None:
    """RFC 3605; a name would have to be looked up, and is not used."""
    wire = Wire()
    stream_on(wire, remote_rtcp=named)
    wire.run(10)
    assert {to for _, _, to in wire.rtcp} == {used}


def test_there_is_no_port_above_the_last() -> None:
    wire = Wire()
    stream = stream_on(wire, remote_rtp=("192.0.2.7", 65535))
    wire.run(10)
    assert {to for _, _, to in wire.rtcp} == {("192.0.2.7", 65535)}
    assert stream.remote == ("192.0.2.7", 65535)


def test_silence_of_the_peer_is_noticed_once() -> None:
    wire = Wire()
    told: list[float] = []
    stream = stream_on(wire)
    stream.on_media = lambda: told.append(wire.at)
    wire.run(29.9)
    assert not gone(stream)
    wire.run(0.2)
    assert gone(stream)
    assert len(told) == 1
    stream.rtp_received(rtp(0, voice(0)), SDP, wire.at)
    assert not gone(stream)
    stream.take()
    wire.run(14.9)
    stream.take()
    assert not gone(stream)
    wire.run(0.2)
    stream.take()
    assert gone(stream)
    assert stream.silent_for_s() == pytest.approx(15.1)


def test_a_peer_that_suppresses_silence_is_known_by_its_reports() -> None:
    wire = Wire()
    stream = stream_on(wire)
    report = rtcp.build(rtcp.Compound(7, cname="peer"))

    def reports(data: bytes, seconds: int) -> None:
        for _ in range(seconds // 5):
            wire.run(5)
            stream.rtcp_received(data, SDP, wire.at)
            stream.take()

    stream.rtp_received(rtp(0, voice(0)), SDP, wire.at)
    reports(report, 60)
    assert not gone(stream)
    wire.run(14.9)
    assert not gone(stream)
    wire.run(0.2)
    assert gone(stream)
    reports(rtcp.build(rtcp.Compound(7, bye=True)), 10)
    assert gone(stream)


def test_reports_are_no_audio_where_none_has_ever_come() -> None:
    wire = Wire()
    stream = stream_on(wire)
    for _ in range(6):
        wire.run(5.1)
        stream.rtcp_received(rtcp.build(rtcp.Compound(7, cname="peer")), SDP, wire.at)
    assert gone(stream)


# ---- hold


def test_hold() -> None:
    """No audio either way; reports go on, the queue waits; no timeout, no gap filled after it."""
    wire = Wire()
    stream = stream_on(wire)
    stream.rtp_received(rtp(0, voice(0)), SDP, wire.at)
    stream.take()
    stream.send(b"\x05" * 1600)
    wire.run(0.1)
    stream.pause(True)
    wire.packets()
    heard = stream.heard()
    wire.run(60)
    stream.rtp_received(rtp(3000, voice(1)), SDP, wire.at)
    assert stream.take() == []
    assert (wire.packets(), stream.heard()) == ([], heard)
    assert len(wire.rtcp) >= 8
    assert not gone(stream)
    stream.pause(False)
    wire.run(0.1)
    packets = wire.packets()
    assert packets[0].marker
    assert stream.heard() == heard + 800
    stream.rtp_received(rtp(3005, voice(2)), SDP, wire.at)
    assert stream.take() == [CallerAudio(voice(2))]


def test_held_by_the_peer() -> None:
    wire = Wire()
    stream = stream_on(wire)
    wire.run(0.1)
    wire.packets()
    stream.configure(parameters(send=False, receive=False))
    wire.run(60)
    assert wire.packets() == []
    assert stream.silent_for_s() == 0
    stream.configure(parameters())
    wire.run(0.1)
    assert len(wire.packets()) == 5


# ---- re-negotiation


def test_another_codec_keeps_format_source_and_position() -> None:
    wire = Wire()
    stream = stream_on(wire)
    stream.send(b"\xff" * 1600)
    wire.run(0.1)
    before = wire.packets()[-1]
    stream.configure(parameters(codec="PCMA", payload_type=8))
    assert stream.format == PCMU_8K
    wire.run(0.1)
    after = wire.packets()
    assert after[0].ssrc == before.ssrc == stream.ssrc
    assert after[0].sequence == (before.sequence + 1) & 0xFFFF
    assert {p.payload_type for p in after} == {8}
    assert {p.payload for p in after} == {b"\xd5" * 160}
    assert stream.heard() == 1600
    stream.rtp_received(rtp(0, b"\xd5" * 160, payload_type=8), SDP, wire.at)
    assert stream.take() == [CallerAudio(native.alaw_to_ulaw(b"\xd5" * 160))]


def test_g722_is_the_legs_format_when_it_is_first() -> None:
    wire = Wire()
    stream = stream_on(wire, codec="G722", payload_type=9)
    assert stream.format == PCM16_16K
    stream.send(bytes(640))
    wire.run(0.02)
    assert len(wire.packets()[0].payload) == 160
    assert stream.heard() == 640


def test_a_new_address() -> None:
    wire = Wire()
    stream = stream_on(wire)
    stream.rtp_received(rtp(0, voice(0)), SDP, wire.at)
    elsewhere = ("192.0.2.8", 4444)
    stream.configure(parameters(remote_rtp=elsewhere))
    wire.run(0.02)
    assert wire.rtp[-1][2] == elsewhere
    stream.rtp_received(rtp(1, voice(1)), elsewhere, wire.at)
    stream.rtp_received(rtp(2, voice(2)), SDP, wire.at)
    assert audio(stream.take()) == voice(0) + voice(1)


def test_another_packet_time() -> None:
    wire = Wire()
    stream = stream_on(wire)
    wire.run(0.1)
    stream.configure(parameters(ptime_ms=30))
    wire.packets()
    wire.run(0.3)
    packets = wire.packets()
    assert {len(p.payload) for p in packets} == {240}
    assert len(packets) == 10
    with pytest.raises(ValueError, match="25 ms"):
        stream.configure(parameters(ptime_ms=25))
    with pytest.raises(ValueError, match="opus"):
        stream.configure(parameters(codec="opus"))
    assert stream.parameters == parameters(ptime_ms=30)


# ---- reports, SRTP, the end


def test_reports_both_ways() -> None:
    ours, theirs = Wire(), Wire()
    a, b = stream_on(ours), stream_on(theirs)
    for _ in range(1500):
        ours.run(0.02)
        theirs.run(0.02)
        for wire, end in ((ours, b), (theirs, a)):
            for at, data, _ in wire.rtp:
                if data[3] % 10:  # every tenth is lost, or so
                    end.rtp_received(data, SDP, at + 0.01)
            for at, data, _ in wire.rtcp:
                end.rtcp_received(data, SDP, at + 0.01)
            wire.rtp.clear()
            wire.rtcp.clear()
        a.take()
        b.take()
    for end in (a, b):
        known = end.statistics()
        assert known.packets == pytest.approx(1350, rel=0.02)
        assert known.lost == pytest.approx(150, rel=0.15)
        assert known.remote_lost == pytest.approx(known.lost, rel=0.4)
        assert known.remote_fraction_lost == pytest.approx(0.1, abs=0.05)
        assert known.rtt_ms is not None
        assert known.jitter_ms < 1
        assert sum(count for _, count in known.lateness) == 1500
    first = rtcp.parse(b._control.reporter.report(theirs.at, None, b._receiver.source()))
    assert first.reports[0].ssrc == a.ssrc


def test_srtp() -> None:
    wire = Wire()
    stream = stream_on(wire, srtp=KEYS)
    peer = Srtp(THEIRS)
    stream.send(b"\x05" * 160)
    wire.run(12)
    plain = peer.unprotect(wire.rtp[0][1])
    assert plain is not None
    assert plain[12:] == b"\x05" * 160
    assert peer.unprotect_rtcp(wire.rtcp[0][1]) is not None
    # Who knows the key is believed wherever it sends from, and nobody else.
    stream.rtp_received(rtp(0, voice(9)), STRANGER, wire.at)
    moved = ("203.0.113.77", 7777)
    for n in range(3):
        secret = peer.protect(rtp(n, voice(n)))
        assert secret is not None
        stream.rtp_received(secret, moved, wire.at)
        stream.rtp_received(secret, moved, wire.at)
    assert audio(stream.take()) == voice(0) + voice(1) + voice(2)
    assert stream.remote == moved
    known = stream.statistics()
    assert (known.strangers, known.undecryptable) == (1, 4)


def test_the_end() -> None:
    wire = Wire()
    stream = stream_on(wire)
    wire.run(0.1)
    stream.close()
    stream.close()
    assert wire.closed == 1
    assert rtcp.parse(wire.rtcp[-1][1]).bye
    with pytest.raises(MediaClosed):
        stream.send(b"x")
    with pytest.raises(MediaClosed):
        stream.send_digits("1")
    assert stream.clear() == 0
    stream.rtp_received(rtp(0, voice(0)), SDP, wire.at)


def test_who_listens_is_let_go_of_with_the_end() -> None:
    """A dialogue, and with it its stream, outlives the call by its timers; the ears must not."""
    wire = Wire()
    stream = MediaStream(wire, now=wire.now)
    stream.on_played = lambda payload, at_s: None
    stream.close()
    assert stream.on_played is None


def test_closed_before_anything_was_agreed() -> None:
    wire = Wire()
    stream = MediaStream(wire, now=wire.now)
    stream.rtp_received(rtp(0, voice(0)), SDP, wire.at)
    stream.close()
    assert (wire.closed, wire.rtp, wire.rtcp) == (1, [], [])
    assert stream.statistics().strangers == 1
