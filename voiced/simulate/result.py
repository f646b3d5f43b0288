"""What a simulated call was like for the caller: times, latencies, gaps, interruptions, checks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from voiced import wav
from voiced.audio import interleave, ulaw_to_pcm
from voiced.formats import FRAME_MS, PCM16_8K
from voiced.simulate.bargein import BargeIn
from voiced.simulate.events import (
    AgentStopped,
    CallerStarted,
    CallerStopped,
    CallEvent,
    DigitPressed,
    HungUp,
    Violation,
)
from voiced.simulate.figures import RtpFigures, SipFigures
from voiced.simulate.playbuffer import US_PER_BYTE
from voiced.simulate.telephone import Telephone

__all__ = ["CallResult", "Gap", "Interruption", "Setup", "Utterance", "judge"]

GAP_LIMIT_MS = 1000
"""A longer silence is taken for the end of what the agent said, not for a hole in it. Prompts that
are meant to follow each other more closely, a tone and a delayed greeting, do look like a hole."""
KEY_MS = 500
"""What a key sets off, such as that the agent falls silent and says something else, begins within
so long: keys take their time over RTP, and no carrier tells there that its buffer was emptied."""
GREETING_MS = 300
ANSWER_MS = 200
CLEAR_LIMIT_MS = 1500
"""Detection of speech takes some 100 to 300 ms; a caller gives up on talking over later ones."""


@dataclass(slots=True)
class Setup:
    """How the call came about, noted as it does."""

    script: str
    call_sid: str
    failure: str | None = None
    webhook_ms: float | None = None
    setup_ms: float | None = None  # webhook or INVITE sent to media stream open or 200
    next_verbs: tuple[str, ...] = ()
    close_code: int | None = None
    sip: SipFigures | None = None
    rtp: RtpFigures | None = None


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something said, in ms since media start. Of the caller's: `answer_ms` to the first answer."""

    start_ms: float
    end_ms: float
    clip: str | None = None
    cut: bool = False  # of the agent's: ended by a clear
    interrupting: bool = False
    answer_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Interruption:
    """A barge-in, in ms; positions since media start. `clear_ms` None: no clear ever came."""

    clip: str
    start_ms: float  # the caller's first loud frame
    clear_ms: float | None  # the clear reached the carrier
    reaction_ms: float | None  # between the two
    played_after_ms: float  # agent audio heard between the two
    discarded_ms: float  # thrown out by the clear
    stale_ms: float  # audio that came after the clear and belongs to before it
    cut: bool  # the clear stopped audio that was sounding

    @property
    def clean(self) -> bool:
        """Cut off soon, and nothing stale after it."""
        soon = self.reaction_ms is not None and self.reaction_ms <= CLEAR_LIMIT_MS
        return soon and self.cut and self.stale_ms == 0


@dataclass(frozen=True, slots=True)
class Gap:
    """The agent's audio ran dry in the middle of what it said."""

    start_ms: float
    duration_ms: float


@dataclass(frozen=True, slots=True)
class CallResult:
    """A finished call. Times are milliseconds since the media started, unless said otherwise."""

    script: str
    call_sid: str
    failure: str | None  # None: the script ran to its end
    webhook_ms: float | None  # the webhook's answer, since it was asked
    setup_ms: float | None  # the open stream, since then; over SIP the 200, since the INVITE
    duration_ms: float
    ended_by: str | None  # "caller", "agent", "line"; None: no stream was ever open
    close_code: int | None  # of the WebSocket, when the agent's side closed it
    unheard_ms: float  # agent audio still queued at the end
    next_verbs: tuple[str, ...]
    first_audio_ms: float | None  # the first agent audio reached the carrier
    agent: tuple[Utterance, ...]
    caller: tuple[Utterance, ...]
    interruptions: tuple[Interruption, ...]
    gaps: tuple[Gap, ...]
    violations: tuple[Violation, ...]
    violation_count: int  # may exceed those kept
    lost_frames: int  # caller audio the server was too slow to take
    lag_ms: float  # how late the simulation itself was at worst
    sip: SipFigures | None  # of a call over SIP
    rtp: RtpFigures | None
    events: tuple[CallEvent, ...] = field(repr=False)
    caller_ulaw: bytes = field(repr=False)
    agent_ulaw: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether all went well: script done, protocol kept, no gap, interruptions clean."""
        return (
            self.failure is None
            and not self.violation_count
            and not self.gaps
            and not self.lost_frames
            and all(interruption.clean for interruption in self.interruptions)
        )

    @property
    def answers_ms(self) -> tuple[float, ...]:
        """Milliseconds from the end of the caller's words to the first word of each answer."""
        return tuple(said.answer_ms for said in self.caller if said.answer_ms is not None)

    def heard_greeting(self) -> bool:
        """Whether the agent spoke before the caller did."""
        first_word = self.caller[0].start_ms if self.caller else self.duration_ms
        return any(
            min(said.end_ms, first_word) - said.start_ms >= GREETING_MS for said in self.agent
        )

    def heard_answer(self) -> bool:
        """Whether something the caller said was answered with speech."""
        return any(
            said.answer_ms is not None and _length_at(self.agent, said) >= ANSWER_MS
            for said in self.caller
        )

    def clean_barge_in(self) -> bool:
        """Whether the caller interrupted, and every interruption was heeded at once and wholly."""
        return bool(self.interruptions) and all(each.clean for each in self.interruptions)

    def stereo_pcm(self) -> bytes:
        """Return PCM16 at 8 kHz, left the caller, right what it heard; empty when unrecorded."""
        return interleave(ulaw_to_pcm(self.caller_ulaw), ulaw_to_pcm(self.agent_ulaw))

    def write_wav(self, path: Path) -> None:
        """Write `stereo_pcm` as a WAV file. Raises OSError."""
        wav.write_stereo(path, self.stereo_pcm(), PCM16_8K.rate)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the audio, in JSON's types; `timeline` in order of time."""
        fields = asdict(self)
        for name in ("events", "caller_ulaw", "agent_ulaw"):
            del fields[name]
        fields["ok"] = self.ok
        fields["checks"] = {
            "heard_greeting": self.heard_greeting(),
            "heard_answer": self.heard_answer(),
            "clean_barge_in": self.clean_barge_in(),
        }
        fields["timeline"] = [
            {"event": type(event).__name__, **asdict(event)}
            for event in sorted(self.events, key=lambda event: event.at_ms)
        ]
        return fields


def judge(setup: Setup, phone: Telephone) -> CallResult:
    """Draw up the result of a call that is over, or was broken off."""
    agent = tuple(
        Utterance(event.started_ms, event.at_ms, cut=event.cut)
        for event in phone.events
        if isinstance(event, AgentStopped)
    )
    caller = _caller_utterances(phone.events, agent)
    hung_up = next((event for event in phone.events if isinstance(event, HungUp)), None)
    failure = setup.failure or phone.failure
    if failure is None and not phone.script_finished:
        failure = "the call was broken off"
    return CallResult(
        script=setup.script,
        call_sid=setup.call_sid,
        failure=failure,
        webhook_ms=setup.webhook_ms,
        setup_ms=setup.setup_ms,
        duration_ms=phone.frames * float(FRAME_MS)
        if phone.ended_us is None
        else phone.ended_us / 1000,
        ended_by=hung_up.by if hung_up else None,
        close_code=setup.close_code,
        unheard_ms=hung_up.unheard_ms if hung_up else 0.0,
        next_verbs=setup.next_verbs,
        first_audio_ms=None if phone.first_audio_us is None else phone.first_audio_us / 1000,
        agent=agent,
        caller=caller,
        interruptions=tuple(_interruption(each) for each in phone.barge_ins.all),
        gaps=_gaps(phone, caller),
        violations=tuple(event for event in phone.events if isinstance(event, Violation)),
        violation_count=phone.violation_count,
        lost_frames=phone.lost_frames,
        lag_ms=phone.worst_lag_us / 1000,
        sip=setup.sip,
        rtp=setup.rtp,
        events=tuple(phone.events),
        caller_ulaw=phone.caller_audio(),
        agent_ulaw=phone.agent_audio(),
    )


def _caller_utterances(
    events: list[CallEvent], agent: tuple[Utterance, ...]
) -> tuple[Utterance, ...]:
    started = [event for event in events if isinstance(event, CallerStarted)]
    stopped = [event for event in events if isinstance(event, CallerStopped)]
    said: list[Utterance] = []
    for index, (start, stop) in enumerate(zip(started, stopped, strict=False)):
        following = started[index + 1].at_ms if index + 1 < len(started) else float("inf")
        # Speech that began before the caller had finished is no answer to it.
        answers = [
            each.start_ms - stop.at_ms for each in agent if stop.at_ms <= each.start_ms < following
        ]
        said.append(
            Utterance(
                start.at_ms,
                stop.at_ms,
                start.clip,
                interrupting=start.interrupting,
                answer_ms=answers[0] if answers else None,
            )
        )
    return tuple(said)


def _length_at(agent: tuple[Utterance, ...], said: Utterance) -> float:
    """How long the speech was that answered `said`."""
    assert said.answer_ms is not None
    at_ms = said.end_ms + said.answer_ms
    return next(each.end_ms - each.start_ms for each in agent if each.start_ms == at_ms)


def _interruption(barge_in: BargeIn) -> Interruption:
    start, clear = barge_in.started_us, barge_in.cleared_us
    return Interruption(
        clip=barge_in.clip,
        start_ms=start / 1000,
        clear_ms=None if clear is None else clear / 1000,
        reaction_ms=None if clear is None else (clear - start) / 1000,
        played_after_ms=barge_in.played_after * US_PER_BYTE / 1000,
        discarded_ms=barge_in.discarded * US_PER_BYTE / 1000,
        stale_ms=barge_in.stale * US_PER_BYTE / 1000,
        cut=barge_in.cut,
    )


def _gaps(phone: Telephone, caller: tuple[Utterance, ...]) -> tuple[Gap, ...]:
    """Find the silences that were not meant: short, without a word or a key of the caller's."""
    gaps: list[Gap] = []
    pressed = [event.at_ms for event in phone.events if isinstance(event, DigitPressed)]
    for spell in phone.buffer.dry_spells:
        start, end = spell.start_us / 1000, spell.end_us / 1000
        spoken = any(said.start_ms < end and said.end_ms > start for said in caller)
        keyed = any(start - KEY_MS <= at_ms < end for at_ms in pressed)
        if phone.gap_floor_ms <= end - start < GAP_LIMIT_MS and not (spoken or keyed):
            gaps.append(Gap(start, end - start))
    return tuple(gaps)
