"""Records calls: stereo WAV, the caller left and the agent right, as the caller heard it.

    [plugins.recorder]
    folder = "/srv/recordings"
    keep_days = 90

A file grows while its call lasts and can be played at any moment, after a crash too, which costs
its last 5 s. Until its end it is called `….part.wav`. At the end the journal has, as facts of the
call, `recording` (the path), `recording_bytes` and `recording_ms`; `recording_paused_ms` and
`recording_ended` where there is something to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import trio
from msgspec import Meta
from voiced_plugins import _shelf
from voiced_plugins._keeping import MIB, Keeper, KeptSettings
from voiced_plugins._offering import offer
from voiced_plugins._recording import BATCH_S, WINDOW_MS, Limits, Made, Recording
from voiced_plugins._sinks import load_key, new_file
from voiced_plugins._timeline import Timeline
from voiced_plugins._wavfile import MAX_DATA

from voiced.plugin import (
    PCM16_8K,
    AudioFormat,
    Call,
    Checked,
    Encoding,
    Greeting,
    Host,
    Plugin,
    PluginError,
    SoundFile,
    Summary,
    Tool,
)

__all__ = ["Recorder", "RecorderSettings", "Recordings"]

DIGITS_S: Final = 5.0
"""Keys of one sequence follow each other within this."""

_PAUSE: Final = "Pause the recording of this call, before the caller says something secret such as \
a card number."
_RESUME: Final = "Go on with the recording of this call."
_START: Final = (
    "Start to record this call. Only after the caller has clearly agreed to be recorded."
)

Keys = Annotated[str, Meta(pattern=r"^[0-9*#A-D]{1,8}$")]


class RecorderSettings(KeptSettings, frozen=True):
    """What is in recordings, where they go, and how long they stay."""

    channels: Literal["stereo", "mono"] = "stereo"
    """`stereo`: the caller left, the agent right; `mono`: both in one."""
    encoding: Literal["pcm16", "pcmu"] = "pcm16"
    """`pcmu` (G.711, 8000 Hz) takes half the room; some programs cannot read it."""
    rate: Literal[8000, 16000, 24000] | None = None
    """Samples a second. Left out: those of the call, so that nothing is converted."""
    announcement: SoundFile | None = None
    """A WAV file that is heard before the greeting."""
    start: Literal["at_once", "consent"] = "at_once"
    """`consent`: nothing is kept until the caller presses `consent_digit`, or the model, told \
that the caller agrees, starts it with a tool."""
    consent_digit: Annotated[str, Meta(pattern=r"^[0-9*#A-D]$")] = "1"
    """The key that starts a recording."""
    pause_digits: Keys | None = None
    """Keys that pause the recording, e.g. before a card number is said. Only the last of them is \
kept from others. Left out: no keys."""
    resume_digits: Keys | None = None
    """Keys that go on with it. Left out: `pause_digits` again."""
    pause: Literal["silence", "gap"] = "silence"
    """What a pause is in the file: `silence` keeps the times right, `gap` leaves it out."""
    tools: bool = False
    """Let the model pause and resume the recording (and start it, with `consent`)."""
    max_duration_s: Annotated[float, Meta(gt=0)] = 14400.0
    """The longest recording; the call goes on without it."""
    max_mb: Annotated[int, Meta(ge=1, le=4000)] = 2000
    """The largest, in MiB."""
    min_free_mb: Annotated[int, Meta(ge=0)] = 512
    """What has to stay free on the disk, in MiB: with less nothing is recorded."""
    encrypt_to: Annotated[Path, Checked(load_key)] | None = None
    """A PEM file with an X25519 public key; only the holder of its private key can play the \
recordings then (`voiced recording decrypt`). Needs the package `cryptography`."""

    def mistakes(self) -> Iterator[str]:
        """Settings that do not go together."""
        yield from super().mistakes()
        if self.encoding == "pcmu" and self.rate not in (None, 8000):
            yield "rate: pcmu has 8000 Hz; leave it out, or use pcm16"
        if self.resume_digits and not self.pause_digits:
            yield "resume_digits: pause_digits is missing; add it, or remove this one"


class Recordings(Keeper):
    """The folder of recordings."""

    config: RecorderSettings
    kept = "recordings"

    def __init__(self, config: RecorderSettings, host: Host) -> None:
        super().__init__(config, host)
        self._key: Any = None
        self._found: list[_shelf.Found] = []

    async def open(self) -> None:
        """Make the folder ready; make recordings of what a crash left."""
        config = self.config
        if config.encrypt_to is not None:
            try:
                self._key = load_key(config.encrypt_to)
            except PluginError as error:
                raise PluginError(f"encrypt_to: {config.encrypt_to} {error}") from None
        await super().open()
        for each in self._found:
            self.host.annotate(each.call_id, "recording", str(each.path))
            self.host.annotate(each.call_id, "recording_bytes", each.size)
            self.host.annotate(each.call_id, "recording_ended", "crash")
            self.host.log.info("recording of a crash found", call=each.call_id, path=str(each.path))

    def prepare(self) -> None:
        """In a worker thread."""
        super().prepare()
        self._found = list(_shelf.mend(self.folder, keep=self.config.keep_days != 0))

    def files(self) -> Iterator[Path]:
        """Recordings that are whole."""
        return _shelf.recordings(self.folder)

    def recording(self, call: Call, start_ms: int) -> Recording:
        """Make a recording of a call; its file is made with the first of its audio."""
        config, source = self.config, call.format
        names = ("agent", "call_id", "called", "caller", "carrier", "direction")
        facts = {name: str(getattr(call, name)) for name in names}
        if config.encoding == "pcmu":
            target = AudioFormat(Encoding.PCMU, PCM16_8K.rate)
        else:
            target = AudioFormat(Encoding.PCM16, config.rate or source.rate)
        channels = 2 if config.channels == "stereo" else 1
        most = min(config.max_mb * MIB, MAX_DATA)
        return Recording(
            Timeline(
                source,
                target,
                channels,
                start_ms=start_ms,
                keep_pauses=config.pause == "silence",
            ),
            target,
            channels,
            Limits(round(config.max_duration_s * 1000), most, config.min_free_mb * MIB),
            self.folder,
            _shelf.fill(config.pattern, facts, call.started_at),
            partial(
                new_file,
                form=target,
                channels=channels,
                call_id=facts["call_id"],
                key=self._key,
            ),
            sealed=self._key is not None,
            limiter=self.limiter,
        )

    async def discard(self, path: Path) -> None:
        """Remove a recording that nobody wants. Raises OSError."""
        await trio.to_thread.run_sync(
            _shelf.remove, path, self.folder, abandon_on_cancel=True, limiter=self.limiter
        )


class Recorder(Plugin):
    """Records one call."""

    Config = RecorderSettings
    Service = Recordings
    config: RecorderSettings
    service: Recordings
    audio_ms = 500  # well within WINDOW_MS

    def __init__(self, call: Any, config: Any, service: Any) -> None:
        super().__init__(call, config, service)
        self._recording: Recording | None = None
        self._paused = False  # asked for, perhaps before there is anything to pause
        self._over = False  # made, or given up: there is one recording a call
        self._pressed = ""
        self._pressed_at = 0

    # ---- the call ----

    async def on_call_start(self) -> None:
        """Give the model its tools."""
        if not self.config.tools:
            return
        tools = [
            Tool("pause_recording", _PAUSE, partial(_use, self._pause)),
            Tool("resume_recording", _RESUME, partial(_use, self._resume)),
        ]
        if self.config.start == "consent":
            tools.append(Tool("start_recording", _START, partial(_use, self._begin)))
        offer(self.call, tools)

    async def greeting(self, planned: Greeting) -> Greeting | None:
        """Have the announcement heard before anything else."""
        if self.config.announcement is None:
            return None
        return Greeting((self.config.announcement, *planned.before), planned.audio)

    async def on_media(self) -> None:
        """Begin, unless the caller is asked first."""
        if self.config.start == "at_once":
            self._begin()

    async def on_call_end(self, summary: Summary) -> None:
        """Write the rest, and say where it is."""
        if self._recording is not None:
            await self._end(summary.media_ms)

    # ---- audio ----

    async def on_caller_audio(self, payload: bytes, at_ms: int) -> None:
        """What the caller said."""
        recording = self._recording
        if recording is not None and recording.ended is None:
            recording.timeline.said(payload, at_ms, self.call.media_ms)
            if recording.behind:
                recording.give_up("disk_slow")

    async def on_agent_audio(self, payload: bytes, at_ms: int) -> None:
        """What the caller heard."""
        recording = self._recording
        if recording is not None and recording.ended is None:
            recording.timeline.agent.add(payload, at_ms)

    # ---- keys ----

    async def on_digit(self, digit: str) -> bool | None:
        """Consent, pause, resume."""
        config, now = self.config, self.call.media_ms
        waiting = config.start == "consent" and self._recording is None and not self._over
        if waiting and digit == config.consent_digit:
            self._begin()
            return True
        if config.pause_digits is None:
            return None
        if now - self._pressed_at > DIGITS_S * 1000:
            self._pressed = ""
        self._pressed, self._pressed_at = (self._pressed + digit)[-8:], now
        resume_digits = config.resume_digits or config.pause_digits
        if self._pressed.endswith(resume_digits if self._paused else config.pause_digits):
            self._pressed = ""
            if self._paused:
                self._resume()
            else:
                self._pause()
            return True
        return None

    # ---- recording ----

    def _begin(self) -> str:
        """Start to record; says what is now the case."""
        if self._recording is None and not self._over:
            call = self.call
            start_ms = call.media_ms if self.config.start == "consent" else 0
            self._recording = self.service.recording(call, start_ms)
            if self._paused:
                self._recording.timeline.pause(start_ms)
            call.start(self._stream)
        return "The call is being recorded."

    def _pause(self) -> str:
        self._paused = True
        if self._recording is not None:
            self._recording.timeline.pause(self.call.media_ms)
        self.call.log.info("recording paused")
        return "The recording is paused."

    def _resume(self) -> str:
        self._paused = False
        if self._recording is not None:
            self._recording.timeline.resume(self.call.media_ms)
        self.call.log.info("recording resumed")
        return "The recording goes on." if self._recording else "Nothing is being recorded."

    async def _stream(self) -> None:
        """Write, every `BATCH_S`, what can no longer change."""
        while (recording := self._recording) is not None:
            await trio.sleep(BATCH_S)
            await recording.write(self.call.media_ms - WINDOW_MS)
            if recording.ended is not None:
                await self._end(self.call.media_ms)

    async def _end(self, media_ms: int) -> None:
        """Close the file and report it.

        The end of the call may cut that off; `on_call_end` then finds the recording where it was.
        """
        recording = self._recording
        if recording is None:
            return
        self._over = True
        made = await recording.finish(media_ms)
        path = made.path
        if path is not None and self.config.keep_days == 0:
            try:
                await self.service.discard(path)
                path = None
            except OSError as error:
                self.call.log.error("recording not removed", path=str(path), error=str(error))
        self._recording = None
        self._report(made, path, recording.error)

    def _report(self, made: Made, path: Path | None, error: OSError | None) -> None:
        call = self.call
        if made.ended is not None:
            why = None if error is None else str(error)
            call.log.warning("recording ended before its call", why=made.ended, error=why)
        call.log.info(
            "call recorded",
            path=None if path is None else str(path),
            bytes=made.size,
            duration_ms=made.duration_ms,
            late_ms=made.late_ms,
        )
        if path is not None:
            call.set_fact("recording", str(path))
        call.set_fact("recording_bytes", made.size)
        call.set_fact("recording_ms", made.duration_ms)
        if made.paused_ms:
            call.set_fact("recording_paused_ms", made.paused_ms)
        if made.ended is not None:
            call.set_fact("recording_ended", made.ended)


async def _use(act: Callable[[], str], _: Mapping[str, Any]) -> str:
    return act()
