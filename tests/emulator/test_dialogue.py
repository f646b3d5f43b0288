from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.emulator.peer import Peer, error, kinds
from voiced import clips
from voiced.emulator.hearing import to_pcm_8k
from voiced.emulator.options import Faults
from voiced.formats import PCM16_8K

MESSAGE: dict[str, Any] = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "What are your opening hours?"}],
}
VAD = {"type": "server_vad"}


def speech(name: str = "hours", before_ms: int = 1000, after_ms: int = 1000) -> bytes:
    """A caller's line in mu-law between silences."""
    from voiced import audio
    from voiced.formats import PCMU_8K

    converter = audio.converter(PCM16_8K, PCMU_8K)
    assert converter is not None
    pcm = bytes(16 * before_ms) + clips.load(name).pcm + bytes(16 * after_ms)
    return bytes(converter.convert(pcm) + converter.flush())


def test_a_turn_by_server_vad_in_the_order_of_a_real_server() -> None:
    peer = Peer()
    peer.pcmu(VAD)
    events = []
    audio = speech()
    for start in range(0, len(audio), 160):
        events += peer.append(audio[start : start + 160])
    assert kinds(events) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    started, stopped, committed, added, _ = events
    assert abs(started["audio_start_ms"] - 700) <= 40
    assert abs(stopped["audio_end_ms"] - (1000 + clips.load("hours").duration_ms + 500)) <= 60
    assert {e.get("item_id", added["item"]["id"]) for e in events} == {committed["item_id"]}
    (item,) = peer.dialogue.heard()
    assert item.audio_ms == stopped["audio_end_ms"] - started["audio_start_ms"]
    (response,) = peer.dialogue.responses.due()
    response.begin()
    response.open_message()
    response.speak(bytes(1600), "Hello")
    response.finish("completed")
    assert kinds(peer.read()) == [
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio.delta",
        "response.output_audio_transcript.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]


@pytest.mark.parametrize("silence", [200, 1000, 1500])
@pytest.mark.parametrize("padding", [0, 600])
def test_silence_and_padding_are_honoured(silence: int, padding: int) -> None:
    peer = Peer()
    peer.pcmu({**VAD, "silence_duration_ms": silence, "prefix_padding_ms": padding})
    started, stopped, *_ = peer.append(speech(after_ms=2000))
    assert abs(started["audio_start_ms"] - (1000 - padding)) <= 40
    end = 1000 + clips.load("hours").duration_ms + silence
    assert abs(stopped["audio_end_ms"] - end) <= 60


def test_the_threshold_is_honoured() -> None:
    quiet = bytes(0x7F - (0x7F - b) // 3 if b < 0x80 else 0xFF - (0xFF - b) // 3 for b in speech())
    peer = Peer()
    peer.pcmu({**VAD, "threshold": 1.0})
    assert peer.append(quiet) == []
    peer = Peer()
    peer.pcmu({**VAD, "threshold": 0.1})
    assert kinds(peer.append(quiet))[0] == "input_audio_buffer.speech_started"


def test_eagerness_is_a_silence() -> None:
    peer = Peer()
    peer.pcmu({"type": "semantic_vad", "eagerness": "high"})
    assert kinds(peer.append(speech(after_ms=1500))) == ["input_audio_buffer.speech_started"]
    assert "input_audio_buffer.committed" in kinds(peer.append(b"\xff" * 8000))


def test_speech_interrupts_a_response() -> None:
    peer = Peer()
    peer.pcmu(VAD)
    response = peer.respond()
    response.begin()
    response.open_message()
    response.speak(bytes(8000), "Once upon")
    peer.read()
    events = peer.append(speech(after_ms=0))
    assert events[0]["type"] == "input_audio_buffer.speech_started"
    done = events[-1]["response"]
    assert events[-1]["type"] == "response.done"
    assert done["status"] == "cancelled"
    assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert done["output"][0]["status"] == "incomplete"
    assert not response.speak(bytes(100))
    assert peer.read() == []


def test_events_only_when_told_to_neither_answer_nor_interrupt() -> None:
    peer = Peer()
    peer.pcmu({**VAD, "create_response": False, "interrupt_response": False})
    response = peer.respond()
    response.begin()
    peer.read()
    assert kinds(peer.append(speech()))[-1] == "conversation.item.done"
    assert peer.dialogue.responses.active is response
    assert peer.dialogue.responses.due() == []


def test_a_turn_while_an_uninterruptible_answer_runs_gets_none() -> None:
    peer = Peer()
    peer.pcmu({**VAD, "interrupt_response": False})
    peer.respond().begin()
    peer.read()
    *_, last = peer.append(speech())
    assert last["error"]["code"] == "conversation_already_has_active_response"
    assert last["error"]["event_id"] is None


def test_manual_turns() -> None:
    peer = Peer()
    peer.pcmu(None)
    assert peer.append(speech()) == []
    assert kinds(peer.send("input_audio_buffer.commit")) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert peer.dialogue.responses.due() == []
    (item,) = peer.dialogue.heard()
    assert item.audio_ms == len(speech()) // 8


def test_too_short_a_commit() -> None:
    peer = Peer()
    peer.pcmu(None)
    peer.append(bytes(8 * 60))
    assert error(peer.send("input_audio_buffer.commit")) == (
        "input_audio_buffer_commit_empty",
        "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
        "but buffer only has 60.00ms of audio.",
        None,
    )
    assert kinds(peer.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    peer.append(bytes(8 * 99))
    assert "99.00ms" in error(peer.send("input_audio_buffer.commit"))[1]


def test_the_buffer_is_bounded() -> None:
    peer = Peer()
    peer.pcmu(None)
    assert peer.append(bytes(15 * 1024 * 1024)) == []
    assert error(peer.append(b"1"))[0] == "input_audio_buffer_full"
    peer = Peer()
    peer.pcmu(VAD)
    for _ in range(200):
        peer.append(b"\xff" * 8000)
    assert peer.dialogue.buffer.buffered_ms < 3000
    assert peer.dialogue.buffer.end_ms == 200_000


def test_a_turn_that_never_ends_loses_its_beginning_not_the_session() -> None:
    peer = Peer()
    peer.pcmu(VAD)
    talk = speech("appointment", before_ms=0, after_ms=0) * 10
    for _ in range(15):
        peer.append(talk)
    assert peer.dialogue.buffer.speaking
    assert peer.dialogue.buffer.buffered_ms < 300_000
    assert "input_audio_buffer.committed" in kinds(peer.append(b"\xff" * 8000))
    (item,) = peer.dialogue.heard()
    assert 100_000 < item.audio_ms < 300_000


def test_24_khz_is_heard_too() -> None:
    peer = Peer()
    peer.update(audio={"input": {"turn_detection": VAD}})
    from voiced import audio
    from voiced.formats import PCM16_24K

    converter = audio.converter(PCM16_8K, PCM16_24K)
    assert converter is not None
    pcm = converter.convert(bytes(16000) + clips.load("hours").pcm + bytes(16000))
    events = []
    for start in range(0, len(pcm), 961):  # odd: samples are cut in two
        events += peer.append(pcm[start : start + 961])
    assert kinds(events)[:2] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
    ]
    assert abs(events[0]["audio_start_ms"] - 700) <= 40


def test_one_response_at_a_time_but_others_beside_it() -> None:
    peer = Peer()
    first = peer.respond()
    first.begin()
    peer.read()
    code, message, _ = error(peer.send("response.create", event_id="e"))
    assert code == "conversation_already_has_active_response"
    assert message == (
        f"Conversation already has an active response in progress: {first.id}. "
        "Wait until the response is finished before creating a new one."
    )
    side = peer.respond(conversation="none", input=[MESSAGE], metadata={"purpose": "summary"})
    side.begin()
    created = peer.read()[0]["response"]
    assert (created["conversation_id"], created["metadata"]) == (None, {"purpose": "summary"})
    side.open_message()
    side.speak(b"12345678")
    side.finish("completed")
    assert not any(kind.startswith("conversation.") for kind in kinds(peer.read()))
    assert len(peer.dialogue.conversation) == 0


def test_cancel() -> None:
    peer = Peer()
    none = ("response_cancel_not_active", "Cancellation failed: no active response found", None)
    assert error(peer.send("response.cancel")) == none
    response = peer.respond()
    assert error(peer.send("response.cancel")) == none  # before response.created it does nothing
    response.begin()
    peer.read()
    assert error(peer.send("response.cancel", response_id="resp_other")) == none
    (done,) = peer.send("response.cancel", response_id=response.id)
    assert done["response"]["status_details"]["reason"] == "client_cancelled"
    assert peer.dialogue.responses.active is None


def test_truncate() -> None:
    peer = Peer()
    item_id = peer.spoken(1000)

    def truncate(end: int, index: int = 0, item: str = item_id) -> list[dict[str, Any]]:
        return peer.send(
            "conversation.item.truncate", item_id=item, content_index=index, audio_end_ms=end
        )

    assert error(truncate(1060)) == (
        "invalid_value",
        "Audio content of 1000ms is already shorter than 1060ms",
        "audio_end_ms",
    )
    assert error(truncate(-1))[::2] == ("invalid_value", "audio_end_ms")
    assert error(truncate(10, index=1))[::2] == ("invalid_value", "content_index")
    assert error(truncate(10, item="item_x"))[0] == "item_truncate_invalid_item_id"
    assert kinds(truncate(400)) == ["conversation.item.truncated"]
    assert error(truncate(500))[1] == "Audio content of 400ms is already shorter than 500ms"
    (event,) = peer.send("conversation.item.retrieve", item_id=item_id)
    (content,) = event["item"]["content"]
    assert "transcript" not in content
    assert len(base64.b64decode(content["audio"])) == 400 * 48
    assert kinds(truncate(0)) == ["conversation.item.truncated"]


def test_only_an_assistants_audio_is_truncated() -> None:
    peer = Peer()
    item_id = peer.send("conversation.item.create", item=MESSAGE)[0]["item"]["id"]
    refused = peer.send(
        "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=0
    )
    assert error(refused)[::2] == ("invalid_value", "item_id")


def test_items_have_an_order() -> None:
    peer = Peer()

    def create(item_id: str, **after: str) -> list[dict[str, Any]]:
        return peer.send("conversation.item.create", item={**MESSAGE, "id": item_id}, **after)

    added, done = create("b")
    assert (added["type"], done["type"]) == ("conversation.item.added", "conversation.item.done")
    assert added["previous_item_id"] is None
    assert create("d")[0]["previous_item_id"] == "b"
    assert create("c", previous_item_id="b")[0]["previous_item_id"] == "b"
    assert create("a", previous_item_id="root")[0]["previous_item_id"] is None
    assert [item.id for item in peer.dialogue.conversation] == ["a", "b", "c", "d"]
    code = "item_create_invalid_previous_item_id"
    assert error(create("e", previous_item_id="zz"))[0] == code
    assert error(create("a"))[0] == "item_create_duplicate_item_id"
    assert kinds(peer.send("conversation.item.delete", item_id="b")) == [
        "conversation.item.deleted"
    ]
    gone = peer.send("conversation.item.delete", item_id="b")
    assert error(gone)[0] == "item_delete_invalid_item_id"
    gone = peer.send("conversation.item.retrieve", item_id="b")
    assert error(gone)[0] == "item_retrieve_invalid_item_id"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "message", "role": "system"}, "item.content"),
        ({"type": "message", "role": "judge", "content": []}, "item.role"),
        ({"type": "message", "content": []}, "item.role"),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "x"}]},
            "item.content[0].type",
        ),
        ({"type": "function_call_output", "call_id": "c", "output": "x"}, "item.call_id"),
        ({"type": "poem"}, "item.type"),
        ({"type": "item_reference", "id": "x"}, "item.type"),
    ],
)
def test_impossible_items(item: dict[str, Any], param: str) -> None:
    assert error(Peer().send("conversation.item.create", item=item))[2] == param


def test_history_can_be_given_and_a_tools_result_too() -> None:
    peer = Peer()
    for role, kind in (("assistant", "output_text"), ("system", "input_text")):
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": "Hi"}]}
        assert len(peer.send("conversation.item.create", item=item)) == 2
    response = peer.respond(tools=[{"type": "function", "name": "lookup"}])
    response.begin()
    response.call("lookup", '{"who":1}')
    response.finish("completed")
    peer.dialogue.responses.released(response)
    events = peer.read()
    done = next(e for e in events if e["type"] == "response.function_call_arguments.done")
    assert (done["name"], done["arguments"]) == ("lookup", '{"who":1}')
    output = {"type": "function_call_output", "call_id": done["call_id"], "output": "{}"}
    assert kinds(peer.send("conversation.item.create", item=output))[0] == "conversation.item.added"


def test_usage_is_a_token_per_100_ms_heard_and_per_50_ms_spoken() -> None:
    peer = Peer()
    peer.pcmu(None)
    peer.update(instructions="x" * 400)
    peer.append(bytes(8 * 2050))
    peer.send("input_audio_buffer.commit")
    response = peer.respond()
    response.begin()
    response.open_message()
    response.speak(bytes(8 * 1040), "y" * 20)
    response.finish("completed")
    peer.dialogue.responses.released(response)
    usage = peer.read()[-1]["response"]["usage"]
    assert usage["input_token_details"] == {
        "text_tokens": 100,
        "audio_tokens": 21,
        "image_tokens": 0,
        "cached_tokens": 0,
        "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
    }
    assert usage["output_token_details"] == {"text_tokens": 5, "audio_tokens": 21}
    assert usage["total_tokens"] == 100 + 21 + 5 + 21
    second = peer.respond()  # reads all that again, its prefix from the cache
    second.begin()
    second.finish("completed")
    usage = peer.read()[-1]["response"]["usage"]
    assert usage["input_token_details"]["audio_tokens"] == 21 + 21
    assert usage["input_token_details"]["cached_tokens_details"]["text_tokens"] == 64


def test_max_output_tokens_ends_a_response() -> None:
    peer = Peer()
    response = peer.respond(max_output_tokens=10)
    response.begin()
    response.open_message()
    assert response.speak(bytes(48 * 400))
    assert not response.speak(bytes(48 * 400))
    done = peer.read()[-1]["response"]
    assert (done["status"], done["status_details"]["reason"]) == ("incomplete", "max_output_tokens")


def test_text_answers() -> None:
    peer = Peer()
    response = peer.respond(output_modalities=["text"])
    response.begin()
    response.open_message()
    response.write("Good ")
    response.write("day")
    response.finish("completed")
    events = peer.read()
    assert [e["delta"] for e in events if e["type"] == "response.output_text.delta"] == [
        "Good ",
        "day",
    ]
    assert events[-1]["response"]["output"][0]["content"] == [
        {"type": "output_text", "text": "Good day"}
    ]


@pytest.mark.parametrize(("transcript", "last"), [("Two words", "completed"), (None, "failed")])
def test_transcripts(transcript: str | None, last: str) -> None:
    peer = Peer()
    peer.pcmu(None)
    peer.append(bytes(8 * 2000))
    peer.send("input_audio_buffer.commit")
    (item,) = peer.dialogue.heard()
    peer.dialogue.transcribed(item, transcript)
    assert peer.read() == []  # nobody has asked for transcripts
    peer.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
    peer.dialogue.transcribed(item, transcript)
    events = peer.read()
    assert events[-1]["type"] == f"conversation.item.input_audio_transcription.{last}"
    assert "".join(e["delta"] for e in events[:-1]) == (transcript or "")


def test_faults_in_answers() -> None:
    peer = Peer(Faults(duplicate_deltas=True, late_deltas=2, usage_null=True))
    response = peer.respond()
    response.begin()
    response.open_message()
    response.speak(bytes(480))
    assert kinds(peer.read()).count("response.output_audio.delta") == 2
    events = peer.send("response.cancel")
    assert kinds(events)[:2] == ["response.output_audio.delta"] * 2
    assert kinds(events)[-1] == "response.output_audio.delta"
    done = next(e for e in events if e["type"] == "response.done")
    assert done["response"]["usage"] is None


def test_a_failed_response_tells_the_quota() -> None:
    peer = Peer()
    response = peer.respond()
    response.finish("failed", "insufficient_quota")
    events = peer.read()
    assert events[0]["type"] == "response.created"
    body = events[-1]["response"]
    assert body["status_details"]["error"]["code"] == "insufficient_quota"
    assert body["usage"] is None


def test_rejections_on_demand() -> None:
    peer = Peer(Faults(reject_update="session.audio", reject_truncate=True, silent=True))
    assert error(peer.update())[::2] == ("unknown_parameter", "session.audio")
    refused = peer.send("conversation.item.truncate", item_id="i", content_index=0, audio_end_ms=9)
    assert "already shorter" in error(refused)[1]
    assert peer.send("response.create") == []
    assert peer.dialogue.responses.due() == []


def test_an_idle_caller_is_reported_and_answered() -> None:
    peer = Peer()
    peer.pcmu({**VAD, "idle_timeout_ms": 5000})
    peer.append(b"\xff" * 8000)
    peer.dialogue.caller_silent()
    events = peer.read()
    assert kinds(events)[:2] == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
    ]
    assert events[0]["audio_end_ms"] == 1000
    assert len(peer.dialogue.responses.due()) == 1


def test_conversion_of_a_turn_for_recognition() -> None:
    assert to_pcm_8k(b"\x01\x02", PCM16_8K) == b"\x01\x02"
