"""Whatever caller, call and servers do, and whenever: what a session tells makes sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pipeline.house import House, Stt, Thinker, Voice, house, tone
from voiced.config.types import Agent, OwnVad
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    Lost,
    Ready,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)
from voiced.formats import PCMU_8K
from voiced.pipeline.providers import ChatPiece, ProviderError, ToolRequest

FAILURE = st.sampled_from(
    [
        ProviderError("http_503", "busy"),
        ProviderError("http_400", "no", "refused"),
        ProviderError("insufficient_quota", "pay", "terminal"),
        OSError("gone"),
    ]
)
SOMETIMES = st.integers(0, 7).map(lambda n: n == 0)
TEXTS = st.lists(st.one_of(st.sampled_from(["", "Hello?", "When?"]), FAILURE), max_size=4)
PIECE: st.SearchStrategy[ChatPiece | Exception] = st.one_of(
    st.sampled_from(["We are open. ", "From nine, I think, ", "until five o'clock. ", "**\n"]),
    st.sampled_from(["We are open. ", "Certainly. "]),
    st.just(ToolRequest("c1", "hours", "{}")),
    FAILURE,
)
ANSWERS = st.lists(st.lists(PIECE, max_size=5), max_size=4)
VOICES = st.lists(st.tuples(st.integers(0, 3), FAILURE), max_size=2)
STEP = st.one_of(
    st.tuples(st.just("speak"), st.integers(60, 900)),
    st.tuples(st.just("quiet"), st.integers(20, 2500)),
    st.tuples(st.sampled_from(["respond", "exactly", "cancel", "cut", "tool"]), st.just(0)),
)
Steps = list[tuple[str, int]]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(STEP, max_size=14),
    texts=TEXTS,
    answers=ANSWERS,
    failures=st.one_of(st.just([]), VOICES),
    barge_in=st.sampled_from(["immediate", "confirm", "off"]),
    gap_s=st.sampled_from([0.001, 0.1, 1.0]),
)
def test_what_is_told_makes_sense(
    steps: Steps,
    texts: list[Any],
    answers: list[Any],
    failures: list[Any],
    barge_in: Any,
    gap_s: float,
) -> None:
    async def main() -> None:
        agent = Agent(barge_in=barge_in, turn_detection=OwnVad(silence_ms=200))
        stt, chat = Stt(list(texts)), Thinker(list(answers), gap_s=gap_s)
        voice = Voice(failures=list(failures))
        async with house(agent, stt=stt, chat=chat, tts=voice, max_utterance_s=1) as h:
            for kind, value in steps:
                await step(h, kind, value)
            await trio.sleep(60)
            settled(h)
        # No server is kept at work for nobody.
        assert voice.running == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def step(h: House, kind: str, value: int) -> None:
    session = h.session
    match kind:
        case "speak":
            await h.talk(tone(value))
        case "quiet":
            await h.talk(PCMU_8K.silence(value))
        case "respond":
            session.respond()
        case "exactly":
            session.respond('Say exactly the following words and nothing else: "Good-bye."')
        case "cancel":
            session.cancel()
        case "cut" if h.of(AgentAudio):
            session.cancel()
            session.truncate(h.item(), 0, 500)
        case "tool":
            session.tool_result("c1", "nine to five")


def settled(h: House) -> None:
    """Check all that was told, after everything has come to its end."""
    events = [event for _, event in h.events]
    assert isinstance(events[0], Ready)
    lost = [at for at, event in enumerate(events) if isinstance(event, Lost)]
    assert lost in ([], [len(events) - 1])
    responses(events)
    turns(events)
    calls = [event.call_id for event in events if isinstance(event, ToolCall)]
    assert set(calls) <= {"c1"}


def responses(events: Sequence[Any]) -> None:
    """One at a time, each with one end; sound and words in between, of one item."""
    running: str | None = None
    item: str | None = None
    ended: set[str] = set()
    for event in events:
        match event:
            case ResponseStarted():
                assert running is None
                assert event.response_id not in ended
                running, item = event.response_id, None
            case ResponseDone():
                assert event.response_id == running
                ended.add(event.response_id)
                running = None
            case AgentAudio() | AgentAudioDone():
                assert event.response_id == running
                assert item in (None, event.item_id)
                item = event.item_id
            case AgentTranscript():
                assert running is not None
                assert item in (None, event.item_id)
                item = event.item_id
    assert running is None


def turns(events: Sequence[Any]) -> None:
    """A start, a stop and a commit, in parts where it is long; then the words, once."""
    speaking = False
    committed: list[str] = []
    written: list[str] = []
    for event in events:
        match event:
            case SpeechStarted():
                speaking = True
            case SpeechStopped():
                assert speaking
                last = event.item_id
            case Committed():
                assert event.item_id == last
                committed.append(event.item_id)
            case CallerTranscript():
                assert event.item_id in committed
                written.append(event.item_id)
    assert len(set(committed)) == len(committed)
    assert len(set(written)) == len(written)
    if not any(isinstance(event, Lost) for event in events):
        assert set(written) == set(committed)
