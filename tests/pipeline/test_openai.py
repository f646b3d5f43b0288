"""The providers that ship, against a server over HTTP."""

from __future__ import annotations

import ssl
import struct
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tests.pipeline.peer import URL, Peer, Reply, Request
from tests.pipeline.test_openai_chat import ASKED, CHAT, KEY, chat
from voiced.config import types
from voiced.engine import Usage
from voiced.pipeline.client import Http
from voiced.pipeline.errors import refusal
from voiced.pipeline.openai_chat import OpenAiChat
from voiced.pipeline.openai_stt import OpenAiStt
from voiced.pipeline.openai_tts import HeaderlessPcm, OpenAiTts
from voiced.pipeline.providers import (
    ProviderError,
    Transcription,
)

STT = types.SpeechToText(url=URL + "/", api_key=KEY, model="some-stt", timeout_s=5)
TTS = types.TextToSpeech(url=URL, model="some-tts", headers={"X-Tenant": "7"})


async def speech(peer: Peer, config: types.TextToSpeech = TTS) -> bytes:
    async with peer.http() as http:
        stream = OpenAiTts(config, http).stream("Hello.", voice="marin", language=None)
        async with aclosing(stream) as got:
            return b"".join([piece async for piece in got])


# --- speech to text


async def test_a_turn_is_uploaded_as_a_wav_file(autojump_clock: trio.testing.MockClock) -> None:
    peer = Peer()
    async with peer.http() as http:
        done = await OpenAiStt(STT, http).transcribe(b"\x01\x02" * 800, 8000, "tr")
    assert done == Transcription("When are you open?", Usage(transcription_s=2))
    (request,) = peer.requests
    assert (request.method, request.path) == ("POST", "/v1/audio/transcriptions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    for name, value in (("model", "some-stt"), ("response_format", "json"), ("language", "tr")):
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in request.body
    begin = request.body.index(b"RIFF")
    assert struct.unpack_from("<I", request.body, begin + 24) == (8000,)
    assert request.body[begin + 44 :].startswith(b"\x01\x02" * 800)
    assert b'filename="turn.wav"' in request.body


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (
            {"type": "tokens", "input_tokens": 30, "output_tokens": 9},
            Usage(0, 0, 0, 0, 0, 0, 30, 9),
        ),
        ({"seconds": "long"}, None),
        ({"type": "tokens", "input_tokens": 0, "output_tokens": 0}, None),
        (None, None),
    ],
)
async def test_usage_of_a_transcription(
    usage: Any, counted: Usage | None, autojump_clock: trio.testing.MockClock
) -> None:
    async def handler(_: Request, reply: Reply) -> None:
        await reply.json({"text": " Hello. ", "usage": usage})

    async with Peer(handler).http() as http:
        done = await OpenAiStt(STT, http).transcribe(b"", 8000, None)
    assert done == Transcription("Hello.", counted)


# --- text to speech


async def test_speech_streams(autojump_clock: trio.testing.MockClock) -> None:
    peer = Peer()
    assert await speech(peer) == b"\x01\x02" * 24000
    (request,) = peer.requests
    assert request.json == {
        "model": "some-tts",
        "input": "Hello.",
        "voice": "marin",
        "response_format": "pcm",
    }
    assert "authorization" not in request.headers
    assert request.headers["x-tenant"] == "7"


def header(rate: int, extra: bytes = b"", size: int = 0xFFFFFFFF) -> bytes:
    chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVE" + chunk + extra + b"data" + struct.pack("<I", size)


@given(st.binary(max_size=60), st.booleans(), st.lists(st.integers(0, 150), max_size=8))
def test_a_wav_header_is_no_sound(pcm: bytes, extra: bool, places: list[int]) -> None:
    pcm = b"\0\0\0\0" + pcm
    info = b"LIST\x03\0\0\0abc\0" if extra else b""
    for head, tail in (
        (b"", b""),
        (header(16000, info), b""),
        (header(16000, info, 0), b""),
        (header(16000, info, len(pcm)), info),
    ):
        reader = HeaderlessPcm(16000)
        stream = head + pcm + tail
        ends = sorted({0, len(stream), *(min(place, len(stream)) for place in places)})
        got = [reader.feed(stream[a:b]) for a, b in pairwise(ends)]
        assert b"".join(got) == pcm


@pytest.mark.parametrize(
    ("kind", "body", "why"),
    [
        ("audio/mpeg", b"\xff\xf3", "audio/mpeg"),
        ("application/json", b"{}", "application/json"),
        ("audio/pcm; rate=16000", b"\0\0", "16000 Hz, not the 24000 Hz"),
        ("audio/wav", header(22050) + b"\0" * 100, "22050 Hz"),
        ("audio/wav", b"RIFF\0\0\0\0WAVE" + b"\0\0\0\0\1\0\0\0\0\0" * 500, "without samples"),
    ],
)
async def test_another_format_is_named(
    kind: str, body: bytes, why: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def handler(_: Request, reply: Reply) -> None:
        await reply.head(content_type=kind)
        await reply.part(body)
        await reply.end()

    with pytest.raises(ProviderError, match=why) as raised:
        await speech(Peer(handler))
    assert raised.value.verdict == "terminal"


# --- connections


async def test_one_connection_does_for_requests_in_a_row(
    autojump_clock: trio.testing.MockClock,
) -> None:
    peer = Peer()
    async with peer.http() as http:
        await http.reach(CHAT)
        await OpenAiStt(STT, http).transcribe(b"", 8000, None)
        async with aclosing(OpenAiChat(CHAT, http).stream(ASKED, ())) as got:
            assert [piece async for piece in got]
    assert len(peer.requests) == 3
    assert peer.connections == 1


@pytest.mark.parametrize("tcp", [False, True])
async def test_leaving_an_answer_closes_its_connection(tcp: bool) -> None:
    hung_up = trio.Event()

    async def handler(_: Request, reply: Reply) -> None:
        await reply.head(content_type="audio/pcm")
        try:
            while True:
                await reply.part(bytes(1000))
                await trio.sleep(0.01)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            hung_up.set()
            raise

    peer = Peer(handler)

    async def leave(http: Any, url: str) -> None:
        tts = OpenAiTts(types.TextToSpeech(url=url), http)
        async with aclosing(tts.stream("Hello.", voice="v", language=None)) as got:
            assert await anext(got)
        with trio.fail_after(5):
            await hung_up.wait()

    async with peer.listen() as url, peer.http() as http:
        if tcp:
            real = Http()
            async with real.in_use():
                await leave(real, url)
        else:
            await leave(http, URL)
    assert peer.cut == 1


async def test_a_server_that_falls_silent(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(_: Request, reply: Reply) -> None:
        await trio.sleep(60)

    began = trio.current_time()
    async with Peer(handler).http() as http:
        with pytest.raises(ProviderError) as raised:
            await OpenAiStt(STT, http).transcribe(b"", 8000, None)
    assert (raised.value.code, raised.value.verdict) == ("silent", "retry")
    assert trio.current_time() - began == pytest.approx(5)


async def test_a_server_that_hangs_up(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(_: Request, reply: Reply) -> None:
        await reply.head(content_type="text/event-stream")

    with pytest.raises(ProviderError) as raised:
        await chat(Peer(handler))
    assert (raised.value.code, raised.value.verdict) == ("connection_lost", "retry")


async def test_a_server_that_is_not_there() -> None:
    http = Http()
    config = types.Chat(url="http://127.0.0.1:9/v1", timeout_s=1)
    async with http.in_use():
        for reach in (http.reach(config), _one(OpenAiChat(config, http))):
            with pytest.raises(ProviderError) as raised:
                await reach
            assert (raised.value.code, raised.value.verdict) == ("unreachable", "retry")
        with pytest.raises(ProviderError) as raised:
            await http.reach(types.Chat(url="ftp://127.0.0.1"))
        assert (raised.value.code, raised.value.verdict) == ("bad_url", "terminal")


async def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    peer = Peer()
    async with peer.listen(context) as url:
        config = types.Chat(url=url)
        stranger, friend = Http(), Http()
        async with stranger.in_use(), friend.in_use():
            with pytest.raises(ProviderError) as raised:
                await stranger.reach(config)
            assert (raised.value.code, raised.value.verdict) == ("bad_certificate", "terminal")
            monkeypatch.setenv("SSL_CERT_FILE", str(file))
            assert await _one(OpenAiChat(config, friend)) == "We "
    assert len(peer.requests) == 1


async def _one(model: OpenAiChat) -> Any:
    async with aclosing(model.stream(ASKED, ())) as got:
        return await anext(got)


@pytest.mark.parametrize("status", [200, 404, 403, 500])
async def test_a_server_without_a_list_of_models_is_there(
    status: int, autojump_clock: trio.testing.MockClock
) -> None:
    async def handler(_: Request, reply: Reply) -> None:
        await reply.json({"error": {"message": "no"}}, status=status)

    async with Peer(handler).http() as http:
        await http.reach(CHAT)


async def test_a_key_is_never_in_an_error(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(_: Request, reply: Reply) -> None:
        error = {"message": f"Incorrect API key: {KEY}", "code": "invalid_api_key"}
        await reply.json({"error": error}, status=401)

    async with Peer(handler).http() as http:
        with pytest.raises(ProviderError) as raised:
            await http.reach(CHAT)
    assert raised.value.verdict == "terminal"
    assert KEY not in str(raised.value) + raised.value.message


# --- errors


@pytest.mark.parametrize(
    ("status", "body", "code", "verdict"),
    [
        (429, b'{"error":{"code":"insufficient_quota"}}', "insufficient_quota", "terminal"),
        (429, b'{"error":{"message":"You exceeded your current quota"}}', "insufficient_quota",
         "terminal"),
        (429, b'{"error":{"code":"rate_limit_exceeded"}}', "rate_limit_exceeded", "retry"),
        (429, b"slow down", "rate_limit_exceeded", "retry"),
        (500, b"", "http_500", "retry"),
        (503, b"<html>", "http_503", "retry"),
        (401, b'{"error":{"code":"invalid_api_key"}}', "invalid_api_key", "terminal"),
        (404, b'{"error":{"code":"model_not_found"}}', "model_not_found", "terminal"),
        (404, b'{"detail":"Not Found"}', "http_404", "terminal"),
        (400, b'{"error":{"code":"audio_too_short"}}', "audio_too_short", "refused"),
        (422, b'{"detail":[{"msg":"field required"}]}', "http_422", "refused"),
        (302, b"", "http_302", "terminal"),
        (400, b'{"error":[1,2]}', "http_400", "refused"),
    ],
)  # fmt: skip
def test_answers_are_sorted(status: int, body: bytes, code: str, verdict: str) -> None:
    made = refusal(status, {}, body)
    assert (made.code, made.verdict) == (code, verdict)
    assert made.message


@given(st.integers(300, 599), st.binary(max_size=100))
def test_no_answer_does_harm(status: int, body: bytes) -> None:
    made = refusal(status, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, body)
    assert made.message
    assert made.retry_after_s == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "150"}, 0.15),
        ({"retry-after": "soon"}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float) -> None:
    assert refusal(429, headers, b"").retry_after_s == seconds
