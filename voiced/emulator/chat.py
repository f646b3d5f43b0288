"""`POST /v1/chat/completions`: what is asked for, and what is answered. No I/O.

Source: OpenAI's API reference, "Create chat completion" and "chat completion chunk".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from voiced.emulator.answers import Call, choose, language_of, pieces, wanted_call
from voiced.emulator.errors import HttpRefused, Refused
from voiced.emulator.items import Item, text_tokens
from voiced.emulator.schema import (
    Anything,
    Bool,
    Choice,
    Fields,
    Kind,
    ListOf,
    MapOf,
    Number,
    OneOf,
    OrNull,
    Tagged,
    Text,
)
from voiced.emulator.telling import gist

__all__ = ["Request", "chunks", "completion", "read_request"]

MESSAGES: Final = 2048

_CONTENT = OneOf(Text(), ListOf(Anything(), 256))
_CALLS = ListOf(
    Fields(
        {
            "id": Text(64),
            "type": Choice(("function",)),
            "function": Fields({"name": Text(64), "arguments": Text()}, ("name", "arguments")),
        },
        ("id", "type", "function"),
    ),
    128,
)


def _message(role: str, required: tuple[str, ...] = ("content",), /, **kinds: Kind) -> Fields:
    own: dict[str, Kind] = {"role": Choice((role,)), "content": _CONTENT, "name": Text(64)}
    return Fields(own | kinds, ("role", *required))


_REQUEST = Fields(
    {
        "messages": ListOf(
            Tagged(
                "role",
                {
                    "system": _message("system"),
                    "developer": _message("developer"),
                    "user": _message("user"),
                    "assistant": _message(
                        "assistant",
                        (),
                        content=OrNull(_CONTENT),
                        tool_calls=_CALLS,
                        refusal=OrNull(Text()),
                        annotations=OrNull(Anything()),  # what an answer has, sent back
                        audio=OrNull(Anything()),
                    ),
                    "tool": _message("tool", ("content", "tool_call_id"), tool_call_id=Text(64)),
                },
            ),
            MESSAGES,
        ),
        "model": Text(256),
        "stream": OrNull(Bool()),
        "stream_options": OrNull(Fields({"include_usage": Bool(), "include_obfuscation": Bool()})),
        "tools": ListOf(
            Fields(
                {
                    "type": Choice(("function",)),
                    "function": Fields(
                        {
                            "name": Text(64),
                            "description": OrNull(Text(16_384)),
                            "parameters": OrNull(Anything()),
                            "strict": OrNull(Bool()),
                        },
                        ("name",),
                    ),
                },
                ("type", "function"),
            ),
            128,
        ),
        "tool_choice": OneOf(Choice(("auto", "none", "required")), Anything("an object")),
        "parallel_tool_calls": Bool(),
        "max_tokens": OrNull(Number(1, 1_000_000, whole=True)),
        "max_completion_tokens": OrNull(Number(1, 1_000_000, whole=True)),
        "n": OrNull(Choice((1,))),
        "temperature": OrNull(Number(0, 2)),
        "top_p": OrNull(Number(0, 1)),
        "frequency_penalty": OrNull(Number(-2, 2)),
        "presence_penalty": OrNull(Number(-2, 2)),
        "metadata": OrNull(MapOf(Text(512), 16, 64)),
        "response_format": Anything("an object"),
        **dict.fromkeys(
            (
                "logit_bias",
                "logprobs",
                "prediction",
                "prompt_cache_key",
                "reasoning_effort",
                "safety_identifier",
                "seed",
                "service_tier",
                "stop",
                "store",
                "top_logprobs",
                "user",
                "verbosity",
            ),
            Anything(),
        ),
    },
    ("messages", "model"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request and its answer."""

    id: str
    created: int  # Unix time
    model: str
    stream: bool
    include_usage: bool
    prompt_tokens: int
    content: list[str]  # pieces of the text; empty where a function is called
    call: Call | None
    cut: bool  # the answer met the token limit

    @property
    def finish_reason(self) -> str:
        """As the protocol has it."""
        if self.cut:
            return "length"
        return "tool_calls" if self.call else "stop"

    @property
    def usage(self) -> dict[str, Any]:
        """Tokens, by the same estimate as in the Realtime protocol."""
        written = "".join(self.content)
        made = text_tokens(written)
        if self.call is not None:
            made += text_tokens(self.call.name + self.call.arguments)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": self.prompt_tokens + made,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }


def read_request(body: bytes, *, request_id: str, created: int) -> Request:
    """Check a request's body and choose the answer. Raises HttpRefused."""
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise HttpRefused(
            400, None, "We could not parse the JSON body of your request. It is not valid JSON."
        ) from None
    try:
        _REQUEST.check(given, "")
        _check_calls(given["messages"])
    except Refused as refused:
        raise HttpRefused(400, refused.code, refused.message, refused.param) from None
    items = [item for message in given["messages"] for item in _items(message)]
    call, text = _answer(given, items)
    parts = pieces(text) if call is None else []
    limit = given.get("max_completion_tokens") or given.get("max_tokens")
    kept = _within(parts, limit)
    return Request(
        id=request_id,
        created=created,
        model=given["model"],
        stream=bool(given.get("stream")),
        include_usage=bool((given.get("stream_options") or {}).get("include_usage")),
        prompt_tokens=sum(item.tokens().text for item in items),
        content=kept,
        call=call,
        cut=len(kept) < len(parts),
    )


def _check_calls(messages: Sequence[dict[str, Any]]) -> None:
    """Each call has its results behind it, and each result its call, as the service demands."""
    if not messages:
        raise Refused("empty_array", "Invalid 'messages': empty array.", "messages")
    owed: list[str] = []
    for index, message in enumerate([*messages, {"role": "user"}]):
        if message["role"] == "tool":
            if message["tool_call_id"] not in owed:
                raise Refused(
                    None,
                    "Invalid parameter: messages with role 'tool' must be a response to a "
                    "preceding message with 'tool_calls'.",
                    f"messages.[{index}].role",
                )
            owed.remove(message["tool_call_id"])
            continue
        if owed:
            raise Refused(
                None,
                "An assistant message with 'tool_calls' must be followed by tool messages "
                "responding to each 'tool_call_id'. The following tool_call_ids did not have "
                f"response messages: {', '.join(owed)}",
                f"messages.[{index}].role",
            )
        owed = [call["id"] for call in message.get("tool_calls") or ()]


def _text(content: Any) -> str:
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return " ".join(part for part in parts if isinstance(part, str))
    return content or ""


def _items(message: dict[str, Any]) -> Iterator[Item]:
    """A message as items of the Realtime protocol, whose answers are chosen alike."""
    role, text = message["role"], _text(message.get("content"))
    if role == "tool":
        yield Item({"id": "", "type": "function_call_output", "output": text})
        return
    if text or role == "user":
        role = "system" if role == "developer" else role
        content = [{"type": "input_text", "text": text}]
        yield Item({"id": "", "type": "message", "role": role, "content": content})
    for call in message.get("tool_calls") or ():
        arguments = call["function"]["arguments"]
        yield Item({"id": "", "type": "function_call", "arguments": arguments})


def _answer(given: dict[str, Any], items: list[Item]) -> tuple[Call | None, str]:
    shape = given.get("response_format")
    if isinstance(shape, dict) and shape.get("type") in ("json_object", "json_schema"):
        return None, _json_answer(shape, items)
    tools = [tool["function"] for tool in given.get("tools") or ()]
    call = wanted_call(items, tools, given.get("tool_choice", "auto")) if tools else None
    if call is not None:
        return call, ""
    told = [item for item in items if item.role == "system"]
    instructions = told[-1].text if told and items[-1] is told[-1] else None
    language = language_of(" ".join(item.text for item in told), "en")
    said = [item for item in items if item not in told[:1]]
    turn = sum(item.role == "assistant" for item in items)
    if _wants_json(items):
        return None, _json_answer({}, items)
    return None, choose(instructions, said, language, turn).text


_NAMED: Final = re.compile(r'"([a-z_]{2,40})"')


def _wants_json(items: list[Item]) -> bool:
    """A prompt that shows the keys of the JSON that it wants, as summaries of calls do."""
    return any("json" in i.text.lower() and _NAMED.search(i.text) for i in items[:1] + items[-1:])


def _json_answer(shape: dict[str, Any], items: list[Item]) -> str:
    """JSON with the keys that a schema or the prompt names, each filled with something of it."""
    schema = (shape.get("json_schema") or {}).get("schema") or {}
    asked = " ".join(item.text for item in items[:1] + items[-1:])
    names = list(schema.get("properties") or dict.fromkeys(_NAMED.findall(asked)))
    told = next((item.text for item in reversed(items) if item.role == "user"), "")
    values: dict[str, Any] = {}
    for name in names:
        kind = (schema.get("properties") or {}).get(name, {})
        options = kind.get("enum")
        if options:
            values[name] = "neutral" if "neutral" in options else options[0]
        elif kind.get("type") == "array" or name.endswith("s"):
            values[name] = sorted(set(re.findall(r"[^\W\d_]{7,}", told)))[:3]
        elif kind.get("type") in ("number", "integer"):
            values[name] = 0
        elif kind.get("type") == "boolean":
            values[name] = False
        else:
            fixed = {"sentiment": "neutral", "language": language_of(told, "en")}
            values[name] = fixed.get(name) or gist(told)
    return json.dumps(values or {"answer": gist(told)}, ensure_ascii=False)


def _within(parts: list[str], limit: int | None) -> list[str]:
    if limit is None:
        return parts
    kept: list[str] = []
    for part in parts:
        if text_tokens("".join([*kept, part])) > limit:
            break
        kept.append(part)
    return kept


def _call_shape(request: Request, arguments: str) -> dict[str, Any]:
    assert request.call is not None
    function = {"name": request.call.name, "arguments": arguments}
    return {"id": f"call_{request.id[-12:]}", "type": "function", "function": function}


def completion(request: Request) -> dict[str, Any]:
    """The answer in one piece."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if request.call else "".join(request.content),
        "refusal": None,
        "annotations": [],
    }
    if request.call:
        message["tool_calls"] = [_call_shape(request, request.call.arguments)]
    choice = {"index": 0, "message": message, "logprobs": None}
    return {
        **_frame(request, "chat.completion"),
        "choices": [{**choice, "finish_reason": request.finish_reason}],
        "usage": request.usage,
    }


def _frame(request: Request, kind: str) -> dict[str, Any]:
    return {
        "id": request.id,
        "object": kind,
        "created": request.created,
        "model": request.model,
        "service_tier": "default",
        "system_fingerprint": "fp_emulator",
    }


def chunks(request: Request) -> Iterator[dict[str, Any]]:
    """The answer as the events of a stream; `[DONE]` is left to the sender."""
    frame = _frame(request, "chat.completion.chunk")
    if request.include_usage:
        frame["usage"] = None

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**frame, "choices": [choice]}

    first: dict[str, Any] = {"role": "assistant", "refusal": None}
    if request.call is None:
        yield chunk({**first, "content": ""})
        for piece in request.content:
            yield chunk({"content": piece})
    else:
        shape = _call_shape(request, "")
        yield chunk({**first, "content": None, "tool_calls": [{"index": 0, **shape}]})
        arguments = request.call.arguments
        middle = len(arguments) // 2
        for piece in (arguments[:middle], arguments[middle:]):
            if piece:
                yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    yield chunk({}, request.finish_reason)
    if request.include_usage:
        yield {**frame, "choices": [], "usage": request.usage}
