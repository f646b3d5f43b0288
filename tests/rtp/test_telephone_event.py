"""Digits in and out: one press, one digit, whatever is lost on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rtp.peer import CAPTURES, captured
from voiced.rtp import packet
from voiced.rtp.telephone_event import (
    DIGITS,
    ENDS,
    MAX_WAITING,
    SILENT_S,
    EventPacket,
    EventReceiver,
    EventSender,
    parse,
)


@given(st.integers(0, 255), st.booleans(), st.integers(0, 63), st.integers(0, 0xFFFF))
def test_what_is_built_is_read(event: int, end: bool, volume: int, duration: int) -> None:
    made = EventPacket(event, end, volume, duration)
    assert parse(bytes(made)) == made
    assert parse(bytes(made) + b"rest") == made
    assert parse(bytes(made)[:3]) is None


def sent(
    sender: EventSender, step: int = 160, start: int = 0
) -> list[tuple[int, bytes, bool] | None]:
    """All packets, None for each packet time without."""
    found = []
    while sender.busy:
        found.append(sender.next(start & 0xFFFFFFFF, step))
        start += step
        assert len(found) < 10_000
    return found


def presses(packets: list[tuple[int, bytes, bool] | None]) -> str:
    receiver = EventReceiver()
    found = ""
    for at, each in enumerate(packets):
        if each is not None:
            event = parse(each[1])
            assert event is not None
            found += receiver.receive(7, each[0], event, at * 0.02)[0] or ""
    return found


def test_a_press_on_the_wire() -> None:
    """RFC 4733 sections 2.5.1.2 to 2.5.1.4."""
    sender = EventSender()
    sender.press("5", 480, 320)
    packets = sent(sender, start=4000)
    assert packets == [
        (4000, bytes([5, 10, 0, 160]), True),
        (4000, bytes([5, 10, 1, 64]), False),
        *[(4000, bytes([5, 0x8A, 1, 0xE0]), False)] * ENDS,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("digits", "duration", "gap"), [("x", 800, 800), ("1", 0, 0), ("1", 65536, 0), ("1", 800, -1)]
)
def test_what_cannot_be_pressed(digits: str, duration: int, gap: int) -> None:
    with pytest.raises(ValueError, match="key"):
        EventSender().press(digits, duration, gap)


def test_keys_that_wait_are_bounded() -> None:
    sender = EventSender()
    sender.press("1" * MAX_WAITING, 800, 800)
    with pytest.raises(ValueError, match="wait"):
        sender.press("1", 800, 800)


lengths = st.integers(1, 4000)


@given(
    st.text(DIGITS, min_size=1, max_size=12),
    lengths,
    st.integers(0, 1600),
    st.sampled_from([80, 160, 240, 480]),
    st.integers(0, 0xFFFFFFFF),
    st.data(),
)
def test_every_digit_once_if_one_packet_of_it_comes(
    digits: str, duration: int, gap: int, step: int, start: int, data: st.DataObject
) -> None:
    """Any loss that leaves one packet of each press, and repetition of any packet."""
    sender = EventSender()
    sender.press(digits, duration, gap)
    packets = sent(sender, step, start)
    kept: list[tuple[int, bytes, bool] | None] = []
    for timestamp in dict.fromkeys(each[0] for each in packets if each):
        of_one = [each for each in packets if each and each[0] == timestamp]
        some = data.draw(st.lists(st.sampled_from(range(len(of_one))), min_size=1))
        kept += [of_one[n] for n in sorted(some)]
    assert presses(kept) == digits
    assert presses(packets) == digits


@given(st.text("15", min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_ends_that_come_after_the_next_press_are_no_digits(digits: str, random: object) -> None:
    sender = EventSender()
    sender.press(digits, 800, 160)
    packets = sent(sender)
    late = [each for each in packets if each and each[1][1] & 0x80]
    assert presses([*packets, *late[:-3]]) == digits


@pytest.mark.parametrize("name", [*"0123456789", "star", "pound"])
def test_a_capture_whose_ends_share_a_sequence_number(name: str) -> None:
    """SIPp's recordings: duration 0 at first, three ends with one number."""
    packets = [packet.parse(data) for _, data in captured(CAPTURES / f"dtmf_2833_{name}.pcap")]
    assert len({each.sequence for each in packets}) == len(packets) - 2
    found = presses([(each.timestamp, each.payload, each.marker) for each in packets])
    assert found == {"star": "*", "pound": "#"}.get(name, name)


def press(
    receiver: EventReceiver, at: float, timestamp: int, duration: int, *, end: bool = False
) -> str | None:
    return receiver.receive(7, timestamp, EventPacket(1, end, 10, duration), at)[0]


def test_a_long_press_in_segments_is_one() -> None:
    """RFC 4733 section 2.5.1.3; the last packets of a segment may be lost."""
    receiver = EventReceiver()
    assert press(receiver, 0, 1000, 160) == "1"
    assert press(receiver, 8, 1000, 0xFF00) is None
    assert press(receiver, 8.2, 1000 + 0xFFFF, 160) is None
    assert receiver.active(8.2)
    assert receiver.until == 1000 + 0xFFFF + 160
    assert press(receiver, 16, 1000 + 2 * 0xFFFF, 800) is None
    assert press(receiver, 16.1, 1000 + 2 * 0xFFFF, 960, end=True) is None
    assert not receiver.active(16.1)
    assert press(receiver, 16.3, 1000 + 3 * 0xFFFF, 160) == "1"  # the end was told: another one


def test_a_sender_that_moves_the_timestamp_within_a_press() -> None:
    receiver = EventReceiver()
    found = [press(receiver, n * 0.02, 1000 + 160 * n, 160 * (n + 1), end=n > 7) for n in range(10)]
    assert found == ["1", *[None] * 9]


def test_the_same_key_twice_with_every_end_lost() -> None:
    receiver = EventReceiver()
    assert press(receiver, 0, 1000, 160) == "1"
    assert press(receiver, 0.1, 1000, 800) is None
    assert press(receiver, 0.3, 1000 + 2400, 160) == "1"


def test_a_press_is_over_when_nothing_is_heard_of_it() -> None:
    receiver = EventReceiver()
    assert not receiver.active(0)
    press(receiver, 0, 1000, 160)
    assert receiver.active(SILENT_S - 0.01)
    assert not receiver.active(SILENT_S)


def test_sources_do_not_mix() -> None:
    receiver = EventReceiver()
    one = EventPacket(1, False, 10, 160)
    assert receiver.receive(7, 1000, one, 0)[0] == "1"
    assert receiver.receive(8, 1000, one, 0)[0] == "1"
    assert receiver.receive(8, 1000, one, 0)[0] is None


def test_events_that_are_no_keys_give_no_digit() -> None:
    receiver = EventReceiver()
    assert receiver.receive(7, 1000, EventPacket(16, False, 10, 160), 0) == (None, True)  # flash


def test_the_end_of_a_press_long_forgotten_is_no_digit() -> None:
    """More presses since than are remembered, the newest of the same key."""
    it = EventReceiver()
    told = [
        it.receive(7, 1000 * n, EventPacket(key, False, 10, 160), 0.1 * n)[0]
        for n, key in enumerate((1, 2, 3, 4, 5, 6, 7, 8, 9, 1))
    ]
    assert told == list("1234567891")
    assert it.receive(7, 0, EventPacket(1, True, 10, 400), 1.1) == (None, False)
