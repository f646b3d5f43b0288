"""The parser of server-sent events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.pipeline.sse import MAX_EVENT, SseError, SseParser

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
NEWLINE = st.sampled_from(["\n", "\r\n", "\r"])
NOISE = st.sampled_from([": a comment", "event: chunk", "id: 1", "retry: 10", "data-less", ":"])


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(place % (len(stream) + 1) for place in at)})
    return [stream[a:b] for a, b in pairwise(places)]


@given(
    events=st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=5),
    newline=NEWLINE,
    noise=st.lists(NOISE, max_size=3),
    space=st.booleans(),
    bom=st.booleans(),
    places=st.lists(st.integers(0, 10_000), max_size=20),
)
def test_events_come_out_whole_however_they_are_cut(
    events: list[list[str]],
    newline: str,
    noise: list[str],
    space: bool,
    bom: bool,
    places: list[int],
) -> None:
    lines = ["\ufeff" + noise[0] if bom and noise else "", *noise, ""]
    for event in events:
        # A space is always part of the value if it begins with one: only the first is dropped.
        lines += [f"data:{' ' if space or line[:1] == ' ' else ''}{line}" for line in event]
        lines += [*noise, ""]
    stream = newline.join([*lines, ""]).encode()
    parser = SseParser()
    got = [data for piece in cut(stream, places) for data in parser.feed(piece)]
    assert got == ["\n".join(event) for event in events]


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_anything_is_taken(pieces: list[bytes]) -> None:
    parser = SseParser()
    one = [data for piece in pieces for data in parser.feed(piece)]
    assert one == SseParser().feed(b"".join(pieces))


def test_an_event_is_complete_with_its_empty_line_alone() -> None:
    parser = SseParser()
    assert parser.feed(b"data: [DONE]\n") == []
    assert parser.feed(b"\n") == ["[DONE]"]


@pytest.mark.parametrize("line", [b"data: " + b"x" * 1000 + b"\n", b"x" * 1000])
def test_an_event_without_end_is_refused(line: bytes) -> None:
    parser = SseParser()
    for _ in range(MAX_EVENT // 1001):
        parser.feed(line)
    with pytest.raises(SseError):
        parser.feed(line * 3)
