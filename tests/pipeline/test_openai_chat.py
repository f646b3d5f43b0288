"""Chat as OpenAI's API has it, against a server over HTTP, and others that follow it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.pipeline.peer import URL, Peer, Reply, Request
from voiced.config import types
from voiced.engine import ToolSpec, Usage
from voiced.pipeline.openai_chat import BREAK, ChunkReader, OpenAiChat, Thoughts
from voiced.pipeline.providers import (
    ChatPiece,
    Ended,
    Message,
    ProviderError,
    ToolRequest,
)
from voiced.pipeline.sentences import Sentences

KEY = "sk-very-secret"
CHAT = types.Chat(url=URL, api_key=KEY, model="some-chat")
ASKED = [Message("system", "Be brief."), Message("user", "When are you open?")]


async def chat(
    peer: Peer, messages: Sequence[Message] = ASKED, tools: Sequence[ToolSpec] = ()
) -> list[ChatPiece]:
    async with peer.http() as http, aclosing(OpenAiChat(CHAT, http).stream(messages, tools)) as got:
        return [piece async for piece in got]


async def test_an_answer_streams(autojump_clock: trio.testing.MockClock) -> None:
    peer = Peer()
    pieces = await chat(peer)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == (
        "We are open from nine to five. Shall I book a table for you tonight? "
    )
    assert pieces[-1] == Usage(text_in=20, text_out=10)
    assert peer.requests[0].json == {
        "model": "some-chat",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "When are you open?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 400,
    }


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


def call(index: int, **fields: Any) -> dict[str, Any]:
    return delta(tool_calls=[{"index": index, **fields}])


async def test_tools_are_offered_and_called(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(_: Request, reply: Reply) -> None:
        await reply.events(
            [
                delta(content="One moment. "),
                call(0, id="c1", type="function", function={"name": "hours", "arguments": ""}),
                call(0, function={"arguments": '{"day":'}),
                call(0, function={"arguments": '"Mon"}'}),
                call(1, id="c2", type="function", function={"name": "menu", "arguments": "{}"}),
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
            ]
        )

    peer = Peer(handler)
    schema = {"type": "object", "properties": {"day": {"type": "string"}}}
    told = [
        *ASKED,
        Message("assistant", "", (ToolRequest("c0", "hours", "{}"),)),
        Message("tool", "nine to five", tool_call_id="c0"),
    ]
    pieces = await chat(peer, told, [ToolSpec("hours", "Opening hours", schema)])
    assert pieces == [
        "One moment. ",
        BREAK,
        ToolRequest("c1", "hours", '{"day":"Mon"}'),
        ToolRequest("c2", "menu", "{}"),
    ]
    sent = peer.requests[0].json
    function = {"name": "hours", "description": "Opening hours", "parameters": schema}
    assert sent["tools"] == [{"type": "function", "function": function}]
    assert sent["messages"][2:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c0", "type": "function", "function": {"name": "hours", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "content": "nine to five", "tool_call_id": "c0"},
    ]


def test_a_call_is_whole_when_the_next_one_begins() -> None:
    """It can be at work while the model goes on writing."""
    reader = ChunkReader()
    first = call(0, id="c1", function={"name": "hours", "arguments": "{}"})
    assert reader.feed(json.dumps(first)) == [BREAK]
    second = call(1, id="c2", function={"name": "menu", "arguments": ""})
    assert reader.feed(json.dumps(second)) == [ToolRequest("c1", "hours", "{}")]
    assert reader.end() == [ToolRequest("c2", "menu", "{}")]


async def test_what_is_said_before_a_tool_call_does_not_wait_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Arguments may take seconds to be written: the caller hears what goes before them."""

    async def handler(_: Request, reply: Reply) -> None:
        first = call(0, id="c1", type="function", function={"name": "hours", "arguments": ""})
        chunks = [delta(content="One moment."), first, call(0, function={"arguments": "{}"})]
        await reply.events(chunks, gap_s=1)

    sentences, spoken, began = Sentences(), list[tuple[str, float]](), trio.current_time()
    async with (
        Peer(handler).http() as http,
        aclosing(OpenAiChat(CHAT, http).stream(ASKED, ())) as pieces,
    ):
        async for piece in pieces:
            said = sentences.feed(piece) if isinstance(piece, str) else ()
            spoken += [(text, trio.current_time() - began) for text in said]
    ((text, after),) = spoken
    assert text == "One moment." + BREAK
    assert after == pytest.approx(1)


async def test_a_server_that_does_not_end_its_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """`[DONE]` is the end of it, whatever becomes of the connection."""

    async def handler(_: Request, reply: Reply) -> None:
        await reply.head(content_type="text/event-stream")
        more = json.dumps(delta(content="And now?"))
        for data in (json.dumps(delta(content="One moment.")), "[DONE]", more):
            await reply.part(f"data: {data}\n\n".encode())
        await trio.sleep(60)

    began = trio.current_time()
    assert await chat(Peer(handler)) == ["One moment."]
    assert trio.current_time() - began < 1


async def test_a_server_that_does_not_stream(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(_: Request, reply: Reply) -> None:
        message = {"role": "assistant", "content": "Hello."}
        await reply.json({"choices": [{"message": message, "finish_reason": "length"}]})

    assert await chat(Peer(handler)) == ["Hello.", Ended("length")]


@pytest.mark.parametrize(
    ("field", "error", "instead"),
    [
        ("stream_options", {"message": "Unknown field: stream_options"}, None),
        (
            "max_tokens",
            {"message": "Not supported", "param": "max_tokens"},
            "max_completion_tokens",
        ),
    ],
)
async def test_a_field_that_a_server_refuses_is_left_out_from_then_on(
    field: str,
    error: dict[str, str],
    instead: str | None,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(request: Request, reply: Reply) -> None:
        if field in request.json:
            await reply.json({"error": error}, status=400)
        else:
            await reply.words("Hello.")

    peer = Peer(handler)
    async with peer.http() as http:
        model = OpenAiChat(CHAT, http)
        for _ in range(2):
            async with aclosing(model.stream(ASKED, ())) as got:
                assert await anext(got) == "Hello. "
    assert [field in request.json for request in peer.requests] == [True, False, False]
    assert instead is None or instead in peer.requests[-1].json


async def test_instructions_alone_become_a_question_where_they_must(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(request: Request, reply: Reply) -> None:
        if all(message["role"] != "user" for message in request.json["messages"]):
            await reply.json({"error": "No user query found in messages."}, status=400)
        else:
            await reply.words("Hello.")

    peer = Peer(handler)
    assert (await chat(peer, ASKED[:1]))[0] == "Hello. "
    assert peer.requests[-1].json["messages"] == [{"role": "user", "content": "Be brief."}]


async def test_an_error_amid_the_answer(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(_: Request, reply: Reply) -> None:
        await reply.events([delta(content="We "), {"error": {"message": "Out of memory"}}])

    with pytest.raises(ProviderError, match="Out of memory") as raised:
        await chat(Peer(handler))
    assert raised.value.verdict == "retry"


@given(
    thought=st.none() | st.text("ab <>/think", max_size=30).filter(lambda t: "</think>" not in t),
    answer=st.text("ab c<think>", min_size=1, max_size=30),
    places=st.lists(st.integers(0, 90), max_size=9),
)
def test_thoughts_are_not_spoken(thought: str | None, answer: str, places: list[int]) -> None:
    answer = answer.strip() or "a"
    if thought is None and answer.startswith("<think>"):
        return
    text = answer if thought is None else f"<think>{thought}</think>\n\n{answer}"
    if thought is not None and "</think>" in f"{thought}</think>"[:-1]:
        return
    ends = sorted({0, len(text), *(min(place, len(text)) for place in places)})
    thoughts = Thoughts()
    parts = [thoughts.feed(text[a:b]) for a, b in pairwise(ends)]
    assert "".join([*parts, thoughts.end()]) == answer


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "tool_calls", "function", "usage", "index"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.one_of(JSON, st.text(max_size=20)), max_size=5))
def test_no_chunk_does_harm(chunks: list[Any]) -> None:
    reader = ChunkReader()
    for chunk in chunks:
        try:
            reader.feed(chunk if isinstance(chunk, str) else json.dumps(chunk))
        except ProviderError:
            continue
    reader.end()
