"""Token counts of the wire as `engine.Usage`. Every figure may be null or missing."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from voiced.engine import Usage

__all__ = ["response_usage", "transcription_usage"]


class TokenDetails(Struct, frozen=True, gc=False):
    """Tokens by kind; `cached_tokens_details` stands inside the input details only."""

    text_tokens: int | None = None
    audio_tokens: int | None = None
    cached_tokens_details: TokenDetails | None = None


class TokenUsage(Struct, frozen=True, gc=False):
    """`response.usage`, and both shapes of a transcription's usage (tokens, duration)."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: TokenDetails | None = None
    output_token_details: TokenDetails | None = None
    seconds: float | None = None


_decoder: msgspec.json.Decoder[TokenUsage | None] = msgspec.json.Decoder(TokenUsage | None)


def _parse(raw: msgspec.Raw) -> TokenUsage | None:
    # Decoded apart from its event: a figure that cannot be read must not cost a `response.done`.
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def response_usage(raw: msgspec.Raw) -> Usage | None:
    """Tokens of one response; None where the server does not tell, or only noughts.

    What a total has beyond its details counts as text, the cheaper kind on every list.
    """
    usage = _parse(raw)
    if usage is None:
        return None
    given, made = usage.input_token_details, usage.output_token_details
    cached = given.cached_tokens_details if given else None
    found = Usage(
        text_in=_text(usage.input_tokens, given),
        audio_in=(given.audio_tokens if given else 0) or 0,
        cached_text_in=(cached.text_tokens if cached else 0) or 0,
        cached_audio_in=(cached.audio_tokens if cached else 0) or 0,
        text_out=_text(usage.output_tokens, made),
        audio_out=(made.audio_tokens if made else 0) or 0,
    )
    return None if found == Usage() else found


def _text(total: int | None, details: TokenDetails | None) -> int:
    if details is None:
        return total or 0
    if details.text_tokens is None:
        return max(0, (total or 0) - (details.audio_tokens or 0))
    return details.text_tokens


def transcription_usage(raw: msgspec.Raw) -> Usage | None:
    """Tokens or seconds of one transcription; None as of `response_usage`."""
    usage = _parse(raw)
    if usage is None:
        return None
    found = Usage(
        transcription_in=usage.input_tokens or 0,
        transcription_out=usage.output_tokens or 0,
        transcription_s=usage.seconds or 0.0,
    )
    return None if found == Usage() else found
