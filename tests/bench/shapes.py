"""The JSON objects within the fake model's events, as OpenAI's Realtime API reference has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tests.bench.markers import Encoding

__all__ = ["LIMITS", "TEXT", "answer", "heard", "response", "session"]

TEXT: Final = "hello there, caller"
LIMITS: Final = [{"name": "tokens", "limit": 1000000, "remaining": 999000, "reset_seconds": 0.1}]

_FORMATS: Final[dict[Encoding, dict[str, Any]]] = {
    "pcmu": {"type": "audio/pcmu"},
    "pcm24": {"type": "audio/pcm", "rate": 24000},
}
_DETAILS: Final = {"text_tokens": 25, "audio_tokens": 25}
_USAGE: Final = {
    "total_tokens": 100,
    "input_tokens": 50,
    "output_tokens": 50,
    "input_token_details": {**_DETAILS, "cached_tokens": 0},
    "output_token_details": _DETAILS,
}


def session(index: int, encodings: Sequence[Encoding]) -> dict[str, Any]:
    """The whole session; `encodings` are input's and output's."""
    source, sink = encodings
    vad = {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "create_response": True,
        "interrupt_response": True,
    }
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": f"sess_{index}",
        "model": "bench",
        "output_modalities": ["audio"],
        "audio": {
            "input": {"format": _FORMATS[source], "turn_detection": vad},
            "output": {"format": _FORMATS[sink], "voice": "marin"},
        },
    }


def heard(item_id: str) -> dict[str, Any]:
    """A caller's turn."""
    content = [{"type": "input_audio", "transcript": None}]
    return _message(item_id, "completed", "user", content)


def answer(item_id: str, status: str) -> dict[str, Any]:
    """An assistant's message; empty while it is `in_progress`."""
    content = [{"type": "output_audio", "transcript": TEXT}]
    return _message(item_id, status, "assistant", [] if status == "in_progress" else content)


def response(response_id: str, status: str, item: dict[str, Any] | None = None) -> dict[str, Any]:
    """A response; one that is over has its item and its usage."""
    return {
        "object": "realtime.response",
        "id": response_id,
        "status": status,
        "status_details": None,
        "conversation_id": f"conv_{response_id}",
        "output_modalities": ["audio"],
        "output": [] if item is None else [item],
        "usage": None if item is None else _USAGE,
    }


def _message(item_id: str, status: str, role: str, content: list[Any]) -> dict[str, Any]:
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": status,
        "role": role,
        "content": content,
    }
