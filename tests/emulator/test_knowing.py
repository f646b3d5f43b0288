"""What a session knows: functions by what was said, their results, the history, the language."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trio.testing import MockClock

from tests.emulator.test_server import Client, connecting
from voiced import clips
from voiced.emulator.answers import choose, wanted_call
from voiced.emulator.items import Item

TOOLS = [
    {
        "type": "function",
        "name": "opening_hours",
        "description": "Looks up when we are open.",
        "parameters": {"type": "object", "properties": {}},
    },
    {
        "type": "function",
        "name": "transfer",
        "description": "Hands the caller over to a department.",
        "parameters": {
            "type": "object",
            "properties": {"to": {"type": "string"}},
            "required": ["to"],
        },
    },
]


def text_item(role: str, text: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


async def tooled(client: Client, tools: list[dict[str, Any]] = TOOLS, **audio: Any) -> None:
    session = {
        "type": "realtime",
        "audio": {
            "input": {"format": {"type": "audio/pcmu"}, "transcription": {"model": "m"}, **audio},
            "output": {"format": {"type": "audio/pcmu"}},
        },
        "tools": tools,
    }
    await client.send("session.update", session=session)
    await client.until("session.updated")


async def answer(client: Client) -> str:
    """Wait for an answer; returns its words."""
    done = await client.until("response.done")
    assert done["response"]["status"] == "completed"
    (item,) = done["response"]["output"]
    words: str = item["content"][0].get("transcript") or item["content"][0]["text"]
    return words


async def call(client: Client) -> dict[str, Any]:
    """Wait for a function call; returns its item."""
    done = await client.until("response.done")
    (item,) = done["response"]["output"]
    assert item["type"] == "function_call"
    assert isinstance(item, dict)
    return item


@pytest.mark.parametrize(
    ("said", "name", "arguments"),
    [
        ("hours", "opening_hours", {}),
        ("hours_tr", "opening_hours", {}),
        ("transfer", "transfer", {"to": "sales department"}),
    ],
)
async def test_what_a_caller_says_calls_a_function(
    said: str, name: str, arguments: dict[str, str], autojump_clock: MockClock
) -> None:
    async with connecting() as connect:
        client = await connect()
        await tooled(client)
        await client.say(said)
        item = await call(client)
        assert (item["name"], json.loads(item["arguments"])) == (name, arguments)
        output = {
            "type": "function_call_output",
            "call_id": item["call_id"],
            "output": json.dumps({"text": clips.load("goodbye").text}),
        }
        await client.send("conversation.item.create", item=output)
        await client.send("response.create")
        assert await answer(client) == clips.load("goodbye").text


async def test_what_asks_for_no_function_is_answered(autojump_clock: MockClock) -> None:
    async with connecting() as connect:
        client = await connect()
        await tooled(client)
        await client.say("hello")
        assert await answer(client) == clips.load("who").text


async def test_a_function_is_called_once_for_each_time_it_is_asked_for(
    autojump_clock: MockClock,
) -> None:
    async with connecting() as connect:
        client = await connect()
        await tooled(client)
        hours = text_item("user", clips.load("hours").text)
        for _ in range(2):
            await client.send("conversation.item.create", item=hours)
            await client.send("response.create")
            await call(client)
            await client.send("response.create")  # without a result, and it does not ask again
            assert await answer(client) == clips.load("opening_hours").text


async def test_an_answer_told_what_to_say_calls_nothing(autojump_clock: MockClock) -> None:
    async with connecting() as connect:
        client = await connect()
        await tooled(client)
        hours = text_item("user", clips.load("hours").text)
        await client.send("conversation.item.create", item=hours)
        words = (
            'Say exactly the following words and nothing else: "Thank you for your call. Goodbye."'
        )
        await client.send("response.create", response={"instructions": words})
        assert await answer(client) == clips.load("goodbye").text
        await client.send("response.create", response={"tool_choice": "none"})
        assert await answer(client) == clips.load("opening_hours").text


@pytest.mark.parametrize("language", ["en", "tr", "ja"])
async def test_a_new_session_knows_the_history_that_it_is_given(
    language: str, autojump_clock: MockClock
) -> None:
    def name(base: str) -> str:
        return base if language == "en" else f"{base}_{language}"

    asked = clips.load(name("hours")).text
    async with connecting() as connect:
        client = await connect()
        await tooled(client, [])
        for role, text in (
            ("assistant", clips.load(name("greeting")).text),
            ("user", asked),
            ("assistant", clips.load(name("opening_hours")).text),
        ):
            await client.send("conversation.item.create", item=text_item(role, text))
        opening = [clips.load(name("you_asked")).text]
        if language != "ja":
            opening.append("")
        await client.say(name("recall"))
        assert await answer(client) == " ".join(opening) + asked


async def test_a_session_without_history_remembers_nothing(autojump_clock: MockClock) -> None:
    async with connecting() as connect:
        client = await connect()
        await tooled(client, [])
        await client.say("recall")
        assert await answer(client) == clips.load("nothing_asked").text
        await client.say("hours")
        assert await answer(client) == clips.load("opening_hours").text
        await client.say("recall")
        assert (await answer(client)).endswith(clips.load("hours").text)


async def test_an_owed_answer_is_given_from_the_history(autojump_clock: MockClock) -> None:
    async with connecting() as connect:
        client = await connect()
        await tooled(client, [])
        hours = text_item("user", clips.load("hours").text)
        await client.send("conversation.item.create", item=hours)
        await client.send("response.create")
        assert await answer(client) == clips.load("opening_hours").text


@pytest.mark.parametrize("language", ["tr", "ja"])
async def test_turkish_and_japanese(language: str, autojump_clock: MockClock) -> None:
    async with connecting() as connect:
        client = await connect()
        await tooled(client, [], transcription={"model": "m", "language": language})
        await client.send("response.create")
        assert await answer(client) == clips.load(f"greeting_{language}").text
        for said in ("hours", "appointment", "thanks"):
            await client.say(f"{said}_{language}")
            expected = clips.load(f"{said}_{language}")
            assert expected.answer is not None
            assert await answer(client) == clips.load(expected.answer).text
            told = client.of("conversation.item.input_audio_transcription.completed")[-1]
            assert told["transcript"] == expected.text
        hidden = text_item("user", "Başka" if language == "tr" else "ええと")
        await client.send("conversation.item.create", item=hidden)
        await client.send("response.create")
        known = {clips.load(f"{n}_{language}").text for n in ("tell_me_more", "anything_else")}
        assert await answer(client) in known


# --- the choice itself --------------------------------------------------------------------------


def written(role: str, text: str) -> Item:
    return Item({"id": "i", **text_item(role, text)})


def output(value: Any) -> Item:
    text = value if isinstance(value, str) else json.dumps(value)
    return Item({"id": "o", "type": "function_call_output", "call_id": "c", "output": text})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Your order is on its way.", "Your order is on its way."),
        ({"answer": "At ten."}, "At ten."),
        ({"error": "No such order."}, "No such order."),
        (
            {"order_state": "sent", "paid": True, "items": [1, 2]},
            "The order state is sent, paid and the items are 1 and 2.",
        ),
        (
            {"passages": [{"file": "a.md", "heading": "Hours", "text": "We open at ten."}] * 2},
            "We open at ten. We open at ten.",
        ),
        ({"passages": [], "note": "nothing was found"}, "nothing was found"),
        (
            {"found": False, "hours": "ten to six", "x": None},
            "Not found and the hours are ten to six.",
        ),
        (
            {"order": {"state": "sent"}, "say": "It comes soon."},
            "The state is sent. It comes soon.",
        ),
        ([1, 2, 3], "1, 2 and 3."),
        ({"status": "open"}, "The status is open."),
        (f"{'word ' * 99}end. More words.", f"{'word ' * 99}end."),
        ("営業中です。", "営業中です。"),
        (3.5, "3.5"),
        (None, clips.load("anything_else").text),
        ("", clips.load("anything_else").text),
    ],
)
def test_results_in_words(value: Any, expected: str) -> None:
    assert choose(None, [written("user", "x"), output(value)], "en", 1).text == expected


def test_a_key_is_acknowledged() -> None:
    told = written("system", "The caller pressed the key 3.")
    assert choose(None, [written("user", "hm"), told], "en", 1).text == "You pressed 3."
    other = written("system", "The order of this caller is 12345.")
    line = choose(None, [written("user", clips.load("hours").text), other], "en", 1)
    assert line.clips == ("opening_hours",)


def test_all_that_is_known_is_repeated() -> None:
    heard = Item({"id": "h", "content": [{"type": "input_audio", "transcript": "What is it?"}]})
    spoken = Item({"id": "s", "content": [{"type": "output_audio", "transcript": "A telephone."}]})
    unclear = Item({"id": "u", "content": [{"type": "input_audio", "transcript": None}]})
    known = [written("system", "They pressed 1."), heard, spoken, unclear, output("3")]
    wanted = "They pressed 1. What is it? A telephone."
    ask = "Repeat all you know."
    assert choose(None, [*known, written("system", ask)], "en", 1).text == wanted
    assert choose(None, [written("system", ask)], "en", 1).clips == ("nothing_asked",)
    other = choose(None, [*known, written("system", "Do not repeat all you know.")], "en", 1)
    assert wanted not in other.text


def test_who_has_been_greeted_is_not_greeted_again() -> None:
    assert choose(None, [], "en", 0).clips == ("greeting",)
    assert choose(None, [written("assistant", "Hello!")], "en", 0).clips == ("anything_else",)


def test_instructions_tell_the_language() -> None:
    assert choose("Arayanı güzelce karşıla", [], "tr", 0).clips == ("greeting_tr",)


def test_a_demanded_call_needs_no_words_and_comes_once() -> None:
    tools = [{"name": "f"}]
    called = wanted_call([], tools, "required")
    assert called is not None
    assert called.name == "f"
    made = Item({"id": "c", "type": "function_call", "arguments": "{}"})
    assert wanted_call([made], tools, "required") is None


BROKE_OFF = (
    'Your last answer was cut off by a fault of the line. The caller hears it up to: "{}" '
    "Go on from exactly there, without a greeting."
)


def test_an_answer_that_broke_off_goes_on() -> None:
    hours = written("user", clips.load("hours").text)
    whole = clips.load("opening_hours").text
    begun, rest = whole[:60], whole[60:].strip()
    assert choose(None, [hours, written("system", BROKE_OFF.format(begun))], "en", 0).text == rest
    assert choose(None, [hours, written("system", BROKE_OFF.format("Hm"))], "en", 0).text == whole
    over = choose(None, [hours, written("system", BROKE_OFF.format(whole))], "en", 0)
    assert over.clips == ("anything_else",)
    exact = 'Say exactly the following words and nothing else: "He said "no". Really."\n'
    line = choose(exact + BROKE_OFF.format('He said "no".'), [hours], "en", 0)
    assert line.text == "Really."


def test_a_call_of_a_former_session_is_not_made_again_and_its_result_is_told() -> None:
    hours = written("user", clips.load("hours").text)
    called = "You have called the function opening_hours with the arguments {}. Do not call it."
    assert wanted_call([hours], TOOLS, "auto") is not None
    assert wanted_call([hours, written("system", called)], TOOLS, "auto") is None
    returned = 'The function opening_hours, which you called with {}, returned: {"text": "Now."}'
    assert choose(None, [hours, written("system", returned)], "en", 0).text == "Now."
