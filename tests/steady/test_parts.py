"""The pure parts, each for itself; times are numbers."""

from __future__ import annotations

import math
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from voiced.engine import Lost, Said, ToolCall
from voiced.formats import PCM16_24K, PCMU_8K
from voiced.steady.backoff import Backoff
from voiced.steady.breaker import Breaker, BreakerState
from voiced.steady.course import FIRST_S, Course, GiveUp, Pause, Step, Try
from voiced.steady.limits import Slots, Window
from voiced.steady.memory import MAX_HISTORY, Memory
from voiced.steady.names import Names
from voiced.steady.owed import MAX_ASKS, MAX_QUOTE, Owed
from voiced.steady.renewal import Renewal
from voiced.steady.utterance import KEPT_BYTES, Utterance

PASSING = Lost("close_1006", "gone", retryable=True)
FOREVER = Lost("invalid_api_key", "no", retryable=False)

# ---- backoff


@given(st.floats(0, 1))
def test_first_retries_are_quick(jitter: float) -> None:
    backoff = Backoff(lambda: jitter)
    first, *rest = [backoff.next_s() for _ in range(40)]
    assert 0.1 <= first <= 0.4
    assert all(0.25 <= delay <= 1.0 for delay in rest)
    assert first + sum(rest[:2]) < 3
    backoff.reset()
    assert backoff.next_s() == first


# ---- breaker


def test_a_breaker_opens_tries_and_closes() -> None:
    breaker = Breaker()
    for at in range(4):
        breaker.failed(float(at), terminal=False)
        assert breaker.wait_s(float(at), alternative=True) == 0
    breaker.failed(4.0, terminal=False)
    assert breaker.wait_s(4.5, alternative=True) == 0.5
    assert breaker.wait_s(5.0, alternative=True) == 0
    breaker.try_now()
    assert math.isinf(breaker.wait_s(9.0, alternative=False)), "one at a time"
    breaker.failed(9.0, terminal=False)
    assert breaker.wait_s(9.0, alternative=True) == 2, "twice as long"
    assert breaker.wait_s(9.0, alternative=False) == 1.5, "not for those who have nothing else"
    breaker.try_now()
    breaker.abandoned()
    assert breaker.wait_s(11.0, alternative=True) == 0, "the next one may"
    breaker.try_now()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.wait_s(11.0, alternative=True) == 0


def test_a_burst_of_failures_is_a_restart() -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.failed(1.0, terminal=False)
    assert breaker.state is BreakerState.CLOSED


def test_a_bad_key_opens_at_once() -> None:
    breaker = Breaker()
    breaker.failed(0.0, terminal=True)
    assert breaker.wait_s(10.0, alternative=True) == 5
    assert breaker.wait_s(1.0, alternative=False) == 0.5


@given(st.lists(st.tuples(st.sampled_from("tfFsa"), st.floats(0, 5))))
def test_a_breaker_never_locks_for_good(steps: list[tuple[str, float]]) -> None:
    breaker, now, trying = Breaker(), 0.0, False
    for what, passed in steps:
        now += passed
        wait = breaker.wait_s(now, alternative=True)
        assert breaker.wait_s(now, alternative=False) <= wait
        if what == "t" and wait == 0:
            breaker.try_now()
            trying = True
        elif what in "fF":
            breaker.failed(now, terminal=what == "F")
            trying = False
        elif what == "s":
            breaker.succeeded()
            trying = False
            assert breaker.wait_s(now, alternative=True) == 0
        elif what == "a":
            breaker.abandoned()
            trying = False
        if not trying:
            assert breaker.wait_s(now, alternative=True) <= 30 + 1e-9
            assert breaker.wait_s(now, alternative=False) <= 1.5 + 1e-9


# ---- limits


@given(st.integers(1, 5), st.lists(st.tuples(st.booleans(), st.floats(0, 40)), max_size=60))
def test_no_minute_has_too_many(limit: int, steps: list[tuple[bool, float]]) -> None:
    window, now = Window(limit), 0.0
    taken: list[float] = []
    for asked, passed in steps:
        now += passed
        room = len([at for at in taken if at > now - 60]) < limit
        assert (window.wait_s(now) == 0) == room
        if asked:
            assert window.take(now) == room
            if room:
                taken.append(now)
        else:  # it was begun by the server, room or none
            window.record(now)
            taken.append(now)
        assert window.used(now) == len([at for at in taken if at > now - 60])
        later = now + window.wait_s(now)
        assert len([at for at in taken if at > later - 60 + 1e-6]) < limit


def test_no_limit() -> None:
    window, slots = Window(None), Slots(None)
    for _ in range(1000):
        assert window.take(0.0)
        slots.take()
    assert window.wait_s(0.0) == 0
    assert slots.free


def test_slots() -> None:
    slots = Slots(2)
    slots.take()
    slots.take()
    assert not slots.free
    slots.limit = 1
    slots.give_back()
    assert not slots.free, "a lowered limit"
    slots.give_back()
    assert slots.free


# ---- course


def no_wait(_side: int, _alternative: bool) -> float:
    return 0.0


def walk(course: Course, now: float, loss: Lost = PASSING) -> tuple[list[Try], float, Step]:
    """Let every attempt fail until there is nothing left; returns them, and when that is."""
    tried: list[Try] = []
    for _ in range(1000):
        step = course.next(now, no_wait)
        if isinstance(step, Try):
            tried.append(step)
            course.begun()
            now += 0.1
            course.failed(now, step.side, loss)
        elif isinstance(step, Pause):
            assert step.seconds > 0
            now += step.seconds
        else:
            return tried, now, step
    raise AssertionError("it never ends")


@given(st.sampled_from([0.0, 1.0, 8.0]), st.integers(1, 2), st.floats(0, 1))
def test_attempts_end(patience_s: float, sides: int, jitter: float) -> None:
    course = Course(sides, patience_s, Backoff(lambda: jitter))
    course.start(0.0)
    tried, at, end = walk(course, 0.0)
    assert end == GiveUp(PASSING)
    changes = [tried[0].side, *(b.side for a, b in pairwise(tried) if a.side != b.side)]
    assert changes == ([0, 1, 0] if patience_s else [0, 1])[: 1 if sides == 1 else 3]
    assert tried[0].limit_s == (None if sides == 1 else FIRST_S), "the engine's own"
    assert at <= (1 if sides == 1 else 3) * (patience_s + 0.2)
    course.adopted(0)
    course.lost(100.0, PASSING, proven=True)
    tried, at, _ = walk(course, 100.0)
    assert at <= 100 + sides * (patience_s + 0.2)
    assert bool([step for step in tried if step.side == 0]) == (patience_s > 0)
    assert all(step.limit_s is not None for step in tried)


@given(
    st.sampled_from([0.0, 1.0, 8.0]),
    st.lists(st.sampled_from([0.0, 0.5, 2.5, 5.0, 60.0]), min_size=1),
    st.sampled_from([0.0, 0.5, math.inf]),
)
def test_servers_that_want_to_be_left_alone_are(
    patience_s: float, told: list[float], other_waits_s: float
) -> None:
    """And nobody waits for the first while the other, which has not been tried, is free."""
    course, now, not_before = Course(2, patience_s, Backoff()), 0.0, [0.0, 0.0]
    tried: set[int] = set()

    def wait_s(side: int, _alternative: bool) -> float:
        return other_waits_s if side == 1 else 0.0

    course.start(now)
    for number in range(1000):
        step = course.next(now, wait_s)
        if isinstance(step, Try):
            assert now >= not_before[step.side] - 1e-6
            course.begun()
            now += 0.1
            after_s = told[number % len(told)]
            course.failed(now, step.side, PASSING, after_s)
            not_before[step.side] = now + after_s
            tried.add(step.side)
        elif isinstance(step, Pause):
            assert step.seconds > 0
            if tried == {0} and not other_waits_s:
                assert step.seconds <= 2.0
            now += step.seconds
        else:
            assert now <= 3 * (patience_s + 0.2)
            return
    raise AssertionError("it never ends")


@pytest.mark.parametrize("sides", [1, 2])
def test_a_first_connection_is_not_waited_for_while_another_is_free(sides: int) -> None:
    course = Course(sides, 8.0, Backoff())
    course.start(0.0)
    step = course.next(0.0, no_wait)
    assert step == Try(0, None if sides == 1 else FIRST_S)
    course.begun()
    course.failed(FIRST_S, 0, PASSING)
    step = course.next(FIRST_S, no_wait)
    if sides == 1:
        assert isinstance(step, Pause)
    else:
        assert isinstance(step, Try)
        assert step.side == 1


def test_a_first_connection_is_waited_for_where_no_other_is_free() -> None:
    def full(side: int, alternative: bool) -> float:
        return math.inf if side == 1 else 0.0

    course = Course(2, 8.0, Backoff())
    course.start(0.0)
    assert course.next(0.0, full) == Try(0, None)


def test_a_lost_engine_is_tried_for_as_long_as_it_has() -> None:
    """A caller talks to it: the other one remembers less, and may be another voice."""
    course = Course(2, 8.0, Backoff(lambda: 1.0))
    course.start(0.0)
    course.adopted(0)
    course.lost(50.0, PASSING, proven=True)
    tried, _, _ = walk(course, 50.0)
    assert [step.side for step in tried] == sorted(step.side for step in tried)


def test_a_bad_key_is_not_tried_again() -> None:
    course = Course(2, 8.0, Backoff())
    course.start(0.0)
    tried, at, end = walk(course, 0.0, FOREVER)
    assert [step.side for step in tried] == [0, 1]
    assert at == pytest.approx(0.2)
    assert end == GiveUp(FOREVER)


def test_where_the_guard_says_no() -> None:
    def full(side: int, alternative: bool) -> float:
        return math.inf if side == 0 else 0.0

    course = Course(2, 8.0, Backoff())
    course.start(0.0)
    assert isinstance(course.next(0.0, full), Try), "the other one, at once"
    course = Course(1, 8.0, Backoff())
    course.start(0.0)
    assert course.next(0.0, full) == Pause(8.0)
    assert isinstance(course.next(8.1, full), GiveUp)
    course = Course(2, 8.0, Backoff())
    course.start(0.0)
    course.adopted(0)
    course.lost(50.0, PASSING, proven=True)
    assert course.next(50.0, full) == Pause(8.0), "one that talks is not left so soon"


def test_one_that_is_left_is_tried_last() -> None:
    course = Course(2, 8.0, Backoff())
    course.start(0.0)
    course.adopted(0)
    course.leave(50.0, PASSING)
    tried, _, _ = walk(course, 50.0)
    assert tried[0].side == 1
    assert tried[-1].side == 0


# ---- owed


def test_owed_answers_wait_for_the_next_session() -> None:
    owed = Owed()
    owed.want("greet")
    owed.want(None)
    owed.want(None)
    assert owed.next().instructions == "greet"
    assert owed.started("r1")
    owed.turn()
    owed.turn()
    owed.lost(tools=False)
    assert [owed.next().instructions for _ in range(2)] == ["greet", None]
    assert not owed.waiting, "plain ones are one"


def test_half_an_answer() -> None:
    owed = Owed()
    owed.turn()
    assert not owed.started("r1"), "nobody asked for it"
    owed.words("i1", "Once upon ", final=False)
    assert owed.audio("i1", 10)
    assert not owed.audio("i1", 10)
    owed.words("i1", "a time", final=False)
    owed.lost(tools=False)
    ask = owed.next()
    assert (ask.instructions, ask.begun) == (None, "Once upon a time")


def test_only_what_had_a_voice_is_quoted() -> None:
    owed = Owed()
    owed.turn()
    owed.started("r2")
    owed.words("i1", "late words of an answer that was cut", final=True)
    owed.words("i2", "Once upon a time", final=True)
    owed.audio("i2", 10)
    owed.words("i3", "words that run ahead", final=False)
    owed.lost(tools=False)
    assert owed.next().begun == "Once upon a time"


def one_item_heard() -> Owed:
    """An answer is being made, of which an item with its words has come."""
    owed = Owed()
    owed.turn()
    owed.started("r1")
    owed.words("i1", "One moment.", final=True)
    owed.audio("i1", 10)
    return owed


@pytest.mark.parametrize("tools", [False, True])
def test_a_whole_answer_is_owed_only_where_a_function_may_follow(tools: bool) -> None:
    owed = one_item_heard()
    owed.audio_done("i1")
    owed.lost(tools=tools)
    assert owed.any == tools


def test_an_answer_whose_next_item_was_written_is_not_whole() -> None:
    """The words of an item run ahead of its audio, of which nothing came."""
    owed = one_item_heard()
    owed.audio_done("i1")
    owed.words("i2", "We are open", final=False)
    owed.lost(tools=False)
    assert owed.next().begun == "One moment."


@pytest.mark.parametrize("late", [False, True])
def test_the_end_of_an_item_is_not_that_of_the_next(late: bool) -> None:
    owed = one_item_heard()
    if not late:
        owed.words("i2", "We are open", final=False)
    owed.audio("i2" if late else "i1", 10)
    if late:
        owed.words("i2", "We are open", final=False)
    owed.audio_done("i1")
    owed.lost(tools=False)
    assert owed.next().begun == ("One moment. We are open" if late else "One moment.")


def test_late_words_of_an_answer_before_begin_no_item() -> None:
    """What is being given is whole all the same, and they are no part of it."""
    owed = Owed()
    owed.turn()
    owed.started("r1")
    owed.audio("i1", 10)
    owed.cancel()
    owed.turn()
    owed.started("r2")
    owed.words("i2", "We are open.", final=True)
    owed.audio("i2", 10)
    owed.audio_done("i2")
    owed.words("i1", "One moment.", final=True)
    owed.lost(tools=False)
    assert not owed.any


@pytest.mark.parametrize(
    ("words", "begun"),
    [({}, None), ({"i3": "Ahead"}, None), ({"i1": "One moment.", "i3": "Ahead"}, "One moment.")],
)
def test_words_of_what_was_heard_never_came(words: dict[str, str], begun: str | None) -> None:
    """A model cannot go on from nowhere: it is asked for all of it; or for what came after."""
    owed = Owed()
    owed.want("greet")
    owed.next()
    owed.started("r1")
    for item_id in ("i1", "i2"):
        owed.audio(item_id, 10)
    for item_id, text in words.items():
        owed.words(item_id, text, final=True)
    owed.lost(tools=False)
    ask = owed.next()
    assert (ask.instructions, ask.begun) == ("greet", begun)


def test_an_answer_goes_on_after_an_item_and_its_end_is_quoted() -> None:
    owed = Owed()
    owed.turn()
    owed.started("r1")
    owed.words("i1", "word " * 100, final=True)
    owed.audio("i1", 10)
    owed.audio_done("i1")
    owed.audio("i2", 10)
    owed.words("i2", "the end", final=True)
    owed.lost(tools=False)
    begun = owed.next().begun
    assert begun is not None
    assert len(begun) == MAX_QUOTE
    assert begun.endswith("word the end")


def test_of_an_item_whose_words_never_came_the_later_ones_are_quoted() -> None:
    owed = Owed()
    owed.turn()
    owed.started("r1")
    owed.audio("i1", 10)
    owed.words("i2", "We are open", final=True)
    owed.audio("i2", 10)
    owed.audio("i1", 10)
    owed.audio("i2", 10)
    owed.lost(tools=False)
    assert owed.next().begun == "We are open"


def test_failed_answers() -> None:
    owed = Owed()
    owed.want("greet")
    owed.next()
    owed.started("r1")
    assert owed.done("r0", "failed") == (0, None)
    _, ask = owed.done("r1", "failed")
    assert ask is not None
    owed.again(ask)
    assert owed.next() is ask
    assert ask.tries == 1
    owed.started("r2")
    owed.audio("i1", 7)
    assert owed.done("r2", "completed") == (7, None)
    assert not owed.any


def test_asks_are_bounded() -> None:
    owed = Owed()
    for number in range(3 * MAX_ASKS):
        owed.want(str(number))
    owed.lost(tools=False)
    kept = []
    while owed.waiting:
        kept.append(owed.next().instructions)
    assert kept == [str(number) for number in range(2 * MAX_ASKS, 3 * MAX_ASKS)]


# ---- memory


def test_what_a_new_session_is_told() -> None:
    history: list[Said] = []
    memory = Memory(lambda: history, ())
    memory.give("assistant", "Hello, this is Ada.")
    history.append(Said("assistant", "Hello, this"))
    assert memory.take_over(first=True) == [Said("assistant", "Hello, this is Ada.")]
    history.append(Said("user", "Who?"))
    memory.give("system", "They pressed 1.")
    history.append(Said("assistant", "Ada."))
    history.append(Said("system", "They pressed 2."))
    memory.give("system", "They pressed 2.")
    memory.give("system", "They pressed 3.")
    assert memory.take_over() == [
        Said("assistant", "Hello, this"),
        Said("user", "Who?"),
        Said("system", "They pressed 1."),
        Said("assistant", "Ada."),
        Said("system", "They pressed 2."),
        Said("system", "They pressed 3."),
    ]


def test_what_is_given_in_the_callers_name_is_told_once() -> None:
    """The call keeps what it gives, in whose name it gave it; a note of the same words is other."""
    history: list[Said] = []
    memory = Memory(lambda: history, ())
    told: list[Said] = []
    for text in ("I am in a hurry.", "They have an account.", "I am in a hurry."):
        said = Said("user" if text.startswith("I ") else "system", text)
        told.append(said)
        history.append(said)
        memory.give(said.role, text)
    assert memory.take_over() == memory.take_over(first=True) == told
    memory.give("system", "I am in a hurry.")
    memory.give("user", "Only here.")
    assert memory.take_over()[3:] == [
        Said("system", "I am in a hurry."),
        Said("user", "Only here."),
    ]


def test_functions_that_were_called() -> None:
    memory = Memory(list, ())
    memory.called(ToolCall("f1", "i1", "look", "{}"))
    memory.called(ToolCall("f2", "i2", "hear", "{}"))
    assert memory.returned("f1", "found") is None, "told to who asked"
    assert memory.calls_open
    memory.lost()
    found, coming = memory.take_over()
    assert "found" in found.text
    assert "hear" in coming.text
    text = memory.returned("f2", "nothing")
    assert text is not None
    assert "nothing" in text
    assert memory.returned("f2", "nothing") == ""
    assert [said.text for said in memory.take_over()] == [found.text, text]


def test_a_long_history_is_cut() -> None:
    history = [Said("user", str(number)) for number in range(2 * MAX_HISTORY)]
    assert Memory(lambda: history, ()).take_over() == history[-MAX_HISTORY:]


# ---- names


def test_names_of_the_first_session_stay() -> None:
    assert Names(1).inward("i1") == "i1"
    assert Names(2).inward("i1") is None
    event = ToolCall("f1", "i1", "look", "{}")
    renamed = Names(2).outward(event)
    assert isinstance(renamed, ToolCall)
    assert (Names(2).inward(renamed.call_id), renamed.name) == ("f1", "look")
    assert Names(3).inward(renamed.call_id) is None
    assert Names(2).outward(PASSING) is PASSING


# ---- utterance


def speech(*pieces: bytes) -> Utterance:
    utterance = Utterance(PCMU_8K)
    utterance.take_over(PCMU_8K, "fir")
    for piece in pieces:
        utterance.add(piece)
    return utterance


def kept(utterance: Utterance) -> bytes:
    return utterance.take_over(utterance.format, "fir")


def test_a_second_is_kept_while_nobody_speaks() -> None:
    utterance = speech(*[bytes([n]) * 160 for n in range(200)])
    assert len(kept(utterance)) == 8000
    assert not utterance.open


def test_a_turn_is_kept_until_it_is_understood() -> None:
    utterance = speech(b"\x01" * 8000)
    utterance.started()
    utterance.add(b"\x02" * 16000)
    utterance.stopped()
    assert utterance.finished
    utterance.committed("c1")
    utterance.add(b"\x03" * 160)
    assert utterance.finished
    utterance.understood("c0")
    assert kept(utterance) == b"\x01" * 8000 + b"\x02" * 16000 + b"\x03" * 160
    assert utterance.finished, "until the new session has understood it"
    utterance.committed("2:c1")
    utterance.understood("2:c1")
    assert not utterance.open


def test_what_was_said_after_a_turn_is_kept() -> None:
    utterance = speech(b"\x01" * 4000)
    utterance.started()
    utterance.committed("c1")
    utterance.add(b"\x02" * 160)
    utterance.started()
    utterance.understood("c1")
    assert utterance.speaking
    assert kept(utterance) == b"\x02" * 160


def test_an_answered_turn_is_forgotten() -> None:
    utterance = speech(b"\x01" * 4000)
    utterance.started()
    utterance.committed("c1")
    utterance.add(b"\x02" * 160)
    utterance.answered()
    assert not utterance.open
    assert kept(utterance) == b"\x02" * 160


def test_audio_is_bounded_in_every_format() -> None:
    for form in (PCMU_8K, PCM16_24K):
        utterance = Utterance(form)
        utterance.started()
        for _ in range(2000):
            utterance.add(bytes(form.frame_bytes))
        assert len(kept(utterance)) <= min(10_000 * form.bytes_per_ms, KEPT_BYTES)


def test_audio_changes_its_format() -> None:
    utterance = speech(b"\xff" * 800)
    audio = utterance.take_over(PCM16_24K, "linear")
    assert 4700 <= len(audio) <= 4900
    assert utterance.format == PCM16_24K


# ---- renewal


def test_a_session_is_renewed_in_a_quiet_moment() -> None:
    renewal = Renewal(transcribes=True)
    renewal.adopted(0.0, 0.0, 3600.0)
    assert renewal.due_at == 3300
    assert not renewal.forced(3579)
    assert renewal.forced(3581)
    assert renewal.quiet(1.0)
    renewal.committed("c1", 10.0)
    renewal.started(10.5)
    renewal.done(11.0, 4.0)
    assert not renewal.quiet(14.0), "the answer is still heard"
    assert not renewal.quiet(14.9), "what the caller said is not written down"
    renewal.transcribed("c1")
    assert renewal.quiet(14.9)
    renewal.started(20.0)
    renewal.done(20.5, 60.0)
    assert not renewal.quiet(30.0)
    renewal.cut(30.0)
    assert renewal.quiet(30.5)
    renewal.committed("c2", 40.0)
    assert renewal.quiet(46.0), "a transcript that does not come"
    renewal.adopted(50.0, 49.0, None)
    assert math.isinf(renewal.due_at)


def test_a_next_session_is_asked_as_often_as_the_first() -> None:
    owed = Owed()
    owed.want("greet")
    owed.next()
    owed.started("r1")
    _, failed = owed.done("r1", "failed")
    assert failed is not None
    owed.again(failed)
    assert owed.next().tries == 1
    owed.lost(tools=False)
    assert owed.next().tries == 0


def test_a_turn_stays_open_when_the_one_before_it_is_written_down() -> None:
    utterance = Utterance(PCMU_8K)
    utterance.take_over(PCMU_8K, "fir")
    for name, sound in (("a", b"\x01"), ("b", b"\x02")):
        utterance.started()
        utterance.add(sound * 8000)
        utterance.stopped()
        utterance.committed(name)
    utterance.understood("a")
    assert utterance.open
    assert utterance.take_over(PCMU_8K, "fir") == b"\x02" * 8000
    utterance.committed("b")
    utterance.understood("b")
    assert not utterance.open
