from __future__ import annotations

from ipaddress import ip_network

import pytest
from structlog.testing import capture_logs

from voiced.config.types import Http, Twilio
from voiced.twilio.signature import compute
from voiced.twilio.tokens import MEDIA_PATH
from voiced.web.gate import Gate, Request, base_url, client_address, joined

PUBLIC = "https://voice.example.com"
TOKEN = "0123456789abcdef"


def gate(
    token: str | None = TOKEN, validate: bool = True, proxies: tuple[str, ...] = ()
) -> tuple[Gate, list[tuple[str, str]]]:
    refusals: list[tuple[str, str]] = []
    made = Gate(
        Http(public_url=PUBLIC if token else None, trusted_proxies=proxies),
        Twilio(auth_token=token, validate_signature=validate),
        lambda what, why: refusals.append((what, why)),
    )
    return made, refusals


def test_a_signed_webhook_from_anywhere() -> None:
    made, refusals = gate()
    pairs = (("CallSid", "CA1"), ("To", ""))
    signature = compute(TOKEN, PUBLIC + "/twilio/voice", pairs)
    headers = {"x-twilio-signature": signature, "host": "evil.example"}
    assert made.webhook(Request("/twilio/voice", headers, "203.0.113.9", pairs))
    assert refusals == []


@pytest.mark.parametrize(
    ("headers", "why"),
    [({}, "no signature"), ({"x-twilio-signature": "AAAA"}, "wrong signature")],
)
def test_with_a_token_loopback_must_sign_too(headers: dict[str, str], why: str) -> None:
    made, refusals = gate()
    with capture_logs() as logs:
        assert not made.webhook(Request("/twilio/voice?x=1", headers, "127.0.0.1"))
    assert refusals == [("webhook", why)]
    (line,) = logs
    assert (line["event"], line["why"], line["path"]) == ("webhook refused", why, "/twilio/voice")
    assert line["remedy"]


def test_a_stream_s_token_stays_out_of_the_log() -> None:
    made, refusals = gate()
    with capture_logs() as logs:
        assert not made.handshake(Request(MEDIA_PATH + "s3cret", {}, "203.0.113.9"))
    assert refusals == [("stream", "no signature")]
    assert len(logs) == 1
    assert "s3cret" not in str(logs)


def test_handshake() -> None:
    made, _ = gate()
    signature = compute(TOKEN, "wss://voice.example.com/twilio/media/t")
    headers = {"x-twilio-signature": signature}
    assert made.handshake(Request("/twilio/media/t", headers, "203.0.113.9"))
    assert not made.handshake(Request("/twilio/media/u", headers, "203.0.113.9"))


def test_both_tokens_of_a_rotation_sign() -> None:
    made = Gate(Http(public_url=PUBLIC), Twilio(auth_token=TOKEN, auth_token_secondary="older"))
    for token, served in ((TOKEN, True), ("older", True), ("oldest", False)):
        headers = {"x-twilio-signature": compute(token, PUBLIC + "/twilio/voice")}
        assert made.webhook(Request("/twilio/voice", headers, "203.0.113.9")) is served
        headers = {"x-twilio-signature": compute(token, PUBLIC + MEDIA_PATH + "t")}
        assert made.handshake(Request(MEDIA_PATH + "t", headers, "203.0.113.9")) is served


def test_validation_off_serves_everyone_that_has_a_token_set() -> None:
    made, _ = gate(validate=False)
    assert made.webhook(Request("/twilio/voice", {}, "203.0.113.9"))
    assert made.handshake(Request("/twilio/media/t", {}, "203.0.113.9"))


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize(
    ("peer", "headers", "served"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("::ffff:127.0.0.1", {}, True),
        ("192.0.2.1", {}, False),
        (None, {}, False),
        ("nonsense", {}, False),
        # a tunnel on this machine: the client is somebody else
        ("127.0.0.1", {"x-forwarded-for": "203.0.113.9"}, False),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, False),
        ("127.0.0.1", {"forwarded": "for=203.0.113.9"}, False),
    ],
)
def test_without_a_token_loopback_alone(
    validate: bool, peer: str | None, headers: dict[str, str], served: bool
) -> None:
    made, refusals = gate(token=None, validate=validate)
    with capture_logs() as logs:
        assert made.webhook(Request("/twilio/voice", headers, peer)) is served
        assert made.handshake(Request("/twilio/media/t", headers, peer)) is served
    assert len(logs) == len(refusals) == (0 if served else 2)
    assert all(why == "no auth token" for _, why in refusals)
    assert all("auth_token" in line["remedy"] for line in logs)


PROXIES = (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "127.0.0.1", None),  # a stranger's claim
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "127.0.0.1, 203.0.113.9", "203.0.113.9"),  # the left is the client's claim
        ("127.0.0.1", "203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("2001:db8::7", " 2001:0DB9::1 ", "2001:db9::1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "[2001:db9::1]", "2001:db9::1"),  # as IIS and some balancers write it
        ("127.0.0.1", "garbage", None),
        ("127.0.0.1", "203.0.113.9, unknown", None),
        ("127.0.0.1", None, None),  # a proxy that hides its clients
        ("127.0.0.1", " , ", None),
    ],
)
def test_client_address(peer: str, forwarded: str | None, client: str | None) -> None:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    found = client_address(peer, headers, PROXIES)
    assert (str(found) if found else None) == client


def test_repeated_fields_are_one_list() -> None:
    fields = [("X-Forwarded-For", "203.0.113.9"), ("Host", "a"), ("x-forwarded-for", "10.0.0.1")]
    headers = joined(fields)
    assert headers == {"x-forwarded-for": "203.0.113.9,10.0.0.1", "host": "a"}
    assert str(client_address("127.0.0.1", headers, PROXIES)) == "203.0.113.9"


def test_a_token_needs_the_public_url() -> None:
    with pytest.raises(ValueError, match="public_url"):
        Gate(Http(), Twilio(auth_token=TOKEN))
    Gate(Http(), Twilio(auth_token=TOKEN, validate_signature=False))


def test_a_proxy_is_an_address() -> None:
    with pytest.raises(ValueError, match=r"proxy\.example"):
        Gate(Http(trusted_proxies=("proxy.example",)), Twilio())


@pytest.mark.parametrize(
    ("http", "port", "url"),
    [
        (Http(public_url="https://a.example/"), 1, "https://a.example"),
        (Http(), None, "http://127.0.0.1:8080"),
        (Http(listen="127.0.0.1:0"), 40123, "http://127.0.0.1:40123"),
        (Http(listen="0.0.0.0:8080"), None, "http://127.0.0.1:8080"),
        (Http(listen="[::1]:8080"), None, "http://[::1]:8080"),
    ],
)
def test_base_url(http: Http, port: int | None, url: str) -> None:
    assert base_url(http, port) == url
