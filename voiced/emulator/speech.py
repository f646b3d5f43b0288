"""The emulator's voice: espeak-ng where it is installed, bundled clips, or the caller's words."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog
import trio

from voiced import audio, clips
from voiced.emulator.answers import Line
from voiced.emulator.options import OptionsError
from voiced.formats import PCM16_8K, PCM16_24K, AudioFormat, Encoding

__all__ = ["Spoken", "Voice"]

CACHE_BYTES: Final = 4 * 1024 * 1024  # four minutes of speech, shared by all sessions
TEXT_LIMIT: Final = 2000  # characters; about two minutes of speech
PROCESSES: Final = 2  # synthesisers at a time; each takes some 50 ms of a core
TIMEOUT_S: Final = 5.0  # 100 times what it takes
QUIET: Final = 200  # of 32768; espeak-ng begins with 30 to 60 ms below
FADE: Final = 80  # samples before the first loud one that are its beginning
FRAME: Final = 160  # samples, 20 ms
SENTENCE: Final = 8  # characters; what is shorter stands in many texts
OUTPUT_LIMIT: Final = 16 * 1024 * 1024
_LOW: Final = frozenset({"ash", "ballad", "cedar", "echo", "verse"})  # OpenAI's deeper voices

_log = structlog.get_logger("voiced.emulator")


@dataclass(frozen=True, slots=True)
class Spoken:
    """What is said, and its sound: PCM16 at 8 kHz."""

    text: str
    pcm: bytes


class Voice:
    """Says lines. One per server; safe to use from many tasks.

    Raises OptionsError when `speech` is "espeak" and espeak-ng is not installed.
    """

    def __init__(self, speech: Literal["auto", "espeak", "clips", "echo"]) -> None:
        self._speech = speech
        self._program = shutil.which("espeak-ng") if speech in ("auto", "espeak") else None
        if speech == "espeak" and self._program is None:
            raise OptionsError(
                "speech is 'espeak', but espeak-ng is not installed: install it, or set 'auto'"
            )
        self._cache: OrderedDict[tuple[str, str, bool], bytes] = OrderedDict()
        self._cached_bytes = 0
        self._limit = trio.CapacityLimiter(PROCESSES)

    async def say(self, line: Line, voice: Any, echo: bytes) -> Spoken:
        """Return the sound of `line`; `echo` is the caller's last turn, PCM16 at 8 kHz."""
        if self._speech == "echo" and echo:
            await trio.lowlevel.checkpoint()
            return Spoken(line.text, echo)
        if self._program is not None and (self._speech == "espeak" or not line.clips):
            pcm = await self._synthesise(self._program, line, low=voice in _LOW)
            if pcm:
                return Spoken(line.text, pcm)
        await trio.lowlevel.checkpoint()
        if line.clips:
            return Spoken(line.text, b"".join(clips.load(name).pcm for name in line.clips))
        excerpt = _excerpt(line.text)
        if excerpt:
            return Spoken(line.text, excerpt)
        clip = clips.load(_closest(line))
        return Spoken(clip.text, clip.pcm)

    async def _synthesise(self, program: str, line: Line, *, low: bool) -> bytes:
        key = (line.text, line.language, low)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        voice = "cmn" if line.language == "zh" else line.language  # its name for Mandarin
        name = f"{voice}+{'m3' if low else 'f2'}"
        command = [program, "-v", name, "-p", "45" if low else "62", "-s", "165"]
        try:
            async with self._limit:
                with trio.fail_after(TIMEOUT_S):
                    done = await trio.run_process(
                        [*command, "--stdin", "--stdout"],
                        stdin=_for_synthesis(line.text[:TEXT_LIMIT]).encode(),
                        capture_stdout=True,
                        capture_stderr=True,
                    )
            pcm = _telephone(done.stdout[:OUTPUT_LIMIT])
        except (trio.TooSlowError, OSError, subprocess.CalledProcessError, ValueError) as error:
            _log.warning("espeak-ng failed, a clip is used", error=type(error).__name__)
            return b""
        self._keep(key, pcm)
        return pcm

    def _keep(self, key: tuple[str, str, bool], pcm: bytes) -> None:
        self._cached_bytes += len(pcm) - len(self._cache.pop(key, b""))
        self._cache[key] = pcm
        while self._cached_bytes > CACHE_BYTES:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])


def _for_synthesis(text: str) -> str:
    """Write known sentences as the synthesiser can read them."""
    for clip in clips.all_clips():
        if clip.say:
            text = text.replace(clip.text, clip.say)
    return text


def _telephone(wav: bytes) -> bytes:
    """Convert what espeak-ng writes: a 44-byte WAV header with unset lengths, then PCM16 mono."""
    if len(wav) <= 44 or wav[:4] != b"RIFF" or wav[36:40] != b"data":
        raise ValueError("no WAV")
    (rate,) = struct.unpack_from("<I", wav, 24)
    data = wav[44 : len(wav) // 2 * 2]
    # By way of 24 kHz: from there on the steep filter applies, and nothing folds back.
    steps: tuple[tuple[AudioFormat, AudioFormat, audio.Quality], ...] = (
        (AudioFormat(Encoding.PCM16, rate), PCM16_24K, "linear"),
        (PCM16_24K, PCM16_8K, "fir"),
    )
    for source, target, quality in steps:
        converter = audio.converter(source, target, quality)
        if converter is not None:
            data = converter.convert(data) + converter.flush()
    return _trim(data)


def _trim(pcm: bytes) -> bytes:
    """Drop the silence before the first word, which would only delay it."""
    samples = memoryview(pcm).cast("h")
    first = next((i for i, sample in enumerate(samples) if abs(sample) > QUIET), 0)
    return pcm[2 * max(0, first - FADE) :]


def _excerpt(text: str) -> bytes:
    """Return the part of a recording that says these words; a step of a pipeline gets sentences.

    Where in the sound they lie follows from where in the text, and from the pauses nearby.
    """
    for clip in clips.all_clips("agent"):
        start = clip.text.find(text) if len(text) >= SENTENCE else -1
        if start >= 0:
            first = _pause_near(clip.pcm, start / len(clip.text))
            return clip.pcm[first : _pause_near(clip.pcm, (start + len(text)) / len(clip.text))]
    return b""


def _pause_near(pcm: bytes, share: float) -> int:
    """Return the offset of the longest pause within a second of `share` of the sound."""
    if share <= 0.0 or share >= 1.0:
        return len(pcm) if share >= 1.0 else 0
    powers = audio.mean_squares(pcm, FRAME)
    around = range(
        max(0, int(share * len(powers)) - 50), min(len(powers), int(share * len(powers)) + 50)
    )
    best, run = (0, around.start), 0
    for index in around:
        run = run + 1 if powers[index] < QUIET**2 else 0
        best = max(best, (run, index - run // 2))
    return best[1] * FRAME * 2 if best[0] else int(share * len(pcm) / 2) * 2


def _closest(line: Line) -> str:
    """Return the name of the recording that is most like the words, of its language if possible."""
    known = [c for c in clips.all_clips("agent") if c.language == line.language]
    known = known or list(clips.all_clips("agent"))
    wanted = _words(line.text)

    def score(clip: clips.Clip) -> tuple[int, float]:
        shared = len(wanted & _words(clip.text))
        return shared, -clip.duration_ms  # of equals, the shorter

    return max(known, key=score).name


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.lower()))
