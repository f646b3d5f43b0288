"""session.update: which of the new values take effect. Only fields that are present change."""

from __future__ import annotations

import copy
from typing import Any

from voiced.emulator.errors import Refused, invalid_value
from voiced.emulator.shapes import default_turn_detection

__all__ = ["merged"]


def merged(current: dict[str, Any], given: dict[str, Any], *, voice_fixed: bool) -> dict[str, Any]:
    """Return the session object after the update `given`, which has passed the schema.

    Raises Refused for what the schema allows but a running session does not.
    """
    if given["type"] != "realtime":
        raise invalid_value(
            "Passing a transcription session update event to a realtime session is not allowed.",
            "session.type",
        )
    model = given.get("model", current["model"])
    if model != current["model"]:
        raise invalid_value(
            f"The model of a session cannot be changed: it is '{current['model']}'.",
            "session.model",
        )
    if given.get("output_modalities") == []:
        raise invalid_value("At least one output modality is needed.", "session.output_modalities")
    session = copy.deepcopy(current)
    session.update({key: value for key, value in given.items() if key != "audio"})
    audio = given.get("audio", {})
    session["audio"]["input"].update(_input(session["audio"]["input"], audio.get("input", {})))
    session["audio"]["output"].update(audio.get("output", {}))
    for side in ("input", "output"):
        shape = session["audio"][side]["format"]
        if shape["type"] == "audio/pcm":
            shape.setdefault("rate", 24000)
    if voice_fixed and session["audio"]["output"]["voice"] != current["audio"]["output"]["voice"]:
        raise Refused(
            "cannot_update_voice",
            "Cannot update a conversation's voice if assistant audio is present.",
            "session.audio.output.voice",
        )
    return session


def _input(current: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    changed = dict(given)
    detection = given.get("turn_detection")
    if detection is not None:
        old = current["turn_detection"]
        same = old is not None and old["type"] == detection["type"]
        changed["turn_detection"] = {
            **(old if same else default_turn_detection(detection["type"])),
            **detection,
        }
    transcription = given.get("transcription")
    if transcription is not None:
        changed["transcription"] = {**(current["transcription"] or {}), **transcription}
    return changed
