"""Reversible barge-in: tells the caller's speech, for which playback paused, from other sounds."""

from __future__ import annotations

import math
from typing import Final, Literal, final

from voiced.formats import AudioFormat
from voiced.interruption.judge import Findings, find
from voiced.interruption.timeline import MS, Timeline

__all__ = ["Confirmation", "Verdict"]

Verdict = Literal["interruption", "cough", "echo", "digit"]

BEFORE_MS: Final = 400  # a detector of speech reports its beginning that much later, at the most
SURE_MS: Final = 160  # of voice over a known echo: an interruption before the time is over
SURE_WITHOUT_ECHO_MS: Final = 240  # an echo that has just begun cannot be told yet
ENOUGH_MS: Final = 80  # of clear voice: an interruption when it is
ENOUGH_CLEAN_MS: Final = 60  # of such as coughs do not end with
ENOUGH_OVER_ECHO_MS: Final = 100  # an echo is never explained whole
KEPT_MS: Final = 40
TONE_MS: Final = 40
DIGIT_S: Final = 0.5  # a key pressed that long before it is what was heard
EARLIEST_MS: Final = -120  # how much earlier an echo may come than the times told say
STEP_MS: Final = 40  # of new audio between two looks
STEP_AGAIN_MS: Final = 100  # playback goes on: there is less haste


@final
class Confirmation:
    """One call's judge of barge-ins; pure, all times on one clock (Trio's).

    Args:
        leg_format: of all audio, at 8 or 16 kHz.
        confirm_ms: when a verdict is due after `begin`.
    """

    def __init__(self, leg_format: AudioFormat, confirm_ms: int) -> None:
        self._timeline = Timeline(leg_format)
        self._confirm_s = confirm_ms / 1000
        self._began_s: float | None = None
        self._count_from = 0  # samples that came back before it were judged before
        self._judged_to = 0
        self._decided_s = -math.inf
        self._again = False
        self._looked_at = -1
        self._digit_s = -math.inf
        self._echoing = False
        self._doubtful = False
        self._over = False
        self._clear_ms = self._clean_ms = 0  # the most of any look since `begin`
        self.findings: Findings | None = None

    def played(self, payload: bytes, at_s: float) -> None:
        """The caller hears `payload` from `at_s` on, which may lie ahead."""
        self._timeline.played(payload, at_s)

    def cleared(self, at_s: float) -> None:
        """What was to be heard after `at_s` is not: playback paused, or was cut."""
        self._timeline.cleared(at_s)

    def caller(self, payload: bytes, at_s: float) -> None:
        """The caller's audio as it arrives; always, since the time before `begin` counts too."""
        self._timeline.caller(payload, at_s)

    def digit(self, at_s: float) -> None:
        """A key was pressed."""
        self._digit_s = at_s

    def begin(self, at_s: float) -> None:
        """Speech was reported at `at_s`. Again after a verdict if it goes on: that listens anew."""
        end = self._timeline.echo.near_end
        self._again = at_s <= self._decided_s
        self._began_s = at_s
        self._count_from = max(self._judged_to, end - BEFORE_MS * MS)
        self._looked_at = end if self._again else -1
        self._over = False
        self._clear_ms = self._clean_ms = 0
        self.findings = None

    def speech_stopped(self, at_s: float) -> None:
        """The speech reported is over: nothing more is to come, so the next verdict is due."""
        self._over = True

    def verdict(self, at_s: float) -> Verdict | None:
        """What it was. None: not known yet, or nothing was begun; never None `confirm_ms` after it.

        To be asked after each `caller` and when the time is over. After a verdict the next `begin`
        starts anew.
        """
        if self._began_s is None:
            return None
        due = self._over or at_s >= self._began_s + self._confirm_s - 1e-6
        end = self._timeline.echo.near_end
        step = STEP_AGAIN_MS if self._again else STEP_MS
        if not due and end - self._looked_at < step * MS and self._looked_at >= 0:
            return None
        self._looked_at = end
        decided = self._decide(self._look(), due)
        if decided is not None:
            if decided == "interruption":
                self._judged_to = end
            self._began_s = None
            self._decided_s = at_s
        return decided

    def _look(self) -> Findings:
        echo = self._timeline.echo
        start = echo.near_end - echo.SPAN
        path, frames = echo.analyse(start, echo.SPAN, self._timeline.offset, EARLIEST_MS * MS)
        self._echoing = path.runs > 0
        self._doubtful = path.runs == 0 and path.peak > 7
        self.findings = find(frames, max(0, (self._count_from - start) // echo.FRAME))
        return self.findings

    def _decide(self, found: Findings, due: bool) -> Verdict | None:
        assert self._began_s is not None
        sure = SURE_MS if self._echoing else SURE_WITHOUT_ECHO_MS
        if found.voiced_ms >= sure and not self._doubtful:
            return "interruption"
        if found.tone_ms >= TONE_MS or self._digit_s >= self._began_s - DIGIT_S:
            return "digit"
        told = found.clear_ms if self._echoing else found.voiced_ms
        self._clear_ms = max(self._clear_ms, told)
        self._clean_ms = max(self._clean_ms, found.clean_ms)
        if not due:
            return None
        # What one look made out the next may lose in part to another idea of the echo's path; but
        # not all of it, unless it was the echo.
        if told >= KEPT_MS and (self._clear_ms >= ENOUGH_MS or self._clean_ms >= ENOUGH_CLEAN_MS):
            return "interruption"
        if found.voiced_ms >= ENOUGH_OVER_ECHO_MS and not self._again:
            return "interruption"
        return "echo" if found.echo_share > 0.5 else "cough"
