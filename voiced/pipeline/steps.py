"""The three steps as an answer uses them: timed, tried twice, their failures sorted.

A step may be anybody's, so nothing but `ProviderError` comes out of here.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import structlog
import trio

from voiced.engine import EngineFault, ToolSpec
from voiced.pipeline.providers import (
    Chat,
    ChatPiece,
    Message,
    ProviderError,
    SpeechToText,
    TextToSpeech,
    Transcription,
)

__all__ = ["MAX_WAIT_S", "Providing", "Steps"]

MAX_WAIT_S: Final = 2.0
"""The longest pause before a second try. A caller waits; who asks for more is taken for lost."""

FIRST_WAIT_S: Final = 0.2  # up to twice as much, so that many calls do not come back at once

_END: Final = object()
_log = structlog.get_logger("voiced.pipeline")


@dataclass(frozen=True, slots=True)
class Providing:
    """The providers of an engine, and how long each may be silent, in seconds."""

    stt: SpeechToText
    chat: Chat
    tts: TextToSpeech
    stt_timeout_s: float
    chat_timeout_s: float
    tts_timeout_s: float


@final
class Steps:
    """What one session does with its providers. `fault` is told of what is tried again."""

    def __init__(self, providing: Providing, fault: Callable[[EngineFault], None]) -> None:
        self._p = providing
        self._fault = fault

    @property
    def rate(self) -> int:
        """Of the speech, in Hz."""
        return self._p.tts.rate

    @property
    def patience_s(self) -> float:
        """How long nothing may be heard of an answer: as long as the slowest step may be silent.

        Steps that are slow one after the other, or tried again, are no better for who waits.
        """
        return max(self._p.stt_timeout_s, self._p.chat_timeout_s, self._p.tts_timeout_s)

    async def transcribe(self, pcm16: bytes, rate: int, language: str | None) -> Transcription:
        """Write down one turn. Raises ProviderError."""
        again = True
        while True:
            try:
                with _sorted(self._p.stt_timeout_s):
                    done = await self._p.stt.transcribe(pcm16, rate, language)
                    if not isinstance(done, Transcription):
                        raise TypeError(f"not a Transcription: {type(done).__name__}")
                    return done
            except ProviderError as error:
                await self._again(error, again)
                again = False

    async def chat(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[ChatPiece, None]:
        """Think of an answer. It is tried again only as long as nothing of it has come."""
        again = True
        while True:
            begun = False
            try:
                async with aclosing(self._p.chat.stream(messages, tools)) as pieces:
                    while (piece := await _next(pieces, self._p.chat_timeout_s)) is not _END:
                        begun = True
                        yield piece
                return
            except ProviderError as error:
                await self._again(error, again and not begun)
                again = False

    async def speak(
        self, text: str, voice: str, language: str | None
    ) -> AsyncGenerator[bytes, None]:
        """Speak a sentence. A second try goes on where the first one broke off."""
        again = True
        given = 0
        while True:
            skip = given
            try:
                stream = self._p.tts.stream(text, voice=voice, language=language)
                async with aclosing(stream) as pieces:
                    while (piece := await _next(pieces, self._p.tts_timeout_s, _pcm)) is not _END:
                        skip, piece = max(0, skip - len(piece)), piece[skip:]
                        given += len(piece)
                        if piece:
                            yield piece
                if not given:
                    raise ProviderError("no_sound", "a sentence came without sound", "refused")
                return
            except ProviderError as error:
                await self._again(error, again)
                again = False

    async def _again(self, error: ProviderError, allowed: bool) -> None:
        """Wait for another try, or raise what speaks against one."""
        wait_s = error.retry_after_s
        if not allowed or error.verdict != "retry" or wait_s > MAX_WAIT_S:
            raise error
        self._fault(EngineFault(error.code, error.message, "retry"))
        if not wait_s > 0:  # not told, or no time at all: negative, not a number
            wait_s = FIRST_WAIT_S * random.uniform(1, 2)  # noqa: S311
        await trio.sleep(wait_s)


def _same(item: Any) -> Any:
    return item


def _pcm(item: Any) -> bytes:
    """Sound, as bytes. Raises TypeError for what is neither that nor a buffer."""
    return item if type(item) is bytes else bytes(memoryview(item))


async def _next(
    items: AsyncGenerator[Any, None], timeout_s: float, check: Callable[[Any], Any] = _same
) -> Any:
    """The next item, or `_END`."""
    with _sorted(timeout_s):
        try:
            return check(await anext(items))
        except StopAsyncIteration:
            return _END


@contextmanager
def _sorted(timeout_s: float) -> Iterator[None]:
    """Raise ProviderError, whatever goes wrong in here or takes longer."""
    try:
        with trio.fail_after(timeout_s):
            yield
    except ProviderError:
        raise
    except trio.TooSlowError:
        raise ProviderError("silent", f"nothing came for {timeout_s:g} s") from None
    except OSError as error:
        raise ProviderError("unreachable", str(error) or type(error).__name__) from None
    except Exception as error:
        _log.warning("a step of the pipeline raised", error=type(error).__name__, exc_info=error)
        raise ProviderError("step_raised", type(error).__name__) from None
