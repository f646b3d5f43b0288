"""What the agent says, cut into packets: one a packet time, audio or silence or a key. Sans-I/O.

The queue is the leg's play buffer, and sending is playing: a byte is heard when its packet leaves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from voiced.formats import AudioFormat
from voiced.rtp.codec import CLOCK
from voiced.rtp.media import QueueFull
from voiced.rtp.packet import HEADER
from voiced.rtp.rtcp import SenderInfo
from voiced.rtp.telephone_event import EventSender

__all__ = ["MAX_QUEUED_MS", "Sender"]

MAX_QUEUED_MS: Final = 30_000
"""The speaker keeps a lead of about a second and is told `seconds_until` to wait; prompt files and
agents with a longer lead fit as well. A megabyte at the most; more is a mistake, and refused."""

_MASK: Final = 0xFFFFFFFF
_MARKER: Final = 0x80


class Sender:
    """One stream, from the leg to the wire.

    `sent` and `heard` are bytes of the leg's format in this generation.
    """

    def __init__(self, ssrc: int, sequence: int, timestamp: int, max_queued_ms: int) -> None:
        """Sequence and timestamp begin at random (RFC 3550 section 5.1)."""
        self.ssrc = ssrc
        self.sent = self.heard = 0
        self.packets = self.octets = 0
        self.keys = EventSender()
        self.event_type: int | None = None
        self._sequence = sequence
        self._timestamp = timestamp
        self._max_queued_ms = max_queued_ms
        self._queue: deque[bytes] = deque()
        self._at = 0  # in the first of the queue
        self.played = b""
        """Of the last packet, in the leg's format: the audio at its beginning, silence apart."""
        self._payload_type = 0
        self._encode: Callable[[bytes], bytes] | None = None
        self._step = 0  # ticks of a packet
        self._frame = 0  # bytes of one in the leg's format
        self._silence = b""
        self._most = 0
        # Set where the packet before is not the one that ended when this one begins: the receiver
        # may move its playout there (RFC 3551 section 4.1).
        self._marker = _MARKER

    def configure(
        self,
        form: AudioFormat,
        payload_type: int,
        encode: Callable[[bytes], bytes] | None,
        ptime_ms: int,
        event_type: int | None,
    ) -> None:
        """Say how to send. Queue, position, sequence and timestamp go on."""
        self._payload_type = payload_type
        self._encode = encode
        self._step = ptime_ms * CLOCK // 1000
        self._frame = ptime_ms * form.bytes_per_ms
        self._silence = form.silence(ptime_ms)
        self._most = self._max_queued_ms * form.bytes_per_ms
        self.event_type = event_type

    # ---- the queue

    def send(self, payload: bytes) -> None:
        """Queue audio. Raises QueueFull, with nothing queued of it."""
        size = len(payload)
        if self.sent - self.heard + size > self._most:
            raise QueueFull(f"more than {self._max_queued_ms} ms of audio ahead")
        if size:
            self._queue.append(payload)
            self.sent += size

    def frames_until(self, position: int) -> int:
        """Packets that must leave until `heard` reaches `position`."""
        return -(-(position - self.heard) // self._frame) if position > self.heard else 0

    def clear(self) -> int:
        """Drop what has not left, begin a new generation; returns the old one's `heard`."""
        heard = self.heard
        self._queue.clear()
        self._at = self.sent = self.heard = 0
        return heard

    def _next_frame(self) -> bytes:
        """The next packet time of audio, filled up with silence."""
        queue, size = self._queue, self._frame
        if not queue:
            self.played = b""
            return self._silence
        first, at = queue[0], self._at
        end = at + size
        if end < len(first):
            self._at = end
            self.heard += size
            self.played = first[at:end]
            return self.played
        parts = []
        want = size
        while queue and want:
            part = queue[0][self._at : self._at + want]
            want -= len(part)
            parts.append(part)
            self._at += len(part)
            if self._at == len(queue[0]):
                queue.popleft()
                self._at = 0
        self.heard += size - want
        self.played = b"".join(parts)
        return self.played + self._silence[size - want :] if want else self.played

    # ---- the wire

    def packet(self) -> bytes:
        """The packet that is due now."""
        timestamp, marker = self._timestamp, self._marker
        step, sequence = self._step, self._sequence
        self._timestamp = timestamp + step & _MASK
        self._sequence = sequence + 1 & 0xFFFF
        payload_type = self._payload_type
        if self.keys.busy and self.event_type is not None:
            self.played = b""
            key = self.keys.next(timestamp, step)
            if key is not None:
                # The audio after a key is not contiguous with that before it.
                self._marker = _MARKER
                payload_type = self.event_type
                timestamp, payload, first = key
                marker = _MARKER if first else 0
            else:
                payload = self._silent()
                self._marker = 0
        else:
            payload = self._next_frame()
            if self._encode is not None:
                payload = self._encode(payload)
            self._marker = 0
        self.packets += 1
        self.octets += len(payload)
        return HEADER.pack(0x80, marker | payload_type, sequence, timestamp, self.ssrc) + payload

    def _silent(self) -> bytes:
        return self._silence if self._encode is None else self._encode(self._silence)

    def skip(self, times: int = 1) -> None:
        """So many packet times have passed without a packet."""
        self._timestamp = self._timestamp + times * self._step & _MASK
        self._marker = _MARKER

    def info(self) -> SenderInfo:
        """What a report says of us."""
        return SenderInfo(0, self._timestamp, self.packets & _MASK, self.octets & _MASK)
