"""Notices a server that hears nothing any more of what the caller says. Sans-I/O.

Such a one is there, answers pings, and owes nothing, for it has not found that anybody spoke. So we
listen as well, with an ear far duller than any server's: what it takes for speech is loud and
lasts, and on a noisy line stands out of the noise. Only a session that has shown before that it
hears is judged, by what is said while the agent is silent, as far as a session knows of that.

The clock is the caller's audio. Of each `STEP_MS` one piece is looked at, which costs a fifth.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final, final

from voiced.audio import mean_squares
from voiced.formats import AudioFormat, Encoding
from voiced.realtime.turns import TO_PCM

__all__ = ["SILENT_STEPS", "STEP_MS", "Attention"]

STEP_MS: Final = 100

FULL_SCALE: Final = 32768.0**2
LOUD: Final = FULL_SCALE * 10**-3.6
"""-36 dBFS: a quiet caller's words have -40 and less, a common one's -25."""
MARGIN: Final = 10**1.5
"""15 dB above the quietest of the last seconds: noise that goes on does not stand out of itself."""
QUIET: Final = LOUD / MARGIN
"""All that has less is alike: what is loud enough stands out of it."""
RECENT_STEPS: Final = 30

SPEECH_STEPS: Final = 6  # loud ones, which a second of speech has: a cough or a click does not
PAUSE_STEPS: Final = 6  # a longer silence between two sounds makes them two
SILENT_STEPS: Final = 30  # after speech, in which every server has noticed it
STOP_STEPS: Final = 100
"""The same, where it has noticed that they began: a patient one takes eight seconds for a pause
(openai-realtime, `semantic_vad` with low eagerness)."""
LONGEST_STEPS: Final = 80  # from its beginning on: whoever gets no answer asks again and again
ECHO_STEPS: Final = 5  # after the agent's last word: its echo, and what the carrier holds


def _quiet_codes(encoding: Encoding) -> bytes:
    """Those of G.711 of which no number amounts to more than `QUIET`; of PCM16 no single byte."""
    if encoding is Encoding.PCM16:
        return b""
    codes = bytes(range(256))
    values = struct.unpack("<256h", TO_PCM[encoding](codes))
    return bytes(code for code in codes if values[code] ** 2 <= QUIET)


_QUIET_CODES: Final = {encoding: _quiet_codes(encoding) for encoding in Encoding}


@final
class Attention:
    """One session's."""

    def __init__(self, form: AudioFormat) -> None:
        self._to_pcm = TO_PCM[form.encoding]
        self._quiet_codes = _QUIET_CODES[form.encoding]
        self._size = STEP_MS * form.bytes_per_ms
        self._left = self._size  # bytes until the next look
        self._step = 0
        self._audible = 0.0  # the step at which the agent falls silent
        self._heard = False  # the server has heard the caller before
        self._speaking = False  # as far as the server has told
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._loud = self._pause = self._since = 0

    def heard(self) -> None:
        """The server has found that the caller speaks."""
        self._heard = self._speaking = True
        self._audible = self._step  # whatever was being said is interrupted

    def stopped(self) -> None:
        """The server has found that they do not any more."""
        self._speaking = False

    def sign(self) -> None:
        """The server has told anything at all."""
        self._loud = 0

    def sounds(self, ms: float) -> None:
        """So much more of an answer is going to be heard."""
        self._audible = max(self._audible, self._step) + ms / STEP_MS

    def deaf(self, payload: bytes) -> bool:
        """Listen to the next piece; whether the server hears nothing of what was said."""
        self._left -= len(payload)
        if self._left > 0:
            return False
        self._left = self._size
        self._step += 1
        if not (self._heard and payload) or self._step < self._audible + ECHO_STEPS:
            self._loud = 0
            return False
        return self._judge(payload)

    def _judge(self, payload: bytes) -> bool:
        power = QUIET
        if payload.translate(None, self._quiet_codes):  # most lines are quiet most of the time
            pcm16 = self._to_pcm(payload)
            power = max(QUIET, *mean_squares(pcm16, len(pcm16) // 2))
        self._recent.append(power)
        loud = power > LOUD and power > MARGIN * min(self._recent)
        if loud and not self._loud:
            self._since = 0
        self._since += 1
        self._loud += loud
        self._pause = 0 if loud else self._pause + 1
        if self._loud < SPEECH_STEPS:
            if self._pause >= PAUSE_STEPS:
                self._loud = 0
            return False
        if self._speaking:
            return self._pause >= STOP_STEPS
        return self._pause >= SILENT_STEPS or self._since >= LONGEST_STEPS
