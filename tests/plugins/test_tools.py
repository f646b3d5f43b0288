"""The model's tools, against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import structlog
from voiced_plugins.tools import Tools, ToolService, ToolSettings

from tests.plugins.standin import StandInCall, standing_in
from tests.plugins.webserver import Answer, Request, serving
from voiced.plugin import Tool, Transferred, Unsupported


@asynccontextmanager
async def with_tools(**tables: Any) -> AsyncIterator[StandInCall]:
    config = msgspec.convert(tables, ToolSettings, dec_hook=lambda kind, value: kind(value))
    service = ToolService(config, None)  # type: ignore[arg-type]
    await service.open()
    try:
        async with standing_in() as call:
            await Tools(call, config, service).on_call_start()
            yield call
    finally:
        await service.close()


def order(url: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": "order",
        "description": "Where an order is.",
        "url": url + "/orders/{id}",
        "parameters": {"properties": {"id": {"type": "string"}}, "required": ["id"]},
        "retries": 0,
    } | fields


async def use(call: StandInCall, name: str, **arguments: Any) -> str | Mapping[str, Any] | None:
    return await call.tools[name].handler(arguments)


async def test_an_answer_is_told_to_the_model() -> None:
    async with (
        serving(Answer(body=b'{"order": {"state": "paketlendi, yolda"}}')) as server,
        with_tools(http=[order(server.url, extract="/order/state")]) as call,
    ):
        assert await use(call, "order", id="A 7") == "paketlendi, yolda"
        assert await use(call, "order", id="B") == "paketlendi, yolda"
    assert [each.target for each in server.requests] == ["/orders/A%207", "/orders/B"]
    assert server.requests[0].headers["accept-encoding"] == "identity"
    schema = call.tools["order"].parameters
    assert schema["type"] == "object"
    assert schema["required"] == ["id"]


JAPANESE = Answer(
    body="日本語".encode("shift_jis"), headers=(("Content-Type", "text/plain; charset=shift_jis"),)
)
ELSEWHERE = Answer(302, headers=(("Location", "http://169.254.169.254/"),))
PACKED = Answer(body=b"x", headers=(("Content-Encoding", "gzip"),))


def error(words: str) -> dict[str, str]:
    return {"error": words}


@pytest.mark.parametrize(
    ("answer", "fields", "told"),
    [
        (Answer(body=b"plain text"), {}, "plain text"),
        (Answer(204), {}, "It is done."),
        (JAPANESE, {}, "日本語"),
        (Answer(body=b"x" * 50), {"max_chars": 10}, "x" * 9 + "…"),
        (Answer(body=b'{"a": [{"b/c": 1}]}'), {"extract": "/a/0/b~1c"}, "1"),
        (Answer(body=b"[1]"), {"extract": "/1"}, error("the service's answer does not say it")),
        (Answer(body=b"<html>"), {"extract": "/a"}, error("the service's answer is no JSON")),
        (Answer(body=b"12"), {"max_bytes": 1}, error("the service's answer is too large")),
        (Answer(body=b"x" * 9999, endless=True), {}, error("the service's answer is too large")),
        (Answer(404, b"no\nsuch"), {}, error("the service refused with status 404: no such")),
        (Answer(500, b"Traceback"), {}, error("the service refused with status 500")),
        (ELSEWHERE, {}, error("the service refused with status 302")),
        (Answer(broken=True), {}, error("the service broke off")),
        (
            Answer(after_s=5),
            {"timeout_s": 0.2},
            error("the service did not answer within 0.2 seconds"),
        ),
        (PACKED, {}, error("the service's answer is compressed, which nobody asked for")),
    ],
)
async def test_what_the_model_is_told(answer: Answer, fields: dict[str, Any], told: object) -> None:
    async with (
        serving(answer) as server,
        with_tools(http=[order(server.url, **fields)]) as call,
    ):
        assert await use(call, "order", id="7") == told
        assert len(server.requests) == 1


async def test_what_a_service_says_of_callers_is_not_logged() -> None:
    answer = Answer(404, b"nobody is called Ada Lovelace")
    with structlog.testing.capture_logs() as logs:
        async with serving(answer) as server, with_tools(http=[order(server.url)]) as call:
            assert "Ada" in str(await use(call, "order", id="7"))
    (line,) = [each for each in logs if each["event"] == "tool's request failed"]
    assert line["why"] == "the service refused with status 404"
    assert "Ada" not in repr(logs)


async def test_a_service_that_is_not_there() -> None:
    async with serving(Answer()) as server:
        pass
    with structlog.testing.capture_logs() as logs:
        async with with_tools(http=[order(server.url)]) as call:
            told = await use(call, "order", id="secret-7")
    assert told == {"error": "the service cannot be reached"}
    assert logs[0]["event"] == "tool's request failed"
    assert "secret-7" not in repr(logs)


@pytest.mark.parametrize(
    ("method", "requests"), [("GET", 2), ("PUT", 2), ("POST", 1), ("PATCH", 1)]
)
@pytest.mark.parametrize("first", [Answer(503), Answer(broken=True)])
async def test_what_does_no_harm_twice_is_tried_again(
    method: str, requests: int, first: Answer
) -> None:
    answers = [first, Answer(body=b"fine")]

    def answer(_: Request) -> Answer:
        return answers.pop(0)

    async with (
        serving(answer) as server,
        with_tools(http=[order(server.url, method=method, retries=3)]) as call,
    ):
        told = await use(call, "order", id="7")
    assert len(server.requests) == requests
    assert (told == "fine") == (requests == 2)


async def test_cookies_of_one_caller_are_not_anothers() -> None:
    async with (
        serving(Answer(body=b"x", headers=(("Set-Cookie", "session=1; Path=/"),))) as server,
        with_tools(http=[order(server.url)]) as call,
    ):
        await use(call, "order", id="1")
        await use(call, "order", id="2")
    assert all("cookie" not in each.headers for each in server.requests)


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with (
        serving(Answer(body=b"x")) as server,
        with_tools(http=[order(server.url)]) as call,
    ):
        assert await use(call, "order", id="1") == "x"


async def test_a_filler_is_spoken_meanwhile() -> None:
    async with (
        serving(Answer(body=b"x")) as server,
        with_tools(http=[order(server.url, filler_text="Let me see.")]) as call,
    ):
        await use(call, "order", id="1")
        assert call.done == [("say", "Let me see.")]


async def test_the_model_ends_the_call() -> None:
    async with with_tools() as call:
        assert list(call.tools) == ["end_call"]
        assert not call.tools["end_call"].answer
        await use(call, "end_call")
        assert call.done == [("hang_up", True, "model")]
    async with with_tools(end_call=False) as call:
        assert call.tools == {}


async def test_a_transfer_goes_to_the_names_of_the_settings(autojump_clock: object) -> None:
    async with with_tools(transfer={"sales": "+4930123456", "desk": "sip:desk@pbx"}) as call:
        tool = call.tools["transfer"]
        assert tool.parameters["properties"]["target"]["enum"] == ["sales", "desk"]
        assert tool.parameters["required"] == ["target"]
        assert await use(call, "transfer", target="desk") == {"transferred": True}
        assert call.done == [("play", "160 bytes"), ("transfer", "sip:desk@pbx")]
        for wrong in ({"target": "+49900123"}, {"number": "+49900123"}, {}):
            told = await use(call, "transfer", **wrong)
            assert isinstance(told, Mapping)
            assert "allowed" in told["error"]
        assert len(call.done) == 2


async def test_numbers_of_the_models_choice_have_allowed_prefixes(autojump_clock: object) -> None:
    async with with_tools(transfer={"sales": "+4930123456"}, transfer_prefixes=["+4930"]) as call:
        assert await use(call, "transfer", number="+4930777777") == {"transferred": True}
        for number in ("+49900123456", "4930777777", "+4930", "sip:x@y", "+4930x@evil"):
            told = await use(call, "transfer", number=number)
            assert isinstance(told, Mapping)
            assert "error" in told


async def test_a_transfer_that_fails_is_told(autojump_clock: object) -> None:
    async with with_tools(transfer={"sales": "+4930123456"}) as call:
        call.transferred = Transferred(False, 486, "Busy Here")
        assert await use(call, "transfer", target="sales") == {
            "error": "nobody took the call: Busy Here"
        }

        async def refuse(target: str) -> Transferred:
            raise Unsupported("the call is ending")

        call.transfer = refuse  # type: ignore[method-assign]
        told = await use(call, "transfer", target="sales")
        assert told == error("the caller could not be transferred: the call is ending")


async def test_a_name_that_is_taken_costs_that_tool() -> None:
    config = ToolSettings(transfer={"sales": "+4930123456"})
    async with standing_in() as call:

        async def nothing(arguments: Mapping[str, Any]) -> None:
            return None

        call.register_tool(Tool("end_call", "", nothing))
        with structlog.testing.capture_logs() as logs:
            await Tools(call, config, ToolService(config, None)).on_call_start()  # type: ignore[arg-type]
    assert list(call.tools) == ["end_call", "transfer"]
    assert logs[0]["tool"] == "end_call"


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"transfer": {"sales": "030 123"}}, "sales: 030 123 is no number"),
        ({"transfer_prefixes": ["49"]}, "regex"),
        ({"http": [order("https://h"), order("https://h")]}, "two tools order"),
        ({"http": [order("https://h", name="end_call")]}, "two tools end_call"),
    ],
)
def test_mistakes_are_found_in_the_settings(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(tables, ToolSettings)
