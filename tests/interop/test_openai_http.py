"""The official `openai` SDK uses the emulator's HTTP API: transcription, chat, speech."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from openai.types.chat.chat_completion import Choice

from tests.interop.test_openai_sdk import with_client
from voiced import audio, clips, wav
from voiced.emulator.options import EmulatorOptions, Faults
from voiced.formats import PCM16_8K, PCM16_16K, PCMU_8K, AudioFormat

pytestmark = pytest.mark.interop

OPTIONS = EmulatorOptions(
    speech="clips", api_key="sk-test", realtime_factor=100, think_ms=10, transcription_ms=10
)
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "book_appointment",
            "description": "Puts an appointment into the calendar.",
            "parameters": {
                "type": "object",
                "properties": {"when": {"type": "string"}, "minutes": {"type": "integer"}},
                "required": ["when"],
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "opening_hours", "description": "Tells when we are open."},
    },
]
APPOINTMENT: Any = {"role": "user", "content": clips.load("appointment").text}


async def run(use: Callable[[OpenAI], None], options: EmulatorOptions = OPTIONS) -> None:
    def without_retries(client: OpenAI) -> None:
        use(client.with_options(max_retries=0))

    await with_client(options, without_retries)


def faulty(**faults: Any) -> EmulatorOptions:
    return EmulatorOptions(speech="clips", think_ms=10, faults=Faults(**faults))


def spoken(name: str, fmt: AudioFormat = PCM16_16K) -> bytes:
    """A WAV file of a caller's line between two silences."""
    pcm = bytes(16 * 300) + clips.load(name).pcm + bytes(16 * 500)
    data = audio.convert(pcm, PCM16_8K, fmt)
    return wav.header(fmt, 1, len(data)) + data


# --- speech to text -----------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", [PCM16_8K, PCM16_16K, PCMU_8K], ids=str)
@pytest.mark.parametrize("name", ["hours", "hours_tr", "thanks_ja"])
async def test_what_is_spoken_is_written_down(name: str, fmt: AudioFormat) -> None:
    def use(client: OpenAI) -> None:
        told = client.audio.transcriptions.create(
            file=("speech.wav", spoken(name, fmt)),
            model="gpt-4o-mini-transcribe",
            language=clips.load(name).language,
            prompt="Acme",
        )
        assert told.text == clips.load(name).text
        assert told.usage is not None
        assert told.usage.type == "tokens"
        assert told.usage.output_tokens > 0

    await run(use)


async def test_forms_of_a_transcript() -> None:
    expected = clips.load("hours").text

    def use(client: OpenAI) -> None:
        create = client.audio.transcriptions.create
        file = ("speech.wav", spoken("hours"))
        text: Any = create(file=file, model="whisper-1", response_format="text")
        assert text == expected + "\n"
        verbose = create(file=file, model="whisper-1", response_format="verbose_json")
        assert verbose.text == expected
        assert verbose.duration == pytest.approx(0.8 + clips.load("hours").duration_ms / 1000, 0.1)
        events = list(create(file=file, model="gpt-4o-transcribe", stream=True))
        words = [event.delta for event in events if event.type == "transcript.text.delta"]
        assert "".join(words) == expected
        assert events[-1].type == "transcript.text.done"
        assert events[-1].text == expected
        noise = wav.header(PCM16_8K, 1, 32000) + bytes(32000)
        assert create(file=("silence.wav", noise), model="whisper-1").text == ""

    await run(use)


async def test_files_that_cannot_be_transcribed() -> None:
    def use(client: OpenAI) -> None:
        create = client.audio.transcriptions.create
        for content, text in (
            (b"\xff\xfb\x90\x00" * 100, "WAV"),
            (wav.header(PCM16_8K, 1, 160) + bytes(160), "too short"),
        ):
            with pytest.raises(openai.BadRequestError, match=text) as refused:
                create(file=("x.mp3", content), model="whisper-1")
            assert refused.value.param == "file"
        with pytest.raises(openai.BadRequestError, match="response_format"):
            create(file=("x.wav", spoken("hours")), model="whisper-1", response_format="srt")

    await run(use)


# --- chat ---------------------------------------------------------------------------------------


async def test_an_answer_in_one_piece_and_as_a_stream() -> None:
    expected = clips.load("opening_hours").text
    messages: Any = [
        {"role": "system", "content": "You answer the telephone."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": clips.load("hours").text},
    ]

    def use(client: OpenAI) -> None:
        whole = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
        assert whole.choices[0].message.content == expected
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        assert whole.usage.prompt_tokens > 0
        stream = client.chat.completions.create(
            model="gpt-4o-mini",
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            max_completion_tokens=400,
            temperature=0.3,
        )
        chunks = list(stream)
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert len(pieces) > 10
        assert "".join(pieces) == expected
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage == whole.usage

    await run(use)


async def test_an_answer_is_cut_at_the_token_limit() -> None:
    messages: Any = [{"role": "user", "content": clips.load("hours").text}]

    def use(client: OpenAI) -> None:
        cut = client.chat.completions.create(model="m", messages=messages, max_tokens=5)
        assert cut.choices[0].finish_reason == "length"
        assert cut.choices[0].message.content == "We are open from "

    await run(use)


def only_call(choice: Choice) -> ChatCompletionMessageFunctionToolCall:
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    return call


async def test_a_tool_is_called_and_its_result_answered() -> None:
    def use(client: OpenAI) -> None:
        create = client.chat.completions.create
        first = create(model="m", messages=[APPOINTMENT], tools=TOOLS).choices[0]
        assert first.finish_reason == "tool_calls"
        assert first.message.content is None
        call = only_call(first)
        assert call.function.name == "book_appointment"
        assert json.loads(call.function.arguments) == {"when": "tomorrow morning"}

        parts = [
            chunk.choices[0]
            for chunk in create(model="m", messages=[APPOINTMENT], tools=TOOLS, stream=True)
        ]
        deltas = [part.delta.tool_calls[0] for part in parts if part.delta.tool_calls]
        assert deltas[0].id
        assert deltas[0].function is not None
        assert deltas[0].function.name == "book_appointment"
        arguments = "".join((d.function and d.function.arguments) or "" for d in deltas)
        assert arguments == call.function.arguments
        assert parts[-1].finish_reason == "tool_calls"

        result: Any = {"role": "tool", "tool_call_id": call.id, "content": '{"answer": "At ten."}'}
        history: Any = [APPOINTMENT, first.message.to_dict(), result]
        last = create(model="m", messages=history, tools=TOOLS).choices[0]
        assert last.message.content == "At ten."
        assert last.message.tool_calls is None
        never = create(model="m", messages=[APPOINTMENT], tools=TOOLS, tool_choice="none")
        assert never.choices[0].message.content == clips.load("appointment_made").text
        forced: Any = {"type": "function", "function": {"name": "opening_hours"}}
        chosen = create(model="m", messages=[APPOINTMENT], tools=TOOLS, tool_choice=forced)
        call = only_call(chosen.choices[0])
        assert (call.function.name, call.function.arguments) == ("opening_hours", "{}")

    await run(use)


async def test_conversations_that_the_service_would_refuse() -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    asked = {"role": "assistant", "content": None, "tool_calls": calls}
    result = {"role": "tool", "tool_call_id": "c", "content": "x"}
    bad: Any = [
        [asked],
        [result],
        [asked, result, result],
        [asked, {"role": "user", "content": "?"}],
        [],
    ]

    def use(client: OpenAI) -> None:
        for messages in bad:
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(model="m", messages=messages)
        with pytest.raises(openai.BadRequestError, match="Unknown parameter: 'max_output'"):
            client.chat.completions.create(
                model="m", messages=[APPOINTMENT], extra_body={"max_output": 1}
            )

    await run(use)


async def test_a_summary_as_json() -> None:
    prompt = 'Answer with JSON: {"summary": "…", "sentiment": "…", "topics": ["…"]}'
    messages: Any = [{"role": "system", "content": prompt}, APPOINTMENT]

    def use(client: OpenAI) -> None:
        told = client.chat.completions.create(model="m", messages=messages)
        summary = json.loads(told.choices[0].message.content or "")
        assert set(summary) == {"summary", "sentiment", "topics"}
        assert "appointment" in summary["summary"]
        assert "appointment" in summary["topics"]

    await run(use)


# --- text to speech -----------------------------------------------------------------------------


async def test_speech_comes_in_pieces() -> None:
    clip = clips.load("opening_hours")

    def use(client: OpenAI) -> None:
        with client.audio.speech.with_streaming_response.create(
            model="gpt-4o-mini-tts", voice="marin", input=clip.text, response_format="pcm"
        ) as response:
            assert response.headers["content-type"] == "audio/pcm"
            pieces = list(response.iter_bytes())
        assert len(pieces) > 10
        pcm = b"".join(pieces)
        assert len(pcm) // 48 == pytest.approx(clip.duration_ms, abs=10)
        whole = client.audio.speech.create(
            model="tts-1", voice="alloy", input=clip.text, response_format="wav"
        )
        with wave.open(io.BytesIO(whole.content)) as file:
            assert (file.getframerate(), file.getnchannels()) == (24000, 1)
            assert file.readframes(file.getnframes()) == pcm

    await run(use)


async def test_a_sentence_of_a_recording_is_its_part_of_it() -> None:
    clip = clips.load("opening_hours")
    sentences = [s.strip() + "." for s in clip.text.removesuffix("?").split(".")][:3]
    lengths: list[int] = []

    def use(client: OpenAI) -> None:
        for sentence in sentences:
            spoken = client.audio.speech.create(
                model="tts-1", voice="alloy", input=sentence, response_format="pcm"
            )
            lengths.append(len(spoken.content) // 48)

    await run(use)
    for sentence, length in zip(sentences, lengths, strict=True):
        share = len(sentence) / len(clip.text)
        assert length == pytest.approx(share * clip.duration_ms, rel=0.4)


async def test_speech_that_cannot_be_made() -> None:
    def use(client: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="pcm") as refused:
            client.audio.speech.create(model="tts-1", voice="alloy", input="Hello")
        assert refused.value.param == "response_format"
        with pytest.raises(openai.BadRequestError, match="input"):
            client.audio.speech.create(
                model="tts-1", voice="alloy", input=" ", response_format="pcm"
            )

    await run(use)


# --- what goes wrong ----------------------------------------------------------------------------


async def test_a_wrong_key() -> None:
    def use(client: OpenAI) -> None:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.chat.completions.create(model="m", messages=[APPOINTMENT])
        assert refused.value.code == "invalid_api_key"

    await run(use, EmulatorOptions(speech="clips", api_key="another"))


async def test_quota() -> None:
    def use(client: OpenAI) -> None:
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="m", messages=[APPOINTMENT])
        assert refused.value.code == "insufficient_quota"

    await run(use, faulty(quota=True))


async def test_each_step_fails_as_told_and_recovers() -> None:
    def use(client: OpenAI) -> None:
        def hear() -> Any:
            return client.audio.transcriptions.create(file=("x.wav", spoken("hours")), model="m")

        def think() -> Any:
            return client.chat.completions.create(model="m", messages=[APPOINTMENT])

        def speak() -> Any:
            return client.audio.speech.create(
                model="m", voice="v", input="Hello", response_format="pcm"
            )

        for step, error in (
            (hear, openai.InternalServerError),
            (think, openai.RateLimitError),
            (speak, openai.APIConnectionError),
        ):
            with pytest.raises(error):
                step()
            assert step() is not None

    await run(use, faulty(stt_status=503, chat_status=429, tts_cut_bytes=3000, faulty_requests=1))


async def test_a_stream_that_is_cut() -> None:
    def use(client: OpenAI) -> None:
        stream = client.chat.completions.create(model="m", messages=[APPOINTMENT], stream=True)
        with stream, pytest.raises(openai.APIConnectionError):
            list(stream)

    await run(use, faulty(chat_cut_bytes=1500))
