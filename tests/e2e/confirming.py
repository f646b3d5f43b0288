"""Calls to agents that confirm interruptions, and what of the model's audio their callers heard.

The daemon and the callers share this process, the model has one of its own; between the two a tap
listens in. Calls run side by side; they are judged when all of them are over. One that fails where
this process was kept waiting is held again, in smaller company.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Literal

import trio

from tests.e2e.house import SOON_S, House, house, nothing_is_left
from tests.e2e.tap import Session, Tap
from voiced.formats import PCMU_8K
from voiced.simulate import CallResult, Script
from voiced.simulate import call as call_over_twilio
from voiced.simulate.line import Line
from voiced.simulate.script import Step
from voiced.simulate.sip_caller import call as call_over_sip
from voiced.simulate.speech import FRAME_BYTES, is_loud
from voiced.talk.fading import fade_in, fade_samples

__all__ = [
    "CARRIERS",
    "MS",
    "SILENCE",
    "Carrier",
    "Followed",
    "Held",
    "Outcomes",
    "Pause",
    "Scene",
    "follow",
    "hold_calls",
    "kinds_of",
]

MS: Final = PCMU_8K.bytes_per_ms
SILENCE: Final = PCMU_8K.silence(1)[0]
AT_ONCE: Final = (6, 3, 2)
"""Each call costs this process what it costs the daemon, the caller and the tap; and the same for
those that are held again: any that failed, since one whose echo stops nothing the
second time comes up now and then on a quiet machine too: why is not known yet."""
AGAIN_S: Final = 100.0
"""No call is held again later than that: the machine will not get any quieter."""
BUFFER_MS: Final = 60  # of a telephone's
APART_S: Final = 0.15
ALIKE: Final = 25 * MS  # of sound that is the same is no chance
RISE: Final = fade_samples(PCMU_8K)
SHORTEST: Final = 10 * MS  # a shorter hole is no pause, but a process that was kept waiting
FURTHEST: Final = 2000 * MS

Carrier = Literal["twilio", "sip"]
CARRIERS: Final[tuple[Carrier, ...]] = ("twilio", "sip")


@dataclass(frozen=True)
class Scene:
    """One call, to a number, an agent and an engine of its own.

    `during` runs beside the call with the model's session, and is cancelled when the call ends.
    `check` raises AssertionError where it was not as it should be.
    """

    name: str
    carrier: Carrier
    number: str
    steps: tuple[Step, ...]
    line: Line | None
    agent: str
    check: Callable[[Held], None]
    during: Callable[[Session], Awaitable[None]] | None = None

    def tables(self, port: int) -> str:
        """Its part of the configuration."""
        return (
            f'[engine.{self.name}]\nkind = "realtime"\nserver = "other"\nmodel = "{self.name}"\n'
            f'url = "ws://127.0.0.1:{port}/v1/realtime"\n'
            'input_format = "pcmu"\noutput_format = "pcmu"\n'
            f'[agent.{self.name}]\nengine = "{self.name}"\nbarge_in = "confirm"\n{self.agent}\n'
            f'[[number]]\nmatch = "{self.number}"\nagent = "{self.name}"\n'
        )


# ---- what is heard


@dataclass(frozen=True, slots=True)
class Pause:
    """A hole in what the model said, all in samples.

    Playback went on `shift` later in it than where it had stopped: less than 0 is heard twice.
    """

    at: int  # in what the model sent
    heard_at: int  # in the call
    length: int
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Followed:
    """How a caller heard what the model sent."""

    end: int  # samples of it until it was heard no more
    pauses: tuple[Pause, ...]
    rest: bytes  # what was heard after it, but for silence at both ends


def follow(heard: bytes, sent: bytes) -> Followed:
    """Find `sent` in `heard`, sample by sample: only silence may have been put in between.

    Behind a hole playback may go on a little earlier or later in it, and says so; there it rises.
    It rises without a hole where it went on before the next packet was due.
    """
    pauses: list[Pause] = []
    at = quiet = place = 0
    while place < len(heard) and at < len(sent):
        value = heard[place]
        goes_on = quiet < SHORTEST and value in (SILENCE, sent[at])
        if not goes_on and value != SILENCE and (risen := _risen(heard, place, sent, at)):
            begin, since, shift = risen
            pauses.append(Pause(at, place - quiet, quiet - (place - since), shift))
            at, place, quiet = begin + RISE, since + RISE, 0
            continue
        if value == sent[at]:
            if quiet >= SHORTEST:
                pauses.append(Pause(at, place - quiet, quiet))
            at, quiet = at + 1, 0
        elif value == SILENCE:
            quiet += 1
        else:
            by = _shift(heard[place : place + ALIKE], sent, at)
            if by is None:
                break
            pauses.append(Pause(at, place - quiet, quiet, by))
            at, quiet = at + by, 0
            continue
        place += 1
    rest = heard[place - quiet :].strip(bytes([SILENCE]))
    return Followed(at, tuple(pauses), rest)


def _shift(piece: bytes, sent: bytes, at: int) -> int | None:
    reach = range(max(-FURTHEST, -at), FURTHEST + 1)
    return next((by for by in sorted(reach, key=abs) if sent.startswith(piece, at + by)), None)


def _risen(heard: bytes, place: int, sent: bytes, at: int) -> tuple[int, int, int] | None:
    """Where in `sent`, and in `heard`, a rise began whose first sample not silent is at `place`.

    And how much later in `sent` than at `at` that is.
    """
    by = _shift(heard[place + RISE : place + RISE + ALIKE], sent, at + RISE)
    if by is None:
        return None
    # As much of it as is silent may have been taken for the hole, or for what came before it.
    begins = [
        (at + by - back, place - back)
        for back in range(min(RISE, at + by))
        if heard[place - back :][:RISE] == fade_in(sent[at + by - back :][:RISE], PCMU_8K)
    ]
    if not begins:
        return None
    begin, since = min(begins, key=lambda each: abs(each[0] - at))
    quiet = not sent[min(begin, at) : max(begin, at)].strip(bytes([SILENCE]))
    return begin, since, 0 if quiet else begin - at


def _quiet(sound: bytes) -> bool:
    """Whether there is something, and nothing is said in it."""
    frames = (sound[at : at + FRAME_BYTES] for at in range(0, len(sound), FRAME_BYTES))
    return bool(sound) and not any(map(is_loud, frames))


@dataclass
class Held:
    """A call that is over."""

    result: CallResult
    row: Mapping[str, Any]
    sessions: list[Session]

    @property
    def session(self) -> Session:
        """The only session."""
        (session,) = self.sessions
        return session

    @property
    def states(self) -> list[str]:
        """The call's, in order."""
        return [state for state, _ in self.row["states"]]

    def said(self, role: str) -> list[tuple[str, bool]]:
        """What the journal says was said, and whether it was cut."""
        entries = self.row["transcript"]
        return [(each["text"], each["cut"]) for each in entries if each["role"] == role]

    def items(self) -> list[bytes]:
        """The model's audio, in the order in which it was made."""
        return [bytes(audio) for session in self.sessions for audio in session.audio.values()]

    @cached_property
    def followed(self) -> Followed:
        """How all of it was heard."""
        return follow(self.result.agent_ulaw, b"".join(self.items()))

    def pauses_within(self, item: int, least_ms: int) -> list[Pause]:
        """The pauses in the midst of an item."""
        ends = list(accumulate(len(each) for each in self.items()))
        begin = ends[item] - len(self.items()[item])
        return [
            pause
            for pause in self.followed.pauses
            if begin + MS < pause.at < ends[item] and pause.length >= least_ms * MS
        ]

    def off_ms(self) -> float:
        """How far from where it stopped playback went on after a pause, at worst.

        A telephone that lags behind what comes over RTP leaves out frames in which nothing is said.
        """
        sent = b"".join(self.items())
        return max(
            (
                abs(pause.shift) / MS
                for pause in self.followed.pauses
                if self.result.sip is None or not _quiet(sent[pause.at :][: max(0, pause.shift)])
            ),
            default=0.0,
        )

    def all_was_heard(self) -> None:
        """Whole and in order, but for pauses, after which it goes on where it stopped.

        Over SIP that is exact, since we play ourselves. A carrier that plays for us and is told to
        stop says nothing of how far it has come: a frame, and as much as this process stood still.
        """
        followed, sent = self.followed, b"".join(self.items())
        least = len(sent.rstrip(bytes([SILENCE])))
        assert followed.end >= least, f"heard {followed.end} of {least} samples"
        assert not followed.rest
        assert self.off_ms() <= (0 if self.result.sip else 20 + self.result.lag_ms)

    def nobody_was_cut(self) -> None:
        """No interruption: neither the model was told of one, nor does the journal know one."""
        told = [kind for session in self.sessions for kind in kinds_of(session)]
        assert "conversation.item.truncate" not in told
        assert "response.cancel" not in told
        assert self.row["latencies"]["barge_ins_ms"] == []
        assert not any(cut for _, cut in self.said("agent"))


def kinds_of(session: Session) -> list[str]:
    """The types of all events but audio, both ways, in order."""
    return [each.kind for each in session.heard]


# ---- calls


@dataclass
class Stage:
    """What all calls share."""

    here: House
    tap: Tap
    held: dict[str, Held] = field(default_factory=dict)


Outcomes = dict[str, Exception | None]


async def hold_calls(folder: Path, scenes: Mapping[str, Scene]) -> Outcomes:
    """Hold them all, and say of each what was wrong. Nothing of them is left when it returns."""
    outcomes: Outcomes = {}
    async with trio.open_nursery() as nursery, _model() as model_port:
        tap = Tap(model_port)
        port = await nursery.start(tap.run)
        text = '[sip]\nlisten = ["udp://127.0.0.1:0"]\n[[sip.trunk]]\nname = "carrier"\n'
        text += 'host = "127.0.0.1"\nallow = ["127.0.0.1/32"]\n'
        text += "".join(scene.tables(port) for scene in scenes.values())
        async with house(folder, text) as here:
            stage, due = Stage(here, tap), list(scenes.values())
            patience = trio.current_time() + AGAIN_S
            for at_once in AT_ONCE:
                await _round(stage, due, at_once)
                await nothing_is_left(here)
                outcomes |= {scene.name: _outcome(scene, stage) for scene in due}
                due = [each for each in due if outcomes[each.name]]
                if trio.current_time() > patience:
                    break
        nursery.cancel_scope.cancel()
    return outcomes


async def _round(stage: Stage, scenes: Sequence[Scene], at_once: int) -> None:
    few = trio.Semaphore(at_once)

    async def hold(scene: Scene) -> None:
        async with few:
            await _hold(stage, scene)

    async with trio.open_nursery() as nursery:
        for scene in scenes:
            nursery.start_soon(hold, scene)
            await trio.sleep(APART_S)


def _outcome(scene: Scene, stage: Stage) -> Exception | None:
    held = stage.held[scene.name]
    try:
        assert (held.result.failure, held.result.violations) == (None, ())
        assert held.row["reason"] == "caller_hangup"
        scene.check(held)
    except Exception as error:  # an AssertionError mostly, or another number of things
        error.add_note(f"the caller was kept waiting for {held.result.lag_ms:.0f} ms at worst")
        return error
    return None


@asynccontextmanager
async def _model() -> AsyncIterator[int]:
    """An emulator in a process of its own; its port."""
    command = [sys.executable, "-u", "-m", "voiced", "emulator"]
    command += ["--listen", "127.0.0.1:0", "--speech", "clips"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = b""
        with trio.fail_after(SOON_S):
            while not line.endswith(b"\n"):
                data = await process.stdout.receive_some()
                assert data, "the emulator did not start"
                line += data
        yield int(line.split(b"ws://", 1)[1].partition(b"/")[0].rpartition(b":")[2])
    finally:
        process.terminate()
        with trio.CancelScope(shield=True), trio.move_on_after(SOON_S):
            await process.wait()
        await process.stdout.aclose()


async def _hold(stage: Stage, scene: Scene) -> None:
    script, before = Script(scene.name, "", scene.steps), len(stage.tap.of(scene.name))
    async with trio.open_nursery() as nursery:
        if scene.during is not None:
            nursery.start_soon(_beside, stage, scene.name, before, scene.during)
        if scene.carrier == "sip":
            (line,) = (each for each in stage.here.logs if each["event"] == "sip listening")
            address = str(line["addresses"][0]).partition("://")[2]
            uri = f"sip:{scene.number}@{address}"
            result = await call_over_sip(
                script, uri=uri, line=scene.line, buffer_ms=BUFFER_MS, deadline_s=60
            )
        else:
            url = stage.here.webhook
            result = await call_over_twilio(
                script, webhook_url=url, to=scene.number, line=scene.line, deadline_s=60
            )
        nursery.cancel_scope.cancel()
    row = await stage.here.row(result.call_sid)
    stage.held[scene.name] = Held(result, row, stage.tap.of(scene.name)[before:])


async def _beside(
    stage: Stage, name: str, before: int, during: Callable[[Session], Awaitable[None]]
) -> None:
    while len(stage.tap.of(name)) == before:
        await trio.sleep(0.02)
    await during(stage.tap.of(name)[before])
