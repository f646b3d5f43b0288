"""A client of a `Dialogue` without sockets: sends events, reads answers, checks every one."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.emulator import sdk
from voiced.emulator.dialogue import Dialogue
from voiced.emulator.options import Faults
from voiced.emulator.response import Response

PCMU = {"format": {"type": "audio/pcmu"}}


class Peer:
    def __init__(self, faults: Faults | None = None) -> None:
        faults = faults or Faults()
        ga = faults.dialect == "ga"
        self._check = sdk.check if ga else sdk.check_beta
        self.dialogue = Dialogue(
            model="gpt-realtime-2.1" if ga else "gpt-4o-realtime-preview",
            session_id="sess_1",
            expires_at=1_900_000_000,
            faults=faults,
        )

    def read(self) -> list[dict[str, Any]]:
        events = [json.loads(message) for message in self.dialogue.outbox]
        self.dialogue.outbox.clear()
        for event in events:
            self._check(event)
        return events

    def send(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        self.dialogue.receive(json.dumps({"type": kind, **fields}))
        return self.read()

    def update(self, **session: Any) -> list[dict[str, Any]]:
        return self.send("session.update", session={"type": "realtime", **session})

    def pcmu(self, turn_detection: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        detection = {"turn_detection": turn_detection}
        return self.update(audio={"input": {**PCMU, **detection}, "output": PCMU})

    def append(self, data: bytes) -> list[dict[str, Any]]:
        return self.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())

    def respond(self, **response: Any) -> Response:
        self.send("response.create", response=response)
        (due,) = self.dialogue.responses.due()
        return due

    def spoken(self, ms: int = 1000, words: str = "Good morning") -> str:
        """Have a whole answer given; returns its item's id."""
        response = self.respond()
        response.begin()
        response.open_message()
        response.speak(b"\x7f" * (ms * response.format.bytes_per_ms), words)
        assert response.item is not None
        item_id = response.item.id
        response.finish("completed")
        self.dialogue.responses.released(response)
        self.read()
        return item_id


def error(events: list[dict[str, Any]]) -> tuple[str | None, str, str | None]:
    """The code, message and param of the one event that there is, an error."""
    (event,) = events
    assert event["type"] == "error", event
    body = event["error"]
    return body["code"], body["message"], body["param"]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]
