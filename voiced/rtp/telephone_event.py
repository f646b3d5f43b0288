"""Keys pressed on a telephone, as RTP events (RFC 4733), in and out."""

from __future__ import annotations

import struct
from collections import deque
from typing import Final, NamedTuple

__all__ = ["DIGITS", "EventPacket", "EventReceiver", "EventSender", "parse"]

DIGITS: Final = "0123456789*#ABCD"
"""The key of each event code 0 to 15 (RFC 4733 section 3.2)."""

ENDS: Final = 3
"""How often the last packet of an event is sent (section 2.5.1.4)."""

MAX_DURATION: Final = 0xFFFF
MAX_WAITING: Final = 64  # keys that wait to be pressed; more is nobody's menu

SILENT_S: Final = 0.2
"""An event whose end is lost is over when so long nothing is heard of it: senders report at least
every 50 ms, so that three packets in a row must be lost to get here too early."""

_REORDERED: Final = 16_000  # timestamp units, 2 s: no network delays a packet behind later ones so
_PAYLOAD: Final = struct.Struct("!BBH")
_REMEMBERED: Final = 8  # events whose late ends must not be taken for new ones


class EventPacket(NamedTuple):
    """The payload of one packet; `duration` so far, in timestamp units."""

    event: int
    end: bool
    volume: int  # dBm0 below zero
    duration: int

    def __bytes__(self) -> bytes:
        return _PAYLOAD.pack(self.event, (0x80 if self.end else 0) | self.volume, self.duration)


def parse(payload: bytes) -> EventPacket | None:
    """The first event of a payload; None where there is none."""
    if len(payload) < _PAYLOAD.size:
        return None
    event, second, duration = _PAYLOAD.unpack_from(payload)
    return EventPacket(event, second >= 0x80, second & 0x3F, duration)


class _Event:
    """One press of a key."""

    __slots__ = ("duration", "ended", "event", "ssrc", "timestamp")

    def __init__(self, ssrc: int, timestamp: int, event: int) -> None:
        self.ssrc = ssrc
        self.timestamp = timestamp  # of the newest segment
        self.event = event
        self.duration = 0  # of the newest segment
        self.ended = False


class EventReceiver:
    """Makes one digit out of the packets of one press.

    A press is known by SSRC, timestamp and event code, never by marker or sequence number: markers
    get lost, and there are senders whose three last packets share a number. The digit is told at
    the first packet that comes, whichever of the press it is.
    """

    def __init__(self) -> None:
        self._recent: deque[_Event] = deque(maxlen=_REMEMBERED)
        self._heard_at = 0.0

    def active(self, now: float) -> bool:
        """A key is being held down."""
        recent = self._recent
        return bool(recent) and not recent[-1].ended and now - self._heard_at < SILENT_S

    @property
    def until(self) -> int:
        """Timestamp up to which the newest press is known to last."""
        newest = self._recent[-1]
        return newest.timestamp + newest.duration & 0xFFFFFFFF

    def receive(
        self, ssrc: int, timestamp: int, packet: EventPacket, now: float
    ) -> tuple[str | None, bool]:
        """Take a packet; returns the digit if it is new, and whether it is of the newest press.

        Events that are no keys (flash, modem tones) are followed like keys and give no digit.
        """
        for old in reversed(self._recent):
            if old.event != packet.event or old.ssrc != ssrc:
                continue
            if old.timestamp == timestamp or self._continues(old, timestamp):
                newest = old is self._recent[-1]
                if newest:
                    self._heard_at = now
                if old.timestamp != timestamp:
                    old.timestamp = timestamp
                    old.duration = packet.duration
                else:
                    old.duration = max(old.duration, packet.duration)
                old.ended = old.ended or packet.end
                return None, newest
            if 0 < (old.timestamp - timestamp) & 0xFFFFFFFF <= _REORDERED:
                return None, False  # from before a press of the same key that is known
        press = _Event(ssrc, timestamp, packet.event)
        press.duration = packet.duration
        press.ended = packet.end
        self._recent.append(press)
        self._heard_at = now
        return (DIGITS[packet.event] if packet.event < len(DIGITS) else None), True

    @staticmethod
    def _continues(press: _Event, timestamp: int) -> bool:
        """A long press goes on in a new segment, which begins where the one before ended.

        Section 2.5.1.3: at 0xFFFF, with no packet marked as the end. There are senders that move
        the timestamp with every packet instead; theirs lies within what has been told of the press,
        where no other can begin.
        """
        later = (timestamp - press.timestamp) & 0xFFFFFFFF
        if press.ended:
            return 0 < later < press.duration
        return 0 < later <= press.duration or later == MAX_DURATION


class EventSender:
    """Presses keys one after another: one packet for every packet time of the stream."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, int]] = deque()  # event, duration, gap
        self._event = -1
        self._timestamp = 0
        self._length = 0  # of the press, timestamp units
        self._done = 0  # of the press so far
        self._ends = 0  # packets with the end bit still to send
        self._gap = 0  # to be left behind the press
        self._first = False

    @property
    def busy(self) -> bool:
        """There is something to press, or the pause after it is not over."""
        return bool(self._waiting) or self._ends > 0 or self._gap > 0

    def press(self, digits: str, duration: int, gap: int) -> None:
        """Have `digits` pressed after those that wait; times in timestamp units.

        Raises ValueError for a key that telephones lack, a length beyond 8 s, or too many keys.
        """
        events = [DIGITS.find(digit) for digit in digits.upper()]
        if -1 in events:
            raise ValueError(f"keys are 0-9, *, # and A-D, not {digits!r}")
        if not 0 < duration <= MAX_DURATION or gap < 0:
            raise ValueError("a key is pressed for more than nothing and less than 8192 ms")
        if len(self._waiting) + len(events) > MAX_WAITING:
            raise ValueError(f"more than {MAX_WAITING} keys wait to be pressed")
        self._waiting.extend((event, duration, gap) for event in events)

    def next(self, timestamp: int, step: int) -> tuple[int, bytes, bool] | None:
        """The packet for the packet time that begins at `timestamp` and lasts `step`.

        Returns its timestamp, payload and marker; None in the pause behind a press.
        """
        if not self._ends:
            if self._gap > 0:
                self._gap -= step
                return None
            event, self._length, gap = self._waiting.popleft()
            self._event, self._timestamp = event, timestamp
            self._done, self._ends, self._gap, self._first = 0, ENDS, gap, True
        self._done = min(self._done + step, self._length)
        end = self._done == self._length
        if end:
            self._ends -= 1
        marker, self._first = self._first, False
        return self._timestamp, bytes(EventPacket(self._event, end, 10, self._done)), marker
