"""What an audio section says about an RTP stream, and what two sides have agreed on.

Payload types by RFC 3551 (static) and `a=rtpmap`, telephone events (RFC 4733), comfort noise (RFC
3389), RTCP's place (RFC 3605, RFC 5761), packet times, keys. Reading never decides: `negotiation`
does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from voiced.sip.crypto import Crypto, SrtpKeys, usable
from voiced.sip.sdp import Media, SdpError, SessionDescription

__all__ = [
    "CODECS",
    "G722",
    "PCMA",
    "PCMU",
    "Agreed",
    "Codec",
    "Direction",
    "Formats",
    "LocalMedia",
    "RemoteAudio",
    "packet_time",
    "read_audio",
    "read_formats",
]

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]


@dataclass(frozen=True, slots=True)
class Codec:
    """An audio encoding; mono."""

    name: str  # as in `a=rtpmap`
    payload_type: int  # the static one of RFC 3551
    clock_rate: int  # of RTP timestamps, Hz
    rate: int  # of the samples, Hz


PCMU: Final = Codec("PCMU", 0, 8000, 8000)
PCMA: Final = Codec("PCMA", 8, 8000, 8000)
# Samples at 16 kHz under an 8 kHz clock: an error in RFC 1890 that RFC 3551 section 4.5.2 keeps.
G722: Final = Codec("G722", 9, 8000, 16000)

CODECS: Final[dict[str, Codec]] = {codec.name.lower(): codec for codec in (PCMU, PCMA, G722)}
"""By the name that the configuration uses."""

_ENCODINGS: Final = {(codec.name, codec.clock_rate): codec for codec in CODECS.values()}
_STATIC: Final = {str(codec.payload_type): codec for codec in CODECS.values()}
_COMFORT_NOISE: Final = "13"  # at 8 kHz, RFC 3551 table 4

_RTPMAP = re.compile(r"([0-9]{1,3})\s+([^\s/]+)\s*/\s*([0-9]{1,6})(?:/(\S*))?\s*", re.ASCII)
_RTCP = re.compile(r"([0-9]{1,5})(?:\s+IN\s+IP[46]\s+(\S+))?\s*", re.ASCII)
_MILLISECONDS = re.compile(r"([0-9]{1,4})(?:\.[0-9]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class LocalMedia:
    """Where we receive: an IP literal as the peer is to see it, and our ports.

    `rtcp_port` None stands for the port after `rtp_port`.
    """

    address: str
    rtp_port: int
    rtcp_port: int | None = None


@dataclass(frozen=True, slots=True)
class Formats:
    """The payload types of a section that mean something to us."""

    audio: tuple[tuple[int, Codec], ...] = ()  # in the order of the `m=` line
    telephone_event: int | None = None
    comfort_noise: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteAudio:
    """An audio section of the peer's."""

    profile: str  # upper case
    formats: Formats
    address: str
    ip: IPv4Address | IPv6Address | None  # None: `address` is no IP literal
    is_hole: bool  # nothing may be sent to `address`
    rtp_port: int
    rtcp: tuple[str, int]  # where it receives RTCP, but for `rtcp_mux`
    rtcp_mux: bool
    sends: bool
    receives: bool
    ptime: int | None  # ms
    maxptime: int | None  # ms
    crypto: tuple[Crypto, ...]
    has_crypto: bool  # it has `a=crypto` lines, though maybe none that we can do


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides have agreed on; compare two of them to see what a re-offer changed."""

    codec: Codec  # what we send
    payload_type: int  # under which we send it
    remote_payload_types: frozenset[int]  # under which the peer may send it
    formats: tuple[tuple[int, Codec], ...]  # all audio that the peer may send, `codec` first
    telephone_event: int | None  # under which we send digits; None: the peer takes none
    remote_telephone_events: frozenset[int]  # under which the peer may send digits
    comfort_noise: int | None
    remote_address: str  # an IP literal; unspecified while the peer has not told any
    remote_rtp_port: int
    remote_rtcp: tuple[str, int]
    rtcp_mux: bool
    ptime_ms: int  # of the packets we send
    send: bool  # we may send audio
    receive: bool  # the peer may send audio
    held: bool  # the peer does not want to hear us
    srtp: SrtpKeys | None = field(default=None)


def read_formats(media: Media, offered_event: int | None = None) -> Formats:
    """What the payload types of an RTP section stand for.

    Telephone events count only with the clock of our codecs, 8 kHz. `offered_event` is the number
    that we offered for them: some peers answer with it and leave out its `a=rtpmap`.
    """
    maps = {
        match[1]: (match[2].upper(), int(match[3]), match[4] or "1")
        for value in media.attributes("rtpmap")
        if (match := _RTPMAP.fullmatch(value))
    }
    audio: dict[int, Codec] = {}
    telephone_event = comfort_noise = None
    for text in media.formats:
        if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) < 128):
            continue
        number = int(text)
        mapped = maps.get(text)
        if mapped is None:
            codec = _STATIC.get(text)
            is_event, is_noise = number == offered_event, text == _COMFORT_NOISE
        else:
            name, clock_rate, channels = mapped
            codec = _ENCODINGS.get((name, clock_rate)) if channels == "1" else None
            is_event = (name, clock_rate) == ("TELEPHONE-EVENT", 8000)
            is_noise = (name, clock_rate) == ("CN", 8000)
        if codec is not None:
            audio.setdefault(number, codec)
        elif is_event and telephone_event is None:
            telephone_event = number
        elif is_noise and comfort_noise is None:
            comfort_noise = number
    return Formats(tuple(audio.items()), telephone_event, comfort_noise)


def read_audio(
    description: SessionDescription,
    media: Media,
    offered_event: int | None = None,
) -> RemoteAudio:
    """All that an RTP audio section says. Raises SdpError where no address can be read."""
    connection = description.connection_of(media)
    if connection is None:
        raise SdpError("no connection line")
    direction = description.direction_of(media)
    crypto = media.attributes("crypto")
    return RemoteAudio(
        profile=media.profile.upper(),
        formats=read_formats(media, offered_event),
        address=connection.address,
        ip=connection.ip,
        is_hole=connection.is_hole,
        rtp_port=media.port,
        rtcp=_rtcp(media, connection.address),
        rtcp_mux=media.attribute("rtcp-mux") is not None,
        sends=direction in {"sendrecv", "sendonly"},
        receives=direction in {"sendrecv", "recvonly"} and not connection.is_hole,
        ptime=_milliseconds(media.attribute("ptime")),
        maxptime=_milliseconds(media.attribute("maxptime")),
        crypto=tuple(usable(crypto)),
        has_crypto=bool(crypto),
    )


def _rtcp(media: Media, address: str) -> tuple[str, int]:
    """RFC 3605; an address there that is no literal is not looked at."""
    match = _RTCP.fullmatch(media.attribute("rtcp") or "")
    if match is not None and 0 < (port := int(match[1])) < 65536:
        return _literal(match[2]) or address, port
    return address, min(media.port + 1, 65535)


def _literal(text: str | None) -> str | None:
    try:
        return (
            None if text is None else str(IPv6Address(text) if ":" in text else IPv4Address(text))
        )
    except ValueError:
        return None


def _milliseconds(text: str | None) -> int | None:
    match = _MILLISECONDS.fullmatch(text or "")
    return int(match[1]) if match is not None else None


def packet_time(remote: RemoteAudio, preferred: int) -> int:
    """Milliseconds of audio in a packet to the peer: as it asks, 10 to 60 by tens, else ours."""
    wanted = remote.ptime
    if wanted is None or not 10 <= wanted <= 60 or wanted % 10:
        wanted = preferred
    if remote.maxptime is not None:
        wanted = min(wanted, max(10, remote.maxptime // 10 * 10))
    return wanted
