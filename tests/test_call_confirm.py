"""Reversible barge-in in a call: pause at once, go on after an echo, yield to a caller."""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio

from tests.fakes import FACTS, FakeEngine, FakeLeg
from tests.interruption import sounds
from tests.interruption.lines import ulaw as coded
from tests.interruption.recordings import AGENT as PERSON
from tests.interruption.recordings import CALLERS, Signal, prompts
from tests.test_call import TICK, Scene
from voiced import clips
from voiced.audio import convert, ulaw_to_pcm
from voiced.call import Call, Services
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    Committed,
    Ready,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
)
from voiced.formats import PCM16_8K, PCMU_8K
from voiced.journal import Journal
from voiced.prompts import Prompts
from voiced.states import CallState

AGENT = clips.load("opening_hours").pcm[: 2 * 8000 * 6]
CALLER = clips.load("hours").pcm
ECHO_MS = 120


class Line(FakeLeg):
    """A line that knows what was heard when, and so what its echo is."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[tuple[float, bytes]] = []  # (heard from, audio)
        self.stops: list[int] = []  # bytes that had been heard at each clear

    def send(self, payload: bytes) -> None:
        self.pieces.append((max(trio.current_time(), self._play_until), payload))
        super().send(payload)

    def clear(self) -> int:
        now = trio.current_time()
        self.pieces = [
            (at, payload[: max(0, round((now - at) * 8000))]) for at, payload in self.pieces
        ]
        self.stops.append(sum(len(payload) for _, payload in self.pieces))
        return super().clear()

    def heard_whole(self, sound: bytes) -> None:
        """No hole, no repetition; but where it was stopped it went on from silence, in 5 ms."""
        heard = b"".join(payload for _, payload in self.pieces)
        assert len(heard) == len(sound)
        rises = {at for stop in self.stops for at in range(stop, stop + 40)}
        assert {at for at, code in enumerate(heard) if code != sound[at]} <= rises
        was, now = (abs(np.frombuffer(ulaw_to_pcm(each), "<i2")) for each in (sound, heard))
        assert (now <= was).all()

    def heard_at(self, since: float, size: int) -> bytes:
        """The `size` bytes that were heard from `since` on."""
        sound = bytearray(b"\xff" * size)
        for at, payload in self.pieces:
            start = round((at - since) * 8000)
            for index in range(max(0, start), min(size, start + len(payload))):
                sound[index] = payload[index - start]
        return bytes(sound)

    async def echo(self, gain: float, ms: int, caller: Signal | None = None) -> None:
        """For `ms` the caller's side carries what was played, later and softer, and the caller."""
        said = np.zeros(ms * 8)
        if caller is not None:
            said[: len(caller)] = caller[: len(said)]
        for start in range(0, len(said), 160):
            await trio.sleep(0.02)
            heard = self.heard_at(trio.current_time() - 0.02 - ECHO_MS / 1000, 160)
            back = np.frombuffer(convert(heard, PCMU_8K, PCM16_8K), "<i2") * gain
            self.say(coded(back + said[start : start + 160]))


def ulaw(pcm: bytes, gain: float = 1.0) -> bytes:
    samples = struct.unpack(f"<{len(pcm) // 2}h", pcm)
    scaled = struct.pack(f"<{len(samples)}h", *(round(each * gain) for each in samples))
    return convert(scaled, PCM16_8K, PCMU_8K)


@asynccontextmanager
async def speaking(answer: bytes = AGENT, **options: float) -> AsyncIterator[tuple[Scene, Line]]:
    """An agent that confirms is in the midst of an answer: PCM16 at 8 kHz."""
    engine, leg, journal = FakeEngine(), Line(), Journal(Path("unused"))
    agent = Agent(greeting="", barge_in="confirm", confirm_ms=400, **options)  # type: ignore[arg-type]
    call = Call(FACTS, "a", agent, engine, PCMU_8K, Services(journal, Prompts()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        call.attach(leg)
        scene = Scene(call, leg, engine, journal)
        scene.model.emit(
            Ready(),
            SpeechStarted("u1", 0),
            SpeechStopped("u1", 500),
            Committed("u1"),
            ResponseStarted("r1"),
            AgentAudio("r1", "a1", 0, ulaw(answer)),
            AgentTranscript("a1", clips.load("opening_hours").text, final=True),
            AgentAudioDone("r1", "a1"),
            ResponseDone("r1", "completed"),
        )
        await trio.sleep(TICK)
        assert ("respond", None) in scene.model.commands  # the session asks for nothing itself
        scene.model.commands.clear()
        yield scene, leg
        call.end("test_over")
        with trio.fail_after(30):
            await call.ended.wait()


async def line(scene: Scene, sound: bytes, ms: int, at: int = 0) -> int:
    """The caller's side of the line carries `sound` from byte `at` on for `ms`."""
    for _ in range(ms // 20):
        scene.leg.say(sound[at : at + 160].ljust(160, b"\xff"))
        at += 160
        await trio.sleep(0.02)
    return at


async def test_an_echo_pauses_and_the_answer_goes_on(autojump_clock: object) -> None:
    async with speaking() as (s, leg):
        await leg.echo(0.25, 600)
        s.model.emit(SpeechStarted("u2", 300))
        await trio.sleep(TICK)
        assert len(leg.clears) == 1  # paused at once
        assert s.at(CallState.SPEAKING)
        await leg.echo(0.25, 600)
        assert len(leg.clears) == 1
        s.model.emit(SpeechStopped("u2", 1200), Committed("u2"))
        await trio.sleep(10)
        leg.heard_whole(ulaw(AGENT))  # and the echo is forgotten
        assert ("delete", "u2") in s.model.commands
        assert ("respond", None) not in s.model.commands
    entries = s.rows()[-1].transcript
    assert [(entry.role, entry.cut) for entry in entries] == [("agent", False)]


async def test_a_caller_interrupts(autojump_clock: object) -> None:
    async with speaking() as (s, _):
        await line(s, b"", 600)
        at = await line(s, ulaw(CALLER), 300)
        s.model.emit(SpeechStarted("u2", 600))
        began = trio.current_time()
        await line(s, ulaw(CALLER), 440, at)
        assert s.at(CallState.CALLER_SPEAKING)
        assert len(s.leg.clears) >= 1
        truncations = [each for each in s.model.commands if each[0] == "truncate"]
        assert len(truncations) == 1
        assert abs(int(str(truncations[0][3])) - 901) <= 20  # nothing was heard since the pause
        s.model.emit(SpeechStopped("u2", 1500), Committed("u2"))
        await trio.sleep(TICK)
        assert s.model.commands[-1] == ("respond", None)
        assert s.call.record._barge_ins_ms[0] <= 400
        assert trio.current_time() - began < 0.5


async def test_a_caller_talks_over_an_echo_that_was_let_pass(autojump_clock: object) -> None:
    """The model's turn detection heard no end of speech; the caller is heard all the same."""
    async with speaking() as (s, leg):
        await leg.echo(0.25, 600)
        s.model.emit(SpeechStarted("u2", 300))
        await leg.echo(0.25, 1000)
        assert s.at(CallState.SPEAKING)
        await line(s, ulaw(CALLER), 1200)
        assert s.at(CallState.CALLER_SPEAKING)
        s.model.emit(SpeechStopped("u2", 2500), Committed("u2"))
        await trio.sleep(TICK)
        assert s.model.commands[-1] == ("respond", None)
        assert ("delete", "u2") not in s.model.commands


async def test_a_key_is_no_interruption(autojump_clock: object) -> None:
    tone = struct.pack(
        "<4000h",
        *(
            round(6000 * sum(math.sin(n * 2 * math.pi * hz / 8000) for hz in (770, 1336)))
            for n in range(4000)
        ),
    )
    async with speaking() as (s, _):
        await line(s, b"", 600)
        s.leg.press("5")
        at = await line(s, convert(tone, PCM16_8K, PCMU_8K), 120)
        s.model.emit(SpeechStarted("u2", 600))
        await line(s, convert(tone, PCM16_8K, PCMU_8K), 400, at)
        assert s.at(CallState.SPEAKING)
        await trio.sleep(8)
        assert s.call.voice.playout.idle
        assert s.call.voice.playout.statistics().dropped == 0


async def test_no_sound_comes_at_all(autojump_clock: object) -> None:
    """A line that delivers nothing while the judge waits: at the limit there is a decision."""
    async with speaking() as (s, _):
        await trio.sleep(0.5)
        s.model.emit(SpeechStarted("u2", 600))
        await trio.sleep(0.5)
        assert not s.call.dialogue.turns.confirming.pending  # type: ignore[union-attr]


async def test_hold_during_a_judgement(autojump_clock: object) -> None:
    async with speaking() as (s, leg):
        await leg.echo(0.25, 600)
        s.model.emit(SpeechStarted("u2", 300))
        await trio.sleep(TICK)
        s.leg.hold(True)
        await trio.sleep(3)
        assert s.at(CallState.ON_HOLD)
        played = s.leg.bytes_played()
        await trio.sleep(3)
        assert s.leg.bytes_played() == played
        s.leg.hold(False)
        await trio.sleep(10)
        assert s.call.voice.playout.statistics().heard == len(ulaw(AGENT))


@pytest.mark.parametrize("gain", [0.1, 0.25])
async def test_an_echo_that_never_ends_costs_one_pause(autojump_clock: object, gain: float) -> None:
    async with speaking() as (s, leg):
        await leg.echo(gain, 500)
        s.model.emit(SpeechStarted("u2", 300))
        await leg.echo(gain, 4000)
        assert len(leg.clears) == 1
        assert s.at(CallState.SPEAKING) or s.at(CallState.LISTENING)


def recorded() -> bytes:
    """Eight seconds of an agent, recorded by a person."""
    said = np.concatenate(prompts(PERSON, "held out", 2500, 60_000)[:4])[: 8 * 8000]
    return said.astype("<i2").tobytes()


def caller(index: int) -> Signal:
    return prompts(CALLERS["held out"][index], "held out", 900, 3000)[0]


@pytest.mark.parametrize("gain", [0.1, 0.25])
async def test_a_recorded_agent_is_not_cut_by_its_echo(autojump_clock: object, gain: float) -> None:
    """Two reports of speech: each pauses once, and all is heard in the end."""
    answer = recorded()
    async with speaking(answer) as (s, leg):
        for turn in ("u2", "u3"):
            await leg.echo(gain, 600)
            s.model.emit(SpeechStarted(turn, 300))
            await leg.echo(gain, 2000)
            s.model.emit(SpeechStopped(turn, 2600), Committed(turn))
            await leg.echo(gain, 200)
        assert len(leg.clears) == 2
        await trio.sleep(10)
        leg.heard_whole(ulaw(answer))


@pytest.mark.parametrize("who", [0, 1, 2])
@pytest.mark.parametrize("gain", [0.0, 0.25])
@pytest.mark.parametrize("let_pass", [False, True])
async def test_a_recorded_caller_interrupts_over_an_echo(
    autojump_clock: object, who: int, gain: float, let_pass: bool
) -> None:
    """At the beginning of the report, or after the echo was reported and let pass."""
    async with speaking(recorded()) as (s, leg):
        await leg.echo(gain, 600)
        if let_pass:
            s.model.emit(SpeechStarted("u2", 300))
            await leg.echo(gain, 1000)
            assert s.at(CallState.SPEAKING)
            await leg.echo(gain, 900, caller(who))
        else:
            await leg.echo(gain, 200, caller(who))
            s.model.emit(SpeechStarted("u2", 600))
            await leg.echo(gain, 600, caller(who)[1600:])
        assert s.at(CallState.CALLER_SPEAKING)


@pytest.mark.parametrize("gain", [0.0, 0.25])
@pytest.mark.parametrize("name", ["cough", "throat", "clicks"])
async def test_a_cough_does_not_cut_a_recorded_agent(
    autojump_clock: object, gain: float, name: str
) -> None:
    answer = recorded()
    async with speaking(answer) as (s, leg):
        await leg.echo(gain, 600)
        sound = sounds.COUGHS[name](np.random.default_rng(2))
        await leg.echo(gain, 120, sound)
        s.model.emit(SpeechStarted("u2", 600))
        await leg.echo(gain, 1500, sound[960:])
        s.model.emit(SpeechStopped("u2", 2000), Committed("u2"))
        await trio.sleep(12)
        assert len(leg.clears) == 1
        leg.heard_whole(ulaw(answer))
