"""One call's audio over RTP: what a SIP leg stands on. Sans-I/O, synchronous, nothing blocks."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from voiced.formats import AudioFormat
from voiced.leg import CallerAudio, Digit
from voiced.rtp import codec
from voiced.rtp.agreed import Codecs, check, codecs_of
from voiced.rtp.control import Control
from voiced.rtp.gate import Gate
from voiced.rtp.media import (
    Address,
    MediaClosed,
    MediaParameters,
    MediaTransport,
    RtpStatistics,
)
from voiced.rtp.pacer import Grid, Lateness
from voiced.rtp.packet import kind
from voiced.rtp.receiver import PATIENCE_S, Receiver
from voiced.rtp.sender import MAX_QUEUED_MS, Sender
from voiced.rtp.srtp import Srtp
from voiced.rtp.statistics import collect

__all__ = ["MediaStream"]

_HEADER: Final = 12


class MediaStream:
    """The audio of one call, both ways.

    Order of use: make it on a transport (`RtpHub.open`), `configure` when offer and answer have
    met, `begin` when packets may flow (the answer is sent, or early media wanted), `close`.
    Positions are bytes of `format` since the last `clear`, as in `voiced.leg.Leg`.
    """

    def __init__(
        self,
        transport: MediaTransport,
        *,
        now: Callable[[], float],
        on_media: Callable[[], object] = lambda: None,
        cname: str = "",
        reorder_ms: int = 40,
        first_timeout_s: float = 30.0,
        timeout_s: float = 15.0,
        max_queued_ms: int = MAX_QUEUED_MS,
    ) -> None:
        """Nothing is sent yet.

        Args:
            transport: ports and time.
            now: seconds, monotonic; the clock by which the transport calls `tick`.
            on_media: called when there is something to `take`, or `timed_out` became true; once
                until the next `take`. Must not block. May be set later as an attribute. A task
                that waits for it takes first: nothing is told twice.
            cname: RTCP's name for us (RFC 3550 section 6.5.1); random when empty.
            reorder_ms: how long a packet waits for one before it, 0 to 60.
            first_timeout_s: patience for the first packet after `begin`; 0: for ever.
            timeout_s: patience between packets; 0: for ever.
            max_queued_ms: bound of what `send` may run ahead.
        """
        at = now()
        self.on_media = on_media
        self.on_played: Callable[[bytes, float], None] | None = None
        """See `voiced.leg.PlayingLeg`; times are those that the RTP timestamps tell."""
        self._transport = transport
        self._now = now
        self._first_timeout_s = first_timeout_s
        self._timeout_s = timeout_s
        self._parameters: MediaParameters | None = None
        self._format: AudioFormat | None = None
        self._gate = Gate()
        self._latch = self._gate.latch
        self._receiver = Receiver(reorder_ms / 1000, at)
        self._sender = Sender(
            secrets.randbits(32), secrets.randbits(16), secrets.randbits(32), max_queued_ms
        )
        self._control = Control(transport, self._latch, self._sender, self._receiver, cname, at)
        self._srtp: Srtp | None = None
        self._codecs: Codecs | None = None
        self._grid: Grid | None = None
        self._lateness = Lateness()
        self._began = self._closed = self._paused = False
        self._taking = self._sending = False
        self._told = False  # on_media has been called since the last take
        self._told_timeout = False
        self._noise = self._skipped_ms = 0

    def configure(self, parameters: MediaParameters) -> None:
        """Take what was agreed, at first and after every re-negotiation.

        SSRC, sequence and position go on; the source may be learnt anew where the address changed.
        `format` is that of the first codec and stays: a later codec is converted to it.
        Raises ValueError for a codec or ptime that voiced does not speak, SrtpUnavailable or
        CodecUnavailable where the package is missing; then everything stays as it was.
        """
        new, old, at = parameters, self._parameters, self._now()
        check(new)
        form = self._format or codec.FORMATS[new.codec]
        # A codec's state goes on where nothing has changed: decoders are adaptive.
        fresh, codecs = None, self._codecs
        if codecs is None or old is None or (old.codec, old.accepted) != (new.codec, new.accepted):
            fresh = codecs = codecs_of(new, form)
        if new.srtp is None:
            self._srtp = None
        elif self._srtp is None:
            self._srtp = Srtp(new.srtp)
        else:
            self._srtp.rekey(new.srtp)
        self._format, self._parameters = form, new
        self._gate.srtp = self._srtp
        self._control.parameters, self._control.srtp = new, self._srtp
        if fresh is not None:
            self._receiver.configure(form, fresh.main, fresh.decoders, fresh.others)
        self._codecs = codecs
        self._sender.configure(
            form, new.payload_type, codecs.encode, new.ptime_ms, new.telephone_event
        )
        if self._grid is not None and old is not None and old.ptime_ms != new.ptime_ms:
            self._grid = Grid(self._grid.due, new.ptime_ms / 1000)
        self._latch.learn(new.remote_rtp, at)
        self._direct(at)

    def _direct(self, now: float) -> None:
        """Apply hold and direction."""
        known = self._parameters
        self._sending = known is not None and known.send and not self._paused
        taking = known is not None and known.receive and not self._paused
        if taking != self._taking:
            self._receiver.rest(now)
            self._told_timeout = False
        self._taking = taking

    @property
    def parameters(self) -> MediaParameters | None:
        """What `configure` was told last."""
        return self._parameters

    @property
    def format(self) -> AudioFormat:
        """Of the audio in both directions. Raises RuntimeError before the first `configure`."""
        if self._format is None:
            raise RuntimeError("the format is known once offer and answer have met")
        return self._format

    @property
    def ssrc(self) -> int:
        """Ours."""
        return self._sender.ssrc

    def begin(self) -> None:
        """Send from now on: audio where there is some, else silence.

        Again (early media has become a call): what came before is another source's, and patience
        begins anew. Raises RuntimeError before the first `configure`.
        """
        if self._closed:
            return
        if self._began:
            self._receiver.rest(self._now())
            self._told_timeout = False
            return
        if self._parameters is None:
            raise RuntimeError("what to send is known once offer and answer have met")
        self._began = True
        self._receiver.heard_at = self._now()
        self._grid = Grid(self._transport.begin(self), self._parameters.ptime_ms / 1000)

    # ---- from the peer

    def take(self) -> list[CallerAudio | Digit]:
        """What has come since the last time, audio between two digits joined; maybe nothing."""
        self._told = False
        return self._receiver.take()

    def keep_time(self) -> None:
        """Let whatever packet of the process is due leave now; see `MediaTransport`."""
        self._transport.keep_time()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self.on_media()

    def silent_for_s(self) -> float:
        """Seconds since the last packet, or since `begin`; 0 while paused or not receiving."""
        if not (self._began and self._taking):
            return 0.0
        return max(0.0, self._now() - self._receiver.heard_at)

    @property
    def timed_out(self) -> bool:
        """Nothing has come for longer than the patience. `on_media` tells when it becomes true.

        Once audio has come, reports count as well (RFC 3550 section 6.3.5): a gateway that
        suppresses silence sends nothing else while its caller listens.
        """
        silent = self.silent_for_s()
        if not self._receiver.packets:
            return 0 < self._first_timeout_s <= silent
        reported = max(0.0, self._now() - self._control.heard_at)
        return 0 < self._timeout_s <= min(silent, reported)

    @property
    def digits(self) -> int:
        """Keys that came as telephone events so far, taken or not."""
        return self._receiver.digits

    @property
    def said_bye(self) -> bool:
        """The peer's RTCP BYE came."""
        return self._control.reporter.said_bye

    @property
    def remote(self) -> Address | None:
        """Where RTP goes: the address learnt, or the SDP's."""
        return self._latch.destination

    # ---- to the peer: the audio half of `voiced.leg.Leg`

    def send(self, payload: bytes) -> None:
        """Queue audio of `format`; counts as sent at once.

        Raises MediaClosed, QueueFull, RuntimeError before the first `configure`.
        """
        if self._closed:
            raise MediaClosed
        if self._format is None:
            raise RuntimeError("what to send is known once offer and answer have met")
        self._sender.send(payload)

    def sent(self) -> int:
        """Bytes sent in this generation."""
        return self._sender.sent

    def heard(self) -> int:
        """Bytes of this generation whose packets have left."""
        return self._sender.heard

    def seconds_until(self, position: int) -> float:
        """Seconds until `heard()` reaches `position`, if nothing stalls; 0 when it has.

        While nothing is sent (before `begin`, on hold), as if that ended now.
        """
        if position <= self._sender.heard or self._parameters is None:
            return 0.0
        period = self._parameters.ptime_ms / 1000
        left = self._sender.frames_until(position) * period
        if self._grid is not None and self._sending:
            # A tick that is late comes any moment; then all of it is there.
            left += max(self._grid.due - self._now(), 0.0) - period
        return max(left, 0.001)

    def clear(self) -> int:
        """Drop what has not left, begin a new generation; returns the old one's final `heard`."""
        return self._sender.clear()

    @property
    def takes_digits(self) -> bool:
        """The peer understands telephone events; else digits go by SIP INFO."""
        return self._sender.event_type is not None

    def send_digits(self, digits: str, duration_ms: int = 100, gap_ms: int = 100) -> None:
        """Press keys of `0-9 * # A-D` one after another (RFC 4733); audio waits meanwhile.

        Raises ValueError for another key or while `takes_digits` is false, MediaClosed.
        """
        if self._closed:
            raise MediaClosed
        if not self.takes_digits:
            raise ValueError("the peer takes no telephone events")
        ticks = codec.CLOCK // 1000
        self._sender.keys.press(digits, duration_ms * ticks, gap_ms * ticks)

    @property
    def sending_digits(self) -> bool:
        """Keys are being pressed, or wait to be."""
        return self._sender.keys.busy

    # ---- hold and end

    def pause(self, paused: bool) -> None:
        """Hold: no audio is sent or taken, RTCP goes on, the time limit rests; False: resume."""
        self._paused = paused
        self._direct(self._now())

    def statistics(self) -> RtpStatistics:
        """Counts of the whole stream so far."""
        return collect(
            self._receiver,
            self._sender,
            self._control,
            self._lateness,
            strangers=self._gate.strangers,
            malformed=self._noise,
            undecryptable=self._srtp.failures if self._srtp else 0,
            skipped_ms=self._skipped_ms,
        )

    @property
    def lateness(self) -> Lateness:
        """How late its packets left."""
        return self._lateness

    def close(self) -> None:
        """Send RTCP BYE, give the ports back. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self.on_played = None  # a dialogue, and its stream, may outlive the call: ears are large
        if self._began:
            self._control.report(self._now(), bye=True)
        self._transport.close()

    # ---- from the transport

    def rtp_received(self, data: bytes, source: Address, now: float) -> None:
        """A datagram came to the RTP port."""
        if len(data) < _HEADER or not 128 <= data[0] < 192 or 192 <= data[1] < 224:
            if kind(data) == "rtcp":  # the ports are shared, or it is sent here unasked
                self._control.received(data, source, now)
            else:  # STUN, DTLS, noise
                self._noise += 1
        elif source == self._latch.source:
            plain = data if self._srtp is None else self._srtp.unprotect(data)
            if plain is not None:
                self._hear(plain, now)
        elif self._parameters is None:
            self._gate.strangers += 1
        else:
            heard_at = self._receiver.heard_at
            for each in self._gate.from_elsewhere(data, source, now, heard_at):
                self._hear(each, now)

    def _hear(self, data: bytes, now: float) -> None:
        if self._taking:
            self._receiver.receive(data, now)
            if self._receiver.waiting:
                self._tell()

    def rtcp_received(self, data: bytes, source: Address, now: float) -> None:
        """A datagram came to the RTCP port."""
        self._control.received(data, source, now)

    def tick(self, due: float, now: float) -> float:
        """One packet time has passed; see `Paced`."""
        grid, sender = self._grid, self._sender
        if self._closed or grid is None:
            return now + 3600.0  # a straggler: the transport has been told to stop
        self._lateness.add(now - due)
        missed = grid.pass_over(now)
        if missed:
            sender.skip(missed)
            self._skipped_ms += round(missed * grid.period * 1000)
        to = self._latch.destination
        if self._sending and to is not None:
            data: bytes | None = sender.packet()
            if self.on_played is not None and sender.played:
                self.on_played(sender.played, grid.due)
            if self._srtp is not None and data is not None:
                data = self._srtp.protect(data)
            if data is not None:
                self._transport.send_rtp(data, to)
        else:
            sender.skip()
        if self._taking:
            receiver = self._receiver
            if receiver.order.held or now - receiver.heard_at >= PATIENCE_S:
                self._idle(now)
        if now >= self._control.reporter.due:
            self._control.report(now)
        return grid.advance()

    def _idle(self, now: float) -> None:
        """The peer is not sending as it should: wait, fill, and in the end give up."""
        self._receiver.tick(now)
        if self._receiver.waiting:
            self._tell()
        if not self.timed_out:
            self._told_timeout = False
        elif not self._told_timeout:
            self._told_timeout = True
            self._told = False
            self._tell()
