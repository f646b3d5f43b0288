"""Carries a script out: looks at the telephone on every frame, and acts when a step is due."""

from __future__ import annotations

from typing import Protocol

from voiced.formats import FRAME_MS
from voiced.simulate.script import (
    CutLine,
    HangUp,
    Hold,
    Pause,
    Press,
    Resume,
    Say,
    SayWhileAgentSpeaks,
    Script,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)
from voiced.simulate.speech import Ear, Speech, load_speech

__all__ = ["Handset", "Performer"]


class Handset(Protocol):
    """What the person at the telephone can perceive and do."""

    @property
    def ear(self) -> Ear:
        """What is heard."""

    @property
    def talking(self) -> bool:
        """Whether the caller is still speaking what it was told to."""

    def say(self, speech: Speech, *, interrupting: bool) -> None:
        """Begin to speak with the next frame."""

    def press(self, digit: str, *, secret: bool) -> None:
        """Press a key."""

    def hang_up(self, *, politely: bool) -> None:
        """End the call, as it should be ended or as a failing network ends it."""

    @property
    def can_hold(self) -> bool:
        """Whether the line knows how to hold a call."""

    @property
    def on_hold(self) -> bool:
        """Whether the other side has agreed to be held."""

    def hold(self, on: bool) -> None:
        """Ask the other side to be held, or to come back."""


class Performer:
    """The caller's mind: which step it is at. Time is counted in the stream's 20 ms frames."""

    def __init__(self, script: Script) -> None:
        self._steps: tuple[Step, ...] = (*script.steps, HangUp())
        self._index = 0
        self._begun = False
        self._frame_begun = 0
        self._loud_begun = 0
        self._said = False  # within SayWhileAgentSpeaks: the speech has begun
        self.finished = False
        """The script has run to its end."""
        self.failure: str | None = None
        """Why it has not."""

    def tick(self, frame: int, handset: Handset) -> None:
        """Look at the world after frame number `frame`; act as long as steps complete."""
        while not self.finished and self.failure is None:
            step = self._steps[self._index]
            if not self._begun:
                self._begun = True
                self._frame_begun = frame
                self._loud_begun = handset.ear.loud_frames
                self._said = False
                if not self._begin(step, handset):
                    return
            if not self._done(step, frame, handset):
                self._check_timeout(step, frame, handset)
                return
            self._index += 1
            self._begun = False

    def disconnected(self) -> None:
        """Take it that the agent's side ended the call."""
        if self.finished or self.failure is not None:
            return
        step = self._steps[self._index]
        last = self._index >= len(self._steps) - 1
        if isinstance(step, WaitForHangUp | HangUp) or last:
            self.finished = True
        else:
            self.failure = f"the agent's side ended the call during {self._describe(step)}"

    def _begin(self, step: Step, handset: Handset) -> bool:
        """Act on a step that begins; False when it cannot be done on this line."""
        if isinstance(step, Say):
            handset.say(_speech(step.clip), interrupting=False)
        elif isinstance(step, Press):
            handset.press(step.digit, secret=step.secret)
        elif isinstance(step, Hold | Resume):
            if not handset.can_hold:
                self.failure = f"{self._describe(step)}: this line cannot hold a call"
                handset.hang_up(politely=True)
                return False
            handset.hold(isinstance(step, Hold))
        elif isinstance(step, HangUp | CutLine):
            self.finished = True
            handset.hang_up(politely=isinstance(step, HangUp))
        return True

    def _done(self, step: Step, frame: int, handset: Handset) -> bool:
        ear = handset.ear
        heard_ms = (ear.loud_frames - self._loud_begun) * FRAME_MS
        if isinstance(step, WaitForAgentSpeech):
            return heard_ms >= step.min_ms
        if isinstance(step, WaitForAgentSilence):
            return ear.quiet_frames * FRAME_MS >= step.ms
        if isinstance(step, Say):
            return not handset.talking
        if isinstance(step, SayWhileAgentSpeaks):
            if not self._said and heard_ms >= step.after_ms and ear.quiet_frames == 0:
                self._said = True
                handset.say(_speech(step.clip), interrupting=True)
            return self._said and not handset.talking
        if isinstance(step, Hold | Resume):
            return handset.on_hold == isinstance(step, Hold)
        if isinstance(step, Pause):
            return (frame - self._frame_begun) * FRAME_MS >= step.ms
        return isinstance(step, Press)

    def _check_timeout(self, step: Step, frame: int, handset: Handset) -> None:
        limit_s = getattr(step, "timeout_s", None)
        if limit_s is None or self._said:
            return
        if (frame - self._frame_begun) * FRAME_MS >= limit_s * 1000:
            self.failure = f"nothing came of {self._describe(step)} within {limit_s:g} s"
            handset.hang_up(politely=True)

    def _describe(self, step: Step) -> str:
        return f"step {self._index + 1} of the script, {type(step).__name__}"


def _speech(clip: str | Speech) -> Speech:
    return load_speech(clip) if isinstance(clip, str) else clip
