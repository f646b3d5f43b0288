"""The leg between a session and a stream: what either tells becomes events of a call."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from tests.rtp.peer import Wire as Rtp
from tests.rtp.peer import key, rtp, voice
from tests.sip.calls import Peer, Phone, sdp
from tests.sip.wire import Wire
from voiced.formats import PCMU_8K
from voiced.leg import CallerAudio, Digit, Held, LegClosed, LegEvent, Stopped, Unsupported
from voiced.rtp.stream import MediaStream
from voiced.sip.audio import AudioPlan, CallAudio, resting
from voiced.sip.events import Ended
from voiced.sip.identity import uri_of
from voiced.sip.leg import TWIN_S, SipLeg
from voiced.sip.media import LocalMedia
from voiced.sip.uas import ServerSession

EVENTS = "m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"


def offer(*, events: bool = False) -> str:
    """PCMU from 192.0.2.9, with telephone events or without."""
    return sdp(1).replace("m=audio 4000 RTP/AVP 0\r\n", EVENTS) if events else sdp(1)


@dataclass
class Call:
    """voiced's half, and the hand-written other one."""

    wire: Wire = field(default_factory=Wire)
    rtp: Rtp = field(default_factory=Rtp)
    up: list[str] = field(default_factory=list)
    over: list[Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wire.node("192.0.2.1", name="voiced")
        ours = self.wire.node("192.0.2.1", name="voiced")
        self.phone = Phone(ours, on_invite=self.answer)
        self.peer = Peer(self.wire.node("192.0.2.9", name="peer"), ours)

    def answer(self, session: ServerSession) -> None:
        stream = MediaStream(self.rtp, now=self.rtp.now, timeout_s=10, first_timeout_s=10)
        if not session.request.body:
            stream.configure(resting("pcmu"))
        audio = CallAudio(stream, LocalMedia("192.0.2.1", 20000, 20001), AudioPlan())
        self.stream = stream
        self.leg = SipLeg(
            audio,
            lambda target: str(uri_of(target, "192.0.2.9")),
            up=lambda: self.up.append("up"),
            over=self.over.append,
        )
        self.leg.session = session
        session.observer, session.media = self.leg, audio
        session.accept()

    def stand(self, *, events: bool = False) -> Call:
        """INVITE, 200, ACK."""
        self.peer.invite(body=offer(events=events))
        self.peer.send("ACK")
        return self

    async def events(self) -> list[LegEvent]:
        """What there is to receive now."""
        with trio.move_on_after(1):
            return list(await self.leg.receive())
        return []


async def test_audio_may_flow_when_the_ack_has_come(autojump_clock: object) -> None:
    call = Call()
    call.peer.invite(body=offer())
    assert call.up == []
    call.rtp.run(0.1)
    assert call.rtp.rtp == []  # nobody may be listening yet
    call.peer.send("ACK")
    assert call.up == ["up"]
    assert call.leg.format == PCMU_8K
    call.leg.send(b"\x21" * 320)
    call.rtp.run(0.1)
    assert [p.payload for p in call.rtp.packets()][:2] == [b"\x21" * 160] * 2
    assert (call.leg.sent(), call.leg.heard()) == (320, 320)
    call.peer.send("ACK")  # again
    assert call.up == ["up"]


async def test_what_the_caller_says(autojump_clock: object) -> None:
    call = Call().stand()
    for number in range(3):
        call.stream.rtp_received(rtp(number, voice(number)), ("192.0.2.9", 4000), call.rtp.now())
    (event,) = await call.events()
    assert event == CallerAudio(voice(0) + voice(1) + voice(2))
    assert await call.events() == []


async def test_early_audio_is_not_the_callers_word(autojump_clock: object) -> None:
    call = Call()
    call.peer.invite(body=offer())
    call.stream.rtp_received(rtp(0, voice(0)), ("192.0.2.9", 4000), call.rtp.now())
    call.peer.send("ACK")
    assert await call.events() == []


@pytest.mark.parametrize(
    ("content_type", "body", "digit"),
    [
        ("application/dtmf-relay", "Signal=5\nDuration=160\n", "5"),
        ("application/dtmf-relay", "Signal= *\nDuration= 160\n", "*"),
        ("application/dtmf-relay", "Duration=160\nSignal=11\n", "#"),
        ("application/dtmf-relay", "Signal=a\n", "A"),
        ("application/dtmf-relay", "signal=3\nduration=160\n", "3"),
        ("application/dtmf", "7", "7"),
        ("application/dtmf", "10", "*"),
        ("application/dtmf-relay", "Signal=x\n", None),
        ("application/dtmf", "hello", None),
        ("application/dtmf", "\u00e9", None),
    ],
)
async def test_digits_by_info(
    autojump_clock: object, content_type: str, body: str, digit: str | None
) -> None:
    call = Call().stand()
    call.peer.send("INFO", body=body, content_type=content_type)
    assert call.peer.statuses("INFO") == [200]
    assert await call.events() == ([] if digit is None else [Digit(digit)])


@pytest.mark.parametrize("first", ["event", "info"])
async def test_a_key_that_is_told_both_ways_is_one(autojump_clock: object, first: str) -> None:
    """Gateways that relay keys by INFO and by telephone events at once."""
    call = Call().stand(events=True)
    told: list[LegEvent] = []
    for number, digit in enumerate("5577"):
        event = key(number, 8000 * number, digit, 800, end=True)
        if first == "event":
            call.stream.rtp_received(event, ("192.0.2.9", 4000), call.rtp.now())
        call.peer.send("INFO", body=f"Signal={digit}\n", content_type="application/dtmf-relay")
        told += await call.events()
        await trio.sleep(0.1)
        if first == "info":
            call.stream.rtp_received(event, ("192.0.2.9", 4000), call.rtp.now())
            told += await call.events()
        await trio.sleep(0.4)
    assert [each.digit for each in told if isinstance(each, Digit)] == list("5577")


async def test_two_keys_whose_events_come_late_are_two(autojump_clock: object) -> None:
    call = Call().stand(events=True)
    told: list[LegEvent] = []
    for _ in range(2):
        call.peer.send("INFO", body="Signal=5\n", content_type="application/dtmf-relay")
        told += await call.events()
    for number in range(2):
        event = key(number, 8000 * number, "5", 800, end=True)
        call.stream.rtp_received(event, ("192.0.2.9", 4000), call.rtp.now())
    told += await call.events()
    assert [each.digit for each in told if isinstance(each, Digit)] == list("55")


async def test_a_peer_that_changes_to_events_loses_no_key(autojump_clock: object) -> None:
    call = Call().stand(events=True)
    call.peer.send("INFO", body="Signal=5\n", content_type="application/dtmf-relay")
    told = list(await call.events())
    await trio.sleep(TWIN_S + 0.1)
    event = key(0, 0, "5", 800, end=True)
    call.stream.rtp_received(event, ("192.0.2.9", 4000), call.rtp.now())
    told += await call.events()
    assert [each.digit for each in told if isinstance(each, Digit)] == list("55")


async def test_a_peer_that_takes_no_events_any_more_loses_no_key(autojump_clock: object) -> None:
    """The caller has been handed to another telephone, behind the same exchange."""
    call = Call().stand(events=True)
    call.stream.rtp_received(key(0, 0, "5", 800, end=True), ("192.0.2.9", 4000), call.rtp.now())
    told = list(await call.events())
    call.peer.send("INVITE", body=sdp(2))
    call.peer.send("ACK")
    for digit in "66":
        call.peer.send("INFO", body=f"Signal={digit}\n", content_type="application/dtmf-relay")
        told += await call.events()
    assert [each.digit for each in told if isinstance(each, Digit)] == list("566")


async def test_hold_and_back(autojump_clock: object) -> None:
    call = Call().stand()
    call.leg.send(b"\x21" * 8000)
    call.rtp.run(0.1)
    call.rtp.packets()
    call.peer.send("INVITE", body=sdp(2, "sendonly"))
    call.peer.send("ACK")
    assert await call.events() == [Held(True)]
    call.stream.rtp_received(rtp(9, voice(9)), ("192.0.2.9", 4000), call.rtp.now())
    call.rtp.run(60)
    assert call.rtp.packets() == []
    assert await call.events() == []  # no music, no time limit
    call.peer.send("INVITE", body=sdp(3))
    call.peer.send("ACK")
    assert await call.events() == [Held(False)]
    call.rtp.run(0.1)
    assert len(call.rtp.packets()) == 5


async def test_the_end_of_a_hold_is_told_whatever_else_comes(autojump_clock: object) -> None:
    call = Call().stand()
    call.peer.send("INVITE", body=sdp(2, "sendonly"))
    call.peer.send("ACK")
    for _ in range(80):
        call.peer.send("INFO", body="Signal=5\n", content_type="application/dtmf-relay")
    call.peer.send("INVITE", body=sdp(3))
    call.peer.send("ACK")
    events = await call.events()
    assert len(events) == 64
    assert events[0] == Held(True)
    assert events[-1] == Held(False)


async def test_a_call_that_begins_on_hold(autojump_clock: object) -> None:
    call = Call()
    call.peer.invite(body=sdp(1, "sendonly"))
    call.peer.send("ACK")
    assert call.up == ["up"]
    assert await call.events() == [Held(True)]


async def test_hang_ups(autojump_clock: object) -> None:
    call = Call().stand()
    call.peer.send("BYE")
    (stop,) = await call.events()
    assert isinstance(stop, Stopped)
    assert (stop.hung_up, stop.code) == (True, None)
    assert call.rtp.closed
    with pytest.raises(LegClosed):
        await call.leg.receive()
    with pytest.raises(LegClosed):
        call.leg.send(b"x")
    with pytest.raises(LegClosed):
        await call.leg.ready()
    with pytest.raises(LegClosed):
        call.leg.send_digits("1")
    await call.leg.hang_up()  # safe after the end

    call = Call().stand()
    with trio.move_on_after(0.1):
        await call.leg.hang_up()
    call.wire.run(0.1)
    assert len(call.peer.requests("BYE")) == 1
    call.rtp.run(1)
    assert call.rtp.rtp == []


async def test_a_lost_ack_ends_the_call(autojump_clock: object) -> None:
    call = Call()
    call.peer.invite(body=offer())
    call.wire.run(40)
    call.peer.node.send(ok(call.peer.requests("BYE")[0]), call.peer.other.target())
    call.wire.run(1)
    assert [ended.reason for ended in call.over] == ["ack_timeout"]
    assert call.up == []


async def test_no_audio_for_too_long(autojump_clock: object) -> None:
    call = Call().stand()
    call.rtp.run(11)
    (*_, stop) = await call.events()
    assert isinstance(stop, Stopped)
    assert stop.code == "media_timeout"


async def test_positions_and_drained(autojump_clock: trio.testing.MockClock) -> None:
    call = Call().stand()
    call.leg.send(b"\x21" * 1600)
    assert call.leg.seconds_until(1600) == pytest.approx(0.2, abs=0.021)
    done: list[str] = []

    async def drained() -> None:
        await call.leg.drained()
        done.append("drained")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drained)
        await trio.testing.wait_all_tasks_blocked()
        assert not done
        call.rtp.run(0.1)
        assert call.leg.clear() in range(640, 961, 160)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["drained"]
    assert (call.leg.sent(), call.leg.heard()) == (0, 0)


async def test_the_last_packet_is_given_time_to_be_heard(
    autojump_clock: trio.testing.MockClock,
) -> None:
    call = Call().stand()
    call.leg.send(b"\x21" * 160)
    call.rtp.run(0.1)
    assert call.leg.heard() == call.leg.sent()
    began = trio.current_time()
    await call.leg.drained()
    assert trio.current_time() - began == pytest.approx(0.2, abs=0.01)
    call.leg.clear()
    began = trio.current_time()
    await call.leg.drained()  # nothing was said since
    assert trio.current_time() - began < 0.01


async def test_keys_are_pressed_by_event_or_by_info(autojump_clock: object) -> None:
    call = Call().stand(events=True)
    call.leg.send_digits("1,#")
    call.rtp.run(2)
    pressed = [p for p in call.rtp.packets() if p.payload_type == 101]
    assert [p.payload[0] for p in pressed if p.marker] == [1, 11]
    first, second = (p.timestamp for p in pressed if p.marker)
    assert (second - first) / 8000 == pytest.approx(0.7, abs=0.05)  # key, gap, and the comma

    call = Call().stand()
    call.leg.send_digits("4,2")
    for digit in "42":  # one INFO at a time
        call.wire.run(0.1)
        info = call.peer.requests("INFO")[-1]
        assert f"Signal={digit}\r\n".encode() in info.body
        call.peer.node.send(ok(info), call.peer.other.target())
    for bad in ("", ",1", "x", "1" * 65):
        with pytest.raises(Unsupported):
            call.leg.send_digits(bad)


def ok(request: object, status: int = 200) -> bytes:
    from voiced.sip.message import Request, response_to

    assert isinstance(request, Request)
    return bytes(response_to(request, status))


@pytest.mark.parametrize(
    ("fragments", "done", "status"),
    [
        (["100 Trying", "180 Ringing", "200 OK"], True, 200),
        (["100 Trying", "486 Busy Here"], False, 486),
        (["603 Decline"], False, 603),
    ],
)
async def test_transfer_is_followed_to_its_end(
    autojump_clock: object, fragments: list[str], done: bool, status: int
) -> None:
    call = Call().stand()
    outcomes = []

    async def transfer() -> None:
        outcomes.append(await call.leg.transfer("+4930123"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfer)
        await trio.testing.wait_all_tasks_blocked()
        call.wire.run(0.1)
        (refer,) = call.peer.requests("REFER")
        assert str(refer.refer_to.uri) == "sip:+4930123@192.0.2.9"  # type: ignore[union-attr]
        with pytest.raises(Unsupported):
            await call.leg.transfer("+4930124")
        call.peer.node.send(ok(refer, 202), call.peer.other.target())
        for number, fragment in enumerate(fragments):
            over = number == len(fragments) - 1
            state = "terminated;reason=noresource" if over else "active;expires=60"
            call.peer.send(
                "NOTIFY",
                f"Event: refer\nSubscription-State: {state}",
                f"SIP/2.0 {fragment}\n",
                content_type="message/sipfrag;version=2.0",
            )
            await trio.testing.wait_all_tasks_blocked()
    (outcome,) = outcomes
    assert (outcome.done, outcome.status) == (done, status)


async def test_a_peer_that_takes_the_caller_and_hangs_up(autojump_clock: object) -> None:
    call = Call().stand()
    async with trio.open_nursery() as nursery:

        async def transfer() -> None:
            assert (await call.leg.transfer("sip:bob@example.net")).done

        nursery.start_soon(transfer)
        await trio.testing.wait_all_tasks_blocked()
        call.wire.run(0.1)
        call.peer.node.send(ok(call.peer.requests("REFER")[0], 202), call.peer.other.target())
        call.wire.run(0.1)
        call.peer.send("BYE")
        # Told to both, in an order that is the scheduler's: here `receive` is the first to know.
        (stopped,) = await call.events()
        assert isinstance(stopped, Stopped)
        assert stopped.code == "transferred"


async def test_transfers_that_cannot_be_tried(autojump_clock: object) -> None:
    call = Call().stand()
    with pytest.raises(ValueError, match="is no"):
        await call.leg.transfer("bob")
    call.peer.send("REFER", "Refer-To: <sip:expensive@example.net>")
    assert call.peer.statuses("REFER") == [603]


def test_facts_are_flat() -> None:
    call = Call().stand()
    facts = call.leg.facts()
    assert facts["codec"] == "PCMU"
    assert facts["srtp"] is False
    assert "lost" in facts
    assert "jitter_ms" in facts
    assert all(value is None or isinstance(value, int | float | str) for value in facts.values())
