"""The model's audio on its way into the playout: in the leg's format, item by item."""

from __future__ import annotations

from voiced import audio
from voiced.config.types import Agent
from voiced.engine import AgentAudio, Session
from voiced.formats import AudioFormat
from voiced.talk.voice import Voice

__all__ = ["Intake"]


class Intake:
    """One call's. Nothing is converted before `begin` has told it what the session sends."""

    def __init__(
        self, session: Session, voice: Voice, leg_format: AudioFormat, agent: Agent
    ) -> None:
        self._session = session
        self._voice = voice
        self._playout = voice.playout
        self._leg_format = leg_format
        self._agent = agent
        self._to_leg: audio.Converter | None = None
        self._converting: tuple[str, int] | None = None  # the part that the converter carries

    def begin(self) -> None:
        """The session's format is known, or another's is; what was made before is played out."""
        self._flush()
        source = self._session.output_format
        self._to_leg = audio.converter(source, self._leg_format, self._agent.resampler)
        self._converting = None

    def add(self, event: AgentAudio) -> bool:
        """More of an answer; False if it came too late."""
        payload = event.payload
        if self._to_leg is not None:
            part = event.item_id, event.content_index
            if self._converting != part:
                self._to_leg.reset()
                self._converting = part
            payload = self._to_leg.convert(payload)
        if not self._playout.add(event.item_id, payload, content_index=event.content_index):
            return False
        self._voice.wake()
        return True

    def finish(self, item_id: str) -> None:
        """No more audio of this item will come."""
        self._flush(item_id)
        self._playout.finish(item_id)
        self._voice.wake()

    def end(self) -> None:
        """No more audio of the answer will come, whether or not each item was said to be done."""
        self._flush()
        self._playout.finish_all()
        self._voice.wake()

    def cut(self) -> None:
        """The playout was cut: the converter's tail is not wanted."""
        self._converting = None

    def _flush(self, item_id: str | None = None) -> None:
        """Play the resampler's tail: of this item, or of whichever it carries."""
        if self._to_leg is None or self._converting is None:
            return
        carried, index = self._converting
        if item_id in (None, carried):
            self._playout.add(carried, self._to_leg.flush(), content_index=index)
            self._converting = None
