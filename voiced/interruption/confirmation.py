"""Reversible barge-in: tells the caller's speech, for which playback paused, from other sounds."""

from __future__ import annotations

import math
from typing import Final, Literal, final

from voiced.formats import AudioFormat
from voiced.interruption.judge import LOUD_LINE, Findings, find
from voiced.interruption.timeline import MS, RATE, Timeline

__all__ = ["Confirmation", "Verdict"]

Verdict = Literal["interruption", "cough", "echo", "digit"]

BEFORE_MS: Final = 400  # a detector of speech reports its beginning that much later, at the most
SURE: Final = 6.0  # of `Findings.voice`: an interruption before the time is over
SURE_AGAIN: Final = 8.0  # while playback, and an echo of it, goes on
SURE_WITHOUT_ECHO: Final = 12.0  # an echo that is not known yet may be one
SURE_JUST_BEGUN: Final = 16.0  # all the more if playback began a moment before
JUST_BEGUN_S: Final = 0.8
UNKNOWN_S: Final = 1.0  # after a call's first playback began its echo, if any, may not be known
ENOUGH: Final = 3.2  # when the time is over, over an echo, which hides much of either
ENOUGH_WITHOUT_ECHO: Final = 5.5  # voiced coughs reach 5, words 6.5
ENOUGH_AGAIN: Final = 3.5
ENOUGH_ON_LOUD: Final = 2.2  # an echo that hides so much of a caller: doubt decides for them
SEEN: Final = 4.5  # in an earlier look, of which one idea of the echo's path left ...
SEEN_STILL: Final = 1.2  # ... so much at least: it was not the echo
ECHO_PEAK: Final = 6.0  # of a correlation: there may be an echo, though none is believed
TONE_MS: Final = 40
DIGIT_S: Final = 0.5  # a key pressed that long before it is what was heard
EARLIEST_MS: Final = -120  # how much earlier an echo may come than the times told say
ANEW_S: Final = 0.1  # of silence, after which playback begins anew
STEP_MS: Final = 40  # of new audio between two looks
STEP_AGAIN_MS: Final = 100  # playback goes on: there is less haste
SETTLES_MS: Final = 100  # what spoke for the caller when a window ended is looked at again then
TAIL_S: Final = 1.0  # after the last sample: a line's delay, and what a detector takes to report


@final
class Confirmation:
    """One call's judge of barge-ins; pure, all times on one clock (Trio's).

    Args:
        leg_format: of all audio, at 8 or 16 kHz.
        confirm_ms: when a verdict is due after `begin`.
    """

    def __init__(self, leg_format: AudioFormat, confirm_ms: int) -> None:
        self._timeline = Timeline(leg_format)
        self._bytes_per_s = 1000 * leg_format.bytes_per_ms
        self._silent_s = -math.inf  # from then on nothing is played
        self._anew_s = -math.inf  # when playback began last
        self._known_s = 0.0  # from then on an echo, if the line has any, was heard
        self._confirm_s = confirm_ms / 1000
        self._began_s: float | None = None
        self._count_from = 0  # samples that came back before it were judged before
        self._judged_to = 0
        self._decided_s = -math.inf
        self._again = False
        self._looked_at = -1
        self._digit_s = -math.inf
        self._deferred = False  # to the next window: what came last spoke for the caller
        self._began_at = 0
        self._echoes = False  # an echo was found, in any look
        self._echoing = False
        self._doubtful = False
        self._loud_line = False
        self._found = self._lost = False  # an echo, by an earlier look since `begin`; and not now
        self._over = False
        self._seen = 0.0
        self._explained_to = 0  # by a path, in a look since `begin`
        self.findings: Findings | None = None

    def played(self, payload: bytes, at_s: float) -> None:
        """The caller hears `payload` from `at_s` on, which may lie ahead."""
        self._timeline.played(payload, at_s)
        if self._silent_s == -math.inf:
            self._known_s = at_s + UNKNOWN_S
        if at_s > self._silent_s + ANEW_S:
            self._anew_s = at_s
        self._silent_s = at_s + len(payload) / self._bytes_per_s

    def cleared(self, at_s: float) -> None:
        """What was to be heard after `at_s` is not: playback paused, or was cut."""
        self._timeline.cleared(at_s)
        self._silent_s = min(self._silent_s, at_s)

    def may_echo(self, at_s: float) -> bool:
        """Whether speech reported at `at_s` may be the echo of what was played until then."""
        return at_s < self._silent_s + TAIL_S

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
        self._deferred = self._deferred and self._again
        self._began_at = end
        self._began_s = at_s
        self._count_from = max(self._judged_to, end - BEFORE_MS * MS)
        self._looked_at = end if self._again else -1
        self._over = False
        self._found = self._lost = False
        self._explained_to = 0
        self._seen = self._seen if self._deferred else 0.0
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
        decided = self._decide(self._look(at_s), due)
        if decided is not None:
            if decided == "interruption":
                self._judged_to = end
            self._began_s = None
            self._decided_s = at_s
        return decided

    def _look(self, at_s: float) -> Findings:
        echo = self._timeline.echo
        start = echo.near_end - echo.SPAN
        path, frames = echo.analyse(start, echo.SPAN, self._timeline.offset, EARLIEST_MS * MS)
        self._echoing = path.runs > 0
        self._loud_line = path.gain > LOUD_LINE
        self._doubtful = path.runs == 0 and path.peak > ECHO_PEAK
        self._lost = self._again and self._found and self._doubtful
        self._found = self._found or path.runs > 0
        if self._echoing:
            self._explained_to = echo.near_end
        # What a path explained is not to be judged without one: it did not show for long enough.
        since = max(self._count_from, self._explained_to if self._doubtful else 0)
        count_from = max(0, (since - start) // echo.FRAME)
        self._echoes = self._echoes or path.runs > 0
        unknown = round((self._known_s - at_s) * RATE) + echo.SPAN
        may_echo = len(frames) if self._echoes else unknown // echo.FRAME
        self.findings = find(frames, count_from, echo.voice, path, may_echo)
        return self.findings

    def _decide(self, found: Findings, due: bool) -> Verdict | None:
        assert self._began_s is not None
        sure, enough = (SURE_AGAIN, ENOUGH_AGAIN) if self._again else (SURE, ENOUGH)
        if self._loud_line:
            sure, enough = SURE, ENOUGH_ON_LOUD
        elif not self._echoing:
            enough = ENOUGH_WITHOUT_ECHO
            just_begun = self._began_s < self._anew_s + JUST_BEGUN_S
            sure = SURE_JUST_BEGUN if just_begun else SURE_WITHOUT_ECHO
        if self._deferred and self._looked_at - self._began_at >= SETTLES_MS * MS:
            self._deferred = False
            if found.settled >= enough and not self._doubtful:
                return "interruption"
        if found.voice >= sure and not self._doubtful:
            return "interruption"
        if found.tone_ms >= TONE_MS or self._digit_s >= self._began_s - DIGIT_S:
            return "digit"
        if not self._doubtful:
            self._seen = max(self._seen, found.voice)
        if not due:
            return None
        if self._lost:  # what a look before took for an echo is one
            return "echo"
        may_wait = self._again and not self._over and not self._loud_line
        if may_wait and found.voice >= enough > found.settled:
            self._deferred = True
            return "echo"  # the next window hears it anew, and knows by then whether it moved
        if found.voice >= enough or (self._seen >= max(SEEN, enough) and found.voice >= SEEN_STILL):
            return "interruption"
        return "echo" if found.echo_share > 0.5 else "cough"
