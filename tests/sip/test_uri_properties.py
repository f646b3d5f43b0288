"""What holds of every URI and address."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.sip_targets import uri as fuzz_uri
from tests.sip.strategies import name_addrs, sip_uris, uris
from voiced.sip.uri import NameAddr, SipUri, Uri, escape_user, parse_name_addr, parse_uri


@given(uris)
def test_a_written_uri_is_read_as_it_was(uri: Uri) -> None:
    assert parse_uri(str(uri)) == uri


@given(name_addrs)
def test_a_written_address_is_read_as_it_was(address: NameAddr) -> None:
    assert parse_name_addr(str(address)) == address


@settings(max_examples=50)
@given(sip_uris(), sip_uris())
def test_equivalence_is_symmetric_and_no_weaker_than_equality(one: SipUri, other: SipUri) -> None:
    assert one.equivalent(one)
    assert one.equivalent(other) == other.equivalent(one)
    if one == other:
        assert one.equivalent(other)
        assert hash(one) == hash(other)


@settings(max_examples=50)
@given(sip_uris())
def test_equivalence_sees_neither_case_nor_order_nor_escapes(uri: SipUri) -> None:
    shuffled = dict(reversed(list(uri.parameters.items())))
    user = uri.user
    if user is not None and "%" not in user:
        user = "".join(f"%{ord(each):02X}" for each in user)
    again = uri.replace(parameters=shuffled, user=user, headers=uri.headers[::-1])
    assert uri.equivalent(again)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
def test_any_text_can_be_a_user(text: str) -> None:
    uri = parse_uri(f"sip:{escape_user(text)}@example.org")
    assert isinstance(uri, SipUri)
    assert uri.unescaped_user == text


_garbage = st.binary(max_size=60) | st.text(max_size=60).map(str.encode)


@given(_garbage)
def test_only_parse_errors_come_out(data: bytes) -> None:
    fuzz_uri(data)


_PIECES = ("1", "(", "%41", ";a", '"', '\\"', " ", "<", "a ", ";", ":", "=", "@", "&a=b", '";')
_FRAMES = ("{}", "sip:{}", "sip:a@{}", "tel:+{}!", '"{}', "sip:b;{}!", '<sip:b>;x={}"')


def test_hostile_lengths_take_linear_time() -> None:
    """Inputs on which a careless pattern would take minutes; all together take milliseconds."""
    start = time.process_time()
    for piece in _PIECES:
        for frame in _FRAMES:
            fuzz_uri(frame.format(piece * (16_000 // len(piece))).encode())
    assert time.process_time() - start < 5
