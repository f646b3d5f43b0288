"""The beta dialect at the emulator's edge: the client's events to GA, the server's from it. No I/O.

Source: OpenAI, "Beta to GA migration", and the reference of the beta interface of 2024 and 2025:
a flat session, other names of events, audio always together with text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from voiced.emulator import shapes
from voiced.emulator.errors import Refused
from voiced.emulator.schema import (
    Anything,
    Choice,
    Fields,
    Kind,
    ListOf,
    MapOf,
    Number,
    OrNull,
    Tagged,
    Text,
)
from voiced.emulator.shapes import client_event, item_kind

__all__ = ["CLIENT_EVENTS", "HEADER", "from_ga", "missing_header", "refused", "to_ga"]

HEADER: Final = (b"openai-beta", b"realtime=v1")
"""What a client says in its handshake, the name in lower case."""

TEMPERATURE: Final = 0.8  # the default; heeded by nobody here

_FORMATS: Final[dict[str, dict[str, Any]]] = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_FORMAT_NAMES: Final = {shape["type"]: name for name, shape in _FORMATS.items()}
_FORMAT = Choice(tuple(_FORMATS))
_MODALITIES = ListOf(Choice(("audio", "text")), 2)
_TEMPERATURE = Number(0.6, 1.2)
_ITEM = item_kind(text=Fields({"type": Choice(("text",)), "text": Text()}, ("type",)))

_SESSION_FIELDS: dict[str, Kind] = {
    "model": Text(256),
    "modalities": _MODALITIES,
    "instructions": Text(),
    "voice": shapes.VOICE,
    "speed": Number(0.25, 1.5),
    "input_audio_format": _FORMAT,
    "output_audio_format": _FORMAT,
    "input_audio_noise_reduction": shapes.NOISE_REDUCTION,
    "input_audio_transcription": OrNull(shapes.TRANSCRIPTION),
    "turn_detection": OrNull(shapes.TURN_DETECTION),
    "tools": ListOf(shapes.TOOL, 128),
    "tool_choice": shapes.TOOL_CHOICE,
    "temperature": _TEMPERATURE,
    "max_response_output_tokens": shapes.MAX_TOKENS,
    "tracing": OrNull(Anything()),
}
_RESPONSE = Fields(
    {
        "conversation": Choice(("auto", "none")),
        "input": ListOf(_ITEM, 256),
        "instructions": Text(),
        "modalities": _MODALITIES,
        "voice": shapes.VOICE,
        "output_audio_format": _FORMAT,
        "tools": ListOf(shapes.TOOL, 128),
        "tool_choice": shapes.TOOL_CHOICE,
        "temperature": _TEMPERATURE,
        "max_output_tokens": shapes.MAX_TOKENS,
        "metadata": OrNull(MapOf(Text(512), 16, 64)),
    }
)
CLIENT_EVENTS: Final = Tagged(
    "type",
    {
        **shapes.CLIENT_EVENTS.kinds,
        "session.update": client_event(
            "session.update", ("session",), session=Fields(_SESSION_FIELDS)
        ),
        "conversation.item.create": client_event(
            "conversation.item.create",
            ("item",),
            item=_ITEM,
            previous_item_id=OrNull(Text(512)),
        ),
        "response.create": client_event("response.create", response=OrNull(_RESPONSE)),
    },
)
"""The shapes that clients' events have."""

# Where a field of the flat session stands in GA's.
_PLACES: Final[dict[str, tuple[str, ...]]] = {
    "voice": ("audio", "output", "voice"),
    "speed": ("audio", "output", "speed"),
    "input_audio_format": ("audio", "input", "format"),
    "output_audio_format": ("audio", "output", "format"),
    "input_audio_noise_reduction": ("audio", "input", "noise_reduction"),
    "input_audio_transcription": ("audio", "input", "transcription"),
    "turn_detection": ("audio", "input", "turn_detection"),
    "modalities": ("output_modalities",),
    "max_response_output_tokens": ("max_output_tokens",),
}
_NAMES: Final = {
    "conversation.item.added": "conversation.item.created",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
}
_UNHEARD_OF: Final = frozenset({"conversation.item.done"})
_PARTS: Final = {"output_audio": "audio", "output_text": "text"}


def missing_header() -> Refused:
    """What a client is told that does not ask for the beta interface."""
    text = "You must provide the 'OpenAI-Beta: realtime=v1' header to access the Realtime API."
    return Refused("missing_beta_header", text)


def refused(error: Refused) -> Refused:
    """Give an error that is about a field of GA's session the name that the client knows."""
    for name, place in _PLACES.items():
        if error.param == ".".join(("session", *place)):
            return Refused(error.code, error.message, f"session.{name}", kind=error.kind)
    return error


# --- from the client --------------------------------------------------------------------------


def to_ga(event: dict[str, Any]) -> dict[str, Any]:
    """Return GA's event for one that CLIENT_EVENTS has let pass."""
    match event:
        case {"type": "session.update", "session": session}:
            return {**event, "session": {"type": "realtime", **_nested(session)}}
        case {"type": "conversation.item.create", "item": item}:
            return {**event, "item": _ga_item(item)}
        case {"type": "response.create", "response": dict(response)}:
            made = _nested(response)
            if "input" in made:
                made["input"] = [_ga_item(item) for item in made["input"]]
            return {**event, "response": made}
    return event


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in flat.items():
        if name == "temperature":
            continue
        if name.endswith("_audio_format"):
            value = dict(_FORMATS[value])
        elif name == "modalities" and value:
            value = ["audio"] if "audio" in value else ["text"]
        *way, last = _PLACES.get(name, (name,))
        holder = made
        for step in way:
            holder = holder.setdefault(step, {})
        holder[last] = value
    return made


def _ga_item(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("role") != "assistant":
        return item
    return {**item, "content": [{**part, "type": "output_text"} for part in item["content"]]}


# --- to the client ----------------------------------------------------------------------------


def from_ga(event: dict[str, Any]) -> dict[str, Any] | None:
    """Return the beta event for a server's, None where there is none."""
    kind = event["type"]
    if kind in _UNHEARD_OF:
        return None
    made = {**event, "type": _NAMES.get(kind, kind)}
    if "session" in made:
        made["session"] = _flat(made["session"])
    if "item" in made:
        made["item"] = _item(made["item"])
    if "response" in made:
        made["response"] = _response(made["response"])
    if kind == "response.function_call_arguments.done":
        made.pop("name", None)
    return made


def _modalities(session: Mapping[str, Any]) -> list[str]:
    return ["text", "audio"] if session["output_modalities"] == ["audio"] else ["text"]


def _flat(session: dict[str, Any]) -> dict[str, Any]:
    source, sink = session["audio"]["input"], session["audio"]["output"]
    detection = source["turn_detection"]
    if detection is not None and detection.get("idle_timeout_ms") is None:
        detection = {name: value for name, value in detection.items() if name != "idle_timeout_ms"}
    kept = ("object", "id", "model", "expires_at", "instructions", "tools", "tool_choice")
    return {
        **{name: session[name] for name in (*kept, "tracing")},
        "modalities": _modalities(session),
        "voice": sink["voice"],
        "speed": sink["speed"],
        "input_audio_format": _FORMAT_NAMES[source["format"]["type"]],
        "output_audio_format": _FORMAT_NAMES[sink["format"]["type"]],
        "input_audio_noise_reduction": source["noise_reduction"],
        "input_audio_transcription": source["transcription"],
        "turn_detection": detection,
        "temperature": TEMPERATURE,
        "max_response_output_tokens": session["max_output_tokens"],
    }


def _item(item: dict[str, Any]) -> dict[str, Any]:
    made = {name: value for name, value in item.items() if name != "object"}
    if "content" in made:
        made["content"] = [
            {**part, "type": _PARTS.get(part["type"], part["type"])} for part in made["content"]
        ]
    return made


def _response(response: dict[str, Any]) -> dict[str, Any]:
    sink = response["audio"]["output"]
    changed = ("audio", "output_modalities")
    usage = response["usage"]
    if usage is not None:  # images, and what exactly was cached, came with GA
        read = usage["input_token_details"]
        read = {name: read[name] for name in ("text_tokens", "audio_tokens", "cached_tokens")}
        usage = {**usage, "input_token_details": read}
    return {
        **{name: value for name, value in response.items() if name not in changed},
        "usage": usage,
        "output": [_item(item) for item in response["output"]],
        "modalities": _modalities(response),
        "voice": sink["voice"],
        "output_audio_format": _FORMAT_NAMES[sink["format"]["type"]],
        "temperature": TEMPERATURE,
    }
