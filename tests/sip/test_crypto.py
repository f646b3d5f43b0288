from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.sip.crypto import KEY_BYTES, SUITES, Crypto, SrtpKeys, new_key, parse_crypto, usable

KEY = bytes(range(30))
TEXT = base64.b64encode(KEY).decode()
SUITE = "AES_CM_128_HMAC_SHA1_80"


@pytest.mark.parametrize(
    "value",
    [
        f"1 {SUITE} inline:{TEXT}",
        f"1 {SUITE.lower()} INLINE:{TEXT}",
        f"1\t{SUITE}  inline:{TEXT}|2^20",
        f"1 {SUITE} inline:{TEXT}|1048576",
        f"1 {SUITE} inline:{TEXT} WSH=128",
        f"1 {SUITE} inline:{TEXT}|2^31 WSH=64 -FUTURE=1",
        f"01 {SUITE} inline:{TEXT}",
    ],
)
def test_taken(value: str) -> None:
    assert parse_crypto(value) == Crypto(1, SUITE, KEY)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        f"x {SUITE} inline:{TEXT}",
        f"1 AES_256_CM_HMAC_SHA1_80 inline:{TEXT}",
        f"1 {SUITE} inline:{TEXT}|1:4",  # MKI
        f"1 {SUITE} inline:{TEXT}|2^20|1:32",
        f"1 {SUITE} inline:{TEXT}|2^20;inline:{TEXT}|2^20",
        f"1 {SUITE} uri:{TEXT}",
        f"1 {SUITE} {TEXT}",
        f"1 {SUITE} inline:",
        f"1 {SUITE} inline:{TEXT[:-4]}",  # short
        f"1 {SUITE} inline:{TEXT}AAAA",  # long
        f"1 {SUITE} inline:{TEXT[:-1]}!",
        f"1 {SUITE} inline:{TEXT[:-1]}é",
        f"1 {SUITE} inline:{TEXT}|",
        f"1 {SUITE} inline:{TEXT} UNENCRYPTED_SRTP",
        f"1 {SUITE} inline:{TEXT} UNAUTHENTICATED_SRTP WSH=64",
        f"1 {SUITE} inline:{TEXT} KDR=1",
        f"1 {SUITE} inline:{TEXT} FEC_ORDER=SRTP_FEC",
    ],
)
def test_turned_down(value: str) -> None:
    assert parse_crypto(value) is None


def test_usable_keeps_the_order() -> None:
    lines = [f"7 {SUITES[1]} inline:{TEXT}", "nonsense", f"3 {SUITES[0]} inline:{TEXT}"]
    assert [crypto.tag for crypto in usable(lines)] == [7, 3]


def test_keys_stay_out_of_logs() -> None:
    shown = repr(Crypto(1, SUITE, KEY)) + repr(SrtpKeys(SUITE, KEY, KEY))
    assert repr(KEY) not in shown
    assert TEXT not in shown


def test_new_keys_differ() -> None:
    keys = {new_key() for _ in range(64)}
    assert len(keys) == 64
    assert {len(key) for key in keys} == {KEY_BYTES}


@given(
    st.integers(0, 999_999_999),
    st.sampled_from(SUITES),
    st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES),
)
def test_what_is_written_is_read(tag: int, suite: str, key: bytes) -> None:
    crypto = Crypto(tag, suite, key)
    assert parse_crypto(str(crypto)) == crypto


@given(st.one_of(st.text(), st.text(f"1 :|;={SUITE}inlineWSH^").map(lambda t: f"1 {SUITE} {t}")))
def test_garbage_is_none_or_a_key(value: str) -> None:
    crypto = parse_crypto(value)
    assert crypto is None or len(crypto.key) == KEY_BYTES
