from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.twilio import twiml


def test_connect_stream() -> None:
    document = twiml.connect_stream(
        "wss://a.example/twilio/media/t0k",
        {"agent": "recep<tion> & 'co' \"x\""},
        "https://a/s?a=1&b=2",
    )
    root = ET.fromstring(document)
    assert root.tag == "Response"
    (connect,) = root
    (stream,) = connect
    (parameter,) = stream
    assert (connect.tag, connect.attrib) == ("Connect", {})
    assert stream.attrib == {
        "url": "wss://a.example/twilio/media/t0k",
        "statusCallback": "https://a/s?a=1&b=2",
        "statusCallbackMethod": "POST",
    }
    assert parameter.attrib == {"name": "agent", "value": "recep<tion> & 'co' \"x\""}


def test_without_extras() -> None:
    (connect,) = ET.fromstring(twiml.connect_stream("ws://127.0.0.1:8080/twilio/media/t"))
    assert connect[0].attrib == {"url": "ws://127.0.0.1:8080/twilio/media/t"}
    assert len(connect[0]) == 0


@pytest.mark.parametrize("url", ["wss://a.example/m?token=1", "wss://a.example/m#t"])
def test_no_query_in_a_stream_url(url: str) -> None:
    with pytest.raises(ValueError, match="put it into the path"):
        twiml.connect_stream(url)


def test_a_parameter_is_under_500_characters() -> None:
    twiml.connect_stream("wss://a/m", {"n": "v" * 498})
    with pytest.raises(ValueError, match="'n' is too long: 500"):
        twiml.connect_stream("wss://a/m", {"n": "v" * 499})


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4))
def test_any_parameter_gives_well_formed_xml(parameters: dict[str, str]) -> None:
    root = ET.fromstring(twiml.connect_stream("wss://a/m", parameters).encode())
    found = [each.attrib["name"] for each in root.iter("Parameter")]
    assert len(found) == len(parameters)
    assert all(len(one) == len(other) for one, other in zip(found, parameters, strict=True))


def test_reject() -> None:
    root = ET.fromstring(twiml.reject("busy"))
    assert [(each.tag, each.attrib) for each in root] == [("Reject", {"reason": "busy"})]
