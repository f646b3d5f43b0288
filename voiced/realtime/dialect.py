"""The two dialects: GA is the house tongue, beta is translated at the edge.

Source: OpenAI, "Beta to GA migration". Inward, beta names become the GA structs (as subclasses of
them, so that nothing is copied); outward, the nested GA session is flattened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import msgspec
import structlog

from voiced.formats import PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat, Encoding
from voiced.realtime import events
from voiced.realtime.events import Envelope, MalformedEvent, ServerEvent
from voiced.realtime.servers import Dialect

__all__ = [
    "ALIASES",
    "Reader",
    "UnspeakableFormat",
    "echoed_format",
    "flatten",
    "lift_voice",
    "wire_format",
]

log = structlog.get_logger("voiced.realtime")


class BetaAudioDelta(events.OutputAudioDelta, frozen=True, tag="response.audio.delta"):
    """Beta name."""


class BetaAudioDone(events.OutputAudioDone, frozen=True, tag="response.audio.done"):
    """Beta name."""


class BetaTranscriptDelta(
    events.OutputAudioTranscriptDelta, frozen=True, tag="response.audio_transcript.delta"
):
    """Beta name."""


class BetaTranscriptDone(
    events.OutputAudioTranscriptDone, frozen=True, tag="response.audio_transcript.done"
):
    """Beta name."""


ALIASES: Final[dict[type[ServerEvent], type[ServerEvent]]] = {
    BetaAudioDelta: events.OutputAudioDelta,
    BetaAudioDone: events.OutputAudioDone,
    BetaTranscriptDelta: events.OutputAudioTranscriptDelta,
    BetaTranscriptDone: events.OutputAudioTranscriptDone,
}
"""Beta struct to the GA struct that it derives from."""

_GA = (
    events.SessionCreated
    | events.SessionUpdated
    | events.SpeechStarted
    | events.SpeechStopped
    | events.Committed
    | events.TranscriptionDelta
    | events.TranscriptionCompleted
    | events.TranscriptionFailed
    | events.ResponseCreated
    | events.ResponseDone
    | events.OutputAudioDelta
    | events.OutputAudioDone
    | events.OutputAudioTranscriptDelta
    | events.OutputAudioTranscriptDone
    | events.OutputItemAdded
    | events.OutputItemDone
    | events.ArgumentsDone
    | events.Error
)
# A beta server may have learnt some GA names already, so the beta reader knows both.
_BETA = _GA | BetaAudioDelta | BetaAudioDone | BetaTranscriptDelta | BetaTranscriptDone

MAX_UNKNOWN: Final = 64  # types remembered and logged; a server that invents more is not believed
MAX_TYPE_CHARS: Final = 100


@final
class Reader:
    """Parses server messages. One per engine: an unknown type is logged once, not once a call."""

    def __init__(self, dialect: Dialect) -> None:
        kinds: Any = _GA if dialect == "ga" else _BETA
        self._decoder: msgspec.json.Decoder[ServerEvent] = msgspec.json.Decoder(kinds)
        self._tags = {str(kind.__struct_config__.tag) for kind in kinds.__args__}
        self._envelope = msgspec.json.Decoder(Envelope)
        self._unknown: set[str] = set()

    @property
    def unknown(self) -> frozenset[str]:
        """Types seen that no reference names."""
        return frozenset(self._unknown)

    def read(self, message: bytes) -> ServerEvent | None:
        """One text message as an event; None for a type that is passed over.

        Raises MalformedEvent.
        """
        try:
            return self._decoder.decode(message)
        except msgspec.ValidationError as error:
            self._pass_over(message, error)
            return None
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise MalformedEvent(f"not JSON: {error}") from None

    def _pass_over(self, message: bytes, error: msgspec.ValidationError) -> None:
        try:
            kind = self._envelope.decode(message).type
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            raise MalformedEvent(f"not an event: {error}") from None
        if kind in self._tags:
            raise MalformedEvent(f"{kind}: {error}")
        name = kind[:MAX_TYPE_CHARS]
        if kind in events.PASSED_OVER or name in self._unknown:
            return
        if len(self._unknown) < MAX_UNKNOWN:
            self._unknown.add(name)
            log.info("unknown event passed over", type=name)


class UnspeakableFormat(ValueError):
    """The server insists on an audio format that voiced has no converter for."""


def wire_format(audio: AudioFormat) -> dict[str, Any]:
    """GA's format object."""
    if audio.encoding is Encoding.PCM16:
        return {"type": "audio/pcm", "rate": audio.rate}
    return {"type": f"audio/{audio.encoding.value}"}


_BETA_NAMES: Final = {"audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}

_SPOKEN_NAMES: Final = {
    "audio/pcmu": PCMU_8K,
    "g711_ulaw": PCMU_8K,
    "audio/pcma": PCMA_8K,
    "g711_alaw": PCMA_8K,
}
_RATES: Final = frozenset({8000, 16000, 24000, 48000})  # what both resamplers convert
_PCM_NAMES: Final = frozenset({"audio/pcm", "pcm16", "pcm24", "pcm"})


def _inside(session: Mapping[str, Any], *path: str) -> Any:
    value: Any = session
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def echoed_format(session: Mapping[str, Any], side: str, asked: AudioFormat) -> AudioFormat:
    """The format that a `session.updated` announces for `side`, "input" or "output".

    `asked` where it says nothing. Raises UnspeakableFormat.
    """
    value = _inside(session, "audio", side, "format") or session.get(f"{side}_audio_format")
    rate = _inside(session, "audio", side, "format", "rate")
    name = value.get("type") if isinstance(value, Mapping) else value
    if name is None:
        return asked
    if isinstance(name, str) and name in _SPOKEN_NAMES:
        return _SPOKEN_NAMES[name]
    if not isinstance(name, str) or name not in _PCM_NAMES:
        raise UnspeakableFormat(str(name)[:MAX_TYPE_CHARS])
    if rate is None:
        return asked if asked.encoding is Encoding.PCM16 else PCM16_24K
    if not isinstance(rate, int | float) or rate not in _RATES:
        raise UnspeakableFormat(f"{name} at {str(rate)[:20]} Hz")
    return AudioFormat(Encoding.PCM16, int(rate))


def lift_voice(session: dict[str, Any]) -> dict[str, Any]:
    """Give a session xAI's shape: `voice` and `turn_detection` at the top, the rest as in GA."""
    audio = session["audio"]
    lifted = {**session, "audio": {side: dict(part) for side, part in audio.items()}}
    lifted["turn_detection"] = lifted["audio"]["input"].pop("turn_detection")
    lifted["voice"] = lifted["audio"]["output"].pop("voice")
    return lifted


def flatten(session: dict[str, Any], pcm_name: str) -> dict[str, Any]:
    """Turn the GA session into beta's: flat, without `type`, audio always with text."""
    source, sink = session["audio"]["input"], session["audio"]["output"]

    def name(wire: dict[str, Any]) -> str:
        return _BETA_NAMES.get(wire["type"], pcm_name)

    flat = {
        "modalities": ["text", "audio"],
        "instructions": session["instructions"],
        "voice": sink["voice"],
        "input_audio_format": name(source["format"]),
        "output_audio_format": name(sink["format"]),
        "input_audio_noise_reduction": source["noise_reduction"],
        "input_audio_transcription": source["transcription"],
        "turn_detection": source["turn_detection"],
    }
    return flat | {key: session[key] for key in ("tools", "tool_choice") if key in session}
