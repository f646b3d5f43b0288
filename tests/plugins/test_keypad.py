"""The state machine of key menus, on a clock of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voiced_plugins._keypad import Act, Action, Begin, Collect, Effect, Home, Keypad, Menu, Refuse


def menus(**tables: dict[str, Any]) -> dict[str, Menu]:
    return msgspec.convert(tables, dict[str, Menu], dec_hook=lambda kind, value: kind(value))


def due(keypad: Keypad) -> float | None:
    """A call, because a deadline does not stay what it was."""
    return keypad.deadline


def said(effects: list[Effect] | None) -> list[object]:
    """Effects in short: the text of an action, the file of a clip, `home`."""
    assert effects is not None
    short: list[object] = []
    for effect in effects:
        match effect:
            case Act(action, digits):
                short.append((action.say or action.tool or action.menu, digits))
            case Begin(_, prompt):
                short.append(prompt and prompt.name)
            case Refuse(clip):
                short.append(("wrong", clip and clip.name))
            case Home():
                short.append("home")
    return short


PLAIN = menus(
    main={"keys": {"1": {"say": "one"}, "2": {"menu": "sub"}, "12": {"say": "twelve"}}},
    sub={
        "prompt": "sub.wav",
        "wrong": "wrong.wav",
        "tries": 2,
        "timeout_s": 5,
        "keys": {"#": {"say": "hash"}, "*9": {"say": "star nine"}},
        "otherwise": {"say": "enough"},
    },
)


def test_a_key_that_may_be_more_waits_for_it() -> None:
    keypad = Keypad(PLAIN, "main")
    assert keypad.press("1", 0.0) == []
    assert due(keypad) == 2.0
    assert keypad.expire(1.9) == []
    assert said(keypad.expire(2.0)) == [("one", ""), "home"]
    assert due(keypad) is None
    assert keypad.press("1", 3.0) == []
    assert said(keypad.press("2", 4.9)) == [("twelve", ""), "home"]


def test_keys_that_lead_nowhere_are_refused_and_then_something_else_is_done() -> None:
    keypad = Keypad(PLAIN, "main")
    assert said(keypad.press("2", 0.0)) == [("sub", ""), "sub.wav"]
    assert said(keypad.press("5", 1.0)) == [("wrong", "wrong.wav"), "sub.wav"]
    assert said(keypad.press("*", 2.0)) == []
    assert said(keypad.press("8", 3.0)) == [("wrong", "wrong.wav"), ("enough", ""), "home"]


def test_a_menu_that_nobody_answers_counts_from_the_end_of_its_prompt() -> None:
    keypad = Keypad(PLAIN, "main")
    effects = keypad.press("2", 0.0)
    assert effects is not None
    begin = effects[-1]
    assert isinstance(begin, Begin)
    assert begin.alone
    assert due(keypad) is None
    keypad.heard(begin.turn - 1, 1.0)  # of something that is over
    assert due(keypad) is None
    keypad.heard(begin.turn, 3.0)
    assert due(keypad) == 8.0
    assert said(keypad.expire(8.0)) == [("wrong", "wrong.wav"), "sub.wav"]


def test_other_keys_are_left_to_others_where_the_menu_says_so() -> None:
    keypad = Keypad(menus(main={"pass_on": True, "keys": {"12": {"say": "twelve"}}}), "main")
    assert keypad.press("3", 0.0) is None
    assert keypad.press("1", 1.0) == []
    assert said(keypad.press("3", 2.0)) == [("wrong", None), None]
    assert said(keypad.expire(9.0)) == []


def test_in_the_conversation_a_wrong_key_does_not_begin_the_menu_again() -> None:
    keypad = Keypad(menus(main={"prompt": "main.wav", "keys": {"1": {"say": "one"}}}), "main")
    assert said(keypad.begin(0.0)) == ["main.wav"]
    assert said(keypad.press("1", 1.0)) == [("one", ""), "home"]
    assert [said(keypad.press("7", 2.0)) for _ in range(5)] == [[("wrong", None)]] * 5


NUMBER = menus(
    main={
        "keys": {
            "1": {
                "collect": {
                    "prompt": "number.wav",
                    "wrong": "short.wav",
                    "min_length": 2,
                    "max_length": 4,
                    "digit_timeout_s": 3,
                    "timeout_s": 10,
                    "tries": 2,
                    "secret": True,
                    "then": {"tool": "look", "arguments": {"n": "{digits}"}},
                }
            },
        }
    }
)


def collecting() -> Keypad:
    keypad = Keypad(NUMBER, "main")
    effects = keypad.press("1", 0.0)
    assert effects is not None
    assert isinstance(effects[-1], Begin)
    keypad.heard(effects[-1].turn, 0.0)
    return keypad


def test_a_number_ends_with_its_terminator() -> None:
    keypad = collecting()
    assert [keypad.press(key, 1.0) for key in "12"] == [[], []]
    assert said(keypad.press("#", 2.0)) == [("look", "12"), "home"]


def test_a_number_ends_when_it_is_full_and_the_terminator_after_it_does_nothing() -> None:
    keypad = collecting()
    assert [keypad.press(key, 1.0) for key in "123"] == [[], [], []]
    assert said(keypad.press("4", 2.0)) == [("look", "1234"), "home"]
    assert keypad.press("#", 2.5) == []
    assert said(keypad.press("#", 2.6)) == [("wrong", None)]


def test_a_terminator_that_comes_much_later_is_a_key_of_its_own() -> None:
    keypad = collecting()
    for key in "1234":
        keypad.press(key, 1.0)
    assert said(keypad.press("#", 60.0)) == [("wrong", None)]


def test_a_number_ends_when_the_caller_stops() -> None:
    keypad = collecting()
    for at, key in enumerate("123"):
        assert keypad.press(key, float(at)) == []
    assert due(keypad) == 5.0
    assert said(keypad.expire(5.0)) == [("look", "123"), "home"]


def test_a_number_that_takes_too_long_or_is_too_short_is_asked_for_again() -> None:
    keypad = collecting()
    keypad.press("1", 1.0)
    assert said(keypad.expire(4.0)) == [("wrong", "short.wav"), "number.wav"]
    assert said(keypad.press("#", 5.0)) == [("wrong", "short.wav"), "home"]


def test_keys_that_are_no_digits_are_no_part_of_a_number() -> None:
    keypad = collecting()
    assert [keypad.press(key, 1.0) for key in "1*A2"] == [[]] * 4
    assert said(keypad.press("#", 2.0)) == [("look", "12"), "home"]


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"keys": {}}, "needs keys"),
    ({"keys": {"x": {"say": "x"}}}, "no keys"),
    ({"keys": {"1": {}}}, "does nothing"),
    ({"keys": {"1": {"say": "x", "menu": "y"}}}, "say and menu cannot go together"),
    ({"keys": {"1": {"say": "x", "arguments": {"a": 1}}}}, "add tool"),
    ({"keys": {"1": {"say": "{result}"}}}, "add tool"),
    ({"keys": {"1": {"say": "{digits}"}}}, "no {digits}"),
    (
        {"keys": {"1": {"collect": {"then": {"say": "x"}, "min_length": 9, "max_length": 2}}}},
        "more",
    ),
    ({"keys": {"1": {"collect": {"then": {"tell": "{digits}"}, "secret": True}}}}, "secret"),
    ({"keys": {"1": {"collect": {"then": {"say": "x"}, "terminator": "1"}}}}, "regex"),
    ({"keys": {"1": {"collect": {"then": {"say": "x"}, "min_length": 17}}}}, "more than"),
    (
        {"keys": {"1": {"collect": {"then": {"say": "x"}, "otherwise": {"say": "{digits}"}}}}},
        "no {digits}",
    ),
]


@pytest.mark.parametrize(("menu", "words"), MISTAKES)
def test_mistakes_are_found_in_the_settings(menu: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words.replace("{", r"\{")):
        menus(main=menu)


# ---- properties ----

KEYS = "0123456789*#A"
SEQUENCES = st.text(alphabet=KEYS, min_size=1, max_size=4)
GAPS = st.sampled_from([0.1, 0.5, 1.9, 2.0, 2.5])
PRESSES = st.lists(st.tuples(st.sampled_from(KEYS), GAPS), max_size=25)


def drive(keypad: Keypad, presses: list[tuple[str, float]]) -> list[Effect]:
    """Press each key, then let its gap pass, with deadlines kept to the moment."""
    now, effects = 0.0, list[Effect]()
    for key, gap in presses:
        effects += keypad.press(key, now) or []
        end = now + gap
        while (due := keypad.deadline) is not None and due <= end:
            assert due >= now
            effects += keypad.expire(due)
            now = due
        now = end
    return effects


def by_gaps(keys: set[str], presses: list[tuple[str, float]]) -> list[str]:
    """What the presses mean, from the rule alone: a run is the shortest that is decided."""
    found, run = [], ""
    for key, gap in presses:
        run += key
        longer = any(each != run and each.startswith(run) for each in keys)
        if longer and gap < 2.0:
            continue
        found.append(run if run in keys else "wrong")
        run = ""
    return found


@given(st.sets(SEQUENCES, min_size=1, max_size=6), PRESSES)
def test_sequences_are_resolved_as_the_rule_says(
    keys: set[str], presses: list[tuple[str, float]]
) -> None:
    presses = [*presses, ("0", 60.0)]
    table = {"keys": {each: {"say": each} for each in keys}, "tries": 20}
    effects = drive(Keypad(menus(main=table), "main"), presses)
    heard = [
        effect.action.say if isinstance(effect, Act) else "wrong"
        for effect in effects
        if isinstance(effect, Act | Refuse)
    ]
    # One stray key too many ends the tries, which starts counting anew: not told apart here.
    assert heard == by_gaps(keys, presses)


@given(
    st.integers(1, 4),
    st.integers(0, 4),
    st.sampled_from(["#", "*", ""]),
    PRESSES,
)
def test_numbers_are_in_bounds_and_digits_are_only_in_the_action(
    least: int, more: int, terminator: str, presses: list[tuple[str, float]]
) -> None:
    then = Action(tool="look", arguments={"n": "{digits}"})
    collect = Collect(
        then=then,
        min_length=least,
        max_length=least + more,
        terminator=terminator,
        digit_timeout_s=2.0,
        timeout_s=6.0,
        secret=True,
        tries=3,
        prompt=Path("number.wav"),
    )
    keypad = Keypad({"main": Menu(keys={"1": Action(collect=collect)})}, "main")
    effects = drive(keypad, [("1", 0.1), *presses])
    assert len(keypad.typed) <= least + more
    numbers = [one for one in effects if isinstance(one, Act) and one.action is then]
    for act in numbers:
        assert act.secret
        assert least <= len(act.digits) <= least + more
        assert act.digits in "".join(key for key, _ in presses if key.isdecimal())
    shown = repr([one for one in effects if not isinstance(one, Act)])
    assert all(act.digits not in shown for act in numbers if len(act.digits) > 2)


@given(PRESSES, st.lists(st.integers(0, 8), max_size=5))
def test_whatever_happens_there_is_a_next_deadline_or_none(
    presses: list[tuple[str, float]], turns: list[int]
) -> None:
    keypad = Keypad(PLAIN | {"x": NUMBER["main"]}, "main")
    now = 0.0
    for at, (key, gap) in enumerate(presses):
        keypad.press(key, now)
        if at < len(turns):
            keypad.heard(turns[at], now)
        now += gap
        if (due := keypad.deadline) is not None:
            if now < due:
                assert keypad.expire(now) == []
            else:
                assert keypad.expire(now)
                assert keypad.deadline is None or keypad.deadline > due
