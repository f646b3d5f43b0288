from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.twilio.carrier import (
    CALL_SID,
    STREAM_SID,
    Carrier,
    connected_carrier,
    frames_of,
    start_message,
    stream,
)
from voiced.formats import PCMU_8K
from voiced.leg import CallerAudio, Digit, Leg, LegClosed, LegEvent, Stopped, Transferred
from voiced.twilio.errors import StreamRefused
from voiced.twilio.leg import ECHO_PATIENCE_S, LOOK_S, MAX_PAYLOAD, TwilioLeg, accept_start
from voiced.websocket import WebSocketClosed


async def receive_forever(leg: TwilioLeg, events: list[LegEvent]) -> None:
    while True:
        try:
            events += await leg.receive()
        except LegClosed:
            return


# ---- start


@pytest.mark.parametrize("number", [str, int, float])
async def test_a_stream_becomes_a_leg(number: Callable[[int], object]) -> None:
    async with stream(number=number) as (leg, carrier):
        as_leg: Leg = leg
        assert (as_leg.format, as_leg.lead_ms) == (PCMU_8K, 2000)
        assert leg.stream_sid == STREAM_SID
        assert leg.parameters == {"agent": "reception"}
        carrier.say(b"ab")
        assert await leg.receive() == [CallerAudio(b"ab")]
        assert leg.statistics().inbound.sequence_jumps == 0


async def test_what_comes_with_start_is_not_lost() -> None:
    async with connected_carrier() as (server, carrier):
        carrier.connected()
        carrier.start(customParameters=None)
        carrier.say(b"first")
        carrier.press("5")
        leg = await accept_start(server, CALL_SID)
        assert leg.parameters == {}
        assert await leg.receive() == [CallerAudio(b"first"), Digit("5")]


async def test_start_without_connected() -> None:
    async with connected_carrier() as (server, carrier):
        carrier.start()
        assert (await accept_start(server, CALL_SID)).stream_sid == STREAM_SID


async def refused(server_side: Callable[[Carrier], object]) -> str:
    async with connected_carrier() as (server, carrier):
        server_side(carrier)
        carrier.nursery.start_soon(carrier.listen)
        with pytest.raises(StreamRefused) as caught:
            await accept_start(server, CALL_SID)
        await wait_all_tasks_blocked()
        assert carrier.closed is not None
        assert not carrier.received
        return caught.value.reason


async def test_no_start_within_five_seconds(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    assert await refused(Carrier.connected) == "no start"
    assert trio.current_time() - began == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("speak", "reason"),
    [
        (lambda carrier: carrier.start(callSid="CA-other"), "another call"),
        (lambda carrier: carrier.start(callSid=None), "malformed before start"),
        (lambda carrier: carrier.raw(b"GET / HTTP/1.1"), "malformed before start"),
        (
            lambda carrier: carrier.start(mediaFormat={"encoding": "audio/x-l16"}),
            "unsupported media format",
        ),
        (
            lambda carrier: carrier.start(mediaFormat={"sampleRate": "16000"}),
            "unsupported media format",
        ),
        (lambda carrier: [carrier.say(b"x") for _ in range(10)], "no start"),
        (lambda carrier: [carrier.raw(b"x", binary=True) for _ in range(10)], "no start"),
        (lambda carrier: carrier.ws.abort("test"), "closed before start"),
    ],
)
async def test_refused(speak: Callable[[Carrier], object], reason: str) -> None:
    if reason == "closed before start":
        async with connected_carrier() as (server, carrier):
            speak(carrier)
            with pytest.raises(StreamRefused, match=reason):
                await accept_start(server, CALL_SID)
    else:
        assert await refused(speak) == reason


async def test_start_without_a_stream_sid() -> None:
    def speak(carrier: Carrier) -> None:
        message = start_message(streamSid=None)
        del message["streamSid"]
        carrier.raw(json.dumps(message).encode())

    assert await refused(speak) == "no stream sid"


# ---- from the caller


async def test_one_wake_up_is_one_event(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        await wait_all_tasks_blocked()
        carrier.say(b"a" * 160)
        carrier.press("1")
        carrier.say(b"b" * 160)
        carrier.press("#")
        audio, *digits = await leg.receive()
        assert audio == CallerAudio(b"a" * 160 + b"b" * 160)
        assert digits == [Digit("1"), Digit("#")]


async def test_stop_is_the_last_word(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        carrier.say(b"bye")
        carrier.stop()
        carrier.say(b"late")
        assert await leg.receive() == [CallerAudio(b"bye"), Stopped("stop", hung_up=True)]
        with pytest.raises(LegClosed):
            await leg.receive()
        with pytest.raises(LegClosed):
            leg.send(b"too late")
        with pytest.raises(LegClosed):
            await leg.ready()
        assert leg.clear() == 0


async def test_cut_without_stop(autojump_clock: MockClock) -> None:
    async with stream(listen=False) as (leg, carrier):
        carrier.say(b"hello")
        assert await leg.receive() == [CallerAudio(b"hello")]
        carrier.ws.abort("cut")
        (event,) = await leg.receive()
        assert isinstance(event, Stopped)
        assert "1006" in event.reason
        with pytest.raises(LegClosed):
            await leg.receive()


async def test_a_carrier_that_is_gone_without_a_word(autojump_clock: MockClock) -> None:
    """No stop, no close, no answer to a ping: a network that fails leaves the connection open."""
    async with stream(listen=False) as (leg, carrier):
        began = trio.current_time()

        async def look() -> None:
            while True:
                await trio.sleep(LOOK_S)
                leg.look_after()

        carrier.nursery.start_soon(look)
        with capture_logs() as logs:
            (event,) = await leg.receive()
        assert event == Stopped(
            "connection closed: 1006 the carrier fell silent", code="media_timeout"
        )
        assert trio.current_time() - began == pytest.approx(30)
        assert [line["event"] for line in logs] == ["stream given up"]
        with pytest.raises(LegClosed):
            leg.send(b"x")


async def test_a_carrier_that_suppresses_silence_is_asked(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        events: list[LegEvent] = []
        carrier.nursery.start_soon(receive_forever, leg, events)
        for _ in range(60):
            await trio.sleep(LOOK_S)
            leg.look_after()
        assert events == []
        carrier.say(b"still here")
        await wait_all_tasks_blocked()
        assert events == [CallerAudio(b"still here")]
        carrier.stop()
        await wait_all_tasks_blocked()
        leg.look_after()  # of no consequence
        assert events[1:] == [Stopped("stop", hung_up=True)]


async def test_missing_audio_is_silence(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        frame = frames_of(20)
        with capture_logs() as logs:
            carrier.say(frame)
            carrier.say(frame, lose=True)
            carrier.say(frame, lose=True)
            carrier.say(frame)
            carrier.say(frame, lose=True)
            carrier.say(frame)
            (event,) = await leg.receive()
        gap = b"\xff" * 160
        assert event == CallerAudio(frame + gap * 2 + frame + gap + frame)
        statistics = leg.statistics().inbound
        assert (statistics.filled_ms, statistics.sequence_jumps) == (60, 2)
        assert statistics.audio_ms == 120
        assert [line["event"] for line in logs] == ["messages lost", "caller audio lost"]


async def test_an_end_behind_a_transfer_that_failed_is_none(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):

        async def impossible(target: str) -> Transferred:
            raise ValueError(f"{target} is no number")

        leg.redirect = impossible
        with pytest.raises(ValueError, match="no number"):
            await leg.transfer("nobody")
        carrier.stop()
        assert await leg.receive() == [Stopped("stop", hung_up=True)]


# ---- malformed input


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"{", "not json"),
        (b'{"event":"media","media":{"payload":"!"}}', "bad base64"),
        (b'{"event":"media"}', "wrong shape"),
        (b'{"event":"dtmf","dtmf":{"digit":"12"}}', "wrong shape"),
        (b'{"event":"media","streamSid":"MZ-other","media":{"payload":""}}', "wrong stream"),
        (json.dumps(start_message()).encode(), "out of order"),
    ],
)
async def test_malformed_messages_lose_nothing_else(
    message: bytes, reason: str, autojump_clock: MockClock
) -> None:
    async with stream() as (leg, carrier):
        with capture_logs() as logs:
            for payload in (b"one", b"two", b"three"):
                carrier.raw(message)
                carrier.say(payload)
            assert await leg.receive() == [CallerAudio(b"onetwothree")]
        assert leg.statistics().inbound.malformed == {reason: 3}
        assert [line["event"] for line in logs] == [f"malformed message: {reason}"]


async def test_binary_messages_are_malformed(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        carrier.raw(b"\x00\x01", binary=True)
        carrier.say(b"text")
        assert await leg.receive() == [CallerAudio(b"text")]
        assert leg.statistics().inbound.malformed == {"binary": 1}


async def test_unknown_events_and_other_tracks_are_passed_over(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        with capture_logs() as logs:
            for _ in range(200):
                carrier.raw(b'{"event":"applause","media":3}')
            carrier.tell("media", {"track": "outbound", "payload": "AAAA"})
            carrier.say(b"me")
            events: Sequence[LegEvent] = await leg.receive()
        assert events == [CallerAudio(b"me")]
        assert leg.statistics().inbound.ignored == 201
        assert leg.statistics().inbound.malformed == {}
        assert len(logs) == 2


async def test_nothing_but_malformed_messages_ends_the_stream(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        with capture_logs() as logs:
            for _ in range(51):
                carrier.raw(b"x")
            assert await leg.receive() == [Stopped("protocol error: malformed")]
        assert [line["event"] for line in logs] == [
            "malformed message: not json",
            "stream given up",
        ]
        await wait_all_tasks_blocked()
        assert carrier.closed is not None
        with pytest.raises(LegClosed):
            await leg.receive()


async def test_a_flood_ends_the_stream(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        events: list[LegEvent] = []
        carrier.nursery.start_soon(receive_forever, leg, events)
        for _ in range(30):  # 300 messages a second
            for _ in range(300):
                with suppress(WebSocketClosed):
                    carrier.press("1")
            await trio.sleep(1)
        assert events[-1] == Stopped("protocol error: flood")


async def test_more_audio_than_time_ends_the_stream(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        events: list[LegEvent] = []
        carrier.nursery.start_soon(receive_forever, leg, events)
        with suppress(WebSocketClosed):
            for _ in range(40):
                carrier.say(frames_of(1000))
                await wait_all_tasks_blocked()
        assert events[-1] == Stopped("protocol error: flood")


async def test_a_burst_after_an_outage_is_no_flood(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        events: list[LegEvent] = []
        carrier.nursery.start_soon(receive_forever, leg, events)
        for _ in range(6):
            await trio.sleep(10)
            for _ in range(500):
                carrier.say(frames_of(20))
        await trio.sleep(1)
        assert sum(len(each.payload) for each in events if isinstance(each, CallerAudio)) == 480_000


async def test_too_large_a_message_ends_the_stream(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        carrier.raw(b'{"event":"' + b"x" * 70_000 + b'"}')
        (event,) = await leg.receive()
        assert isinstance(event, Stopped)
        assert "1009" in event.reason


# ---- to the caller


async def test_audio_is_played_and_confirmed(autojump_clock: MockClock) -> None:
    async with stream(delay=0.04) as (leg, carrier):
        carrier.nursery.start_soon(receive_forever, leg, [])
        await trio.sleep(1)
        began = trio.current_time()
        leg.send(frames_of(1000))
        await leg.ready()
        assert leg.sent() == 8000
        assert leg.heard() == 0
        assert leg.seconds_until(4000) == pytest.approx(0.5)
        await trio.sleep(0.25)
        assert leg.heard() == pytest.approx(2000, abs=8)
        await leg.drained()
        assert trio.current_time() - began == pytest.approx(1.08, abs=0.001)
        assert leg.heard() == 8000
        assert leg.seconds_until(8000) == 0
        assert (carrier.audio, carrier.played) == (frames_of(1000), 8000)


async def test_long_audio_is_cut_and_marked(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        payload = bytes(range(256)) * 50
        leg.send(payload)
        await wait_all_tasks_blocked()
        kinds = [message["event"] for _, message in carrier.received]
        assert kinds == ["mark", *["media", "mark"] * 3, "media"]
        assert carrier.audio == payload
        lengths = [len(b64decode(each["media"]["payload"])) for each in carrier.of("media")]
        assert max(lengths) == MAX_PAYLOAD
        names = [each["mark"]["name"] for each in carrier.of("mark")]
        assert len(set(names)) == len(names)
        assert len(max(names, key=len)) < 64


async def test_nothing_is_no_message(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        leg.send(b"")
        await wait_all_tasks_blocked()
        assert [message["event"] for _, message in carrier.received] == ["mark"]


async def test_small_pieces_share_marks_and_their_end_is_confirmed(
    autojump_clock: MockClock,
) -> None:
    async with stream() as (leg, carrier):
        carrier.nursery.start_soon(receive_forever, leg, [])
        for _ in range(105):
            leg.send(frames_of(20))
        await trio.sleep(5)
        assert 10 <= len(carrier.of("mark")) <= 20
        assert leg.statistics().playback.confirmed == leg.sent() == 105 * 160
        await leg.drained()


async def test_a_late_piece_with_no_mark_under_way_is_confirmed(
    autojump_clock: MockClock,
) -> None:
    async with stream() as (leg, carrier):
        carrier.nursery.start_soon(receive_forever, leg, [])
        leg.send(frames_of(200))
        await trio.sleep(0.25)  # played and confirmed; the pause is too short for a new mark
        leg.send(frames_of(60))
        await trio.sleep(0.1)
        assert leg.statistics().playback.confirmed == leg.sent() == 2080


async def test_clear_in_mid_play(autojump_clock: MockClock) -> None:
    async with stream(delay=0.04) as (leg, carrier):
        carrier.nursery.start_soon(receive_forever, leg, [])
        await trio.sleep(1)
        leg.send(frames_of(1000))
        leg.send(frames_of(1000))
        await trio.sleep(0.7)
        heard = leg.clear()
        assert (leg.sent(), leg.heard()) == (0, 0)
        await trio.sleep(0.1)
        assert heard == carrier.played == 5600
        # The marks that clear brought back prove nothing.
        await trio.sleep(1)
        assert (leg.heard(), leg.statistics().playback.confirmed) == (0, 0)
        leg.send(frames_of(200))
        await leg.drained()
        assert leg.heard() == 1600
        assert carrier.played == 5600 + 1600
        assert [m["event"] for _, m in carrier.received].count("clear") == 1


async def test_clear_goes_out_before_anything_that_is_sent_after_it(
    autojump_clock: MockClock,
) -> None:
    async with stream() as (leg, carrier):
        leg.send(frames_of(100, 1))
        leg.clear()
        leg.send(frames_of(100, 2))
        await wait_all_tasks_blocked()
        sent = [message["event"] for _, message in carrier.received]
        assert sent == ["mark", "media", "mark", "clear", "mark", "media", "mark"]


async def test_drained_when_no_echo_comes(autojump_clock: MockClock) -> None:
    async with stream(echoes=False) as (leg, carrier):
        carrier.nursery.start_soon(receive_forever, leg, [])
        began = trio.current_time()
        leg.send(frames_of(1000))
        await leg.drained()
        assert trio.current_time() - began == pytest.approx(1 + ECHO_PATIENCE_S, abs=0.001)


async def test_drained_with_nothing_sent(autojump_clock: MockClock) -> None:
    async with stream(echoes=False) as (leg, _):
        with trio.fail_after(0.01):
            await leg.drained()


async def test_drained_ends_with_a_clear(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        carrier.nursery.start_soon(receive_forever, leg, [])
        leg.send(frames_of(1000))

        async def clear_soon() -> None:
            await trio.sleep(0.1)
            leg.clear()

        carrier.nursery.start_soon(clear_soon)
        began = trio.current_time()
        await leg.drained()
        assert trio.current_time() - began == pytest.approx(0.1)


async def test_drained_when_the_caller_hangs_up(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        carrier.nursery.start_soon(receive_forever, leg, [])
        leg.send(frames_of(1000))
        carrier.nursery.start_soon(_stop_after, carrier, 0.5)
        with pytest.raises(LegClosed):
            await leg.drained()
        await trio.sleep(10)
        assert leg.heard() == pytest.approx(4000, abs=8)  # and never more than that


async def _stop_after(carrier: Carrier, delay: float) -> None:
    await trio.sleep(delay)
    carrier.stop()


async def test_echoes_of_marks_that_are_not_ours(autojump_clock: MockClock) -> None:
    async with stream(echoes=False) as (leg, carrier):
        leg.send(frames_of(1000))
        for name in ("", "g0:8000", "g0:8000:99", "x" * 5000):
            carrier.tell("mark", {"name": name})
        carrier.say(b"on")
        assert await leg.receive() == [CallerAudio(b"on")]
        assert leg.heard() == 0
        assert leg.statistics().playback.unknown_echoes == 4


async def test_hang_up_twice(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        await leg.hang_up()
        await leg.hang_up()
        await wait_all_tasks_blocked()
        assert carrier.closed is not None
        assert carrier.closed.code == 1000
        (event,) = await leg.receive()
        assert isinstance(event, Stopped)
        with pytest.raises(LegClosed):
            await leg.receive()
        with pytest.raises(LegClosed):
            leg.send(b"x")


async def test_hang_up_while_receiving_and_draining(autojump_clock: MockClock) -> None:
    events: list[LegEvent] = []
    async with stream() as (leg, carrier), trio.open_nursery() as nursery:
        nursery.start_soon(receive_forever, leg, events)
        leg.send(frames_of(1000))

        async def drain() -> None:
            with pytest.raises(LegClosed):
                await leg.drained()

        nursery.start_soon(drain)
        await trio.sleep(0.3)
        with trio.fail_after(1.5):
            await leg.hang_up()
        assert carrier.closed is not None
    assert [type(each) for each in events] == [Stopped]


async def test_a_carrier_that_does_not_read(autojump_clock: MockClock) -> None:
    """`ready` holds the speaker back; whoever sends all the same ends the call, not the memory."""
    async with stream(listen=False) as (leg, _):
        with trio.move_on_after(60) as patience:
            while True:
                leg.send(frames_of(200))
                await leg.ready()
        assert patience.cancelled_caught
        held_back = leg.sent()
        with suppress(LegClosed):
            for _ in range(1000):
                leg.send(frames_of(200))
            pytest.fail("it took 200 s of audio")
        assert leg.sent() - held_back < 256 * 1024
        assert isinstance((await leg.receive())[-1], Stopped)
        assert leg.clear() >= 0


async def test_receive_cancelled_loses_nothing(autojump_clock: MockClock) -> None:
    async with stream() as (leg, carrier):
        for number in range(20):
            carrier.say(bytes([number]))
            with trio.CancelScope() as scope:
                scope.cancel()
                await leg.receive()
            assert scope.cancelled_caught
        assert await leg.receive() == [CallerAudio(bytes(range(20)))]
