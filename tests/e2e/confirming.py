"""Calls to agents that confirm interruptions, and what of the model's audio their callers heard.

The daemon, the callers and the model share this process and a clock of its own (`virtual`); between
daemon and model a tap listens in. Calls run side by side; they are judged when all of them are
over. Of one that fails everything is kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Literal

import trio

from tests.e2e.house import TRUNK, House, house, nothing_is_left, sip_address
from tests.e2e.tap import Session, Tap
from voiced.emulator.options import EmulatorOptions
from voiced.emulator.server import serve
from voiced.formats import PCMU_8K
from voiced.simulate import CallResult, Script
from voiced.simulate import call as call_over_twilio
from voiced.simulate.events import CallEvent, MediaStarted
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
    began_s: float = 0.0  # on Trio's clock, as the times of the next
    seen: Sequence[tuple[float, CallEvent]] = ()
    """What happened at the caller's, and when it was told."""
    lines: Sequence[Mapping[str, Any]] = ()
    """The daemon's log of this call, debug lines included."""

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

    def timeline(self) -> list[str]:
        """What happened when, in seconds of the call, by model, daemon and caller."""
        lines = [(at_s, f"caller  {event}") for at_s, event in self.seen]
        for session in self.sessions:
            for heard in session.heard:
                told = {key: value for key, value in heard.event.items() if key in _TELLING}
                lines.append((heard.at_s, f"{heard.side:7} {heard.kind} {told or ''}"))
        media = next((at_s for at_s, each in self.seen if isinstance(each, MediaStarted)), 0.0)
        lines += [
            (media + line["at_ms"] / 1000, _JUDGED.format_map(line))
            for line in self.lines
            if line["event"] == "speech judged"
        ]
        return [f"{at_s - self.began_s:8.3f} {text}" for at_s, text in sorted(lines)]

    def evidence(self) -> str:
        """What of all that decides most failures."""
        skipped_ms = (self.row.get("media") or {}).get("skipped_ms", 0)
        told = [line for line in self.timeline() if any(word in line for word in _DECIDING)]
        lines = [
            f"the caller was late by {self.result.lag_ms:.0f} ms at worst, "
            f"{skipped_ms} ms were skipped",
            f"items of {[len(item) // MS for item in self.items()]} ms, of which "
            f"{self.followed.end // MS} ms were heard, "
            f"and then {len(self.followed.rest) // MS} ms of something else",
            *(f"{pause}" for pause in self.followed.pauses),
            *told,
        ]
        return "\n".join(lines)


_JUDGED: Final = "daemon  judged {verdict} after {after_ms} ms, paused: {paused}"
_TELLING: Final = ("item_id", "audio_start_ms", "audio_end_ms", "response_id")
_DECIDING: Final = ("speech_", "judged", "response.c", ".delete", ".truncate", "committed")


class Watching:
    """What happens at the caller's, with Trio's time."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, CallEvent]] = []

    def __call__(self, event: CallEvent) -> None:
        """See `voiced.simulate.events.Observer`."""
        self.seen.append((trio.current_time(), event))


def kinds_of(session: Session) -> list[str]:
    """The types of all events but audio, both ways, in order."""
    return [each.kind for each in session.heard]


# ---- calls


@dataclass
class Stage:
    """What all calls share."""

    here: House
    tap: Tap
    folder: Path
    held: dict[str, Held] = field(default_factory=dict)


Outcomes = dict[str, Exception | None]


async def hold_calls(folder: Path, scenes: Mapping[str, Scene]) -> Outcomes:
    """Hold them all, and say of each what was wrong. Nothing of them is left when it returns.

    Of a call that went wrong `folder` keeps what was heard and said, and what happened when.
    """
    outcomes: Outcomes = {}
    options = EmulatorOptions(speech="clips")
    async with trio.open_nursery() as nursery:
        tap = Tap(await nursery.start(partial(serve, "127.0.0.1", 0, options)))
        port = await nursery.start(tap.run)
        text = TRUNK + "".join(scene.tables(port) for scene in scenes.values())
        async with house(folder, text) as here:
            stage = Stage(here, tap, folder)
            async with trio.open_nursery() as calls:
                for scene in scenes.values():
                    calls.start_soon(_hold, stage, scene)
                    await trio.sleep(APART_S)
            await nothing_is_left(here)
            outcomes |= {scene.name: _outcome(scene, stage) for scene in scenes.values()}
        nursery.cancel_scope.cancel()
    return outcomes


def _outcome(scene: Scene, stage: Stage) -> Exception | None:
    held = stage.held[scene.name]
    try:
        assert (held.result.failure, held.result.violations) == (None, ())
        assert held.row["reason"] == "caller_hangup"
        scene.check(held)
    except Exception as error:  # an AssertionError mostly, or another number of things
        held.result.write_wav(stage.folder / f"{scene.name}.wav")
        (stage.folder / f"{scene.name}.txt").write_text("\n".join(held.timeline()), "utf-8")
        error.add_note(held.evidence())
        error.add_note(f"the whole timeline and what was heard: {stage.folder}/{scene.name}.*")
        return error
    return None


async def _hold(stage: Stage, scene: Scene) -> None:
    script = Script(scene.name, "", scene.steps)
    began, observer = trio.current_time(), Watching()
    async with trio.open_nursery() as nursery:
        if scene.during is not None:
            nursery.start_soon(_beside, stage, scene.name, scene.during)
        if scene.carrier == "sip":
            result = await call_over_sip(
                script,
                uri=f"sip:{scene.number}@{sip_address(stage.here.logs)}",
                line=scene.line,
                buffer_ms=BUFFER_MS,
                deadline_s=60,
                observer=observer,
            )
        else:
            result = await call_over_twilio(
                script,
                webhook_url=stage.here.webhook,
                to=scene.number,
                line=scene.line,
                deadline_s=60,
                observer=observer,
            )
        nursery.cancel_scope.cancel()
    row = await stage.here.row(result.call_sid)
    lines = [each for each in stage.here.logs if each.get("call") == row["call_id"]]
    stage.held[scene.name] = Held(
        result, row, stage.tap.of(scene.name), began, observer.seen, lines
    )


async def _beside(stage: Stage, name: str, during: Callable[[Session], Awaitable[None]]) -> None:
    while not stage.tap.of(name):
        await trio.sleep(0.02)
    await during(stage.tap.of(name)[0])
