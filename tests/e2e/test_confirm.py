"""Reversible barge-in, end to end on both carriers: lines that echo, coughs, keys, people.

The whole daemon, the emulator with turn detection that does hear the echo, and callers whose
telephones return what they play. What is judged are positions in the audio, and the order of
events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import numpy as np
import pytest
import trio

from tests.e2e.confirming import (
    CARRIERS,
    MS,
    SILENCE,
    Carrier,
    Held,
    Outcomes,
    Scene,
    follow,
    hold_calls,
    kinds_of,
)
from tests.e2e.house import sample
from tests.e2e.tap import Session
from tests.e2e.virtual import Lateness, run_virtually
from tests.interruption import sounds
from tests.interruption.recordings import CALLERS, Signal, prompts
from voiced import clips
from voiced.simulate.line import Line
from voiced.simulate.script import (
    HangUp,
    Hold,
    Pause,
    Press,
    Resume,
    Say,
    SayWhileAgentSpeaks,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
)
from voiced.simulate.speech import Speech

SPEAKS: Final = WaitForAgentSpeech(300)
INTO: Final = WaitForAgentSpeech(1500)
"""Well within an answer, which is over 5 s long."""
SETTLED: Final = WaitForAgentSilence(1600)
"""Longer than a pause, and than an echo's end and the silence that ends a turn together."""
ANSWERED: Final = (SPEAKS, SETTLED, HangUp())
LONG_SETTLED: Final = WaitForAgentSilence(3000)
TURNS: Final = 'turn_detection = { kind = "server_vad", threshold = 0.3'
SILENT: Final = f'greeting = ""\n{TURNS} }}'
GREETS: Final = f'greeting_text = "{clips.load("greeting").text}"\n{TURNS} }}'
QUICK: Final = f"confirm_ms = 250\n{GREETS}"
UNDECIDED: Final = f'greeting = ""\nconfirm_ms = 2000\n{TURNS}, silence_ms = 1500 }}'
"""A cough is judged for 2 s, so that what comes right after it finds the judgement pending."""

STARTED: Final = "input_audio_buffer.speech_started"
COMMITTED: Final = "input_audio_buffer.committed"
CREATED: Final = "conversation.item.create"
DELETED: Final = "conversation.item.delete"
TRUNCATED: Final = "conversation.item.truncate"
CANCELLED: Final = "response.cancel"
ASKED: Final = "response.create"

ANSWERING: Final = ["caller_speaking", "committing", "thinking", "speaking"]
UP: Final = ["ringing", "answering", "media_ready"]
OVER: Final = ["listening", "ended"]

pytestmark = pytest.mark.timeout(900)
"""Half a minute of computing, which a busy machine draws out: that changes nothing else."""

scenes: dict[str, Scene] = {}


def scene(
    name: str,
    carrier: Carrier,
    check: Callable[[Held], None],
    *steps: Step,
    line: Line | None = None,
    agent: str = SILENT,
    during: Callable[[Session], Awaitable[None]] | None = None,
) -> None:
    name = f"{name}_{carrier}"
    number = f"+1555{len(scenes):07}"
    scenes[name] = Scene(name, carrier, number, steps, line, agent, check, during)


def speech(name: str, signal: Signal) -> Speech:
    return Speech.from_pcm(name, "", np.clip(signal, -32768, 32767).astype("<i2").tobytes())


def text(*names: str) -> list[tuple[str, bool]]:
    """Lines that were said whole."""
    return [(clips.load(name).text, False) for name in names]


# ---- what should have come of it


def echo(held: Held) -> None:
    """Greeting and answer were stopped by their own echo, and heard whole all the same."""
    held.all_was_heard()
    held.nobody_was_cut()
    for item in (0, 1):
        assert held.pauses_within(item, least_ms=100)
    kinds = kinds_of(held.session)
    assert kinds.count(STARTED) >= 3  # the greeting's, the caller, the answer's
    assert kinds.count(DELETED) == kinds.count(COMMITTED) - 1
    assert kinds.count(ASKED) == 2
    assert held.said("caller") == text("hello")
    assert held.said("agent") == text("greeting", "who")
    assert held.states == [*UP, "greeting", "listening", *ANSWERING, *OVER]


def cough(held: Held) -> None:
    held.all_was_heard()
    held.nobody_was_cut()
    assert held.pauses_within(0, least_ms=100)
    kinds = kinds_of(held.session)
    assert (kinds.count(DELETED), kinds.count(ASKED)) == (kinds.count(COMMITTED) - 1, 1)
    assert held.said("caller") == text("hello")
    assert held.said("agent") == text("who")
    assert held.states == [*UP, "listening", *ANSWERING, *OVER]


def interruption(held: Held) -> None:
    """The first answer was cut where the caller stopped hearing it, the second one is whole."""
    kinds, (first, second) = kinds_of(held.session), held.items()
    assert (kinds.count(CANCELLED), kinds.count(TRUNCATED)) == (1, 1)
    answer, again = (at for at, kind in enumerate(kinds) if kind == ASKED)
    begun, cut = kinds.index(STARTED, answer), kinds.index(TRUNCATED)
    assert answer < begun < kinds.index(CANCELLED) < cut < kinds.index(COMMITTED, cut) < again

    (told,) = held.session.of(TRUNCATED)
    heard = follow(held.result.agent_ulaw, first)
    quiet = len(first[: heard.end]) - len(first[: heard.end].rstrip(bytes([SILENCE])))
    slack_ms = 60 + held.result.lag_ms
    assert told["item_id"] == next(iter(held.session.audio))
    assert -slack_ms - quiet / MS <= told["audio_end_ms"] - heard.end / MS <= slack_ms
    assert heard.end < len(first) - 1000 * MS
    assert len(held.row["latencies"]["barge_ins_ms"]) == 1

    second = second.strip(bytes([SILENCE]))
    assert follow(heard.rest, second).end == len(second)
    (_, was_cut), *others = held.said("agent")
    assert was_cut
    assert others == text("not_understood")
    assert held.states == [*UP, "listening", *ANSWERING, *ANSWERING, *OVER]


def key(held: Held) -> None:
    """Reported as speech and told at once, within a frame perhaps: hardly a pause is heard."""
    held.all_was_heard()
    held.nobody_was_cut()
    assert not held.pauses_within(0, least_ms=300)
    assert kinds_of(held.session).count(STARTED) == 2
    assert kinds_of(held.session).count(ASKED) == 1
    assert held.said("caller") == text("hello")
    assert held.states == [*UP, "listening", *ANSWERING, *OVER]


def declared(held: Held) -> None:
    key(held)
    (told,) = held.session.of(CREATED)
    assert "key 5" in told["item"]["content"][0]["text"]


def hung_up(held: Held) -> None:
    kinds = kinds_of(held.session)
    assert kinds.count(STARTED) == 2
    assert TRUNCATED not in kinds
    assert held.row["latencies"]["barge_ins_ms"] == []
    assert held.followed.end < len(held.items()[0]) - 1000 * MS
    assert not held.followed.rest  # the pause was the end
    ((_, was_cut),) = held.said("agent")
    assert was_cut
    assert held.states == [*UP, "listening", *ANSWERING, "ended"]


def kept_on_hold(held: Held) -> None:
    """The pause lasts as long as the hold, then the answer goes on."""
    held.all_was_heard()
    held.nobody_was_cut()
    (pause,) = held.pauses_within(0, least_ms=100)
    assert pause.length >= 1500 * MS
    after = held.states[held.states.index("on_hold") :]
    assert after[:3] == ["on_hold", "listening", "speaking"]
    assert after[-2:] == OVER


def lost(held: Held) -> None:
    """Nobody can say any more what it was: the answer goes on, and the doubt is the caller's.

    The next session hears it, and answers that; then the next turn is heard.
    """
    held.all_was_heard()
    held.nobody_was_cut()
    assert len(held.sessions) == 2
    assert kinds_of(held.sessions[0]).count(STARTED) == 2
    assert held.pauses_within(0, least_ms=100)
    assert held.said("caller") == text("hello", "thanks")
    assert held.said("agent") == text("who", "not_understood", "goodbye")
    assert held.states[-6:] == [*ANSWERING, *OVER]


def replied(held: Held) -> None:
    """The turn has the greeting's echo, and then the caller in it: it is answered."""
    held.nobody_was_cut()
    kinds = kinds_of(held.session)
    assert kinds[: kinds.index(COMMITTED)].count(STARTED) == 1
    assert DELETED not in kinds[: kinds.index(COMMITTED) + 4]
    assert kinds.count(ASKED) == 2
    assert held.states == [*UP, "greeting", "listening", *ANSWERING, *OVER]


# ---- who calls

COUGH: Final = speech("cough", sounds.COUGHS["cough"](np.random.default_rng(2)))
LEAK: Final = speech("leak", sounds.dtmf(5, 2, 120))
"""What a gateway lets through of a key before it knows it for one."""
TONE: Final = speech("tone", sounds.dtmf(5, 2, 400))
ECHOES: Final = tuple((db, ms) for db in (-12, -20) for ms in (60, 250))
COUGHED: Final = {"cough": None, "cough_over_echo": Line(-15, 120)}
PEOPLE: Final = (Line(-15, 120), Line(-15, 120), None)


def person(index: int) -> Speech:
    return speech("person", prompts(CALLERS["held out"][index], "held out", 900, 3000)[0])


async def lose_model(session: Session) -> None:
    """In the midst of the judgement about the second speech."""
    await session.until(STARTED, 2)
    await trio.sleep(0.5)
    session.sever()


def engage() -> None:
    """Fill `scenes`; the people's recordings must be installed."""
    coughs = (Say("hello"), INTO, Say(COUGH))
    for carrier in CARRIERS:
        for db, ms in ECHOES:
            steps = (SPEAKS, SETTLED, Say("hello"), *ANSWERED)
            scene(f"echo{-db}at{ms}", carrier, echo, *steps, line=Line(db, ms), agent=GREETS)
        for name, line in COUGHED.items():
            scene(name, carrier, cough, *coughs, *ANSWERED, line=line)
        for index, line in enumerate(PEOPLE):
            interrupts = SayWhileAgentSpeaks(person(index), after_ms=1500)
            asks = (Say("hours"), interrupts, *ANSWERED)
            scene(f"person{index}", carrier, interruption, *asks, line=line)
        scene("key", carrier, declared, Say("hello"), INTO, Say(LEAK), Press("5"), *ANSWERED)
        scene("tone", carrier, key, Say("hello"), INTO, Say(TONE), *ANSWERED)
        scene("hang_up", carrier, hung_up, *coughs, Pause(300), HangUp(), agent=UNDECIDED)
        thanks = (LONG_SETTLED, Say("thanks"), *ANSWERED)
        scene("lost", carrier, lost, *coughs, *thanks, agent=UNDECIDED, during=lose_model)
        soon = (INTO, WaitForAgentSilence(550), Say("hello"), *ANSWERED)
        scene("replied", carrier, replied, *soon, line=Line(-12, 250), agent=QUICK)
    held = (Pause(200), Hold(), Pause(1500), Resume())
    scene("hold", "sip", kept_on_hold, *coughs, *held, SPEAKS, LONG_SETTLED, agent=UNDECIDED)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    engage()
    return run_virtually(lambda: hold_calls(tmp_path_factory.mktemp("confirm"), scenes))


EVERYWHERE: Final = (
    *(f"echo{-db}at{ms}" for db, ms in ECHOES),
    *COUGHED,
    *(f"person{index}" for index in range(len(PEOPLE))),
    *("key", "tone", "hang_up", "lost", "replied"),
)
NAMES: Final = [f"{name}_{carrier}" for name in EVERYWHERE for carrier in CARRIERS] + ["hold_sip"]
"""Known before the calls: what makes them needs the recordings, whose absence fails each test."""


@pytest.mark.parametrize("name", NAMES)
def test_confirm(outcomes: Outcomes, name: str) -> None:
    error = outcomes[name]
    if error is not None:
        raise error


@pytest.mark.parametrize("name", ["echo20at60_twilio", "echo12at250_sip"])
def test_on_a_machine_that_is_late(
    outcomes: Outcomes, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It has other things to do, but not for so long that RTP leaves anything out."""
    folder, again = tmp_path_factory.mktemp("late"), {name: scenes[name]}
    late = Lateness(every=50, most_ms=36)
    error = run_virtually(lambda: hold_calls(folder, again), late)[name]
    if error is not None:
        raise error


def test_all_calls_are_judged(outcomes: Outcomes) -> None:
    assert sorted(outcomes) == sorted(NAMES)


def test_every_verdict_was_given(outcomes: Outcomes) -> None:
    """Turn detection did report what is no interruption, and the judge called it what it was."""
    for verdict in ("echo", "cough", "digit", "interruption"):
        assert sample("voiced_confirmations_total", verdict=verdict) > 0, verdict
