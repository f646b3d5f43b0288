"""Barge-in in every phase: cancel, truncate, delete, and the races between them."""

from __future__ import annotations

import pytest

from tests.realtime.script import Script
from tests.realtime.test_turns import tone
from voiced.config.types import Agent, OwnVad, RealtimeEngine
from voiced.engine import (
    AgentAudio,
    AgentTranscript,
    Committed,
    EngineEvent,
    EngineFault,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    Usage,
)
from voiced.formats import PCMU_8K
from voiced.realtime.items import GUARD_MS, Items

SECOND = b"\xff" * 8000


def audible(script: Script) -> list[EngineEvent]:
    return [event for event in script.heard() if not isinstance(event, ResponseDone)]


def test_nothing_active_nothing_cancelled() -> None:
    script = Script().ready()
    script.machine.cancel()
    script.created().done()
    script.machine.cancel()
    assert script.sent() == []


def test_cancel_between_create_and_created_is_sent_on_created() -> None:
    script = Script().ready()
    script.machine.respond("Greet.")
    script.forget()
    script.machine.cancel()
    assert script.sent() == []
    script.created()
    (cancel,) = script.sent()
    assert (cancel["type"], cancel["response_id"]) == ("response.cancel", "resp_1")
    script.delta().audio_done().done(status="cancelled")
    assert audible(script) == []


def test_cancel_in_mid_generation_drops_what_comes_late() -> None:
    script = Script().ready().created().delta(SECOND).forget()
    script.machine.cancel()
    script.machine.truncate("item_1", 0, 400)
    cancel, truncate = script.sent()
    assert (cancel["type"], cancel["response_id"]) == ("response.cancel", "resp_1")
    assert truncate["audio_end_ms"] == 400
    script.delta().delta(item="item_2").audio_done()
    words = "response.output_audio_transcript.delta"
    script.says(words, response_id="resp_1", item_id="item_2", delta="x")
    script.done(status="cancelled", status_details={"reason": "client_cancelled"})
    script.delta()
    assert script.heard() == [ResponseDone("resp_1", "cancelled", "client_cancelled")]


@pytest.mark.parametrize("heard", [True, False])
def test_words_of_audio_that_was_told_come_though_it_was_cut(heard: bool) -> None:
    """There are servers that write down what they have said; what nobody heard has no words."""
    script = Script().ready().created().delta(SECOND).forget()
    script.machine.cancel()
    if heard:
        script.machine.truncate("item_1", 0, 400)
    else:
        script.machine.delete("item_1")
    words = "response.output_audio_transcript"
    script.says(f"{words}.delta", response_id="resp_1", item_id="item_1", delta="Good ")
    script.done(status="cancelled")
    script.says(f"{words}.done", response_id="resp_1", item_id="item_1", transcript="Good day")
    done = ResponseDone("resp_1", "cancelled")
    if heard:
        first, last = ("Good ", False), ("Good day", True)
        told = [AgentTranscript("item_1", *each) for each in (first, last)]
        assert script.heard() == [told[0], done, told[1]]
    else:
        assert script.heard() == [done]


def test_cancel_twice_is_once() -> None:
    script = Script().ready().created().forget()
    script.machine.cancel()
    script.machine.cancel()
    assert script.kinds() == ["response.cancel"]


def test_cancel_forgets_what_waits() -> None:
    script = Script().ready().created()
    script.machine.respond("stale prompt")
    script.machine.cancel()
    script.machine.respond("farewell")
    script.forget().done(status="cancelled")
    (create,) = script.sent()
    assert create["response"]["instructions"] == "farewell"


def test_the_servers_own_cancellation() -> None:
    script = Script().ready().created().delta().forget()
    script.says("input_audio_buffer.speech_started", audio_start_ms=5, item_id="item_5")
    script.done(status="cancelled", status_details={"reason": "turn_detected"})
    script.forget().delta().audio_done()
    assert script.heard() == []
    script.machine.cancel()
    assert script.sent() == []


def test_cancel_that_came_too_late_is_a_race() -> None:
    script = Script().ready().created().forget()
    script.machine.cancel()
    (cancel,) = script.sent()
    script.done()
    script.forget()
    message = "Cancellation failed: no active response found"
    script.error("response_cancel_not_active", message, cancel["event_id"])
    assert script.heard() == [EngineFault("response_cancel_not_active", message, "ignore")]


def test_a_done_that_never_came_does_not_block_the_next_answer() -> None:
    script = Script().ready().created().forget()
    script.machine.cancel()
    (cancel,) = script.sent()
    script.machine.respond("next")
    script.error(None, "Cancellation failed: no active response found", cancel["event_id"])
    assert script.kinds() == ["response.create"]
    script.created("resp_2").forget()
    script.done(status="cancelled", usage={"output_tokens": 5})  # it came late: it was not free
    (done,) = script.heard()
    assert isinstance(done, ResponseDone)
    assert done.usage == Usage(text_out=5)
    script.machine.respond("waits for resp_2")
    assert script.sent() == []
    assert script.done().heard() == []


def test_a_cancelled_create_that_is_refused_is_not_repeated() -> None:
    script = Script().ready()
    script.machine.respond("Prompt.")
    (create,) = script.sent()
    script.machine.cancel()
    script.error("conversation_already_has_active_response", "", create["event_id"])
    script.done("resp_other")
    assert script.sent() == []


def test_after_a_cancel_the_next_response_is_heard() -> None:
    script = Script().ready().created()
    script.machine.cancel()
    script.done(status="cancelled").forget()
    script.created("resp_2").delta(response="resp_2", item="item_2")
    assert [type(event) for event in script.heard()] == [ResponseStarted, AgentAudio]


@pytest.mark.parametrize("server", ["speaches", "qwen"])
def test_servers_without_truncate_are_spared_it(server: str) -> None:
    script = Script(RealtimeEngine(server=server)).ready().created().delta(SECOND)  # type: ignore[arg-type]
    script.forget()
    script.machine.truncate("item_1", 0, 5)
    assert script.sent() == []
    assert script.delta().heard() == []


def test_a_server_without_cancel_is_only_not_listened_to() -> None:
    script = Script(RealtimeEngine(server="speaches")).ready().created().forget()
    script.machine.cancel()
    script.machine.respond("next")
    assert script.delta().heard() == []
    assert script.sent() == []
    script.done()
    assert script.kinds() == ["response.create"]


# --- truncate


@pytest.mark.parametrize(
    ("heard_ms", "expected"),
    [(400, 400), (0, 0), (-5, 0), (999, 999), (1000, 999), (5000, 999)],
)
def test_truncate_never_exceeds_what_came(heard_ms: int, expected: int) -> None:
    script = Script().ready().created().delta(SECOND).forget()
    script.machine.truncate("item_1", 0, heard_ms)
    (event,) = script.sent()
    assert event["type"] == "conversation.item.truncate"
    assert (event["item_id"], event["content_index"]) == ("item_1", 0)
    assert event["audio_end_ms"] == expected


@pytest.mark.parametrize("end", ["audio_done", "done"])
def test_all_heard_and_all_there_is_no_truncation(end: str) -> None:
    script = Script().ready().created().delta(SECOND)
    getattr(script, end)()
    script.forget()
    script.machine.truncate("item_1", 0, 1000)
    assert script.sent() == []
    script.machine.truncate("item_1", 0, 999)
    assert script.kinds() == ["conversation.item.truncate"]


def test_truncate_counts_that_item_and_part_only() -> None:
    script = Script().ready().created().delta(SECOND, item="a").delta(SECOND[:80], item="b")
    script.forget()
    script.machine.truncate("b", 0, 700)
    script.machine.truncate("a", 1, 700)
    script.machine.truncate("never seen", 0, 700)
    (event,) = script.sent()
    assert (event["item_id"], event["audio_end_ms"]) == ("b", 10 - GUARD_MS)


def test_pcm_has_48_bytes_a_millisecond_and_rounds_down() -> None:
    script = Script(RealtimeEngine(output_format="pcm")).ready().created()
    script.delta(bytes(48 * 10 + 47)).forget()
    script.machine.truncate("item_1", 0, 10_000)
    (event,) = script.sent()
    assert event["audio_end_ms"] == 10 - GUARD_MS


def test_a_second_truncation_only_goes_down() -> None:
    script = Script().ready().created().delta(SECOND).forget()
    for heard_ms in (500, 600, 500, 400):
        script.machine.truncate("item_1", 0, heard_ms)
    assert [event["audio_end_ms"] for event in script.sent()] == [500, 400]


def test_a_truncation_beyond_the_servers_count_is_repeated_once_and_nothing_goes_mute() -> None:
    script = Script().ready().created().delta(SECOND).done().forget()
    script.machine.truncate("item_1", 0, 990)
    (first,) = script.sent()
    script.error(
        "invalid_value", "Audio content of 915ms is already shorter than 990ms", first["event_id"]
    )
    (second,) = script.sent()
    assert (second["item_id"], second["audio_end_ms"]) == ("item_1", 915)
    script.error(None, "Audio content of 800ms is already shorter than 915ms", second["event_id"])
    assert script.sent() == []
    actions = [event.action for event in script.heard() if isinstance(event, EngineFault)]
    assert actions == ["retry", "ignore"]
    script.machine.send_audio(b"\x01")
    assert script.kinds() == ["input_audio_buffer.append"]
    script.created("resp_2").delta(response="resp_2", item="item_2")
    assert [type(event) for event in script.heard()] == [ResponseStarted, AgentAudio]


@pytest.mark.parametrize("length", ["915.00ms", "915.9ms"])
def test_the_servers_count_is_rounded_down(length: str) -> None:
    script = Script().ready().created().delta(SECOND).forget()
    script.machine.truncate("item_1", 0, 990)
    script.forget().error(None, f"Audio content of {length} is already shorter than 990ms")
    (event,) = script.sent()
    assert event["audio_end_ms"] == 915


@pytest.mark.parametrize("length", ["9999", "990", "99999999999999999999"])
def test_a_count_that_makes_no_sense_is_not_followed(length: str) -> None:
    script = Script().ready().created().delta(SECOND).forget()
    script.machine.truncate("item_1", 0, 990)
    script.forget().error(None, f"Audio content of {length}ms is already shorter than 990ms")
    assert script.sent() == []


# --- delete


def test_delete_drops_late_audio_and_happens_once() -> None:
    script = Script().ready().created().delta().forget()
    script.machine.delete("item_1")
    script.machine.delete("item_1")
    (event,) = script.sent()
    assert (event["type"], event["item_id"]) == ("conversation.item.delete", "item_1")
    script.delta().audio_done().delta(item="item_2")
    assert [event.item_id for event in script.heard() if isinstance(event, AgentAudio)] == [
        "item_2"
    ]


def test_a_deleted_item_is_not_truncated() -> None:
    script = Script().ready().created().delta(SECOND).forget()
    script.machine.delete("item_1")
    script.machine.truncate("item_1", 0, 5)
    assert script.kinds() == ["conversation.item.delete"]


def test_a_second_item_behind_the_one_that_plays() -> None:
    script = Script().ready().created().delta(SECOND, item="a").delta(SECOND, item="b").done()
    script.forget()
    script.machine.cancel()
    script.machine.truncate("a", 0, 300)
    script.machine.delete("b")
    assert script.kinds() == ["conversation.item.truncate", "conversation.item.delete"]


def test_old_items_are_forgotten() -> None:
    items = Items()
    for number in range(1000):
        items.received("resp", f"item_{number}", 0, 8000)
    assert items.received_ms("item_0", 0, 8) == 0
    assert items.received_ms("item_999", 0, 8) == 1000


# --- refused truncations and deletions ---------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("invalid_value", "Only model output audio messages can be truncated.", "x"),
        ("server_error", "The server had an error.", "server_error"),
        ("item_truncate_invalid_item_id", "no such item", "x"),
        (None, "Audio content of 5ms is already shorter than 400ms", "x"),
    ],
)
def test_refused_truncations_cost_neither_the_session_nor_the_next_answer(
    code: str | None, message: str, kind: str
) -> None:
    script = Script().ready()
    for number in range(4):
        script.created(f"resp_{number}").delta(SECOND, f"resp_{number}", f"item_{number}")
        script.machine.cancel()
        script.forget()
        script.machine.truncate(f"item_{number}", 0, 400)
        script.machine.respond()
        (truncate,) = script.sent()
        script.error(code, message, truncate["event_id"], kind=kind)
        script.done(f"resp_{number}", "cancelled")
        assert script.kinds()[-1] == "response.create"
    assert script.machine.ready


@pytest.mark.parametrize("param", ["item_id", None])
def test_a_refused_truncation_without_event_id_does_not_swallow_an_outstanding_answer(
    param: str | None,
) -> None:
    script = Script().ready().created().delta(SECOND).done().forget()
    script.machine.truncate("item_1", 0, 400)
    script.machine.respond("Go on.")
    script.forget()
    script.error("invalid_value", "Error truncating item", param=param)
    assert script.machine.owing
    script.created("resp_2").delta(response="resp_2", item="item_2")
    assert [type(event) for event in script.heard()] == [EngineFault, ResponseStarted, AgentAudio]


def test_a_refused_deletion_is_passed_over() -> None:
    script = Script().ready()
    script.machine.delete("item_of_the_caller")
    script.machine.respond()
    delete, _ = script.sent()
    script.error("server_error", "no", delete["event_id"], kind="server_error")
    assert script.machine.owing
    (fault,) = script.heard()
    assert isinstance(fault, EngineFault)
    assert fault.action == "ignore"


# --- barge-in that the call decides about ------------------------------------------------------


def test_with_confirm_the_server_neither_interrupts_nor_answers() -> None:
    script = Script(agent=Agent(barge_in="confirm"))
    script.says("session.created", session={})
    (update,) = script.sent()
    detection = update["session"]["audio"]["input"]["turn_detection"]
    assert detection["type"] == "server_vad"
    assert detection["create_response"] is detection["interrupt_response"] is False


def test_with_confirm_a_turn_is_told_and_nothing_done_about_it() -> None:
    script = Script(agent=Agent(barge_in="confirm")).ready().created().delta().forget()
    buffer = "input_audio_buffer"
    script.says(f"{buffer}.speech_started", audio_start_ms=5, item_id="item_5")
    script.says(f"{buffer}.speech_stopped", audio_end_ms=900, item_id="item_5")
    script.says(f"{buffer}.committed", item_id="item_5")
    assert [type(event) for event in script.heard()] == [SpeechStarted, SpeechStopped, Committed]
    script.delta().done()
    assert script.sent() == []
    assert not script.machine.owing
    assert AgentAudio in [type(event) for event in script.heard()]  # it went on
    script.machine.delete("item_5")  # it was a cough
    assert script.kinds() == ["conversation.item.delete"]


def test_with_confirm_our_own_endpointing_commits_and_asks_for_nothing() -> None:
    agent = Agent(barge_in="confirm", turn_detection=OwnVad(silence_ms=100))
    script = Script(agent=agent).ready().created().forget()
    script.machine.send_audio(tone(400) + PCMU_8K.silence(400))
    kinds = set(script.kinds())
    assert kinds == {"input_audio_buffer.append", "input_audio_buffer.commit"}
    assert [type(event) for event in script.heard()] == [SpeechStarted, SpeechStopped]
    script.delta().done()
    assert AgentAudio in [type(event) for event in script.heard()]
    assert script.sent() == []
