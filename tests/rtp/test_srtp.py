"""SRTP: both ends, wraps, replays, rekeying, a peer that begins anew."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rtp.peer import rtp, voice
from voiced.rtp import rtcp
from voiced.rtp.media import SrtpKeys, Suite
from voiced.rtp.srtp import RESTART_AFTER, Srtp, SrtpUnavailable, available

SUITES: list[Suite] = ["AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"]
ONE, TWO, THREE = (bytes(range(n, n + 30)) for n in (0, 50, 100))


def ends(suite: Suite = "AES_CM_128_HMAC_SHA1_80") -> tuple[Srtp, Srtp]:
    return Srtp(SrtpKeys(suite, ONE, TWO)), Srtp(SrtpKeys(suite, TWO, ONE))


def protected(end: Srtp, data: bytes) -> bytes:
    made = end.protect(data)
    assert made is not None
    return made


@pytest.mark.parametrize(("suite", "tag"), [*zip(SUITES, (10, 4), strict=True)])
def test_both_ways(suite: Suite, tag: int) -> None:
    a, b = ends(suite)
    for one, other in ((a, b), (b, a)):
        data = rtp(1, voice(1))
        secret = protected(one, data)
        assert len(secret) == len(data) + tag
        assert voice(1)[:16] not in secret
        assert other.unprotect(secret) == data
        report = rtcp.build(rtcp.Compound(7, cname="x"))
        hidden = one.protect_rtcp(report)
        assert hidden is not None
        assert other.unprotect_rtcp(hidden) == report


def test_the_counter_survives_the_wrap() -> None:
    """RFC 3711 section 3.3.1; with the packet after the wrap lost, too."""
    a, b = ends()
    for number in range(0xFFF0, 0x20010):
        secret = protected(a, rtp(number, b"x"))
        if number % 50 != 0:
            assert b.unprotect(secret) == rtp(number, b"x")
    assert b.failures == 0


def test_replayed_forged_and_broken() -> None:
    a, b = ends()
    secret = protected(a, rtp(1, voice(1)))
    assert b.unprotect(secret) is not None
    for bad in (secret, secret[:-1] + b"\0\0", secret[:20], bytes(3000)):
        assert b.unprotect(bad) is None
    assert b.unprotect_rtcp(secret) is None
    assert b.failures == 5
    assert b.unprotect(protected(a, rtp(2, voice(2)))) == rtp(2, voice(2))


@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    _, b = ends()
    assert b.unprotect(data) is None
    assert b.unprotect_rtcp(data) is None


def test_new_keys_after_a_new_answer() -> None:
    a, b = ends()
    assert b.unprotect(protected(a, rtp(1, b"x"))) is not None
    a.rekey(SrtpKeys("AES_CM_128_HMAC_SHA1_80", THREE, TWO))
    assert b.unprotect(protected(a, rtp(2, b"x"))) is None
    b.rekey(SrtpKeys("AES_CM_128_HMAC_SHA1_80", TWO, THREE))
    assert b.unprotect(protected(a, rtp(3, b"x"))) == rtp(3, b"x")


def test_the_same_keys_again_keep_the_replay_window() -> None:
    a, b = ends()
    secret = protected(a, rtp(1, b"x"))
    assert b.unprotect(secret) is not None
    b.rekey(SrtpKeys("AES_CM_128_HMAC_SHA1_80", TWO, ONE))
    assert b.unprotect(secret) is None


def test_a_peer_that_begins_anew_is_understood_after_a_while() -> None:
    a, b = ends()
    for number in range(60_000, 70_000):
        b.unprotect(protected(a, rtp(number, b"x")))
    again, _ = ends()
    heard = [b.unprotect(protected(again, rtp(n, b"y"))) is not None for n in range(40)]
    assert heard == [False] * (RESTART_AFTER - 1) + [True] * (40 - RESTART_AFTER + 1)


def test_replays_between_good_packets_change_nothing() -> None:
    a, b = ends()
    old = [protected(a, rtp(n, b"x")) for n in range(200)]
    assert all(b.unprotect(each) for each in old)
    for n in range(200):
        assert b.unprotect(old[n]) is None
        assert b.unprotect(protected(a, rtp(200 + n, b"x"))) is not None


@pytest.mark.parametrize(
    ("suite", "key"), [("AES_256_CM_HMAC_SHA1_80", ONE), ("AES_CM_128_HMAC_SHA1_80", ONE[:-1])]
)
def test_keys_that_cannot_be(suite: Suite, key: bytes) -> None:
    with pytest.raises(ValueError, match=r"not"):
        Srtp(SrtpKeys(suite, key, TWO))


def test_keys_are_not_shown() -> None:
    assert "local" not in repr(SrtpKeys("AES_CM_128_HMAC_SHA1_80", ONE, TWO))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available()
    monkeypatch.setitem(sys.modules, "pylibsrtp", None)
    assert not available()
    with pytest.raises(SrtpUnavailable, match="pip install"):
        ends()
