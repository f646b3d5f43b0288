"""The responses of one session: which may begin, which are under way, how they are cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

from voiced.emulator.answers import language_of
from voiced.emulator.errors import Refused
from voiced.emulator.items import Conversation, Item, Tokens
from voiced.emulator.options import Faults
from voiced.emulator.response import Emit, Response, Settings

__all__ = ["Responses", "settings_of"]

SIDE_RESPONSES: Final = 8  # responses outside the conversation at one time; each is a task


@final
class Responses:
    """One in the conversation at a time, and some beside it. `due` has to be taken and fed."""

    def __init__(
        self,
        faults: Faults,
        conversation: Conversation,
        emit: Emit,
        new_id: Callable[[str], str],
    ) -> None:
        self.active: Response | None = None
        """The one in the conversation."""
        self.voice_fixed = False
        """Audio has been sent: the voice stays."""
        self._faults = faults
        self._conversation = conversation
        self._emit = emit
        self._new_id = new_id
        self._side: list[Response] = []
        self._due: list[Response] = []
        self._count = 0
        self._cached = Tokens()
        self._cached_for: object = None  # the instructions and tools that the cache is good for

    def due(self) -> list[Response]:
        """Return the responses that have been asked for since the last call."""
        due, self._due = self._due, []
        return due

    def check(self, *, detached: bool) -> None:
        """Raises Refused where another response stands in the way."""
        if not detached and self.active is not None:
            raise Refused(
                "conversation_already_has_active_response",
                "Conversation already has an active response in progress: "
                f"{self.active.id}. Wait until the response is finished before creating a new one.",
            )
        if detached and len(self._side) >= SIDE_RESPONSES:
            raise Refused("rate_limit_exceeded", "Too many responses at a time.", kind="requests")

    def begin(self, settings: Settings) -> None:
        """Begin one that `check` has let pass; a server that is silent does nothing."""
        if self._faults.silent:
            return
        key = (settings.instructions or settings.session_instructions, str(settings.tools))
        if key != self._cached_for or self._conversation.changed:
            self._cached = Tokens()
        self._cached_for, self._conversation.changed = key, False
        self._count += 1
        response = Response(
            id=self._new_id("resp"),
            number=self._count,
            settings=settings,
            conversation=self._conversation,
            faults=self._faults,
            emit=self._emit,
            new_id=self._new_id,
            cached=Tokens() if settings.detached else self._cached,
        )
        if settings.detached:
            self._side.append(response)
        else:
            self.active = response
        self._due.append(response)

    def instructed_anew(self) -> None:
        """The session's instructions are others: nothing of the input is cached."""
        self._cached = Tokens()

    def released(self, response: Response) -> None:
        """Tell that a response has ended, by itself or not: the next may begin."""
        if response is self.active:
            self.active = None
        elif response in self._side:
            self._side.remove(response)
        self.voice_fixed = self.voice_fixed or response.audio_ms_sent > 0
        if not response.settings.detached and response.begun:
            self._cached = response.input_tokens()

    def interrupt(self) -> None:
        """The caller speaks: the one in the conversation is cancelled."""
        if self.active is not None:
            self._cancel(self.active, "turn_detected")

    def cancel(self, response_id: str | None) -> None:
        """Cancel the one of this id, or the one in the conversation. Raises Refused."""
        running = [r for r in (self.active, *self._side) if r is not None and r.begun]
        if response_id is None:
            running = [r for r in running if r is self.active]
        else:
            running = [r for r in running if r.id == response_id]
        if not running:
            raise Refused(
                "response_cancel_not_active", "Cancellation failed: no active response found"
            )
        self._cancel(running[0], "client_cancelled")

    def _cancel(self, response: Response, reason: str) -> None:
        response.finish("cancelled", reason)
        self.released(response)


def settings_of(
    given: dict[str, Any], session: dict[str, Any], context: list[Item] | None
) -> Settings:
    """What `session` and a checked `response.create` say together; `context` is its own input."""
    own, output = given.get("audio", {}).get("output", {}), session["audio"]["output"]
    transcription = session["audio"]["input"]["transcription"] or {}
    modalities = given.get("output_modalities") or session["output_modalities"]
    return Settings(
        modality=modalities[0],
        instructions=given.get("instructions"),
        session_instructions=session["instructions"],
        format=own.get("format", output["format"]),
        voice=own.get("voice", output["voice"]),
        max_output_tokens=given.get("max_output_tokens", session["max_output_tokens"]),
        metadata=given.get("metadata"),
        tools=given.get("tools", session["tools"]),
        tool_choice=given.get("tool_choice", session["tool_choice"]),
        language=_language(transcription, session["instructions"]),
        detached=given.get("conversation") == "none",
        context=context,
    )


def _language(transcription: dict[str, Any], instructions: str) -> str:
    """What the session says, else what its instructions are written in."""
    named = transcription.get("languages") or [transcription.get("language")]
    return named[0] or language_of(instructions, "en")
