"""Scripts against the state machine: the server says X; what is sent and told because of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from voiced.config.types import Agent, RealtimeEngine
from voiced.engine import EngineEvent, Plan, Ready
from voiced.formats import PCMU_8K, AudioFormat
from voiced.realtime.dialect import Reader
from voiced.realtime.servers import SERVERS
from voiced.realtime.session import RealtimeMachine

JSON = dict[str, Any]

ACTIVE = (
    "Conversation already has an active response in progress: {}. "
    "Wait until the response is finished before creating a new one."
)


def plan(agent: Agent | None = None, leg_format: AudioFormat = PCMU_8K) -> Plan:
    """Return a plan for a call."""
    return Plan("call-1", agent or Agent(), "Answer the phone.", leg_format)


def b64(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


class Script:
    """A machine and its server: `says` feeds JSON, `sent` and `heard` take what came of it."""

    def __init__(
        self,
        config: RealtimeEngine | None = None,
        agent: Agent | None = None,
        leg_format: AudioFormat = PCMU_8K,
    ) -> None:
        self.config = config or RealtimeEngine()
        self.machine = RealtimeMachine(plan(agent, leg_format), self.config)
        server = SERVERS[self.config.server]
        self.reader = Reader(server.dialect(self.config.dialect))

    def says(self, kind: str, **fields: Any) -> Script:
        event = self.reader.read(json.dumps({"type": kind, "event_id": "e", **fields}).encode())
        if event is not None:
            self.machine.receive(event)
        return self

    def sent(self) -> list[JSON]:
        return [json.loads(message) for message in self.machine.take_messages()]

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.sent()]

    def heard(self) -> Sequence[EngineEvent]:
        return self.machine.take_events()

    def forget(self) -> Script:
        """Drop what has come so far."""
        self.sent()
        self.heard()
        return self

    # --- phrases

    def ready(self) -> Script:
        """Configure the session as it asked for."""
        self.says("session.created", session={"id": "sess_1"})
        (update,) = self.sent()
        assert update["type"] == "session.update"
        self.says("session.updated", session=update["session"])
        assert any(isinstance(event, Ready) for event in self.heard())
        return self

    def created(self, response_id: str = "resp_1", **fields: Any) -> Script:
        response = {"id": response_id, "status": "in_progress", "conversation_id": "conv_1"}
        return self.says("response.created", response={**response, **fields})

    def delta(
        self, payload: bytes = b"\xff" * 160, response: str = "resp_1", item: str = "item_1"
    ) -> Script:
        return self.says(
            "response.output_audio.delta",
            response_id=response,
            item_id=item,
            output_index=0,
            content_index=0,
            delta=b64(payload),
        )

    def audio_done(self, response: str = "resp_1", item: str = "item_1") -> Script:
        return self.says("response.output_audio.done", response_id=response, item_id=item)

    def done(self, response_id: str = "resp_1", status: str = "completed", **fields: Any) -> Script:
        response = {"id": response_id, "status": status, "conversation_id": "conv_1"}
        return self.says("response.done", response={**response, **fields})

    def failed(self, code: str | None, kind: str = "x", response_id: str = "resp_1") -> Script:
        error = {"type": kind, "code": code, "message": f"{code}!"}
        return self.done(response_id, "failed", status_details={"type": "failed", "error": error})

    def error(
        self,
        code: str | None,
        message: str = "",
        event_id: str | None = None,
        kind: str = "invalid_request_error",
        param: str | None = None,
    ) -> Script:
        body = {"type": kind, "code": code, "message": message, "param": param}
        return self.says("error", error={**body, "event_id": event_id})
