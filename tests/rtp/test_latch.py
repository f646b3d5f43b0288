"""Where packets may come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.rtp.latch import PROBATION, QUIET_S, WINDOW_S, Latch, Verdict
from voiced.rtp.media import Address

PRIVATE: Address = ("10.0.0.5", 4000)  # an SDP from behind a NAT
OUTSIDE: Address = ("203.0.113.9", 50001)  # where its packets really come from
STRANGER: Address = ("198.51.100.66", 6666)
PUBLIC: Address = ("8.8.4.4", 4000)


def latch(expected: Address = PRIVATE, now: float = 0.0) -> Latch:
    made = Latch()
    made.learn(expected, now)
    return made


def feed(
    it: Latch,
    source: Address,
    first: int = 10,
    count: int = PROBATION,
    now: float = 0.1,
    ssrc: int = 7,
) -> list[Verdict]:
    """Consecutive packets; as the stream does, those from the known source are not judged."""
    return [
        Verdict.ACCEPT
        if it.source == source
        else it.judge(source, ssrc, (first + n) & 0xFFFF, b"%d" % (first + n), now)
        for n in range(count)
    ]


def test_the_address_of_the_sdp_is_believed_at_once() -> None:
    it = latch()
    assert it.destination == PRIVATE
    assert feed(it, PRIVATE, count=1) == [Verdict.ACCEPT]
    assert it.source == PRIVATE
    assert feed(it, STRANGER, count=9) == [Verdict.STRANGER] * 9
    assert it.destination == PRIVATE


def test_another_address_passes_probation_and_loses_nothing() -> None:
    it = latch()
    assert feed(it, OUTSIDE, first=0xFFFE) == [Verdict.HELD] * (PROBATION - 1) + [Verdict.ACCEPT]
    assert it.release() == [b"65534", b"65535", b"65536"]
    assert it.release() == []
    assert it.destination == OUTSIDE


def test_probation_wants_one_source_in_sequence() -> None:
    it = latch()
    for number, ssrc in ((1, 7), (2, 7), (4, 7), (5, 7), (6, 8), (7, 8), (8, 8)):
        assert it.judge(OUTSIDE, ssrc, number, b"", 0.1) is Verdict.HELD
    assert it.judge(OUTSIDE, 8, 9, b"", 0.1) is Verdict.ACCEPT


def test_the_sdp_wins_while_the_window_is_open() -> None:
    it = latch()
    feed(it, OUTSIDE)
    assert feed(it, STRANGER, count=9) == [Verdict.STRANGER] * 9
    assert feed(it, PRIVATE, count=1, now=WINDOW_S - 0.1) == [Verdict.ACCEPT]
    assert it.source == PRIVATE


def test_then_the_latch_is_shut() -> None:
    it = latch()
    feed(it, OUTSIDE)
    for source in (PRIVATE, STRANGER):
        assert feed(it, source, count=9, now=WINDOW_S) == [Verdict.STRANGER] * 9
    assert it.source == OUTSIDE


def test_who_is_late_can_still_be_learnt() -> None:
    it = latch()
    assert feed(it, OUTSIDE, now=100)[-1] is Verdict.ACCEPT


def test_a_public_address_may_differ_in_the_port_only() -> None:
    it = latch(PUBLIC)
    assert feed(it, STRANGER, count=9) == [Verdict.STRANGER] * 9
    assert feed(it, (PUBLIC[0], 60000))[-1] is Verdict.ACCEPT


@pytest.mark.parametrize(
    "nowhere",
    [("0.0.0.0", 4000), ("", 4000), ("10.0.0.5", 0), ("::", 4000), ("media.example", 4000)],
)
def test_an_sdp_without_an_address(nowhere: Address) -> None:
    it = latch(nowhere)
    assert it.destination is None
    assert feed(it, OUTSIDE)[-1] is Verdict.ACCEPT
    assert it.destination == OUTSIDE


def test_learning_again_keeps_the_source_that_goes_on() -> None:
    """A session timer's re-INVITE changes nothing, and opens nothing to strangers."""
    it = latch()
    feed(it, OUTSIDE)
    it.learn(PRIVATE, 100)
    it.heard(100.3)
    assert it.source == OUTSIDE
    assert feed(it, STRANGER, count=9, now=100.4) == [Verdict.STRANGER] * 9
    moved = ("203.0.113.9", 50077)
    assert feed(it, moved, now=100.3 + QUIET_S)[-1] is Verdict.ACCEPT  # the NAT has forgotten
    assert feed(it, STRANGER, count=9, now=104) == [Verdict.STRANGER] * 9


def test_learning_again_does_not_reopen_what_the_sdp_confirms() -> None:
    it = latch()
    feed(it, PRIVATE, count=1)
    it.learn(PRIVATE, 100)
    assert feed(it, STRANGER, count=9, now=103) == [Verdict.STRANGER] * 9


def test_hold_by_a_null_address_changes_nothing() -> None:
    it = latch()
    feed(it, OUTSIDE)
    it.learn(("0.0.0.0", 4000), 100)
    assert it.destination == OUTSIDE
    assert feed(it, STRANGER, count=9, now=101) == [Verdict.STRANGER] * 9


def test_learning_anew_begins_probation_anew() -> None:
    it = latch()
    assert feed(it, STRANGER, first=10, count=PROBATION - 1) == [Verdict.HELD] * (PROBATION - 1)
    it.learn(("10.0.0.6", 4002), 1.0)
    assert feed(it, STRANGER, first=10 + PROBATION - 1, count=1, now=1.1) == [Verdict.HELD]


def test_ways_to_write_an_address() -> None:
    it = latch(("2001:DB8:0::1", 4000))
    assert feed(it, ("2001:db8::1", 4000), count=1) == [Verdict.ACCEPT]


def test_a_new_address_in_the_sdp_begins_anew() -> None:
    it = latch()
    feed(it, OUTSIDE)
    it.learn(("10.0.0.6", 4002), 100)
    assert it.source is None
    assert it.destination == ("10.0.0.6", 4002)


def test_srtp_needs_no_probation() -> None:
    it = latch(PUBLIC)
    it.authenticated(OUTSIDE)
    assert it.destination == OUTSIDE


sources = st.sampled_from([STRANGER, ("198.51.100.67", 1), OUTSIDE, PRIVATE, ("10.0.0.5", 4001)])


@given(
    st.lists(
        st.tuples(sources, st.integers(0, 1), st.integers(0, 6), st.floats(0, 0.2)), max_size=200
    )
)
def test_no_source_that_was_learnt_gives_way_to_another_but_the_sdps(
    traffic: list[tuple[Address, int, int, float]],
) -> None:
    it, now = latch(), 0.0
    held = 0
    for source, ssrc, sequence, pause in traffic:
        now += pause
        before = it.source
        if source == before:
            it.heard(now)
            continue
        verdict = it.judge(source, ssrc, sequence, b"x", now)
        held += verdict is Verdict.HELD
        if verdict is Verdict.ACCEPT:
            assert before is None or (source == PRIVATE and now < WINDOW_S)
            assert len(it.release()) < PROBATION
        else:
            assert it.source == before
