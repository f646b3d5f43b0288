"""What judges the calls of `test_confirm` can tell right from wrong."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol

from tests.e2e.confirming import MS, follow
from tests.e2e.tap import Messages
from voiced.formats import PCMU_8K
from voiced.talk.fading import fade_in

SENT = random.Random(1).randbytes(1000 * MS).replace(b"\xff", b"\xfe")
NOTHING = b"\xff" * (400 * MS)


@given(st.integers(1, 900 * MS))
def test_a_pause_is_found_where_it_is(at: int) -> None:
    found = follow(b"\xff" * 50 + SENT[:at] + NOTHING + SENT[at:] + NOTHING, SENT)
    assert (found.end, found.rest) == (len(SENT), b"")
    assert [(each.at, each.length, each.shift) for each in found.pauses] == [(at, len(NOTHING), 0)]


@given(st.integers(100 * MS, 800 * MS), st.integers(-100 * MS, 100 * MS).filter(bool))
def test_what_is_repeated_or_left_out_is_found(at: int, shift: int) -> None:
    found = follow(SENT[:at] + NOTHING + SENT[at + shift :], SENT)
    assert found.end == len(SENT)
    # A sample or two beyond the pause may happen to be the same.
    assert found.pauses
    assert abs(sum(each.shift for each in found.pauses) - shift) <= 4


@given(st.integers(1, 900 * MS), st.integers(0, 400 * MS))
def test_what_rises_is_found_behind_a_hole_of_any_length(at: int, hole: int) -> None:
    """Also behind none: playback that goes on before the next packet is due rises all the same."""
    rising = fade_in(SENT[at:], PCMU_8K)
    found = follow(SENT[:at] + NOTHING[:hole] + rising, SENT)
    assert (found.end, found.rest) == (len(SENT), b"")
    assert sum(abs(each.shift) for each in found.pauses) == 0


@given(st.integers(1, 900 * MS))
def test_what_is_cut_ends(at: int) -> None:
    other = SENT[::-1]
    found = follow(SENT[:at] + NOTHING + other, SENT)
    assert at <= found.end <= at + 4
    assert found.rest in (other, other[found.end - at :])


@given(st.lists(st.text(max_size=70_000), max_size=5), st.booleans(), st.integers(1, 5000))
def test_messages_are_read_in_pieces_of_any_size(texts: list[str], client: bool, size: int) -> None:
    appended = '{"type":"input_audio_buffer.append","audio":"%s"}' % ("A" * 300)
    writes = FrameProtocol(client=client, extensions=[])
    wire = b"".join(writes.send_data(text, fin=True) for text in [*texts, appended])
    messages = Messages()
    got = [text for at in range(0, len(wire), size) for text in messages.feed(wire[at:][:size])]
    expected = [text for text in texts if text]
    assert got == (expected if client else [*expected, appended])
