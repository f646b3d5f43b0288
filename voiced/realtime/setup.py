"""A session before it is ready: what is asked of the server, what it grants, and what waits.

Sans-I/O. The caller's first words are kept, so that they are not lost to a slow handshake.
"""

from __future__ import annotations

from typing import Any, Final, final

from voiced.audio import converter
from voiced.config.types import RealtimeEngine
from voiced.engine import Plan
from voiced.formats import PCM16_24K
from voiced.realtime.dialect import echoed_format
from voiced.realtime.events import ErrorBody, Message
from voiced.realtime.servers import SERVERS, choose_format
from voiced.realtime.update import session_config, without

__all__ = ["EARLY_AUDIO_MS", "MAX_EARLY_MESSAGES", "Setup"]

EARLY_AUDIO_MS: Final = 2000
# Texts given before the session is ready: a long call's history, replayed. 512 turns are more
# than an hour of talk.
MAX_EARLY_MESSAGES: Final = 512


@final
class Setup:
    """The asked formats, the `session` to send, and the early audio and texts."""

    def __init__(self, plan: Plan, config: RealtimeEngine) -> None:
        server, leg = SERVERS[config.server], plan.leg_format
        self.input = choose_format(config.input_format, leg, server.input_formats)
        self.output = choose_format(config.output_format, leg, server.output_formats)
        dialect = server.dialect(config.dialect)
        self.session = session_config(plan, server, dialect, self.input, self.output)
        self._expected_input, self._expected_output = self.input, self.output
        self._quality = plan.agent.resampler
        self._audio = bytearray()
        self._messages: list[Message] = []

    def keep_audio(self, payload: bytes) -> None:
        """Keep the newest `EARLY_AUDIO_MS` of the caller's audio, in the asked format."""
        self._audio += payload
        excess = len(self._audio) - EARLY_AUDIO_MS * self.input.bytes_per_ms
        if excess > 0:
            del self._audio[: excess + excess % self.input.sample_bytes]

    def keep_message(self, message: Message) -> None:
        """Keep a text, the newest `MAX_EARLY_MESSAGES` of them."""
        self._messages.append(message)
        del self._messages[:-MAX_EARLY_MESSAGES]

    def set_tools(self, tools: dict[str, Any]) -> None:
        """Ask for these fields (of `update.tools_config`) instead of what the plan said."""
        self.session = self.session | tools

    def refused(self, error: ErrorBody) -> str | None:
        """Leave out what the server objects to; returns its name, None if that cannot be done.

        Each time there is less to object to, so this ends.
        """
        reduced = without(self.session, error)
        if reduced is None:
            return None
        field, self.session = reduced
        if field.endswith("format"):  # now it is the server's default, unless it echoes another
            if "output" in field:
                self._expected_output = PCM16_24K
            else:
                self._expected_input = PCM16_24K
        return field

    def granted(self, session: dict[str, Any]) -> tuple[bytes, list[Message]]:
        """Adopt the formats of `session.updated`; returns the early audio and texts.

        The audio is converted where another format was granted than asked for. Raises
        UnspeakableFormat.
        """
        granted = echoed_format(session, "input", self._expected_input)
        self.output = echoed_format(session, "output", self._expected_output)
        audio = bytes(self._audio)
        convert = converter(self.input, granted, self._quality)
        if audio and convert is not None:
            audio = convert.convert(audio) + convert.flush()
        self.input = granted
        messages = self._messages
        self.discard()
        return audio, messages

    def discard(self) -> None:
        """Forget the early audio and texts."""
        self._audio = bytearray()
        self._messages = []
