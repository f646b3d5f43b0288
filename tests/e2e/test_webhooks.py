"""The webhook of a live daemon: whose requests are served, and what the others are told."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from tests.e2e import raw
from tests.e2e.house import SOON_S, House, agent, announcement, house, sample, until
from tests.e2e.model import Conversation, engine, serve_models
from voiced.simulate import Script
from voiced.simulate.script import HangUp, WaitForAgentSpeech, WaitForHangUp
from voiced.simulate.signature import sign
from voiced.simulate.twiml import parse_twiml
from voiced.simulate.wire import Identifiers

pytestmark = pytest.mark.usefixtures("virtual_time")

OFFLINE = '[engine.offline]\nkind = "emulator"\nspeech = "clips"\n'
WAITS = OFFLINE + agent("waits", "offline", 'greeting = ""')
TOKEN = "0123456789abcdef0123456789abcdef"
PUBLIC = "https://voice.example.net"
SIGNED = f'[http]\npublic_url = "{PUBLIC}/"\n[twilio]\nauth_token = "{TOKEN}"\n'
FROM_AFAR = ("X-Forwarded-For", "203.0.113.7")


def refusals(here: House, since: int) -> list[Mapping[str, Any]]:
    return [line for line in here.logs[since:] if line["log_level"] == "warning"]


async def test_signed_requests_only(tmp_path: Path) -> None:
    text = SIGNED + OFFLINE + agent("greets", "offline", 'greeting = "Greet the caller."')
    async with house(tmp_path, text, auth_token=TOKEN, public_url=PUBLIC) as here:
        heard = Script("hears", "", (WaitForAgentSpeech(200), HangUp()))
        result = await here.call(heard, "greets")
        assert result.ok, result.failure  # webhook, handshake and status callbacks were signed

        ids = Identifiers()
        url = await here.admit("greets", ids)
        assert url.startswith("wss://voice.example.net/twilio/media/")
        await here.over(ids)

        fields = announcement(Identifiers(), "sip:greets@voiced.test")
        wrong = [("X-Twilio-Signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")]
        for headers, why in (([], "no signature"), (wrong, "wrong signature")):
            for path in ("/twilio/voice", "/twilio/status"):
                counted = sample("voiced_refused_total", what="webhook", why=why)
                before = len(here.logs)
                answer = await here.post(path, fields, headers, signed=False)
                assert answer.status == 403
                assert answer.body == b"forbidden\n"
                assert sample("voiced_refused_total", what="webhook", why=why) == counted + 1
                (line,) = refusals(here, before)
                assert (line["event"], line["why"], line["path"]) == ("webhook refused", why, path)
        await here.idle()
        assert len(here.rows()) == 2


async def test_signed_streams_only(tmp_path: Path) -> None:
    """A handshake that is not signed is refused, and leaves the token for the one that is."""
    async with house(tmp_path, SIGNED + WAITS, auth_token=TOKEN, public_url=PUBLIC) as here:
        ids = Identifiers()
        told = await here.admit("waits", ids)  # behind the proxy: wss, and no port
        url = here.address.replace("http", "ws", 1) + urlsplit(told).path

        async def handshake(*headers: str) -> tuple[int, list[Mapping[str, Any]]]:
            before = len(here.logs)
            stream, status = await raw.upgrade(url, *headers)
            async with stream:
                return status, refusals(here, before)

        local = sign(TOKEN, url, ())  # what a reader of `Host` would believe
        for headers, why in (
            ([], "no signature"),
            (["X-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA="], "wrong signature"),
            ([f"X-Twilio-Signature: {local}"], "wrong signature"),
            ([f"X-Twilio-Signature: {sign('another', told, ())}"], "wrong signature"),
        ):
            counted = sample("voiced_refused_total", what="stream", why=why)
            status, lines = await handshake(*headers)
            assert status == 403
            assert sample("voiced_refused_total", what="stream", why=why) == counted + 1
            (line,) = lines
            assert (line["event"], line["why"]) == ("stream refused", why)
            assert urlsplit(told).path not in str(line)
        # Twilio may sign with a slash at the end, and writes the header's name in lower case.
        status, lines = await handshake(f"x-twilio-signature: {sign(TOKEN, told + '/', ())}")
        assert (status, lines) == (101, [])
        await here.over(ids)


async def test_without_a_token_loopback_only(tmp_path: Path) -> None:
    text = '[http]\ntrusted_proxies = ["127.0.0.1"]\n' + WAITS
    async with house(tmp_path, text) as here:
        before = len(here.logs)
        answer = await here.post(headers=[FROM_AFAR])
        assert answer.status == 403
        (line,) = refusals(here, before)
        assert (line["why"], line["client"]) == ("no auth token", "203.0.113.7")
        assert "auth_token" in line["remedy"]

        ids = Identifiers()
        fields = announcement(ids, "sip:waits@voiced.test")
        local = [("X-Forwarded-For", "127.0.0.1")]
        assert (await here.post(fields=fields, headers=local)).status == 200
        over = fields | {"CallStatus": "completed"}
        assert (await here.post("/twilio/status", over, local)).status == 204
        await here.idle()
        assert len(here.rows()) == 1


async def test_an_untrusted_proxy_does_not_make_a_client_local(tmp_path: Path) -> None:
    async with house(tmp_path, WAITS) as here:
        answer = await here.post(headers=[("X-Forwarded-For", "127.0.0.1")])
        assert answer.status == 403
        assert not here.rows()


async def test_requests_that_make_no_sense(tmp_path: Path) -> None:
    async with house(tmp_path, WAITS) as here:
        ids = Identifiers()
        for fields, status in (
            ({"CallSid": ids.call_sid}, 400),  # no AccountSid
            ({"AccountSid": ids.account_sid}, 400),
            (announcement(ids) | {"CallSid": "../../etc"}, 400),
            (announcement(ids) | {"CallSid": "C" * 200}, 400),
            (announcement(ids) | {"Long": "x" * 70_000}, 413),
            (announcement(ids) | {f"Field{n}": "" for n in range(600)}, 400),
        ):
            before = len(here.logs)
            answer = await here.post(fields=fields)
            assert answer.status == status, fields
            (line,) = refusals(here, before)
            assert line["event"] == "webhook malformed"
        for path in ("/", "/twilio", "/twilio/voice/more", "/metrics", "/%00"):
            assert (await here.post(path)).status == 404
        # Whom nobody answers is told so, and is no call.
        answer = await here.post(fields=announcement(ids, "+4930123456"))
        assert answer.status == 200
        assert b"<Reject" in answer.body
        assert not here.rows()
        assert not here.tracebacks()


async def test_the_model_is_there_at_the_webhook_and_is_let_go_without_a_stream(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """Every word for "over" that the carrier has ends a call whose stream never came."""
    opened: list[trio.Event] = []

    async def model(session: Conversation) -> None:
        gone = trio.Event()
        opened.append(gone)
        try:
            await session.configure()
            await session.listen()
        finally:
            gone.set()

    port = await nursery.start(serve_models, {"waits": model})
    text = engine("waits", port) + agent("waits", "waits", 'greeting = ""')
    async with house(tmp_path, text) as here:
        for status, reason in (
            ("completed", "caller_hangup"),
            ("busy", "carrier_busy"),
            ("failed", "carrier_failed"),
            ("no-answer", "carrier_no_answer"),
            ("canceled", "carrier_canceled"),
        ):
            ids = Identifiers()
            await here.admit("waits", ids)
            await until(lambda: bool(opened), "the model's session, before any stream")
            gone = opened.pop()
            for harmless in ("ringing", "in-progress", "a-new-one"):
                await here.over(ids, harmless)
            assert not gone.is_set()
            await here.over(ids, status)
            with trio.fail_after(SOON_S):
                await gone.wait()
            row = await here.row(ids.call_sid)
            assert (row["reason"], row["states"][-2][0]) == (reason, "answering")
        assert not here.tracebacks()


async def test_what_the_carrier_tells_of_a_stream(tmp_path: Path) -> None:
    """Its errors are logged beside the call, which goes on; of strangers nothing is."""
    async with house(tmp_path, WAITS) as here, here.stream("waits") as stream:
        ids = stream.ids
        told = {"CallSid": ids.call_sid, "AccountSid": ids.account_sid, "StreamSid": "MZ1"}
        for event in ("stream-started", "stream-error", "stream-stopped"):
            error = {"StreamError": "31921"} if event == "stream-error" else {}
            fields = {**told, "StreamEvent": event, **error}
            assert (await here.post("/twilio/status", fields)).status == 204
            stranger = fields | {"CallSid": Identifiers().call_sid}
            assert (await here.post("/twilio/status", stranger)).status == 204
        await stream.speak(5)
        assert (await stream.hang_up())["reason"] == "caller_hangup"
        (line,) = [line for line in here.logs if line["log_level"] == "warning"]
        assert (line["event"], line["error"]) == ("carrier reports a stream error", "31921")
        assert line in here.lines_of(ids.call_sid)


async def test_one_call_too_many_is_busy(tmp_path: Path) -> None:
    async with house(tmp_path, WAITS, max_calls=2) as here:
        first, second, third = Identifiers(), Identifiers(), Identifiers()
        await here.admit("waits", first)
        await here.admit("waits", second)
        before = len(here.logs)
        answer = await here.post(fields=announcement(third, "sip:waits@voiced.test"))
        assert answer.status == 200
        assert b'<Reject reason="busy"' in answer.body
        (line,) = refusals(here, before)
        assert (line["event"], line["why"]) == ("call refused", "max_calls")
        await here.over(first)
        await here.row(first.call_sid)
        assert parse_twiml(
            (await here.post(fields=announcement(third, "sip:waits@voiced.test"))).body
        ).url
        await here.over(second)
        await here.over(third)
        await here.idle()
        assert len(here.rows()) == 3


async def test_a_daemon_that_drains_takes_no_calls(tmp_path: Path) -> None:
    text = OFFLINE + agent("greets", "offline", 'greeting = "Greet the caller."')
    async with house(tmp_path, text) as here, trio.open_nursery() as nursery:
        heard = trio.Event()
        results = []

        async def talk() -> None:
            script = Script("waits", "", (WaitForHangUp(),))
            results.append(await here.call(script, "greets", observer=lambda _: heard.set()))

        nursery.start_soon(talk)
        await heard.wait()
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: any(each["event"] == "draining" for each in here.logs), "draining")
        answer = await here.post()
        assert answer.status == 503
    (result,) = results
    assert result.failure is None
    assert result.ended_by == "agent"
    assert result.unheard_ms == 0  # the farewell was heard out
    assert len(result.agent) >= 1
    assert [row["reason"] for row in here.rows()] == ["shutdown"]
