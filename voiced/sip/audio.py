"""A call's audio as its session sees it: descriptions in and out, a media stream behind them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from voiced.rtp.media import COMFORT_NOISE, TELEPHONE_EVENT, MediaParameters, SrtpKeys, Suite
from voiced.rtp.stream import MediaStream
from voiced.sip.media import CODECS, Agreed, LocalMedia
from voiced.sip.negotiation import Negotiator, Srtp

__all__ = ["AudioPlan", "CallAudio", "bind_address", "resting"]


@dataclass(frozen=True, slots=True)
class AudioPlan:
    """How a trunk's calls are to sound; `codecs` are names as in `CODECS`, most wanted first."""

    codecs: Sequence[str] = ("pcmu", "pcma")
    srtp: Srtp = "off"


def resting(codec: str) -> MediaParameters:
    """A stream before anything is agreed: `codec` (`"pcmu"`) fixes its format, nothing flows."""
    known = CODECS[codec]
    return MediaParameters(known.name, known.payload_type, ("", 0), send=False, receive=False)


def bind_address(shown: str) -> str:
    """Where to open ports for audio when the peer is told `shown`.

    On all interfaces, since what is shown may be a NAT's; on loopback alone where that is shown.
    """
    address = ip_address(shown)
    if address.is_loopback:
        return shown
    return "0.0.0.0" if address.version == 4 else "::"  # noqa: S104 - that is what is meant


class CallAudio:
    """A `voiced.sip.events.MediaControl` over one `MediaStream`."""

    def __init__(self, stream: MediaStream, local: LocalMedia, plan: AudioPlan) -> None:
        self.stream = stream
        self._negotiator = Negotiator(
            local,
            [CODECS[name] for name in plan.codecs],
            plan.srtp,
            session_id=secrets.randbits(62),
        )
        self._configured: Agreed | None = None

    @property
    def agreed(self) -> Agreed | None:
        """The outcome of the last exchange."""
        return self._negotiator.agreed

    @property
    def held(self) -> bool:
        """The peer does not want to hear us."""
        agreed = self._negotiator.agreed
        return agreed is not None and agreed.held

    def offer(self, held: bool, *, full: bool = False) -> bytes:
        """See `MediaControl`."""
        return self._negotiator.make_offer(direction="sendonly" if held else "sendrecv", full=full)

    def answer(self, offer: bytes) -> bytes:
        """See `MediaControl`."""
        body = self._negotiator.answer(offer)
        self._apply()
        return body

    def take_answer(self, answer: bytes) -> None:
        """See `MediaControl`."""
        self._negotiator.take_answer(answer)
        self._apply()

    def rollback(self) -> None:
        """See `MediaControl`."""
        self._negotiator.rollback()

    def early(self) -> None:
        """Silence goes out from now on: it opens NATs, and some gateways wait for it."""
        self.stream.begin()

    def _apply(self) -> None:
        agreed = self._negotiator.agreed
        if agreed is None or agreed == self._configured:
            return
        self._configured = agreed
        self.stream.configure(_parameters(agreed))
        self.stream.pause(agreed.held)


def _parameters(agreed: Agreed) -> MediaParameters:
    accepted = {number: codec.name for number, codec in agreed.formats}
    accepted |= dict.fromkeys(agreed.remote_telephone_events, TELEPHONE_EVENT)
    if agreed.comfort_noise is not None:
        accepted[agreed.comfort_noise] = COMFORT_NOISE
    keys = agreed.srtp
    return MediaParameters(
        codec=agreed.codec.name,
        payload_type=agreed.payload_type,
        remote_rtp=(agreed.remote_address, agreed.remote_rtp_port),
        accepted=accepted,
        telephone_event=agreed.telephone_event,
        remote_rtcp=agreed.remote_rtcp,
        rtcp_mux=agreed.rtcp_mux,
        ptime_ms=agreed.ptime_ms,
        send=agreed.send,
        receive=agreed.receive,
        srtp=None if keys is None else SrtpKeys(_suite(keys.suite), keys.local, keys.remote),
    )


def _suite(name: str) -> Suite:
    return (
        "AES_CM_128_HMAC_SHA1_32"
        if name == "AES_CM_128_HMAC_SHA1_32"
        else "AES_CM_128_HMAC_SHA1_80"
    )
