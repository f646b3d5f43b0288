"""One answer: chat, cut into sentences, spoken, all three at once, under one cancel scope.

        chat ──text──► sentences ──► speech of sentence n+1 (in the making)
                                     speech of sentence n ──► the call

Two sentences are in the making at most: the one that is handed over and the next, so that a voice
that takes half a second to begin is waited for once.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import trio

from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    EngineFault,
    ResponseDone,
    ResponseStarted,
    ToolCall,
    ToolSpec,
    exact_words,
)
from voiced.formats import AudioFormat
from voiced.pipeline.bill import Bill
from voiced.pipeline.history import History
from voiced.pipeline.providers import Ended, ProviderError, ToolRequest
from voiced.pipeline.queue import EventQueue
from voiced.pipeline.sentences import Sentences, speakable
from voiced.pipeline.steps import Steps

__all__ = ["Answer", "Speech"]

# Sentences that wait for their turn. Text costs nothing, and the chat must not be held up: its last
# lines are the usage and the tools. 400 tokens are some 30 sentences, and the longest text an API
# gives some 400; whoever writes more waits.
MAX_SENTENCES: Final = 512
# Pieces of sound of the sentence that comes next, each what one read of a socket gives: 64 KiB at
# the most, commonly 4. Then its server waits.
MAX_PIECES: Final = 64
# One sentence is `sentences.MAX` characters, 30 s of slow speech. More is a server gone mad.
MAX_SENTENCE_S: Final = 120


@dataclass(slots=True)
class Speech:
    """What the answers of a session have in common."""

    steps: Steps
    history: History
    events: EventQueue
    format: AudioFormat
    voice: str
    language: str | None
    instructions: str
    tools: tuple[ToolSpec, ...]


@final
class Answer:
    """One answer, from `ResponseStarted` to `ResponseDone`."""

    def __init__(self, speech: Speech, response_id: str, new_item: Callable[[], str]) -> None:
        self.response_id = response_id
        self.scope = trio.CancelScope()
        self.started = False  # ResponseStarted was told
        self.over = False  # ResponseDone was told, or nothing is to be told any more
        self.sounded = False  # some of its sound was told
        self.waiting = trio.CancelScope()  # for anything of it; its owner sets a deadline
        self._s = speech
        self._new_item = new_item
        self._item_id = new_item()
        self._bill = Bill()
        self._ended: str | None = None  # before its end, and why
        self._begun = False  # the chat has given something
        self._called = False  # a tool, which has begun
        self._text: list[str] = []  # what is heard, or going to be
        self._failure: ProviderError | None = None
        self._unspoken: ProviderError | None = None  # why a sentence is left out

    async def run(self, instructions: str | None) -> None:
        """Answer the conversation as it is now. Raises ProviderError, with nothing told of it."""
        self.start()
        self._s.history.begin_answer(self._item_id)
        async with trio.open_nursery() as nursery:
            texts, to_speak = trio.open_memory_channel[str](MAX_SENTENCES)
            # Without room: the next sentence is begun when this one is taken, no sooner.
            voices, to_tell = trio.open_memory_channel[_Voice](0)

            def start(function: Callable[..., Awaitable[None]], *args: Any) -> None:
                nursery.start_soon(self._guarded, nursery.cancel_scope, function, *args)

            start(self._think, texts, instructions)
            start(self._speak, to_speak, voices, start)
            start(self._tell, to_tell)
        if self._failure is not None:
            raise self._failure
        if self._unspoken is not None and not (self.sounded or self._called):
            raise self._unspoken  # an answer of which nothing is heard is none
        self._finish()

    def start(self) -> None:
        """Tell that there is going to be an answer."""
        self.started = True
        self._s.events.put(ResponseStarted(self.response_id))

    def end(
        self, status: Literal["completed", "cancelled", "incomplete", "failed"], reason: str | None
    ) -> None:
        """Tell how it ended; nothing comes after that."""
        if self.over:
            return
        self.over = True
        if self.sounded and status != "cancelled":
            text = "".join(self._text).strip()
            self._s.events.put(AgentTranscript(self._item_id, text, final=True))
            self._s.events.put(AgentAudioDone(self.response_id, self._item_id))
        self._s.history.end_answer(self._item_id)
        if self.started:
            self._s.events.put(ResponseDone(self.response_id, status, reason, self._bill.usage()))

    def cancel(self) -> bool:
        """Stop, and take back what nobody has seen of it. Whether anything of it was seen."""
        if self.over:
            return self.sounded
        self.scope.cancel()
        told = self._s.events.withdraw(self._item_id)
        # What was heard of that is the call's to say; more than that was not.
        self._s.history.truncate(self._item_id, told / self._s.format.bytes_per_ms)
        self.end("cancelled", "cancelled")
        return told > 0

    def _finish(self) -> None:
        if self._ended is None:
            self.end("completed", None)
        else:
            self.end("incomplete", self._ended)

    # --- the three steps --------------------------------------------------------------------

    async def _guarded(
        self, scope: trio.CancelScope, function: Callable[..., Awaitable[None]], *args: Any
    ) -> None:
        """Let the first failure end all of the answer; an exception group would hide which."""
        try:
            await function(*args)
        except ProviderError as error:
            self._failure = self._failure or error
            scope.cancel()

    async def _think(self, texts: trio.MemorySendChannel[str], instructions: str | None) -> None:
        """Have the answer written, and cut it."""
        s = self._s
        sentences = Sentences()
        if (words := exact_words(instructions)) is not None:
            with texts:
                for text in [*sentences.feed(words), *sentences.end()]:
                    await texts.send(text)
            return
        messages = s.history.messages(s.instructions if instructions is None else instructions)
        self._bill.ask(messages, s.tools)
        with texts:
            try:
                async with aclosing(s.steps.chat(messages, s.tools)) as pieces:
                    async for piece in pieces:
                        self._begun = True
                        self._bill.take(piece)
                        if isinstance(piece, str):
                            for text in sentences.feed(piece):
                                await texts.send(text)
                        elif isinstance(piece, ToolRequest):
                            self._call(piece)
                        elif isinstance(piece, Ended):
                            tokens = piece.reason == "length"
                            self._ended = "max_output_tokens" if tokens else piece.reason
            except ProviderError as error:
                if not self._begun:
                    self._bill.refused()
                    raise
                # What has been said cannot be unsaid: the rest of the sentence, and that is it.
                self._ended = error.code
                s.events.put(EngineFault(error.code, error.message, "alarm"))
            for text in sentences.end():
                await texts.send(text)

    def _call(self, request: ToolRequest) -> None:
        """Let the tool begin at once, while what was said before it is still being spoken."""
        if self.over:
            return
        self._called = True
        self.waiting.deadline = math.inf
        self._s.history.request(self._item_id, request)
        self._s.events.put(
            ToolCall(request.call_id, self._new_item(), request.name, request.arguments)
        )

    async def _speak(
        self,
        texts: trio.MemoryReceiveChannel[str],
        voices: trio.MemorySendChannel[_Voice],
        start: Callable[..., None],
    ) -> None:
        """Have each sentence spoken, one ahead of the one that is told."""
        with voices:
            async for text in texts:
                spoken = speakable(text)
                if not spoken:
                    continue
                pcm, told = trio.open_memory_channel[bytes](MAX_PIECES)
                start(self._voice, spoken, pcm)
                await voices.send(_Voice(spoken + (" " if text[-1].isspace() else ""), told))

    async def _voice(self, text: str, pcm: trio.MemorySendChannel[bytes]) -> None:
        s = self._s
        left = MAX_SENTENCE_S * 1000 * s.format.bytes_per_ms
        self._bill.speak(text)
        with pcm:
            try:
                async with aclosing(s.steps.speak(text, s.voice, s.language)) as pieces:
                    async for piece in pieces:
                        left -= len(piece)
                        if left < 0:
                            raise ProviderError("bad_audio", "a sentence without end", "refused")
                        self._bill.sound(len(piece) / s.format.bytes_per_ms)
                        await pcm.send(piece)
            except ProviderError as error:
                if error.verdict != "refused":
                    raise
                # One sentence that cannot be spoken does not cost the others.
                self._unspoken = error
                s.events.put(EngineFault(error.code, error.message, "alarm"))

    async def _tell(self, voices: trio.MemoryReceiveChannel[_Voice]) -> None:
        """Hand the sentences over, in order, whole samples only."""
        s = self._s
        async for voice in voices:
            rest = b""
            begun = False
            async for received in voice.pcm:
                piece = rest + received if rest else received
                rest = piece[len(piece) - len(piece) % 2 :]
                piece = piece[: len(piece) - len(rest)]
                if not piece:
                    continue
                self.waiting.deadline = math.inf
                await s.events.room()
                if self.over:
                    return
                if not begun:
                    begun = self.sounded = True
                    self._text.append(voice.text)
                    s.history.speak(self._item_id, voice.text)
                    s.events.put(AgentTranscript(self._item_id, voice.text, final=False))
                s.history.sounded(self._item_id, len(piece) / s.format.bytes_per_ms)
                s.events.put(AgentAudio(self.response_id, self._item_id, 0, piece))
            s.history.sounded(self._item_id, 0, whole=True)


@dataclass(frozen=True, slots=True)
class _Voice:
    """A sentence, and its sound as it comes."""

    text: str
    pcm: trio.MemoryReceiveChannel[bytes]
