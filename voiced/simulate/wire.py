"""The media stream's messages, the carrier's side: what it says, and what it accepts, strictly.

Source: Twilio, "Media Streams, WebSocket messages". Numbers are written as strings, as Twilio does,
or as numbers, as some look-alikes do. What comes from the server must be one of exactly three
messages with exactly their keys; Twilio answers anything else with a warning, and so does this.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

__all__ = [
    "Clear",
    "Identifiers",
    "Mark",
    "Media",
    "Narrator",
    "ServerMessage",
    "WireError",
    "parse_server_message",
]


def _sid(prefix: str) -> str:
    return prefix + secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Identifiers:
    """The carrier's names for one call: two letters and 32 hexadecimal digits each."""

    account_sid: str = "AC" + "0" * 32
    call_sid: str = field(default_factory=lambda: _sid("CA"))
    stream_sid: str = field(default_factory=lambda: _sid("MZ"))


class WireError(Exception):
    """A message that Twilio would refuse. `code` is the warning in its debugger."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly the keys it names."""


class _MediaBody(_Strict, frozen=True):
    payload: bytes  # base64 on the wire


class _MarkBody(_Strict, frozen=True):
    name: str


class Media(_Strict, frozen=True, tag_field="event", tag="media", rename="camel"):
    """Audio to play: mu-law bytes, any length."""

    stream_sid: str
    media: _MediaBody


class Mark(_Strict, frozen=True, tag_field="event", tag="mark", rename="camel"):
    """A mark to echo once all audio before it has been played."""

    stream_sid: str
    mark: _MarkBody


class Clear(_Strict, frozen=True, tag_field="event", tag="clear", rename="camel"):
    """Throw out what is queued."""

    stream_sid: str


ServerMessage = Media | Mark | Clear

_decoder: msgspec.json.Decoder[Media | Mark | Clear] = msgspec.json.Decoder(Media | Mark | Clear)

_CONTAINER_HEADERS = (b"RIFF", b".snd")  # four bytes: speech does not begin so by chance


def parse_server_message(message: str | bytes, stream_sid: str) -> ServerMessage:
    """Read one WebSocket message of the server's. Raises WireError where Twilio would warn.

    `bytes` stand for a binary frame, which Twilio never accepts (31950).
    """
    if isinstance(message, bytes):
        raise WireError(31950, f"a binary frame of {len(message)} bytes")
    try:
        parsed = _decoder.decode(message)
    except msgspec.MsgspecError as error:
        raise WireError(31951, f"{error}: {message[:120]}") from None
    if parsed.stream_sid != stream_sid:
        raise WireError(31951, f"streamSid is {parsed.stream_sid[:40]!r}, not {stream_sid!r}")
    if isinstance(parsed, Media):
        if not parsed.media.payload:
            raise WireError(31951, "media with an empty payload")
        if parsed.media.payload.startswith(_CONTAINER_HEADERS):
            raise WireError(31951, "media that begins with a file header, which would be a click")
    return parsed


class Narrator:
    """Writes the carrier's messages of one stream, numbering them as it goes."""

    def __init__(
        self,
        identifiers: Identifiers,
        *,
        integers: bool = False,
    ) -> None:
        self._ids = identifiers
        self._integers = integers
        self._quote = quote = "" if integers else '"'
        self._sequence = 0
        # The hot message is put together from ready-made pieces: 50 a second for each caller.
        self._media_a = f'{{"event":"media","sequenceNumber":{quote}'
        self._media_b = f'{quote},"media":{{"track":"inbound","chunk":{quote}'
        self._media_c = f'{quote},"timestamp":{quote}'
        self._media_d = f'{quote},"payload":"'
        self._media_e = f'"}},"streamSid":"{identifiers.stream_sid}"}}'

    def _number(self, value: int) -> int | str:
        return value if self._integers else str(value)

    def _next(self) -> int | str:
        self._sequence += 1
        return self._number(self._sequence)

    def connected(self) -> str:
        """Write the first message; it has no number."""
        return json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})

    def start(self, parameters: Mapping[str, str]) -> str:
        """Write the second message, with what the TwiML's `<Parameter>`s said."""
        ids = self._ids
        return json.dumps(
            {
                "event": "start",
                "sequenceNumber": self._next(),
                "start": {
                    "accountSid": ids.account_sid,
                    "callSid": ids.call_sid,
                    "streamSid": ids.stream_sid,
                    "tracks": ["inbound"],
                    "mediaFormat": {
                        "encoding": "audio/x-mulaw",
                        "sampleRate": 8000,
                        "channels": 1,
                    },
                    "customParameters": dict(parameters),
                },
                "streamSid": ids.stream_sid,
            }
        )

    def media(self, chunk: int, timestamp_ms: int, payload: str) -> str:
        """Write the `chunk`th frame of the caller's audio (from 1), `payload` in base64 already."""
        self._sequence += 1
        return (
            f"{self._media_a}{self._sequence}{self._media_b}{chunk}{self._media_c}"
            f"{timestamp_ms}{self._media_d}{payload}{self._media_e}"
        )

    def skip(self) -> None:
        """Lose a message: its number is used up, which is how Twilio's own losses show."""
        self._sequence += 1

    def dtmf(self, digit: str) -> str:
        """Say that the caller pressed `digit`."""
        body = {"track": "inbound_track", "digit": digit}
        return self._event("dtmf", {"dtmf": body})

    def mark(self, name: str) -> str:
        """Echo a mark."""
        return self._event("mark", {"mark": {"name": name}})

    def stop(self) -> str:
        """Write the last message."""
        body = {"accountSid": self._ids.account_sid, "callSid": self._ids.call_sid}
        return self._event("stop", {"stop": body})

    def _event(self, event: str, body: Mapping[str, object]) -> str:
        return json.dumps(
            {
                "event": event,
                "sequenceNumber": self._next(),
                **body,
                "streamSid": self._ids.stream_sid,
            }
        )
