"""One simulated telephone and the carrier between it and the server, sans-I/O.

Messages go in with the time of their coming and out when their time has come; the network's delay,
the play-out buffer, the caller's script and the 20 ms clock all run on that one time, whole
microseconds since `start` was sent. Whoever moves the messages may be late: what happens is
reckoned for the moment at which it was due, in order, so that nothing drifts and runs are equal.
"""

from __future__ import annotations

import base64
import random
from collections import deque
from collections.abc import Mapping

from voiced.formats import FRAME_MS
from voiced.simulate.events import (
    BufferCleared,
    DigitPressed,
    HungUp,
    MediaStarted,
    Observer,
    Party,
)
from voiced.simulate.line import Line
from voiced.simulate.link import Link
from voiced.simulate.playbuffer import US_PER_BYTE
from voiced.simulate.script import Script
from voiced.simulate.speech import SILENT_FRAME, SILENT_PAYLOAD
from voiced.simulate.telephone import FRAME_US, Telephone
from voiced.simulate.wire import (
    Clear,
    Identifiers,
    Media,
    Narrator,
    WireError,
    parse_server_message,
)

__all__ = ["Phone"]

_OUTBOX_FRAMES = 500  # 10 s of a server that does not read; then audio is lost, as with 31930
_INBOX_MESSAGES = 4096  # held up by the simulated delay: 80 s of frames; then reading pauses


class Phone(Telephone):
    """The whole caller's side of one stream. `observer` is told of what happens, as it does."""

    def __init__(
        self,
        script: Script,
        identifiers: Identifiers,
        *,
        delay_us: int = 0,
        jitter_us: int = 0,
        rng: random.Random | None = None,
        integers: bool = False,
        record: bool = True,
        observer: Observer | None = None,
        line: Line | None = None,
    ) -> None:
        super().__init__(script, record=record, observer=observer, line=line)
        rng = rng or random.Random(0)  # noqa: S311 (jitter is no secret)
        self._ids = identifiers
        self._narrator = Narrator(identifiers, integers=integers)
        self._to_server = Link(delay_us, jitter_us, rng)
        self._to_phone = Link(delay_us, jitter_us, rng)

        self._outbox: deque[tuple[int, str]] = deque()  # _OUTBOX_FRAMES, marks and digits aside
        self._inbox: deque[tuple[int, str | bytes | None]] = deque()  # None: closed
        self._warned: set[int] = set()

        self.polite = True
        """Whether the stream ends in the way a WebSocket should."""

    # The I/O side

    def begin(self, parameters: Mapping[str, str]) -> None:
        """Open the stream; this is time 0. `poll` has the messages."""
        self._tell(MediaStarted(0.0, self._ids.call_sid, self._ids.stream_sid))
        self._send(0, self._narrator.connected())
        self._send(0, self._narrator.start(parameters))
        self._performer.tick(0, self)

    def receive(self, now_us: int, message: str | bytes) -> None:
        """Take a WebSocket message that has come; `bytes` for a binary frame."""
        self._inbox.append((self._to_phone.arrival_us(now_us), message))
        self._run_until(now_us)

    def receive_close(self, now_us: int) -> None:
        """Take it that the server closed the WebSocket; the phone knows once the delay passed."""
        self._inbox.append((self._to_phone.arrival_us(now_us), None))
        self._run_until(now_us)

    def poll(self, now_us: int) -> list[str]:
        """Let time pass; the messages that must be sent now."""
        self._run_until(now_us)
        due: list[str] = []
        outbox = self._outbox
        if outbox:
            self.worst_lag_us = max(self.worst_lag_us, now_us - outbox[0][0])
        while outbox and outbox[0][0] <= now_us:
            due.append(outbox.popleft()[1])
        return due

    def next_us(self) -> int:
        """When `poll` must be called next if nothing comes."""
        soonest = self._outbox[0][0] if self._outbox else None
        if self._over:
            return soonest if soonest is not None else 0
        candidates = [(self._frame + 1) * FRAME_US]
        if soonest is not None:
            candidates.append(soonest)
        if self._inbox:
            candidates.append(self._inbox[0][0])
        echo = self.buffer.next_echo_us()
        if echo is not None:
            candidates.append(echo)
        return min(candidates)

    @property
    def finished(self) -> bool:
        """The stream is over and everything has been sent: the socket can be closed."""
        return self._over and not self._outbox

    @property
    def congested(self) -> bool:
        """So much is on its way that nothing more should be read until time has passed."""
        return len(self._inbox) >= _INBOX_MESSAGES

    # The person's side

    def press(self, digit: str, *, secret: bool) -> None:
        """Press a key now."""
        self._tell(DigitPressed(self._frame * FRAME_MS, "" if secret else digit))
        self._send(self._frame * FRAME_US, self._narrator.dtmf(digit))

    def hang_up(self, *, politely: bool) -> None:
        """End the call now."""
        self._end(self._frame * FRAME_US, "caller" if politely else "line")

    # The course of time

    def _run_until(self, now_us: int) -> None:
        inbox = self._inbox
        while not self._over:
            tick_us = (self._frame + 1) * FRAME_US
            if inbox and inbox[0][0] <= tick_us:
                arrival_us, message = inbox[0]
                if arrival_us > now_us:
                    break
                inbox.popleft()
                self._arrive(arrival_us, message)
            elif tick_us <= now_us:
                self._tick(tick_us)
            else:
                break
        if not self._over:
            self._play(now_us)

    def _play(self, now_us: int) -> None:
        self.buffer.advance(now_us)
        for echo in self.buffer.take_echoes():
            self._send(echo.at_us, self._narrator.mark(echo.name))

    def _arrive(self, now_us: int, message: str | bytes | None) -> None:
        self._play(now_us)
        if message is None:
            self._end(now_us, "agent")
            return
        try:
            parsed = parse_server_message(message, self._ids.stream_sid)
        except WireError as error:
            self._violate(now_us, error.code, str(error))
            return
        if isinstance(parsed, Media):
            self._queue_audio(now_us, parsed.media.payload)
        elif isinstance(parsed, Clear):
            self._clear(now_us)
        elif not self.buffer.mark(now_us, parsed.mark.name):
            self._violate(now_us, 31951, "more marks are pending than could be of use")
        self._play(now_us)

    def _queue_audio(self, now_us: int, payload: bytes) -> None:
        if self.first_audio_us is None:
            self.first_audio_us = now_us
        if not self.buffer.media(now_us, payload) and 31931 not in self._warned:
            self._warned.add(31931)
            self._violate(now_us, 31931, "more than 10 minutes of audio are queued")
        self.barge_ins.media(now_us, len(payload))

    def _clear(self, now_us: int) -> None:
        cleared = self.buffer.clear(now_us)
        self.barge_ins.cleared(cleared, self.buffer)
        self._tell(BufferCleared(now_us / 1000, cleared.discarded * US_PER_BYTE / 1000))
        self._agent_stopped(self.ear.end(), cut=True)

    def _tick(self, now_us: int) -> None:
        """One frame of the caller's has been captured: it goes out, and 20 ms have been heard."""
        self._play(now_us)
        said, payload = SILENT_FRAME, SILENT_PAYLOAD
        if self._speech is not None:
            speech = self._speech
            index = self._speak(speech)
            said, payload = speech.frames[index], speech.payloads[index]
        sent = self._returned(said)
        if sent is not said:
            said, payload = sent, base64.b64encode(sent).decode("ascii")
        if self._record:
            self._said += said
        frame, self._frame = self._frame, self._frame + 1
        if len(self._outbox) >= _OUTBOX_FRAMES:
            self._lose_frame(now_us)
        else:
            self._send(now_us, self._narrator.media(frame + 1, frame * FRAME_MS, payload))
        self._listen(frame)
        self._performer.tick(self._frame, self)

    def _end(self, now_us: int, by: Party) -> None:
        if self._over:
            return
        self._over = True
        self.ended_us = now_us
        self._fall_silent()
        self._agent_stopped(self.ear.end(), cut=self.buffer.queued > 0)
        if by == "caller":
            self._send(now_us, self._narrator.stop())
        else:
            self._outbox.clear()
            self.polite = by != "line"
            self._performer.disconnected()
        self._tell(HungUp(now_us / 1000, by, self.buffer.queued * US_PER_BYTE / 1000))

    def _lose_frame(self, now_us: int) -> None:
        self.lost_frames += 1
        self._narrator.skip()
        if 31930 not in self._warned:
            self._warned.add(31930)
            self._violate(now_us, 31930, "the server reads too slowly, the caller's audio is lost")

    def _send(self, now_us: int, text: str) -> None:
        self._outbox.append((self._to_server.arrival_us(now_us), text))
