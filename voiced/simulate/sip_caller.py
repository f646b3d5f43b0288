"""One simulated call over SIP and RTP from beginning to end."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Final, Literal

import trio

from voiced.simulate.endpoint import Endpoint, Unreachable, open_endpoint, resolve
from voiced.simulate.events import Observer
from voiced.simulate.figures import SipFigures
from voiced.simulate.line import Line
from voiced.simulate.result import CallResult, Setup, judge
from voiced.simulate.rtp_phone import RtpPhone
from voiced.simulate.script import Script
from voiced.simulate.sip_agent import Agent
from voiced.simulate.sip_dialog import Settings
from voiced.simulate.sip_digest import Credentials
from voiced.simulate.sip_events import (
    AgentEvent,
    Answered,
    Complaint,
    Ended,
    MediaChanged,
    Provisional,
    Refused,
    Transferred,
)
from voiced.simulate.sip_message import BadMessage, parse_address
from voiced.simulate.sip_sdp import CODECS, Media

__all__ = ["CODEC_NAMES", "Credentials", "call"]

CODEC_NAMES: Final = {name.lower(): number for number, name in CODECS.items()}

_GOODBYE_S: Final = 4.0  # for the answer to our BYE or CANCEL: four tries
_SIP_PORT: Final = 5060


async def call(
    script: Script,
    *,
    uri: str,
    from_: str = "+15550199",
    credentials: Credentials | None = None,
    codecs: Sequence[str] = ("pcmu", "pcma"),
    headers: Sequence[tuple[str, str]] = (),
    observer: Observer | None = None,
    line: Line | None = None,
    buffer_ms: int = 0,
    rng: int = 0,
    record: bool = True,
    deadline_s: float = 120.0,
    give_up_s: float | None = None,
    linger_s: float = 0.0,
    source: str | None = None,
    kernel_times: bool = True,
) -> CallResult:
    """Place a call and carry `script` out. Raises nothing for what the server does: see the result.

    Args:
        script: what the caller does.
        uri: whom to call, `sip:+15550100@127.0.0.1:5060`, with `;transport=tcp` for TCP.
        from_: the user part of the caller's own URI.
        credentials: answers a 401 or 407.
        codecs: names from `CODEC_NAMES`, in the order of preference.
        headers: more of the INVITE's, such as `("X-Customer", "7")`.
        observer: told of every event as it happens.
        line: what the caller's telephone returns of what it plays; None: nothing.
        buffer_ms: the telephone's jitter buffer; 0: audio is played as it comes.
        rng: the seed of the RTP stream's numbers.
        record: keep what was said and heard, 16 kB for each second.
        deadline_s: the whole call is hung up after so long.
        give_up_s: an unanswered call is cancelled after so long.
        linger_s: how long messages that come again are answered after the end.
        source: our own address; by default the one that leads to the other side.
        kernel_times: datagrams are dated by the kernel, see `open_endpoint`.
    """
    phone = RtpPhone(
        script,
        record=record,
        observer=observer,
        line=line,
        buffer_ms=buffer_ms,
        rng=random.Random(rng),  # noqa: S311 (these numbers guard nothing)
    )
    setup = Setup(script.name, "")
    try:
        address = parse_address(uri)
        transport = _transport(address.transport)
        peer = await resolve(address.host, address.port or _SIP_PORT)
        async with open_endpoint(
            peer, transport, source=source, kernel_times=kernel_times
        ) as endpoint:
            settings = Settings(
                target=uri,
                from_user=from_,
                local=endpoint.signalling.local,
                media=endpoint.media,
                transport=transport,
                credentials=credentials,
                formats=tuple(CODEC_NAMES[name.lower()] for name in codecs),
                headers=tuple(headers),
            )
            mover = _Line(endpoint, Agent(settings), phone, setup)
            await mover.run(settings.call_id, deadline_s, give_up_s, linger_s)
    except (Unreachable, BadMessage) as error:
        setup.failure = str(error)
    setup.rtp = phone.rtp_figures()
    return judge(setup, phone)


def _transport(name: str) -> Literal["udp", "tcp"]:
    if name == "udp":
        return "udp"
    if name == "tcp":
        return "tcp"
    raise BadMessage(f"the simulated caller speaks UDP and TCP, not {name}")


class _Line:
    """Moves messages between the sockets, the agent and the phone, at their times."""

    def __init__(self, endpoint: Endpoint, agent: Agent, phone: RtpPhone, setup: Setup) -> None:
        self._endpoint = endpoint
        self._agent = agent
        self._phone = phone
        self._setup = setup
        self._began = trio.current_time()
        self._answered_at: float | None = None
        self._media_to: tuple[str, int] | None = None
        self._kick = trio.Event()
        self._hung_up_at: float | None = None
        self._cut = False
        self._lost: str | None = None
        self._ringing_ms: float | None = None
        self._first_audio_ms: float | None = None
        self._codec: str | None = None
        self._status: int | None = None
        self._reason: str | None = None
        self._ended: str | None = None
        self._transferred_to: str | None = None

    async def run(
        self, call_id: str, deadline_s: float, give_up_s: float | None, linger_s: float
    ) -> None:
        """Until the call is over."""
        self._setup.call_sid = call_id
        deadline = self._began + deadline_s
        give_up = self._began + give_up_s if give_up_s is not None else float("inf")
        self._agent.call(self._began)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_sip)
            nursery.start_soon(self._read_rtp)
            nursery.start_soon(self._read_rtcp)
            await self._drive(deadline, give_up)
            if linger_s:
                with trio.move_on_after(linger_s):
                    await self._answer_repeats()
            nursery.cancel_scope.cancel()
        self._note()

    # --- the loop -------------------------------------------------------------------------------

    async def _drive(self, deadline: float, give_up: float) -> None:
        agent, phone = self._agent, self._phone
        while True:
            now = trio.current_time()
            if agent.state == "calling" and now >= min(give_up, deadline):
                if now >= deadline:
                    self._setup.failure = f"no answer after {deadline - self._began:g} s"
                agent.hang_up(now)
                self._hung_up_at = self._hung_up_at or now
            elif now >= deadline and not phone.finished:
                self._setup.failure = "the call was not over in time"
                phone.ended(self._phone_us(now), "caller")
                self._hang_up(now)
            await self._send(now)
            if agent.state == "over" or self._cut or self._lost is not None:
                return
            if self._hung_up_at is not None and now >= self._hung_up_at + _GOODBYE_S:
                if agent.state == "ending":
                    phone.complain(408, "the BYE was never answered")
                return
            wake = agent.next_at()
            if self._hung_up_at is not None:  # what is over already is no time to wait for
                wake = min(wake, self._hung_up_at + _GOODBYE_S)
            else:
                wake = min(wake, deadline if not phone.finished else float("inf"))
                wake = min(wake, give_up if agent.state == "calling" else float("inf"))
            if self._answered_at is not None and not phone.finished:
                wake = min(wake, self._answered_at + phone.next_us() / 1e6)
            if self._kick.is_set():
                self._kick = trio.Event()
            # An absolute time: what one round is late, the next one is not.
            with trio.move_on_at(wake):
                await self._kick.wait()

    async def _send(self, now: float) -> None:
        """Send all that is due, and see to what follows from it."""
        phone = self._phone
        while True:
            if self._answered_at is not None:
                for rtcp, data in phone.poll(self._phone_us(now)):
                    await self._send_media(rtcp, data)
                for wish in phone.take_wishes():
                    if wish in ("hold", "resume"):
                        self._agent.reinvite(now, "sendonly" if wish == "hold" else "sendrecv")
                    elif wish == "hang up":
                        self._hang_up(now)
                    else:
                        self._cut = True
            for message, to in self._agent.poll(now):
                try:
                    await self._endpoint.signalling.send(message, to)
                except Unreachable as error:
                    self._broken(str(error))
                    return
            events = self._agent.take_events()
            for event in events:
                self._happened(event)
            if not events and not (self._answered_at is not None and phone.next_us() == 0):
                return

    async def _send_media(self, rtcp: bool, data: bytes) -> None:
        assert self._media_to is not None
        host, port = self._media_to
        socket = self._endpoint.rtcp if rtcp else self._endpoint.rtp
        await socket.send(data, (host, port + 1 if rtcp else port))

    def _hang_up(self, now: float) -> None:
        self._agent.hang_up(now)
        self._hung_up_at = self._hung_up_at or now

    async def _answer_repeats(self) -> None:
        while True:
            await self._send(trio.current_time())
            self._kick = trio.Event()
            await self._kick.wait()

    # --- what comes -----------------------------------------------------------------------------

    async def _read_sip(self) -> None:
        while True:
            try:
                data, source = await self._endpoint.signalling.receive()
            except Unreachable as error:
                self._broken(str(error))
                return
            self._agent.receive(trio.current_time(), data, source)
            self._kick.set()

    async def _read_rtp(self) -> None:
        while True:
            at, data, source = await self._endpoint.rtp.receive()
            if self._media_to is not None and source != self._media_to:
                self._phone.receiver.strangers += 1
                continue
            if self._first_audio_ms is None:
                self._first_audio_ms = (at - self._began) * 1000
            if self._answered_at is None:
                continue
            self._phone.receive(self._phone_us(at), data)
            if self._phone.next_us() / 1e6 + self._answered_at <= trio.current_time():
                self._kick.set()

    async def _read_rtcp(self) -> None:
        while True:
            at, data, _ = await self._endpoint.rtcp.receive()
            if self._answered_at is not None:
                self._phone.receive_rtcp(self._phone_us(at), data)

    def _broken(self, why: str) -> None:
        self._lost = why
        if self._answered_at is None:
            self._setup.failure = why
        self._kick.set()
        self._phone.ended(self._phone_us(trio.current_time()), "line")

    def _happened(self, event: AgentEvent) -> None:
        phone = self._phone
        match event:
            case Provisional(at_s=at):
                if self._ringing_ms is None:
                    self._ringing_ms = (at - self._began) * 1000
            case Answered(at_s=at, media=media):
                self._status, self._reason = 200, "OK"
                self._answered_at = at
                self._setup.setup_ms = (at - self._began) * 1000
                self._take(media)
                phone.answered(media, self._setup.call_sid, time.time())
            case MediaChanged(at_s=at, media=media, direction=direction):
                self._take(media)
                phone.media_changed(self._phone_us(at), media, direction)
            case Refused(status=status, reason=reason):
                self._status, self._reason = status, reason
                self._setup.failure = f"the INVITE was answered {status} {reason}"
            case Ended(at_s=at, by=by, text=text):
                self._ended = text
                phone.ended(self._phone_us(at), by)
            case Transferred(target=target):
                self._transferred_to = target
            case Complaint(code=code, text=text):
                phone.complain(code, text)

    def _take(self, media: Media) -> None:
        assert media.codec is not None
        self._codec = CODECS[media.codec]
        self._media_to = media.address, media.port

    def _phone_us(self, at: float) -> int:
        """The phone's time; rounded, so that waking in binary seconds is not early."""
        origin = self._answered_at if self._answered_at is not None else at
        return round((at - origin) * 1e6)

    def _note(self) -> None:
        speech = self._phone.first_speech_us
        answered = self._setup.setup_ms
        spoke = None if speech is None or answered is None else speech / 1000 + answered
        self._setup.sip = SipFigures(
            status=self._status,
            reason=self._reason,
            ringing_ms=self._ringing_ms,
            answered_ms=answered,
            first_audio_ms=self._first_audio_ms,
            first_speech_ms=spoke,
            codec=self._codec,
            authenticated=self._agent.authenticated,
            retransmissions=self._agent.retransmissions,
            repeats=self._agent.repeats,
            ended=self._ended,
            transferred_to=self._transferred_to,
        )
