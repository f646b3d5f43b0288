"""The leg of a SIP call: a session's signalling and a stream's audio as one `voiced.leg.Leg`.

Everything arrives by synchronous calls, from the session (`on_event`) and from the stream; the one
task that `receive`s is woken by either.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog
import trio

from voiced.formats import AudioFormat
from voiced.leg import (
    Digit,
    Held,
    LegClosed,
    LegEvent,
    Stopped,
    Transferred,
    Unsupported,
)
from voiced.rtp.media import MediaClosed, QueueFull
from voiced.sip.audio import CallAudio
from voiced.sip.errors import SipError
from voiced.sip.events import (
    Answered,
    Confirmed,
    Ended,
    Info,
    MediaChanged,
    Progress,
    ReferProgress,
    ReferRequested,
    SessionEvent,
)
from voiced.sip.session import InvalidState, Session
from voiced.text import printable

__all__ = ["DIGITS", "SipLeg", "end_code"]

_log = structlog.get_logger("voiced.sip")

LEAD_MS: Final = 800
"""How far ahead of the RTP clock audio is queued here: the speaker's least, since nothing beyond
this process can stall."""

TRANSFER_TIMEOUT_S: Final = 60.0
"""From a REFER to the news that the new call was answered or not: as long as telephones ring."""

DIGITS: Final = re.compile(r"[0-9A-D*#][0-9A-D*#,]{0,63}")
"""Keys to press; a comma is a pause."""

_KEY: Final = re.compile(r"([0-9A-D*#])(,*)")
GAP_MS: Final = 100  # between two keys
COMMA_MS: Final = 500
MAX_EVENTS: Final = 64
"""Events that wait for `receive`, audio apart: keys by INFO, holds. A call that does not take them
is over; what comes beyond is dropped but for the end."""

PLAYED_S: Final = 0.2
"""From a packet's leaving to its sound: the way and a jitter buffer, 60 to 200 ms."""

TWIN_S: Final = 0.5
"""So much later the telephone event of a key may come that an INFO has told already: some gateways
send both, and a menu must not hear the key twice."""

_TICK_S: Final = 0.002

_SIGNAL = re.compile(rb"^\s*Signal\s*=\s*([0-9A-D*#]|1[0-5])\s*$", re.MULTILINE | re.IGNORECASE)
_EVENTS: Final = "0123456789*#ABCD"  # RFC 4733 section 3.2; some write * and # as 10 and 11


class SipLeg:
    """One side of a call over SIP; made before the session is answered, as its observer.

    Args:
        session: set by the owner when it exists; an outgoing one is made with this as observer.
        audio: ports, stream and offer/answer of the call.
        refer_to: makes the Refer-To URI of a transfer's target; raises ValueError.
        up: called once, when audio may flow: the ACK came, the call was answered.
        over: called once, when the session has ended.
    """

    def __init__(
        self,
        audio: CallAudio,
        refer_to: Callable[[str], str],
        *,
        up: Callable[[], None],
        over: Callable[[Ended], None],
        progress: Callable[[Progress], None] = lambda event: None,
    ) -> None:
        self.session: Session | None = None
        self._audio = audio
        self._stream = audio.stream
        self._stream.on_media = self._wake
        self._refer_to = refer_to
        self._up = up
        self._over = over
        self._progress = progress
        self._events: list[LegEvent] = []
        self._receiver: trio.lowlevel.Task | None = None  # waits in `receive`
        self._ended: Ended | None = None
        self._over_event = trio.Event()
        self._stopped = False  # `receive` has delivered the end
        self._is_up = False
        self._held = False
        self._moved = trio.lowlevel.ParkingLot()  # `drained` waits here for a clear or the end
        self._generation = 0
        self._by_info: deque[tuple[Digit, float]] = deque(maxlen=16)  # keys of the last TWIN_S
        self._referring: list[ReferProgress] | None = None
        self._referred = trio.lowlevel.ParkingLot()

    # ---- what it is

    @property
    def format(self) -> AudioFormat:
        """That of the first codec; the stream converts what is agreed on later."""
        return self._stream.format

    @property
    def lead_ms(self) -> int:
        """How far ahead audio may be sent when the agent does not say."""
        return LEAD_MS

    def facts(self) -> Mapping[str, int | float | str | bool | None]:
        """Figures of the stream so far; see `Leg`."""
        statistics = self._stream.statistics()
        agreed = self._audio.agreed
        figures: dict[str, int | float | str | bool | None] = {
            name: value
            for name in statistics.__slots__
            if name != "lateness" and not isinstance(value := getattr(statistics, name), tuple)
        }
        figures["codec"] = None if agreed is None else agreed.codec.name
        figures["srtp"] = agreed is not None and agreed.srtp is not None
        return figures

    @property
    def on_played(self) -> Callable[[bytes, float], None] | None:
        """See `voiced.leg.PlayingLeg`."""
        return self._stream.on_played

    @on_played.setter
    def on_played(self, told: Callable[[bytes, float], None] | None) -> None:
        self._stream.on_played = told

    @property
    def _end(self) -> Ended | None:
        return self._ended

    # ---- from the session

    def on_event(self, event: SessionEvent) -> None:
        """See `voiced.sip.events.Observer`."""
        match event:
            case Confirmed() | Answered():
                self._begin()
            case MediaChanged():
                if self._audio.held is not self._held:
                    self._held = self._audio.held
                    self._tell(Held(self._held))
            case Info(content_type, body):
                self._on_info(content_type, body)
            case Progress():
                self._progress(event)
            case ReferProgress():
                if self._referring is not None:
                    self._referring.append(event)
                    self._referred.unpark_all()
            case ReferRequested():
                # To call whom a caller names, at our cost, is nobody's right.
                event.reject(603)
            case Ended():
                self._ended = event
                self._stream.close()
                self._over_event.set()
                self._referred.unpark_all()
                self._moved.unpark_all()
                self._wake()
                self._over(event)

    def _begin(self) -> None:
        if not self._is_up:
            self._is_up = True
            self._stream.begin()
            self._stream.take()  # early media is not the caller's word
            self._up()
            if self._held:
                self._tell(Held(True))

    def _tell(self, event: LegEvent) -> None:
        if not self._is_up:
            return  # a hold before the beginning is told then
        if len(self._events) < MAX_EVENTS:
            self._events.append(event)
            self._wake()
        elif isinstance(event, Held):  # a key less is a key less, a hold less is for ever
            self._events[-1] = event

    def _on_info(self, content_type: str, body: bytes) -> None:
        if content_type == "application/dtmf-relay":
            match = _SIGNAL.search(body)
            text = match[1].decode("ascii").upper() if match else ""
        else:
            text = body.strip()[:2].decode("ascii", "replace").upper()
        if text.isdecimal() and len(text) == 2 and int(text) < len(_EVENTS):
            text = _EVENTS[int(text)]
        if len(text) == 1 and text in _EVENTS:
            if self._stream.digits and self._stream.takes_digits:
                return  # its keys come as telephone events: this is one of them once more
            self._by_info.append((Digit(text), trio.current_time()))
            self._tell(Digit(text))
        else:
            _log.info("INFO without a digit", content_type=content_type, bytes=len(body))

    def _wake(self) -> None:
        # A parking lot for one task costs as much again as waking it, 50 times a second and call.
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            trio.lowlevel.reschedule(receiver)

    # ---- from the caller

    async def receive(self) -> Sequence[LegEvent]:
        """Wait for the carrier; see `Leg`. When cancelled, nothing is lost."""
        if self._stopped:
            await trio.lowlevel.checkpoint()
            raise LegClosed
        while True:
            # No checkpoint where something waits: it was brought by another task, which will have
            # to run before the next piece is there.
            events: Sequence[LegEvent] = () if self._held else self._stream.take()
            if events and self._by_info and self._stream.digits:
                events = self._without_twins(events)
            if self._events:
                events = [*events, *self._events]
                self._events = []
            if self._ended is not None:
                self._stopped = True
                return [*events, self._stop(self._ended)]
            if events:
                self._stream.keep_time()
                return events
            if self._stream.timed_out:
                self._stopped = True
                return [Stopped("no audio came for too long", code="media_timeout")]
            self._receiver = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)

    def _without_twins(self, events: Sequence[LegEvent]) -> Sequence[LegEvent]:
        """Leave out each key that an INFO has told just before, once for each INFO."""
        kept = list(events)
        for told in tuple(self._by_info):
            is_fresh = trio.current_time() - told[1] <= TWIN_S
            if not is_fresh or told[0] in kept:
                self._by_info.remove(told)
            if is_fresh and told[0] in kept:
                kept.remove(told[0])
        return kept

    def _leave(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _stop(self, ended: Ended) -> Stopped:
        if self._referring is not None and _after_the_end(self._referring, ended).done:
            # `transfer` is told as well; whichever of the two tasks runs first, it was no hang-up.
            return Stopped("the other side has taken the caller", True, "transferred")
        return _stop(ended)

    # ---- to the caller

    def send(self, payload: bytes) -> None:
        """Queue audio; see `Leg`. Raises LegClosed."""
        try:
            self._stream.send(payload)
        except (MediaClosed, QueueFull):
            # Full: the clock stands still, or somebody sends without asking `seconds_until`.
            raise LegClosed from None

    async def ready(self) -> None:
        """Return at once: the stream takes whatever a lead is. Raises LegClosed."""
        if self._ended is not None:
            raise LegClosed

    def sent(self) -> int:
        """Bytes sent in this generation."""
        return self._stream.sent()

    def heard(self) -> int:
        """Bytes of this generation whose packets have left."""
        return self._stream.heard()

    def seconds_until(self, position: int) -> float:
        """Seconds until `heard()` reaches `position`; 0 when it has."""
        return self._stream.seconds_until(position)

    def clear(self) -> int:
        """Drop what has not left; see `Leg`."""
        self._generation += 1
        heard = self._stream.clear()
        self._moved.unpark_all()
        return heard

    async def drained(self) -> None:
        """Wait until the last packet has left and been played.

        Returns early on a `clear`; raises LegClosed.
        """
        await trio.lowlevel.checkpoint()
        generation, end = self._generation, self._stream.sent()
        while self._generation == generation and self._stream.heard() < end:
            if self._ended is not None:
                raise LegClosed
            with trio.move_on_after(self._stream.seconds_until(end) + _TICK_S):
                await self._moved.park()
        if self._generation == generation and self._ended is None and end:
            # Telephones drop what waits in their jitter buffers when the BYE comes.
            with trio.move_on_after(PLAYED_S):
                await self._moved.park()

    def send_digits(self, digits: str) -> None:
        """Press keys: telephone events where the peer takes them, else SIP INFO. See `Leg`."""
        if not DIGITS.fullmatch(digits):
            raise Unsupported("keys are 0-9 * # A-D, with commas between them for pauses")
        if self._ended is not None or self.session is None:
            raise LegClosed
        try:
            if self._stream.takes_digits:
                for digit, commas in _KEY.findall(digits):
                    self._stream.send_digits(digit, gap_ms=GAP_MS + COMMA_MS * len(commas))
                return
            for digit in digits.replace(",", ""):
                body = f"Signal={digit}\r\nDuration=100\r\n".encode()
                self.session.info(body, "application/dtmf-relay")
        except (MediaClosed, InvalidState):
            raise LegClosed from None

    async def transfer(self, target: str) -> Transferred:
        """Blind transfer by REFER (RFC 3515), followed to its end; see `Leg`."""
        if self.session is None or self._ended is not None:
            raise LegClosed
        if self._referring is not None:
            raise Unsupported("a transfer is under way")
        uri = self._refer_to(target)
        news: list[ReferProgress] = []
        self._referring = news
        try:
            self.session.refer(uri)
        except InvalidState as error:
            self._referring = None
            raise Unsupported(str(error)) from None
        except SipError as error:
            self._referring = None
            raise ValueError(str(error)) from None
        try:
            with trio.move_on_after(TRANSFER_TIMEOUT_S):
                while not (news and news[-1].final):
                    if (ended := self._end) is not None:
                        return _after_the_end(news, ended)
                    await self._referred.park()
        finally:
            self._referring = None
        if not news:
            return Transferred(False, 408, "the other side did not say what became of it")
        last = news[-1]
        return Transferred(200 <= last.status < 300, last.status, printable(last.reason))

    async def hang_up(self) -> None:
        """BYE (or CANCEL, or a refusal); the audio stops at once. See `Leg`."""
        self._stream.close()
        if self._ended is None and self.session is not None:
            self.session.bye()
            await self._over_event.wait()


def _stop(ended: Ended) -> Stopped:
    text = printable(f"{ended.reason} {ended.status or ''} {ended.text}".strip())
    return Stopped(text, ended.reason == "remote_bye", end_code(ended))


def end_code(ended: Ended) -> str | None:
    """The journal's word for a call that was answered and ended so; None: the caller's choice."""
    match ended.reason:
        case "session_expired" | "ack_timeout" | "media_refused":
            return ended.reason
        case "cancelled":
            return "caller_cancelled"
    return None


def _after_the_end(news: Sequence[ReferProgress], ended: Ended) -> Transferred:
    """A peer that took the REFER and hung up before it told more has the caller."""
    status = news[-1].status if news else 202
    done = ended.reason == "remote_bye" and status < 300
    return Transferred(done, status, "the other side ended the call")
