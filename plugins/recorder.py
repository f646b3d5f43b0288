"""Records calls: stereo WAV, the caller left and the agent right, as the caller heard it.

    [plugins.recorder]
    folder = "/srv/recordings"
    keep_days = 90

A file grows while its call lasts and can be played at any moment, after a crash too. Until its end
it is called `….part.wav`. At the end the journal has, as facts of the call, `recording` (the
path), `recording_bytes` and `recording_ms`; `recording_paused_ms` and `recording_ended` where there
is something to say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import trio
from msgspec import Meta
from voiced_plugins import _shelf
from voiced_plugins._disk import make_folder
from voiced_plugins._recording import BATCH_S, WINDOW_MS, Limits, Made, Recording, Sink
from voiced_plugins._timeline import Timeline
from voiced_plugins._wavfile import MAX_DATA, WavFile

from voiced.plugin import (
    PCM16_8K,
    AudioFormat,
    Encoding,
    Greeting,
    Host,
    Plugin,
    PluginError,
    Service,
    Settings,
    Summary,
    Tool,
    WavError,
    read_wav,
)

__all__ = ["Recorder", "RecorderSettings", "Recordings"]

SWEEP_S: Final = 3600.0
"""How often old recordings are looked for."""

DIGITS_S: Final = 5.0
"""Keys of one sequence follow each other within this."""

CLOSE_S: Final = 3.0
"""For a file that ends before its call."""

THREADS: Final = 4
"""For the disk, of all recordings: one that hangs must not take those that others need."""

MIB: Final = 2**20

Keys = Annotated[str, Meta(pattern=r"^[0-9*#A-D]{1,8}$")]


class RecorderSettings(Settings, frozen=True):
    """Where recordings go, what is in them, and how long they stay."""

    folder: Path | None = None
    """Where recordings go. Left out: a folder in `state_dir`."""
    pattern: str = "{called}/{date}/{time}-{caller}-{call_id}"
    """Their names below it, without `.wav`: `{called}`, `{caller}`, `{call_id}`, `{agent}`, \
`{carrier}`, `{direction}`, `{date}` and `{time}` (UTC). What file systems dislike becomes `_`."""
    channels: Literal["stereo", "mono"] = "stereo"
    """`stereo`: the caller left, the agent right; `mono`: both in one."""
    encoding: Literal["pcm16", "pcmu"] = "pcm16"
    """`pcmu` (G.711, 8000 Hz) takes half the room; some programs cannot read it."""
    rate: Literal[8000, 16000, 24000] | None = None
    """Samples a second. Left out: those of the call, so that nothing is converted."""
    announcement: Path | None = None
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
    keep_days: Annotated[float, Meta(ge=0)] = 30.0
    """Older recordings are removed; 0: nothing is left behind when the call ends."""
    max_total_mb: Annotated[int, Meta(ge=1)] | None = None
    """What all of them may take, in MiB: the oldest are removed. Left out: whatever there is."""
    encrypt_to: Path | None = None
    """A PEM file with an X25519 public key; only the holder of its private key can play the \
recordings then (`voiced recording decrypt`). Needs the package `cryptography`."""

    def __post_init__(self) -> None:
        _shelf.check_pattern(self.pattern)
        if self.encoding == "pcmu" and self.rate not in (None, 8000):
            raise ValueError("rate: pcmu has 8000 Hz; leave it out, or use pcm16")
        if self.resume_digits and not self.pause_digits:
            raise ValueError("resume_digits: pause_digits is missing")


class Recordings(Service):
    """The folder, and who cleans it up."""

    config: RecorderSettings

    def __init__(self, config: RecorderSettings, host: Host) -> None:
        super().__init__(config, host)
        self.folder = Path()
        self._key: Any = None
        self._limiter = trio.CapacityLimiter(THREADS)

    async def open(self) -> None:
        """Make the folder ready; make recordings of what a crash left."""
        config = self.config
        self.folder = config.folder or self.host.state_dir
        if config.encrypt_to is not None:
            self._key = _load_key(config.encrypt_to)
        if config.announcement is not None:
            try:
                await trio.to_thread.run_sync(read_wav, config.announcement)
            except WavError as error:
                raise PluginError(f"announcement: {config.announcement} {error}") from None
        try:
            found = await trio.to_thread.run_sync(self._prepare)
        except OSError as error:
            raise PluginError(f"folder: {self.folder}: {error.strerror or error}") from None
        for each in found:
            self.host.annotate(each.call_id, "recording", str(each.path))
            self.host.annotate(each.call_id, "recording_bytes", each.size)
            self.host.annotate(each.call_id, "recording_ended", "crash")
            self.host.log.info("recording of a crash found", call=each.call_id, path=str(each.path))

    def _prepare(self) -> list[_shelf.Found]:
        make_folder(self.folder)
        probe = self.folder / f".{self.host.name}.probe"
        probe.touch()
        probe.unlink()
        return list(_shelf.mend(self.folder, keep=self.config.keep_days > 0))

    async def run(self) -> None:
        """Remove what is too old or too much, every hour."""
        while True:
            await self.sweep()
            await trio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Remove what is too old or too much."""
        config = self.config
        total = config.max_total_mb
        swept = await trio.to_thread.run_sync(
            partial(
                _shelf.sweep,
                self.folder,
                older_than_s=config.keep_days * 86400,
                max_bytes=None if total is None else total * MIB,
                now=time.time(),
            )
        )
        if swept.files:
            self.host.log.info("recordings removed", files=swept.files, bytes=swept.size)

    def recording(self, facts: Mapping[str, str], source: AudioFormat, start_ms: int) -> Recording:
        """Make a recording of a call; its file is made with the first of its audio."""
        config = self.config
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
            _shelf.fill(config.pattern, facts, time.time()),
            partial(self._make, form=target, channels=channels, call_id=facts["call_id"]),
            sealed=self._key is not None,
            limiter=self._limiter,
        )

    def _make(self, path: Path, *, form: AudioFormat, channels: int, call_id: str) -> Sink:
        if self._key is None:
            return WavFile(path, form, channels, call_id)
        from voiced_plugins._sealed import SealedFile

        return SealedFile(path, form, channels, call_id, self._key)

    async def discard(self, path: Path) -> None:
        """Remove a recording that nobody wants. Raises OSError."""
        await trio.to_thread.run_sync(
            _shelf.remove, path, self.folder, abandon_on_cancel=True, limiter=self._limiter
        )


def _load_key(path: Path) -> Any:
    try:
        from voiced_plugins._sealed import BadKey, public_key
    except ImportError:
        raise PluginError(
            "encrypt_to: needs the package cryptography: pip install 'voiced[encryption]'"
        ) from None
    try:
        return public_key(path)
    except BadKey as error:
        raise PluginError(f"encrypt_to: {path} {error}") from None


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
        tools: list[tuple[str, str, Callable[[], str]]] = [
            (
                "pause_recording",
                "Pause the recording of this call, before the caller says something secret such "
                "as a card number.",
                self._pause,
            ),
            ("resume_recording", "Go on with the recording of this call.", self._resume),
        ]
        if self.config.start == "consent":
            tools.append(
                (
                    "start_recording",
                    "Start to record this call. Only after the caller has clearly agreed to be "
                    "recorded.",
                    self._begin,
                )
            )
        for name, description, act in tools:
            try:
                self.call.register_tool(Tool(name, description, partial(_use, act)))
            except ValueError as error:
                self.call.log.warning("tool left out", tool=name, why=str(error))

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
            facts = {
                name: str(getattr(call, name))
                for name in ("agent", "call_id", "called", "caller", "carrier", "direction")
            }
            start_ms = call.media_ms if self.config.start == "consent" else 0
            self._recording = self.service.recording(facts, call.format, start_ms)
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
                with trio.move_on_after(CLOSE_S, shield=True):  # should the call end just now
                    await self._end(self.call.media_ms)

    async def _end(self, media_ms: int) -> None:
        recording, self._recording, self._over = self._recording, None, True
        if recording is None:
            return
        made = await recording.finish(media_ms)
        if made.ended is not None:
            error = None if recording.error is None else str(recording.error)
            self.call.log.warning("recording ended before its call", why=made.ended, error=error)
        await self._report(made)

    async def _report(self, made: Made) -> None:
        path = made.path
        if path is not None and self.config.keep_days == 0:
            try:
                await self.service.discard(path)
                path = None
            except OSError as error:
                self.call.log.error("recording not removed", path=str(path), error=str(error))
        call = self.call
        if path is not None:
            call.set_fact("recording", str(path))
        call.set_fact("recording_bytes", made.size)
        call.set_fact("recording_ms", made.duration_ms)
        if made.paused_ms:
            call.set_fact("recording_paused_ms", made.paused_ms)
        if made.ended is not None:
            call.set_fact("recording_ended", made.ended)
        call.log.info(
            "call recorded",
            path=None if path is None else str(path),
            bytes=made.size,
            duration_ms=made.duration_ms,
            late_ms=made.late_ms,
        )


async def _use(act: Callable[[], str], _: Mapping[str, Any]) -> str:
    return act()
