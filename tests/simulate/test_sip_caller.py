"""A whole call over SIP against a small UAS, on loopback and virtual time."""

from __future__ import annotations

import hashlib
import json
import wave
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.simulate.server import LOUD, WORDS
from tests.simulate.uas import SILENCE, Uas, Voice, report, sdp, uas
from voiced.simulate.main import Load, SipTarget, main, place_calls
from voiced.simulate.report import summary
from voiced.simulate.result import CallResult
from voiced.simulate.rtp_packets import DIGITS, parse_event, parse_reports
from voiced.simulate.script import (
    CutLine,
    Hold,
    Pause,
    Press,
    Resume,
    Say,
    SayWhileAgentSpeaks,
    Script,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)
from voiced.simulate.sip_caller import Credentials, call
from voiced.simulate.sip_sdp import read

Agent = Callable[[Uas], Awaitable[None]]


async def hold_call(agent: Agent, *steps: Step, **options: Any) -> tuple[CallResult, Uas]:
    """A call of the script with an agent that answers as it is written."""
    async with uas() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(agent, peer)
        result = await call(Script("test", "", steps), uri=peer.uri, kernel_times=False, **options)
        nursery.cancel_scope.cancel()
    return result, peer


async def talk(peer: Uas, *, stop_ms: int = 200, stale_ms: int = 0) -> None:
    """Greet, answer 600 ms after the caller's words, fall silent `stop_ms` into an interruption."""
    await peer.accept()
    voice = Voice(peer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(voice.run)
        voice.say(LOUD, 800)
        await spoken(peer)
        voice.say(LOUD, 5000)
        while (await peer.hear()).payload == SILENCE:
            pass
        await trio.sleep(stop_ms / 1000)
        voice.frames.clear()
        if stale_ms:
            voice.say(SILENCE, 240)
            voice.say(LOUD, stale_ms)
        await spoken(peer)
        voice.say(LOUD, 1000)
        nursery.start_soon(peer.listen)
        await peer.answer(await peer.until("BYE"), 200, "OK")
        nursery.cancel_scope.cancel()


async def spoken(peer: Uas) -> None:
    """Until the caller has spoken and been silent for 600 ms."""
    loud = quiet = 0
    while loud < 5 or quiet < 30:
        silent = (await peer.hear()).payload == SILENCE
        loud, quiet = loud + (not silent), quiet + 1 if silent else 0


TALK = (
    WaitForAgentSpeech(300),
    WaitForAgentSilence(),
    Say(WORDS),
    SayWhileAgentSpeaks(WORDS, after_ms=300),
    WaitForAgentSpeech(300),
    WaitForAgentSilence(),
)


async def test_a_conversation(autojump_clock: trio.testing.MockClock) -> None:
    result, peer = await hold_call(talk, *TALK)
    assert result.ok, result
    assert (result.ended_by, result.failure) == ("caller", None)
    assert result.heard_greeting()
    assert result.heard_answer()
    assert result.clean_barge_in()
    (interruption,) = result.interruptions
    assert interruption.reaction_ms == pytest.approx(240, abs=40)
    assert interruption.stale_ms == 0
    assert result.answers_ms[0] == pytest.approx(600, abs=60)
    assert [said.cut for said in result.agent] == [False, True, False]
    assert result.sip is not None
    assert (result.sip.status, result.sip.codec, result.sip.ended) == (200, "PCMU", "BYE")
    assert result.sip.retransmissions == 0
    assert result.rtp is not None
    assert result.rtp.lost == result.rtp.duplicated == result.rtp.bursts == 0
    assert result.rtp.jitter_ms == pytest.approx(0, abs=0.2)
    assert result.rtp.lateness_ms is not None
    assert result.rtp.lateness_ms.max < 1
    # The caller's own stream: every 20 ms, nothing missing, the marker on the first.
    packets = [packet for _, packet in peer.heard]
    assert [p.marker for p in packets] == [True] + [False] * (len(packets) - 1)
    steps = {
        ((b.sequence - a.sequence) & 0xFFFF, (b.timestamp - a.timestamp) & 0xFFFFFFFF)
        for a, b in pairwise(packets)
    }
    assert steps == {(1, 160)}


@pytest.mark.parametrize(
    ("options", "why"),
    [({"stop_ms": 3000}, "late"), ({"stale_ms": 100}, "stale"), ({"stop_ms": 8000}, "never cut")],
    ids=["late", "stale", "played to its end"],
)
async def test_an_interruption_that_is_not_heeded(
    options: dict[str, int], why: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def agent(peer: Uas) -> None:
        await talk(peer, **options)

    result, _ = await hold_call(agent, *TALK)
    assert result.interruptions, result.failure
    assert not result.clean_barge_in(), why
    assert (result.interruptions[0].stale_ms > 0) == (why == "stale")


# --- setting up ---------------------------------------------------------------------------------


async def test_a_challenge_is_answered_once(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        first = await peer.until("INVITE")
        challenge = 'Digest realm="voiced", nonce="abc", qop="auth", algorithm=SHA-256, opaque="o"'
        other = 'Digest realm="voiced", nonce="abc", algorithm=SHA-512-256'
        more = (("WWW-Authenticate", other), ("WWW-Authenticate", challenge))
        await peer.answer(first, 401, "Unauthorized", more=more)
        ack = await peer.until("ACK")
        assert (ack.branch, ack.to_tag) == (first.branch, peer.tag)
        second = await peer.until("INVITE")
        assert second.branch != first.branch
        assert second.cseq == (first.cseq[0] + 1, "INVITE")
        assert second.get("call-id") == first.get("call-id")
        assert second.from_tag == first.from_tag
        given = dict(
            part.split("=", 1)
            for part in (second.get("authorization") or "").removeprefix("Digest ").split(", ")
        )
        given = {name: value.strip('"') for name, value in given.items()}

        def sha(text: str) -> str:
            return hashlib.sha256(text.encode()).hexdigest()

        secret, asked = sha("alice:voiced:s3cret"), sha(f"INVITE:{peer.uri}")
        assert given["response"] == sha(f"{secret}:abc:00000001:{given['cnonce']}:auth:{asked}")
        assert (given["opaque"], given["uri"], given["nc"]) == ("o", peer.uri, "00000001")
        await peer.answer(second, 401, "Unauthorized", more=more)
        await peer.until("ACK")

    result, peer = await hold_call(
        agent, Pause(100), credentials=Credentials("alice", "s3cret"), deadline_s=20
    )
    assert result.failure == "the INVITE was answered 401 Unauthorized"
    assert result.sip is not None
    assert result.sip.authenticated
    assert [message.method for _, message in peer.got] == ["INVITE", "ACK"] * 2


async def test_nobody_answers(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        while True:
            await peer.receive()

    result, peer = await hold_call(agent)
    assert result.failure == "the INVITE was answered 408 nobody answered the INVITE"
    times = [at - peer.got[0][0] for at, _ in peer.got]
    assert times == pytest.approx([0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5], abs=0.01)
    assert len({message.branch for _, message in peer.got}) == 1


async def test_the_line_is_busy(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        invite = await peer.until("INVITE")
        for _ in range(3):  # the ACK is lost twice
            await peer.answer(invite, 486, "Busy Here")
            assert (await peer.until("ACK")).branch == invite.branch

    result, _ = await hold_call(agent, linger_s=1)
    assert result.failure == "the INVITE was answered 486 Busy Here"
    assert result.ended_by is None


async def test_a_200_that_comes_again_is_acknowledged_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def agent(peer: Uas) -> None:
        ack = await peer.accept()
        assert peer.invite is not None
        assert ack.branch != peer.invite.branch
        assert ack.uri == peer.uri
        await peer.answer(peer.invite, 200, "OK", sdp(peer.media_port))
        assert (await peer.until("ACK")).cseq == ack.cseq
        await peer.answer(await peer.until("BYE"), 200)

    result, _ = await hold_call(agent, Pause(500))
    assert result.failure is None
    assert result.sip is not None
    assert result.sip.repeats == 1


async def test_a_fork_is_hung_up(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        await peer.accept()
        assert peer.invite is not None
        await peer.answer(peer.invite, 200, "OK", sdp(peer.media_port), tag="other")
        assert (await peer.until("ACK")).to_tag == "other"
        bye = await peer.until("BYE")
        assert bye.to_tag == "other"
        await peer.answer(bye, 200)
        bye = await peer.until("BYE")
        assert bye.to_tag == peer.tag
        await peer.answer(bye, 200)

    result, _ = await hold_call(agent, Pause(500))
    assert (result.failure, result.violation_count) == (None, 0)


async def test_a_call_that_rings_too_long_is_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def agent(peer: Uas) -> None:
        invite = await peer.until("INVITE")
        await peer.answer(invite, 180)
        cancel = await peer.until("CANCEL")
        assert (cancel.branch, cancel.cseq[0]) == (invite.branch, invite.cseq[0])
        assert cancel.uri == invite.uri
        await peer.answer(cancel, 200)
        await peer.answer(invite, 487, "Request Terminated")
        await peer.until("ACK")

    result, _ = await hold_call(agent, give_up_s=3)
    assert result.sip is not None
    assert result.sip.status == 487
    assert result.sip.ringing_ms == pytest.approx(0, abs=5)


async def test_a_200_that_crosses_the_cancel_is_acknowledged_and_hung_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def agent(peer: Uas) -> None:
        invite = await peer.until("INVITE")
        await peer.answer(invite, 180)
        cancel = await peer.until("CANCEL")
        await peer.answer(invite, 200, "OK", sdp(peer.media_port))
        await peer.answer(cancel, 200)
        await peer.until("ACK")
        await peer.answer(await peer.until("BYE"), 200)

    result, peer = await hold_call(agent, WaitForHangUp(), give_up_s=3)
    methods = [message.method for _, message in peer.got]
    assert methods == ["INVITE", "CANCEL", "ACK", "BYE"]
    assert result.duration_ms < 1000


async def test_record_route_is_followed_backwards(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        invite = await peer.until("INVITE")
        near, far = f"<sip:127.0.0.1:{peer.port};lr>", "<sip:far.test;lr>"
        more = (("Record-Route", f"{far}, {near}"),)
        await peer.answer(invite, 200, "OK", sdp(peer.media_port), more)
        assert (await peer.until("ACK")).all("route") == [near, far]
        await peer.answer(await peer.until("BYE"), 200)

    result, _ = await hold_call(agent, Pause(100))
    assert result.failure is None


@pytest.mark.parametrize(
    ("body", "contact", "complaint"),
    [
        (lambda port: sdp(port, "8 101", more="a=rtpmap:8 PCMA/8000"), True, None),
        (lambda port: sdp(port, "0 96", more="a=rtpmap:96 opus/48000/2"), True, "adds formats"),
        (lambda port: sdp(port, "9"), True, "no codec"),
        (lambda _: sdp(0), True, "refuses the audio"),
        (lambda port: sdp(port, more=f"m=audio {port} RTP/AVP 0"), True, "2 streams"),
        (lambda port: sdp(port, direction="bogus").replace(b"a=bogus", b"bogus"), True, "the line"),
        (lambda _: b"", True, "no SDP"),
        (lambda port: sdp(port), False, "no Contact"),
    ],
)
async def test_an_answer_is_looked_at_strictly(
    body: Callable[[int], bytes],
    contact: bool,
    complaint: str | None,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def agent(peer: Uas) -> None:
        invite = await peer.until("INVITE")
        await peer.answer(invite, 200, "OK", body(peer.media_port), contact=contact)
        await peer.until("ACK")
        await peer.answer(await peer.until("BYE"), 200)

    result, _ = await hold_call(agent, Pause(100))
    if complaint is None:
        assert result.ok
        assert result.sip is not None
        assert result.sip.codec == "PCMA"
    else:
        assert any(complaint in each.text for each in result.violations)


# --- in the call --------------------------------------------------------------------------------


async def test_the_agent_hangs_up(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        await peer.accept()
        await trio.sleep(1)
        await peer.ask("BYE", more=(("Reason", "Q.850;cause=16"),), repeat=2)
        assert [(await peer.receive()).status for _ in range(2)] == [200, 200]

    result, _ = await hold_call(agent, WaitForHangUp(), linger_s=0.5)
    assert (result.failure, result.ended_by) == (None, "agent")
    assert result.sip is not None
    assert result.sip.ended == "BYE Q.850;cause=16"
    assert result.duration_ms == pytest.approx(1000, abs=20)


async def test_keys_are_events_in_the_place_of_audio(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def agent(peer: Uas) -> None:
        await peer.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.listen)
            await peer.answer(await peer.until("BYE"), 200)
            nursery.cancel_scope.cancel()

    result, peer = await hold_call(agent, Press("1"), Press("#"), Pause(1000))
    assert result.ok
    packets = [packet for _, packet in peer.heard]
    assert len({p.sequence for p in packets}) == len(packets)
    events = [p for p in packets if p.payload_type == 101]
    for digit, key in zip("1#", (events[:7], events[7:]), strict=True):
        assert len({p.timestamp for p in key}) == 1
        parsed = [parse_event(p.payload) for p in key]
        assert {each[0] for each in parsed} == {digit}
        assert [each[2] for each in parsed] == [160, 320, 480, 640, 800, 800, 800]
        assert [each[1] for each in parsed] == [False] * 4 + [True] * 3
        assert [p.marker for p in key] == [True] + [False] * 6


async def test_keys_come_the_other_way_too(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        await peer.accept()
        for digit in "42":
            for duration in (160, 320, 480, 480, 480):
                payload = bytes([DIGITS.index(digit), 0x80 if duration == 480 else 0])
                at = peer.timestamp
                await peer.send(payload + duration.to_bytes(2, "big"), payload_type=101)
                peer.timestamp = at
                await trio.sleep(0.02)
            peer.timestamp += 800
        await peer.answer(await peer.until("BYE"), 200)

    result, _ = await hold_call(agent, Pause(500))
    assert result.rtp is not None
    assert result.rtp.digits == "42"


@pytest.mark.parametrize("talks", [False, True], ids=["quiet", "talks on"])
async def test_hold(talks: bool, autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        await peer.accept()
        voice = Voice(peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.listen)
            scope = await nursery.start(speak, voice)
            first = await peer.until("INVITE")
            assert read(first.body).direction == "sendonly"
            await peer.answer(first, 491, "Request Pending")
            await peer.until("ACK")
            again = await peer.until("INVITE")
            assert again.cseq[0] == first.cseq[0] + 1
            await peer.answer(again, 200, "OK", sdp(peer.media_port, direction="recvonly"))
            await peer.until("ACK")
            held = len(peer.heard)
            if not talks:
                scope.cancel()
            back = await peer.until("INVITE")
            assert len(peer.heard) <= held + 1
            assert read(back.body).direction == "sendrecv"
            assert back.body != again.body
            await peer.send(LOUD)  # it may be ahead of the answer
            await peer.answer(back, 200, "OK", sdp(peer.media_port))
            await peer.until("ACK")
            await peer.answer(await peer.until("BYE"), 200)
            assert len(peer.heard) > held + 20
            nursery.cancel_scope.cancel()

    async def speak(voice: Voice, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await voice.run()

    result, _ = await hold_call(agent, Pause(300), Hold(), Pause(700), Resume(), Pause(600))
    assert result.failure is None
    assert [each.text for each in result.violations] == (
        ["audio came while the call was held"] if talks else []
    )
    assert result.gaps == ()


async def test_the_other_side_holds_and_asks(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        await peer.accept()
        await peer.ask("OPTIONS")
        assert (await peer.receive()).status == 200
        await peer.ask("INVITE", sdp(peer.media_port, direction="sendonly"))
        answer = await peer.until(200)
        assert read(answer.body).direction == "recvonly"
        assert (await peer.until(200)).body == answer.body  # until the ACK comes
        await peer.ask("ACK", cseq=answer.cseq[0])
        await peer.nothing_for(2)
        await peer.ask("INVITE")  # a late offer
        offer = await peer.until(200)
        assert set(read(offer.body).formats) == {0, 8, 101}
        await peer.ask("ACK", sdp(peer.media_port, direction="inactive"), cseq=offer.cseq[0])
        await peer.ask("BYE", tag="stranger")
        assert (await peer.receive()).status == 481
        await peer.ask("MESSAGE")
        assert (await peer.receive()).status == 405
        await peer.ask("BYE", cseq=1)
        assert (await peer.receive()).status == 500
        await peer.ask("BYE")
        assert (await peer.receive()).status == 200

    result, _ = await hold_call(agent, WaitForHangUp())
    assert result.failure is None
    assert [each.text for each in result.violations] == ["CSeq 1 after 107"]


async def test_a_transfer(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        await peer.accept()
        await peer.ask("REFER", more=(("Refer-To", "<sip:desk@127.0.0.1>"),))
        assert (await peer.receive()).status == 202
        notify = await peer.until("NOTIFY")
        assert notify.body == b"SIP/2.0 200 OK\r\n"
        assert notify.get("subscription-state") == "terminated;reason=noresource"
        await peer.answer(notify, 200)
        await peer.ask("BYE")

    result, _ = await hold_call(agent, WaitForHangUp())
    assert result.sip is not None
    assert result.sip.transferred_to == "sip:desk@127.0.0.1"


async def test_reports_go_both_ways(autojump_clock: trio.testing.MockClock) -> None:
    reports = []

    async def agent(peer: Uas) -> None:
        await peer.accept()
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as rtcp:
            await rtcp.bind(("127.0.0.1", 0))
            for _ in range(10):
                await peer.send(SILENCE)
            ssrc = (await peer.hear()).ssrc
            host, port = peer.media_to
            await rtcp.sendto(report(77, ssrc, 5), (host, port + 1))
        await peer.answer(await peer.until("BYE"), 200)

    async def collect(peer: Uas) -> None:
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as rtcp:
            while True:
                try:
                    await rtcp.bind(("127.0.0.1", peer.media_port + 1))
                    break
                except OSError:  # taken: another pair
                    peer.rtp.close()
                    peer.rtp = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
                    await peer.rtp.bind(("127.0.0.1", 0))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(agent, peer)
                while True:
                    reports.append(parse_reports((await rtcp.recvfrom(2048))[0], 77))

    result, _ = await hold_call(collect, Pause(3000))
    assert result.rtp is not None
    assert (result.rtp.remote_lost, result.rtp.remote_jitter_ms) == (5, 2.0)
    assert [each.packets is not None for each in reports] == [True, False]
    assert reports[0].lost == 0
    assert reports[0].named
    assert reports[1].bye


async def test_strangers_are_not_heard(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        await peer.accept()
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as stranger:
            own, peer.rtp = peer.rtp, stranger
            for _ in range(5):
                await peer.send(LOUD)
            peer.rtp = own
        await peer.send(SILENCE)
        await peer.answer(await peer.until("BYE"), 200)

    result, _ = await hold_call(agent, Pause(500))
    assert result.rtp is not None
    assert (result.rtp.strangers, result.rtp.received, result.agent) == (5, 1, ())


async def test_a_cut_line_says_no_word(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        await peer.accept()
        await trio.sleep_forever()

    result, peer = await hold_call(agent, Pause(500), CutLine())
    assert (result.failure, result.ended_by) == (None, "line")
    assert [message.method for _, message in peer.got] == ["INVITE", "ACK"]


async def test_a_call_that_nobody_answers_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        await trio.sleep_forever()

    result, _ = await hold_call(agent, Pause(500), deadline_s=5)
    assert result.failure == "no answer after 5 s"


async def test_a_call_without_an_end_is_hung_up(autojump_clock: trio.testing.MockClock) -> None:
    async def agent(peer: Uas) -> None:
        await peer.accept()
        while True:
            await peer.receive()  # and never answers the BYE

    result, peer = await hold_call(agent, Pause(100_000), deadline_s=5)
    assert result.failure == "the call was not over in time"
    assert peer.got[-1][1].method == "BYE"
    assert [each.text for each in result.violations] == ["the BYE was never answered"]


# --- the command --------------------------------------------------------------------------------


async def test_many_calls_make_a_table(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def agent(peer: Uas) -> None:
        for _ in range(2):
            peer.invite = None
            await peer.accept()
            for _ in range(20):
                await peer.send(LOUD)
                await trio.sleep(0.02)
            await peer.answer(await peer.until("BYE"), 200)

    async with uas() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(agent, peer)
        script = Script("test", "", (WaitForAgentSpeech(200), Pause(400)))
        load = Load(url="", script=script, calls=2, sip=SipTarget(peer.uri), wav_dir=tmp_path)
        results = await place_calls(load)
        nursery.cancel_scope.cancel()
    assert all(result.ok for result in results)
    text = summary(results)
    assert "pacing lateness p99.9" in text
    assert "RTP packets" in text
    document = json.loads(json.dumps([result.to_json() for result in results]))
    assert document[0]["rtp"]["received"] == 20
    with wave.open(str(next(tmp_path.iterdir()))) as recording:
        assert (recording.getnchannels(), recording.getframerate()) == (2, 8000)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sip": "127.0.0.1"}, "no SIP URI"),
        ({"sip": "sip:x@127.0.0.1;transport=tls"}, "UDP and TCP"),
        ({"sip": "sip:x@127.0.0.1", "username": "me"}, "belong together"),
        ({"sip": "sip:x@127.0.0.1", "codecs": "opus"}, "pcmu, pcma"),
        ({"sip": "sip:x@127.0.0.1", "jitter_ms": 3}, "not for --sip"),
    ],
)
def test_usage(options: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(url="http://127.0.0.1:8080", **options) == 2
    assert words in capsys.readouterr().err
