"""The digest itself, and challenges as text."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.sip.authorization import (
    ALGORITHMS,
    Parameters,
    Proof,
    algorithm_of,
    parse_authentication,
    write_digest,
)

# RFC 7616 section 3.9.1.
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("md5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("sha-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_vectors_of_rfc_7616(algorithm: str, response: str) -> None:
    proof = Proof(
        algorithm,
        "Mufasa",
        "http-auth@example.org",
        NONCE,
        "GET",
        "/dir/index.html",
        "auth",
        "00000001",
        CNONCE,
    )
    assert proof.response("Circle of Life") == response


def test_vector_of_rfc_2617() -> None:
    nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093"
    proof = Proof(
        "md5",
        "Mufasa",
        "testrealm@host.com",
        nonce,
        "GET",
        "/dir/index.html",
        "auth",
        "00000001",
        "0a4f113b",
    )
    assert proof.response("Circle Of Life") == "6629fae49393a05397450978507c4ef1"


def test_vector_of_rfc_2069() -> None:
    # With the response of the erratum; the one in the text was computed wrongly.
    nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093"
    proof = Proof("md5", "Mufasa", "testrealm@host.com", nonce, "GET", "/dir/index.html")
    assert proof.response("CircleOfLife") == "1949323746fe6a43ef61f9606e7febea"


@given(
    st.sampled_from(sorted(ALGORITHMS)),
    st.booleans(),
    st.lists(st.text(), min_size=6, max_size=6),
    st.text(),
)
def test_against_the_formulas_of_rfc_7616(
    algorithm: str, qop: bool, texts: list[str], password: str
) -> None:
    user, realm, nonce, method, uri, cnonce = texts
    name = "sha256" if "sha" in algorithm else "md5"

    def h(*parts: str) -> str:
        return hashlib.new(name, ":".join(parts).encode()).hexdigest()

    a1 = h(user, realm, password)
    if algorithm.endswith("-sess"):
        a1 = h(a1, nonce, cnonce)
    a2 = h(method, uri)
    expected = h(a1, nonce, "0000000a", cnonce, "auth", a2) if qop else h(a1, nonce, a2)
    proof = Proof(algorithm, user, realm, nonce, method, uri, "", "", cnonce)
    if qop:
        proof = Proof(algorithm, user, realm, nonce, method, uri, "auth", "0000000a", cnonce)
    assert proof.response(password) == expected


def test_one_challenge() -> None:
    (challenge,) = parse_authentication(
        'DIGEST Realm = "a \\"b\\" \\\\c", NONCE="x,y=z",algorithm=md5 , qop="auth,auth-int",'
        ' x-new=1, stale=FALSE,opaque="",'
    )
    assert challenge.scheme == "digest"
    assert challenge == {
        "realm": 'a "b" \\c',
        "nonce": "x,y=z",
        "algorithm": "md5",
        "qop": "auth,auth-int",
        "x-new": "1",
        "stale": "FALSE",
        "opaque": "",
    }


def test_several_challenges_in_one_field() -> None:
    text = 'Digest realm="a", nonce="1", Basic realm="b", Negotiate, Digest nonce="2", realm="c"'
    found = parse_authentication(text)
    assert [(c.scheme, c.get("realm"), c.get("nonce")) for c in found] == [
        ("digest", "a", "1"),
        ("basic", "b", None),
        ("negotiate", None, None),
        ("digest", "c", "2"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (",,", []),
        ('realm="a"', []),
        ('"Digest"', []),
        ("Digest", [{}]),
        ('Digest realm="open', [{}]),
        ('Digest realm="a", realm="b"', []),
        ('Digest realm="a", realm="b", Digest realm="c"', [{"realm": "c"}]),
        ("Digest nonce=aB+/c==, realm=x", [{"nonce": "aB+/c==", "realm": "x"}]),
        ('Digest realm="a" nonce="b"', [{"realm": "a", "nonce": "b"}]),
        ('Digest realm="a"; nonce="b"', [{"realm": "a"}]),
        ('Digest realm="Zürich"', [{"realm": "Zürich"}]),
    ],
)
def test_odd_fields(text: str, expected: list[dict[str, str]]) -> None:
    assert parse_authentication(text) == expected


def test_a_field_without_end_is_read_in_part() -> None:
    text = "Digest " + ", ".join(f"p{number}=1" for number in range(2000))
    (challenge,) = parse_authentication(text)
    assert len(challenge) == 63


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "md5"),
        ("MD5", "md5"),
        ("Md5-Sess", "md5-sess"),
        ("sha-256", "sha-256"),
        ("SHA-256-sess", "sha-256-sess"),
        ("SHA-512-256", None),
        ("", None),
    ],
)
def test_algorithms(name: str | None, expected: str | None) -> None:
    assert algorithm_of({} if name is None else {"algorithm": name}) == expected


values = st.text(st.characters(blacklist_categories=["Cs"]))


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9\-]{0,9}", fullmatch=True), values, max_size=20))
def test_what_is_written_is_read(parameters: dict[str, str]) -> None:
    written = write_digest(parameters, frozenset())
    (read,) = parse_authentication(written)
    assert read == parameters
    assert read.scheme == "digest"


pieces = st.lists(
    st.sampled_from(["Digest", "realm", "nonce", "=", '"', ",", " ", "\\", "a", "==", "Basic", "é"])
).map("".join)


@given(st.one_of(st.text(), pieces))
def test_garbage_is_read_as_far_as_it_goes(text: str) -> None:
    for parameters in parse_authentication(text):
        assert isinstance(parameters, Parameters)
        assert parameters.scheme
