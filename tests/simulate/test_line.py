"""The line's echo: what was heard, filtered, later and softer, on the telephone's own samples."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.interruption.recordings import Signal
from tests.simulate.server import LOUD, WORDS
from voiced import clips
from voiced.audio import alaw_to_ulaw, pcm_to_ulaw, ulaw_to_alaw, ulaw_to_pcm
from voiced.simulate.line import Line, LineEcho, path
from voiced.simulate.phone import Phone
from voiced.simulate.rtp_packets import RtpPacket, parse_rtp, rtp
from voiced.simulate.rtp_phone import RtpPhone
from voiced.simulate.script import Pause, Say, Script, Step
from voiced.simulate.sip_sdp import Media
from voiced.simulate.speech import FRAME_BYTES, SILENT_FRAME, is_loud
from voiced.simulate.wire import Identifiers

FRAME_US = 20_000
LINES = st.builds(Line, st.floats(-40, 0), st.integers(0, 400))
SOUNDS = st.binary(min_size=1, max_size=1200)


def pcm(ulaw: bytes) -> Signal:
    return np.frombuffer(ulaw_to_pcm(ulaw), "<i2").astype(np.float64)


def expected(line: Line, heard: bytes, said: bytes) -> bytes:
    """The same by another's arithmetic, all at once."""
    late = np.concatenate([np.zeros(8 * line.echo_ms), pcm(heard)])
    echo = np.rint(np.convolve(late, path(line.echo_db)))[: len(said)]
    both = np.clip(pcm(said) + np.clip(echo, -32768, 32767), -32768, 32767)
    return pcm_to_ulaw(both.astype("<i2").tobytes())


def same(a: bytes, b: bytes) -> bool:
    """Alike but for the two codes of nought, and for what rounding halves up or down may do."""
    return len(a) == len(b) and bool(np.all(np.abs(pcm(a) - pcm(b)) <= np.abs(pcm(b)) / 16 + 8))


@given(LINES, SOUNDS, st.data())
def test_it_is_what_was_heard_convolved_and_delayed(
    line: Line, heard: bytes, data: st.DataObject
) -> None:
    said = data.draw(st.binary(min_size=len(heard), max_size=len(heard)))
    assert same(LineEcho(line).back(heard, said), expected(line, heard, said))


@given(LINES, SOUNDS, st.lists(st.integers(0, 300), max_size=20))
def test_pieces_of_any_size_are_the_same(line: Line, heard: bytes, sizes: list[int]) -> None:
    said = heard[::-1]
    whole, echo, got, at = LineEcho(line).back(heard, said), LineEcho(line), b"", 0
    for size in [*sizes, len(heard)]:
        got += echo.back(heard[at : at + size], said[at : at + size])
        at = min(at + size, len(heard))
    assert pcm(got).tolist() == pcm(whole).tolist()


@given(LINES, st.binary(max_size=1200))
def test_silence_returns_nothing(line: Line, said: bytes) -> None:
    assert LineEcho(line).back(b"\xff" * len(said), said) is said


def test_one_time_for_both() -> None:
    with pytest.raises(ValueError, match="not one time"):
        LineEcho(Line(-15)).back(b"\xff" * 160, b"\xff" * 159)


@pytest.mark.parametrize("echo_db", [-40.0, -20.0, -15.0, -6.0, 0.0])
def test_the_level_is_that_of_speech(echo_db: float) -> None:
    """To a decibel: the band's upper end is missing."""
    said = np.frombuffer(clips.load("greeting").pcm, "<i2").astype(np.float64)
    echo = np.convolve(said, path(echo_db))
    assert 20 * math.log10(echo.std() / said.std()) == pytest.approx(echo_db, abs=1)


# ---- in the telephones


@dataclass
class OnTwilio:
    steps: tuple[Step, ...]
    line: Line | None
    sent: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        ids = Identifiers()
        self.phone = Phone(Script("test", "", self.steps), ids, line=self.line)
        self._head: dict[str, Any] = {"streamSid": ids.stream_sid}
        self.phone.begin({})

    def hear(self, at_us: int, ulaw: bytes) -> None:
        self.run_to(at_us)
        body = {"media": {"payload": base64.b64encode(ulaw).decode()}}
        self.phone.receive(at_us, json.dumps({"event": "media", **self._head, **body}))

    def clear(self, at_us: int) -> None:
        self.run_to(at_us)
        self.phone.receive(at_us, json.dumps({"event": "clear", **self._head}))

    def run_to(self, at_us: int) -> bytes:
        for text in self.phone.poll(at_us):
            message = json.loads(text)
            if message["event"] == "media":
                self.sent += base64.b64decode(message["media"]["payload"])
        return bytes(self.sent)


@dataclass
class OnSip:
    steps: tuple[Step, ...]
    line: Line | None
    codec: int = 0
    sent: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        media = Media("127.0.0.1", 4000, (self.codec,), {}, "sendrecv", 20, (), "")
        self.phone = RtpPhone(Script("test", "", self.steps), line=self.line)
        self.phone.answered(media, "a call")
        self._sequence = 0

    def hear(self, at_us: int, ulaw: bytes) -> None:
        """Over RTP audio comes as fast as it is heard."""
        for at in range(0, len(ulaw), FRAME_BYTES):
            due_us = at_us + 125 * at
            self.run_to(due_us)
            payload = ulaw[at : at + FRAME_BYTES].ljust(FRAME_BYTES, b"\xff")
            payload = ulaw_to_alaw(payload) if self.codec else payload
            packet = RtpPacket(self.codec, False, self._sequence, due_us // 125, 7, payload)
            self._sequence += 1
            self.phone.receive(due_us, rtp(packet))

    def clear(self, at_us: int) -> None:
        """Nothing more comes: there is nothing to take back."""
        self.run_to(at_us)

    def run_to(self, at_us: int) -> bytes:
        for is_rtcp, data in self.phone.poll(at_us):
            if not is_rtcp:
                payload = parse_rtp(data).payload
                self.sent += alaw_to_ulaw(payload) if self.codec else payload
        return bytes(self.sent)


def on_sip_in_a_law(steps: tuple[Step, ...], line: Line | None) -> OnSip:
    return OnSip(steps, line, codec=8)


Make = Callable[[tuple[Step, ...], Line | None], OnTwilio | OnSip]
PHONES: tuple[Make, ...] = (OnTwilio, OnSip, on_sip_in_a_law)
AGENT = pcm_to_ulaw(clips.load("greeting").pcm)[:16_000]


@pytest.mark.parametrize("make", PHONES)
@pytest.mark.parametrize("echo_ms", [0, 60, 250])
@pytest.mark.parametrize("at_us", [40_000, 103_125])
def test_what_goes_out_is_sample_by_sample_what_was_heard(
    make: Make, echo_ms: int, at_us: int
) -> None:
    """In a frame of its own or across two, while the caller speaks and while it does not."""
    line = Line(-12, echo_ms)
    wired = make((Pause(600), Say(WORDS), Pause(60_000)), line)
    wired.hear(at_us, AGENT)
    sent = wired.run_to(3_000_000)
    silent = make((Pause(600), Say(WORDS), Pause(60_000)), None)
    said = silent.run_to(3_000_000)
    heard = wired.phone.agent_audio()
    assert pcm(heard[at_us // 125 :][: len(AGENT)]).any()
    assert len(sent) == len(said) == 150 * FRAME_BYTES
    if make is on_sip_in_a_law:  # which has its own rounding: to a sixteenth, twice
        error = pcm(sent) - pcm(expected(line, heard, said))
        assert np.all(np.abs(error) <= np.abs(pcm(sent)) / 8 + 16)
    else:
        assert same(sent, expected(line, heard, said))
    assert wired.phone.caller_audio() == sent or make is on_sip_in_a_law


@pytest.mark.parametrize("make", PHONES[:2])
def test_an_echo_stops_with_what_is_heard(make: Make) -> None:
    """After a clear nothing more comes back than what was under way."""
    line, ms = Line(-6, 100), 8
    wired = make((Pause(60_000),), line)
    wired.hear(20_000, LOUD * (60 if isinstance(wired, OnTwilio) else 20))
    wired.clear(420_000)
    sent = wired.run_to(2_000_000)
    loud = [at // ms for at in range(0, len(sent), FRAME_BYTES) if is_loud(sent[at : at + 160])]
    assert loud[0] == 120
    assert loud[-1] == 500
    assert not pcm(sent[530 * ms :]).any()


def test_a_line_without_an_echo_sends_what_is_said() -> None:
    for line in (None, Line(-60, 20)):
        wired = OnTwilio((Pause(60_000),), line)
        wired.hear(20_000, bytes(reversed(range(0xF0, 0x100))) * 100)
        assert set(wired.run_to(1_000_000)) <= set(SILENT_FRAME)


@given(st.lists(st.integers(1, 90_000), max_size=30))
def test_whoever_polls_late_sends_the_same(waits: Iterable[int]) -> None:
    prompt, late = (OnTwilio((Pause(60_000),), Line(-10, 50)) for _ in range(2))
    for wired in (prompt, late):
        wired.hear(30_000, AGENT[:4000])
    for at_us in range(40_000, 1_000_001, FRAME_US):
        prompt.run_to(at_us)
    now = 30_000
    for wait in waits:
        now = min(now + wait, 1_000_000)
        late.run_to(now)
    assert late.run_to(1_000_000) == prompt.run_to(1_000_000)


@pytest.mark.parametrize(("echo_db", "echo_ms"), [(1, 0), (-61, 0), (-15, -1), (-15, 1001)])
def test_there_are_echoes_that_no_line_has(echo_db: float, echo_ms: int) -> None:
    with pytest.raises(ValueError, match=r"an echo is"):
        Line(echo_db, echo_ms)
