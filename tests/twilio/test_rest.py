"""Our REST client and the official SDK before the same fake account; what is tried again."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest
import structlog
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client
from twilio.twiml.voice_response import Dial, VoiceResponse

from tests.twilio.fake_rest import ACCOUNT, TOKEN, Failure, FakeRest, fake_rest
from voiced.twilio import twiml
from voiced.twilio.rest import ATTEMPTS, MAX_DELAY_S, TwilioError, TwilioRest

pytestmark = pytest.mark.interop

TWIML = twiml.connect_stream("wss://a.example/twilio/media/t")
HANGUP = twiml.hangup()
UNKNOWN = "CA" + "f" * 32


@pytest.fixture
def account() -> Iterator[FakeRest]:
    with fake_rest() as made:
        yield made


class Ours:
    """Our client, with its waits written down instead of waited for."""

    def __init__(self, rest: TwilioRest, waits: list[float]) -> None:
        self.rest = rest
        self.waits = waits


@asynccontextmanager
async def ours(url: str, token: str = TOKEN) -> AsyncIterator[Ours]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    transport = httpx.AsyncHTTPTransport()
    async with TwilioRest(ACCOUNT, token, base_url=url, transport=transport, sleep=sleep) as rest:
        yield Ours(rest, waits)


def sdk(account: FakeRest, token: str = TOKEN) -> Any:
    """The official SDK, led to the fake account."""

    class Redirected(TwilioHttpClient):  # type: ignore[misc]
        def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            assert url.startswith("https://api.twilio.com/")
            here = account.url + url.removeprefix("https://api.twilio.com")
            return super().request(method, here, *args, **kwargs)

    client = Redirected(pool_connections=False)
    return Client(ACCOUNT, token, http_client=client)


CREATED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"to": "+4930444", "from_": "+4930111", "twiml": TWIML},
        {"to": "+4930444", "from_": "+4930111", "twiml": TWIML},
    ),
    (
        {
            "to": "sip:a@b.example;transport=tls?X-A=1&X-B=ü",
            "from_": "voiced",
            "url": "https://a.example/voice?x=1&y=ä",
            "status_callback": "https://a.example/twilio/status",
            "status_callback_event": ["initiated", "ringing", "answered", "completed"],
            "timeout_s": 20,
            "time_limit_s": 600,
            "send_digits": "ww12#",
            "machine_detection": "DetectMessageEnd",
            "async_amd": True,
            "async_amd_status_callback": "https://a.example/amd",
            "sip_auth": ("me", "secret & more"),
        },
        {
            "to": "sip:a@b.example;transport=tls?X-A=1&X-B=ü",
            "from_": "voiced",
            "url": "https://a.example/voice?x=1&y=ä",
            "status_callback": "https://a.example/twilio/status",
            "status_callback_event": ["initiated", "ringing", "answered", "completed"],
            "status_callback_method": "POST",
            "timeout": 20,
            "time_limit": 600,
            "send_digits": "ww12#",
            "machine_detection": "DetectMessageEnd",
            "async_amd": "true",
            "async_amd_status_callback": "https://a.example/amd",
            "async_amd_status_callback_method": "POST",
            "sip_auth_username": "me",
            "sip_auth_password": "secret & more",
        },
    ),
]


@pytest.mark.parametrize(("arguments", "theirs"), CREATED)
async def test_creating_a_call_asks_what_the_sdk_asks(
    account: FakeRest, arguments: dict[str, Any], theirs: dict[str, Any]
) -> None:
    async with ours(account.url) as client:
        call = await client.rest.create_call(**arguments)
    assert (call.status, call.to, call.from_) == ("queued", arguments["to"], arguments["from_"])
    assert sdk(account).calls.create(**theirs).status == "queued"
    mine, reference = account.asked
    assert mine == reference


async def test_updating_and_looking_ask_what_the_sdk_asks(account: FakeRest) -> None:
    async with ours(account.url) as client:
        sid = (await client.rest.create_call("+4930444", "+4930111", twiml=TWIML)).sid
        reference = sdk(account).calls(sid)
        account.asked.clear()
        assert (await client.rest.update_call(sid, twiml=twiml.dial("+49305"))).sid == sid
        assert reference.update(twiml=twiml.dial("+49305")).sid == sid
        await client.rest.update_call(sid, url="https://a.example/next")
        reference.update(url="https://a.example/next")
        assert (await client.rest.fetch_call(sid)).direction == "outbound-api"
        assert reference.fetch().direction == "outbound-api"
        assert (await client.rest.update_call(sid, status="completed")).status == "completed"
        with pytest.raises(TwilioRestException) as theirs:
            reference.update(status="completed")
        with pytest.raises(TwilioError) as caught:
            await client.rest.update_call(sid, status="completed")
        assert caught.value.call_is_over
        assert (caught.value.code, caught.value.status) == (theirs.value.code, 400)
        pairs = account.asked
    # The SDK names a content type even where it sends no content.
    assert [(a.method, a.path, a.auth, a.form) for a in pairs[::2][:3]] == [
        (a.method, a.path, a.auth, a.form) for a in pairs[1::2][:3]
    ]
    assert pairs[6] == pairs[7] == pairs[8]


async def test_errors_are_told_as_twilio_tells_them(account: FakeRest) -> None:
    async with ours(account.url) as client:
        with pytest.raises(TwilioError, match="is not a valid phone number") as caught:
            await client.rest.create_call("hello", "+4930111", twiml=TWIML)
        assert (caught.value.status, caught.value.code) == (400, 21211)
        assert caught.value.more_info == "https://www.twilio.com/docs/errors/21211"
        assert not caught.value.retryable
        with pytest.raises(TwilioError) as caught:
            await client.rest.fetch_call(UNKNOWN)
        assert caught.value.call_is_over
        assert client.waits == []
    async with ours(account.url, token="wrong") as client:
        with pytest.raises(TwilioError) as caught:
            await client.rest.fetch_call(UNKNOWN)
        assert (caught.value.status, caught.value.code) == (401, 20003)
        assert not caught.value.call_is_over


async def test_too_many_requests_are_sent_again_and_wait_longer_each_time(
    account: FakeRest,
) -> None:
    account.failures = [Failure(429, b'{"code": 20429}'), Failure(429), Failure(429)]
    async with ours(account.url) as client:
        call = await client.rest.create_call("+4930444", "+4930111", twiml=TWIML)
    assert call.status == "queued"
    assert len(account.calls) == 1
    first, second, third = client.waits
    assert 0.5 <= first <= 0.75
    assert 1.0 <= second <= 1.5
    assert 2.0 <= third <= 3.0


async def test_retry_after_is_honoured_within_reason(account: FakeRest) -> None:
    account.failures = [
        Failure(429, headers={"Retry-After": "3"}),
        Failure(503, headers={"Retry-After": "3600"}),
        Failure(429, headers={"Retry-After": "tomorrow"}),
    ]
    async with ours(account.url) as client:
        await client.rest.create_call("+4930444", "+4930111", twiml=TWIML)
        assert client.waits[:2] == [3.0, MAX_DELAY_S]
        assert 2.0 <= client.waits[2] <= 3.0
        account.failures = [Failure(429, headers={"Retry-After": "1"})] * 3
        await client.rest.create_call("+4930444", "+4930111", twiml=TWIML)
    assert client.waits[3] >= 1.0
    assert client.waits[5] >= 2.0, "less than what we would wait by ourselves"


async def test_giving_up_says_why(account: FakeRest) -> None:
    account.failures = [Failure(429, b'{"code": 20429, "message": "Too many"}')] * 9
    async with ours(account.url) as client:
        with pytest.raises(TwilioError, match=r"Too many \(Twilio 20429\)") as caught:
            await client.rest.create_call("+4930444", "+4930111", twiml=TWIML)
    assert caught.value.retryable
    assert len(account.asked) == ATTEMPTS
    assert len(client.waits) == ATTEMPTS - 1


@pytest.mark.parametrize("failure", [Failure(500, late=True), Failure(0, late=True), Failure(504)])
async def test_nobody_is_rung_twice(account: FakeRest, failure: Failure) -> None:
    """Twilio may have placed the call before it failed."""
    account.failures = [failure]
    async with ours(account.url) as client:
        with pytest.raises(TwilioError) as caught:
            await client.rest.create_call("+4930444", "+4930111", twiml=TWIML)
    assert caught.value.retryable
    assert len(account.asked) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 0])
async def test_updates_may_be_repeated(account: FakeRest, status: int) -> None:
    async with ours(account.url) as client:
        sid = (await client.rest.create_call("+4930444", "+4930111", twiml=TWIML)).sid
        account.failures = [Failure(status), Failure(status)]
        assert (await client.rest.update_call(sid, status="completed")).status == "completed"
        assert len(client.waits) == 2


async def test_nobody_at_that_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with ours(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(TwilioError, match="Twilio cannot be reached") as caught:
            await client.rest.create_call("+4930444", "+4930111", twiml=TWIML)
    assert (caught.value.status, caught.value.retryable) == (0, True)
    assert len(client.waits) == ATTEMPTS - 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"sid": 5}',
        b"\xff",
        b'{"sid": "',
        b'{"a": "%b"}' % (b"x" * 300_000),
    ],
)
async def test_answers_that_are_none(account: FakeRest, body: bytes) -> None:
    for status in (200, 400):
        account.failures = [Failure(status, body)]
        async with ours(account.url) as client:
            with pytest.raises(TwilioError) as caught:
                await client.rest.fetch_call(UNKNOWN)
        assert caught.value.status == status
        assert len(str(caught.value)) < 600


async def test_no_secret_is_logged_or_told(account: FakeRest) -> None:
    account.failures = [Failure(429), Failure(503), Failure(500)]
    with structlog.testing.capture_logs() as logs:
        async with ours(account.url, token="hunter2") as client:
            with pytest.raises(TwilioError) as caught:
                await client.rest.create_call(
                    "sip:a@b.example", "me", twiml=TWIML, sip_auth=("u", "hunter3")
                )
            assert "hunter" not in repr(client.rest)
    assert len(logs) == 2
    for told in (repr(logs), str(caught.value), repr(vars(caught.value))):
        assert "hunter" not in told


async def test_an_answer_that_never_ends(autojump_clock: trio.testing.MockClock) -> None:
    """Its beginning comes, its end does not; the call may exist, so that it is not asked again."""

    class Dripping(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await trio.sleep(1)

    async def drip(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, stream=Dripping())

    transport = httpx.MockTransport(drip)
    async with TwilioRest(ACCOUNT, TOKEN, transport=transport) as rest:
        with pytest.raises(TwilioError, match="no whole answer within 20 s"):
            await rest.create_call("+4930444", "+4930111", twiml=TWIML)
    assert trio.current_time() == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize(
    ("what", "asked"),
    [({"twiml": TWIML}, 1), ({"url": "https://a"}, 1), ({"status": "completed"}, 4)],
)
async def test_whoever_was_reached_is_not_cut_off(
    what: dict[str, Any], asked: int, autojump_clock: trio.testing.MockClock
) -> None:
    """The call may have gone elsewhere long before; to be hung up twice does no harm."""
    seen: list[httpx.Request] = []

    async def silent(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        await trio.sleep_forever()
        raise AssertionError

    transport = httpx.MockTransport(silent)
    async with TwilioRest(ACCOUNT, TOKEN, transport=transport) as rest:
        with pytest.raises(TwilioError, match="cannot be reached"):
            await rest.update_call(UNKNOWN, **what)
    assert len(seen) == asked


@pytest.mark.parametrize("status", [500, 503, 429, 0])
async def test_a_transfer_that_failed_at_once_is_tried_again(
    account: FakeRest, status: int
) -> None:
    async with ours(account.url) as client:
        sid = (await client.rest.create_call("+4930444", "+4930111", twiml=TWIML)).sid
        account.failures = [Failure(status)]
        await client.rest.update_call(sid, twiml=TWIML)
        assert len(client.waits) == 1


async def test_a_redirect_is_not_followed(account: FakeRest) -> None:
    account.failures = [Failure(307, headers={"Location": f"{account.url}/elsewhere"})]
    async with ours(account.url) as client:
        with pytest.raises(TwilioError, match="HTTP 307"):
            await client.rest.fetch_call(UNKNOWN)
    assert len(account.asked) == 1


@pytest.mark.parametrize("sid", ["", "CA1", UNKNOWN + "0", "../" + UNKNOWN, UNKNOWN + "\n"])
async def test_what_is_no_call_sid_is_not_asked_for(account: FakeRest, sid: str) -> None:
    async with ours(account.url) as client:
        with pytest.raises(ValueError, match="not a call SID"):
            await client.rest.fetch_call(sid)
    assert account.asked == []


@pytest.mark.parametrize(
    "arguments",
    [{}, {"twiml": HANGUP, "url": "https://a.example"}, {"twiml": "x" * 4001}, {"timeout_s": 601}],
)
async def test_what_twilio_would_not_take_is_not_sent(
    account: FakeRest, arguments: dict[str, Any]
) -> None:
    if "timeout_s" in arguments:
        arguments = {**arguments, "twiml": HANGUP}
    async with ours(account.url) as client:
        with pytest.raises(ValueError, match=r"exactly one|4000|600"):
            await client.rest.create_call("+49", "+49", **arguments)
    assert account.asked == []


# ---- the documents that go with it ----


def canonical(document: str) -> str:
    return ET.canonicalize(document, strip_text=True)


@given(
    st.one_of(
        st.from_regex(r"\+[1-9][0-9]{1,14}", fullmatch=True),
        st.from_regex(r"sips?:[!-~]{1,30}@[!-~]{1,30}", fullmatch=True),
    ),
    st.one_of(st.none(), st.text(st.characters(codec="ascii", exclude_categories=["Cc"]))),
    st.one_of(st.none(), st.integers(1, 600)),
)
def test_dial_is_what_the_sdk_would_say(
    target: str, caller_id: str | None, timeout_s: int | None
) -> None:
    verb = Dial(answer_on_bridge=True, caller_id=caller_id, timeout=timeout_s)
    verb.sip(target) if target.startswith("sip") else verb.number(target)
    response = VoiceResponse()
    response.append(verb)
    document = twiml.dial(target, caller_id=caller_id, timeout_s=timeout_s)
    assert canonical(document) == canonical(str(response))


def test_hangup_is_what_the_sdk_would_say() -> None:
    response = VoiceResponse()
    response.hangup()
    assert canonical(twiml.hangup()) == canonical(str(response))


@pytest.mark.parametrize("target", ["", "hello", "030123", "+49x", "sip:a", "sip:a b@c", "+49\n"])
def test_dial_takes_numbers_and_sip_alone(target: str) -> None:
    with pytest.raises(ValueError, match="a target is"):
        twiml.dial(target)
