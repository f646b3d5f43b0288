"""Webhooks: what is told, how it is signed, and what becomes of it when the receiver fails."""

from __future__ import annotations

import gc
import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st
from voiced_plugins import webhook
from voiced_plugins._courier import Again, Done, Never
from voiced_plugins._http import new_client
from voiced_plugins._receiver import judge, sign, verify
from voiced_plugins._spool import Item, Spool, Stored
from voiced_plugins.dtmf import Dtmf
from voiced_plugins.transcript import Transcript
from voiced_plugins.webhook import Deliveries, Webhook, WebhookSettings

from tests.cutting import cut_off, left_behind
from tests.plugins.digits import shows
from tests.plugins.sounds import a_wav
from tests.plugins.standin import StandInCall
from tests.plugins.together import call_with_all
from tests.plugins.webserver import Answer, Request, WebServer, serving
from voiced.config import ConfigError, load
from voiced.plugin import Host, Line, Plugin, PluginError, Summary, Tool
from voiced.testing import call_with, virtual_time

SECRET = "a secret of sixteen and more"


def told(server: WebServer) -> list[dict[str, Any]]:
    return [json.loads(each.body) for each in server.requests]


async def until_told(server: WebServer, event: str) -> None:
    with trio.fail_after(20):
        while event not in [each["event"] for each in told(server)]:
            await trio.sleep(0.01)


# ---- signatures ----


def documented() -> Any:
    """The function that the plugin's text gives receivers."""
    text = (webhook.__doc__ or "").partition("    import hashlib")[2]
    code = "import hashlib" + re.sub(r"^    ", "", text, flags=re.MULTILINE)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["is_ours"]


@given(st.text(min_size=1), st.text(min_size=1), st.binary(), st.integers(0, 200))
def test_signatures_of_either_secret_hold(one: str, other: str, body: bytes, late_s: int) -> None:
    one, other = (each.encode("utf-8", "replace").decode() for each in (one, other))
    now = int(time.time()) - late_s
    header = sign([one, other], now, body)
    for secret in (one, other):
        assert verify(secret, header, body, now + late_s)
        assert documented()(secret, header, body)
        assert not verify(secret, header, body + b"x", now)
        assert not verify(secret, header, body, now + 301)
        assert not verify(secret + "x", header, body, now)
        forged = header.replace(f"t={now}", f"t={now + 1}")
        assert not verify(secret, forged, body, now)


@given(st.text())
def test_no_header_fools_or_breaks_the_check(header: str) -> None:
    assert not verify(SECRET, header, b"", 0.0)


def test_a_signature_is_what_the_text_says() -> None:
    header = sign(["key"], 1_700_000_000, b'{"a":1}')
    ran = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", "key"],
        input=b'1700000000.{"a":1}',
        capture_output=True,
        check=True,
    )
    expected = ran.stdout.decode().split()[-1]
    assert header == f"t=1700000000,v1={expected}"


# ---- answers ----


@given(st.integers(100, 599))
def test_what_a_status_means(status: int) -> None:
    outcome = judge(status, {}, 0.0)
    if 200 <= status < 300:
        assert outcome == Done()
    elif status in (408, 429) or status >= 500:
        assert outcome == Again(f"status {status}")
    else:
        assert outcome == Never(f"status {status}")


@pytest.mark.parametrize(
    ("text", "after_s"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("", None),
        ("٣", None),
        ("9" * 400, 999_999_999.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, after_s: float | None) -> None:
    outcome = judge(503, {"Retry-After": text}, 1_700_000_000.0)
    assert outcome == Again("status 503", after_s, all_wait=after_s is not None)


@given(st.text())
def test_any_retry_after_is_survived(text: str) -> None:
    assert isinstance(judge(429, {"Retry-After": text}, 0.0), Again)


# ---- a call ----

EVERY = list(webhook.Event.__args__)  # type: ignore[attr-defined]


async def test_a_call_is_told_in_order_signed_and_once(tmp_path: Path) -> None:
    async with serving(Answer(204)) as server:
        settings = {
            "url": f"{server.url}/hook?x=1",
            "secret": SECRET,
            "more_secrets": [{"value": "the one before, still known"}],
            "secret_headers": [{"name": "Authorization", "prefix": "Bearer ", "value": "t0ken"}],
            "events": EVERY,
            "tool_arguments": True,
        }
        async with call_with(Webhook, settings, state_dir=tmp_path) as call:
            call.call.register_tool(Tool("look", "Looks.", _looks))
            await call.agent_says("Günaydın.", 300)
            await call.caller_says("こんにちは", 100)
            await call.model_calls("look", {"x": 1})
            await call.press("7")
            with trio.move_on_after(0.3):
                await call.agent_says("This is long, and is interrupted.", 3000)
            await call.caller_says("Stop.", 100)
            await call.hang_up()
            await until_told(server, "call_end")
            summary = call.summary
    events = told(server)
    assert [each["sequence"] for each in events] == list(range(1, len(events) + 1))
    names = [each["event"] for each in events]
    assert (names[0], names[-1]) == ("call_start", "call_end")
    assert set(EVERY) - set(names) == {"transcript_piece", "engine_error"}
    by_name = {each["event"]: each["data"] for each in events}
    assert by_name["digit"] == {"digit": "7"}
    assert (by_name["tool"]["name"], by_name["tool"]["arguments"]) == ("look", {"x": 1})
    assert by_name["barge_in"]["heard_ms"] > 0
    assert by_name["media"] == {"encoding": "pcmu", "rate": 8000}
    said = [each["data"] for each in events if each["event"] == "transcript"]
    assert [each["text"] for each in said][:2] == ["Günaydın.", "こんにちは"]
    assert [each["cut"] for each in said].count(True) == 1
    end = by_name["call_end"]
    assert end["reason"] == "caller_hangup"
    assert [each["text"] for each in end["transcript"]] == [
        each.text for each in summary.transcript
    ]
    assert events[0]["call"] == {
        "call_id": summary.call_id,
        "carrier": "twilio",
        "carrier_call_id": "CA1",
        "direction": "inbound",
        "caller": "+15550199",
        "called": "+15550100",
        "trunk": None,
        "agent": "test",
    }
    is_ours = documented()
    for request, event in zip(server.requests, events, strict=True):
        assert request.target == "/hook?x=1"
        headers = request.headers
        assert headers["voiced-delivery"] == event["id"]
        assert headers["voiced-event"] == event["event"]
        assert headers["voiced-attempt"] == "1"
        assert headers["authorization"] == "Bearer t0ken"
        for secret in (SECRET, "the one before, still known"):
            assert is_ours(secret, headers["voiced-signature"], request.body)
    assert len({each["id"] for each in events}) == len(events)


async def _looks(arguments: Mapping[str, Any]) -> str:
    return "nothing"


async def test_keys_and_arguments_are_not_told_unless_asked_for(tmp_path: Path) -> None:
    async with serving(Answer()) as server:
        settings = {"url": server.url, "secret": SECRET}
        async with call_with(Webhook, settings, state_dir=tmp_path) as call:
            call.call.register_tool(Tool("look", "Looks.", _looks))
            await call.model_calls("look", {"pin": "8273"})
            await call.press("8273")
            await call.hang_up()
            await until_told(server, "call_end")
    assert {each["event"] for each in told(server)} == {"call_start", "media", "tool", "call_end"}
    assert not any(shows(each.body, "8273") for each in server.requests)
    assert not any(b'"digit"' in each.body for each in server.requests)


@pytest.mark.parametrize("webhook_is_first", [True, False])
async def test_a_secret_number_is_in_no_event_and_no_transcript(
    tmp_path: Path, webhook_is_first: bool
) -> None:
    collect = {"min_length": 4, "max_length": 4, "secret": True, "then": {"tell": "It is known."}}
    collect["prompt"] = a_wav(tmp_path, "pin.wav", 100)
    menu = {"main": {"pass_on": True, "keys": {"4": {"collect": collect}}}}
    folder = tmp_path / "texts"
    async with serving(Answer()) as server:
        tables: list[tuple[type[Plugin], Mapping[str, Any]]] = [
            (Dtmf, {"menu": menu}),
            (Transcript, {"folder": str(folder), "pieces": True}),
            (Webhook, {"url": server.url, "secret": SECRET, "events": EVERY}),
        ]
        if webhook_is_first:
            tables.reverse()
        async with call_with_all(tables) as call:
            await call.caller_says("My PIN.", 100)
            await call.press("9")
            await call.press("4")
            await trio.sleep(0.5)
            await call.press("8273")
            await call.until(lambda: call.told)
            await call.hang_up()
            await until_told(server, "call_end")
    digits = [each["data"]["digit"] for each in told(server) if each["event"] == "digit"]
    assert digits == ["9"]
    assert not any(shows(each.body, "8273") for each in server.requests)
    for path in folder.rglob("*.*"):
        assert not shows(path.read_text("utf-8"), "8273")


async def test_the_last_event_has_what_other_plugins_note_after_a_call(tmp_path: Path) -> None:
    class Noting(Plugin):
        async def on_call_end(self, summary: Summary) -> None:
            await trio.sleep(0.2)
            self.call.set_fact("noted", summary.reason)

    async with serving(Answer()) as server:
        table = {"url": server.url, "secret": SECRET, "events": ["call_end"]}
        async with call_with_all([(Webhook, table), (Noting, {})]) as call:
            await call.hang_up()
            await until_told(server, "call_end")
    (event,) = told(server)
    assert event["data"]["facts"]["noted"] == event["data"]["reason"] == "caller_hangup"


async def test_a_receiver_that_hangs_does_not_hold_up_the_call(tmp_path: Path) -> None:
    async with serving(Answer(after_s=60)) as server:
        settings = {"url": server.url, "unsigned": True, "timeout_s": 30}
        async with call_with(Webhook, settings, state_dir=tmp_path) as call:
            began = trio.current_time()
            await call.caller_says("Hello.", 100)
            await call.hang_up()
            assert trio.current_time() - began < 2
        assert trio.current_time() - began < 6  # the service's own end included
        assert "voiced-signature" not in server.requests[0].headers
        # The next wait for it; it is tried once more, when the service ends.
        assert [each["sequence"] for each in told(server)] == [1] * len(server.requests)
        assert len(server.requests) <= 2


async def test_the_end_of_a_call_waits_until_its_last_event_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that is killed right after a call has lost nothing of it; it does not wait long."""
    slow, add = threading.Event(), Spool.add

    def slowly(spool: Spool, items: Any) -> int:
        slow.wait(10)
        return add(spool, items)

    service = service_in(tmp_path, "http://127.0.0.1:9/")
    await service.open()
    assert service.courier is not None
    summary = Summary("a", "done", 0.0, 1.0, 1, 1, (), {}, {}, None, (), {})
    monkeypatch.setattr(Spool, "add", slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        plugin = Webhook(StandInCall(nursery), service.config, service)
        with trio.move_on_after(0.3) as waited:
            await plugin.on_call_over(summary)
        assert waited.cancelled_caught
        slow.set()
        await plugin.on_call_over(summary)
        with closing(sqlite3.connect(tmp_path / "spool.sqlite")) as database:
            (kept,) = database.execute("SELECT count(*) FROM item").fetchone()
        assert kept == 2
        nursery.cancel_scope.cancel()
    await service.close()


# ---- a receiver that fails ----


class House:
    """What a service needs of the daemon."""

    name = "webhook"
    log = structlog.get_logger("voiced.plugin")

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir


def service_in(folder: Path, url: str, **more: Any) -> Deliveries:
    table = {"url": url, "secret": SECRET, **more}
    host: Host = House(folder)  # type: ignore[assignment]
    return Deliveries(msgspec.convert(table, WebhookSettings), host)


def item(name: str, lane: str = "call") -> Item:
    return Item(lane, name, "state", json.dumps({"event": name}).encode(), time.time())


async def deliver(
    folder: Path, server: WebServer, *names: str, wait: int, **more: Any
) -> Counter[str]:
    """Put events and wait until the receiver has `wait` requests and all is quiet."""
    service = service_in(folder, server.url, **more)
    await service.open()
    courier = service.courier
    assert courier is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        for name in names:
            courier.put(item(name))
        with trio.fail_after(20):
            while len(server.requests) < wait:
                await trio.sleep(0.01)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    await service.close()
    return Counter(courier.statistics)


async def test_what_fails_is_sent_again_with_the_same_id_and_a_new_signature(
    tmp_path: Path,
) -> None:
    answers = iter([Answer(500), Answer(broken=True), Answer(200), Answer(200)])
    async with serving(lambda _: next(answers)) as server:
        statistics = await deliver(tmp_path, server, "one", "two", wait=4)
    assert statistics == {"delivered": 2, "lost": 0}
    assert [each["event"] for each in told(server)] == ["one", "one", "one", "two"]
    assert [each.headers["voiced-attempt"] for each in server.requests] == ["1", "2", "3", "1"]
    assert len({each.headers["voiced-delivery"] for each in server.requests}) == 2
    first, _, third, _ = server.requests
    assert first.headers["voiced-signature"] != third.headers["voiced-signature"]
    assert verify(SECRET, third.headers["voiced-signature"], third.body, time.time())


async def test_redirects_are_not_followed_and_refusals_not_repeated(tmp_path: Path) -> None:
    async with serving(Answer()) as elsewhere:
        answers = iter(
            [Answer(307, headers=(("Location", elsewhere.url),)), Answer(410), Answer(200)]
        )
        async with serving(lambda _: next(answers)) as server:
            with structlog.testing.capture_logs() as logs:
                statistics = await deliver(tmp_path, server, "one", "two", "three", wait=3)
    assert statistics == {"delivered": 1, "lost": 2}
    assert elsewhere.requests == []
    given_up = [each for each in logs if each["event"] == "delivery given up"]
    assert [(each["why"], each["lost"]) for each in given_up] == [("status 307", 1)]


async def test_retry_after_is_kept_to(tmp_path: Path) -> None:
    times: list[float] = []

    def answer(request: Request) -> Answer:
        times.append(trio.current_time())
        return Answer(429, headers=(("Retry-After", "2"),)) if len(times) == 1 else Answer()

    async with serving(answer) as server:
        await deliver(tmp_path, server, "one", wait=2)
    assert 2.0 <= times[1] - times[0] <= 4.5


async def test_answers_are_neither_followed_nor_collected(tmp_path: Path) -> None:
    """An endless answer is dropped; a short one leaves the connection to the next event."""
    answers = iter([Answer(body=b"x" * 65536, endless=True), Answer(body=b"short"), Answer()])
    async with serving(lambda _: next(answers)) as server:
        statistics = await deliver(tmp_path, server, "one", "two", "three", wait=3)
    assert statistics == {"delivered": 3, "lost": 0}


async def test_a_connection_that_is_refused_is_tried_again(tmp_path: Path) -> None:
    service = service_in(tmp_path, "http://127.0.0.1:9/")
    await service.open()
    assert service.courier is not None
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.run)
            service.courier.put(item("one"))
            with trio.fail_after(10):
                while not any(each["event"].startswith("delivery failed") for each in logs):
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    await service.close()
    async with serving(Answer()) as server:  # and goes on when it is started anew
        statistics = await deliver(tmp_path, server, wait=1)
    assert statistics["delivered"] == 1


SENDER = """
import sys, time, uuid, json, structlog, trio
from functools import partial
from pathlib import Path
from voiced_plugins._spool import Item
from voiced_plugins.webhook import Deliveries, WebhookSettings

class Host:
    name = "webhook"
    state_dir = Path(sys.argv[1])
    log = structlog.get_logger()

async def main():
    service = Deliveries(WebhookSettings(url=sys.argv[2], unsigned=True), Host())
    await service.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        for number in range(int(sys.argv[3])):
            body = json.dumps({"event": str(number), "lane": number % 7}).encode()
            item = Item(str(number % 7), uuid.uuid4().hex, "state", body, time.time())
            service.courier.put(item)
        await service.courier.written()
        print("written", flush=True)

trio.run(main)
"""


async def test_nothing_is_lost_to_a_kill_in_the_middle(tmp_path: Path) -> None:
    count = 70
    async with serving(Answer(after_s=0.02)) as server:
        command = [sys.executable, "-c", SENDER, str(tmp_path), server.url, str(count)]
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(trio.run_process, command, check=False, stdout=subprocess.PIPE)
            )
            with trio.fail_after(20):
                while len(server.requests) < 20:
                    await trio.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        before = len(server.requests)
        assert before < count
        await deliver(tmp_path, server, wait=count)
        with trio.fail_after(20):
            while len({each["event"] for each in told(server)}) < count:
                await trio.sleep(0.02)
    names: dict[str, str] = {}
    order: dict[int, list[int]] = {}
    for request in server.requests:
        event = json.loads(request.body)
        number = int(event["event"])
        # Told twice is what a kill may cost, and then it has the same id.
        first = names.setdefault(event["event"], request.headers["voiced-delivery"])
        assert first == request.headers["voiced-delivery"]
        seen = order.setdefault(event["lane"], [])
        if number not in seen:
            seen.append(number)
    assert len(names) == count
    assert len(server.requests) <= count + 7  # those that were on the way, of each lane one
    for lane, numbers in order.items():
        assert numbers == list(range(lane, count, 7))


# ---- sockets ----


async def one_cut_off(folder: Path, steps: int) -> bool:
    """Send an event, cut off after so many steps; whether it was."""
    async with serving(Answer(200, b"x" * 70_000)) as server:
        service = service_in(folder, server.url)
        service._client = httpx.AsyncClient(verify=False, trust_env=False)
        try:
            return await cut_off(steps, lambda: service.deliver(Stored(1, item("one"), 0)))
        finally:
            await service.close()


def test_wherever_a_delivery_is_cut_off_nothing_stays_open(tmp_path: Path) -> None:
    assert left_behind(partial(one_cut_off, tmp_path)) == []


async def test_a_service_that_runs_out_of_time_closes_its_connections(tmp_path: Path) -> None:
    async with serving(Answer(204)) as server:
        service = service_in(tmp_path, server.url)
        await service.open()
        await service.deliver(Stored(1, item("one"), 0))
        assert service._client is not None
        with trio.CancelScope() as scope:
            scope.cancel()
            await service.close()
        assert service._client.is_closed
        assert service.courier is not None
        await service.courier.close()


async def test_a_receiver_that_hangs_in_the_handshake_keeps_no_socket(tmp_path: Path) -> None:
    gone = trio.Event()

    async def say_nothing(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        gone.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        # A tenth of it is what a busy machine may lose between the two limits.
        service = service_in(tmp_path, f"https://127.0.0.1:{port}/", timeout_s=2.0)
        service._client = new_client()
        gc.disable()
        try:
            outcome = await service.deliver(Stored(1, item("one"), 0))
            assert isinstance(outcome, Again)
            assert "ConnectTimeout" in outcome.why
            with trio.fail_after(20):
                await gone.wait()
        finally:
            gc.enable()
        await service.close()
        nursery.cancel_scope.cancel()


# ---- sizes and settings ----


def test_a_summary_that_is_too_long_loses_its_first_lines() -> None:
    lines = [Line("agent", f"{number:05}" + "ö" * 9_995, False) for number in range(100)]
    summary = Summary("a", "done", 0.0, 1.0, 1, 1, (), {}, {}, None, lines, {"fact": "x"})
    data = webhook._summary(summary)
    assert data["transcript_shortened"] is True
    assert data["transcript"][-1]["text"].startswith("00099")
    assert 900_000 < len(webhook._json(data)) <= webhook.MAX_BODY + 10_000
    assert data["facts"] == {"fact": "x"}


BAD = [
    ('url = "ftp://h/"\nunsigned = true', "write https://host/path"),
    ('url = "https://a:b@h/"\nunsigned = true', "secret_headers"),
    ('url = "https://h/"', "add secret_env"),
    ('url = "https://h/"\nsecret = "short"', "openssl rand"),
    (f'url = "https://h/"\nsecret = "{SECRET}"\nunsigned = true', "remove one"),
    ('url = "https://h/"\nunsigned = true\nevents = []', "leave it out"),
    ('url = "https://h/"\nunsigned = true\nevents = ["call_ende"]', "call_ende"),
    (f'url = "https://h/"\nsecret = "{SECRET}"\nmore_secrets = [{{}}]', "value_env"),
]


@pytest.mark.parametrize(("table", "remedy"), BAD)
def test_mistakes_are_told_with_their_remedy(tmp_path: Path, table: str, remedy: str) -> None:
    file = tmp_path / "voiced.toml"
    file.write_text(f"[plugins.webhook]\n{table}\n")
    file.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert remedy in str(caught.value)
    assert SECRET not in str(caught.value)


def test_secrets_come_from_the_environment_and_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "voiced.toml"
    file.write_text(
        '[plugins.webhook]\nurl = "https://h/"\nsecret_env = "ONE"\n'
        'more_secrets = [{ value_env = "TWO" }]\n'
    )
    loaded = load(file, environ={"ONE": SECRET, "TWO": SECRET[::-1]})
    table = {k: v for k, v in loaded.config.plugins["webhook"].items() if v is not None}
    settings = msgspec.convert(table, WebhookSettings)
    assert settings.secrets == (SECRET, SECRET[::-1])
    assert SECRET not in repr(settings)
    assert SECRET[::-1] not in repr(settings)


@virtual_time
async def test_a_spool_that_cannot_be_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    service = service_in(tmp_path / "file", "https://h/")
    with pytest.raises(PluginError, match="spool"):
        await service.open()


def test_headers_are_found_whatever_their_case() -> None:
    headers = httpx.Headers({"retry-after": "5"})
    assert judge(429, headers, 0.0) == Again("status 429", 5.0, all_wait=True)
