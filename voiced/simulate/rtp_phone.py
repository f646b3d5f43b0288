"""The simulated telephone on an RTP line, sans-I/O: G.711, RFC 4733 keys, RTCP, hold.

Datagrams go in with the time of their coming and out when their time has come, whole microseconds
since the call was answered. What the script wants of the signalling comes out of `take_wishes`.
Audio is played as it arrives, without a jitter buffer, so that every delay shows, unless one is
asked for; a packet that comes after its successor is not played, and what is missing is silence.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Final, Literal

from voiced.audio import alaw_to_ulaw, ulaw_to_alaw
from voiced.formats import PCMU_8K
from voiced.simulate import rtp_packets
from voiced.simulate.events import DigitPressed, HungUp, MediaStarted, Observer, Party
from voiced.simulate.figures import RtpFigures, Spread
from voiced.simulate.line import Line
from voiced.simulate.playbuffer import US_PER_BYTE
from voiced.simulate.rtp_packets import BadPacket, RtpPacket
from voiced.simulate.rtp_receiver import Receiver
from voiced.simulate.script import Script
from voiced.simulate.sip_sdp import CODECS, EVENT_TYPE, Direction, Media
from voiced.simulate.speech import FRAME_BYTES, SILENT_FRAME, is_loud
from voiced.simulate.telephone import FRAME_US, Telephone

__all__ = ["RtpPhone", "Wish"]

Wish = Literal["hang up", "cut", "hold", "resume"]

_PCMA: Final = 8
_HUSH_FRAMES: Final = 10  # silence that is no pause between words; sooner than any answer
_KEY_FRAMES: Final = 15  # from a key to the silence that it brings, if it does
_CUT_FRAMES: Final = 2  # speech that ended so shortly before was not over of its own accord
_EVENT_FRAMES: Final = 5  # 100 ms of key
_EVENT_ENDS: Final = 3  # RFC 4733 section 2.5.1.4
_KEY_PAUSE_FRAMES: Final = 3
_KEYS: Final = 32  # waiting to be sent
_ECHOES: Final = 256  # loud frames remembered: five seconds
_SLACK_BYTES: Final = 60 * PCMU_8K.bytes_per_ms  # play-out that lags behind makes up in silence
_MISSING_BYTES: Final = 1000 * PCMU_8K.bytes_per_ms  # a longer hole is a new beginning
_HOLD_GRACE_US: Final = 300_000
_REPORT_US: Final = (2_500_000, 5_000_000)  # the first, the others (RFC 3550 section 6.2)


class RtpPhone(Telephone):
    """The media side of one call. `buffer_ms`: of its jitter buffer, filled before it plays."""

    can_hold = True
    gap_floor_ms = 100.0
    # What a telephone's jitter buffer makes up for; shorter gaps are in the figures alone.

    def __init__(
        self,
        script: Script,
        *,
        record: bool = True,
        observer: Observer | None = None,
        rng: random.Random | None = None,
        line: Line | None = None,
        buffer_ms: int = 0,
    ) -> None:
        super().__init__(script, record=record, observer=observer, line=line)
        self._lead = SILENT_FRAME[:1] * (buffer_ms * PCMU_8K.bytes_per_ms)
        rng = rng or random.Random(0)  # noqa: S311 (a simulation's SSRC guards nothing)
        self._wall_s = 0.0
        self._ssrc = rng.getrandbits(32)
        self._sequence = rng.getrandbits(16)
        self._clock = rng.getrandbits(32)  # the timestamp of frame 0
        self._cname = f"caller-{self._ssrc:08x}"
        self._codec = 0
        self._event_type: int | None = None
        self._direction: Direction = "sendrecv"
        self._begun = False
        self._talking = False  # packets are going out: the first one has the marker
        self._keys: deque[str] = deque()  # _KEYS
        self._key_frame = 0
        self._sent = self._octets = 0
        self._out: deque[tuple[int, bool, bytes]] = deque()  # of a few ticks: it is emptied at each
        self._wishes: list[Wish] = []
        self._pressed: int | None = None  # the frame of a key that may yet silence the agent
        self._now_us = 0
        self._held_at_us: int | None = None  # since when audio must not come
        self._heard_on_hold = False
        self._echoes: dict[bytes, int] = {}  # loud payloads sent, when; _ECHOES
        self._echo_us: list[int] = []
        self._report_at_us = _REPORT_US[0]
        self._reports = 0
        self._last_sr: tuple[int, int] | None = None  # middle of its NTP time, when it came
        self._remote_lost: int | None = None
        self._remote_jitter: int | None = None
        self._goodbye = False
        self.receiver = Receiver(tuple(CODECS), EVENT_TYPE)
        self.first_speech_us: int | None = None

    # The signalling side

    def answered(self, media: Media, call_id: str, wall_s: float = 0.0) -> None:
        """Begin; this is time 0, and `wall_s` the time of day."""
        self._wall_s = wall_s
        self._take(media, "sendrecv")
        self._begun = True
        self._tell(MediaStarted(0.0, call_id, f"{self._ssrc:08x}"))
        self._performer.tick(0, self)

    def media_changed(self, now_us: int, media: Media, direction: Direction) -> None:
        """Take what a later offer and answer agreed on; `direction` as seen from here."""
        self._run_until(now_us)
        self._take(media, direction)
        self.on_hold = direction in ("sendonly", "inactive")
        self._held_at_us = now_us if self.on_hold else None
        if direction != "sendrecv":
            self.receiver.paused()
            self.buffer.clear(self._now_us)  # the silence from now on is wanted

    def ended(self, now_us: int, by: Party) -> None:
        """Take it that the call is over."""
        self._run_until(now_us)
        self._end(max(now_us, self._frame * FRAME_US), by)

    def take_wishes(self) -> list[Wish]:
        """What the caller wants of the signalling, in order."""
        wishes, self._wishes = self._wishes, []
        return wishes

    def _take(self, media: Media, direction: Direction) -> None:
        codec = media.codec
        assert codec is not None  # checked with the answer
        self._codec, self._event_type, self._direction = codec, media.events, direction
        if direction != "sendrecv":
            self._talking = False

    # The media side

    def receive(self, at_us: int, data: bytes) -> None:
        """Take an RTP datagram; only once the call is answered."""
        if self._over:
            return
        self._run_until(at_us)
        packet = self.receiver.receive(at_us, data)
        if packet is None:
            return
        audio = self.receiver.audio(packet)
        if audio is None:
            return
        if self._held_at_us is not None:
            self._play_on_hold(at_us, self._held_at_us)
            return
        sent_us = self._echoes.pop(audio.payload, None)
        if sent_us is not None:
            self._echo_us.append(at_us - sent_us)
        payload = alaw_to_ulaw(audio.payload) if audio.payload_type == _PCMA else audio.payload
        self._hear(max(at_us, self._now_us), payload, audio.missing)

    def receive_rtcp(self, at_us: int, data: bytes) -> None:
        """Take an RTCP datagram."""
        try:
            report = rtp_packets.parse_reports(data, self._ssrc)
        except BadPacket as error:
            self._violate(max(at_us, 0), 0, f"RTCP: {error}")
            return
        if not report.named and not self._reports:
            self._violate(max(at_us, 0), 0, "RTCP: a compound packet without a CNAME")
        self._reports += 1
        self._goodbye = self._goodbye or report.bye
        if report.ntp_middle is not None:
            self._last_sr = report.ntp_middle, at_us
        if report.lost is not None:
            self._remote_lost, self._remote_jitter = report.lost, report.jitter

    def poll(self, now_us: int) -> list[tuple[bool, bytes]]:
        """Let time pass; the datagrams that must be sent now, True for RTCP."""
        self._run_until(now_us)
        due = [(rtcp, data) for _, rtcp, data in self._out]
        if self._out:
            self.worst_lag_us = max(self.worst_lag_us, now_us - self._out[0][0])
        self._out.clear()
        return due

    def next_us(self) -> int:
        """When `poll` must be called next if nothing comes."""
        if self._out or self._wishes:
            return 0
        return (self._frame + 1) * FRAME_US

    @property
    def finished(self) -> bool:
        """The call is over and everything has been sent."""
        return self._over and not self._out

    def rtp_figures(self) -> RtpFigures:
        """What went over RTP until now."""
        seen = self.receiver
        jitter = None if self._remote_jitter is None else self._remote_jitter / 8
        return RtpFigures(
            sent=self._sent,
            received=seen.received,
            lost=seen.lost,
            duplicated=seen.duplicated,
            reordered=seen.reordered,
            malformed=seen.malformed,
            unexpected=seen.unexpected,
            strangers=seen.strangers,
            sources=seen.sources,
            jitter_ms=round(seen.jitter / 8, 3) if seen.received else None,
            lateness_ms=seen.lateness(),
            longest_gap_ms=seen.longest_gap_us / 1000,
            bursts=seen.bursts,
            digits=seen.digits,
            echo_ms=Spread.of_us(self._echo_us),
            reports=self._reports,
            remote_lost=self._remote_lost,
            remote_jitter_ms=jitter,
            goodbye=self._goodbye,
        )

    # The person's side

    def press(self, digit: str, *, secret: bool) -> None:
        """Press a key; it is sent after those pressed before it."""
        self._tell(DigitPressed(self._frame * FRAME_US / 1000, "" if secret else digit))
        self._pressed = self._frame
        if self._event_type is None:
            self.complain(0, f"the key {digit} cannot be sent: telephone-event was not agreed on")
        elif len(self._keys) < _KEYS:
            self._keys.append(digit)

    def hang_up(self, *, politely: bool) -> None:
        """End the call now."""
        self._wishes.append("hang up" if politely else "cut")
        self._end(self._frame * FRAME_US, "caller" if politely else "line")

    def hold(self, on: bool) -> None:
        """Ask to be held, or to come back."""
        self._wishes.append("hold" if on else "resume")
        if not on:
            self._held_at_us = None  # audio may come before the answer does (RFC 3264 section 8)

    # The course of time

    def _run_until(self, now_us: int) -> None:
        while self._begun and not self._over and (self._frame + 1) * FRAME_US <= now_us:
            self._tick((self._frame + 1) * FRAME_US)
        self._now_us = max(self._now_us, now_us)

    def _tick(self, now_us: int) -> None:
        self._now_us = max(self._now_us, now_us)
        self.buffer.advance(now_us)
        said = SILENT_FRAME
        if self._speech is not None:
            speech = self._speech
            said = speech.frames[self._speak(speech)]
        said = self._returned(said)
        if self._record:
            self._said += said
        frame, self._frame = self._frame, self._frame + 1
        if self._direction == "sendrecv":
            self._send(now_us, frame, said)
        if now_us >= self._report_at_us:
            self._report_at_us += _REPORT_US[1]
            self._report(now_us)
        self._listen(frame)
        self._watch_interruption(frame)
        self._performer.tick(self._frame, self)

    def _send(self, now_us: int, frame: int, said: bytes) -> None:
        timestamp = self._clock + frame * FRAME_BYTES
        if self._keys and self._event_type is not None and self._key_frame >= 0:
            self._send_key(now_us, timestamp)
            return
        self._key_frame = min(self._key_frame + 1, 0)
        payload = ulaw_to_alaw(said) if self._codec == _PCMA else said
        if said is not SILENT_FRAME and is_loud(said):
            if len(self._echoes) >= _ECHOES:
                del self._echoes[next(iter(self._echoes))]
            self._echoes[payload] = now_us
        self._packet(now_us, self._codec, timestamp, payload, marker=not self._talking)
        self._talking = True

    def _send_key(self, now_us: int, timestamp: int) -> None:
        """One packet of a key in the place of audio: updates, then the end three times."""
        assert self._event_type is not None
        at, self._key_frame = self._key_frame, self._key_frame + 1
        end = at >= _EVENT_FRAMES - 1
        duration = min(at + 1, _EVENT_FRAMES) * FRAME_BYTES
        payload = rtp_packets.event_payload(self._keys[0], duration, end=end)
        begun = timestamp - at * FRAME_BYTES
        self._packet(now_us, self._event_type, begun, payload, marker=at == 0)
        if self._key_frame == _EVENT_FRAMES - 1 + _EVENT_ENDS:
            self._keys.popleft()
            self._key_frame = -_KEY_PAUSE_FRAMES

    def _packet(
        self, now_us: int, payload_type: int, timestamp: int, payload: bytes, *, marker: bool
    ) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFF
        stamp = timestamp & 0xFFFFFFFF
        packet = RtpPacket(payload_type, marker, self._sequence, stamp, self._ssrc, payload)
        self._out.append((now_us, False, rtp_packets.rtp(packet)))
        self._sent += 1
        self._octets += len(payload)

    def _report(self, now_us: int) -> None:
        block = None
        seen = self.receiver
        if seen.ssrc is not None:
            middle, came_us = self._last_sr or (0, now_us)
            # A tick that is late counts as in time: the report may have come after that.
            delay = max(0, now_us - came_us) * 65536 // 1_000_000 if self._last_sr else 0
            highest = seen.highest & 0xFFFFFFFF
            block = seen.ssrc, seen.lost, highest, int(seen.jitter), middle, delay
        data = rtp_packets.sender_report(
            self._ssrc,
            now_s=self._wall_s + now_us / 1e6,
            timestamp=self._clock + now_us // US_PER_BYTE,
            packets=self._sent,
            octets=self._octets,
            block=block,
            cname=self._cname,
        )
        self._out.append((now_us, True, data))

    def _hear(self, now_us: int, payload: bytes, missing: int) -> None:
        buffer = self.buffer
        buffer.advance(now_us)
        loud = is_loud(payload.ljust(FRAME_BYTES, SILENT_FRAME[:1]))
        if self.first_audio_us is None:
            self.first_audio_us = now_us
        if loud and self.first_speech_us is None:
            self.first_speech_us = now_us
        if missing and buffer.runs and missing < _MISSING_BYTES:
            quiet = 0 if buffer.queued else (now_us - buffer.runs[-1].end_us) // US_PER_BYTE
            buffer.media(now_us, SILENT_FRAME[:1] * max(0, missing - quiet))
        if not buffer.queued:
            buffer.media(now_us, self._lead)
        if loud or buffer.queued <= _SLACK_BYTES + len(self._lead):
            buffer.media(now_us, payload)

    def _play_on_hold(self, at_us: int, since_us: int) -> None:
        if at_us > since_us + _HOLD_GRACE_US and not self._heard_on_hold:
            self._heard_on_hold = True
            self._violate(at_us, 0, "audio came while the call was held")

    def _watch_interruption(self, frame: int) -> None:
        """There is no `clear` to see: an interruption is heeded when the agent falls silent."""
        if self._pressed is not None and self.ear.quiet_frames >= _HUSH_FRAMES:
            since = frame + 1 - self.ear.quiet_frames - self._pressed
            self._agent_stopped(self.ear.end(), cut=0 <= since <= _KEY_FRAMES)
            self._pressed = None
        if not self.barge_ins.all:
            return
        barge_in, quiet = self.barge_ins.all[-1], self.ear.quiet_frames
        if barge_in.cleared_us is not None:
            if not quiet:
                self.barge_ins.media(frame * FRAME_US, FRAME_BYTES)
        elif quiet >= _HUSH_FRAMES:
            silent_us = (frame + 1 - quiet) * FRAME_US
            cut = silent_us + _CUT_FRAMES * FRAME_US >= barge_in.started_us
            self.barge_ins.fell_silent(max(silent_us, barge_in.started_us), cut=cut)
            self._agent_stopped(self.ear.end(), cut=cut)

    def _end(self, now_us: int, by: Party) -> None:
        if self._over:
            return
        self._over = True
        self.ended_us = now_us
        self._fall_silent()
        self._agent_stopped(self.ear.end(), cut=False)
        if by == "line":
            self._out.clear()
        else:
            self._out.append((now_us, True, rtp_packets.bye(self._ssrc, self._cname)))
        if by != "caller":
            self._performer.disconnected()
        self._tell(HungUp(now_us / 1000, by, self.buffer.queued * US_PER_BYTE / 1000))
