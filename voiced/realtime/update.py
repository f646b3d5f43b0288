"""The `session.update` that configures a session, and what can be left out of it.

Source: OpenAI's Realtime API reference, `session.update`. Whatever has a default that texts and
samples disagree about (voice, silence duration) is stated. `model` is never: it cannot change.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any, Final

from voiced.config.types import Agent, OwnVad, SemanticVad
from voiced.engine import Plan, ToolSpec
from voiced.formats import AudioFormat
from voiced.realtime.dialect import flatten, lift_voice, wire_format
from voiced.realtime.events import ErrorBody
from voiced.realtime.servers import Dialect, Server

__all__ = ["asks_for_responses", "server_responds", "session_config", "tools_config", "without"]

# These take a list where older transcription models take one language.
_LANGUAGE_LISTS: Final = ("gpt-transcribe", "gpt-live-transcribe")


def asks_for_responses(agent: Agent) -> bool:
    """Whether voiced, not the server, asks for the answer to a committed turn.

    With voiced's own endpointing there is nobody else. With barge-in off the server must not
    interrupt, and a turn that it commits during an answer would get no response from it, so the
    session asks once the answer is done. With `confirm` the call asks, not the session.
    """
    if agent.barge_in == "confirm":
        return False
    return isinstance(agent.turn_detection, OwnVad) or agent.barge_in == "off"


def server_responds(agent: Agent) -> bool:
    """Whether the server answers a turn that it has found, and is interrupted by the next."""
    return agent.barge_in == "immediate" and not isinstance(agent.turn_detection, OwnVad)


def _turn_detection(agent: Agent) -> dict[str, Any] | None:
    settings = agent.turn_detection
    if isinstance(settings, OwnVad):
        return None
    automatic = server_responds(agent)
    responses = {"create_response": automatic, "interrupt_response": automatic}
    if isinstance(settings, SemanticVad):
        return {"type": "semantic_vad", "eagerness": settings.eagerness, **responses}
    return {
        "type": "server_vad",
        "threshold": settings.threshold,
        "prefix_padding_ms": settings.prefix_padding_ms,
        "silence_duration_ms": settings.silence_ms,
        **responses,
    }


def _transcription(agent: Agent) -> dict[str, Any] | None:
    if agent.transcription_model is None:
        return None
    wanted: dict[str, Any] = {"model": agent.transcription_model}
    if agent.language != "auto":
        language = agent.language.partition("-")[0].lower()  # ISO 639-1: "en" of "en-GB"
        if agent.transcription_model.startswith(_LANGUAGE_LISTS):
            wanted["languages"] = [language]
        else:
            wanted["language"] = language
    return wanted


def tools_config(tools: Sequence[ToolSpec]) -> dict[str, Any]:
    """Return the fields of a session, the same in both dialects, that name its functions."""
    listed = [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        }
        for tool in tools
    ]
    return {"tools": listed, "tool_choice": "auto"}


def session_config(
    plan: Plan, server: Server, dialect: Dialect, source: AudioFormat, sink: AudioFormat
) -> dict[str, Any]:
    """Return the session for `plan`, caller's audio as `source`, answers as `sink`."""
    agent = plan.agent
    noise = None if agent.noise_reduction == "off" else {"type": agent.noise_reduction}
    voice: Any = {"id": agent.voice} if agent.voice.startswith("voice_") else agent.voice
    session: dict[str, Any] = {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": plan.instructions,
        "audio": {
            "input": {
                "format": wire_format(source),
                "noise_reduction": noise,
                "transcription": _transcription(agent),
                "turn_detection": _turn_detection(agent),
            },
            "output": {"format": wire_format(sink), "voice": voice},
        },
    }
    if plan.tools:
        session |= tools_config(plan.tools)
    if dialect == "beta":
        return flatten(session, server.pcm_name)
    return lift_voice(session) if server.voice_location == "top" else session


_OPTIONAL: Final = frozenset(
    {
        "eagerness",
        "format",
        "input_audio_format",
        "input_audio_noise_reduction",
        "input_audio_transcription",
        "language",
        "languages",
        "modalities",
        "noise_reduction",
        "output_audio_format",
        "output_modalities",
        "prefix_padding_ms",
        "silence_duration_ms",
        "threshold",
        "tool_choice",
        "tools",
        "transcription",
        "voice",
    }
)
# True is the server's default for both; false is a promise that we build on.
_OPTIONAL_IF_TRUE: Final = frozenset({"create_response", "interrupt_response"})
_PATH: Final = re.compile(r"session\.[\w.\[\]]+")


def without(session: dict[str, Any], error: ErrorBody) -> tuple[str, dict[str, Any]] | None:
    """Return what `error` complains about and a copy of `session` that lacks it.

    The field is named by `param`, else in the message. None where no field that the call can do
    without is named. A complaint about a part (`…transcription.model`) takes the optional whole.
    """
    named = error.param or ""
    if not named:
        found = _PATH.search(error.message or "")
        named = found[0] if found else ""
    keys = [key for key in re.split(r"[.\[\]]+", named.removeprefix("session.")) if key]
    holder: Any = copy.deepcopy(session)
    reduced = holder
    deepest: tuple[str, dict[str, Any], str] | None = None
    for depth, key in enumerate(keys):
        if not isinstance(holder, dict) or key not in holder:
            break
        if key in _OPTIONAL or (key in _OPTIONAL_IF_TRUE and holder[key] is True):
            deepest = ".".join(keys[: depth + 1]), holder, key
        holder = holder[key]
    if deepest is None:
        return None
    path, parent, key = deepest
    del parent[key]
    return path, reduced
