"""Chat at `/chat/completions`, streamed.

Source: OpenAI's API reference, "Create chat completion" and "The chat completion chunk object".
Servers that follow it differ in what they refuse, so a field that one objects to is left out from
then on, or named as it wants it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from secrets import token_hex
from typing import Any, Final, final

import msgspec
import trio

from voiced.config import types
from voiced.engine import Usage
from voiced.pipeline.client import Answer, Http
from voiced.pipeline.errors import Refusal, of_body
from voiced.pipeline.providers import (
    ChatPiece,
    Ended,
    Message,
    ProviderError,
    ToolRequest,
    ToolSpec,
)
from voiced.pipeline.sse import SseError, SseParser

__all__ = ["ChunkReader", "OpenAiChat", "Thoughts"]

MAX_TOOLS: Final = 16  # calls of one answer
MAX_ARGUMENTS: Final = 256 * 1024  # characters of one
END_S: Final = 0.2  # for the end of an answer after its last event, so that the connection is kept

BREAK: Final = "\n"
"""Between what is said and the first tool call, whose arguments may take long to be written: the
last sentence need not wait for them."""

_THINK: Final = "<think>"
_THOUGHT: Final = "</think>"


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None  # of an answer that does not stream
    finish_reason: str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


@final
class Thoughts:
    """Leaves out what a model thinks aloud before its answer, between `<think>` and `</think>`.

    Servers of reasoning models should send that apart, and those that do not would have it spoken.
    """

    def __init__(self) -> None:
        self._held: str | None = ""  # None: the answer has begun
        self._thinking = False

    def feed(self, text: str) -> str:
        """Return what of `text` is the answer."""
        if self._held is None:
            return text
        self._held += text
        if not self._thinking:
            begin = self._held.lstrip()
            if len(begin) < len(_THINK) and _THINK.startswith(begin):
                return ""
            if not begin.startswith(_THINK):
                return self._begin(self._held)
            self._thinking = True
        thought, end, answer = self._held.partition(_THOUGHT)
        if not end:
            self._held = thought[-len(_THOUGHT) :]
            return ""
        answer = answer.lstrip()
        if not answer:
            self._held = _THOUGHT  # the answer's first word is still to come
            return ""
        return self._begin(answer)

    def end(self) -> str:
        """Return what was held back and is part of the answer after all."""
        return "" if self._thinking else self._begin(self._held or "")

    def _begin(self, answer: str) -> str:
        self._held = None
        return answer


@final
class ChunkReader:
    """Makes pieces of the JSON of chunks. Sans-I/O."""

    def __init__(self) -> None:
        self._calls: dict[int, tuple[str, str, list[str]]] = {}  # id, name, arguments
        self._size = 0
        self._thoughts = Thoughts()
        self._usage: Usage | None = None
        self._ended: Ended | None = None

    def feed(self, data: str | bytes) -> list[ChatPiece]:
        """Return what a chunk brings at once. Raises ProviderError for one that is an error."""
        try:
            chunk = msgspec.json.decode(data, type=_Chunk)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ProviderError("bad_answer", "not a chat completion chunk") from None
        if chunk.error is not None:
            raise of_body(chunk.error)
        if chunk.usage is not None:
            details = chunk.usage.prompt_tokens_details
            self._usage = Usage(
                text_in=chunk.usage.prompt_tokens or 0,
                cached_text_in=(details.cached_tokens if details else 0) or 0,
                text_out=chunk.usage.completion_tokens or 0,
            )
        pieces: list[ChatPiece] = []
        for choice in (chunk.choices or [])[:1]:
            delta = choice.delta or choice.message or _Delta()
            if text := self._thoughts.feed(delta.content or delta.refusal or ""):
                pieces.append(text)
            if delta.tool_calls and not self._calls:
                pieces.append(BREAK)
            for call in delta.tool_calls or ():
                self._add(call, pieces)
            if choice.finish_reason in ("length", "content_filter"):
                self._ended = Ended(choice.finish_reason)  # type: ignore[arg-type] # one of both
            if choice.finish_reason is not None:
                pieces += self._requests()
        return pieces

    def end(self) -> list[ChatPiece]:
        """What is to be told once all has come."""
        pieces: list[ChatPiece] = []
        if text := self._thoughts.end():
            pieces.append(text)
        pieces += self._requests()
        if self._usage is not None:
            pieces.append(self._usage)
        if self._ended is not None:
            pieces.append(self._ended)
        return pieces

    def _add(self, call: _ToolCall, pieces: list[ChatPiece]) -> None:
        function = call.function or _Function()
        index = call.index if call.index is not None else len(self._calls)
        if index not in self._calls:
            if len(self._calls) >= MAX_TOOLS:
                raise ProviderError("bad_answer", f"more than {MAX_TOOLS} tool calls", "refused")
            pieces += self._requests()  # those before are whole
            self._calls[index] = (call.id or f"call_{token_hex(8)}", function.name or "", [])
        arguments = function.arguments
        if arguments and not isinstance(arguments, str):  # an object, as some servers have it
            arguments = msgspec.json.encode(arguments).decode()
        if arguments:
            self._size += len(arguments)
            if self._size > MAX_ARGUMENTS:
                raise ProviderError("bad_answer", "a tool call without end", "refused")
            self._calls[index][2].append(arguments)

    def _requests(self) -> list[ToolRequest]:
        """The calls that are whole now, each once."""
        made = []
        for index, (call_id, name, arguments) in self._calls.items():
            if name:
                made.append(ToolRequest(call_id, name, "".join(arguments) or "{}"))
                self._calls[index] = (call_id, "", [])
        return made


@final
class OpenAiChat:
    """A server's chat endpoint (`providers.Chat`)."""

    def __init__(self, config: types.Chat, http: Http) -> None:
        self._config = config
        self._http = http
        self._limit: str | None = "max_tokens"  # what the field is called, if it may be sent
        self._asks_usage = True
        self._system_alone = True  # a conversation may consist of a system message

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[ChatPiece, None]:
        """Ask for an answer."""
        while True:
            request = self._request(messages, tools)
            try:
                async with self._http.post(
                    self._config, "/chat/completions", json=request
                ) as answer:
                    async with aclosing(_pieces(answer)) as pieces:
                        async for piece in pieces:
                            yield piece
                    return
            except Refusal as refused:
                if refused.verdict != "refused" or not self._adapt(refused, request):
                    raise

    def _request(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> dict[str, Any]:
        told = [_wire(message) for message in messages]
        if not self._system_alone and all(m.role == "system" for m in messages):
            told = [{**message, "role": "user"} for message in told]
        request: dict[str, Any] = {"model": self._config.model, "messages": told, "stream": True}
        if self._asks_usage:
            request["stream_options"] = {"include_usage": True}
        if self._limit is not None:
            request[self._limit] = self._config.max_tokens
        if tools:
            request["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": tool.parameters,
                    },
                }
                for tool in tools
            ]
        return request

    def _adapt(self, refused: Refusal, request: dict[str, Any]) -> bool:
        """Change what the server objects to; whether another request is worth it."""
        about = f"{refused.param or ''} {refused.message}"
        if "stream_options" in about and "stream_options" in request:
            self._asks_usage = False
        elif "max_tokens" in about and "max_tokens" in request:
            self._limit = "max_completion_tokens"
        elif "max_completion_tokens" in about and "max_completion_tokens" in request:
            self._limit = None
        elif all(message["role"] == "system" for message in request["messages"]):
            # Templates of some local models have no place for instructions without a question.
            self._system_alone = False
        else:
            return False
        return True


def _wire(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        told["tool_calls"] = [
            {
                "id": request.call_id,
                "type": "function",
                "function": {"name": request.name, "arguments": request.arguments},
            }
            for request in message.tool_calls
        ]
    if message.role == "tool":
        told["tool_call_id"] = message.tool_call_id
    return told


async def _pieces(answer: Answer) -> AsyncGenerator[ChatPiece, None]:
    reader = ChunkReader()
    if answer.content_type == "application/json":  # a server that does not stream
        for piece in [*reader.feed(await answer.read()), *reader.end()]:
            yield piece
        return
    parser = SseParser()
    finished = False
    async with aclosing(answer.pieces()) as received:
        async for part in received:
            try:
                chunks = parser.feed(part)
            except SseError as error:
                raise ProviderError("bad_answer", str(error)) from None
            for data in chunks:
                finished = finished or data.strip() == "[DONE]"
                if not finished:
                    for piece in reader.feed(data):
                        yield piece
            if finished:  # some servers say no more, and do not end the answer either
                with trio.move_on_after(END_S):
                    async for _ in received:
                        pass
                break
    for piece in reader.end():
        yield piece
