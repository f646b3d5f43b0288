"""`POST /v1/audio/transcriptions`: what is asked for, and what is answered. No I/O.

Source: OpenAI's API reference, "Create transcription".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from voiced import wav
from voiced.emulator.answers import pieces
from voiced.emulator.errors import HttpRefused
from voiced.emulator.hearing import to_pcm_8k
from voiced.emulator.items import USER_MS_PER_TOKEN, text_tokens
from voiced.emulator.multipart import Field, MultipartError, boundary_of, parse

__all__ = ["Upload", "answer", "events", "read_upload"]

MIN_MS: Final = 100  # as the service
FORMATS: Final = ("json", "text", "verbose_json")
_KNOWN: Final = frozenset(
    {
        "chunking_strategy",
        "file",
        "include",
        "include[]",
        "keywords",
        "keywords[]",
        "language",
        "languages",
        "languages[]",
        "model",
        "prompt",
        "response_format",
        "stream",
        "temperature",
        "timestamp_granularities[]",
    }
)


@dataclass(frozen=True, slots=True)
class Upload:
    """A checked request. `pcm` is PCM16 at 8 kHz."""

    pcm: bytes
    audio_ms: int
    model: str
    response_format: str
    stream: bool


def _refused(message: str, param: str | None = None, code: str | None = None) -> HttpRefused:
    return HttpRefused(400, code, message, param)


def read_upload(body: bytes, content_type: str) -> Upload:
    """Take a request's body apart. Raises HttpRefused for what the service would refuse."""
    try:
        fields = parse(body, boundary_of(content_type))
    except MultipartError as error:
        raise _refused(f"Could not parse multipart form: {error}.") from None
    form: dict[str, Field] = {}
    for field in fields:
        if field.name not in _KNOWN:
            raise _refused(f"Unknown parameter: '{field.name}'.", field.name, "unknown_parameter")
        form[field.name] = field
    for name in ("file", "model"):
        if name not in form:
            raise _refused(
                f"Missing required parameter: '{name}'.", name, "missing_required_parameter"
            )
    response_format = form["response_format"].text if "response_format" in form else "json"
    if response_format not in FORMATS:
        raise _refused(
            f"response_format '{response_format}' is not supported here: use one of "
            f"{', '.join(FORMATS)}.",
            "response_format",
            "unsupported_value",
        )
    try:
        sound = wav.parse(form["file"].data)
    except wav.WavError as error:
        raise _refused(
            f"Invalid file format: it {error}. The emulator reads WAV files.", "file"
        ) from None
    if sound.duration_ms < MIN_MS:
        raise _refused(
            "Audio file is too short. Minimum audio length is 0.1 seconds.",
            "file",
            "audio_too_short",
        )
    return Upload(
        pcm=to_pcm_8k(sound.data, sound.format),
        audio_ms=sound.duration_ms,
        model=form["model"].text,
        response_format=response_format,
        stream="stream" in form and form["stream"].text.lower() in ("true", "1"),
    )


def _usage(upload: Upload, text: str) -> dict[str, Any]:
    if upload.model == "whisper-1":
        return {"type": "duration", "seconds": -(-upload.audio_ms // 1000)}
    heard, written = -(-upload.audio_ms // USER_MS_PER_TOKEN), text_tokens(text)
    return {
        "type": "tokens",
        "input_tokens": heard,
        "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
        "output_tokens": written,
        "total_tokens": heard + written,
    }


def answer(upload: Upload, text: str, language: str) -> tuple[str, bytes]:
    """Return content type and body of the answer in one piece."""
    if upload.response_format == "text":
        return "text/plain; charset=utf-8", f"{text}\n".encode()
    told: dict[str, Any] = {"text": text, "usage": _usage(upload, text)}
    if upload.response_format == "verbose_json":
        told |= {
            "task": "transcribe",
            "language": language,
            "duration": upload.audio_ms / 1000,
            "segments": [],
        }
    return "application/json", msgspec.json.encode(told)


def events(upload: Upload, text: str) -> Iterator[dict[str, Any]]:
    """The answer as server-sent events."""
    for piece in pieces(text):
        yield {"type": "transcript.text.delta", "delta": piece}
    yield {"type": "transcript.text.done", "text": text, "usage": _usage(upload, text)}
