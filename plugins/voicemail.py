"""Take a message from a caller, or leave one on an answering machine.

    [plugins.voicemail]
    announcement = "leave-a-message.wav"
    folder = "/var/spool/voicemail"

A message is taken when the model calls the tool `take_message`, when a key of the dtmf plugin or
the prompts plugin runs it, or, with `always`, as soon as the call is answered. Where it is kept and
how long it is stands in the journal: `voicemail_file`, `voicemail_ms`, and `voicemail_ended` where
the disk failed before the caller had ended.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import trio
from msgspec import Meta
from voiced_plugins._answering import Announcement
from voiced_plugins._disk import make_folder
from voiced_plugins._keeping import MIB, SWEEP_S, Days, age_s
from voiced_plugins._message import Message, clean_up
from voiced_plugins._offering import offer

from voiced.plugin import (
    PCM16_8K,
    SILENCE,
    Audio,
    Call,
    Clip,
    Greeting,
    Host,
    Plugin,
    Service,
    Settings,
    SoundFile,
    Summary,
    Tool,
    Unsupported,
    converter,
)

__all__ = ["Leave", "Voicemail", "VoicemailSettings"]

Seconds = Annotated[float, Meta(gt=0, le=600)]

_TOOL: Final = "take_message"


class Leave(Settings, frozen=True):
    """A message for the answering machines that calls of ours reach."""

    message: SoundFile | None = None
    """A WAV file with it."""
    text: str | None = None
    """Or its words, which the agent speaks."""
    when: Literal["machine", "always"] = "machine"
    """`machine`: where the carrier says that one has answered (Twilio, with machine detection); \
`always`: on every call that voiced places."""
    decide_s: Seconds = 10.0
    """How long the carrier may take to say so; after it the conversation just goes on."""
    silence_ms: Annotated[int, Meta(ge=500, le=10_000)] = 2000
    """Silence after the announcement that counts as its end, where no beep is heard."""
    wait_s: Seconds = 60.0
    """The longest announcement; the message is left then in any case."""

    def mistakes(self) -> Iterator[str]:
        """Nothing to say, or too much."""
        if (self.message is None) == (self.text is None):
            yield "there are neither or both of message and text; write one of them"


class VoicemailSettings(Settings, frozen=True):
    """Messages of callers, and for answering machines."""

    always: bool = False
    """Take a message on every call, without the model. Otherwise when the tool is called."""
    announcement: SoundFile | None = None
    """A WAV file that says what to do. Left out: only the beep."""
    beep: bool = True
    """A tone says when to speak."""
    goodbye: SoundFile | None = None
    """A WAV file for the end. Left out: the agent's farewell."""
    folder: Path | None = None
    """Where messages are kept. Left out: `messages` in the plugin's part of `state_dir`."""
    max_s: Seconds = 120.0
    """The longest message."""
    silence_s: Seconds = 4.0
    """Silence that ends it."""
    min_s: Annotated[float, Meta(ge=0, le=60)] = 1.0
    """What has less speech is no message and is not kept."""
    end_keys: Annotated[str, Meta(pattern=r"^[0-9*#A-D]*$")] = "#"
    """Keys that end it."""
    keep_days: Days = "forever"
    """Messages that are older are deleted; 0: none is left behind when its call ends; \
`"forever"`: they stay until somebody has fetched them."""
    max_mb: Annotated[int, Meta(ge=1)] = 500
    """What all messages may take; the oldest go first. An hour takes 58."""
    leave: Leave | None = None
    """`[plugins.voicemail.leave]`: what is left on answering machines. Left out: nothing."""


class VoicemailService(Service):
    """The folder of messages."""

    config: VoicemailSettings
    folder: Path

    def __init__(self, config: VoicemailSettings, host: Host) -> None:
        super().__init__(config, host)
        # Of its own: a disk that hangs must not take the threads that others need.
        self.limiter = trio.CapacityLimiter(4)

    async def open(self) -> None:
        """Make the folder. Raises OSError."""
        self.folder = self.config.folder or self.host.state_dir / "messages"
        await trio.to_thread.run_sync(make_folder, self.folder)

    async def run(self) -> None:
        """Delete what is old, or too much."""
        while True:
            limits = (age_s(self.config.keep_days), self.config.max_mb * MIB)
            gone = await trio.to_thread.run_sync(clean_up, self.folder, *limits)
            if gone:
                self.host.log.info("messages deleted", count=gone)
            await trio.sleep(SWEEP_S)


def beep_tone() -> Audio:
    """What says "speak now": 1,000 Hz for 400 ms at -15 dBFS, faded at both ends."""
    count, fade, level = 3200, 80, 32767 * 10 ** (-15 / 20)
    samples = (
        round(level * min(1.0, n / fade, (count - 1 - n) / fade) * math.sin(math.tau * n / 8))
        for n in range(count)
    )
    return Audio(struct.pack(f"<{count}h", *samples), PCM16_8K)


class Voicemail(Plugin):
    """The messages of one call."""

    Config = VoicemailSettings
    Service = VoicemailService
    config: VoicemailSettings
    service: VoicemailService

    def __init__(self, call: Call, config: VoicemailSettings, service: Any) -> None:
        super().__init__(call, config, service)
        self._message: Message | None = None
        self._announcement: Announcement | None = None
        self._to_pcm = converter(call.format, PCM16_8K)
        self._heard = trio.Event()
        self._told = trio.Event()  # who has answered
        self._busy = False

    async def on_call_start(self) -> None:
        """Offer the tool."""
        if self.config.always:
            return
        tool = Tool(
            _TOOL,
            "Let the caller leave a message, recorded after a beep. Say so first. The call ends "
            "afterwards.",
            self._tool,
            answer=False,
        )
        offer(self.call, [tool])

    async def greeting(self, planned: Greeting) -> Greeting | None:
        """Nobody greets a caller who is to speak to a machine."""
        if not self.config.always or self.call.direction == "outbound":
            return None
        return Greeting(audio=SILENCE)

    async def on_media(self) -> None:
        """Begin with what the settings say."""
        if self.call.direction == "outbound":
            if self.config.leave is not None:
                self.call.start(self._leave, self.config.leave)
        elif self.config.always:
            self.call.start(self._take)

    # ---- taking one ----

    async def _tool(self, arguments: Mapping[str, Any]) -> str:
        self.call.start(self._take)
        return "The caller leaves a message now; after it the call ends."

    async def _take(self) -> None:
        if self._busy:
            return
        self._busy = True
        # What the agent was saying, such as that a message can be left now, is heard to its end.
        await self._play(Audio(self.call.format.silence(20), self.call.format))
        async with self.call.take_over():
            if self.config.announcement is not None:
                await self._play(self.config.announcement)
            if self.config.beep:
                await self._play(beep_tone())
            self._message = Message(
                self.service.folder,
                self.call.call_id,
                self.config.max_s,
                self.config.silence_s,
                self.service.limiter,
            )
            await self._message.over.wait()
            await self._keep()
            self.call.hang_up(
                farewell=True if self.config.goodbye is None else self.config.goodbye,
                reason="voicemail",
            )
            await trio.sleep_forever()  # the model stays out of it until the call has ended

    async def _play(self, clip: Clip) -> None:
        try:
            await self.call.play(clip).heard()
        except Unsupported as error:
            self.call.log.info("clip not played", why=str(error))

    async def on_caller_audio(self, payload: bytes, at_ms: int) -> None:
        """The message itself, or the announcement of an answering machine."""
        if self._message is None and self._announcement is None:
            return
        pcm = payload if self._to_pcm is None else self._to_pcm.convert(payload)
        if self._message is not None:
            try:
                await self._message.add(pcm)
            except OSError as error:  # the message is over
                self.call.log.error("message not written", error=error.strerror)
        elif self._announcement is not None and (end := self._announcement.feed(pcm)) is not None:
            self.call.log.info("announcement is over", by=end)
            self._announcement = None
            self._heard.set()

    async def on_digit(self, digit: str) -> bool | None:
        """While a message is taken, keys end it or are nothing."""
        if self._message is None:
            return None
        if digit in self.config.end_keys:
            self._message.over.set()
        return True

    async def on_call_end(self, summary: Summary) -> None:
        """Most callers just hang up: what they said until then is their message."""
        await self._keep()

    async def _keep(self) -> None:
        """Write the rest, and say where it is.

        The end of the call may cut that off; `on_call_end` then finds the message where it was.
        """
        message = self._message
        if message is None:
            return
        kept = await message.finish(self.config.min_s)
        path: str | None = str(message.path)
        if kept and self.config.keep_days == 0:
            try:
                await message.discard()
                path = None
            except OSError as error:
                self.call.log.error("message not removed", file=path, error=error.strerror)
        self._message = None
        self.call.set_fact("voicemail_ms", message.duration_ms if kept else 0)
        if message.failed:
            self.call.set_fact("voicemail_ended", "disk_error")
            self.call.log.error("message not written to its end", ms=message.duration_ms)
        if not kept:
            return
        if path is not None:
            self.call.set_fact("voicemail_file", path)
        self.call.log.info("message taken", file=path, ms=message.duration_ms)

    # ---- leaving one ----

    async def on_parameters(self, changed: Mapping[str, str]) -> None:
        """The carrier says who has answered, perhaps some seconds into the call."""
        if "AnsweredBy" in changed:
            self._told.set()

    async def _leave(self, leave: Leave) -> None:
        if leave.when == "machine" and not await self._machine_answered(leave):
            return
        async with self.call.take_over():
            said = self.call.parameters.get("AnsweredBy", "")
            if not said.startswith("machine_end"):  # the carrier has waited for the end itself
                self._announcement = Announcement(8000, leave.silence_ms)
                with trio.move_on_after(leave.wait_s):
                    await self._heard.wait()
                self._announcement = None
            if leave.message is not None:
                await self._play(leave.message)
        if leave.text is not None:
            self.call.say(leave.text)
        self.call.set_fact("voicemail_left", True)
        self.call.hang_up(farewell=False, reason="voicemail_left")

    async def _machine_answered(self, leave: Leave) -> bool:
        if "AnsweredBy" not in self.call.parameters:
            with trio.move_on_after(leave.decide_s):
                await self._told.wait()
        return self.call.parameters.get("AnsweredBy", "").startswith("machine")
