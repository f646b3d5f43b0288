"""Every server event that the emulator can send parses, strictly, into the official SDK's types.

Which events it can send is read off its sources: one that is added there, and that the sessions
below do not bring about, makes a test fail.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.emulator import sdk
from tests.emulator.peer import PCMU, Peer
from tests.emulator.test_dialogue import VAD, speech
from voiced import emulator
from voiced.emulator import beta
from voiced.emulator.options import Faults
from voiced.emulator.response import Status

pytestmark = pytest.mark.interop

# Names of the beta interface are in `beta` alone, and read with its types in tests/emulator.
SOURCES = sorted(set(Path(emulator.__file__).parent.glob("*.py")) - {Path(beta.__file__)})
ON_DEMAND = {"response.mood.updated"}  # the fault `unknown_events`: no SDK knows it
TOOL = {"type": "function", "name": "look_up", "description": "Looks up.", "parameters": {}}
ITEMS: tuple[dict[str, Any], ...] = (
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
    {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "////"}]},
    {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Key 3."}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
    {"type": "function_call", "name": "look_up", "call_id": "call_1", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "{}"},
)


def emitted() -> Iterator[str]:
    """Patterns of what is given to any `emit`, and every name of an SDK's event in the sources."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and node.value in sdk.TYPES:
                yield re.escape(str(node.value))
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("emit") and node.args:
                match node.args[0]:
                    case ast.Constant(str(kind)):
                        yield re.escape(kind)
                    case ast.JoinedStr(parts):
                        yield "".join(
                            re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+"
                            for part in parts
                        )


class Strict(Peer):
    """Reads every event twice: as `Peer` does, and with pydantic's strict rules."""

    def __init__(self, seen: set[str], faults: Faults | None = None) -> None:
        super().__init__(faults)
        self.seen = seen

    def read(self) -> list[dict[str, Any]]:
        for message in self.dialogue.outbox:
            kind = json.loads(message)["type"]
            self.seen.add(kind)
            sdk.TYPES[kind].model_validate_json(message, strict=True)
        return super().read()


def turns(seen: set[str], session: dict[str, Any]) -> None:
    """Turn detection, its idle timeout, and what is said of the caller's words."""
    peer = Strict(seen)
    peer.dialogue.greet()
    peer.update(**session)
    for transcript in ("What are your opening hours?", "", None):
        peer.append(speech())
        (item,) = peer.dialogue.heard()
        peer.dialogue.transcribed(item, transcript)
        (due,) = peer.dialogue.responses.due()
        due.begin()
        due.open_message()
        due.speak(bytes(8000), "At nine")
        due.finish("completed")
        peer.dialogue.responses.released(due)
        peer.read()
    peer.send("conversation.item.retrieve", item_id=item.id)
    peer.dialogue.caller_silent()
    peer.read()


def answers(seen: set[str], faults: Faults) -> None:
    """Answers that end in every way, spoken, written, and as calls; and their faults."""
    for modality in ("audio", "text"):
        endings: tuple[tuple[Status, str | None], ...] = (
            ("completed", None),
            ("incomplete", "max_output_tokens"),
            ("cancelled", "client_cancelled"),
            ("failed", "rate_limit_exceeded"),
            ("failed", "server_error"),
        )
        for status, reason in endings:
            peer = Strict(seen, faults)
            peer.update(audio={"input": PCMU, "output": PCMU}, tools=[TOOL])
            response = peer.respond(output_modalities=[modality], metadata={"purpose": "test"})
            response.begin()
            response.open_message()
            if modality == "audio":
                response.speak(bytes(8000), "Good morning")
            else:
                response.write("Good morning")
            response.call("look_up", '{"what": 1}')
            response.finish(status, reason)
            peer.dialogue.responses.released(response)
            peer.read()


def history(seen: set[str]) -> None:
    """Items come, go, are shown and cut; the buffer is emptied; refusals."""
    peer = Strict(seen)
    for item in ITEMS:
        peer.send("conversation.item.create", item=item)
    item_id = peer.spoken()
    peer.send("conversation.item.retrieve", item_id=item_id)
    peer.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=300)
    peer.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=900)
    peer.send("conversation.item.delete", item_id=item_id)
    peer.send("conversation.item.delete", item_id=item_id)
    peer.send("input_audio_buffer.clear")
    peer.send("input_audio_buffer.commit")
    peer.send("response.cancel", event_id="too-late")
    peer.send("no.such.event")
    peer.dialogue.receive("no JSON")
    peer.read()


SESSION = {
    "audio": {
        "input": {
            **PCMU,
            "turn_detection": {**VAD, "idle_timeout_ms": 5000},
            "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en"},
        },
        "output": PCMU,
    }
}


def test_every_event_parses_and_none_was_forgotten() -> None:
    seen: set[str] = set()
    turns(seen, SESSION)
    history(seen)
    for faults in (Faults(), Faults(late_deltas=2, duplicate_deltas=True, usage_null=True)):
        answers(seen, faults)
    patterns = set(emitted())
    assert len(patterns) > 25  # else they are not found any more
    missing = [
        pattern
        for pattern in patterns
        if not any(re.fullmatch(pattern, kind) for kind in seen | ON_DEMAND)
    ]
    assert missing == []
