"""A clone that leaves items unnamed: what is said of one is not taken for said of all of them."""

from __future__ import annotations

import pytest

from tests.realtime.script import JSON, Script, b64
from voiced.config.types import Agent, RealtimeEngine
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    EngineEvent,
)

BUFFER = "input_audio_buffer"
WRITTEN = "conversation.item.input_audio_transcription"


def clone(agent: Agent | None = None) -> Script:
    config = RealtimeEngine(server="other", url="ws://x/", model="m")
    return Script(config=config, agent=agent or Agent(barge_in="confirm")).ready()


def committed(s: Script) -> str:
    (name,) = [event.item_id for event in s.heard() if isinstance(event, Committed)]
    return name


def turn(s: Script, started: str | None, stopped: str | None, item: str | None) -> str:
    """A turn that is told with these names."""

    def name(item_id: str | None) -> JSON:
        return {} if item_id is None else {"item_id": item_id}

    s.says(f"{BUFFER}.speech_started", audio_start_ms=0, **name(started))
    s.says(f"{BUFFER}.speech_stopped", audio_end_ms=300, **name(stopped))
    s.says(f"{BUFFER}.committed", **name(item))
    return committed(s)


@pytest.mark.parametrize(
    ("started", "stopped", "item"),
    [
        ("u1", "u1", None),
        ("u1", None, None),
        (None, "u1", None),
        (None, None, "u1"),
        ("x", "x", "u1"),
    ],
)
def test_an_item_has_the_name_that_anything_told_of_it(
    started: str | None, stopped: str | None, item: str | None
) -> None:
    s = clone()
    assert turn(s, started, stopped, item) == "u1"
    s.forget()
    s.machine.delete("u1")
    (gone,) = s.sent()
    assert gone["item_id"] == "u1"
    assert turn(s, None, None, None) != "u1"


def test_a_turn_is_committed_while_the_next_has_begun() -> None:
    s = clone()
    s.says(f"{BUFFER}.speech_started", item_id="u1", audio_start_ms=0)
    s.says(f"{BUFFER}.speech_stopped", item_id="u1", audio_end_ms=300)
    s.says(f"{BUFFER}.speech_started", item_id="u2", audio_start_ms=400)
    s.says(f"{BUFFER}.committed")
    assert committed(s) == "u1"
    s.says(f"{BUFFER}.committed")  # told before its end, or instead
    assert committed(s) == "u2"
    s.says(f"{BUFFER}.committed")
    assert committed(s) not in ("u1", "u2")


def words(s: Script) -> list[tuple[str, str]]:
    return [(e.item_id, e.text) for e in s.heard() if isinstance(e, CallerTranscript)]


def test_each_turns_words_are_kept() -> None:
    s = clone()
    first = turn(s, None, None, None)
    s.says(f"{WRITTEN}.delta", delta="Good ")
    s.says(f"{WRITTEN}.completed", transcript="Good morning.")
    assert words(s) == [(first, "Good "), (first, "Good morning.")]
    second = turn(s, None, None, None)
    assert second != first
    s.says(f"{WRITTEN}.completed", transcript="When?")
    s.says(f"{WRITTEN}.completed", transcript="And where?")
    told = words(s)
    assert told[0] == (second, "When?")
    assert told[1][0] not in (first, second)
    assert told[1][1] == "And where?"


def test_the_server_is_not_told_names_of_ours() -> None:
    s = clone()
    name = turn(s, None, None, None)
    s.forget()
    s.machine.delete(name)
    s.machine.delete("")
    said(s, "r1")
    item = next(e.item_id for e in s.heard() if isinstance(e, AgentAudio))
    s.machine.truncate(item, 0, 20)
    s.machine.delete(item)
    assert s.kinds() == []


def said(s: Script, response_id: str) -> None:
    """An answer of an item without a name."""
    s.created(response_id)
    s.says("response.output_audio_transcript.delta", response_id=response_id, delta="Good ")
    s.says("response.output_audio.delta", response_id=response_id, delta=b64(b"\x21" * 800))
    s.says("response.output_audio_transcript.done", response_id=response_id, transcript="Good day.")
    s.says("response.output_audio.done", response_id=response_id)


def names(told: list[EngineEvent]) -> list[str]:
    return [
        event.item_id
        for event in told
        if isinstance(event, AgentAudio | AgentAudioDone | AgentTranscript)
    ]


def test_each_answer_is_an_item_of_its_own() -> None:
    s = clone()
    found = []
    for response_id in ("r1", "r2"):
        said(s, response_id)
        one = names(list(s.heard()))
        assert len(one) == 4
        assert len(set(one)) == 1
        assert one[0]
        found.append(one[0])
        s.done(response_id)
    assert found[0] != found[1]


@pytest.mark.parametrize("nameless", [False, True])
def test_the_agent_is_still_heard_after_a_cough(nameless: bool) -> None:
    """The caller's item was taken out, and so was the agent's of which nothing was heard."""
    s = clone()
    s.machine.delete("" if nameless else turn(s, None, None, None))
    said(s, "r1")
    (item,) = set(names(list(s.heard())))
    s.machine.delete(item)
    s.done("r1")
    said(s, "r2")
    assert len(names(list(s.heard()))) == 4
