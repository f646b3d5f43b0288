"""Codecs, resampling and the little arithmetic that audio needs, all of it native.

The only importer of the native module's audio half (`native/g711.c`, `native/resample.c`). PCM is
signed 16-bit little-endian mono throughout. Data is `bytes`.

Results are built in a buffer of the calling thread (cffi lets go of the interpreter lock during a
call) and copied out once; longer data passes through it in pieces.

A 20 ms frame takes no longer to convert than Python takes to ask for it. Hence native functions
are globals here (`lib` looks each up by its name), and what only long data needs is in functions of
its own: a generator beside the short way would have every call allocate the cells of its closure.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, final

from voiced._native import ffi, lib
from voiced.formats import PCM16_4K, AudioFormat, Encoding

__all__ = [
    "ECHO_FORMAT",
    "Converter",
    "Echo",
    "EchoFrame",
    "EchoPath",
    "Quality",
    "alaw_to_pcm",
    "alaw_to_ulaw",
    "convert",
    "converter",
    "energy",
    "interleave",
    "mean_squares",
    "mix",
    "pcm_to_alaw",
    "pcm_to_ulaw",
    "ulaw_to_alaw",
    "ulaw_to_pcm",
]

Quality = Literal["fir", "linear"]

_ROOM: Final = 64 * 1024  # bytes; 200 ms of PCM16 at 48 kHz are 19,200


class _Scratch(threading.local):
    """Where a thread's native calls write: the memory, and a view of it to slice bytes from."""

    def __init__(self) -> None:
        memory = ffi.new("uint8_t[]", _ROOM)
        self.memory_and_view: tuple[Any, Any] = memory, ffi.buffer(memory)


_scratch = _Scratch()

_convert = lib.voiced_convert
_mean_square = lib.voiced_mean_square


def _pieces(data: bytes, step: int, convert: Callable[[bytes], bytes]) -> bytes:
    """What `convert` makes of `data`, no more than `step` bytes at a time."""
    return b"".join([convert(data[i : i + step]) for i in range(0, len(data), step)])


def _codec(native: Callable[..., None], width_in: int, width_out: int, what: str) -> Any:
    """A function from bytes to bytes for a native codec that takes samples one by one."""
    most = _ROOM // 2 * width_in  # bytes; as many samples have room at either width

    def convert(data: bytes) -> bytes:
        size = len(data)
        if size > most:
            return _pieces(data, most, convert)
        samples = size // width_in
        memory, view = _scratch.memory_and_view
        native(data, samples, memory)
        return view[: samples * width_out]  # type: ignore[no-any-return]

    convert.__doc__ = what
    return convert


ulaw_to_pcm: Final[Callable[[bytes], bytes]] = _codec(
    lib.voiced_ulaw_to_pcm, 1, 2, "G.711 mu-law to PCM16: two bytes for each."
)
alaw_to_pcm: Final[Callable[[bytes], bytes]] = _codec(
    lib.voiced_alaw_to_pcm, 1, 2, "G.711 A-law to PCM16: two bytes for each."
)
pcm_to_ulaw: Final[Callable[[bytes], bytes]] = _codec(
    lib.voiced_pcm_to_ulaw, 2, 1, "PCM16 to G.711 mu-law; an odd last byte is left out."
)
pcm_to_alaw: Final[Callable[[bytes], bytes]] = _codec(
    lib.voiced_pcm_to_alaw, 2, 1, "PCM16 to G.711 A-law; an odd last byte is left out."
)
ulaw_to_alaw: Final[Callable[[bytes], bytes]] = _codec(
    lib.voiced_ulaw_to_alaw, 1, 1, "Mu-law to A-law, by way of the PCM level."
)
alaw_to_ulaw: Final[Callable[[bytes], bytes]] = _codec(
    lib.voiced_alaw_to_ulaw, 1, 1, "A-law to mu-law, by way of the PCM level."
)

_ENCODINGS: Final = {
    Encoding.PCM16: lib.VOICED_PCM16,
    Encoding.PCMU: lib.VOICED_PCMU,
    Encoding.PCMA: lib.VOICED_PCMA,
}


@final
class Converter:
    """One direction of one stream from one format to another; made by `converter`.

    Not for two threads at once.
    """

    __slots__ = ("_delay_ms", "_most", "_state")

    def __init__(self, source: AudioFormat, target: AudioFormat, quality: Quality) -> None:
        self._state = ffi.new("voiced_converter *")
        fir = quality == "fir"
        if not lib.voiced_converter_init(
            self._state,
            _ENCODINGS[source.encoding],
            source.rate,
            _ENCODINGS[target.encoding],
            target.rate,
            fir,
        ):
            raise ValueError(
                f"no {quality!r} conversion from {source} to {target}: 'fir' goes between 8000, "
                "16000, 24000 and 48000 Hz, 'linear' between any rates from 4000 to 192000 Hz"
            )
        if source.rate == target.rate:
            self._delay_ms = 0.0
        elif fir:
            self._delay_ms = 1000 * self._state.tail / source.rate
        else:
            self._delay_ms = max(0.0, 1000 / source.rate - 1000 / target.rate)
        # Bytes whose result fits into the scratch memory, rounding and a carried half included.
        ratio = target.rate * target.sample_bytes / (source.rate * source.sample_bytes)
        self._most = int((_ROOM - 64) / max(ratio, 1))

    @property
    def delay_ms(self) -> float:
        """How much later sound leaves than it entered."""
        return self._delay_ms

    def convert(self, data: bytes) -> bytes:
        """The next part of the stream, cut anywhere, even within a sample.

        What comes out in all does not depend on the cuts. Equal frames in make equal frames out.
        """
        size = len(data)
        if size > self._most:
            return _pieces(data, self._most, self.convert)
        memory, view = _scratch.memory_and_view
        return view[: _convert(self._state, data, size, memory, _ROOM)]  # type: ignore[no-any-return]

    def flush(self) -> bytes:
        """The end of the stream: what the filter still held back, `delay_ms` of it.

        A new stream begins after it. Half a sample without its other half is forgotten.
        """
        memory, view = _scratch.memory_and_view
        return view[: lib.voiced_converter_flush(self._state, memory, _ROOM)]  # type: ignore[no-any-return]

    def reset(self) -> None:
        """Forget the stream so far, without its end; a new one begins."""
        lib.voiced_converter_reset(self._state)


def converter(
    source: AudioFormat, target: AudioFormat, quality: Quality = "fir"
) -> Converter | None:
    """What turns a stream of `source` into one of `target`; None where they are the same.

    Args:
        source: format of the data to come.
        target: format wanted.
        quality: `fir` filters: flat within 1 dB to 3.2 kHz (6.4 kHz where both rates exceed 8 kHz),
            images and aliases 40 dB down, 1 ms late at the most. `linear` interpolates: cheaper,
            for any rates, with images and aliases.

    Raises ValueError for rates that `quality` cannot convert.
    """
    return None if source == target else Converter(source, target, quality)


def convert(data: bytes, source: AudioFormat, target: AudioFormat) -> bytes:
    """All of `data` in another format, the filter's tail included. ValueError as `converter`."""
    stream = converter(source, target)
    return data if stream is None else stream.convert(data) + stream.flush()


def mean_squares(pcm16: bytes, frame_samples: int) -> list[float]:
    """The mean square (0 to 32768 squared) of each whole frame of `frame_samples` samples.

    What is left over at the end, less than a frame, is not looked at.
    """
    if frame_samples < 1:
        raise ValueError(f"a frame has at least one sample, not {frame_samples}")
    frames = len(pcm16) // (2 * frame_samples)
    out = ffi.new("double[]", frames)
    lib.voiced_mean_squares(pcm16, frames, frame_samples, out)
    return ffi.unpack(out, frames)  # type: ignore[no-any-return]


def energy(pcm16: bytes) -> float:
    """Root mean square of all samples, 0 to 32768; 0 for none."""
    return math.sqrt(_mean_square(pcm16, len(pcm16) // 2))


def _pairwise(native: Callable[..., None], channels: int, what: str) -> Any:
    """A function from two signals of PCM16 to one of `channels` times their samples."""
    most = _ROOM // channels  # bytes of either

    def convert(a: bytes, b: bytes) -> bytes:
        size = len(a)
        if size != len(b) or size % 2 or size > most:
            return _unlike(a, b, most, convert)
        memory, view = _scratch.memory_and_view
        native(a, b, size // 2, memory)
        return view[: size * channels]  # type: ignore[no-any-return]

    convert.__doc__ = what
    return convert


def _unlike(a: bytes, b: bytes, step: int, convert: Callable[[bytes, bytes], bytes]) -> bytes:
    """What `convert` makes of signals of any length, the shorter one with silence at its end."""
    size = max(len(a), len(b)) // 2 * 2
    a, b = a[:size].ljust(size, b"\0"), b[:size].ljust(size, b"\0")
    return b"".join([convert(a[i : i + step], b[i : i + step]) for i in range(0, size, step)])


mix: Final[Callable[[bytes, bytes], bytes]] = _pairwise(
    lib.voiced_mix,
    1,
    "Sum of two PCM16 signals, limited to 16 bits; the shorter one ends in silence.",
)
interleave: Final[Callable[[bytes, bytes], bytes]] = _pairwise(
    lib.voiced_interleave,
    2,
    "PCM16 stereo, left and right sample in turn; the shorter side ends in silence.",
)


ECHO_FORMAT: Final = PCM16_4K
"""What `Echo` takes: 4 kHz holds the pitch and the first formants of a voice, and digit tones."""


class EchoPath(NamedTuple):
    """Where the echo lies, if there is one."""

    lag: int  # samples at 4 kHz between its being played and its coming back
    runs: int  # of taps: reflections, and parts of a room's tail; 0: no echo is believed
    kept: bool  # they are those that explained an earlier echo
    peak: float  # how far the correlation at `lag` stands out over that at all lags
    share: float  # of the power that came back, explained by what was found now
    gain: float  # the echo's power beside that of what was played; 0 without an echo
    played: float  # the loudest 20 ms of what was played, as a frame's `near`
    low_played: float  # the same, as its `low_near`


class EchoFrame(NamedTuple):
    """20 ms of what came back. Powers are mean squares after an emphasis of high frequencies."""

    near: float  # all of it
    echo: float  # what a linear path explains by what was played
    rest: float  # what it does not explain
    low_near: float  # the same below 700 Hz, and with less of the emphasis: where pitch is told
    low_echo: float
    low_rest: float
    tone: float  # which share of the rest's power two digit tones hold, 0 to 1
    digit: int  # 4 * row + column of the keypad
    fresh: int  # 1: playback that began anew is first heard, maybe not where it was told to be;
    # 2: the line's delay has just changed


class _EchoWork(threading.local):
    """Where a thread analyses: 0.5 MB, made on first use, for all its calls."""

    def __init__(self) -> None:
        self.memory = ffi.new("voiced_echo_work *")
        lib.voiced_echo_work_init(self.memory)
        self.path = ffi.new("voiced_echo_path *")
        self.frames = ffi.new("voiced_echo_frame[]", lib.VOICED_ECHO_SPAN // lib.VOICED_ECHO_FRAME)
        self.view = ffi.buffer(self.frames)


_echo_work: _EchoWork | None = None
_ECHO_FRAME: Final = struct.Struct("=7f2i")


@final
class Echo:
    """What was played to a caller and what came back, in `ECHO_FORMAT`; finds one in the other.

    Remembers 2 s of what came back, and 4 s of what was played. Not for two threads at once.
    """

    __slots__ = ("_state",)

    SPAN: Final = lib.VOICED_ECHO_SPAN  # the most samples that are analysed at a time
    FRAME: Final = lib.VOICED_ECHO_FRAME  # samples

    def __init__(self) -> None:
        self._state = ffi.new("voiced_echo *")
        lib.voiced_echo_init(self._state)

    @property
    def near_end(self) -> int:
        """Samples that came back so far."""
        return int(self._state.near_end)

    @property
    def far_end(self) -> int:
        """The sample after the last one that was played."""
        return int(self._state.far_end)

    def near(self, pcm16: bytes) -> None:
        """What came back next."""
        lib.voiced_echo_near(self._state, pcm16, len(pcm16) // 2)

    def far(self, at: int, pcm16: bytes) -> None:
        """What was played from sample `at` on, instead of what was to be played from there on."""
        lib.voiced_echo_far(self._state, at, pcm16, len(pcm16) // 2)

    def clear(self, at: int) -> None:
        """What was to be played from sample `at` on was not."""
        lib.voiced_echo_clear(self._state, at)

    def analyse(
        self, start: int, samples: int, offset: int, earliest: int
    ) -> tuple[EchoPath, list[EchoFrame]]:
        """Judge the whole frames of `samples` (at the most `SPAN`) that came back from `start` on.

        Args:
            start: the first of them.
            samples: how many.
            offset: what came back as sample i came at the time of sample i + offset played.
            earliest: the least delay searched, in samples; may be negative. The greatest lies
                0.8 s later.
        """
        global _echo_work
        if _echo_work is None:
            _echo_work = _EchoWork()
        work = _echo_work
        count = lib.voiced_echo_analyse(
            self._state, work.memory, start, samples, offset, earliest, work.path, work.frames
        )
        found = work.path
        path = EchoPath(
            found.lag,
            found.runs,
            bool(found.kept),
            found.peak,
            found.share,
            found.gain,
            found.played,
            found.low_played,
        )
        raw = work.view[: count * _ECHO_FRAME.size]
        return path, [EchoFrame._make(fields) for fields in _ECHO_FRAME.iter_unpack(raw)]

    def voice(self, counts: bytes) -> float:
        """How much of a voice the rest holds, in frames of the last analysis by this thread.

        Args:
            counts: of each frame: 0 it does not count, 1 not where the rest has the echo's pitch,
                2 it does, 3 not the band of pitch counts but the envelope of what lies above.

        Returns:
            A sum over the best stretch whose pitch glides as voices do: 50 ms of a clear voice, or
            100 ms of a rough one, make 3; noise does not reach it.
        """
        assert _echo_work is not None  # nothing was analysed before
        return float(lib.voiced_echo_voice(_echo_work.memory, counts, len(counts)))
