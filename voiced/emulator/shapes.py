"""The shapes of the client events of the Realtime protocol (GA), and the session's defaults.

Source: OpenAI's Realtime API reference, "client events" and "session object", August 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from voiced.emulator.schema import (
    Anything,
    Bool,
    Choice,
    Fields,
    Kind,
    ListOf,
    MapOf,
    Number,
    OneOf,
    OrNull,
    Tagged,
    Text,
)
from voiced.formats import PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat

__all__ = [
    "CLIENT_EVENTS",
    "EAGERNESS_MS",
    "FORMATS",
    "MAX_AUDIO_BYTES",
    "MAX_TOKENS",
    "NOISE_REDUCTION",
    "TOOL",
    "TOOL_CHOICE",
    "TRANSCRIPTION",
    "TURN_DETECTION",
    "VOICE",
    "audio_format",
    "client_event",
    "default_session",
    "default_turn_detection",
    "item_kind",
]

MAX_AUDIO_BYTES: Final = 15 * 1024 * 1024  # of one append event, as documented
FORMATS: Final = {"audio/pcm": PCM16_24K, "audio/pcmu": PCMU_8K, "audio/pcma": PCMA_8K}
# How long a semantic VAD waits at the most; the emulator understands no sentence and waits so long.
EAGERNESS_MS: Final = {"low": 8000, "medium": 4000, "high": 2000, "auto": 4000}


def audio_format(value: dict[str, Any]) -> AudioFormat:
    """Return what a checked `format` object means."""
    return FORMATS[value["type"]]


def _tagged(tag: str, value: str, /, **kinds: Kind) -> Fields:
    return Fields({tag: Choice((value,)), **kinds}, (tag,))


_FORMAT = Tagged(
    "type",
    {
        "audio/pcm": _tagged("type", "audio/pcm", rate=Choice((24000,))),
        "audio/pcmu": _tagged("type", "audio/pcmu"),
        "audio/pcma": _tagged("type", "audio/pcma"),
    },
)
VOICE: Final = OneOf(Text(256), Fields({"id": Text(256)}, ("id",)))
TURN_DETECTION: Final = Tagged(
    "type",
    {
        "server_vad": _tagged(
            "type",
            "server_vad",
            threshold=Number(0, 1),
            prefix_padding_ms=Number(0, 10_000, whole=True),
            silence_duration_ms=Number(0, 10_000, whole=True),
            create_response=Bool(),
            interrupt_response=Bool(),
            idle_timeout_ms=OrNull(Number(5000, 30_000, whole=True)),
        ),
        "semantic_vad": _tagged(
            "type",
            "semantic_vad",
            eagerness=Choice(tuple(EAGERNESS_MS)),
            create_response=Bool(),
            interrupt_response=Bool(),
        ),
    },
)
TRANSCRIPTION: Final = Fields(
    {
        "model": Text(256),
        "language": OrNull(Text(16)),
        "languages": OrNull(ListOf(Text(16), 64)),
        "prompt": OrNull(Text(16_384)),
        "delay": Choice(("minimal", "low", "medium", "high", "xhigh")),
        "keywords": OrNull(ListOf(Text(256), 1024)),
    }
)
NOISE_REDUCTION: Final = OrNull(Fields({"type": Choice(("near_field", "far_field"))}, ("type",)))
TOOL: Final = Tagged(
    "type",
    {
        "function": _tagged(
            "type",
            "function",
            name=Text(64),
            description=OrNull(Text(16_384)),
            parameters=OrNull(Anything()),
        ),
        "mcp": _tagged(
            "type",
            "mcp",
            server_label=Text(),
            server_url=Text(),
            server_description=Text(),
            connector_id=Text(),
            tunnel_id=Text(),
            authorization=Text(),
            headers=Anything(),
            allowed_tools=Anything(),
            require_approval=Anything(),
            defer_loading=Bool(),
        ),
    },
)
TOOL_CHOICE: Final = OneOf(
    Choice(("auto", "none", "required")),
    Tagged(
        "type",
        {
            "function": _tagged("type", "function", name=Text(64)),
            "mcp": _tagged("type", "mcp", server_label=Text(), name=OrNull(Text())),
        },
    ),
)
MAX_TOKENS: Final = OneOf(Choice(("inf",)), Number(1, 4096, whole=True))
_MODALITIES = ListOf(Choice(("audio", "text")), 1)
_EFFORT = Fields({"effort": Choice(("none", "minimal", "low", "medium", "high", "xhigh"))})
_PROMPT = OrNull(Anything())

_SESSION = Tagged(
    "type",
    {
        "realtime": _tagged(
            "type",
            "realtime",
            model=Text(256),
            output_modalities=_MODALITIES,
            instructions=Text(),
            audio=Fields(
                {
                    "input": Fields(
                        {
                            "format": _FORMAT,
                            "noise_reduction": NOISE_REDUCTION,
                            "transcription": OrNull(TRANSCRIPTION),
                            "turn_detection": OrNull(TURN_DETECTION),
                        }
                    ),
                    "output": Fields(
                        {"format": _FORMAT, "voice": VOICE, "speed": Number(0.25, 1.5)}
                    ),
                }
            ),
            tools=ListOf(TOOL, 128),
            tool_choice=TOOL_CHOICE,
            parallel_tool_calls=Bool(),
            reasoning=OrNull(_EFFORT),
            max_output_tokens=MAX_TOKENS,
            truncation=OneOf(
                Choice(("auto", "disabled")),
                _tagged(
                    "type",
                    "retention_ratio",
                    retention_ratio=Number(0, 1),
                    token_limits=OrNull(Anything()),
                ),
            ),
            tracing=OrNull(Anything()),
            prompt=_PROMPT,
            include=OrNull(ListOf(Choice(("item.input_audio_transcription.logprobs",)), 1)),
        ),
        # Accepted by the schema so that the refusal can say what is wrong.
        "transcription": _tagged("type", "transcription", audio=Anything(), include=Anything()),
    },
)

_STATUS = Choice(("completed", "incomplete", "in_progress"))


def _item(kind: str, required: tuple[str, ...], /, **kinds: Kind) -> Fields:
    common: dict[str, Kind] = {
        "id": Text(32),
        "object": Choice(("realtime.item",)),
        "status": _STATUS,
    }
    return Fields({"type": Choice((kind,)), **common, **kinds}, ("type", *required))


def _message(role: str, **content: Fields) -> Fields:
    parts = ListOf(Tagged("type", content), 256)
    return _item("message", ("role", "content"), role=Choice((role,)), content=parts)


_TEXT = _tagged("type", "input_text", text=Text())
_USER = _message(
    "user",
    input_text=_TEXT,
    input_audio=_tagged("type", "input_audio", audio=Text(), transcript=OrNull(Text())),
    input_image=_tagged(
        "type",
        "input_image",
        image_url=Text(),
        detail=Choice(("auto", "low", "high")),
    ),
)


@dataclass(frozen=True)
class _Item(Tagged):
    """An item: by `type`, and a message by its `role` as well."""

    messages: Tagged | None = None

    def check(self, value: Any, path: str) -> None:
        if self.messages and isinstance(value, dict) and value.get("type") == "message":
            self.messages.check(value, path)
        else:
            super().check(value, path)


def item_kind(**assistant: Fields) -> Kind:
    """Return the shape of an item; `assistant` are the parts that an assistant's message has."""
    return _Item(
        "type",
        {
            "message": Fields({}),
            "function_call": _item(
                "function_call",
                ("name", "arguments"),
                name=Text(64),
                call_id=Text(64),
                arguments=Text(),
            ),
            "function_call_output": _item(
                "function_call_output", ("call_id", "output"), call_id=Text(64), output=Text()
            ),
            "item_reference": _tagged("type", "item_reference", id=Text(32)),
        },
        messages=Tagged(
            "role",
            {
                "user": _USER,
                "system": _message("system", input_text=_TEXT),
                "assistant": _message("assistant", **assistant),
            },
        ),
    )


_ITEM = item_kind(
    output_text=_tagged("type", "output_text", text=Text()),
    output_audio=_tagged("type", "output_audio", audio=OrNull(Text()), transcript=OrNull(Text())),
)

_RESPONSE = Fields(
    {
        "conversation": Choice(("auto", "none")),
        "input": ListOf(_ITEM, 256),
        "instructions": Text(),
        "output_modalities": _MODALITIES,
        "audio": Fields({"output": Fields({"format": _FORMAT, "voice": VOICE})}),
        "tools": ListOf(TOOL, 128),
        "tool_choice": TOOL_CHOICE,
        "parallel_tool_calls": Bool(),
        "reasoning": OrNull(_EFFORT),
        "max_output_tokens": MAX_TOKENS,
        "prompt": _PROMPT,
        "metadata": OrNull(MapOf(Text(512), 16, 64)),
    }
)


def client_event(name: str, required: tuple[str, ...] = (), /, **kinds: Kind) -> Fields:
    """Return the shape of an event of that `type`."""
    return Fields(
        {"type": Choice((name,)), "event_id": OrNull(Text(512)), **kinds}, ("type", *required)
    )


_ID = Text(512)
CLIENT_EVENTS: Final = Tagged(
    "type",
    {
        event.fields["type"].values[0]: event  # type: ignore[attr-defined]
        for event in (
            client_event("session.update", ("session",), session=_SESSION),
            client_event("input_audio_buffer.append", ("audio",), audio=Text()),
            client_event("input_audio_buffer.commit"),
            client_event("input_audio_buffer.clear"),
            client_event(
                "conversation.item.create",
                ("item",),
                item=_ITEM,
                previous_item_id=OrNull(_ID),
            ),
            client_event("conversation.item.retrieve", ("item_id",), item_id=_ID),
            client_event("conversation.item.delete", ("item_id",), item_id=_ID),
            client_event(
                "conversation.item.truncate",
                ("item_id", "content_index", "audio_end_ms"),
                item_id=_ID,
                content_index=Number(0, 2**31, whole=True),
                audio_end_ms=Number(0, 2**31, whole=True),
            ),
            client_event("response.create", response=OrNull(_RESPONSE)),
            client_event("response.cancel", response_id=OrNull(_ID)),
        )
    },
)


def default_turn_detection(kind: str) -> dict[str, Any]:
    """Return a turn detection object with every field at its default."""
    common = {"create_response": True, "interrupt_response": True}
    if kind == "semantic_vad":
        return {"type": kind, "eagerness": "auto", **common}
    vad = {"threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
    return {"type": kind, **vad, "idle_timeout_ms": None, **common}


def default_session(session_id: str, model: str, expires_at: int) -> dict[str, Any]:
    """Return the session object of a fresh connection; `expires_at` in seconds since 1970."""
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "You are a helpful voice. Answer briefly and kindly.",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": expires_at,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": default_turn_detection("server_vad"),
            },
            "output": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "voice": "marin",
                "speed": 1.0,
            },
        },
        "include": None,
    }
