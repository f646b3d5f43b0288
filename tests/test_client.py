"""Requests to model servers and to a carrier, cut off at each of their steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
import pytest

from tests.cutting import cut_off, left_behind
from tests.plugins.webserver import Answer, serving
from voiced.config.types import Provider, SpeechToText
from voiced.pipeline.client import Http
from voiced.twilio.rest import TwilioRest

CALL = b'{"sid": "CA0", "status": "queued", "pad": "%s"}' % (b"x" * 70_000)
TURN = b"\x01\x02" * 100_000


def at(url: str) -> Provider:
    return SpeechToText(url=url, api_key="k")


def transport() -> httpx.AsyncBaseTransport:
    return httpx.AsyncHTTPTransport(verify=False)  # what is trusted takes 20 ms to read


async def upload(url: str, steps: int) -> bool:
    http = Http(transport)

    async def work() -> None:
        async with http.post(
            at(url), "/transcriptions", form={"model": "m"}, file=("turn.wav", TURN, "audio/wav")
        ) as answer:
            await answer.read()

    async with http.in_use():
        return await cut_off(steps, work)


async def ask(url: str, steps: int) -> bool:
    http = Http(transport)

    async def work() -> None:
        async with http.post(at(url), "/chat", json={"text": "x" * 200_000}) as answer:
            async for _ in answer.pieces():
                pass

    async with http.in_use():
        return await cut_off(steps, work)


async def dial(url: str, steps: int) -> bool:
    async with TwilioRest("AC0", "token", base_url=url, transport=transport()) as rest:
        return await cut_off(steps, lambda: rest.create_call("+1", "+2", twiml="<Response/>"))


@pytest.mark.parametrize("send", [upload, ask, dial])
def test_wherever_a_request_is_cut_off_nothing_stays_open(
    send: Callable[[str, int], Awaitable[bool]],
) -> None:
    async def one(steps: int) -> bool:
        async with serving(Answer(201 if send is dial else 200, CALL)) as server:
            return await send(server.url, steps)

    assert left_behind(one) == []
