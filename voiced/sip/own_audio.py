"""Our own audio section: what it offers, and how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from voiced.sip.crypto import SUITES, Crypto
from voiced.sip.media import Codec, Direction, LocalMedia
from voiced.sip.sdp import Line, Media

__all__ = ["OwnAudio", "Srtp", "initial", "widened", "write"]

Srtp = Literal["off", "optional", "required"]

_TELEPHONE_EVENT: Final = 101
"""The payload type that our offers give to telephone events: what nearly everybody uses."""

_OFFERED_SUITES: Final = tuple(enumerate(SUITES, 1))


@dataclass(frozen=True, slots=True)
class OwnAudio:
    """Our section, but for its direction and its keys."""

    index: int  # its place among the description's sections
    profile: str
    formats: tuple[tuple[int, Codec], ...]
    telephone_event: int | None
    comfort_noise: int | None
    suites: tuple[tuple[int, str], ...]  # tags and suites of `a=crypto`
    rtcp_mux: bool
    ptime: int  # ms


def initial(codecs: Sequence[Codec], srtp: Srtp, ptime: int) -> OwnAudio:
    """The section of a dialog's first offer, where that is ours."""
    return OwnAudio(
        index=0,
        profile="RTP/SAVP" if srtp == "required" else "RTP/AVP",
        formats=tuple((codec.payload_type, codec) for codec in codecs),
        telephone_event=_TELEPHONE_EVENT,
        comfort_noise=None,  # taken where offered, not asked for: the model hears silence
        suites=() if srtp == "off" else _OFFERED_SUITES,
        rtcp_mux=False,  # taken where offered; nobody on a trunk needs it
        ptime=ptime,
    )


def widened(ours: OwnAudio, codecs: Sequence[Codec], srtp: Srtp) -> OwnAudio:
    """All we can do; what a number has stood for, it stands for still (RFC 3264 section 8.3.2)."""
    numbers = {number for number, _ in ours.formats} | {ours.telephone_event, ours.comfort_noise}
    known = [codec for _, codec in ours.formats]
    more = tuple(
        (codec.payload_type, codec)
        for codec in codecs
        if codec not in known and codec.payload_type not in numbers
    )
    event = ours.telephone_event
    if event is None and _TELEPHONE_EVENT not in numbers:
        event = _TELEPHONE_EVENT
    suites = ours.suites if ours.suites or srtp == "off" else _OFFERED_SUITES
    return replace(ours, formats=ours.formats + more, telephone_event=event, suites=suites)


def write(
    ours: OwnAudio, local: LocalMedia, direction: Direction, crypto: Sequence[Crypto]
) -> Media:
    """The section as it goes into a description; `crypto` are our keys for `ours.suites`."""
    numbers = [number for number, _ in ours.formats]
    attributes = [
        f"rtpmap:{number} {codec.name}/{codec.clock_rate}" for number, codec in ours.formats
    ]
    if ours.comfort_noise is not None:
        numbers.append(ours.comfort_noise)
        attributes.append(f"rtpmap:{ours.comfort_noise} CN/8000")
    if ours.telephone_event is not None:
        numbers.append(ours.telephone_event)
        attributes.append(f"rtpmap:{ours.telephone_event} telephone-event/8000")
        attributes.append(f"fmtp:{ours.telephone_event} 0-15")
    attributes.append(f"ptime:{ours.ptime}")
    attributes += [f"crypto:{line}" for line in crypto]
    if ours.rtcp_mux:
        attributes.append("rtcp-mux")
    if local.rtcp_port is not None and local.rtcp_port != local.rtp_port + 1:
        attributes.append(f"rtcp:{local.rtcp_port}")
    attributes.append(direction)
    return Media(
        "audio",
        local.rtp_port,
        ours.profile,
        tuple(map(str, numbers)),
        tuple(Line("a", value) for value in attributes),
    )
