"""The messages of a media stream, typed: JSON text in, events out, and the three kinds back.

Source: Twilio's "Media Streams - WebSocket Messages" page. Twilio writes `sequenceNumber`, `chunk`,
`timestamp` as strings and `sampleRate`, `channels` as numbers; look-alikes differ, so each may be
either here. Keys that we do not know are passed over: the carrier may add some at any time.
"""

from __future__ import annotations

from typing import Any

import msgspec

from voiced.twilio.errors import ProtocolError

__all__ = [
    "MAX_MESSAGE_BYTES",
    "Connected",
    "Dtmf",
    "Event",
    "Mark",
    "Media",
    "MediaFormat",
    "Start",
    "Stop",
    "Unknown",
    "encode_clear",
    "encode_mark",
    "encode_media",
    "parse",
]

MAX_MESSAGE_BYTES = 64 * 1024
"""Twilio's messages are 400 bytes; this leaves room for six seconds of audio in one."""


class _Message(
    msgspec.Struct, tag_field="event", rename="camel", frozen=True, kw_only=True, gc=False
):
    sequence_number: int | None = None  # counts from 1 at `start`; `connected` has none
    stream_sid: str = ""


class _MediaBody(msgspec.Struct, frozen=True, gc=False):
    payload: bytes
    track: str = "inbound"
    chunk: int | None = None
    timestamp: int | None = None


class MediaFormat(msgspec.Struct, rename="camel", frozen=True):
    """What `start` says of the audio; on Twilio always mu-law, 8000 Hz, one channel."""

    encoding: str = "audio/x-mulaw"
    sample_rate: int = 8000
    channels: int = 1


class _StartBody(msgspec.Struct, rename="camel", frozen=True):
    call_sid: str
    account_sid: str = ""
    stream_sid: str = ""
    tracks: list[str] | None = None
    media_format: MediaFormat = MediaFormat()
    custom_parameters: dict[str, Any] | None = None


class _DtmfBody(msgspec.Struct, frozen=True, gc=False):
    digit: str | int
    track: str = ""


class _MarkBody(msgspec.Struct, frozen=True, gc=False):
    name: str


class Connected(_Message, frozen=True, tag="connected"):
    """Always the first message; says nothing that we need."""


class Start(_Message, frozen=True, tag="start", gc=True):
    """The stream begins: once, right after `connected`."""

    start: _StartBody

    @property
    def parameters(self) -> dict[str, str]:
        """The `<Parameter>` values of our own TwiML, {} when there were none."""
        given = self.start.custom_parameters or {}
        return {name: value for name, value in given.items() if isinstance(value, str)}


class Media(_Message, frozen=True, tag="media"):
    """Audio: `media.payload`, out of base64; `media.timestamp` in ms since the stream began."""

    media: _MediaBody


class Dtmf(_Message, frozen=True, tag="dtmf"):
    """A key that the caller pressed."""

    dtmf: _DtmfBody

    @property
    def digit(self) -> str:
        """The key as the carrier wrote it; not checked to be a single one of `0-9 * # A-D`."""
        return str(self.dtmf.digit)


class Mark(_Message, frozen=True, tag="mark"):
    """The echo of a mark of ours: all before it has been played, or was discarded by a `clear`."""

    mark: _MarkBody


class Stop(_Message, frozen=True, tag="stop"):
    """The stream or the call has ended; the carrier closes the WebSocket next."""


class Unknown(msgspec.Struct, frozen=True, rename="camel"):
    """A message whose `event` we do not know, to be counted and passed over."""

    event: str
    sequence_number: int | None = None  # it has its place among the others all the same


Event = Connected | Start | Media | Dtmf | Mark | Stop | Unknown

# strict=False lets msgspec read a number out of a string, which keeps the tolerance in C: a media
# message costs 0.44 us, base64 decoding included.
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(
    type=Connected | Start | Media | Dtmf | Mark | Stop, strict=False
)
_envelope = msgspec.json.Decoder(type=Unknown, strict=False)
_KNOWN = frozenset({"connected", "start", "media", "dtmf", "mark", "stop"})


def parse(message: bytes) -> Event:
    """Read one text message of a stream.

    Raises ProtocolError, and nothing else whatever the bytes are, with reason "too large",
    "not json", "bad base64" or "wrong shape".
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise ProtocolError("too large", f"{len(message)} bytes")
    try:
        return _decoder.decode(message)
    except msgspec.ValidationError as error:
        return _unknown(message, error)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ProtocolError("not json", str(error)) from None


def _unknown(message: bytes, error: msgspec.ValidationError) -> Unknown:
    """Sort out why `message` is none of the known events: unknown, or known and malformed."""
    try:
        unknown = _envelope.decode(message)
    except msgspec.ValidationError:
        raise ProtocolError("wrong shape", str(error)) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as broken:
        # msgspec checks the shape as it reads, so it may meet the shape's fault before the text's.
        raise ProtocolError("not json", str(broken)) from None
    if unknown.event not in _KNOWN:
        return unknown
    reason = "bad base64" if "base64" in str(error) else "wrong shape"
    raise ProtocolError(reason, str(error))


# Outbound. Exactly three kinds, and an extra key is an error (31951), so each is a closed type and
# not a dictionary. msgspec against bytes concatenation round binascii: 0.35 and 0.31 us for 20 ms
# of audio, 1.5 and 1.9 us for 200 ms, which is what models send: its base64 is the faster one.


class _OutMediaBody(msgspec.Struct, gc=False):
    payload: bytes


class _OutMedia(msgspec.Struct, tag_field="event", tag="media", rename="camel", gc=False):
    stream_sid: str
    media: _OutMediaBody


class _OutMarkBody(msgspec.Struct, gc=False):
    name: str


class _OutMark(msgspec.Struct, tag_field="event", tag="mark", rename="camel", gc=False):
    stream_sid: str
    mark: _OutMarkBody


class _OutClear(msgspec.Struct, tag_field="event", tag="clear", rename="camel", gc=False):
    stream_sid: str


_encode = msgspec.json.Encoder().encode


def encode_media(stream_sid: str, payload: bytes) -> bytes:
    """Audio to be played after all that was sent before: raw mu-law without a header."""
    return _encode(_OutMedia(stream_sid, _OutMediaBody(payload)))


def encode_mark(stream_sid: str, name: str) -> bytes:
    """Have `name` echoed once all that was sent before has been played or discarded."""
    return _encode(_OutMark(stream_sid, _OutMarkBody(name)))


def encode_clear(stream_sid: str) -> bytes:
    """Empty the carrier's play buffer, which also makes it echo every pending mark."""
    return _encode(_OutClear(stream_sid))
