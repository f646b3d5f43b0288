from __future__ import annotations

import hashlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.twilio.signature import (
    SignatureValidator,
    compute,
    handshake_candidates,
    webhook_candidates,
)

TOKEN = "12345"
PARAMETERS = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
    ("Caller", "+14158675309"),
]
REPEATED = [
    ("Sid", "CA123"),
    ("SidAccount", "AC123"),
    ("Digits", "5678"),
    ("Digits", "1234"),
    ("Digits", "1234"),
]
STREAM_TOKEN = "test-auth-token-0123456789abcdef"
TARGET = "/myapp.php?foo=1&bar=2"


@pytest.mark.parametrize(
    ("url", "parameters", "signature"),
    [
        ("https://mycompany.com" + TARGET, PARAMETERS, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("https://mycompany.com:443" + TARGET, PARAMETERS, "kvajT1Ptam85bY51eRf/AJRuM3w="),
        ("http://mycompany.com:80" + TARGET, PARAMETERS, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        ("https://mycompany.com" + TARGET, REPEATED, "IK+Dwps556ElfBT0I3Rgjkr1wJU="),
    ],
)
def test_published_vectors(url: str, parameters: list[tuple[str, str]], signature: str) -> None:
    assert compute(TOKEN, url, parameters) == signature
    assert compute(TOKEN, url, reversed(parameters)) == signature
    base = url.removesuffix(TARGET)
    assert SignatureValidator(base, [TOKEN]).webhook(TARGET, parameters, signature)


HANDSHAKES = {
    "wss://voice.example.com/twilio/media": "XlvpXmq6bo5nPSrtKYVwZOR3T6k=",
    "wss://voice.example.com/twilio/media/": "IE3wXvh095ur4uzKWoA/e3WcyJM=",
    "wss://voice.example.com:443/twilio/media": "KH6AB37YgKlMT9HD0mRvR/wQuoE=",
}


@pytest.mark.parametrize("url", HANDSHAKES)
@pytest.mark.parametrize(
    "public_url",
    [
        "https://voice.example.com",
        "https://voice.example.com/",
        "https://voice.example.com:443",
        "https://user:secret@voice.example.com",
    ],
)
def test_handshake_vectors(url: str, public_url: str) -> None:
    assert compute(STREAM_TOKEN, url) == HANDSHAKES[url]
    validator = SignatureValidator(public_url, [STREAM_TOKEN])
    assert validator.handshake("/twilio/media", HANDSHAKES[url])
    assert not validator.handshake("/twilio/media2", HANDSHAKES[url])


def test_port_on_either_side() -> None:
    with_port = compute(TOKEN, "https://a.example:8443/twilio/voice", PARAMETERS)
    without = compute(TOKEN, "https://a.example/twilio/voice", PARAMETERS)
    other = compute(TOKEN, "https://a.example:9443/twilio/voice", PARAMETERS)
    validator = SignatureValidator("https://a.example:8443", [TOKEN])
    assert validator.webhook("/twilio/voice", PARAMETERS, with_port)
    assert validator.webhook("/twilio/voice", PARAMETERS, without)
    assert not validator.webhook("/twilio/voice", PARAMETERS, other)
    assert validator.handshake("/m", compute(TOKEN, "wss://a.example:8443/m"))
    assert validator.handshake("/m", compute(TOKEN, "wss://a.example/m"))


def test_a_plain_public_url_gives_ws() -> None:
    validator = SignatureValidator("http://a.example:8080", [TOKEN])
    assert validator.handshake("/m/t", compute(TOKEN, "ws://a.example:8080/m/t"))
    assert not validator.handshake("/m/t", compute(TOKEN, "wss://a.example:8080/m/t"))


def test_a_path_in_the_public_url_is_kept() -> None:
    validator = SignatureValidator("https://a.example/phone/", [TOKEN])
    signature = compute(TOKEN, "https://a.example/phone/twilio/voice", PARAMETERS)
    assert validator.webhook("/twilio/voice", PARAMETERS, signature)


def test_secondary_token() -> None:
    validator = SignatureValidator("https://a.example", ["new", "old"])
    for token, genuine in (("new", True), ("old", True), ("older", False)):
        signature = compute(token, "https://a.example/v", PARAMETERS)
        assert validator.webhook("/v", PARAMETERS, signature) is genuine


@pytest.mark.parametrize("tokens", [[], [""], ["a", ""]])
def test_an_empty_token_would_let_everyone_in(tokens: list[str]) -> None:
    with pytest.raises(ValueError, match="auth token"):
        SignatureValidator("https://a.example", tokens)


@pytest.mark.parametrize("signature", [None, "", "=", "\u00e9", "\ud800", "x" * 10_000])
def test_no_signature_at_all(signature: str | None) -> None:
    validator = SignatureValidator("https://a.example", [TOKEN])
    assert not validator.webhook("/v", PARAMETERS, signature)
    assert not validator.handshake("/v", signature)


def test_nearly_right_is_wrong() -> None:
    """Each character counts, and so does their number."""
    validator = SignatureValidator("https://a.example", [TOKEN])
    right = compute(TOKEN, "https://a.example/v")
    assert validator.webhook("/v", (), right)
    assert validator.handshake("/v", right)
    wrong = {right[:at] + ("B" if right[at] == "A" else "A") + right[at + 1 :] for at in range(28)}
    wrong |= {right[:at] for at in range(28)} | {right + "=", right + "A", f" {right}", f"{right},"}
    for signature in wrong | {right.swapcase()}:
        assert not validator.webhook("/v", (), signature), signature
        assert not validator.handshake("/v", signature), signature


def test_every_parameter_counts() -> None:
    validator = SignatureValidator("https://a.example", [TOKEN])
    signature = compute(TOKEN, "https://a.example/v", PARAMETERS)
    assert not validator.webhook("/v", PARAMETERS[1:], signature)
    assert not validator.webhook("/v", [*PARAMETERS, ("Extra", "")], signature)
    blank = [*PARAMETERS, ("FromCity", "")]
    assert validator.webhook("/v", blank, compute(TOKEN, "https://a.example/v", blank))


def test_body_hash() -> None:
    validator = SignatureValidator("https://a.example", [TOKEN])
    body = b'{"a":1}'
    target = f"/v?bodySHA256={hashlib.sha256(body).hexdigest()}"
    signature = compute(TOKEN, "https://a.example" + target)
    assert validator.webhook(target, (), signature, body)
    assert not validator.webhook(target, (), signature, body + b" ")
    plain = compute(TOKEN, "https://a.example/v")
    assert not validator.webhook("/v", (), plain, body)


def test_candidates_are_the_documented_ones() -> None:
    assert set(webhook_candidates("https://h/p?q")) == {"https://h/p?q", "https://h:443/p?q"}
    assert set(webhook_candidates("http://h:80/p")) == {"http://h/p", "http://h:80/p"}
    assert set(handshake_candidates("https://h/p")) == {
        f"{scheme}://h{port}/p{slash}"
        for scheme in ("wss", "https")
        for port in ("", ":443")
        for slash in ("", "/")
    }
    assert "wss://[2001:db8::1]:8443/p" in handshake_candidates("https://[2001:db8::1]:8443/p")
    assert "wss://[2001:db8::1]:443/p" in handshake_candidates("https://[2001:db8::1]/p")


TEXT = st.text(max_size=12)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=6), st.text(), st.binary(max_size=24))
def test_garbage_is_refused_without_a_fuss(
    parameters: list[tuple[str, str]], target: str, body: bytes
) -> None:
    validator = SignatureValidator("https://a.example", [TOKEN])
    assert not validator.webhook(target, parameters, body.decode("latin-1"), body)
    assert not validator.handshake(target, body.decode("latin-1"))


@given(st.lists(st.tuples(TEXT, TEXT), max_size=6), st.randoms())
def test_order_and_duplicates_do_not_matter(
    parameters: list[tuple[str, str]], random: Random
) -> None:
    shuffled = parameters * 2
    random.shuffle(shuffled)
    assert compute(TOKEN, "https://h/", shuffled) == compute(TOKEN, "https://h/", parameters)
