"""What an offered section and its answer amount to, or why they come to nothing.

Functions without memory: `negotiation` knows what was agreed before and passes it in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from voiced.sip.crypto import Crypto, SrtpKeys
from voiced.sip.errors import SipError
from voiced.sip.media import Agreed, Codec, Direction, RemoteAudio, packet_time
from voiced.sip.own_audio import OwnAudio, Srtp

__all__ = [
    "NotAcceptable",
    "agree",
    "answered_keys",
    "check_address",
    "choose_codec",
    "choose_crypto",
    "direction_of",
    "flags",
]

_PLAIN: Final = frozenset(["RTP/AVP", "RTP/AVPF"])
_SECURE: Final = frozenset(["RTP/SAVP", "RTP/SAVPF"])


class NotAcceptable(SipError):
    """A description that is well formed but that we cannot do.

    Attributes:
        reason: a short fixed phrase, fit for a metric's label; the warn-text too.
        status: the response to the offer: 488, or 491 while an offer of ours is open.
        code: the warn-code of RFC 3261 section 20.43.
    """

    def __init__(self, code: int, reason: str, status: int = 488) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.status = status

    @property
    def text(self) -> str:
        """The warn-text."""
        return self.reason

    @property
    def warning(self) -> str:
        """The value of a Warning header; the agent is a pseudonym, no address of ours."""
        return f'{self.code} voiced "{self.reason}"'


def flags(direction: Direction) -> tuple[bool, bool]:
    """Whether it sends, whether it receives."""
    return direction in {"sendrecv", "sendonly"}, direction in {"sendrecv", "recvonly"}


def direction_of(agreed: Agreed) -> Direction:
    """The attribute that says what we do."""
    if agreed.send:
        return "sendrecv" if agreed.receive else "sendonly"
    return "recvonly" if agreed.receive else "inactive"


def check_address(remote: RemoteAudio, version: int) -> None:
    """Whether packets can be sent there over IP of that `version`. Raises NotAcceptable."""
    if remote.is_hole:
        return
    if remote.ip is None:
        raise NotAcceptable(301, "media address is not an IP address")
    if remote.ip.is_multicast:
        raise NotAcceptable(330, "multicast not available")
    if remote.ip.version != version:
        raise NotAcceptable(300, "other IP version")


def choose_codec(
    remote: RemoteAudio, codecs: Sequence[Codec], in_use: Codec | None
) -> tuple[int, Codec]:
    """The peer's number and the codec: the one in use, else its first that is in `codecs`.

    Raises NotAcceptable.
    """
    common = [item for item in remote.formats.audio if item[1] in codecs]
    if not common:
        raise NotAcceptable(305, "no codec in common")
    return next((item for item in common if item[1] == in_use), common[0])


def choose_crypto(remote: RemoteAudio, srtp: Srtp, in_use: SrtpKeys | None) -> Crypto | None:
    """The offered key to take: the one in use, else the first; None for a stream in the clear.

    Raises NotAcceptable.
    """
    _check_profile(remote)
    if srtp == "off":
        if remote.profile in _SECURE:
            raise NotAcceptable(302, "SRTP is switched off")
        return None
    for crypto in remote.crypto:
        if in_use and (crypto.suite, crypto.key) == (in_use.suite, in_use.remote):
            return crypto
    if remote.crypto:
        return remote.crypto[0]
    _check_clear(remote, srtp)
    return None


def answered_keys(offered: Sequence[Crypto], remote: RemoteAudio, srtp: Srtp) -> SrtpKeys | None:
    """The keys by an answer to our offer; None for a stream in the clear. Raises NotAcceptable."""
    _check_profile(remote)
    if not offered or not remote.has_crypto:
        _check_clear(remote, srtp)
        return None
    for theirs in remote.crypto:
        for own in offered:
            if (own.tag, own.suite) == (theirs.tag, theirs.suite):
                if own.key == theirs.key:
                    # Both directions would share one key stream.
                    raise NotAcceptable(302, "answer repeats our SRTP key")
                return SrtpKeys(own.suite, own.key, theirs.key)
    raise NotAcceptable(302, "no usable SRTP key")


def _check_profile(remote: RemoteAudio) -> None:
    if remote.profile not in _PLAIN | _SECURE:
        raise NotAcceptable(302, "transport not supported")


def _check_clear(remote: RemoteAudio, srtp: Srtp) -> None:
    if remote.profile in _SECURE:
        raise NotAcceptable(302, "no usable SRTP key")
    if srtp == "required":
        raise NotAcceptable(302, "SRTP is required")


def agree(
    ours: OwnAudio,
    remote: RemoteAudio,
    chosen: tuple[int, Codec],
    before: Agreed | None,
    *,
    wanted: Direction,
    held: bool,
    srtp: SrtpKeys | None,
) -> Agreed:
    """Put both sections together; `wanted` is what we would do if the peer let us."""
    number, codec = chosen
    taken = {own for _, own in remote.formats.audio}
    own_audio = [item for item in ours.formats if item[1] in taken]
    own_audio.sort(key=lambda item: item[1] != codec)
    formats = dict(own_audio)
    # The peer ought to send under the numbers of our section, but some send under their own.
    for their_number, their_codec in remote.formats.audio:
        if their_codec == codec:
            formats.setdefault(their_number, their_codec)
    events = [ours.telephone_event, remote.formats.telephone_event]
    known_events = frozenset(event for event in events if event is not None)
    has_events = None not in events
    sends, receives = flags(wanted)
    mux = ours.rtcp_mux and remote.rtcp_mux
    address, port, rtcp = remote.address, remote.rtp_port, remote.rtcp
    if remote.is_hole:
        # RTCP goes on to where it went, where that is known.
        address = before.remote_address if before else remote.address
        port = before.remote_rtp_port if before else remote.rtp_port
        rtcp = before.remote_rtcp if before else remote.rtcp
    elif mux:
        rtcp = (address, port)
    return Agreed(
        codec=codec,
        payload_type=number,
        remote_payload_types=frozenset(n for n, own in formats.items() if own == codec),
        formats=tuple(formats.items()),
        telephone_event=remote.formats.telephone_event if has_events else None,
        remote_telephone_events=known_events if has_events else frozenset(),
        comfort_noise=remote.formats.comfort_noise if ours.comfort_noise is not None else None,
        remote_address=address,
        remote_rtp_port=port,
        remote_rtcp=rtcp,
        rtcp_mux=mux,
        ptime_ms=packet_time(remote, ours.ptime),
        send=sends and remote.receives,
        receive=receives and remote.sends,
        held=held,
        srtp=srtp,
    )
