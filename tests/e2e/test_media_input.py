"""Malformed input on the media socket ends at most its own call, is logged once and counted."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e import raw
from tests.e2e.house import (
    SOON_S,
    House,
    Outcomes,
    Scenes,
    Stream,
    agent,
    house,
    judge,
    nothing_is_left,
    played,
)
from voiced import metrics
from voiced.simulate import Script
from voiced.simulate.client import SocketClosed
from voiced.simulate.script import HangUp, Pause
from voiced.simulate.speech import SILENT_PAYLOAD
from voiced.simulate.wire import Identifiers, Narrator
from voiced.twilio.inbound import MAX_MALFORMED
from voiced.twilio.tokens import TTL_S

UNKNOWN = "/twilio/media/" + "x" * 32

CONFIG = (
    """
[engine.offline]
kind = "emulator"
speech = "clips"

[engine.talkative]
kind = "emulator"
speech = "clips"
faults = { answer_ms = 20000 }
"""
    + agent("waits", "offline", 'greeting = ""')
    + agent("talks", "talkative", 'greeting = "Greet the caller."')
)

scenes: Scenes[House] = Scenes()

expected: Counter[tuple[str, str]] = Counter()
"""What all scenes together add to the counters: name of the metric and `why`."""


def counted() -> Counter[tuple[str, str]]:
    """What the counters of bad messages and of streams say now."""
    return Counter(
        {
            (sample.name, sample.labels["why"]): round(sample.value)
            for metric in (metrics.MEDIA_MALFORMED, metrics.REFUSED)
            for family in metric.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels.get("what", "stream") == "stream"
        }
    )


def malformed(why: str, times: int) -> None:
    expected["voiced_media_malformed_total", why] += times


def ended(why: str, times: int = 1) -> None:
    expected["voiced_refused_total", why] += times


@scenes
async def the_call_beside_goes_on(here: House) -> None:
    result = await here.call(Script("hears", "", (Pause(8000), HangUp())), "talks")
    assert result.failure is None
    assert not result.violations
    # Once the carrier has two seconds in hand, nothing may tear the audio.
    assert not [gap for gap in result.gaps if gap.start_ms > 2000]
    assert sum(said.end_ms - said.start_ms for said in result.agent) > 5000
    assert (await here.row(result.call_sid))["reason"] == "caller_hangup"


# ---- passed over: the call goes on


async def passed_over(here: House, messages: Sequence[str | bytes], events: set[str]) -> None:
    """Each sent three times; logged once for each kind; the call hears and is heard after it."""
    async with here.stream("waits") as stream:
        for message in messages:
            for _ in range(3):
                await stream.socket.send(message)  # type: ignore[arg-type]  # bytes: binary
        await stream.speak(5)
        row = await stream.hang_up()
    assert row["reason"] == "caller_hangup"
    logged = [line["event"] for line in here.lines_of(stream.ids.call_sid)]
    assert sorted(logged) == sorted(events)


def media(payload: object) -> str:
    return json.dumps({"event": "media", "media": {"track": "inbound", "payload": payload}})


for name, messages, events in (
    ("no_json", ["{", "", "no", '{"event":'], {"malformed message: not json"}),
    ("deep_json", ['{"event":"media","x":' + "[" * 20_000], {"malformed message: not json"}),
    (
        "wrong_types",
        [
            "[]",
            "7",
            '{"event": 7}',
            "{}",
            '{"event":"media","media":7}',
            '{"event":"mark"}',
            '{"event":"dtmf","dtmf":{"digit":"11"}}',
            media(7),
        ],
        {"malformed message: wrong shape"},
    ),
    ("bad_base64", [media("!!!!"), media("A")], {"malformed message: bad base64"}),
    ("binary", [b"\x00\xff", b"{}"], {"malformed message: binary"}),
    ("unknown", ['{"event":"news","x":[1]}'], {"unknown event"}),
    (
        "another_stream",
        ['{"event":"mark","streamSid":"MZx","mark":{"name":"x"}}'],
        {"malformed message: wrong stream"},
    ),
):
    scenes[name] = partial(passed_over, messages=messages, events=events)
    for text in events:
        if text.startswith("malformed message: "):
            malformed(text.partition(": ")[2], 3 * len(messages))


# ---- given up: that call ends


async def given_up(stream: Stream, why: str) -> None:
    row = await stream.house.row(stream.ids.call_sid)
    assert row["reason"] == "carrier_lost"
    lines = stream.house.lines_of(stream.ids.call_sid)
    assert [line["why"] for line in lines if line["event"] == "stream given up"] == [why], lines
    assert len(lines) <= 2  # the kind of message, and that it was too much
    ended(why.partition(":")[0])


@scenes
async def nothing_but_rubbish(here: House) -> None:
    async with here.stream("waits") as stream:
        with suppress(SocketClosed):
            for _ in range(60):
                await stream.socket.send("rubbish")
        await stream.closed()
    await given_up(stream, "malformed: more than 50 messages")
    malformed("not json", MAX_MALFORMED + 1)


@scenes
async def a_flood(here: House) -> None:
    async with here.stream("waits") as stream:
        with suppress(SocketClosed), trio.fail_after(SOON_S):
            while True:
                await stream.socket.send('{"event":"mark","mark":{"name":"x"}}')
    await given_up(stream, "flood: more than 200 messages a second")


@scenes
async def audio_far_ahead(here: House) -> None:
    async with here.stream("waits") as stream:
        with suppress(SocketClosed):
            for _ in range(40):
                await stream.speak(1, base64.b64encode(b"\xff" * 8000).decode())  # a second
        await stream.closed()
    await given_up(stream, "flood: audio far ahead of the clock")


HALF = raw.frame(raw.TEXT, b"a" * 100)[:50]


async def violation(here: House, sent: bytes, code: int, why: str | None) -> None:
    """Bytes that are no WebSocket: the connection is closed as RFC 6455 wants, the call ends."""
    ids = Identifiers()
    stream, status = await raw.upgrade(await here.admit("waits", ids))
    assert status == 101
    start = {
        "event": "start",
        "streamSid": "MZ1",
        "start": {
            "callSid": ids.call_sid,
            "streamSid": "MZ1",
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        },
    }
    async with stream:
        await stream.send_all(raw.frame(raw.TEXT, json.dumps(start).encode()))
        with suppress(trio.BrokenResourceError):  # not all of it is waited for
            await stream.send_all(sent)
        if sent is HALF:
            await stream.send_eof()
        assert await raw.close_code(stream) == code
    assert (await here.row(ids.call_sid))["reason"] == "carrier_lost"
    said = [(line["event"], str(line["why"])[:4]) for line in here.lines_of(ids.call_sid)]
    # A connection that breaks off is no malformed input, and is told by the call's reason alone.
    assert said == ([] if why is None else [("stream given up", str(code))])


for name, sent, code, why in (
    ("unmasked", raw.frame(raw.TEXT, b"{}", masked=False), 1002, "framing"),
    ("reserved_bits", raw.frame(raw.TEXT, b"{}", reserved=4), 1002, "framing"),
    ("unknown_opcode", raw.frame(3, b"{}"), 1002, "framing"),
    ("long_ping", raw.frame(raw.PING, b"x" * 126), 1002, "framing"),
    ("no_utf_8", raw.frame(raw.TEXT, b"\xff\xfe"), 1007, "not utf-8"),
    ("continuation_of_nothing", raw.frame(0, b"{}"), 1002, "framing"),
    ("a_mebibyte", raw.frame(raw.TEXT, b"a" * (1 << 20)), 1009, "too large"),
    (
        "fragments_without_end",
        raw.frame(raw.TEXT, b"a", fin=False) + raw.frame(0, b"a" * 40_000, fin=False) * 2,
        1009,
        "too large",
    ),
    ("half_a_frame", HALF, 1000, None),
):
    scenes[name] = partial(violation, sent=sent, code=code, why=why)
    if why is not None:
        ended(why)


# ---- refused: no stream comes about


async def refused(here: House, ids: Identifiers, why: str) -> None:
    row = await here.row(ids.call_sid)
    assert row["reason"] == "stream_refused"
    assert row["states"][-2][0] == "answering"
    said = [(line["event"], line["why"]) for line in here.lines_of(ids.call_sid)]
    assert said == [("stream refused", why)]
    ended(why)


@scenes
async def no_start(here: House) -> None:
    ids = Identifiers()
    url = await here.admit("waits", ids)
    async with here.network.open_media(url, timeout_s=5) as socket:
        began = trio.current_time()
        stream = Stream(socket, ids, Narrator(ids), here)
        assert await stream.closed() == 1008
        assert trio.current_time() - began >= 4.9
    await refused(here, ids, "no start")


@scenes
async def start_of_another_call(here: House) -> None:
    ids = Identifiers()
    url = await here.admit("waits", ids)
    async with here.network.open_media(url, timeout_s=5) as socket:
        stream = Stream(socket, ids, Narrator(ids), here)
        text = '{"event":"start","start":{"callSid":"CA1","streamSid":"MZ1"},"streamSid":"MZ1"}'
        await socket.send(text)
        assert await stream.closed() == 1008
    await refused(here, ids, "another call")


async def before_start(here: House, message: str | bytes, times: int, why: str) -> None:
    """What comes in place of `start` is no call."""
    ids = Identifiers()
    url = await here.admit("waits", ids)
    async with here.network.open_media(url, timeout_s=5) as socket:
        with suppress(SocketClosed):
            for _ in range(times):
                await socket.send(message)  # type: ignore[arg-type]  # bytes: binary
        assert await Stream(socket, ids, Narrator(ids), here).closed() == 1008
    await refused(here, ids, why)


MALFORMED = "malformed before start"
for name, message, times, why in (
    ("rubbish_before_start", "{", 1, MALFORMED),
    ("wrong_types_before_start", '{"event":"start","start":7}', 1, MALFORMED),
    ("bad_base64_before_start", media("!"), 1, MALFORMED),
    ("binary_before_start", b"\x00", 20, "no start"),
    ("media_before_start", media(SILENT_PAYLOAD), 20, "no start"),
):
    scenes[name] = partial(before_start, message=message, times=times, why=why)


@scenes
async def ended_before_start(here: House) -> None:
    """The carrier gives the call up while its socket has said nothing yet."""

    async def late(ids: Identifiers) -> None:
        url = await here.admit("waits", ids)
        async with here.network.open_media(url, timeout_s=5) as socket:
            await here.over(ids, "canceled")
            await here.row(ids.call_sid)
            stream = Stream(socket, ids, Narrator(ids), here)
            await socket.send(Narrator(ids).start({}))
            await stream.closed()

    ids = Identifiers()
    await late(ids)
    assert (await here.row(ids.call_sid))["reason"] == "carrier_canceled"
    assert not here.tracebacks()
    ended("not expected any more")


async def turned_away(here: House, url: str) -> None:
    """One log line says so, without the token."""
    before = len(here.logs)
    stream, status = await raw.upgrade(url)
    async with stream:
        assert status == 403
    token = url.rpartition("/")[2]
    assert not any(token in str(line) for line in here.logs[before:])
    ended("wrong or used token")


@scenes
async def a_token_twice(here: House) -> None:
    ids = Identifiers()
    url = await here.admit("waits", ids)
    async with here.network.open_media(url, timeout_s=5) as socket:
        await socket.send(Narrator(ids).start({}))
        await turned_away(here, url)
        stream = Stream(socket, ids, Narrator(ids), here)
        assert (await stream.hang_up())["reason"] == "caller_hangup"


@scenes
async def a_webhook_twice(here: House) -> None:
    """A repeated webhook gives a second token; the call that has its stream keeps that."""
    ids = Identifiers()
    first = await here.admit("waits", ids)
    second = await here.admit("waits", ids)
    await turned_away(here, first)
    async with here.network.open_media(second, timeout_s=5) as socket:
        stream = Stream(socket, ids, Narrator(ids), here)
        await socket.send(stream.narrator.start({}))
        await stream.hears("mark")
        third = await here.admit("waits", ids)
        async with here.network.open_media(third, timeout_s=5) as other:
            await other.send(stream.narrator.start({}))
            assert await Stream(other, ids, stream.narrator, here).closed() == 1008
            ended("not expected any more")
        assert (await stream.hang_up())["reason"] == "caller_hangup"
    assert not here.tracebacks()


@scenes
async def an_unknown_token(here: House) -> None:
    await turned_away(here, here.address.replace("http", "ws") + UNKNOWN)


@scenes
async def an_expired_token(here: House) -> None:
    ids = Identifiers()
    url = await here.admit("waits", ids)
    await trio.sleep(TTL_S + 0.1)
    await turned_away(here, url)
    await here.over(ids)


@scenes
async def no_upgrade(here: House) -> None:
    answer = await here.post("/twilio/media/token")
    assert answer.status == 405


@scenes
async def no_http(here: House) -> None:
    host, _, port = here.address.removeprefix("http://").rpartition(":")
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"A" * 20_000):
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            await stream.send_all(sent)
            assert await raw.status(stream) in (400, 431)


async def all_of_it(folder: Path) -> Outcomes:
    before_all = counted()

    async def everything_was_counted(here: House) -> None:
        await nothing_is_left(here)
        assert counted() - before_all == expected

    async with house(folder, CONFIG) as here:
        outcomes = await scenes.play(here, everything_was_counted)
        before = len(here.logs)
        await turned_away(here, here.address.replace("http", "ws") + UNKNOWN)
        lines = [line["event"] for line in here.logs[before:]]
        assert lines == ["stream refused"]  # one, now that nobody else is there
        return outcomes


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_media_input(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
