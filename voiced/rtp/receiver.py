"""What a peer sends, made into the leg's audio and digits, in order and in time. Sans-I/O.

Packets in order go on at once. Lost ones are given up by `reorder`; what counts for time is the
timestamp (RFC 3550 section 5.1): the model at the other end hears the end of speech in the length
of silences, so time that no packet brought is filled:

- behind lost packets, up to `CONCEAL` of it with the last frame, fading, the rest with silence;
- without loss (the sender suppresses silence, or marks it as comfort noise) with silence;
- while a key is held down with silence in place of its tone;
- during a pause, once it has lasted `PATIENCE_S`, with silence in real time, one packet behind.

A gap of more than a second is a new beginning, over which no time is kept. Silence that was put in
during a pause is set off against the gap that the timestamps show afterwards. If they show less,
the packets were only late: words go before time, all of them are delivered, and later gaps are
filled less by as much (at most `MAX_AHEAD`).

The marker bit plays no part in it: senders forget it, and set it at will.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from voiced.formats import AudioFormat
from voiced.leg import CallerAudio, Digit
from voiced.rtp.codec import CLOCK, faded
from voiced.rtp.media import COMFORT_NOISE, TELEPHONE_EVENT
from voiced.rtp.packet import HEADER, MalformedPacket, parse
from voiced.rtp.reorder import RESTART, Reorder
from voiced.rtp.telephone_event import EventReceiver
from voiced.rtp.telephone_event import parse as parse_event

__all__ = ["COMFORT_NOISE_TYPE", "MAX_WAITING_MS", "PATIENCE_S", "Receiver"]

COMFORT_NOISE_TYPE: Final = 13  # static (RFC 3389 section 4)

PATIENCE_S: Final = 0.1
"""Without a packet for so long is a pause: more than network jitter, less than a VAD's silence."""

MAX_WAITING_MS: Final = 5000
"""Audio that the call has not taken. It takes it in milliseconds; one that is stuck for seconds has
worse trouble than the loss of the oldest audio, and must not fill memory."""

_MAX_WAITING: Final = MAX_WAITING_MS * CLOCK // 1000
_MAX_DIGITS: Final = 64  # untaken; beyond, the newest are dropped

_FRAME: Final = 160  # ticks of 20 ms: the grain of filling
CONCEAL: Final = 3 * _FRAME
MAX_AHEAD: Final = 10 * _FRAME
_RESYNC: Final = CLOCK  # 1 s
_OTHER_SOURCE_S: Final = 0.2
"""Packets of the source before this one are dropped while this one sends: they are stragglers, or a
second source, and two taken in turn would be twice the time."""

_HALF: Final = 0x80000000
_MASK: Final = 0xFFFFFFFF

Decode = Callable[[bytes], bytes]
_Item = tuple[int, int, bytes]  # payload type, timestamp, payload


def _after(later: int, earlier: int) -> int:
    """Ticks from one timestamp to another, negative backwards."""
    return (later - earlier + _HALF & _MASK) - _HALF


class Receiver:
    """One stream, from the wire to the leg. Times in seconds of one monotonic clock.

    `waiting` is what `take` will return, `heard_at` the time of the last packet or of `rest`.
    """

    def __init__(self, hold_s: float, now: float) -> None:
        """`hold_s`: how long a packet waits for one before it."""
        self.waiting: list[bytes | Digit] = []
        self.heard_at = now
        self.ssrc: int | None = None
        self.jitter = 0.0  # in ticks
        self.packets = self.malformed = self.unexpected = self.resyncs = self.digits = 0
        self.filled = self.overrun = 0  # ticks
        self.order: Reorder[_Item] = Reorder(hold_s)
        self._events = EventReceiver()
        self._event_until: int | None = None  # tones are not audio before this timestamp
        self._main = -1  # the payload type that most packets have, and its decoder
        self._main_decode: Decode | None = None
        self._decoders: dict[int, Decode | None] = {}
        self._event_types: frozenset[int] = frozenset()
        self._noise_types: frozenset[int] = frozenset()
        self._format: AudioFormat | None = None
        self._bytes_per_tick = 1
        self._waiting_ticks = 0
        self._next = 0  # timestamp of the audio to come
        self._last = b""  # the newest frame, in the leg's format
        self._paused_ticks = 0  # filled since the last packet
        self._coming = 0  # ticks that a packet brings, if one comes yet
        self._ahead = 0  # filled in real time, not yet shown by timestamps
        self._transit = 0.0
        self._previous: int | None = None  # SSRC
        self._packets_before = 0  # of other sources than this one

    def configure(
        self,
        form: AudioFormat,
        main: int,
        decoders: Mapping[int, Decode | None],
        others: Mapping[int, str],
    ) -> None:
        """Say what payload types mean. Those agreed on before go on meaning what they did.

        Packets of before are still on their way, and a peer that has offered something new goes on
        with the old until it has its answer (RFC 3264 section 8).

        Args:
            form: of the leg.
            main: the payload type to expect.
            decoders: audio, by payload type; None where payloads are in the leg's format.
            others: TELEPHONE_EVENT and COMFORT_NOISE, by payload type.
        """
        self._format = form
        self._bytes_per_tick = form.bytes_per_ms * 1000 // CLOCK
        self._main = main
        before = {kind: decode for kind, decode in self._decoders.items() if kind not in others}
        self._decoders = before | dict(decoders)
        self._main_decode = self._decoders[main]
        events = {kind for kind, what in others.items() if what == TELEPHONE_EVENT}
        noise = {kind for kind, what in others.items() if what == COMFORT_NOISE}
        audio = self._decoders.keys()
        self._event_types = frozenset((self._event_types - noise) | events) - audio
        noise |= self._noise_types | {COMFORT_NOISE_TYPE}
        self._noise_types = frozenset(noise) - self._event_types - audio

    def rest(self, now: float) -> None:
        """Nothing was, or will be, taken for a while: forget the past, begin anew."""
        self._deliver_all(self.order.flush(), now)
        self.ssrc = self._previous = None
        self.heard_at = now
        self._paused_ticks = self._ahead = 0

    # ---- packets

    def receive(self, data: bytes, now: float) -> None:
        """Take one datagram, at least a header long, that came from where it may."""
        first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
        order = self.order
        if (
            timestamp == self._next
            and sequence == order.expected
            and ssrc == self.ssrc
            and second & 0x7F == self._main
            and first == 0x80
            and not order.held
            and self._event_until is None
        ):
            # Nearly every packet. Everything here is also done, in pieces, by the long way.
            payload = data[12:]
            ticks = len(payload)
            self.heard_at = now
            if self._paused_ticks:
                self._paused_ticks = 0
                self._ahead = min(self._ahead, MAX_AHEAD)
            self.packets += 1
            order.highest += 1
            order.expected = sequence + 1 & 0xFFFF
            transit = now * CLOCK - timestamp
            self.jitter += (abs(transit - self._transit) - self.jitter) / 16
            self._transit = transit
            following = timestamp + ticks
            if following > _MASK:
                following &= _MASK
                self._transit += _MASK + 1
            self._next = following
            self._coming = ticks
            if self._main_decode is not None:
                payload = self._main_decode(payload)
            if ticks:
                self._last = payload
                self._put(payload, ticks)
            return
        self._receive(data, now)

    def _receive(self, data: bytes, now: float) -> None:
        try:
            packet = parse(data)
        except MalformedPacket:
            self.malformed += 1
            return
        kind, ssrc = packet.payload_type, packet.ssrc
        is_audio = kind in self._decoders
        is_event = kind in self._event_types
        if not is_audio and not is_event and kind not in self._noise_types:
            self.unexpected += 1
            return
        if ssrc != self.ssrc:
            if is_event and self.ssrc is not None:
                # There are gateways that give the digits a source of their own, beside the audio.
                self._digit(ssrc, packet.timestamp, packet.payload, now)
                self._mute()
                return
            if ssrc == self._previous and now - self.heard_at < _OTHER_SOURCE_S:
                self.unexpected += 1
                return
            self._begin(ssrc, packet.sequence, packet.timestamp, now)
        elif is_audio:
            transit = now * CLOCK - packet.timestamp
            change = abs(transit - self._transit)
            if change < _RESYNC:  # else the timestamps have wrapped, or begun anew
                self.jitter += (change - self.jitter) / 16
            self._transit = transit
        self.packets += 1
        self.heard_at = now
        self._paused_ticks = 0
        if is_event:  # told at once, even where the order makes the packet wait
            self._digit(ssrc, packet.timestamp, packet.payload, now)
        item = (kind, packet.timestamp, packet.payload)
        self._deliver_all(self.order.push(packet.sequence, item, now), now)

    def _begin(self, ssrc: int, sequence: int, timestamp: int, now: float) -> None:
        """A new source: nothing of its first packet is lost."""
        order = self.order
        self._deliver_all(order.flush(), now)
        self._previous, self.ssrc = self.ssrc, ssrc
        self._packets_before = self.packets
        order.begin(sequence)
        self._resync(timestamp)
        self._transit = now * CLOCK - timestamp
        self.jitter = 0.0

    def _resync(self, timestamp: int) -> None:
        self._next = timestamp
        self._ahead = 0
        self._event_until = None

    def _deliver_all(self, delivery: Iterable[tuple[int, _Item]], now: float) -> None:
        for lost, (kind, timestamp, payload) in delivery:
            if lost == RESTART:
                self.resyncs += 1
                self._resync(timestamp)
                self._packets_before = self.packets - 1
            if kind in self._event_types:
                self._event_time(timestamp, payload)
            elif kind in self._decoders:
                self._audio(kind, timestamp, payload, lost, now)
            else:  # comfort noise, from its timestamp on
                self._gap(timestamp, lost)
                self._coming = 0  # the sender says itself that it pauses

    def _audio(self, kind: int, timestamp: int, payload: bytes, lost: int, now: float) -> None:
        ticks = len(payload)
        if self._event_until is not None and ticks:
            tone = _after(self._event_until, timestamp)
            if 0 < tone <= _RESYNC:  # that time was filled when the key's packets came
                if tone >= ticks:
                    return
                payload, timestamp, ticks = payload[tone:], timestamp + tone & _MASK, ticks - tone
            elif self._events.active(now):
                self._gap(timestamp, lost)
                self._next = self._event_until = timestamp + ticks & _MASK
                self._fill(ticks)
                return
            else:
                self._event_until = None
        self._gap(timestamp, lost)
        self._next = timestamp + ticks & _MASK
        self._coming = ticks
        if ticks:
            decode = self._decoders[kind]
            self._last = payload = payload if decode is None else decode(payload)
            self._put(payload, ticks)

    def _digit(self, ssrc: int, timestamp: int, payload: bytes, now: float) -> None:
        """The digit, if it is a new one."""
        packet = parse_event(payload)
        if packet is None:
            self.malformed += 1
            return
        digit, _ = self._events.receive(ssrc, timestamp, packet, now)
        if digit is not None:
            self.digits += 1
            if sum(type(each) is Digit for each in self.waiting) < _MAX_DIGITS:
                self.waiting.append(Digit(digit))

    def _event_time(self, timestamp: int, payload: bytes) -> None:
        """Silence for as long as the key has been down; audio of that time will be dropped."""
        packet = parse_event(payload)
        if packet is None:
            return
        end = timestamp + packet.duration & _MASK
        new = _after(end, self._next)
        if not -_RESYNC <= new <= _RESYNC:
            self._mute()  # long ago, or by another clock than the audio's: says nothing of its time
            return
        self._gap(end, 0)
        if self._event_until is None or _after(end, self._event_until) > 0:
            self._event_until = end

    def _mute(self) -> None:
        """Have audio looked at for whether a key is held down; the first after it ends that."""
        if self._event_until is None:
            self._event_until = self._next

    # ---- time

    def _gap(self, timestamp: int, lost: int) -> None:
        """Fill from the audio so far to `timestamp`."""
        gap = _after(timestamp, self._next)
        if gap <= 0:
            self._ahead = min(self._ahead, MAX_AHEAD)
            return
        self._next = timestamp
        known = min(self._ahead, gap)
        self._ahead = min(self._ahead - known, MAX_AHEAD)
        gap -= known
        if gap > _RESYNC:
            self.resyncs += 1
        elif gap:
            self._fill(gap, conceal=lost > 0)

    def _fill(self, ticks: int, *, conceal: bool = False) -> None:
        """Put `ticks` of what was not received in."""
        assert self._format is not None
        self.filled += ticks
        last, nth = self._last, 0
        while conceal and last and ticks and nth * len(last) < CONCEAL * self._bytes_per_tick:
            part = last[: ticks * self._bytes_per_tick]
            self._put(faded(part, self._format.encoding, nth), len(part) // self._bytes_per_tick)
            ticks -= len(part) // self._bytes_per_tick
            nth += 1
        if ticks:
            self._put(self._format.silence(1)[:1] * (ticks * self._bytes_per_tick), ticks)
            self._last = b""  # speech from before a silence must not come back after it

    def tick(self, now: float) -> None:
        """A packet time has passed: let go of what waited long enough, and keep time in a pause."""
        if self.order.held:
            self._deliver_all(self.order.due(now), now)
        silent = now - self.heard_at
        if silent >= PATIENCE_S and self.ssrc is not None:
            # Room is left for the packet that may come now: it brings what was said before now.
            passed = max(int(silent * CLOCK) - self._coming, 0)
            ticks = passed // _FRAME * _FRAME - self._paused_ticks
            self._paused_ticks += ticks
            self._ahead += ticks
            # A stall of our own is not worth a second of silence in one piece.
            if 0 < ticks <= _RESYNC:
                self._fill(ticks)

    # ---- to the leg

    def _put(self, audio: bytes, ticks: int) -> None:
        self._waiting_ticks += ticks
        self.waiting.append(audio)
        if self._waiting_ticks > _MAX_WAITING:
            self._overrun()

    def _overrun(self) -> None:
        """Drop the oldest audio; digits stay."""
        kept: list[bytes | Digit] = []
        for each in self.waiting:
            if isinstance(each, bytes) and self._waiting_ticks > _MAX_WAITING:
                ticks = len(each) // self._bytes_per_tick
                self._waiting_ticks -= ticks
                self.overrun += ticks
            else:
                kept.append(each)
        self.waiting = kept

    def take(self) -> list[CallerAudio | Digit]:
        """Everything since the last time, audio between two digits in one piece."""
        waiting, self.waiting = self.waiting, []
        self._waiting_ticks = 0
        if len(waiting) == 1:
            only = waiting[0]
            return [only if type(only) is Digit else CallerAudio(only)]  # type: ignore[arg-type]
        taken: list[CallerAudio | Digit] = []
        audio: list[bytes] = []
        for each in waiting:
            if isinstance(each, bytes):
                audio.append(each)
                continue
            if audio:
                taken.append(CallerAudio(b"".join(audio)))
                audio = []
            taken.append(each)
        if audio:
            taken.append(CallerAudio(b"".join(audio)))
        return taken

    def source(self) -> tuple[int, int, int, int, float] | None:
        """What a report says of the peer; see `Reporter.report`."""
        if self.ssrc is None:
            return None
        order = self.order
        received = self.packets - self._packets_before
        expected = order.highest - order.base + 1
        return self.ssrc, order.highest - 0x10000, expected, received, self.jitter
