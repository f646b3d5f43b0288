"""One call's audio over RTP: what a SIP leg stands on. Sans-I/O, synchronous, nothing blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from voiced.formats import AudioFormat
from voiced.leg import CallerAudio, Digit
from voiced.rtp.media import Address, MediaParameters, MediaTransport, RtpStatistics

__all__ = ["MAX_QUEUED_MS", "MediaStream"]

MAX_QUEUED_MS: Final = 30_000


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
        on_media: Callable[[], None] = lambda: None,
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
                until the next `take`. Must not block. May be set later as an attribute.
            cname: RTCP's name for us (RFC 3550 section 6.5.1); random when empty.
            reorder_ms: how long a packet waits for one before it, 0 to 60.
            first_timeout_s: patience for the first packet after `begin`; 0: for ever.
            timeout_s: patience between packets; 0: for ever.
            max_queued_ms: bound of what `send` may run ahead.
        """
        self.on_media = on_media
        raise NotImplementedError

    def configure(self, parameters: MediaParameters) -> None:
        """Take what was agreed, at first and after every re-negotiation.

        SSRC, sequence and position go on; the source may be learnt anew where the address changed.
        `format` is that of the first codec and stays: a later codec is converted to it.
        Raises ValueError for a codec or ptime that voiced does not speak, SrtpUnavailable or
        CodecUnavailable where the package is missing.
        """
        raise NotImplementedError

    @property
    def parameters(self) -> MediaParameters | None:
        """What `configure` was told last."""
        raise NotImplementedError

    @property
    def format(self) -> AudioFormat:
        """Of the audio in both directions. Raises RuntimeError before the first `configure`."""
        raise NotImplementedError

    @property
    def ssrc(self) -> int:
        """Ours."""
        raise NotImplementedError

    def begin(self) -> None:
        """Send from now on: audio where there is some, else silence. Again: nothing happens."""
        raise NotImplementedError

    # ---- from the peer

    def take(self) -> list[CallerAudio | Digit]:
        """What has come since the last time, audio between two digits joined; maybe nothing."""
        raise NotImplementedError

    def silent_for_s(self) -> float:
        """Seconds since the last packet, or since `begin`; 0 while paused or not receiving."""
        raise NotImplementedError

    @property
    def timed_out(self) -> bool:
        """Nothing has come for longer than the patience. `on_media` tells when it becomes true."""
        raise NotImplementedError

    @property
    def said_bye(self) -> bool:
        """The peer's RTCP BYE came."""
        raise NotImplementedError

    @property
    def remote(self) -> Address | None:
        """Where RTP goes: the address learnt, or the SDP's."""
        raise NotImplementedError

    # ---- to the peer: the audio half of `voiced.leg.Leg`

    def send(self, payload: bytes) -> None:
        """Queue audio of `format`; counts as sent at once. Raises MediaClosed, QueueFull."""
        raise NotImplementedError

    def sent(self) -> int:
        """Bytes sent in this generation."""
        raise NotImplementedError

    def heard(self) -> int:
        """Bytes of this generation whose packets have left."""
        raise NotImplementedError

    def seconds_until(self, position: int) -> float:
        """Seconds until `heard()` reaches `position`, if nothing stalls; 0 when it has.

        While nothing is sent (before `begin`, on hold), as if that ended now.
        """
        raise NotImplementedError

    def clear(self) -> int:
        """Drop what has not left, begin a new generation; returns the old one's final `heard`."""
        raise NotImplementedError

    @property
    def takes_digits(self) -> bool:
        """The peer understands telephone events; else digits go by SIP INFO."""
        raise NotImplementedError

    def send_digits(self, digits: str, duration_ms: int = 100, gap_ms: int = 100) -> None:
        """Press keys of `0-9 * # A-D` one after another (RFC 4733); audio waits meanwhile.

        Raises ValueError for another key or while `takes_digits` is false, MediaClosed.
        """
        raise NotImplementedError

    @property
    def sending_digits(self) -> bool:
        """Keys are being pressed, or wait to be."""
        raise NotImplementedError

    # ---- hold and end

    def pause(self, paused: bool) -> None:
        """Hold: no audio is sent or taken, RTCP goes on, the time limit rests; False: resume."""
        raise NotImplementedError

    def statistics(self) -> RtpStatistics:
        """Counts of the whole stream so far."""
        raise NotImplementedError

    def close(self) -> None:
        """Send RTCP BYE, give the ports back. Safe to call twice."""
        raise NotImplementedError

    # ---- from the transport

    def rtp_received(self, data: bytes, source: Address, now: float) -> None:
        """A datagram came to the RTP port."""
        raise NotImplementedError

    def rtcp_received(self, data: bytes, source: Address, now: float) -> None:
        """A datagram came to the RTCP port."""
        raise NotImplementedError

    def tick(self, due: float, now: float) -> float:
        """One packet time has passed; see `Paced`."""
        raise NotImplementedError
