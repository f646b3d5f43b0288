"""Every row of the table of errors, close codes and refused handshakes."""

from __future__ import annotations

import pytest

from tests.realtime.script import Script
from voiced.engine import EngineFault, Lost
from voiced.realtime.errors import (
    Verdict,
    close_is_retryable,
    code_of,
    shorter_ms,
    status_is_retryable,
    verdict,
)
from voiced.realtime.events import ErrorBody


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("response_cancel_not_active", "", Verdict.IGNORE),
        (None, "Cancellation failed: no active response found", Verdict.IGNORE),
        ("conversation_already_has_active_response", "", Verdict.RETRY),
        (None, "Conversation already has an active response in progress: resp_1.", Verdict.RETRY),
        ("invalid_value", "Audio content of 1ms is already shorter than 2ms", Verdict.RETRY),
        ("input_audio_buffer_commit_empty", "", Verdict.IGNORE),
        (None, "Error committing input audio buffer: buffer too small.", Verdict.IGNORE),
        ("item_retrieve_invalid_item_id", "", Verdict.IGNORE),
        ("item_delete_invalid_item_id", "", Verdict.IGNORE),
        ("item_truncate_invalid_item_id", "", Verdict.IGNORE),
        ("item_other_invalid_item_id", "", Verdict.IGNORE),
        ("invalid_event", "", Verdict.ALARM),
        ("unknown_parameter", "", Verdict.ALARM),
        ("missing_required_parameter", "", Verdict.ALARM),
        ("invalid_value", "no", Verdict.ALARM),
        ("invalid_type", "", Verdict.ALARM),
        ("cannot_update_voice", "", Verdict.IGNORE),
        ("session_expired", "", Verdict.RECONNECT),
        (None, "Your session hit the maximum duration of 60 minutes.", Verdict.RECONNECT),
        ("rate_limit_exceeded", "", Verdict.ALARM),
        ("insufficient_quota", "", Verdict.TERMINAL),
        (None, "You exceeded your current quota, please check", Verdict.TERMINAL),
        ("beta_api_shape_disabled", "", Verdict.TERMINAL),
        ("invalid_api_key", "", Verdict.TERMINAL),
        ("invalid_model", "", Verdict.TERMINAL),
        ("invalid_intent", "", Verdict.TERMINAL),
        ("model_load_error", "", Verdict.TERMINAL),
        ("never_seen", "", Verdict.ALARM),
        (None, "", Verdict.ALARM),
        (42, "", Verdict.ALARM),
    ],
)
def test_codes_and_texts(code: str | int | None, message: str, expected: Verdict) -> None:
    body = ErrorBody(type="invalid_request_error", code=code, message=message)
    assert verdict(code_of(body)) is expected


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("server_error", "server_error"),
        ("insufficient_quota", "insufficient_quota"),
        ("rate_limit_error", "rate_limit_exceeded"),
        ("something", "something"),
        (None, "unknown"),
    ],
)
def test_the_type_stands_in_for_a_missing_code(kind: str | None, code: str) -> None:
    assert code_of(ErrorBody(type=kind)) == code


def test_a_code_of_no_use_gives_way_to_its_type() -> None:
    assert code_of(ErrorBody(type="server_error", code="internal_thing")) == "server_error"


def test_shorter() -> None:
    assert shorter_ms("Audio content of 3700ms is already shorter than 3760ms") == 3700
    assert shorter_ms("something else") is None
    assert shorter_ms(None) is None


@pytest.mark.parametrize(
    ("code", "reason", "retryable"),
    [
        *((code, "", True) for code in (1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015)),
        *((code, "", False) for code in (1002, 1003, 1007, 1008, 1009, 1010, 3000, 4000, 4999)),
        (3000, "invalid_request_error.invalid_api_key", False),
        (4000, "invalid_request_error.beta_api_shape_disabled", False),
        (4000, "invalid_request_error.session_expired", True),
        (1001, "invalid_request_error.invalid_api_key", False),
        (1011, "keepalive ping timeout", True),
        (4000, "server_error.server_error", True),
    ],
)
def test_close_codes(code: int, reason: str, retryable: bool) -> None:
    assert close_is_retryable(code, reason) is retryable


@pytest.mark.parametrize(
    ("status", "body", "retryable"),
    [
        (401, "", False),
        (403, "", False),
        (404, "", False),
        (400, "", False),
        (302, "", False),
        (200, "", False),
        (408, "", True),
        (429, "", True),
        (429, '{"error": {"code": "insufficient_quota"}}', False),
        (500, "", True),
        (503, "", True),
    ],
)
def test_handshake_statuses(status: int, body: str, retryable: bool) -> None:
    assert status_is_retryable(status, body) is retryable


# --- what the session makes of them


@pytest.mark.parametrize(
    ("code", "action"),
    [
        ("input_audio_buffer_commit_empty", "ignore"),
        ("item_delete_invalid_item_id", "ignore"),
        ("item_retrieve_invalid_item_id", "ignore"),
        ("item_truncate_invalid_item_id", "ignore"),
        ("cannot_update_voice", "ignore"),
        ("response_cancel_not_active", "ignore"),
        ("invalid_event", "alarm"),
        ("unknown_parameter", "alarm"),
        ("missing_required_parameter", "alarm"),
        ("invalid_value", "alarm"),
        ("invalid_type", "alarm"),
        ("rate_limit_exceeded", "alarm"),
        ("brand_new", "alarm"),
    ],
)
def test_the_session_goes_on(code: str, action: str) -> None:
    script = Script().ready().error(code, "why")
    assert script.heard() == [EngineFault(code, "why", action)]  # type: ignore[arg-type]
    script.machine.send_audio(b"\x01")
    assert script.kinds() == ["input_audio_buffer.append"]


@pytest.mark.parametrize(
    ("code", "retryable"),
    [
        ("session_expired", True),
        ("insufficient_quota", False),
        ("invalid_api_key", False),
        ("invalid_model", False),
        ("invalid_intent", False),
        ("beta_api_shape_disabled", False),
    ],
)
@pytest.mark.parametrize("ready", [True, False])
def test_the_session_is_over(code: str, retryable: bool, ready: bool) -> None:
    script = Script()
    if ready:
        script.ready()
    script.error(code, "why")
    assert script.heard() == [Lost(code, "why", retryable=retryable)]


def test_after_the_end_nothing_happens() -> None:
    script = Script().ready().created().error("session_expired").forget()
    machine = script.machine
    machine.send_audio(b"\x01")
    machine.respond()
    machine.add_message("user", "hello?")
    machine.cancel()
    machine.truncate("item_1", 0, 1)
    machine.delete("item_1")
    machine.lose("again", "", retryable=True)
    script.delta().done().error("session_expired")
    assert script.heard() == []
    assert script.sent() == []


def test_a_server_error_about_a_create_is_tried_again_once() -> None:
    script = Script().ready()
    script.machine.respond("Greet.")
    (create,) = script.sent()
    script.error(None, "oops", create["event_id"], kind="server_error")
    assert script.heard() == [EngineFault("server_error", "oops", "retry")]
    (again,) = script.sent()
    assert again["response"] == create["response"]
    script.error(None, "oops", again["event_id"], kind="server_error")
    assert script.heard() == [Lost("server_error", "oops", retryable=True)]
    assert script.sent() == []


def test_a_server_error_about_an_answer_that_nobody_wants_any_more() -> None:
    script = Script().ready()
    script.machine.respond("Greet.")
    (create,) = script.sent()
    script.machine.cancel()
    script.error(None, "oops", create["event_id"], kind="server_error")
    assert script.heard() == [EngineFault("server_error", "oops", "alarm")]
    assert script.sent() == []


def test_a_server_error_about_nothing_is_an_alarm() -> None:
    script = Script().ready().error(None, "oops", kind="server_error")
    assert script.heard() == [EngineFault("server_error", "oops", "alarm")]


def test_an_error_that_is_a_bare_string() -> None:
    script = Script().ready().says("error", error="out of memory")
    assert script.heard() == [EngineFault("unknown", "out of memory", "alarm")]


def test_texts_of_servers_are_cut() -> None:
    script = Script().ready().error("invalid_event", "x" * 100_000)
    (fault,) = script.heard()
    assert isinstance(fault, EngineFault)
    assert len(fault.message) == 300


def test_of_malformed_messages_the_first_is_reported() -> None:
    script = Script().ready()
    for _ in range(100):
        script.machine.receive_malformed("not JSON")
    assert script.heard() == [EngineFault("malformed_event", "not JSON", "ignore")]
    assert script.machine.malformed == 100
