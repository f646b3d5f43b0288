"""The person and the handset of a simulated call, whatever line carries it, sans-I/O.

Time is whole microseconds since media started, cut into 20 ms frames: each one a frame of the
caller's voice goes out, a frame of the agent's is listened to, and the script looks at the world.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from voiced.formats import FRAME_MS
from voiced.simulate.bargein import BargeIns
from voiced.simulate.events import (
    AgentStarted,
    AgentStopped,
    CallerStarted,
    CallerStopped,
    CallEvent,
    Observer,
    Violation,
)
from voiced.simulate.line import Line, LineEcho
from voiced.simulate.performer import Performer
from voiced.simulate.playbuffer import PlayBuffer
from voiced.simulate.script import Script
from voiced.simulate.speech import FRAME_BYTES, Ear, Speech

__all__ = ["FRAME_US", "Telephone"]

FRAME_US = FRAME_MS * 1000

_VIOLATIONS_KEPT = 100
_RUN_ON_FRAMES = 50  # how much of what was heard is kept when nobody wants the recording


class Telephone(ABC):
    """What is common to all lines. `observer` is told of what happens, as it does.

    `line`: what it returns of what is heard; None: nothing.
    """

    can_hold = False
    """Whether the line knows how to hold a call."""
    gap_floor_ms: float = FRAME_MS
    """A shorter hole in the agent's speech is none: the line's own clock or buffer covers it."""
    on_hold = False
    """Whether the other side has agreed to be held."""

    def __init__(
        self, script: Script, *, record: bool, observer: Observer | None, line: Line | None
    ) -> None:
        self._performer = Performer(script)
        self._line_echo = None if line is None else LineEcho(line)
        self._observer = observer
        self._record = record
        self._frame = 0  # frames of the caller's audio that have gone out
        self._speech: Speech | None = None
        self._speech_frame = 0  # which of its frames is next
        self._speech_interrupts = False
        self._speech_started_ms = 0.0
        self._said = bytearray()  # what the line took from here, mu-law, when it is recorded
        self._agent_announced = False
        self._over = False

        self.ear = Ear()
        self.buffer = PlayBuffer()
        self.events: list[CallEvent] = []
        self.barge_ins = BargeIns()
        self.violation_count = 0
        self.lost_frames = 0
        """Frames of the caller that the server was too slow to take."""
        self.first_audio_us: int | None = None
        self.ended_us: int | None = None
        self.worst_lag_us = 0
        """How late `poll` came at worst; beyond some ms the figures measure the machine."""

    @property
    def script_finished(self) -> bool:
        """The script has run to its end."""
        return self._performer.finished

    @property
    def failure(self) -> str | None:
        """Why the script could not go on."""
        return self._performer.failure

    @property
    def talking(self) -> bool:
        """Whether the caller is speaking."""
        return self._speech is not None

    @property
    def frames(self) -> int:
        """Length of the call in 20 ms frames."""
        return self._frame

    def caller_audio(self) -> bytes:
        """Return what the caller said and the line added, mu-law; empty when not recorded."""
        return bytes(self._said)

    def agent_audio(self) -> bytes:
        """Return what the caller heard, mu-law, from the start; empty when not recorded."""
        if not self._record:
            return b""
        return self.buffer.heard_between(0, self._frame * FRAME_BYTES)

    def complain(self, code: int, text: str) -> None:
        """Note a breach of the protocol that was seen elsewhere; past a hundred only counted."""
        self._violate(self._frame * FRAME_US, code, text)

    # The person's side

    def say(self, speech: Speech, *, interrupting: bool) -> None:
        """Begin to speak with the next frame."""
        self._speech, self._speech_frame = speech, 0
        self._speech_interrupts = interrupting

    @abstractmethod
    def press(self, digit: str, *, secret: bool) -> None:
        """Press a key now."""

    @abstractmethod
    def hang_up(self, *, politely: bool) -> None:
        """End the call now."""

    def hold(self, on: bool) -> None:
        """Ask the other side to be held, or to come back; only where the line `can_hold`."""
        raise AssertionError(f"this line cannot hold a call ({on})")

    # For the lines

    def _speak(self, speech: Speech) -> int:
        """Take the next frame of what is said; returns its number."""
        index = self._speech_frame
        self._speech_frame += 1
        if index == speech.voiced_from:
            self._caller_started(speech)
        if self._speech_frame == speech.voiced_to:
            self._caller_stopped(speech)
        if self._speech_frame == len(speech.frames):
            self._speech = None
        return index

    def _fall_silent(self) -> None:
        """Break off what is being said, at the end of a call."""
        if self._speech is not None and self._speech.voiced_from < self._speech_frame:
            if self._speech_frame < self._speech.voiced_to:
                self._caller_stopped(self._speech)
            self._speech = None

    def _returned(self, said: bytes) -> bytes:
        """What goes out while `said` is said, in the frame that ends now: with the line's echo."""
        if self._line_echo is None:
            return said
        start = self._frame * FRAME_BYTES
        heard = self.buffer.heard_between(start, start + FRAME_BYTES)
        return self._line_echo.back(heard, said)

    def _listen(self, frame: int) -> None:
        start = frame * FRAME_BYTES
        silent = not self.buffer.runs or self.buffer.runs[-1].end_us <= frame * FRAME_US
        heard = None if silent else self.buffer.heard_between(start, start + FRAME_BYTES)
        ended = self.ear.hear(heard)
        if self.ear.started is not None and not self._agent_announced:
            self._agent_announced = True
            self._tell(AgentStarted(self.ear.started * FRAME_MS))
        self._agent_stopped(ended, cut=False)
        if not self._record and frame % _RUN_ON_FRAMES == 0:
            self.buffer.forget_before(start)

    def _agent_stopped(self, ended: tuple[int, int] | None, *, cut: bool) -> None:
        if ended is not None:
            self._agent_announced = False
            self._tell(AgentStopped(ended[1] * FRAME_MS, ended[0] * FRAME_MS, cut))

    def _caller_started(self, speech: Speech) -> None:
        at_us = self._frame * FRAME_US
        self._speech_started_ms = at_us / 1000
        if self._speech_interrupts:
            self.barge_ins.started(at_us, speech.name, self.buffer)
        self._tell(
            CallerStarted(at_us / 1000, speech.name, speech.text, self._speech_interrupts),
        )

    def _caller_stopped(self, speech: Speech) -> None:
        at_us = (self._frame + 1) * FRAME_US
        if self._speech_interrupts:
            self.barge_ins.ended(at_us)
        self._tell(CallerStopped(at_us / 1000, self._speech_started_ms, speech.name))

    def _violate(self, now_us: int, code: int, text: str) -> None:
        self.violation_count += 1
        if self.violation_count <= _VIOLATIONS_KEPT:
            self._tell(Violation(now_us / 1000, code, text))

    def _tell(self, event: CallEvent) -> None:
        self.events.append(event)
        if self._observer is not None:
            self._observer(event)
