"""The whole telephone without a network: clock, delays, script, and what is reported of it."""

from __future__ import annotations

import base64
import itertools
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulate.server import LOUD, WORDS, tone
from voiced.simulate.events import (
    AgentStarted,
    AgentStopped,
    CallerStarted,
    DigitPressed,
    HungUp,
)
from voiced.simulate.phone import Phone
from voiced.simulate.report import trouble
from voiced.simulate.result import CallResult, Gap, Setup, judge
from voiced.simulate.script import (
    SCRIPTS,
    CutLine,
    Pause,
    Press,
    Say,
    SayWhileAgentSpeaks,
    Script,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)
from voiced.simulate.speech import Ear, Speech, load_speech
from voiced.simulate.wire import Identifiers

IDS = Identifiers("AC" + "a" * 32, "CA" + "b" * 32, "MZ" + "c" * 32)
MS = 1000


class Bench:
    """A phone on a table: what it sends is noted with the time of sending."""

    def __init__(self, *steps: Step, **options: Any) -> None:
        self.phone = Phone(Script("test", "", steps), IDS, **options)
        self.sent: list[tuple[int, dict[str, Any]]] = []
        self.phone.begin({})
        self._collect(0)

    def _collect(self, now_us: int) -> None:
        self.sent += [(now_us, json.loads(text)) for text in self.phone.poll(now_us)]

    def run_to(self, now_us: int) -> None:
        """Poll at exactly the times at which the phone asks to be polled."""
        while not self.phone.finished and (due := self.phone.next_us()) <= now_us:
            self._collect(due)
        if not self.phone.finished:
            self._collect(now_us)

    def give(self, now_us: int, event: str, **body: Any) -> None:
        self.run_to(now_us)
        message = json.dumps({"event": event, "streamSid": IDS.stream_sid, **body})
        self.phone.receive(now_us, message)
        self.run_to(now_us)

    def speak(self, now_us: int, ms: int) -> None:
        payload = base64.b64encode(LOUD * (ms // 20)).decode()
        self.give(now_us, "media", media={"payload": payload})

    def of(self, event: str) -> list[tuple[int, dict[str, Any]]]:
        return [(at_us, message) for at_us, message in self.sent if message["event"] == event]

    def result(self) -> CallResult:
        return judge(Setup("test", IDS.call_sid), self.phone)


def test_an_hour_of_frames_does_not_drift_however_late_the_polls() -> None:
    phone = Phone(Script("test", "", (Pause(4_000_000),)), IDS, record=False)
    phone.begin({})
    rng = random.Random(5)
    now, frames = 0, 0
    while now < 3_600_000 * MS:
        now = min(now + rng.randint(1, 400) * MS, 3_600_000 * MS)
        frames += sum('"media"' in text for text in phone.poll(now))
        assert frames == now // (20 * MS)
    assert phone.frames == 180_000


def test_frames_are_numbered_and_stamped() -> None:
    bench = Bench(Pause(100_000))
    bench.run_to(100 * MS)
    frames = bench.of("media")
    assert [at_us for at_us, _ in frames] == [20_000, 40_000, 60_000, 80_000, 100_000]
    assert [message["media"]["chunk"] for _, message in frames] == ["1", "2", "3", "4", "5"]
    assert [m["media"]["timestamp"] for _, m in frames] == ["0", "20", "40", "60", "80"]
    assert [m["sequenceNumber"] for _, m in frames] == ["2", "3", "4", "5", "6"]
    assert {len(base64.b64decode(m["media"]["payload"])) for _, m in frames} == {160}


def test_constant_delay_is_exact_both_ways() -> None:
    bench = Bench(Pause(100_000), delay_us=40 * MS)
    assert bench.of("start") == []
    bench.speak(100 * MS, 60)
    bench.give(100 * MS, "mark", mark={"name": "m"})
    bench.run_to(400 * MS)
    assert bench.of("start")[0][0] == 40 * MS
    assert bench.of("media")[0][0] == 60 * MS
    assert bench.of("mark")[0][0] == (100 + 40 + 60 + 40) * MS
    assert bench.phone.first_audio_us == 140 * MS


@given(st.integers(0, 1000), st.integers(0, 30 * MS))
def test_jitter_is_repeatable_bounded_and_never_reorders(seed: int, jitter_us: int) -> None:
    runs = []
    for _ in range(2):
        bench = Bench(Pause(100_000), delay_us=5 * MS, jitter_us=jitter_us, rng=random.Random(seed))
        bench.run_to(400 * MS)
        runs.append([(at_us, message["sequenceNumber"]) for at_us, message in bench.of("media")])
    assert runs[0] == runs[1]
    numbers = [int(number) for _, number in runs[0]]
    assert numbers == sorted(numbers)
    for chunk, (at_us, _) in enumerate(runs[0], start=1):
        assert chunk * 20 * MS + 5 * MS <= at_us <= chunk * 20 * MS + 5 * MS + jitter_us


def test_marks_come_back_when_reached_even_if_polled_late() -> None:
    bench = Bench(Pause(100_000), delay_us=10 * MS)
    bench.speak(0, 100)
    bench.give(0, "mark", mark={"name": "m"})
    late = [json.loads(text) for text in bench.phone.poll(500 * MS)]
    order = [message["event"] for message in late]
    assert order.index("mark") == 7  # reached at 110 ms: behind connected, start and five frames
    assert bench.phone.worst_lag_us > 400 * MS


def test_speech_is_dated_by_its_sound_on_both_sides() -> None:
    padded = Speech.from_pcm("padded", "text", bytes(3200) + tone(400) + bytes(1600))
    bench = Bench(Pause(200), Say(padded), Pause(2000))
    bench.speak(1500 * MS, 600)
    bench.run_to(4000 * MS)
    result = bench.result()
    said = result.caller[0]
    assert (said.start_ms, said.end_ms) == (400, 800)  # 200 ms of silence at the clip's front
    assert (result.agent[0].start_ms, result.agent[0].end_ms) == (1500, 2100)
    assert said.answer_ms == 700
    assert result.heard_answer()
    assert not result.heard_greeting()
    assert result.failure is None


def test_greeting_is_heard_only_before_the_caller_speaks() -> None:
    bench = Bench(WaitForAgentSpeech(), WaitForAgentSilence(), Say(WORDS))
    bench.speak(300 * MS, 800)
    bench.run_to(6000 * MS)
    result = bench.result()
    assert result.heard_greeting()
    assert not result.heard_answer()
    assert result.ended_by == "caller"
    assert bench.of("stop")
    assert result.ok


def barge_in(clear_after_ms: int | None, stale_at_ms: int | None = None) -> CallResult:
    bench = Bench(SayWhileAgentSpeaks(WORDS, after_ms=400), Pause(1000))
    bench.speak(0, 5000)
    bench.run_to(420 * MS)
    if clear_after_ms is not None:
        bench.give((400 + clear_after_ms) * MS, "clear")
    if stale_at_ms is not None:
        bench.speak((400 + stale_at_ms) * MS, 40)
    bench.run_to(10_000 * MS)
    return bench.result()


def test_clean_barge_in_is_measured() -> None:
    result = barge_in(clear_after_ms=230)
    (found,) = result.interruptions
    assert (found.start_ms, found.clear_ms, found.reaction_ms) == (400, 630, 230)
    assert (found.played_after_ms, found.discarded_ms, found.stale_ms) == (230, 4370, 0)
    assert result.clean_barge_in()
    assert result.agent[0].cut
    assert 600 <= result.agent[0].end_ms <= 640


@pytest.mark.parametrize(
    ("clear_after_ms", "stale_at_ms"),
    [(None, None), (1600, None), (230, 231), (230, 690), (650, 749)],
    ids=["never", "late", "stale at once", "stale in the window", "stale after a late clear"],
)
def test_unclean_barge_in_is_noticed(clear_after_ms: int | None, stale_at_ms: int | None) -> None:
    result = barge_in(clear_after_ms, stale_at_ms)
    assert not result.clean_barge_in()
    assert not result.ok


def test_an_answer_after_the_caller_has_finished_is_not_stale() -> None:
    result = barge_in(clear_after_ms=230, stale_at_ms=900)
    assert result.clean_barge_in()
    assert result.caller[0].answer_ms == 300


def test_clear_of_an_agent_that_had_finished_is_no_barge_in() -> None:
    bench = Bench(SayWhileAgentSpeaks(WORDS, after_ms=400), Pause(1000))
    bench.speak(0, 460)
    bench.give(700 * MS, "clear")
    bench.run_to(5000 * MS)
    assert not bench.result().clean_barge_in()


def test_gaps_are_holes_in_what_the_agent_says() -> None:
    bench = Bench(Pause(1000), Say(WORDS), Pause(4000))
    bench.speak(0, 100)
    bench.speak(130 * MS, 100)  # 30 ms late
    bench.speak(249 * MS, 20)  # 19 ms late: no frame was missed
    bench.speak(739 * MS, 100)  # 470 ms late
    bench.speak(1700 * MS, 100)  # after the caller has spoken
    bench.speak(2900 * MS, 100)  # much later
    bench.run_to(9000 * MS)
    result = bench.result()
    assert [(gap.start_ms, gap.duration_ms) for gap in result.gaps] == [(100, 30), (269, 470)]
    assert not result.ok


def test_what_a_key_sets_off_is_no_gap() -> None:
    bench = Bench(Pause(400), Press("1"), Pause(3000))
    bench.speak(0, 100)
    bench.speak(600 * MS, 100)  # the answer to the key
    bench.speak(800 * MS, 300)
    bench.speak(1200 * MS, 100)  # 100 ms late, and long after the key
    bench.run_to(9000 * MS)
    result = bench.result()
    assert [(gap.start_ms, gap.duration_ms) for gap in result.gaps] == [(1100, 100)]


def test_recording_is_what_was_said_and_heard() -> None:
    bench = Bench(Pause(60), Say(WORDS), Pause(200))
    bench.speak(105 * MS, 40)
    bench.run_to(2000 * MS)
    result = bench.result()
    assert len(result.caller_ulaw) == len(result.agent_ulaw) == 160 * bench.phone.frames
    said = b"\xff" * (3 * 160) + b"".join(WORDS.frames)
    assert result.caller_ulaw == said.ljust(len(result.caller_ulaw), b"\xff")
    heard = b"\xff" * (105 * 8) + LOUD * 2
    assert result.agent_ulaw == heard.ljust(len(heard), b"\xff").ljust(
        len(result.agent_ulaw), b"\xff"
    )


def test_without_recording_nothing_is_kept_and_nothing_else_changes() -> None:
    results = []
    for record in (True, False):
        bench = Bench(WaitForAgentSpeech(), WaitForAgentSilence(), Say(WORDS), record=record)
        bench.speak(100 * MS, 3000)
        bench.run_to(10_000 * MS)
        results.append(bench.result())
        if not record:
            assert bench.phone.caller_audio() == bench.phone.agent_audio() == b""
    kept, lean = (result.to_json() for result in results)
    assert kept == lean


def test_keys_are_pressed_in_order() -> None:
    bench = Bench(Pause(40), Press("1"), Press("#"))
    bench.run_to(1000 * MS)
    assert [message["dtmf"]["digit"] for _, message in bench.of("dtmf")] == ["1", "#"]
    assert [message["event"] for _, message in bench.sent[-3:]] == ["dtmf", "dtmf", "stop"]


@pytest.mark.parametrize("gaps", [1, 2])
def test_gaps_are_counted_in_words(gaps: int) -> None:
    result = replace(Bench(Pause(40)).result(), gaps=(Gap(0, 50), Gap(100, 80))[:gaps])
    expected = ("a gap in the agent's audio, the longest 50 ms", "2 gaps in the agent's audio")
    assert expected[gaps - 1] in trouble(result)


def test_a_secret_key_is_pressed_and_not_told() -> None:
    bench = Bench(Pause(40), Press("1"), Press("4", secret=True))
    bench.run_to(1000 * MS)
    assert [message["dtmf"]["digit"] for _, message in bench.of("dtmf")] == ["1", "4"]
    told = [event.digit for event in bench.phone.events if isinstance(event, DigitPressed)]
    assert told == ["1", ""]


def test_a_step_that_times_out_ends_the_call_with_its_name() -> None:
    bench = Bench(Pause(100), WaitForAgentSpeech(timeout_s=1.0))
    bench.run_to(5000 * MS)
    result = bench.result()
    assert result.failure is not None
    assert "step 2 of the script, WaitForAgentSpeech within 1 s" in result.failure
    assert result.duration_ms == 1100
    assert bench.of("stop")


def test_cut_line_sends_no_stop() -> None:
    bench = Bench(Pause(100), CutLine())
    bench.run_to(1000 * MS)
    assert bench.phone.finished
    assert not bench.phone.polite
    assert bench.of("stop") == []
    assert bench.result().ended_by == "line"


def test_agents_hang_up_is_expected_or_not() -> None:
    bench = Bench(WaitForHangUp())
    bench.speak(0, 200)
    bench.phone.receive_close(10 * MS)
    result = bench.result()
    assert result.failure is None
    assert result.ended_by == "agent"
    assert result.unheard_ms == 190

    unexpected = Bench(Pause(1000))
    unexpected.phone.receive_close(10 * MS)
    assert "ended the call during step 1" in (unexpected.result().failure or "")


def test_close_is_known_when_the_delay_has_passed() -> None:
    bench = Bench(WaitForHangUp(), delay_us=50 * MS)
    bench.run_to(100 * MS)
    bench.phone.receive_close(100 * MS)
    known = []
    for now in (149 * MS, 150 * MS):
        bench.run_to(now)
        known.append(bench.phone.finished)
    assert known == [False, True]
    assert bench.result().duration_ms == 150


def test_violations_are_noted_bounded_and_harmless() -> None:
    bench = Bench(Pause(1000))
    for _ in range(150):
        bench.phone.receive(10 * MS, b"binary")
    bench.phone.receive(10 * MS, '{"event":"clear","streamSid":"other"}')
    bench.run_to(2000 * MS)
    result = bench.result()
    assert result.violation_count == 151
    assert len(result.violations) == 100
    assert result.violations[0].code == 31950
    assert result.failure is None
    assert not result.ok


def test_more_than_ten_minutes_are_warned_of_once() -> None:
    bench = Bench(Pause(1000), record=False)
    for _ in range(13):
        bench.speak(0, 50_000)
    assert [each.code for each in bench.result().violations] == [31931]
    assert bench.phone.buffer.queued == 12 * 50_000 * 8


def test_a_server_that_does_not_read_loses_frames() -> None:
    bench = Bench(Pause(100_000))
    late = bench.phone.poll(12_000 * MS)
    assert len(late) == 500
    assert bench.phone.lost_frames == 100
    numbers = [json.loads(text)["sequenceNumber"] for text in bench.phone.poll(12_020 * MS)]
    assert numbers == ["602"]
    assert [each.code for each in bench.result().violations] == [31930]


def test_observer_hears_of_everything_as_it_happens() -> None:
    seen: list[tuple[str, float]] = []
    steps = (WaitForAgentSpeech(), WaitForAgentSilence(), Say(WORDS))
    bench = Bench(*steps, observer=lambda event: seen.append((type(event).__name__, event.at_ms)))
    bench.speak(100 * MS, 400)
    bench.run_to(5000 * MS)
    assert seen == [
        ("MediaStarted", 0),
        ("AgentStarted", 100),
        ("AgentStopped", 500),
        ("CallerStarted", 1200),
        ("CallerStopped", 1800),
        ("HungUp", 1800),
    ]
    kinds = {AgentStarted, AgentStopped, CallerStarted, HungUp}
    assert kinds <= {type(event) for event in bench.phone.events}


@given(st.lists(st.booleans(), max_size=200))
def test_ear_reports_disjoint_speech_that_begins_and_ends_loud(pattern: list[bool]) -> None:
    ear = Ear()
    found = [ended for loud in pattern if (ended := ear.hear(LOUD if loud else None))]
    if (last := ear.end()) is not None:
        found.append(last)
    for start, end in found:
        assert pattern[start]
        assert pattern[start + 1]
        assert pattern[end - 1]
    for (_, end), (start, _) in itertools.pairwise(found):
        assert start - end >= 0
        assert not any(pattern[end : end + Ear.HANGOVER_FRAMES])
    assert ear.loud_frames == sum(pattern)


def test_idle_noise_is_not_speech() -> None:
    ear = Ear()
    for _ in range(100):
        ear.hear(bytes([0xFE, 0x7E, 0xFD, 0x7D] * 40))
    assert ear.started is None


def test_bundled_scripts_say_bundled_clips() -> None:
    for script in SCRIPTS.values():
        for step in script.steps:
            if isinstance(step, Say | SayWhileAgentSpeaks) and isinstance(step.clip, str):
                speech = load_speech(step.clip)
                assert 300 <= speech.duration_ms <= 6000
                assert speech.text


def test_silent_speech_is_refused() -> None:
    with pytest.raises(ValueError, match="'nothing' is silent"):
        Speech.from_pcm("nothing", "", bytes(3200))
