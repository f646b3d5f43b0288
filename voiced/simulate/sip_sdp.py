"""The simulated caller's side of offer and answer (RFC 8866, RFC 3264): one audio stream, G.711."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CODECS", "EVENT_TYPE", "Direction", "Media", "SdpError", "agree", "describe", "read"]

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

CODECS: Final = {0: "PCMU", 8: "PCMA"}  # static payload types, RFC 3551 table 4
EVENT_TYPE: Final = 101
"""What the caller gives telephone-event (RFC 4733); any from 96 to 127 would do."""

REVERSED: Final[dict[Direction, Direction]] = {
    "sendrecv": "sendrecv",
    "sendonly": "recvonly",
    "recvonly": "sendonly",
    "inactive": "inactive",
}
_DIRECTIONS: Final = {f"a={direction}": direction for direction in REVERSED}
_LINE: Final = re.compile(r"[a-z]=.*")


class SdpError(Exception):
    """A description that breaks a rule, or that leaves no audio; the text says why."""


@dataclass(frozen=True, slots=True)
class Media:
    """The audio stream of a description. `formats` are payload types in the order of preference."""

    address: str
    port: int
    formats: tuple[int, ...]
    names: dict[int, str]  # from rtpmap, `PCMU/8000`
    direction: Direction
    ptime: int | None
    lines: tuple[str, ...]  # every m= line of the description
    origin: str  # the o= line

    @property
    def codec(self) -> int | None:
        """The first payload type that the caller can play."""
        return next((each for each in self.formats if each in CODECS), None)

    @property
    def events(self) -> int | None:
        """Which payload type is telephone-event."""
        for number in self.formats:
            if self.names.get(number, "").lower() == "telephone-event/8000":
                return number
        return None


def describe(
    address: str,
    port: int,
    *,
    session: int,
    version: int,
    formats: Sequence[int] = (0, 8),
    events: int | None = EVENT_TYPE,
    direction: Direction = "sendrecv",
) -> bytes:
    """A description of one stream, as an offer or as an answer."""
    family = "IP6" if ":" in address else "IP4"
    numbers = [*formats, *([events] if events is not None else [])]
    lines = [
        "v=0",
        f"o=- {session} {version} IN {family} {address}",
        "s=-",
        f"c=IN {family} {address}",
        "t=0 0",
        f"m=audio {port} RTP/AVP {' '.join(map(str, numbers))}",
        *(f"a=rtpmap:{each} {CODECS[each]}/8000" for each in formats),
    ]
    if events is not None:
        lines += [f"a=rtpmap:{events} telephone-event/8000", f"a=fmtp:{events} 0-15"]
    lines += ["a=ptime:20", f"a={direction}"]
    return ("\r\n".join(lines) + "\r\n").encode()


def read(body: bytes) -> Media:
    """The first audio stream of a description. Raises SdpError."""
    try:
        lines = body.decode("utf-8").removesuffix("\r\n").split("\r\n")
    except UnicodeDecodeError:
        raise SdpError("the SDP is not UTF-8") from None
    for line in lines:
        if not _LINE.fullmatch(line) or "\n" in line:
            raise SdpError(f"the SDP has the line {line[:80]!r}")
    if [line[:2] for line in lines[:3]] != ["v=", "o=", "s="]:
        raise SdpError("the SDP does not begin with v=, o=, s=")
    starts = [at for at, line in enumerate(lines) if line.startswith("m=")]
    session = lines[: starts[0]] if starts else lines
    audio = next((at for at in starts if lines[at].startswith("m=audio ")), None)
    if audio is None:
        raise SdpError("the SDP has no audio stream")
    end = next((at for at in starts if at > audio), len(lines))
    media = lines[audio:end]
    fields = media[0].split(" ")
    if len(fields) < 4 or not fields[1].isdigit() or not all(f.isdigit() for f in fields[3:]):
        raise SdpError(f"the SDP has the line {media[0]!r}")
    if fields[2] != "RTP/AVP":
        raise SdpError(f"the audio is {fields[2]}, not RTP/AVP")
    connections = [line for line in (*media, *session) if line.startswith("c=")]
    if not connections or len(connections[0].split(" ")) != 3:
        raise SdpError("the SDP has no c= line for its audio")
    maps = [line[9:].partition(" ") for line in media if line.startswith("a=rtpmap:")]
    directions = [_DIRECTIONS[line] for line in (*media, *session) if line in _DIRECTIONS]
    ptimes = [line[8:] for line in media if line.startswith("a=ptime:")]
    address = connections[0].split(" ")[2]
    direction: Direction = directions[0] if directions else "sendrecv"
    return Media(
        address=address,
        port=int(fields[1]),
        formats=tuple(map(int, fields[3:])),
        names={int(number): name for number, _, name in maps if number.isdigit()},
        direction="inactive" if address == "0.0.0.0" else direction,  # noqa: S104 (RFC 3264 8.4)
        ptime=int(ptimes[0]) if ptimes and ptimes[0].isdigit() else None,
        lines=tuple(lines[at] for at in starts),
        origin=lines[1],
    )


def agree(offered: Media, answered: Media) -> None:
    """Check an answer against its offer (RFC 3264 section 6). Raises SdpError."""
    if len(answered.lines) != len(offered.lines):
        raise SdpError(
            f"the answer has {len(answered.lines)} streams, the offer {len(offered.lines)}"
        )
    if answered.port == 0:
        raise SdpError("the answer refuses the audio")
    if answered.codec is None or answered.codec not in offered.formats:
        raise SdpError(f"the answer has no codec of the offer's: {answered.lines[0]}")
    if not set(answered.formats) <= set(offered.formats):
        raise SdpError(f"the answer adds formats: {answered.lines[0]}")
    allowed: dict[Direction, tuple[Direction, ...]] = {
        "sendrecv": ("sendrecv", "sendonly", "recvonly", "inactive"),
        "sendonly": ("recvonly", "inactive"),
        "recvonly": ("sendonly", "inactive"),
        "inactive": ("inactive",),
    }
    if answered.direction not in allowed[offered.direction]:
        raise SdpError(f"{offered.direction} is answered with {answered.direction}")
