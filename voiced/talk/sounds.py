"""The audio of one call's clips: the agent's own messages, the bundled ones, what plugins name."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from voiced.config.types import Agent
from voiced.formats import AudioFormat
from voiced.plugin import Clip
from voiced.prompts import Prompts

__all__ = ["Sounds"]


class Sounds:
    """Reads clips in the leg's format and the agent's language."""

    def __init__(
        self,
        prompts: Prompts,
        agent: Agent,
        form: AudioFormat,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._prompts = prompts
        self._agent = agent
        self._form = form
        self._log = log
        self._messages: Mapping[str, bytes] = {}

    async def load(self) -> None:
        """Read the agent's messages. A file that cannot be read is left out, and logged."""
        messages = await self._prompts.messages(self._agent, self._form)
        self._messages = {
            name: sound for name, sound in messages.items() if isinstance(sound, bytes)
        }
        for name in messages.keys() - self._messages.keys():
            self._log.error("message file left out", message=name, error=str(messages[name]))

    async def read(self, clip: Clip) -> bytes:
        """The audio of whatever a plugin wants played. Raises wav.WavError, or KeyError."""
        if isinstance(clip, str) and (own := self._messages.get(clip)) is not None:
            return own
        return await self._prompts.sound(clip, self._form, self._agent.language)

    def message(self, name: str) -> bytes:
        """A message: the agent's own, or the bundled one. Raises KeyError."""
        sound = self._messages.get(name)
        if sound is None:
            sound = self._prompts.clip(name, self._form, self._agent.language)
        return sound
