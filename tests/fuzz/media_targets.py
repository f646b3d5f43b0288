"""Fuzz targets of what a call's media is made of: SDP, RTP, RTCP, telephone events."""

from __future__ import annotations

from collections.abc import Iterator

from voiced.leg import CallerAudio
from voiced.rtp import packet, rtcp, telephone_event
from voiced.rtp.media import Address, MediaParameters, Paced
from voiced.rtp.stream import MediaStream
from voiced.sip import sdp
from voiced.sip.errors import SipError
from voiced.sip.negotiation import CODECS, LocalMedia, Negotiator, Srtp

__all__ = ["event_target", "packet_target", "rtcp_target", "rtp_target", "sdp_target"]

_MODES: tuple[Srtp, ...] = ("off", "optional", "required")
_LOCAL = LocalMedia("192.0.2.1", 20000)
_PEER: Address = ("192.0.2.2", 30000)


def sdp_target(data: bytes) -> None:
    """A description is kept as it came; what it offers is agreed to, or a `SipError`."""
    try:
        description = sdp.parse(data)
    except sdp.SdpError as error:
        assert error.status in {400, 413}, error.status  # noqa: PT017 - what else could see it
    else:
        assert sdp.parse(bytes(description)) == description
    if len(data) % 2:
        _answer(data)
    else:
        _be_answered(data)


def _negotiator(data: bytes) -> Negotiator:
    mode = _MODES[len(data) % len(_MODES)]
    return Negotiator(_LOCAL, list(CODECS.values()), mode, 1, key=lambda: bytes(30))


def _answer(data: bytes) -> None:
    negotiator = _negotiator(data)
    try:
        answer = negotiator.answer(data)
    except SipError:
        assert negotiator.agreed is None
        assert negotiator.make_offer()
        return
    assert negotiator.agreed is not None
    offered, answered = sdp.parse(data), sdp.parse(answer)
    assert [each.kind for each in answered.media] == [each.kind for each in offered.media]
    agreed = negotiator.agreed
    assert negotiator.answer(data) == answer
    assert negotiator.agreed == agreed


def _be_answered(data: bytes) -> None:
    negotiator = _negotiator(data)
    negotiator.make_offer()
    try:
        negotiator.take_answer(data)
    except SipError:
        assert negotiator.agreed is None
        negotiator.rollback()
    else:
        assert negotiator.agreed is not None
    assert negotiator.make_offer()


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """A byte, and as many bytes as the next one says, until the data ends."""
    position = 0
    while position + 2 <= len(data):
        length = data[position + 1]
        yield data[position], data[position + 2 : position + 2 + length]
        position += 2 + length


def packet_target(data: bytes) -> None:
    """A packet is read as it is written, whatever is in it."""
    try:
        read = packet.parse(data)
    except packet.MalformedPacket:
        return
    assert packet.kind(data) != "other"
    written = packet.build(
        *read[:5],
        marker=read.marker,
        csrcs=read.csrcs,
        extension=read.extension,
        padding=read.padding,
    )
    assert len(written) == len(data)
    assert packet.parse(written) == read


class _Nowhere:
    """A transport that loses everything, for a stream whose ticks we make ourselves."""

    def send_rtp(self, data: bytes, to: Address) -> None:
        assert packet.kind(data) == "rtp"

    def send_rtcp(self, data: bytes, to: Address) -> None:
        assert packet.kind(data) == "rtcp"

    def begin(self, paced: Paced) -> float:
        return 1000.0

    def keep_time(self) -> None:
        pass

    def close(self) -> None:
        pass


def rtp_target(data: bytes) -> None:
    """Any datagrams at any times: a stream raises nothing, and gives no more than it may hold."""
    clock = [1000.0]
    stream = MediaStream(_Nowhere(), now=lambda: clock[0], cname="fuzz")
    codecs = {0: "PCMU", 8: "PCMA", 101: "telephone-event", 13: "CN"}
    stream.configure(MediaParameters("PCMU", 0, _PEER, codecs, telephone_event=101))
    stream.begin()
    taken = 0
    for number, (wait, datagram) in enumerate(_pieces(data)):
        clock[0] += (wait & 0x7F) / 200
        if wait & 0x80:
            stream.rtcp_received(datagram, (_PEER[0], _PEER[1] + 1), clock[0])
        else:
            stream.rtp_received(datagram, _PEER, clock[0])
        stream.tick(clock[0], clock[0])
        if number % 4 == 3:
            taken += _length(stream)
    taken += _length(stream)
    statistics = stream.statistics()
    assert min(statistics.lost, statistics.late, statistics.filled_ms, statistics.packets) >= 0
    # Each datagram brings its own length at the most, and makes a second of time at the most, as
    # the pause before it does.
    assert taken <= sum(len(each) + 2 * 8000 for _, each in _pieces(data))
    stream.close()


def _length(stream: MediaStream) -> int:
    return sum(len(each.payload) for each in stream.take() if isinstance(each, CallerAudio))


def rtcp_target(data: bytes) -> None:
    """A compound packet is read as far as it goes, and a reporter survives what it says."""
    try:
        compound = rtcp.parse(data)
    except rtcp.MalformedRtcp:
        return
    reporter = rtcp.Reporter(compound.ssrc, "fuzz", 10.0, 1e9, lambda: 0.5)
    reporter.received(compound, 12.0)
    assert reporter.rtt_s is None or 0 <= reporter.rtt_s <= 60
    for source in (None, (1, 70000, 5, 3, 7.5)):
        said = reporter.report(13.0, compound.sender, source, bye=compound.bye)
        assert rtcp.parse(said).bye == compound.bye


def event_target(data: bytes) -> None:
    """Any run of event packets gives digits of the telephone, at most one a packet."""
    receiver = telephone_event.EventReceiver()
    now = 0.0
    for start in range(0, len(data) - 7, 8):
        chunk = data[start : start + 8]
        event = telephone_event.parse(chunk[:4])
        assert event is not None
        if chunk[1] & 0x40 == 0:
            assert bytes(event) == chunk[:4]
        now += chunk[4] / 100
        timestamp = int.from_bytes(chunk[5:8], "big") << 8 & 0xFFFFFFFF | chunk[5]
        digit, _ = receiver.receive(1 + chunk[7] % 2, timestamp, event, now)
        assert digit is None or digit in telephone_event.DIGITS
        assert isinstance(receiver.active(now), bool)
        assert 0 <= receiver.until <= 0xFFFFFFFF
    telephone_event.parse(data)
