"""Both sides of a call on one time line: what came late or in steps becomes two even streams.

Pure: pieces in, with the time at which they were heard; whole stretches out, once nothing of them
can come any more. The call's clock rules: a side whose own clock is off is held to it sample by
sample, so that an hour stays an hour and nothing clicks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from voiced.plugin import (
    AudioFormat,
    Converter,
    Encoding,
    convert,
    converter,
    energy,
    interleave,
    mix,
)

__all__ = ["Timeline", "Track"]

JOIN_MS: Final = 25
"""Pieces that lie no further apart follow each other without a gap: clocks are read in steps of a
frame. What a step was wrong by is made up for in a silence, or by single samples."""

OVERLAP_MS: Final = 500
"""What says that it was heard before its predecessor had ended is put after it, up to this; of
more, the part that overlaps is left out."""

LATE_MS: Final = 2000
"""The caller's audio that claims to be older was counted wrongly, after a gap that nobody saw: it
is taken for new."""

EASE_MS: Final = 2  # nearer to its time than this is near enough
EASE_EVERY_MS: Final = 20  # one sample doubled or left out so often: a tenth of a semitone at most
QUIET: Final = 100.0  # root mean square, -50 dBFS: what is left out of it nobody misses


class Track:
    """One side, in the call's own format, from `base` on. Positions are samples since media."""

    def __init__(self, audio_format: AudioFormat, start: int = 0) -> None:
        self._format = audio_format
        self._pcm = AudioFormat(Encoding.PCM16, audio_format.rate)
        self._rate = audio_format.rate
        self._width = audio_format.sample_bytes
        self._ease = EASE_EVERY_MS * audio_format.bytes_per_ms
        self._since = 0  # bytes since a sample was doubled or left out
        self._silence = audio_format.silence(1)[: self._width]
        self._data = bytearray()
        self._start = self.base = start
        self.late = 0
        """Samples that came after their time had been taken, and are lost."""

    @property
    def end(self) -> int:
        """The position after the last sample."""
        return self.base + len(self._data) // self._width

    def add(self, payload: bytes, at_ms: int) -> None:
        """What was heard from `at_ms` on."""
        end = self.end
        off = at_ms * self._rate // 1000 - end
        off_ms = off * 1000 // self._rate
        if self._data and -OVERLAP_MS <= off_ms <= JOIN_MS:
            if not -EASE_MS <= off_ms <= EASE_MS:
                payload = self._eased(payload, off)
        elif off >= 0:
            self._data += self._silence * off
        else:
            if end + off >= self._start:  # what is older nobody wanted
                self.late += min(-off, len(payload) // self._width)
            payload = payload[-off * self._width :]
        self._data += payload

    def _eased(self, payload: bytes, off: int) -> bytes:
        """`payload`, nearer to its time by `off` samples if it is quiet, else by one in 20 ms."""
        width, out, start = self._width, bytearray(), 0
        if energy(convert(payload, self._format, self._pcm)) < QUIET:
            return payload[-off * width :] if off < 0 else self._silence * off + payload
        at = max(0, self._ease - self._since)
        while off and at + width <= len(payload):
            out += payload[start:at]
            start = at if off > 0 else at + width
            if off > 0:
                out += payload[at : at + width]
            off += -1 if off > 0 else 1
            at += self._ease
        self._since = len(payload) - at + self._ease
        return bytes(out + payload[start:])

    def take(self, until: int) -> bytes:
        """All before `until`, silence where nothing was heard; it is gone from here."""
        wanted = (until - self.base) * self._width
        if wanted <= 0:
            return b""
        taken = bytes(self._data[:wanted])
        del self._data[:wanted]
        self.base = until
        return taken + self._silence * ((wanted - len(taken)) // self._width)


class Timeline:
    """Caller and agent, and the stretches that nobody may keep."""

    def __init__(
        self,
        source: AudioFormat,
        target: AudioFormat,
        channels: int,
        *,
        start_ms: int = 0,
        keep_pauses: bool = True,
    ) -> None:
        """From the call's format to the file's: caller left and agent right, or both in one.

        Nothing is kept of what was heard before `start_ms`. With `keep_pauses` a pause is silence
        in the file, else it is left out.
        """
        self._source, self._target = source, target
        self._pcm = AudioFormat(Encoding.PCM16, target.rate)
        self._channels = channels
        self._keep_pauses = keep_pauses
        self._silence = source.silence(1)[: source.sample_bytes]
        self.rate = source.rate
        self.start_ms = start_ms
        start = self._position(start_ms)
        self.caller, self.agent = Track(source, start), Track(source, start)
        # With filters that remember: one a side, for as long as the recording lasts.
        self._converters = converter(source, self._pcm), converter(source, self._pcm)
        self._pauses: list[tuple[int, int]] = []  # in samples, in order, not yet taken
        self._paused_from: int | None = None
        self._paused = 0

    @property
    def paused(self) -> bool:
        """Whether nothing is kept now."""
        return self._paused_from is not None

    @property
    def paused_ms(self) -> int:
        """How much was not kept of what has been taken."""
        return self._paused * 1000 // self.rate

    @property
    def late_ms(self) -> int:
        """How much came too late to be kept."""
        return (self.caller.late + self.agent.late) * 1000 // self.rate

    def said(self, payload: bytes, at_ms: int, now_ms: int) -> None:
        """The caller's audio from `at_ms` on, which has come now."""
        length_ms = len(payload) // self._source.bytes_per_ms
        if at_ms + length_ms < now_ms - LATE_MS:
            at_ms = now_ms - length_ms
        self.caller.add(payload, at_ms)

    def pause(self, at_ms: int) -> None:
        """Keep nothing from `at_ms` on."""
        if self._paused_from is None:
            self._paused_from = self._position(at_ms)

    def resume(self, at_ms: int) -> None:
        """Keep what is heard from `at_ms` on."""
        if self._paused_from is not None:
            self._pauses.append((self._paused_from, self._position(at_ms)))
            self._paused_from = None

    def take(self, until_ms: int) -> bytes:
        """What the file gets next: all before `until_ms` that had not been taken."""
        begin, until = self.caller.base, self._position(until_ms)
        if until <= begin:
            return b""
        sides = self.caller.take(until), self.agent.take(until)
        stretches = [
            (start - begin, stop - begin, kept) for start, stop, kept in self._cut(begin, until)
        ]
        self._paused += sum(stop - start for start, stop, kept in stretches if not kept)
        if not all(kept for _, _, kept in stretches):
            sides = self._kept(sides[0], stretches), self._kept(sides[1], stretches)
        caller, agent = (
            side if each is None else each.convert(side)
            for side, each in zip(sides, self._converters, strict=True)
        )
        return self._together(caller, agent)

    def finish(self, until_ms: int) -> bytes:
        """The rest, up to the end of the call."""
        rest = self.take(until_ms)
        caller, agent = (_flushed(each) for each in self._converters)
        return rest + self._together(caller, agent)

    def _position(self, at_ms: int) -> int:
        return at_ms * self.rate // 1000

    def _cut(self, begin: int, until: int) -> Iterator[tuple[int, int, bool]]:
        """The stretches from `begin` to `until`, and whether each is kept."""
        pauses = list(self._pauses)
        if self._paused_from is not None:
            pauses.append((self._paused_from, until))
        for start, stop in pauses:
            start, stop = max(start, begin), min(stop, until)
            if start < stop:
                if begin < start:
                    yield begin, start, True
                yield start, stop, False
                begin = stop
        if begin < until:
            yield begin, until, True
        self._pauses = [(start, stop) for start, stop in self._pauses if stop > until]

    def _kept(self, side: bytes, stretches: list[tuple[int, int, bool]]) -> bytes:
        width = len(self._silence)
        return b"".join(
            side[start * width : stop * width]
            if kept
            else self._silence * ((stop - start) * self._keep_pauses)
            for start, stop, kept in stretches
        )

    def _together(self, caller: bytes, agent: bytes) -> bytes:
        pcm = interleave(caller, agent) if self._channels == 2 else mix(caller, agent)
        return convert(pcm, self._pcm, self._target)


def _flushed(each: Converter | None) -> bytes:
    return b"" if each is None else each.flush()
