"""Events of answers that come in another order, half, or without what others have in them."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.emulator.peer import Peer, kinds
from tests.emulator.test_server import EXACTLY, SESSION, connecting
from voiced.emulator.options import Faults, Order
from voiced.emulator.ordering import Ordering

AUDIO, WORDS = "response.output_audio.delta", "response.output_audio_transcript.delta"
ALL_SAID = "response.output_audio_transcript.done"
ORDERS = get_args(Order)


def answer(order: Order) -> list[dict[str, Any]]:
    peer = Peer(Faults(order=order))
    response = peer.respond()
    response.begin()
    response.open_message()
    if order == "words_first":
        response.spell(["Good ", "day"])
    for words in ("Good ", "day"):
        response.speak(bytes(480), "" if order == "words_first" else words)
    response.finish("completed")
    return peer.read()


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_is_lost_or_added(order: Order) -> None:
    events, usual = answer(order), answer("usual")
    assert sorted(kinds(events)) == sorted(kinds(usual))
    assert kinds(events) != kinds(usual) or order == "usual"

    def done(told: list[dict[str, Any]]) -> Any:
        return next(event for event in told if event["type"] == "response.done")["response"]

    assert done(events) == done(usual)


@pytest.mark.parametrize(
    ("order", "earlier", "later"),
    [
        ("usual", "response.created", "response.output_item.added"),
        ("usual", "response.output_audio.done", "response.output_item.done"),
        ("usual", "conversation.item.done", "response.done"),
        ("created_late", "response.output_item.added", "response.created"),
        ("created_late", AUDIO, "response.created"),
        ("created_late", "response.created", "response.output_audio.done"),
        ("items_first", "response.output_item.done", "response.output_audio.done"),
        ("items_first", "response.output_item.done", ALL_SAID),
        ("items_first", "response.content_part.done", "response.done"),
        ("items_late", "response.done", "conversation.item.added"),
        ("items_late", "conversation.item.added", "conversation.item.done"),
        ("words_first", WORDS, AUDIO),
        ("words_first", ALL_SAID, AUDIO),
        ("words_last", "response.output_audio.done", WORDS),
        ("words_last", WORDS, ALL_SAID),
    ],
)
def test_an_order(order: Order, earlier: str, later: str) -> None:
    told = kinds(answer(order))
    assert told.index(earlier) < told.index(later)


def test_a_calls_item_is_done_before_its_arguments() -> None:
    peer = Peer(Faults(order="items_first"))
    response = peer.respond()
    response.begin()
    response.call("lookup", '{"a": 1}')
    response.finish("completed")
    told = kinds(peer.read())
    done = "response.function_call_arguments.done"
    assert told.index("response.output_item.done") < told.index(done) < told.index("response.done")


def test_what_is_no_part_of_an_answer_does_not_wait() -> None:
    peer = Peer(Faults(order="items_late"))
    item = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "x"}]}
    created = kinds(peer.send("conversation.item.create", item=item))
    assert created == ["conversation.item.added", "conversation.item.done"]


@given(
    st.sampled_from(ORDERS),
    st.lists(
        st.sampled_from(
            (
                *("response.created", "rate_limits.updated", AUDIO, WORDS, ALL_SAID, "error"),
                *("response.output_audio.done", "response.output_item.done"),
                "conversation.item.done",
            )
        ),
        max_size=30,
    ),
)
def test_whatever_comes_is_out_when_the_response_is(order: Order, told: list[str]) -> None:
    ordering = Ordering(order)
    told = ["response.created", *told, "response.done"]
    out = [message for kind in told for message in ordering.take(kind, kind.encode())]
    assert sorted(out) == sorted(kind.encode() for kind in told)


def test_a_clone_leaves_out_the_name() -> None:
    peer = Peer(Faults(unnamed_calls=True))
    response = peer.respond()
    response.begin()
    response.call("lookup", "{}")
    events = [json.loads(message) for message in peer.dialogue.outbox]
    (done,) = [e for e in events if e["type"] == "response.function_call_arguments.done"]
    assert "name" not in done
    (added,) = [e for e in events if e["type"] == "response.output_item.added"]
    assert added["item"]["name"] == "lookup"


async def test_a_call_stops_half_way_until_it_is_cancelled(autojump_clock: MockClock) -> None:
    whole = '{"to": "sales", "why": "asked"}'
    faults = Faults(function_calls=1, function_arguments=whole, half_calls=1)
    async with connecting(faults) as connect:
        client = await connect()
        await client.configure()
        await client.send("response.create")
        delta = await client.until("response.function_call_arguments.delta")
        assert delta["delta"] == whole[: len(whole) // 2]
        await client.send("input_audio_buffer.clear")  # meanwhile nothing happens
        await client.until("input_audio_buffer.cleared")
        assert not client.of("response.output_item.done")
        await client.send("response.cancel")
        done = (await client.until("response.done"))["response"]
        assert (done["status"], done["output"][0]["status"]) == ("cancelled", "incomplete")
        (arguments,) = client.of("response.function_call_arguments.done")
        assert arguments["arguments"] == delta["delta"]
        (item,) = client.of("response.output_item.done")
        assert (item["item"]["status"], item["item"]["arguments"]) == ("incomplete", delta["delta"])
        # Only the first is cut.
        await client.send("response.create")
        done = (await client.until("response.done"))["response"]
        assert (done["status"], done["output"][0]["arguments"]) == ("completed", whole)


async def test_the_whole_server_tells_the_words_first(autojump_clock: MockClock) -> None:
    async with connecting(Faults(order="words_first")) as connect:
        client = await connect()
        await client.send("session.update", session={**SESSION, "tools": []})
        text = "Thank you for calling. Goodbye."
        await client.send("response.create", response={"instructions": EXACTLY.format(text)})
        done = await client.until("response.done")
        assert client.of(ALL_SAID)[0]["transcript"] == text
        assert "".join(event["delta"] for event in client.of(WORDS)) == text
        told = [event["type"] for event in client.seen]
        assert told.index(ALL_SAID) < told.index(AUDIO)
        assert done["response"]["output"][0]["content"][0]["transcript"] == text


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "server_error"])
async def test_a_failed_answer_has_the_code_that_was_asked_for(
    code: str, autojump_clock: MockClock
) -> None:
    async with connecting(Faults(fail_all=True, fail_code=code)) as connect:
        client = await connect()
        await client.send("response.create")
        done = (await client.until("response.done"))["response"]
        assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", code)
