"""The life of responses: one at a time, ours and the server's, and what their events become."""

from __future__ import annotations

from typing import Any

import pytest

from tests.realtime.script import ACTIVE, Script
from voiced.config.types import Agent, RealtimeEngine
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    EngineFault,
    Lost,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    Usage,
)
from voiced.realtime.responses import MAX_QUEUED, MAX_REFUSALS

USAGE = {
    "total_tokens": 410,
    "input_tokens": 300,
    "output_tokens": 110,
    "input_token_details": {
        "text_tokens": 240,
        "audio_tokens": 60,
        "image_tokens": 0,
        "cached_tokens": 128,
        "cached_tokens_details": {"text_tokens": 100, "audio_tokens": 28, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 20, "audio_tokens": 90},
}


def test_a_turn_in_the_usual_order() -> None:
    script = Script().ready()
    buffer = "input_audio_buffer"
    words = "response.output_audio_transcript"
    script.says(f"{buffer}.speech_started", audio_start_ms=1000, item_id="item_0")
    script.says(f"{buffer}.speech_stopped", audio_end_ms=2000, item_id="item_0")
    script.says(f"{buffer}.committed", previous_item_id=None, item_id="item_0")
    script.says("conversation.item.added", item={"id": "item_0"})
    script.created()
    script.says("rate_limits.updated", rate_limits=[])
    script.delta(b"\x01\x02")
    script.says(f"{words}.delta", response_id="resp_1", item_id="item_1", delta="Good ")
    script.audio_done()
    script.says(f"{words}.done", response_id="resp_1", item_id="item_1", transcript="Good day")
    script.done(usage=USAGE)
    usage = Usage(240, 60, 100, 28, 20, 90)
    assert script.heard() == [
        SpeechStarted("item_0", 1000),
        SpeechStopped("item_0", 2000),
        Committed("item_0"),
        ResponseStarted("resp_1"),
        AgentAudio("resp_1", "item_1", 0, b"\x01\x02"),
        AgentTranscript("item_1", "Good ", final=False),
        AgentAudioDone("resp_1", "item_1"),
        AgentTranscript("item_1", "Good day", final=True),
        ResponseDone("resp_1", "completed", None, usage),
    ]
    assert script.sent() == []


def test_content_index_is_kept() -> None:
    script = Script().ready().created()
    for index in (0, 1):
        script.says(
            "response.output_audio.delta",
            response_id="resp_1",
            item_id="item_1",
            content_index=index,
            delta="AA==",
        )
    indices = [event.content_index for event in script.heard() if isinstance(event, AgentAudio)]
    assert indices == [0, 1]


@pytest.mark.parametrize("size", [1, 159, 1024 * 1024])
def test_deltas_of_any_size(size: int) -> None:
    script = Script().ready().created().forget()
    script.delta(bytes(size))
    (event,) = script.heard()
    assert isinstance(event, AgentAudio)
    assert len(event.payload) == size


def test_an_empty_delta_is_none() -> None:
    script = Script().ready().created().forget()
    assert script.delta(b"").heard() == []


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": None}, "many", {"input_tokens": "x"}])
def test_usage_that_is_missing_or_odd_costs_nothing(usage: Any) -> None:
    script = Script().ready().created().forget()
    (done,) = script.done(usage=usage).heard()
    assert isinstance(done, ResponseDone)
    assert done.usage in (None, Usage())


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("cancelled", "turn_detected"),
        ("incomplete", "max_output_tokens"),
        ("incomplete", "content_filter"),
    ],
)
def test_how_a_response_ended(status: str, reason: str) -> None:
    script = Script().ready().created().forget()
    script.done(status=status, status_details={"type": status, "reason": reason})
    (done,) = script.heard()
    assert isinstance(done, ResponseDone)
    assert (done.status, done.reason) == (status, reason)


def test_a_second_done_is_none() -> None:
    script = Script().ready().created().done().forget()
    assert script.done().heard() == []
    assert script.created().heard() == []


def test_respond_while_one_is_active_waits_for_its_end() -> None:
    script = Script().ready().created()
    script.machine.respond("Say goodbye.")
    assert script.sent() == []
    script.delta().audio_done()
    assert script.sent() == []
    script.done()
    (create,) = script.sent()
    assert create["response"] == {"instructions": "Say goodbye."}


def test_one_create_is_outstanding_at_most() -> None:
    script = Script().ready()
    script.machine.respond("one")
    script.machine.respond("two")
    assert len(script.sent()) == 1
    script.created("resp_1")
    assert script.sent() == []
    script.done("resp_1")
    (create,) = script.sent()
    assert create["response"]["instructions"] == "two"


def test_plain_answers_are_asked_for_once() -> None:
    script = Script().ready().created()
    script.machine.respond()
    script.machine.respond()
    script.done().created("resp_2").done("resp_2")
    (create,) = script.sent()
    assert "response" not in create


def test_the_queue_is_bounded() -> None:
    script = Script().ready().created()
    for number in range(MAX_QUEUED + 3):
        script.machine.respond(str(number))
    script.done()
    (create,) = script.sent()
    assert create["response"]["instructions"] == "3"


def test_a_create_that_came_second_is_repeated_after_the_first() -> None:
    script = Script().ready()
    script.machine.respond("Prompt.")
    (create,) = script.sent()
    script.created("resp_vad")  # the server's own; nothing says so
    script.error(
        "conversation_already_has_active_response",
        ACTIVE.format("resp_vad"),
        create["event_id"],
    )
    script.delta(response="resp_vad")
    assert script.sent() == []
    script.done("resp_vad")
    (again,) = script.sent()
    assert again["response"] == create["response"]
    assert again["event_id"] != create["event_id"]
    faults = [event for event in script.heard() if isinstance(event, EngineFault)]
    assert [fault.action for fault in faults] == ["retry"]


def test_a_response_that_was_not_ours_does_not_bring_ours_again() -> None:
    script = Script().ready()
    script.machine.respond("Prompt.")
    (create,) = script.sent()
    script.created("resp_vad").error(None, ACTIVE.format("resp_vad"), create["event_id"])
    script.failed("server_error", response_id="resp_vad")
    asked: list[Any] = []
    for number in range(4):
        asked += [event.get("response") for event in script.sent()]
        script.created(f"resp_{number}").done(f"resp_{number}")
    assert asked == [None, {"instructions": "Prompt."}]


def test_a_create_refused_before_we_saw_the_other_response() -> None:
    script = Script().ready()
    script.machine.respond("Prompt.")
    (create,) = script.sent()
    script.error(None, ACTIVE.format("resp_x"), create["event_id"])
    assert script.sent() == []
    script.created("resp_x")
    assert script.sent() == []
    script.done("resp_x")
    assert script.kinds() == ["response.create"]


def test_a_create_refused_because_of_a_response_that_is_over_is_repeated_at_once() -> None:
    script = Script().ready().created("resp_x").done("resp_x")
    script.machine.respond("Prompt.")
    (create,) = script.sent()
    script.error(None, ACTIVE.format("resp_x"), create["event_id"])
    assert script.kinds() == ["response.create"]


def test_an_error_without_event_id_is_about_the_outstanding_create() -> None:
    script = Script().ready()
    script.machine.respond()
    script.forget()
    script.error(None, "Conversation already has an active response")
    script.done("resp_unseen")
    assert script.kinds() == ["response.create"]


def test_refusals_end_some_time() -> None:
    script = Script().ready()
    script.machine.respond("Prompt.")
    for number in range(MAX_REFUSALS + 1):
        (create,) = script.sent()
        script.error(None, ACTIVE.format("resp_x"), create["event_id"])
        script.created(f"resp_{number}").done(f"resp_{number}")
    assert script.sent() == []
    told = script.heard()
    actions = [event.action for event in told if isinstance(event, EngineFault)]
    assert actions == ["retry"] * MAX_REFUSALS + ["alarm"]
    failed = [event for event in told if isinstance(event, ResponseDone) and event.reason]
    assert [event.status for event in failed] == ["failed"], "whoever waits for it knows"


def test_a_create_that_is_refused_otherwise_makes_room_for_the_next() -> None:
    script = Script().ready()
    script.machine.respond("one")
    script.machine.respond("two")
    (create,) = script.sent()
    script.error("invalid_value", "no", create["event_id"])
    (create,) = script.sent()
    assert create["response"]["instructions"] == "two"


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "invalid_value", "brand_new"])
def test_an_answer_that_is_not_created_has_failed(code: str) -> None:
    """Somebody waits for it, and no other event is going to say so."""
    script = Script().ready()
    script.machine.respond("Greet.")
    (create,) = script.sent()
    script.forget().error(code, "no", create["event_id"])
    begun, failed, told = script.heard()
    assert isinstance(begun, ResponseStarted)
    assert failed == ResponseDone(begun.response_id, "failed", code)
    assert told == EngineFault(code, "no", "alarm")
    assert not script.machine.owing


@pytest.mark.parametrize("what", ["cancelled", "created", "nameless", "another"])
def test_what_is_not_known_to_be_about_an_answer_fails_none(what: str) -> None:
    script = Script().ready()
    script.machine.respond("Greet.")
    (create,) = script.sent()
    if what == "cancelled":
        script.machine.cancel()
    elif what == "created":
        script.created()
    event_ids = {"nameless": None, "another": "voiced_99"}
    script.forget().error("rate_limit_exceeded", "no", event_ids.get(what, create["event_id"]))
    assert script.heard() == [EngineFault("rate_limit_exceeded", "no", "alarm")]


def test_out_of_band_responses_are_not_played_and_block_nothing() -> None:
    script = Script().ready().created("resp_side", conversation_id=None)
    script.delta(response="resp_side").audio_done("resp_side")
    script.says(
        "response.output_audio_transcript.done",
        response_id="resp_side",
        item_id="i",
        transcript="Summary",
    )
    script.machine.respond()
    assert script.kinds() == ["response.create"]
    script.done("resp_side", conversation_id=None)
    assert script.heard() == []


def test_servers_that_name_no_conversation_are_played() -> None:
    script = Script(RealtimeEngine(server="localai")).ready().forget()
    script.created(conversation_id=None).delta()
    assert [type(event) for event in script.heard()] == [ResponseStarted, AgentAudio]


def test_a_response_that_nobody_announced_is_taken_for_begun() -> None:
    script = Script().ready().delta(response="resp_9")
    assert [type(event) for event in script.heard()] == [ResponseStarted, AgentAudio]
    script.delta(response="resp_10")  # but not beside another
    assert script.heard() == []


def test_without_barge_in_voiced_asks_for_the_answer_to_a_turn() -> None:
    script = Script(agent=Agent(barge_in="off")).ready()
    script.says("input_audio_buffer.committed", item_id="item_0")
    assert script.kinds() == ["response.create"]
    script.created()
    script.says("input_audio_buffer.committed", item_id="item_2")
    assert script.sent() == []
    script.done()
    assert script.kinds() == ["response.create"]


def test_transcripts_of_the_caller_come_by_item_and_late() -> None:
    script = Script().ready().created().done().forget()
    told = "conversation.item.input_audio_transcription"
    tokens = {"type": "tokens", "total_tokens": 30, "input_tokens": 20, "output_tokens": 10}
    script.says(f"{told}.delta", item_id="item_2", delta="Mer")
    script.says(f"{told}.completed", item_id="item_0", transcript="Hallo", usage=tokens)
    script.says(f"{told}.delta", item_id="item_0", delta="late")
    script.says(f"{told}.completed", item_id="item_0", transcript="twice", usage=tokens)
    seconds = {"type": "duration", "seconds": 3.2}
    script.says(f"{told}.completed", item_id="item_2", transcript="Merhaba", usage=seconds)
    assert script.heard() == [
        CallerTranscript("item_2", "Mer", final=False),
        CallerTranscript("item_0", "Hallo", True, Usage(transcription_in=20, transcription_out=10)),
        CallerTranscript("item_2", "Merhaba", True, Usage(transcription_s=3.2)),
    ]


def test_a_failed_transcription_is_no_matter() -> None:
    script = Script().ready()
    error = {"type": "transcription_error", "code": "audio_unintelligible", "message": "noise"}
    script.says("conversation.item.input_audio_transcription.failed", item_id="item_0", error=error)
    assert script.heard() == [EngineFault("transcription_failed", "noise", "ignore")]


# --- responses that fail


def test_a_server_error_is_tried_again_once_then_costs_the_session() -> None:
    script = Script().ready()
    script.machine.respond("Greet.")
    script.created().forget()
    script.failed(None, "server_error")
    done, fault = script.heard()
    assert isinstance(done, ResponseDone)
    assert done.status == "failed"
    assert isinstance(fault, EngineFault)
    assert (fault.code, fault.action) == ("server_error", "retry")
    (create,) = script.sent()
    assert create["response"] == {"instructions": "Greet."}
    script.created("resp_2").failed("server_error", response_id="resp_2")
    lost = script.heard()[-1]
    assert isinstance(lost, Lost)
    assert lost.retryable


def test_a_completed_response_forgives() -> None:
    script = Script().ready()
    for number in range(4):
        script.created(f"bad_{number}").failed("server_error", response_id=f"bad_{number}")
        assert script.kinds() == ["response.create"]
        script.created(f"good_{number}").done(f"good_{number}")
    assert not script.machine.lost


def test_a_failed_response_that_was_cancelled_is_not_tried_again() -> None:
    script = Script().ready().created()
    script.machine.cancel()
    script.forget().failed("server_error")
    assert script.sent() == []


def test_rate_limit_alarms_then_costs_the_session() -> None:
    script = Script().ready().created().failed("rate_limit_exceeded")
    fault = script.heard()[-1]
    assert isinstance(fault, EngineFault)
    assert fault.action == "alarm"
    assert script.sent() == []
    script.created("resp_2").failed("rate_limit_exceeded", response_id="resp_2")
    lost = script.heard()[-1]
    assert isinstance(lost, Lost)
    assert lost.retryable


@pytest.mark.parametrize(
    ("code", "kind"), [("insufficient_quota", "x"), (None, "insufficient_quota")]
)
def test_quota_ends_the_session_for_good(code: str | None, kind: str) -> None:
    script = Script().ready().created().failed(code, kind)
    done, lost = script.heard()[-2:]
    assert isinstance(done, ResponseDone)
    assert (done.status, done.reason) == ("failed", "insufficient_quota")
    assert isinstance(lost, Lost)
    assert (lost.code, lost.retryable) == ("insufficient_quota", False)


def test_any_other_failure_is_an_alarm() -> None:
    script = Script().ready().created().forget().failed("brand_new_code")
    assert script.heard()[-1] == EngineFault("brand_new_code", "brand_new_code!", "alarm")
