"""What a carrier sends after `start`, made into leg events: sans-I/O, one object per stream.

Bad messages are counted, logged once per kind and call, and passed over; a peer that sends little
else, or floods, is given up on. Missing audio is missing time, and is filled with silence, so that
the server's voice activity detection still sees the end of a turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from voiced import metrics
from voiced.formats import PCMU_8K
from voiced.frames import BinaryMessage
from voiced.leg import CallerAudio, Digit, LegEvent, Stopped
from voiced.twilio.errors import ProtocolError
from voiced.twilio.events import Dtmf, Mark, Media, Start, Stop, Unknown, parse

__all__ = ["Inbound", "InboundStatistics"]

MAX_MALFORMED: Final = 50
"""Malformed messages of a call before its stream is closed: one second of nothing but them."""

# A token bucket. A call has 50 media messages a second and about ten marks; after a network outage
# of ten seconds all of them come at once.
MESSAGES_PER_S: Final = 200
BURST: Final = 2000

# Audio may run ahead of the clock by what an outage held back, and silence put in for missing
# audio by less: a timestamp that is plainly wrong must not become minutes of silence.
AUDIO_AHEAD_MS: Final = 30_000
MAX_GAP_MS: Final = 2000

# Timestamps of some look-alikes are times of arrival: while the chunks count on, only a gap that
# is no jitter is one.
JITTER_MS: Final = 100

LATE_CHUNKS: Final = 50
"""A number this much lower is a chunk that was overtaken, whose gap has been filled already; one
that is lower still begins anew. Twilio keeps order, look-alikes do not promise to."""

_DIGITS: Final = frozenset("0123456789*#ABCD")
_BYTES_PER_MS: Final = PCMU_8K.bytes_per_ms

_log = structlog.get_logger("voiced.twilio")


@dataclass(frozen=True, slots=True)
class InboundStatistics:
    """What came in over the whole stream; `filled_ms` is silence put in for audio that was lost."""

    messages: int
    audio_ms: int
    filled_ms: int
    sequence_jumps: int
    ignored: int  # unknown events and other tracks
    malformed: dict[str, int]  # by reason


class Inbound:
    """Reads the messages of the stream `stream_sid`, which began at `now` with sequence number 1.

    `on_mark` is called with the name of each mark that comes back.
    """

    def __init__(
        self,
        stream_sid: str,
        call_sid: str,
        sequence_number: int | None,
        now: float,
        on_mark: Callable[[str], None],
    ) -> None:
        self._stream_sid = stream_sid
        self._log = _log.bind(carrier_call=call_sid)
        self._on_mark = on_mark
        self._began = self.heard_at = now
        """`heard_at`: when messages came last."""
        self._credit = float(BURST)
        # What the next message says if nothing is missing; None until the first has come.
        self._sequence = None if sequence_number is None else sequence_number + 1
        self._chunk: int | None = None
        self._timestamp: int | None = None
        self._messages = self._audio = self._filled = self._jumps = self._ignored = 0
        self._malformed: Counter[str] = Counter()
        self._told: set[str] = set()

    def feed(self, messages: Sequence[bytes | BinaryMessage], now: float) -> list[LegEvent]:
        """Read what one wake-up brought: all its audio as one event, then digits, then the end.

        Nothing is read behind `stop`. Raises ProtocolError when the stream is to be closed.
        """
        self._admit(len(messages), now)
        audio: list[bytes] = []
        events: list[LegEvent] = []
        for message in messages:
            try:
                if type(message) is not bytes:
                    raise ProtocolError("binary")
                event = parse(message)
                if type(event) is Media:
                    self._in_sequence(event.sequence_number, event.stream_sid)
                    self._media(event, audio, now)
                    continue
                if isinstance(event, Unknown):
                    self._in_sequence(event.sequence_number, "")
                    self._ignore("unknown event", name=event.event[:40])
                    continue
                if type(event) is Start:
                    raise ProtocolError("out of order", "a second start")
                # Before anything is made of it: what belongs to another stream is not acted upon.
                self._in_sequence(event.sequence_number, event.stream_sid)
                match event:
                    case Mark():
                        self._on_mark(event.mark.name)
                    case Dtmf():
                        if event.digit not in _DIGITS:
                            raise ProtocolError("wrong shape", "a digit is one of 0-9 * # A-D")
                        events.append(Digit(event.digit))
                    case Stop():
                        events.append(Stopped("stop", hung_up=True))
                        break
                    case _:
                        pass  # a second `connected` says nothing either
            except ProtocolError as error:
                self._pass_over(error)
        if audio:
            payload = audio[0] if len(audio) == 1 else b"".join(audio)
            if self._audio > ((now - self._began) * 1000 + AUDIO_AHEAD_MS) * _BYTES_PER_MS:
                raise ProtocolError("flood", "audio far ahead of the clock")
            events.insert(0, CallerAudio(payload))
        return events

    def statistics(self) -> InboundStatistics:
        """Counts of the stream so far."""
        return InboundStatistics(
            messages=self._messages,
            audio_ms=self._audio // _BYTES_PER_MS,
            filled_ms=self._filled,
            sequence_jumps=self._jumps,
            ignored=self._ignored,
            malformed=dict(self._malformed),
        )

    def _admit(self, count: int, now: float) -> None:
        """Take `count` messages out of the bucket."""
        self._messages += count
        refill = (now - self.heard_at) * MESSAGES_PER_S
        self.heard_at = now
        self._credit = min(BURST, self._credit + refill) - count
        if self._credit < 0:
            raise ProtocolError("flood", f"more than {MESSAGES_PER_S} messages a second")

    def _in_sequence(self, number: int | None, stream_sid: str) -> None:
        """Check what every message says of itself: its stream, and its place in it."""
        if stream_sid and stream_sid != self._stream_sid:
            raise ProtocolError("wrong stream")
        if number != self._sequence:
            if number is None:
                return
            if self._sequence is not None:
                # One connection keeps order, so a jump is loss on the carrier's side (31930).
                self._jumps += 1
                self._tell("messages lost", expected=self._sequence, got=number)
            self._sequence = number
        if number is not None:
            self._sequence = number + 1

    def _media(self, event: Media, audio: list[bytes], now: float) -> None:
        body = event.media
        if body.track != "inbound":
            self._ignore("media of another track", track=body.track[:40])
            return
        chunk, timestamp = body.chunk, body.timestamp
        if chunk != self._chunk or timestamp != self._timestamp:
            missing = self._missing_ms(chunk, timestamp, len(body.payload))
            if missing > 0:
                self._fill(missing, audio, now)
        if body.payload:
            audio.append(body.payload)
            self._audio += len(body.payload)
        if chunk is not None and self._chunk is not None and 0 < self._chunk - chunk <= LATE_CHUNKS:
            return  # overtaken: what comes next still follows the newest
        self._chunk = None if chunk is None else chunk + 1
        if timestamp is None:
            self._timestamp = None
        else:
            self._timestamp = timestamp + len(body.payload) // _BYTES_PER_MS

    def _missing_ms(self, chunk: int | None, timestamp: int | None, size: int) -> int:
        """Milliseconds of audio that are missing before this message, by what it says."""
        lost = 0 if chunk is None or self._chunk is None else chunk - self._chunk
        if timestamp is None or self._timestamp is None:
            return lost * (size // _BYTES_PER_MS)
        gap = timestamp - self._timestamp
        return gap if lost > 0 or gap >= JITTER_MS else 0

    def _fill(self, missing_ms: int, audio: list[bytes], now: float) -> None:
        """Put silence in for `missing_ms`, unless that is too long to be a gap."""
        self._tell("caller audio lost", ms=missing_ms)
        ahead_ms = self._audio / _BYTES_PER_MS - (now - self._began) * 1000
        if missing_ms <= MAX_GAP_MS and ahead_ms + missing_ms <= MAX_GAP_MS:
            silence = PCMU_8K.silence(missing_ms)
            audio.append(silence)
            self._audio += len(silence)
            self._filled += missing_ms

    def _ignore(self, what: str, **facts: str) -> None:
        self._ignored += 1
        self._tell(what, **facts)

    def _pass_over(self, error: ProtocolError) -> None:
        self._malformed[error.reason] += 1
        metrics.MEDIA_MALFORMED.labels(error.reason).inc()
        self._tell(f"malformed message: {error.reason}", detail=error.detail[:200])
        if self._malformed.total() > MAX_MALFORMED:
            raise ProtocolError("malformed", f"more than {MAX_MALFORMED} messages")

    def _tell(self, what: str, **facts: str | int) -> None:
        """Log `what`, the first time that it happens in this call."""
        if what not in self._told:
            self._told.add(what)
            self._log.warning(what, **facts)
