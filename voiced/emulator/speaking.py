"""`POST /v1/audio/speech`: what is asked for, and its sound. No I/O but the synthesiser's.

Source: OpenAI's API reference, "Create speech".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from voiced import audio, wav
from voiced.emulator.answers import Line, language_of, recorded
from voiced.emulator.errors import HttpRefused, Refused
from voiced.emulator.schema import Choice, Fields, Number, OneOf, Text
from voiced.emulator.speech import Voice
from voiced.formats import PCM16_8K, PCM16_24K, AudioFormat

__all__ = ["Request", "Sound", "read_request", "sound_of"]

MAX_INPUT: Final = 4096  # characters, as documented
_UNMADE: Final = ("mp3", "opus", "aac", "flac")

_REQUEST = Fields(
    {
        "input": Text(MAX_INPUT),
        "model": Text(256),
        "voice": OneOf(Text(256), Fields({"id": Text(256)}, ("id",))),
        "instructions": Text(MAX_INPUT),
        "response_format": Choice((*_UNMADE, "wav", "pcm")),
        "speed": Number(0.25, 4.0),
        "stream_format": Choice(("audio", "sse")),
    },
    ("input", "model", "voice"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request."""

    text: str
    voice: Any
    wav: bool


@dataclass(frozen=True, slots=True)
class Sound:
    """The body of an answer, `format` after the header of a WAV file, if it is one."""

    data: bytes
    format: AudioFormat
    content_type: str


def read_request(body: bytes) -> Request:
    """Check a request's body. Raises HttpRefused."""
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise HttpRefused(
            400, None, "We could not parse the JSON body of your request. It is not valid JSON."
        ) from None
    try:
        _REQUEST.check(given, "")
    except Refused as refused:
        raise HttpRefused(400, refused.code, refused.message, refused.param) from None
    wanted = given.get("response_format", "mp3")
    if wanted in _UNMADE or given.get("stream_format") == "sse":
        param = "response_format" if wanted in _UNMADE else "stream_format"
        raise HttpRefused(
            400,
            "unsupported_value",
            "The emulator has no codec for this: ask for response_format 'pcm' or 'wav', and "
            "stream_format 'audio'.",
            param,
        )
    if not given["input"].strip():
        raise HttpRefused(400, "empty_string", "Invalid 'input': empty string.", "input")
    return Request(given["input"], given["voice"], wanted == "wav")


async def sound_of(request: Request, voice: Voice) -> Sound:
    """Speak it: PCM16 at 24 kHz, mono, as the service sends."""
    text = request.text.strip()
    line = recorded(text) or Line(text, language_of(text, "en"))
    spoken = await voice.say(line, request.voice, b"")
    data = audio.convert(spoken.pcm, PCM16_8K, PCM16_24K)
    if not request.wav:
        return Sound(data, PCM16_24K, "audio/pcm")
    return Sound(wav.header(PCM16_24K, 1, len(data)) + data, PCM16_24K, "audio/wav")
