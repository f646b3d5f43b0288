"""What arrived over RTP, packet by packet: loss, order, jitter, and the sender's pacing, sans-I/O.

Times are whole microseconds of the receiver's clock. Pacing is judged against the grid that the
sender's own timestamps draw: a packet is as late as its arrival lies behind its timestamp, the
earliest packet of a talk spurt being on time by definition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from voiced.simulate.figures import Spread
from voiced.simulate.rtp_packets import BadPacket, RtpPacket, parse_event, parse_rtp

__all__ = ["BURST_US", "Audio", "Receiver"]

BURST_US: Final = 5_000
"""Packets of 20 ms that come closer than this were not paced."""
US_PER_TICK: Final = 125  # of the 8 kHz clock
_WINDOW: Final = 512  # sequence numbers remembered, to tell late ones from repeated ones
_MAX_JUMP: Final = 3000  # a sequence jump beyond this is a restart (RFC 3550 appendix A.1)
_KEPT: Final = 500_000  # pacing samples, nearly three hours: a call is shorter


@dataclass(frozen=True, slots=True)
class Audio:
    """G.711 to play, and how many samples are missing before it."""

    payload_type: int
    payload: bytes
    missing: int


class Receiver:
    """One direction of one call. `events` is the payload type of telephone-event."""

    def __init__(self, payload_types: Sequence[int], events: int | None) -> None:
        self.payload_types = frozenset(payload_types)
        self.events = events
        self.ssrc: int | None = None
        self.received = 0
        """Packets, repeated ones not counted."""
        self.duplicated = 0
        self.reordered = 0
        """Packets that came after one with a higher sequence number."""
        self.malformed = 0
        self.unexpected = 0
        """Packets of a payload type that was not agreed on."""
        self.strangers = 0
        """Packets from elsewhere than the agreed address, which were not looked at."""
        self.sources = 0
        """How many SSRCs there were."""
        self.bursts = 0
        self.longest_gap_us = 0
        self.first_us: int | None = None
        self.digits = ""
        self.jitter = 0.0  # in timestamp units, RFC 3550 section 6.4.1
        self.highest = 0  # extended sequence number
        self._base = 0  # extended sequence number of the source's first packet
        self._lost_before = 0  # with earlier sources
        self._received_here = 0
        self._seen: set[int] = set()
        self._order: deque[int] = deque()  # _WINDOW; what is in `_seen`
        self._last_us: int | None = None
        self._last_transit: int | None = None
        self._next_timestamp = self._last_timestamp = 0
        self._clock = 0  # timestamps unwrapped
        self._last_event: int | None = None
        self._spurt: list[int] = []  # arrival less timestamp, of the current talk spurt
        self._late: list[int] = []  # of the finished ones, _KEPT

    @property
    def lost(self) -> int:
        """Packets that never came; repeated ones do not make up for them."""
        if self.ssrc is None:
            return 0
        return self._lost_before + self._lost_here()

    def lateness(self) -> Spread | None:
        """How far packets lay behind the grid."""
        earliest = min(self._spurt, default=0)
        return Spread.of_us(self._late + [each - earliest for each in self._spurt])

    def paused(self) -> None:
        """The stream has been told to stop: the silence from now on is no gap."""
        self._last_us = None

    def receive(self, at_us: int, data: bytes) -> RtpPacket | None:
        """Take a datagram; returns its packet unless it repeats one or is none of ours."""
        try:
            packet = parse_rtp(data)
        except BadPacket:
            self.malformed += 1
            return None
        if packet.payload_type not in self.payload_types and packet.payload_type != self.events:
            self.unexpected += 1
            return None
        if packet.ssrc != self.ssrc:
            self._begin(packet)
        extended = self._extend(packet.sequence)
        if extended in self._seen:
            self.duplicated += 1
            return None
        self._remember(extended)
        self.received += 1
        self._received_here += 1
        if self.first_us is None:
            self.first_us = at_us
        late = extended < self.highest
        self.reordered += late
        self.highest = max(self.highest, extended)
        if self._last_us is not None:
            gap = at_us - self._last_us
            self.bursts += gap < BURST_US
            self.longest_gap_us = max(self.longest_gap_us, gap)
        self._last_us = at_us
        if packet.payload_type == self.events:
            self._event(packet)
            return packet
        self._measure(at_us, packet)
        return None if late else packet

    def audio(self, packet: RtpPacket) -> Audio | None:
        """What is to be played of a packet that `receive` gave; None for an event."""
        if packet.payload_type == self.events:
            return None
        missing = _signed(packet.timestamp - self._next_timestamp)
        self._next_timestamp = packet.timestamp + len(packet.payload) & 0xFFFFFFFF
        return Audio(packet.payload_type, packet.payload, max(0, missing))

    def _begin(self, packet: RtpPacket) -> None:
        if self.ssrc is not None:
            self._lost_before += self._lost_here()
        self.ssrc = packet.ssrc
        self.sources += 1
        self._restart(packet.sequence)
        self._close_spurt()
        self._next_timestamp = self._last_timestamp = packet.timestamp
        self._last_transit = self._last_event = None

    def _restart(self, sequence: int) -> None:
        self._received_here = 0
        self._seen.clear()
        self._order.clear()
        self._base = self.highest = sequence

    def _lost_here(self) -> int:
        return max(0, self.highest - self._base + 1 - self._received_here)

    def _extend(self, sequence: int) -> int:
        step = (sequence - self.highest) & 0xFFFF
        if step < _MAX_JUMP:
            return self.highest + step
        if step > 0x10000 - _WINDOW:
            return self.highest + step - 0x10000
        self._lost_before += self._lost_here()
        self._restart(sequence)
        return sequence

    def _remember(self, extended: int) -> None:
        self._base = min(self._base, extended)
        self._seen.add(extended)
        self._order.append(extended)
        if len(self._order) > _WINDOW:
            self._seen.discard(self._order.popleft())

    def _measure(self, at_us: int, packet: RtpPacket) -> None:
        if packet.marker:
            self._close_spurt()
        # The 32-bit timestamp wraps; steps from packet to packet do not.
        clock = self._clock + _signed(packet.timestamp - self._last_timestamp)
        self._clock, self._last_timestamp = clock, packet.timestamp
        if len(self._late) + len(self._spurt) < _KEPT:
            self._spurt.append(at_us - clock * US_PER_TICK)
        transit = at_us // US_PER_TICK - clock
        if self._last_transit is not None:
            self.jitter += (abs(transit - self._last_transit) - self.jitter) / 16
        self._last_transit = transit

    def _close_spurt(self) -> None:
        earliest = min(self._spurt, default=0)
        self._late += [each - earliest for each in self._spurt]
        self._spurt.clear()
        self._last_transit = None

    def _event(self, packet: RtpPacket) -> None:
        """A digit once, whatever of it was lost: by its timestamp, not by marker or end bit."""
        try:
            digit, _, _ = parse_event(packet.payload)
        except BadPacket:
            self.malformed += 1
            return
        if digit is not None and packet.timestamp != self._last_event:
            self._last_event = packet.timestamp
            self.digits += digit


def _signed(difference: int) -> int:
    difference &= 0xFFFFFFFF
    return difference - (1 << 32) if difference >= 1 << 31 else difference
