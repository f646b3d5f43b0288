"""One conversation: the caller's turns in, answers out, and the commands of the call."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import trio

from voiced.engine import (
    CallerTranscript,
    Committed,
    EngineEvent,
    EngineFault,
    Lost,
    Plan,
    Ready,
    SpeechStarted,
    SpeechStopped,
    ToolSpec,
    Usage,
)
from voiced.formats import AudioFormat, Encoding
from voiced.pipeline.answer import Answer, Speech
from voiced.pipeline.history import History
from voiced.pipeline.providers import ProviderError
from voiced.pipeline.queue import EventQueue
from voiced.pipeline.steps import Providing, Steps
from voiced.pipeline.turns import Began, Over, Turns, language_of

__all__ = ["PipelineSession"]

EARLY_MS: Final = 2000  # of the caller's audio before `Ready`, as the protocol has it
MAX_ASKS: Final = 8  # a greeting, a prompt, a farewell; more is a mistake, the oldest is stale
# Turns that are being written down. A turn lasts half a second at least and takes as long to write
# down as a server is slow: more than this are of no use to anybody who waits for an answer.
MAX_UNWRITTEN: Final = 8
MAX_REFUSALS: Final = 2  # in a row, after which the server is taken for one that will do nothing

INAUDIBLE: Final = "(The caller said something that could not be understood.)"
"""What the model reads of a turn that could not be written down: it asks, and nobody waits."""


@dataclass(slots=True, eq=False)
class _Ask:
    instructions: str | None
    after_turn: bool  # it is the answer to a turn, which may turn out to hold no words
    turn: str = ""  # the item of that turn, where the session itself asks


@final
class PipelineSession:
    """A conversation (`voiced.engine.Session`); from `PipelineEngine.open`."""

    def __init__(
        self,
        plan: Plan,
        providing: Providing,
        turns: Turns,
        *,
        voice: str,
        max_messages: int,
        check: Callable[[], Awaitable[None]],
    ) -> None:
        """`check` finds out whether the servers are there; raises ProviderError."""
        self._plan = plan
        self._turns = turns
        self._check = check
        self._output = AudioFormat(Encoding.PCM16, providing.tts.rate)
        self._events = EventQueue(self._output.bytes_per_ms)
        self._history = History(max_messages)
        self._speech = Speech(
            steps=Steps(providing, self._events.put),
            history=self._history,
            events=self._events,
            format=self._output,
            voice=voice,
            language=language_of(plan.agent),
            instructions=plan.instructions,
            tools=plan.tools,
        )
        self._prefix = secrets.token_hex(4)  # ids of two sessions of one call must not be alike
        self._numbered = 0
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None  # from `Ready` on
        self._lost = self._broken = False
        self._early = bytearray()
        self._turn = ""  # the item of the turn that the caller is at
        self._unwritten: set[str] = set()
        self._written = trio.Event()
        self._asks: deque[_Ask] = deque(maxlen=MAX_ASKS)
        self._asked = trio.Event()
        self._answer: Answer | None = None
        self._answering: _Ask | None = None
        # Turns that the call has not heard of yet. What it cancels is what it knew of, which may
        # be long ago: the answers to these are not meant.
        self._untold: set[str] = set()
        self._handed: list[str] = []  # turns among the events that the call is acting on
        self._unanswered = False  # there is something new that no answer has taken up
        self._turn_due = False  # a turn is over that the call may ask the answer to
        self._refusals = {"turn": 0, "answer": 0}

    @property
    def broken(self) -> bool:
        """A server has failed for good, or for longer than a caller can wait."""
        return self._broken

    @property
    def input_format(self) -> AudioFormat:
        """The carrier's own."""
        return self._plan.leg_format

    @property
    def output_format(self) -> AudioFormat:
        """PCM16 at the rate of the text-to-speech server."""
        return self._output

    async def receive(self) -> Sequence[EngineEvent]:
        """Wait for events; for ever after `Lost`."""
        self._untold.difference_update(self._handed)  # acted on, or there would be no next time
        self._handed.clear()
        events = await self._events.take()
        self._handed += [event.item_id for event in events if isinstance(event, SpeechStopped)]
        return events

    # --- commands ---------------------------------------------------------------------------

    def send_audio(self, payload: bytes) -> None:
        """The caller's audio, in `input_format`."""
        if self._lost:
            return
        if self._nursery is not None:
            self._hear(payload)
            return
        self._early += payload
        excess = len(self._early) - EARLY_MS * self.input_format.bytes_per_ms
        if excess > 0:
            del self._early[: excess + -excess % self.input_format.bytes_per_ms]

    def respond(self, instructions: str | None = None) -> None:
        """Ask for an answer, after the running one."""
        self._want(_Ask(instructions, after_turn=instructions is None and self._turn_due))
        self._turn_due = False

    def add_message(self, role: Literal["user", "assistant", "system"], text: str) -> None:
        """Put a text into the conversation."""
        self._history.add_message(role, text)
        self._unanswered = self._unanswered or role != "assistant"

    def cancel(self) -> None:
        """Stop the running answer and forget those that wait for it."""
        untold = [ask for ask in self._asks if ask.turn in self._untold]
        self._asks.clear()
        self._asks.extend(untold)
        if self._answering is None or self._answering.turn not in self._untold:
            self._cancel_answer()

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Only so much of an answer was heard."""
        del content_index  # an answer is one part
        self._history.truncate(item_id, audio_end_ms)

    def delete(self, item_id: str) -> None:
        """Nothing of an answer was heard, or a turn was no speech."""
        self._history.delete(item_id)

    def set_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Replace the tools, from the next answer on."""
        self._speech.tools = tuple(tools)

    def tool_result(self, call_id: str, output: str) -> None:
        """What a tool returned; one that was not asked for is passed over."""
        if self._history.result(call_id, output):
            self._unanswered = True

    # --- the caller -------------------------------------------------------------------------

    def _hear(self, payload: bytes) -> None:
        for event in self._turns.feed(payload):
            match event:
                case Began():
                    self._turn = self._new_id("item")
                    self._events.put(SpeechStarted(self._turn, event.at_ms))
                    if self._plan.agent.barge_in == "immediate":
                        self._asks.clear()
                        self._cancel_answer()
                case Over():
                    self._end_turn(event)

    def _end_turn(self, over: Over) -> None:
        item_id, self._turn = self._turn, self._new_id("item") if over.more else ""
        self._events.put(SpeechStopped(item_id, over.at_ms))
        if self._nursery is None or len(self._unwritten) >= MAX_UNWRITTEN:
            fault = "more turns than speech to text keeps up with; one was dropped"
            self._events.put(EngineFault("stt_backlog", fault, "alarm"))
        else:
            self._history.open_turn(item_id)
            self._events.put(Committed(item_id))
            self._unwritten.add(item_id)
            self._nursery.start_soon(self._write_down, item_id, over.pcm16)
        if self._plan.agent.barge_in == "confirm":
            self._turn_due = True
        else:
            self._untold.add(item_id)
            self._want(_Ask(None, after_turn=True, turn=item_id))

    async def _write_down(self, item_id: str, pcm16: bytes) -> None:
        """Have a turn written down. Goes on when the caller speaks again: the words were said."""
        rate = self.input_format.rate
        text, unheard, usage = "", "", None
        try:
            if pcm16:
                done = await self._speech.steps.transcribe(pcm16, rate, self._speech.language)
                seconds = Usage(transcription_s=len(pcm16) / (2 * rate))
                text, usage = done.text.strip(), done.usage or seconds
                self._refusals["turn"] = 0
        except ProviderError as error:
            lost = self._failed(error, None)
            unheard = "" if lost else INAUDIBLE
        finally:
            self._unwritten.discard(item_id)
            if self._history.write_down(item_id, text or unheard):
                self._unanswered = True
            self._written.set()
        if not self._lost:
            self._events.put(CallerTranscript(item_id, text, final=True, usage=usage))

    # --- answers ----------------------------------------------------------------------------

    def _want(self, ask: _Ask) -> None:
        if self._lost:
            return
        last = self._asks[-1] if self._asks else None
        if last is not None and ask.instructions is None and last.instructions is None:
            last.after_turn &= ask.after_turn  # one that must be answered stays one
            last.turn = ask.turn or last.turn
            return
        self._asks.append(ask)
        self._asked.set()

    async def run(self) -> None:
        """Work until the session is closed or lost."""
        with self._scope:
            try:
                await self._check()
            except ProviderError as error:
                self._lose(error)
                return
            async with trio.open_nursery() as self._nursery:
                self._events.put(Ready())
                early, self._early = bytes(self._early), bytearray()
                if early:
                    self._hear(early)
                while True:
                    while not self._asks:
                        self._asked = trio.Event()
                        await self._asked.wait()
                    await self._answer_one(self._asks.popleft())

    async def _answer_one(self, ask: _Ask) -> None:
        answer = Answer(self._speech, self._new_id("resp"), lambda: self._new_id("item"))
        self._answer, self._answering = answer, ask
        try:
            with answer.scope:
                patience_s = self._speech.steps.patience_s
                answer.waiting.deadline = trio.current_time() + patience_s
                with answer.waiting:
                    await self._give(answer, ask)
                if answer.waiting.cancelled_caught and not answer.over:
                    raise ProviderError("silent", f"nothing of an answer for {patience_s:g} s")
        except ProviderError as error:
            self._failed(error, answer)
        finally:
            self._answer = self._answering = None

    async def _give(self, answer: Answer, ask: _Ask) -> None:
        """Give an answer, if there is anything to answer. Raises ProviderError."""
        while self._unwritten:
            self._written = trio.Event()
            await self._written.wait()
        if answer.over:  # cancelled in the step in which the last word was written
            return
        if ask.after_turn and not self._unanswered:
            answer.start()  # for a call that counts on an answer to each turn
            answer.end("completed", "no_speech")
            return
        if ask.instructions is None:
            self._unanswered = False
        await answer.run(ask.instructions)
        self._refusals["answer"] = 0

    def _cancel_answer(self) -> None:
        answer = self._answer
        if answer is not None and not answer.cancel() and answer.started:
            self._unanswered = True  # nobody has heard it: what it was about is still open

    # --- trouble ----------------------------------------------------------------------------

    def _failed(self, error: ProviderError, answer: Answer | None) -> bool:
        """A step has failed for good: this turn or answer, or all of the session, which is told."""
        if answer is not None:
            answer.end("failed", error.code)
        what = "turn" if answer is None else "answer"
        self._refusals[what] += error.verdict == "refused"
        if error.verdict == "refused" and self._refusals[what] < MAX_REFUSALS:
            self._events.put(EngineFault(error.code, error.message, "alarm"))
            return False
        self._lose(error)
        return True

    def _lose(self, error: ProviderError) -> None:
        if self._lost:
            return
        self._asks.clear()
        self._cancel_answer()
        self._lost = self._broken = True
        self._events.put(Lost(error.code, error.message, retryable=error.verdict == "retry"))
        self._scope.cancel()

    def close(self) -> None:
        """End the work; commands do nothing any more."""
        self._lost = True
        self._asks.clear()
        self._scope.cancel()

    def _new_id(self, kind: str) -> str:
        self._numbered += 1
        return f"{kind}_{self._prefix}_{self._numbered}"
