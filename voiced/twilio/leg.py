"""The leg of a Twilio call: a media stream over a WebSocket of our own.

The carrier buffers what it is sent and plays it in real time. Marks, echoed when all before them
has been played, keep the play clock true; `clear` empties the buffer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from voiced import metrics
from voiced.formats import PCMU_8K, AudioFormat
from voiced.leg import LegClosed, LegEvent, Stopped, Transferred, Unsupported
from voiced.twilio.errors import ProtocolError, StreamRefused
from voiced.twilio.events import (
    Connected,
    MediaFormat,
    Start,
    encode_clear,
    encode_mark,
    encode_media,
    parse,
)
from voiced.twilio.inbound import Inbound, InboundStatistics
from voiced.twilio.playclock import PlayClock, PlayClockStatistics
from voiced.websocket import BacklogFull, Message, WebSocket, WebSocketClosed

__all__ = ["LOOK_S", "START_TIMEOUT_S", "LegStatistics", "TwilioLeg", "accept_start"]

START_TIMEOUT_S: Final = 5.0
"""Twilio sends `start` right behind `connected`; a stranger who found a token must not sit here."""

LEAD_MS: Final = 2000
"""How far ahead of the play clock: enough for any network's hiccup, little to throw away."""

MAX_PAYLOAD: Final = 4000
"""Bytes of audio in one message, 500 ms. Twilio names no limit and plays any length, but a mark can
stand only between messages, and look-alikes want less than 64 KiB of JSON; what the speaker sends
is 200 ms, so this cuts only what somebody sends whole."""

MAX_BEFORE_START: Final = 10
"""Messages before `start`; Twilio sends one."""

ECHO_PATIENCE_S: Final = 2.0
"""How long after its time the last mark is waited for: a round trip and a stall; then the clock is
believed, since a carrier that loses marks must not keep a call from ending."""

LOOK_S: Final = 10.0
"""How often to look whether the carrier is still there; it sends 50 messages a second."""

SILENT_S: Final = 30.0
"""Without a word or an answer for so long it is gone: a network that fails ends no connection."""

_POLICY_VIOLATION: Final = 1008  # RFC 6455 section 7.4.1
_VIOLATIONS: Final = {1002: "framing", 1007: "not utf-8", 1009: "too large"}
"""Ends of a WebSocket that are a complaint about what was sent, mostly ours about the carrier's."""

_MULAW: Final = frozenset({"audio/x-mulaw", "pcmu"})  # the second is a look-alike's

_log = structlog.get_logger("voiced.twilio")


@dataclass(frozen=True, slots=True)
class LegStatistics:
    """Counts of the whole stream."""

    inbound: InboundStatistics
    playback: PlayClockStatistics


async def accept_start(
    ws: WebSocket,
    call_sid: str,
    timeout: float = START_TIMEOUT_S,  # noqa: ASYNC109 - the protocol's, with its own error
) -> TwilioLeg:
    """Wait for the stream's `start` and make the leg.

    `call_sid` is the call that the stream's token was minted for; `start` must name it.

    Raises StreamRefused, with the WebSocket closed, when `start` does not come within `timeout`
    seconds, names another call, or announces audio that is not mu-law at 8000 Hz.
    """
    try:
        with trio.fail_after(timeout):
            start, rest = await _wait_start(ws)
        _check(start, call_sid)
    except trio.TooSlowError:
        refusal = StreamRefused("no start")
    except StreamRefused as error:
        refusal = error
    else:
        return TwilioLeg(ws, start, rest)
    await ws.aclose(_POLICY_VIOLATION, refusal.reason)
    raise refusal


async def _wait_start(ws: WebSocket) -> tuple[Start, list[Message]]:
    """Return `start` and what the same wake-up brought behind it."""
    left = MAX_BEFORE_START
    while True:
        try:
            messages = await ws.receive()
        except WebSocketClosed:
            raise StreamRefused("closed before start") from None
        for at, message in enumerate(messages):
            try:
                event = parse(message) if type(message) is bytes else None
            except ProtocolError:
                raise StreamRefused("malformed before start") from None
            if type(event) is Start:
                return event, messages[at + 1 :]
            left -= type(event) is not Connected
            if left <= 0:
                raise StreamRefused("no start")


def _check(start: Start, call_sid: str) -> None:
    if start.start.call_sid != call_sid:
        raise StreamRefused("another call")
    found: MediaFormat = start.start.media_format
    if (found.encoding.lower(), found.sample_rate, found.channels) not in {
        (name, 8000, 1) for name in _MULAW
    }:
        raise StreamRefused("unsupported media format")
    if not (start.stream_sid or start.start.stream_sid):
        raise StreamRefused("no stream sid")


class TwilioLeg:
    """A `voiced.leg.Leg`; from `accept_start`. The owner of the WebSocket closes it."""

    def __init__(self, ws: WebSocket, start: Start, early: Sequence[Message] = ()) -> None:
        """Take over `ws`, on which `start` and, behind it, `early` have come."""
        now = trio.current_time()
        self._ws = ws
        self._start = start
        self._early = list(early)
        self._sid = start.stream_sid or start.start.stream_sid
        self._clock = PlayClock(PCMU_8K.bytes_per_ms)
        self._inbound = Inbound(
            self._sid, start.start.call_sid, start.sequence_number, now, self._echoed
        )
        self._marked = 0  # position of this generation's newest mark
        self._news = trio.lowlevel.ParkingLot()  # where `drained` waits for echoes and the end
        self._ended_at: float | None = None  # the stream is over: nothing more is heard
        self._stopped = False  # and `receive` has said so
        self._redirecting = False
        self._silent = False  # given up because nothing came
        self.redirect: Callable[[str], Awaitable[Transferred]] | None = None
        """Has the carrier's REST API send the call elsewhere; None without an account."""
        # A mark on the empty buffer comes back at once, and so tells the round trip.
        self._try_mark()

    @property
    def format(self) -> AudioFormat:
        """mu-law at 8000 Hz, the only one that Twilio speaks."""
        return PCMU_8K

    @property
    def lead_ms(self) -> int:
        """How far ahead of the play clock audio may be sent when the agent does not say."""
        return LEAD_MS

    @property
    def stream_sid(self) -> str:
        """Twilio's name of the stream."""
        return self._sid

    @property
    def parameters(self) -> Mapping[str, str]:
        """The `<Parameter>`s of the TwiML, as they came back."""
        return self._start.parameters

    def statistics(self) -> LegStatistics:
        """Counts of the whole stream so far."""
        return LegStatistics(self._inbound.statistics(), self._clock.statistics())

    # ---- from the carrier

    async def receive(self) -> Sequence[LegEvent]:
        """Wait for the carrier; see `Leg`. When cancelled, nothing is lost."""
        if self._stopped:
            await trio.lowlevel.checkpoint()
            raise LegClosed
        while True:
            if self._early:
                await trio.lowlevel.checkpoint()
                messages, self._early = self._early, []
            else:
                try:
                    messages = await self._ws.receive()
                except WebSocketClosed as closed:
                    if closed.code in _VIOLATIONS:
                        self._give_up(_VIOLATIONS[closed.code], str(closed))
                    return [self._stop(f"connection closed: {closed}")]
            try:
                events = self._inbound.feed(messages, trio.current_time())
            except ProtocolError as error:
                # Not a polite close: reading on, for a peer that floods, is what must end.
                self._ws.abort(error.reason)
                self._give_up(error.reason, str(error))
                return [self._stop(f"protocol error: {error.reason}")]
            if events:
                last = events[-1]
                if type(last) is Stopped:
                    code = self._stop(last.reason).code
                    return [*events[:-1], Stopped(last.reason, last.hung_up, code)]
                return events

    def look_after(self) -> None:
        """See whether the carrier is still there, every `LOOK_S`; `receive` says if it is not.

        One that says nothing is asked first, since look-alikes may suppress silence.
        """
        if self._ended_at is not None:
            return
        heard_at = max(self._inbound.heard_at, self._ws.pings.last_pong or 0.0)
        silent = trio.current_time() - heard_at
        if silent >= SILENT_S:
            self._silent = True
            self._give_up("silent", f"neither messages nor pongs for {silent:.0f} s")
            self._ws.abort("the carrier fell silent")
        elif silent >= LOOK_S:
            with suppress(WebSocketClosed):  # the receiver is told why
                self._ws.ping()

    def _give_up(self, reason: str, why: str) -> None:
        """Count and log that this stream is not read any more."""
        metrics.REFUSED.labels("stream", reason).inc()
        _log.warning("stream given up", why=why, carrier_call=self._start.start.call_sid)

    def _stop(self, reason: str) -> Stopped:
        self._stopped = True
        self._end()
        # A call that is sent elsewhere loses its stream, often before the REST API has answered.
        code = "transferred" if self._redirecting else "media_timeout" if self._silent else None
        return Stopped(reason, code=code)

    def _end(self) -> None:
        if self._ended_at is None:
            self._ended_at = trio.current_time()
        self._news.unpark_all()

    def _echoed(self, name: str) -> None:
        """Take the echo of a mark: it moves the clock, and may make another mark worth sending."""
        clock = self._clock
        if not clock.echoed(name, trio.current_time()):
            return  # of a cleared generation, or not ours: it proves nothing
        self._news.unpark_all()
        if clock.mark_due() or clock.position > self._marked:
            self._try_mark()

    # ---- to the carrier

    def send(self, payload: bytes) -> None:
        """Have `payload` played after all that was sent before; see `Leg`. Raises LegClosed."""
        if self._ended_at is not None:
            raise LegClosed
        clock = self._clock
        now = trio.current_time()
        messages: list[bytes] = []
        for part in _parts(payload):
            messages.append(encode_media(self._sid, part))
            clock.sent(len(part), now)
            # Besides what the clock asks for, one mark is always under way while audio is: its echo
            # is the occasion to mark what was sent after it, so that every end is confirmed.
            if clock.mark_due() or clock.confirmed >= self._marked:
                messages.append(self._new_mark(now))
        if messages:
            self._post(*messages)

    async def ready(self) -> None:
        """Wait until the kernel has taken everything that was sent. Raises LegClosed.

        A checkpoint only where it waits.
        """
        if self._ws.backlog:
            try:
                await self._ws.drain()
            except WebSocketClosed:
                raise LegClosed from None
        elif self._ended_at is not None:
            raise LegClosed

    def clear(self) -> int:
        """Empty the carrier's buffer, begin a new generation; returns the old one's final heard.

        Raises nothing: when the carrier is gone there is nothing left to clear.
        """
        heard = self._clock.clear(self._now())
        self._marked = 0
        self._news.unpark_all()
        if self._ended_at is None:
            messages = [encode_clear(self._sid)]
            if self._clock.mark_due():
                messages.append(self._new_mark(trio.current_time()))
            with suppress(LegClosed):  # the receiver is told why
                self._post(*messages)
        return heard

    def _new_mark(self, now: float) -> bytes:
        name = self._clock.mark(now)
        self._marked = self._clock.position
        return encode_mark(self._sid, name)

    def _mark(self) -> None:
        self._post(self._new_mark(trio.current_time()))

    def _try_mark(self) -> None:
        """Send a mark from where a carrier that is gone is somebody else's news."""
        with suppress(LegClosed):
            self._mark()

    def _post(self, *messages: bytes) -> None:
        try:
            self._ws.send_nowait(*messages)
        except BacklogFull:
            # Ten seconds of audio beyond what the kernel holds: the carrier is not coming back.
            self._ws.abort("the carrier does not read")
            raise LegClosed from None
        except WebSocketClosed:
            raise LegClosed from None

    # ---- the play clock

    def _now(self) -> float:
        return trio.current_time() if self._ended_at is None else self._ended_at

    def sent(self) -> int:
        """Bytes sent in this generation."""
        return self._clock.position

    def heard(self) -> int:
        """Bytes of this generation that a `clear` sent now would find played already."""
        return self._clock.heard(self._now())

    def seconds_until(self, position: int) -> float:
        """Seconds until `heard()` reaches `position`, if nothing stalls; 0 when it has."""
        return self._clock.seconds_until(position, self._now())

    # ---- the end

    async def drained(self) -> None:
        """Wait until the carrier confirms that all that was sent has been played.

        Where its mark does not come back, until two seconds after the clock says so. Returns early
        when the audio is cleared. Raises LegClosed when the carrier goes before.
        """
        await trio.lowlevel.checkpoint()
        clock = self._clock
        generation, end = clock.generation, clock.position
        if self._marked < end and self._ended_at is None:
            self._mark()
        while clock.generation == generation and clock.confirmed < end:
            if self._ended_at is not None:
                raise LegClosed
            patience = clock.seconds_until(end, self._now()) + ECHO_PATIENCE_S
            with trio.move_on_after(patience) as waiting:
                await self._news.park()
            if waiting.cancelled_caught:
                return

    async def transfer(self, target: str) -> Transferred:
        """Send the call to `target` with the REST API; see `Leg`."""
        if self.redirect is None:
            raise Unsupported("transfers need account_sid and auth_token under [twilio]")
        self._redirecting, done = True, False
        try:
            outcome = await self.redirect(target)
            done = outcome.done
        finally:  # an end that comes later is another one
            self._redirecting = done
        return outcome

    def send_digits(self, digits: str) -> None:
        """Unsupported: a media stream carries digits one way only, from the caller."""
        raise Unsupported("Twilio's media streams cannot press keys")

    def facts(self) -> Mapping[str, int | float | str | bool | None]:
        """Figures of the stream so far; see `Leg`."""
        inbound, playback = self._inbound.statistics(), self._clock.statistics()
        malformed = sum(inbound.malformed.values())
        return dataclasses.asdict(inbound) | {"malformed": malformed} | dataclasses.asdict(playback)

    async def hang_up(self) -> None:
        """Close the stream: our TwiML has nothing behind `<Connect>`, so the call ends with it."""
        self._end()
        await self._ws.aclose()


def _parts(payload: bytes) -> Sequence[bytes]:
    """Cut `payload` into messages; nothing at all for nothing."""
    return [payload[at : at + MAX_PAYLOAD] for at in range(0, len(payload), MAX_PAYLOAD)]
