"""Our signatures and TwiML against the official `twilio` SDK."""

from __future__ import annotations

import hashlib
import json
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Connect, Stream, VoiceResponse
from werkzeug.datastructures import MultiDict

from voiced.twilio import twiml
from voiced.twilio.signature import SignatureValidator, compute

pytestmark = pytest.mark.interop

TOKEN = "5f0e2b9c"
SDK = RequestValidator(TOKEN)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
PARAMETERS = st.lists(st.tuples(TEXT, TEXT), max_size=8)
# No user, no IPv6 and no empty query: there the SDK's own URL helper alters what was signed.
BASES = st.builds(
    "{}://{}{}".format,
    st.sampled_from(["http", "https"]),
    st.from_regex(r"[a-z]([a-z0-9]{0,8}\.){1,2}[a-z]{2,5}", fullmatch=True),
    st.sampled_from(["", ":80", ":443", ":8080", ":8443"]),
)
PATHS = st.lists(TEXT.map(lambda part: quote(part, safe="")), max_size=3).map(
    lambda parts: "/" + "/".join(part for part in parts if part)
)
QUERIES = st.one_of(
    st.just(""),
    st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3).map(
        lambda pairs: "?" + "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
    ),
)


@given(BASES, PATHS, QUERIES, PARAMETERS)
def test_compute_agrees(
    base: str, path: str, query: str, parameters: list[tuple[str, str]]
) -> None:
    url = base + path + query
    assert compute(TOKEN, url, parameters) == SDK.compute_signature(url, MultiDict(parameters))


@given(BASES, PATHS, QUERIES, PARAMETERS, st.sampled_from(["", ":80", ":443", ":8080", "/", "?"]))
def test_validators_agree(
    base: str, path: str, query: str, parameters: list[tuple[str, str]], quirk: str
) -> None:
    """Whatever the carrier signed, with or without a port or altered, both say the same."""
    target = path + query
    host = base.rpartition(":")[0] if base.count(":") > 1 else base
    signed = host + quirk + target if quirk.startswith(":") else base + target + quirk
    signature = SDK.compute_signature(signed, MultiDict(parameters))
    validator = SignatureValidator(base, [TOKEN])
    expected = SDK.validate(base + target, MultiDict(parameters), signature)
    assert validator.webhook(target, parameters, signature) == expected
    if not quirk:
        assert expected


@given(BASES, PATHS, st.text(st.characters(codec="utf-8")), st.booleans())
def test_body_hash_agrees(base: str, path: str, text: str, tampered: bool) -> None:
    body = json.dumps({"text": text})
    target = f"{path}?bodySHA256={hashlib.sha256(body.encode()).hexdigest()}"
    signature = SDK.compute_signature(base + target, {})
    received = body + " " * tampered
    expected = SDK.validate(base + target, received, signature)
    found = SignatureValidator(base, [TOKEN]).webhook(target, (), signature, received.encode())
    assert found == expected == (not tampered)


def canonical(document: str) -> str:
    return ET.canonicalize(document, strip_text=True)


@given(
    st.dictionaries(
        st.text(
            st.characters(codec="utf-8", exclude_categories=["Cc", "Cn"]), min_size=1, max_size=9
        ),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cn"]), max_size=9),
        max_size=4,
    )
)
def test_connect_stream_is_what_the_sdk_would_say(parameters: dict[str, str]) -> None:
    stream = Stream(
        url="wss://a.example/twilio/media/t",
        status_callback="https://a.example/twilio/status",
        status_callback_method="POST",
    )
    for name, value in parameters.items():
        stream.parameter(name=name, value=value)
    connect = Connect()
    connect.append(stream)
    response = VoiceResponse()
    response.append(connect)
    ours = twiml.connect_stream(
        "wss://a.example/twilio/media/t", parameters, "https://a.example/twilio/status"
    )
    assert canonical(ours) == canonical(str(response))


@pytest.mark.parametrize("reason", ["busy", "rejected"])
def test_reject_is_what_the_sdk_would_say(reason: str) -> None:
    response = VoiceResponse()
    response.reject(reason=reason)
    ours = twiml.reject("busy" if reason == "busy" else "rejected")
    assert canonical(ours) == canonical(str(response))
