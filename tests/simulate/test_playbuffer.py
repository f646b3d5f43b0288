"""The play-out buffer: nothing is lost or invented, nothing plays faster than real time."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.simulate.playbuffer import US_PER_BYTE, DrySpell, Echo, PlayBuffer, Run

Op = tuple[int, Literal["media", "mark", "clear", "advance"], int]
ops = st.lists(
    st.tuples(
        st.integers(0, 60_000),
        st.sampled_from(["media", "media", "mark", "clear", "advance"]),
        st.integers(0, 700),
    ),
    max_size=60,
)


def run(operations: list[Op], buffer: PlayBuffer) -> tuple[int, list[str], list[Echo], bytes]:
    """Carry them out: end time, names of marks sent, echoes, the audio that was sent."""
    now, marks, echoes, sent = 0, [], [], bytearray()
    for number, (wait, kind, size) in enumerate(operations):
        now += wait
        if kind == "media":
            payload = bytes((number * 7 + n) % 255 for n in range(size))
            if buffer.media(now, payload):
                sent += payload
        elif kind == "mark":
            assert buffer.mark(now, f"m{number}")
            marks.append(f"m{number}")
        elif kind == "clear":
            before = buffer.discarded
            buffer.clear(now)
            thrown_out = buffer.discarded - before
            del sent[len(sent) - thrown_out :]
        else:
            buffer.advance(now)
        echoes += buffer.take_echoes()
    return now, marks, echoes, bytes(sent)


@given(ops)
def test_every_byte_is_played_once_or_accounted_for(operations: list[Op]) -> None:
    buffer = PlayBuffer(limit=2000)
    now, *_, sent = run(operations, buffer)
    assert buffer.received == buffer.played + buffer.discarded + buffer.dropped + buffer.queued
    buffer.advance(now + buffer.queued * US_PER_BYTE)
    assert buffer.queued == 0
    end = buffer.runs[-1].end_us if buffer.runs else 0
    heard = buffer.heard_between(0, end // US_PER_BYTE + 2)
    assert heard.replace(b"\xff", b"") == sent
    assert sum(each.length for each in buffer.runs) == buffer.played == len(sent)


@given(ops)
def test_never_plays_faster_than_real_time_nor_before_arrival(operations: list[Op]) -> None:
    buffer = PlayBuffer()
    now = played = 0
    for wait, kind, size in operations:
        before, now = buffer.played, now + wait
        run([(now, kind, size)], buffer)
        assert (buffer.played - before) * US_PER_BYTE <= wait + US_PER_BYTE
        played += buffer.played - before
    for earlier, later in zip(buffer.runs, buffer.runs[1:], strict=False):
        assert earlier.end_us <= later.at_us
    assert played == buffer.played


@given(ops)
def test_every_mark_comes_back_once_in_order_never_early(operations: list[Op]) -> None:
    buffer = PlayBuffer()
    now, marks, echoes, _ = run(operations, buffer)
    end = now + buffer.queued * US_PER_BYTE
    buffer.advance(end)
    echoes += buffer.take_echoes()
    assert [echo.name for echo in echoes] == marks
    assert [echo.at_us for echo in echoes] == sorted(echo.at_us for echo in echoes)
    assert buffer.next_echo_us() is None


@given(ops, st.integers(1, 5000))
def test_looking_more_often_changes_nothing(operations: list[Op], step: int) -> None:
    seldom, often = PlayBuffer(), PlayBuffer()
    _, _, expected, _ = run(operations, seldom)
    fine: list[Op] = []
    for wait, kind, size in operations:
        fine += [(step, "advance", 0)] * (wait // step)
        fine.append((wait % step, kind, size))
    now, _, echoes, _ = run([(w, k, s) for w, k, s in fine], often)
    assert [echo.at_us for echo in echoes] == [echo.at_us for echo in expected]
    assert often.runs == seldom.runs
    assert often.dry_spells == seldom.dry_spells
    assert now == sum(wait for wait, *_ in operations)


def test_a_mark_is_echoed_when_reached_and_at_once_when_empty() -> None:
    buffer = PlayBuffer()
    buffer.mark(1000, "empty")
    buffer.media(2000, bytes(160))
    buffer.mark(2000, "after")
    assert buffer.next_echo_us() == 22_000
    assert buffer.take_echoes() == [Echo("empty", 1000, played=True)]
    buffer.advance(21_999)
    assert buffer.take_echoes() == []
    buffer.advance(50_000)
    assert buffer.take_echoes() == [Echo("after", 22_000, played=True)]


def test_clear_echoes_what_is_pending_as_not_played() -> None:
    buffer = PlayBuffer()
    buffer.media(0, bytes(320))
    buffer.mark(0, "a")
    buffer.mark(0, "b")
    cleared = buffer.clear(10_000)
    assert (cleared.heard, cleared.discarded, cleared.quiet_us) == (80, 240, 0)
    assert [(e.name, e.played) for e in buffer.take_echoes()] == [("a", False), ("b", False)]
    assert buffer.clear(20_000).quiet_us is None
    assert buffer.runs == [Run(0, 80)]


def test_running_dry_is_noted_but_not_after_a_clear() -> None:
    buffer = PlayBuffer()
    buffer.media(0, bytes(160))
    buffer.media(20_000, bytes(160))  # just in time
    buffer.media(45_000, bytes(160))
    buffer.clear(50_000)
    buffer.media(90_000, bytes(160))
    assert buffer.dry_spells == [DrySpell(40_000, 45_000)]
    assert buffer.runs == [Run(0, 320), Run(45_000, 40), Run(90_000, 0)]


def test_ten_minutes_are_the_limit() -> None:
    buffer = PlayBuffer()
    assert buffer.media(0, bytes(4_800_000))
    assert not buffer.media(0, b"\0")
    assert buffer.media(125, b"\0")
    assert buffer.dropped == 1


def test_forgotten_audio_reads_as_silence_and_the_rest_stays() -> None:
    buffer = PlayBuffer()
    buffer.media(0, bytes(range(200)))
    buffer.advance(25_000)
    buffer.forget_before(100)
    assert buffer.heard_between(90, 210) == b"\xff" * 10 + bytes(range(100, 200)) + b"\xff" * 10


def test_time_does_not_go_back() -> None:
    buffer = PlayBuffer()
    buffer.advance(10)
    with pytest.raises(ValueError, match="went back from 10 to 9"):
        buffer.advance(9)
