"""The part of a session that takes time: it listens, thinks, and speaks at a settable pace."""

from __future__ import annotations

from typing import Final, Protocol

import trio

from voiced import audio, clips
from voiced.emulator.answers import Call, choose, pieces, wanted_call
from voiced.emulator.dialogue import Dialogue
from voiced.emulator.hearing import to_pcm_8k
from voiced.emulator.items import Item
from voiced.emulator.options import EmulatorOptions
from voiced.emulator.recognise import recognise
from voiced.emulator.response import Response
from voiced.emulator.speech import Voice
from voiced.formats import PCM16_8K, AudioFormat

__all__ = ["Link", "Performer"]

LISTENERS: Final = 32  # turns being transcribed at a time; a caller has one, a flood none beyond
AHEAD_S: Final = 0.005  # sleeping for less costs more than it gives


class Link(Protocol):
    """What the performer needs of the connection."""

    def wake(self) -> None:
        """Have the outbox sent."""

    async def wait_drained(self) -> None:
        """Wait until it has been."""

    async def sever(self) -> None:
        """Close as `close_code` says; does not return to a living session."""

    def freeze(self) -> None:
        """Go half-open."""


class Performer:
    """Drives a dialogue's responses and transcripts with tasks in `nursery`."""

    def __init__(
        self,
        dialogue: Dialogue,
        voice: Voice,
        options: EmulatorOptions,
        link: Link,
        nursery: trio.Nursery,
    ) -> None:
        self._dialogue = dialogue
        self._voice = voice
        self._options = options
        self._faults = options.faults
        self._link = link
        self._nursery = nursery
        self._scopes: dict[str, tuple[Response, trio.CancelScope]] = {}
        self._listening: dict[str, trio.Event] = {}  # item id -> its words are known
        self._transcribing = 0
        self._calls = 0
        self._response_over = trio.Event()
        self._idle: trio.CancelScope | None = None

    def attend(self) -> None:
        """Do what the last client event asked for: stop, listen, answer."""
        for response, scope in list(self._scopes.values()):
            if response.done:
                scope.cancel()
        for item in self._dialogue.heard():
            if self._transcribing < LISTENERS:
                self._transcribing += 1
                self._listening[item.id] = trio.Event()
                self._nursery.start_soon(self._listen, item, self._listening[item.id])
        for response in self._dialogue.responses.due():
            self._scopes[response.id] = (response, trio.CancelScope())
            self._nursery.start_soon(self._respond, response, self._scopes[response.id][1])
        if self._idle and (self._dialogue.buffer.speaking or self._dialogue.responses.active):
            self._idle.cancel()

    # -- listening -----------------------------------------------------------------------------

    async def _listen(self, item: Item, known: trio.Event) -> None:
        committed_at = trio.current_time()
        try:
            if item.heard_speech and item.format is not None:
                item.clip = await recognise(to_pcm_8k(bytes(item.audio), item.format))
            if self._faults.transcription == "before":
                self._transcribe(item)
        finally:
            known.set()
            del self._listening[item.id]
        try:
            if self._faults.transcription == "after":
                await self._response_over.wait()
            if self._faults.transcription in ("usual", "failed", "after"):
                await trio.sleep_until(committed_at + self._options.transcription_ms / 1000)
                self._transcribe(item)
        finally:
            self._transcribing -= 1

    def _transcribe(self, item: Item) -> None:
        text = clips.load(item.clip).text if item.clip else ""
        failed = self._faults.transcription == "failed"
        self._dialogue.transcribed(item, None if failed else text)
        self._link.wake()

    # -- answering -----------------------------------------------------------------------------

    async def _respond(self, response: Response, scope: trio.CancelScope) -> None:
        self._response_over = trio.Event()
        try:
            with scope:
                await trio.sleep(self._faults.late_response_ms / 1000)
                response.begin()
                self._link.wake()
                await self._answer(response)
        finally:
            del self._scopes[response.id]
            self._response_over.set()
        if not response.settings.detached:
            await self._watch_idle(response)

    async def _answer(self, response: Response) -> None:
        asked_at = trio.current_time()
        for known in list(self._listening.values()):
            await known.wait()
        await trio.sleep_until(asked_at + self._options.think_ms / 1000)
        if self._faults.fail_all or response.number == self._faults.fail_response:
            response.finish("failed", self._faults.fail_code)
        elif self._calls_functions(response):
            functions = [t["name"] for t in response.settings.tools if t["type"] == "function"]
            arguments = self._faults.function_arguments
            await self._call(
                response,
                [
                    Call(functions[index % len(functions)], arguments)
                    for index in range(self._faults.function_calls)
                ],
            )
        elif (call := self._wanted_call(response)) is not None:
            await self._call(response, [call])
        else:
            await self._say(response)
        self._dialogue.responses.released(response)
        self._link.wake()

    async def _call(self, response: Response, calls: list[Call]) -> None:
        for call in calls:
            self._calls += 1
            half = self._calls <= self._faults.half_calls
            response.call(call.name, call.arguments, half=half)
            if half:
                self._link.wake()
                await trio.sleep_forever()  # the scope ends with the response
        response.finish("completed")

    def _calls_functions(self, response: Response) -> bool:
        """Once a turn: when the results are there, words follow."""
        context = response.context()
        answered = bool(context) and context[-1].body["type"] == "function_call_output"
        has_functions = any(tool["type"] == "function" for tool in response.settings.tools)
        return bool(self._faults.function_calls) and has_functions and not answered

    def _wanted_call(self, response: Response) -> Call | None:
        """The function that the caller has asked for, unless the answer was told what to say."""
        settings = response.settings
        tools = [tool for tool in settings.tools if tool["type"] == "function"]
        if settings.instructions is not None or not tools:
            return None
        return wanted_call(response.context(), tools, settings.tool_choice)

    async def _say(self, response: Response) -> None:
        settings, context = response.settings, response.context()
        line = choose(settings.instructions, context, settings.language, response.number - 1)
        if settings.modality == "text":
            response.open_message()
            for piece in pieces(line.text):
                if not response.write(piece):
                    return
            response.finish("completed")
            return
        spoken = await self._voice.say(line, settings.voice, _last_words(context))
        sound = _convert(spoken.pcm, response.format)
        wanted = self._faults.answer_ms * response.format.bytes_per_ms
        if 0 < len(sound) < wanted:
            sound = (sound * (wanted // len(sound) + 1))[:wanted]
        await self._play(response, sound, pieces(spoken.text))

    async def _play(self, response: Response, sound: bytes, words: list[str]) -> None:
        response.open_message()
        per_ms = response.format.bytes_per_ms
        step = self._faults.delta_bytes or self._options.delta_ms * per_ms
        started = trio.current_time()
        if self._faults.order == "words_first":
            response.spell(words)
            words = []
        said = 0
        for start in range(0, len(sound), step):
            end = min(start + step, len(sound))
            due = -(-len(words) * end // len(sound))
            if not response.speak(sound[start:end], "".join(words[said:due])):
                return
            said = due
            self._link.wake()
            await self._strike(response.audio_ms_sent)
            await self._link.wait_drained()
            next_at = started + end / per_ms / 1000 / self._options.realtime_factor
            if end < len(sound) and next_at > trio.current_time() + AHEAD_S:
                await trio.sleep_until(next_at)
        response.finish("completed")

    async def _strike(self, audio_ms: int) -> None:
        """Do what is to go wrong in the midst of an answer."""
        for at_ms, strike in (
            (self._faults.close_in_answer_ms, self._link.sever),
            (self._faults.half_open_in_answer_ms, self._freeze),
        ):
            if at_ms and audio_ms >= at_ms:
                await self._link.wait_drained()
                await strike()

    async def _freeze(self) -> None:
        self._link.freeze()
        await trio.lowlevel.checkpoint()

    async def _watch_idle(self, response: Response) -> None:
        """Turn detection's idle timeout counts from the end of the answer's audio, as if played."""
        detection = self._dialogue.session["audio"]["input"]["turn_detection"] or {}
        idle_ms = detection.get("idle_timeout_ms")
        if idle_ms is None or self._dialogue.responses.active is not None:
            return
        if self._idle is not None:
            self._idle.cancel()
        with trio.CancelScope() as scope:
            self._idle = scope
            await trio.sleep((response.audio_ms_sent + idle_ms) / 1000)
            self._dialogue.caller_silent()
            self._link.wake()
        if self._idle is scope:
            self._idle = None
        self.attend()


def _last_words(context: list[Item]) -> bytes:
    """Return the caller's last turn as PCM16 at 8 kHz, for the echo."""
    for item in reversed(context):
        if item.role == "user" and item.format is not None and item.audio:
            return to_pcm_8k(bytes(item.audio), item.format)
    return b""


def _convert(pcm: bytes, target: AudioFormat) -> bytes:
    converter = audio.converter(PCM16_8K, target)
    return pcm if converter is None else converter.convert(pcm) + converter.flush()
