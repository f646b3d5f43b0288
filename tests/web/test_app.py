from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from voiced.config.types import Http, Twilio
from voiced.twilio.signature import compute
from voiced.web import forms
from voiced.web.app import ADMIT_TIMEOUT_S, MAX_BODY_BYTES, create_app
from voiced.web.gate import Gate, base_url
from voiced.web.switchboard import (
    Admitted,
    CallStatus,
    Refused,
    StreamStatus,
    VoiceRequest,
)

PUBLIC = "https://voice.example.com"
TOKEN = "0123456789abcdef"
FORM = {
    "CallSid": "CA1",
    "AccountSid": "AC1",
    "From": "anonymous",
    "To": "+15550100",
    "Direction": "inbound",
    "FromCity": "",
    "StirVerstat": "TN-Validation-Passed-A",
    "ForwardedFrom": "+15550101",
}


class Switchboard:
    def __init__(self, answer: Admitted | Refused, delay: float = 0) -> None:
        self.answer = answer
        self.delay = delay
        self.requests: list[VoiceRequest] = []
        self.streams: list[StreamStatus] = []
        self.calls: list[CallStatus] = []

    async def admit(self, request: VoiceRequest) -> Admitted | Refused:
        self.requests.append(request)
        await trio.sleep(self.delay)
        return self.answer

    def stream_status(self, status: StreamStatus) -> None:
        self.streams.append(status)

    def call_status(self, status: CallStatus) -> None:
        self.calls.append(status)


class Site:
    """The application with everything round it, and a carrier that signs."""

    def __init__(
        self,
        answer: Admitted | Refused | None = None,
        token: str | None = TOKEN,
        public_url: str | None = PUBLIC,
        delay: float = 0,
    ) -> None:
        self.switchboard = Switchboard(answer or Admitted("/twilio/media/t0k", {"a": "1"}), delay)
        self.refusals: list[tuple[str, str]] = []
        http = Http(public_url=public_url)

        def count(what: str, why: str) -> None:
            self.refusals.append((what, why))

        gate = Gate(http, Twilio(auth_token=token), count)
        self.app = create_app(gate, self.switchboard, lambda: base_url(http), count)

    async def ask(
        self,
        path: str,
        form: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
        sign: bool = True,
        peer: str = "203.0.113.9",
        data: bytes | None = None,
        content_type: str = "application/x-www-form-urlencoded",
    ) -> Any:
        pairs = list((form or {}).items())
        headers = {"Host": "internal:8080"}
        if method == "POST":
            headers["Content-Type"] = content_type
            if data is None:
                data = urlencode(pairs).encode()
        else:
            path += "?" + urlencode(pairs) if pairs else ""
        if sign:
            signed = pairs if method == "POST" else []
            headers["X-Twilio-Signature"] = compute(TOKEN, PUBLIC + path, signed)
        client: Any = self.app.test_client()
        return await client.open(
            path, method=method, headers=headers, data=data, scope_base={"client": (peer, 4711)}
        )


async def stream_of(response: Any) -> ET.Element:
    assert response.status_code == 200
    assert response.mimetype == "text/xml"
    (connect,) = ET.fromstring(await response.get_data())
    assert connect.tag == "Connect"
    return connect[0]


async def test_a_call_is_connected_to_its_stream() -> None:
    site = Site()
    stream = await stream_of(await site.ask("/twilio/voice", FORM))
    assert stream.attrib == {
        "url": "wss://voice.example.com/twilio/media/t0k",
        "statusCallback": "https://voice.example.com/twilio/status",
        "statusCallbackMethod": "POST",
    }
    assert [each.attrib for each in stream] == [{"name": "a", "value": "1"}]
    assert site.switchboard.requests == [
        VoiceRequest(
            "CA1",
            "AC1",
            "anonymous",
            "+15550100",
            "inbound",
            "+15550101",
            "TN-Validation-Passed-A",
            FORM,
        )
    ]


async def test_get_and_a_query_and_a_slash() -> None:
    site = Site()
    await stream_of(await site.ask("/twilio/voice", FORM, method="GET"))
    await stream_of(await site.ask("/twilio/voice?line=%2B1&x", FORM))
    await stream_of(await site.ask("/twilio/voice/", FORM))
    assert [each.parameters for each in site.switchboard.requests] == [FORM] * 3


async def test_outbound() -> None:
    site = Site()
    await site.ask("/twilio/voice", {**FORM, "Direction": "outbound-api"})
    assert site.switchboard.requests[0].direction == "outbound"


async def test_development_on_loopback() -> None:
    site = Site(token=None, public_url=None)
    stream = await stream_of(await site.ask("/twilio/voice", FORM, sign=False, peer="127.0.0.1"))
    assert stream.attrib["url"] == "ws://127.0.0.1:8080/twilio/media/t0k"
    response = await site.ask("/twilio/voice", FORM, sign=False)
    assert response.status_code == 403
    assert site.refusals == [("webhook", "no auth token")]


@pytest.mark.parametrize("path", ["/twilio/voice", "/twilio/status"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unsigned(path: str, method: str) -> None:
    site = Site()
    with capture_logs() as logs:
        response = await site.ask(path, FORM, sign=False, method=method, peer="127.0.0.1")
    assert response.status_code == 403
    assert len(logs) == 1
    assert site.refusals == [("webhook", "no signature")]
    assert not site.switchboard.requests
    assert not site.switchboard.calls


async def test_tampered() -> None:
    site = Site()
    response = await site.ask("/twilio/voice", FORM, data=urlencode({**FORM, "To": "+1"}).encode())
    assert response.status_code == 403
    assert site.refusals == [("webhook", "wrong signature")]


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"AccountSid": "AC1"}, "CallSid is missing"),
        ({"CallSid": "CA1"}, "AccountSid is missing"),
        ({"CallSid": "", "AccountSid": "AC1"}, "CallSid is no identifier"),
        ({"CallSid": "CA1\n", "AccountSid": "AC1"}, "CallSid is no identifier"),
        ({"CallSid": "C" * 200, "AccountSid": "AC1"}, "CallSid is no identifier"),
        ({str(number): "x" for number in range(600)}, "more than 500 fields"),
    ],
)
async def test_malformed_call(form: dict[str, str], problem: str) -> None:
    site = Site()
    with capture_logs() as logs:
        response = await site.ask("/twilio/voice", form)
    assert response.status_code == 400
    assert (await response.get_data()).decode().strip() == problem
    assert [line["why"] for line in logs] == [problem]
    assert site.refusals == [("webhook", "malformed")]


def test_of_a_name_that_is_there_twice_the_first_counts() -> None:
    pairs = (("CallSid", "CA1"), ("CallSid", "CA2"), ("AccountSid", "AC1"))
    assert forms.voice_request(pairs).call_sid == "CA1"


async def test_oversize() -> None:
    site = Site()
    body = b"x=" + b"y" * MAX_BODY_BYTES
    response = await site.ask("/twilio/voice", data=body)
    assert response.status_code == 413
    assert site.refusals == [("webhook", "malformed")]


async def test_a_body_that_is_no_form_is_no_form() -> None:
    site = Site()
    response = await site.ask("/twilio/voice", data=b"{}", content_type="application/json")
    assert response.status_code == 403  # signed, but its hash is not


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
async def test_other_methods_admit_nothing(method: str) -> None:
    site = Site()
    response = await site.ask("/twilio/voice", FORM, method=method)
    assert response.status_code == 405
    assert site.switchboard.requests == []


@pytest.mark.parametrize("answer", ["busy", "rejected"])
async def test_refused_with_twiml(answer: Any) -> None:
    site = Site(Refused("max_calls", answer))
    response = await site.ask("/twilio/voice", FORM)
    assert response.status_code == 200
    (reject,) = ET.fromstring(await response.get_data())
    assert (reject.tag, reject.attrib) == ("Reject", {"reason": answer})


async def test_refused_with_an_error_makes_the_carrier_fall_back() -> None:
    site = Site(Refused("draining", "error"))
    assert (await site.ask("/twilio/voice", FORM)).status_code == 503


async def test_slow_admission(autojump_clock: trio.testing.MockClock) -> None:
    site = Site(delay=ADMIT_TIMEOUT_S + 1)
    response = await site.ask("/twilio/voice", FORM)
    assert b"busy" in await response.get_data()
    assert trio.current_time() == pytest.approx(ADMIT_TIMEOUT_S, abs=0.1)
    assert site.refusals == [("call", "admission timed out")]


async def test_stream_status() -> None:
    site = Site()
    form = {
        "AccountSid": "AC1",
        "CallSid": "CA1",
        "StreamSid": "MZ1",
        "StreamEvent": "stream-error",
        "StreamError": "31921",
    }
    response = await site.ask("/twilio/status", form)
    assert (response.status_code, await response.get_data()) == (204, b"")
    assert site.switchboard.streams == [StreamStatus("CA1", "MZ1", "stream-error", "31921", form)]
    assert site.switchboard.calls == []


@pytest.mark.parametrize(
    ("text", "duration"), [("17", 17), ("", None), ("x", None), ("9" * 99, None)]
)
async def test_call_status(text: str, duration: int | None) -> None:
    site = Site()
    form = {"CallSid": "CA1", "CallStatus": "completed", "CallDuration": text}
    assert (await site.ask("/twilio/status", form)).status_code == 204
    assert site.switchboard.calls == [CallStatus("CA1", "completed", duration, form)]


@pytest.mark.parametrize("form", [{"CallSid": "CA1"}, {"StreamEvent": "x"}, {"CallStatus": "x"}])
async def test_malformed_status(form: dict[str, str]) -> None:
    site = Site()
    assert (await site.ask("/twilio/status", form)).status_code == 400


async def test_elsewhere_is_nothing() -> None:
    assert (await Site().ask("/")).status_code == 404


@given(st.binary())
def test_any_body_gives_fields_or_a_form_error(body: bytes) -> None:
    pairs = forms.parse_pairs(body)
    for read in (forms.voice_request, forms.stream_status, forms.call_status):
        try:
            read(pairs)
        except forms.FormError:
            continue


NAMES = st.sampled_from(["CallSid", "AccountSid", "From", "To", "StreamEvent", "CallStatus"])


@given(st.lists(st.tuples(NAMES | st.text(), st.text()), max_size=8))
def test_parameters_round_trip(pairs: list[tuple[str, str]]) -> None:
    assert forms.parse_pairs(urlencode(pairs).encode()) == tuple(pairs)
