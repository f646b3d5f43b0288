"""The bad network does what it is told, the same for the same seed, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.impairment import Impairment, Network, SipPath, impaired, sip_path
from tests.simulate.server import LOUD
from tests.simulate.uas import SILENCE, Uas, sdp, uas, udp
from voiced.simulate.result import CallResult
from voiced.simulate.script import Pause, Press, Script, WaitForAgentSpeech
from voiced.simulate.sip_caller import call

SHARE = st.floats(0, 1)
BAD = Network(loss=0.05, duplicate=0.02, reorder=0.05, delay_s=0.02, jitter_s=0.01)


@given(SHARE, SHARE, SHARE, SHARE, st.integers(1, 9), st.integers(0, 1 << 32))
def test_fates_add_up_and_repeat(
    loss: float, duplicate: float, reorder: float, burst: float, length: int, seed: int
) -> None:
    network = Network(loss, duplicate, reorder, burst=burst, burst_length=length, jitter_s=0.01)
    one, other = Impairment(network, seed), Impairment(network, seed)
    fates = [one.arrivals(number * 0.02) for number in range(100)]
    assert fates == [other.arrivals(number * 0.02) for number in range(100)]
    assert one.passed + one.lost == 100
    assert one.lost == fates.count([])
    assert one.duplicated == sum(len(fate) == 2 for fate in fates)
    for number, fate in enumerate(fates):
        assert all(number * 0.02 <= at for at in fate)


def test_a_perfect_network_changes_nothing() -> None:
    perfect = Impairment(Network())
    assert [perfect.arrivals(float(at)) for at in range(50)] == [[float(at)] for at in range(50)]


def test_jitter_keeps_the_order_and_reordering_does_not() -> None:
    jittery = Impairment(Network(jitter_s=0.2))
    times = [jittery.arrivals(number * 0.02)[0] for number in range(200)]
    assert times == sorted(times)
    shuffled = Impairment(Network(reorder=0.2, reorder_s=0.05))
    times = [shuffled.arrivals(number * 0.02)[0] for number in range(200)]
    assert times != sorted(times)
    assert 20 < shuffled.reordered < 60


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_loss_is_about_what_was_asked(share: float) -> None:
    lossy = Impairment(Network(loss=share), seed=5)
    for number in range(5000):
        lossy.arrivals(float(number))
    assert lossy.lost / 5000 == pytest.approx(share, rel=0.2)


def test_bursts_are_runs() -> None:
    bursty = Impairment(Network(burst=0.02, burst_length=4), seed=2)
    fates = "".join("." if bursty.arrivals(float(at)) else "x" for at in range(2000))
    runs = [run for run in fates.split(".") if run]
    assert runs
    assert all(len(run) % 4 == 0 for run in runs[:-1])


def test_a_cut_loses_all_and_disturbs_no_later_fate() -> None:
    whole, broken = Impairment(BAD, 9), Impairment(BAD, 9)
    before = [whole.arrivals(at / 50) for at in range(100)]
    for number in range(100):
        broken.cut = 20 <= number < 40
        fate = broken.arrivals(number / 50)
        assert fate == ([] if broken.cut else before[number])


async def test_a_relay_rewrites_nothing(autojump_clock: trio.testing.MockClock) -> None:
    with await udp() as near, await udp() as far:
        address = far.getsockname()
        async with impaired(address, Network(delay_s=0.5)) as relay:
            began = trio.current_time()
            await near.sendto(b"\x80\0any bytes", ("127.0.0.1", relay.left_port))
            data, back = await far.recvfrom(100)
            assert data == b"\x80\0any bytes"
            assert trio.current_time() - began == pytest.approx(0.5)
            await far.sendto(b"answer", back)
            assert (await near.recvfrom(100))[0] == b"answer"
            assert trio.current_time() - began == pytest.approx(1.0)


async def test_what_comes_late_is_overtaken(autojump_clock: trio.testing.MockClock) -> None:
    with await udp() as near, await udp() as far:
        network = Network(reorder=0.3, reorder_s=0.05, duplicate=0.1)
        async with impaired(far.getsockname(), network, seed=3) as relay:
            for number in range(50):
                await near.sendto(bytes([number]), ("127.0.0.1", relay.left_port))
                await trio.sleep(0.02)
            got = []
            with trio.move_on_after(1):
                while True:
                    got.append((await far.recvfrom(10))[0][0])
    assert sorted(set(got)) == list(range(50))
    assert len(got) == 50 + relay.rightward.duplicated
    assert got != sorted(got)
    assert relay.rightward.reordered


async def test_a_whole_call_through_a_clean_path(autojump_clock: trio.testing.MockClock) -> None:
    result, peer, path = await call_through(Network(), Network())
    assert result.ok, result
    assert result.sip is not None
    assert result.sip.ended == "BYE"
    # All that each side saw of the other was the path.
    assert peer.invite is not None
    far = f"{path.far[0]}:{path.far[1]}"
    assert far in (peer.invite.get("contact") or "")
    assert far in (peer.invite.get("via") or "")
    assert peer.peer == path.far
    assert result.rtp is not None
    assert (result.rtp.received, result.rtp.lost) == (100, 0)
    assert sorted({packet.payload_type for _, packet in peer.heard}) == [0, 101]
    assert path.rtp_to_daemon.passed == result.rtp.sent == len(peer.heard)


async def test_a_whole_call_through_a_bad_one(autojump_clock: trio.testing.MockClock) -> None:
    result, peer, _ = await call_through(replace(BAD, reorder=0), replace(BAD, loss=0.1), seed=4)
    assert result.failure is None
    assert result.sip is not None
    assert result.rtp is not None
    assert result.rtp.lost > 2
    assert result.rtp.duplicated + result.rtp.reordered > 0
    assert result.rtp.lateness_ms is not None
    assert result.rtp.lateness_ms.max > 1
    sequences = [packet.sequence for _, packet in peer.heard]
    assert len(set(sequences)) < 0.98 * ((max(sequences) - min(sequences)) & 0xFFFF)


async def call_through(
    signalling: Network, media: Network, seed: int = 0
) -> tuple[CallResult, Uas, SipPath]:
    """Two seconds of speech one way, a key and silence the other, over a path."""

    async def agent(peer: Uas) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.listen)
            invite = await peer.until("INVITE")
            await peer.answer(invite, 180)
            nursery.start_soon(speak, peer)
            answer = sdp(peer.media_port)
            while True:
                with trio.move_on_after(0.5):
                    await peer.answer(invite, 200, "OK", answer)
                    message = await peer.until("ACK")
                    break
            assert message.uri == peer.uri
            bye = await peer.until("BYE")
            while True:  # the answer may be lost
                await peer.answer(bye, 200)
                bye = await peer.until("BYE")

    async def speak(peer: Uas) -> None:
        await trio.sleep(0.1)
        for number in range(100):
            await peer.send(LOUD if number < 90 else SILENCE)
            await trio.sleep(0.02)

    script = Script("test", "", (WaitForAgentSpeech(1500), Press("5"), Pause(1500)))
    async with uas() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(agent, peer)
        address = ("127.0.0.1", peer.port)
        async with sip_path(address, signalling=signalling, media=media, seed=seed) as path:
            result = await call(script, uri=path.uri("agent"), kernel_times=False)
        nursery.cancel_scope.cancel()
    return result, peer, path
