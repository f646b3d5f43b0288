"""A whole call against a small server, over memory streams and on virtual time."""

from __future__ import annotations

import contextlib
import json
import ssl
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
import trustme

from tests.simulate.server import STREAM, TWIML, WEBHOOK, WORDS, Peer, Server, serve
from voiced.simulate import main as simulate_main
from voiced.simulate.caller import call
from voiced.simulate.main import Load, main, place_calls
from voiced.simulate.report import percentile, summary
from voiced.simulate.result import CallResult
from voiced.simulate.script import (
    CutLine,
    Pause,
    Press,
    Say,
    SayWhileAgentSpeaks,
    Script,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)
from voiced.simulate.signature import sign
from voiced.simulate.wire import Identifiers

TOKEN = "test-auth-token-0123456789abcdef"


def script(*steps: Step) -> Script:
    return Script("test", "", steps)


TALK = script(
    WaitForAgentSpeech(300),
    WaitForAgentSilence(),
    Say(WORDS),
    SayWhileAgentSpeaks(WORDS, after_ms=300),
    WaitForAgentSpeech(300),
    WaitForAgentSilence(),
)


SILENCE = "/" * 213 + "w=="


async def polite_agent(peer: Peer) -> None:
    """Greet, answer 500 ms after the caller's words, stop when interrupted, answer again."""
    await peer.until("start")
    await trio.sleep(0.1)
    await peer.speak(800)
    await peer.mark("greeting")
    await caller_speech(peer)
    await caller_silence(peer)
    await peer.speak(5000)
    await peer.mark("cut")
    await caller_speech(peer)
    await peer.send("clear")
    await caller_silence(peer)
    await peer.speak(1000)
    await peer.drain()


async def caller_speech(peer: Peer) -> None:
    """Read until the caller has spoken for 100 ms."""
    loud = 0
    while loud < 5:
        loud += (await peer.until("media"))["media"]["payload"] != SILENCE


async def caller_silence(peer: Peer) -> None:
    """Read until the caller has been silent for 500 ms."""
    silent = 0
    while silent < 25:
        payload = (await peer.until("media"))["media"]["payload"]
        silent = silent + 1 if payload == SILENCE else 0


async def listener(peer: Peer) -> None:
    await peer.drain()


async def test_a_conversation_is_heard_measured_and_recorded(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with serve(polite_agent) as server:
        result = await call(TALK, webhook_url=WEBHOOK, network=server.network())
    assert result.failure is None
    assert result.ok, result.to_json()
    assert result.heard_greeting()
    assert result.heard_answer()
    assert result.clean_barge_in()
    assert result.first_audio_ms == 100
    assert [round(ms) for ms in result.answers_ms] == [500, 500]
    assert (result.interruptions[0].reaction_ms, result.interruptions[0].stale_ms) == (100, 0)
    peer = server.peers[0]
    assert [message["event"] for message in peer.got[:3]] == ["connected", "start", "media"]
    assert peer.got[1]["start"]["customParameters"] == {"agent": "reception"}
    assert peer.got[-1]["event"] == "stop"
    assert [message["mark"]["name"] for message in peer.of("mark")] == ["greeting", "cut"]
    numbers = [int(message["sequenceNumber"]) for message in peer.got[1:]]
    assert numbers == list(range(1, len(numbers) + 1))
    frames = [at for at, m in zip(peer.times, peer.got, strict=True) if m["event"] == "media"]
    start = peer.times[1]
    due = [start + 0.02 * n for n in range(1, len(frames) + 1)]
    assert frames[5:] == pytest.approx(due[5:], abs=1e-6)  # the agent slept for the first five

    result.write_wav(tmp_path / "call.wav")
    with wave.open(str(tmp_path / "call.wav")) as recording:
        assert (recording.getnchannels(), recording.getframerate()) == (2, 8000)
        assert recording.getnframes() == pytest.approx(result.duration_ms * 8, abs=160)
    timeline = json.loads(json.dumps(result.to_json()))["timeline"]
    assert [entry["at_ms"] for entry in timeline] == sorted(entry["at_ms"] for entry in timeline)
    assert timeline[-1]["event"] == "HungUp"


async def test_delay_is_added_each_way(autojump_clock: trio.testing.MockClock) -> None:
    async with serve(polite_agent) as server:
        result = await call(
            TALK, webhook_url=WEBHOOK, network=server.network(), network_delay_ms=40
        )
    assert result.ok, result.to_json()
    assert result.first_audio_ms == pytest.approx(180, abs=0.01)
    assert result.interruptions[0].reaction_ms == pytest.approx(180, abs=0.01)
    # What is heard from the middle of a frame on is dated to that frame.
    assert result.answers_ms == pytest.approx([580, 580], abs=20)


@pytest.mark.parametrize("path", ["", "/telephony/v1"])
async def test_requests_are_signed_over_the_public_url(
    autojump_clock: trio.testing.MockClock, path: str
) -> None:
    """And sent without what the proxy before the daemon takes off the path."""
    public = f"https://voice.example.com{path}"
    stream = f"wss://voice.example.com{path}/twilio/media/t0ken"
    status = f"{public}/twilio/status"
    async with serve(listener) as server:
        server.twiml = TWIML.format(url=stream, attributes=f" statusCallback='{status}'")
        first = await _signed_call(server, public)
    target, headers, form = server.requests[0]
    assert target == "/twilio/voice"
    assert form["CallSid"] == first
    assert (form["From"], form["To"]) == ("+49301234567", "+15550100")
    assert headers["x-twilio-signature"] == sign(TOKEN, f"{public}/twilio/voice", form.items())
    assert server.handshakes[0]["x-twilio-signature"] == sign(TOKEN, stream)
    events = []
    for target, sent, fields in server.requests[1:]:
        assert target == "/twilio/status"
        assert sent["x-twilio-signature"] == sign(TOKEN, status, fields.items())
        events.append(fields["StreamEvent"])
    assert events == ["stream-started", "stream-stopped"]


async def _signed_call(server: Server, public: str) -> str:
    ids = Identifiers()
    result = await call(
        script(Pause(100)),
        webhook_url=WEBHOOK,
        auth_token=TOKEN,
        public_url=public + "/",
        from_="+49301234567",
        identifiers=ids,
        network=server.network(),
    )
    assert result.ok, result.to_json()
    return ids.call_sid


async def test_a_refused_status_callback_is_a_violation(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serve(listener) as server:
        url = "http://voice.other:8080/twilio/status"
        server.twiml = TWIML.format(url=STREAM, attributes=f" statusCallback='{url}'")
        result = await call(script(Pause(100)), webhook_url=WEBHOOK, network=server.network())
    assert [each.code for each in result.violations] == [11200, 11200]
    assert "cannot connect to voice.other:8080" in result.violations[0].text


@pytest.mark.parametrize(
    ("status", "content_type", "twiml", "reason"),
    [
        (403, "text/plain", "no", "HTTP 403"),
        (200, "application/json", "{}", "not XML"),
        (200, "text/xml", "<Response><Reject/></Response>", "but <Reject>"),
        (200, "text/xml", "x" * 70_000, "exceeds 65536 bytes"),
        (200, "text/xml", TWIML.format(url="ws://other.test/x", attributes=""), "unknown host"),
    ],
)
async def test_refused_calls_say_why(
    autojump_clock: trio.testing.MockClock,
    status: int,
    content_type: str,
    twiml: str,
    reason: str,
) -> None:
    async with serve(listener) as server:
        server.status, server.content_type, server.twiml = status, content_type, twiml
        result = await call(script(), webhook_url=WEBHOOK, network=server.network())
    assert reason in (result.failure or "")
    assert result.ended_by is None
    assert not result.ok
    assert not result.agent


async def test_a_refused_stream_says_why(autojump_clock: trio.testing.MockClock) -> None:
    async with serve(listener) as server:
        server.refuse = True
        refused = await call(script(), webhook_url=WEBHOOK, network=server.network())
        server.deaf = True
        closed = await call(script(), webhook_url=WEBHOOK, network=server.network())
    assert refused.failure == "voice.test:8080 refused the stream with HTTP 403 (31920)"
    assert closed.failure == "voice.test:8080 gave no WebSocket handshake in 10 s"


async def test_a_server_that_never_answers_fails_the_call(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def silent(peer: Peer) -> None:
        await trio.sleep_forever()

    began = trio.current_time()
    async with serve(silent) as server:
        result = await call(
            script(Pause(100_000)),
            webhook_url=WEBHOOK,
            network=server.network(),
            deadline_s=30,
            record=False,
        )
    assert result.failure == "the call was not over after 30 s"
    assert trio.current_time() - began <= 33


async def test_agent_hangs_up(autojump_clock: trio.testing.MockClock) -> None:
    async def brief(peer: Peer) -> None:
        await peer.until("start")
        await peer.speak(400)
        await peer.until("dtmf")

    async with serve(brief) as server:
        steps = script(Pause(200), Press("9"), WaitForHangUp())
        result = await call(steps, webhook_url=WEBHOOK, network=server.network())
    assert result.failure is None
    assert (result.ended_by, result.close_code) == ("agent", 1000)
    assert result.unheard_ms == pytest.approx(200, abs=0.5)


async def test_cut_line_breaks_the_socket_without_stop(
    autojump_clock: trio.testing.MockClock,
) -> None:
    codes: list[int] = []

    async def watch(peer: Peer) -> None:
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            await peer.until("stop")
        reason = peer.socket.closed
        codes.append(reason.code if reason else 0)

    async with serve(watch) as server:
        result = await call(
            script(Pause(100), CutLine()), webhook_url=WEBHOOK, network=server.network()
        )
        await trio.testing.wait_all_tasks_blocked()
    assert codes == [1006]
    assert result.ended_by == "line"
    assert result.failure is None


async def test_violations_on_the_wire_are_collected(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def rude(peer: Peer) -> None:
        await peer.until("start")
        await peer.socket.send_message(b"\0")
        await peer.socket.send_message("{")
        await peer.send("clear", sequenceNumber="1")
        await peer.drain()

    async with serve(rude) as server:
        result = await call(script(Pause(100)), webhook_url=WEBHOOK, network=server.network())
    assert [each.code for each in result.violations] == [31950, 31951, 31951]
    assert result.failure is None
    assert not result.ok


async def test_tls_is_checked(autojump_clock: trio.testing.MockClock) -> None:
    authority = trustme.CA()
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("voice.test").configure_cert(server_tls)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    url = WEBHOOK.replace("http:", "https:")
    async with serve(listener, server_tls) as server:
        server.twiml = TWIML.format(url=STREAM.replace("ws:", "wss:"), attributes="")
        good = await call(script(Pause(100)), webhook_url=url, network=server.network(trusting))
    assert good.ok, good.to_json()
    async with serve(listener, server_tls) as server:
        bad = await call(script(Pause(100)), webhook_url=url, network=server.network())
    assert "no TLS with voice.test:8080" in (bad.failure or "")


async def test_many_callers_keep_the_limit_and_their_order(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    live = most = 0

    async def count(peer: Peer) -> None:
        nonlocal live, most
        live, most = live + 1, max(most, live + 1)
        try:
            await listener(peer)
        finally:
            live -= 1

    seen: list[str] = []
    async with serve(count) as server:
        load = Load(
            url=WEBHOOK,
            calls=7,
            concurrency=3,
            script=script(Pause(200)),
            stagger_ms=10,
            wav_dir=tmp_path,
            network=server.network(),
        )
        results = await place_calls(load, lambda result: seen.append(result.call_sid))
    assert most == 3
    assert [result.call_sid for result in results] == [
        form["CallSid"] for _, _, form in server.requests
    ]
    assert sorted(seen) == sorted(path.stem for path in tmp_path.iterdir())
    text = summary(results)
    assert "calls that went well  7 of 7" in text
    assert "call set up" in text


async def test_summary_names_what_went_wrong(autojump_clock: trio.testing.MockClock) -> None:
    async with serve(listener) as server:
        steps = script(WaitForAgentSpeech(timeout_s=1))
        load = Load(url=WEBHOOK, calls=8, concurrency=8, script=steps, network=server.network())
        text = summary(await place_calls(load))
    assert "calls that went well  0 of 8" in text
    assert text.count("nothing came of step 1 of the script") == 5
    assert "and 3 more" in text


def test_percentiles_are_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p) for p in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert percentile([7.0], 50) == 7.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8080"}, "no URL of a webhook"),
        ({"url": "http://127.0.0.1:99999"}, "no URL of a webhook"),
        ({"url": "http://[::1"}, "no URL of a webhook"),
        ({"public_url": "voice.example.net"}, "is the daemon's [http] public_url"),
        ({"sip": "sip:x@[::1"}, "is no SIP URI"),
        ({"sip": "sip:x@h:1:2"}, "is no SIP URI"),
        ({"script": "nonsense"}, "there is no script 'nonsense'; there are conversation"),
        ({"calls": 0}, "at least 1"),
        ({"jitter_ms": -1}, "must not be negative"),
        ({"echo_db": 3}, "-60 to 0 dB beside what is heard, such as -15, not 3"),
        ({"echo_db": float("nan")}, "not nan"),
        ({"echo_db": -15, "echo_ms": -1}, "0 to 1000 ms late, not -1"),
        ({"echo_ms": 60}, "--echo-ms needs --echo-db"),
        ({"ca_file": Path("missing.pem")}, "there is no file missing.pem"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    options: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: dict[str, object] = {"url": "http://127.0.0.1:1", **options}
    assert main(**arguments) == 2  # type: ignore[arg-type]
    assert message in capsys.readouterr().err


def test_nothing_listening_is_exit_code_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = tmp_path / "results.json"
    assert main(url="http://127.0.0.1:1", json_path=results) == 1
    why = "cannot connect to 127.0.0.1:1: connection refused; is the daemon running there?"
    assert why in capsys.readouterr().out
    assert json.loads(results.read_text())[0]["ok"] is False


@pytest.mark.parametrize("option", ["json_path", "wav_dir"])
def test_what_cannot_be_written_is_known_before_the_calls(
    option: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    places: dict[str, Any] = {option: tmp_path / "file" / "below"}
    assert main(url="http://127.0.0.1:1", **places) == 1
    printed = capsys.readouterr()
    assert printed.out == "", "no call was placed"
    assert printed.err.startswith("voiced simulate: cannot write: ")


def test_standard_output_has_the_results_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(url="http://127.0.0.1:1", calls=2, stagger_ms=0, json_path=Path("-")) == 1
    printed = capsys.readouterr()
    assert [each["ok"] for each in json.loads(printed.out)] == [False, False]
    assert "calls that went well  0 of 2" in printed.err


def test_an_interruption_does_not_lose_the_calls_that_are_over(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def place_calls(
        load: simulate_main.Load, finished: Callable[[CallResult], None]
    ) -> list[CallResult]:
        finished(await simulate_main._place(load, 0))
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate_main, "place_calls", place_calls)
    results = tmp_path / "results.json"
    assert main(url="http://127.0.0.1:1", calls=9, json_path=results) == 1
    printed = capsys.readouterr()
    assert printed.err == "voiced simulate: interrupted, 1 of 9 calls over\n"
    assert "calls that went well  0 of 1" in printed.out
    assert len(json.loads(results.read_text())) == 1


@pytest.mark.parametrize(
    ("auth_token", "hint"), [(None, "$TWILIO_AUTH_TOKEN"), (TOKEN, "--public-url")]
)
async def test_a_refusal_of_the_webhook_says_what_to_do(
    autojump_clock: trio.testing.MockClock, auth_token: str | None, hint: str
) -> None:
    async with serve(listener) as server:
        server.status = 403
        result = await call(
            script(), webhook_url=WEBHOOK, auth_token=auth_token, network=server.network()
        )
    assert hint in (result.failure or "")
