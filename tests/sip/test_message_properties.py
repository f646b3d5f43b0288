"""What holds of every message, and of every run of bytes that is none."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.sip_targets import VIEWS, sip
from tests.sip.samples import INVITE, minimal
from tests.sip.strategies import messages, requests, tokens
from voiced.sip.errors import ParseError
from voiced.sip.message import Request, Response, parse, response_to


@settings(max_examples=50)
@given(messages)
def test_a_written_message_is_read_as_it_was(message: Request | Response) -> None:
    written = bytes(message)
    read = parse(written)
    assert read == message
    assert bytes(read) == written
    for name in ("from_", "to", "call_id", "cseq", "vias", "contacts", "routes", "body"):
        assert getattr(read, name) == getattr(message, name), name


@settings(max_examples=50)
@given(requests(), st.integers(100, 699), tokens)
def test_every_request_can_be_answered(message: Request, status: int, tag: str) -> None:
    answer = parse(bytes(response_to(message, status, to_tag=tag)))
    assert isinstance(answer, Response)
    assert answer.vias == message.vias
    assert (answer.from_, answer.call_id, answer.cseq) == (
        message.from_,
        message.call_id,
        message.cseq,
    )
    if status > 100:
        assert answer.to.tag == (message.to.tag if "tag" in message.to.parameters else tag)


@given(st.binary(max_size=200))
def test_only_parse_errors_come_out_of_any_bytes(data: bytes) -> None:
    sip(data)


@given(
    st.lists(
        st.tuples(st.integers(0, len(INVITE)), st.integers(0, 8), st.binary(max_size=6)),
        min_size=1,
        max_size=3,
    )
)
def test_only_parse_errors_come_out_of_a_damaged_message(
    damage: list[tuple[int, int, bytes]],
) -> None:
    data = INVITE
    for start, length, new in damage:
        data = data[:start] + new + data[start + length :]
    sip(data)


_PIECES = ('"', '\\"', "<", ",", ";a", " ", "\t", ";", "=", ":", "1", '",', "/", "%", "\r\n ", "(")
_FIELDS = ("Via", "From", "Contact", "CSeq", "Call-ID", "Allow", "Route", "Expires", "Replaces")


def test_hostile_fields_take_linear_time() -> None:
    """Values on which a careless pattern would take minutes; all together take milliseconds."""
    start = time.process_time()
    for piece in _PIECES:
        for field in _FIELDS:
            for lead in ("", '"', "<sip:a@b>;x=", "SIP/2.0/UDP a;b="):
                value = lead + piece * (15_000 // len(piece)) + "!"
                try:
                    message = parse(minimal(f"{field}: {value}"))
                except ParseError:
                    continue
                for name in VIEWS:
                    try:
                        getattr(message, name)
                    except ParseError:
                        continue
    assert time.process_time() - start < 10
