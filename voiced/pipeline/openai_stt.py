"""Speech to text at `/audio/transcriptions`.

Source: OpenAI's API reference, "Create transcription". The answer's `usage` is tokens or seconds,
and older servers give none.
"""

from __future__ import annotations

import struct
from typing import final

import msgspec

from voiced.config import types
from voiced.engine import Usage
from voiced.pipeline.client import Http
from voiced.pipeline.providers import ProviderError, Transcription

__all__ = ["OpenAiStt", "wav"]


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None


class _Answer(msgspec.Struct):
    text: str
    usage: msgspec.Raw = msgspec.Raw()


def wav(pcm16: bytes, rate: int) -> bytes:
    """A WAV file of mono PCM16."""
    return (
        struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            *(b"RIFF", 36 + len(pcm16), b"WAVE"),
            *(b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16),
            *(b"data", len(pcm16)),
        )
        + pcm16
    )


@final
class OpenAiStt:
    """A server's transcription endpoint (`providers.SpeechToText`)."""

    def __init__(self, config: types.SpeechToText, http: Http) -> None:
        self._config = config
        self._http = http

    async def transcribe(self, pcm16: bytes, rate: int, language: str | None) -> Transcription:
        """Upload one turn as a WAV file."""
        form = {"model": self._config.model, "response_format": "json"}
        if language is not None:
            form["language"] = language
        file = ("turn.wav", wav(pcm16, rate), "audio/wav")
        async with self._http.post(
            self._config, "/audio/transcriptions", form=form, file=file
        ) as answer:
            body = await answer.read()
        try:
            told = msgspec.json.decode(body, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ProviderError("bad_answer", "not a transcription", "refused") from None
        return Transcription(told.text.strip(), _usage(told.usage))


def _usage(raw: msgspec.Raw) -> Usage | None:
    # Decoded apart: a figure that cannot be read must not cost the words.
    try:
        usage = msgspec.json.decode(raw, type=_Usage | None) if raw else None
    except (msgspec.DecodeError, RecursionError):
        return None
    if usage is None:
        return None
    found = Usage(
        transcription_in=usage.input_tokens or 0,
        transcription_out=usage.output_tokens or 0,
        transcription_s=usage.seconds or 0.0,
    )
    return None if found == Usage() else found  # noughts are no figures
