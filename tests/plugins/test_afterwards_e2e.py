"""Transcripts, webhooks and summaries of calls over both carriers, with a daemon on the emulator.

The first daemon has a receiver that is down, and is stopped before its calls were summed up; the
second makes up for both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.house import SOON_S, House, agent, house
from tests.e2e.test_sip_calls import place
from tests.e2e.virtual import run_virtually
from tests.plugins.scenery import GREETED, HEAD, fallback
from tests.plugins.test_webhook import documented
from tests.plugins.webserver import Answer, Request, serving
from voiced.simulate import CallResult, Script
from voiced.simulate.script import HangUp, Say

ASKING = Script("asking", "", (*GREETED, Say("hours"), *GREETED, HangUp()))

CONFIG = (
    HEAD
    + """
[plugins.transcript]
[plugins.summary]
min_s = 1
[plugins.webhook]
url = "URL"
secret = "a secret of sixteen and more"
"""
)
CONFIG += agent("reception", "emulated", 'greeting_text = "Hello, this is the reception."')
CONFIG += fallback("reception", '["transcript", "summary", "webhook"]')


@dataclass
class Outcome:
    """What the calls left behind."""

    rows: dict[str, dict[str, Any]]
    """By carrier."""
    requests: list[Request]
    refused: int
    logs: list[Mapping[str, Any]]


async def settled(here: House, result: CallResult) -> None:
    assert result.failure is None, result.failure
    with trio.fail_after(SOON_S):
        while "transcript_text" not in (await here.row(result.call_sid))["facts"]:
            await trio.sleep(0.02)


async def play(folder: Path) -> Outcome:
    up = False

    def answer(request: Request) -> Answer:
        return Answer(204) if up else Answer(503)

    logs: list[Mapping[str, Any]] = []
    async with serving(answer) as server:
        config = CONFIG.replace("URL", server.url)
        async with house(folder, config) as here:
            async with trio.open_nursery() as nursery:

                async def hold(start: Any) -> None:
                    await settled(here, await start())

                nursery.start_soon(hold, partial(here.call, ASKING, "reception"))
                nursery.start_soon(hold, partial(place, here, ASKING, codecs=("pcmu",)))
            assert not any("summary" in row["facts"] for row in here.rows())
        logs += here.logs
        refused, up = len(server.requests), True
        async with house(folder, config) as here:
            with trio.fail_after(2 * SOON_S):
                while sum("summary" in row["facts"] for row in here.rows()) < 2:
                    await trio.sleep(0.05)
                while sum(b'"call_end"' in each.body for each in server.requests[refused:]) < 2:
                    await trio.sleep(0.05)
            rows = {row["carrier"]: row for row in here.rows()}
        logs += here.logs
        return Outcome(rows, server.requests, refused, logs)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("afterwards")
    return run_virtually(partial(play, folder))


@pytest.fixture(params=["twilio", "sip"])
def row(request: pytest.FixtureRequest, outcome: Outcome) -> dict[str, Any]:
    return outcome.rows[request.param]


def test_the_files_have_what_was_said_and_heard(row: dict[str, Any]) -> None:
    heard = row["transcript"]
    said = [each["text"] for each in heard if each["role"] == "caller"]
    assert said == ["What are your opening hours?"]
    lines = Path(row["facts"]["transcript_jsonl"]).read_text("utf-8").splitlines()
    first, *words, last = map(json.loads, lines)
    assert (first["call_id"], first["carrier"]) == (row["call_id"], row["carrier"])
    assert last["heard"] == heard
    final = {each["item_id"]: (each["role"], each["text"]) for each in words}
    assert [text for role, text in final.values() if role == "caller"] == said
    text = Path(row["facts"]["transcript_text"]).read_text("utf-8")
    labels = {"caller": "Caller", "agent": "Agent"}
    for each in heard:
        assert f"{labels[each['role']]}: {each['text']}" in text


def test_every_event_arrives_in_order_after_the_receiver_was_down(
    outcome: Outcome, row: dict[str, Any]
) -> None:
    assert outcome.refused > 0
    events, is_ours = [], documented()
    for request in outcome.requests[outcome.refused :]:
        signature = request.headers["voiced-signature"]
        assert is_ours("a secret of sixteen and more", signature, request.body)
        event = json.loads(request.body)
        if event["call"]["call_id"] == row["call_id"]:
            events.append(event)
    names = [each["event"] for each in events]
    assert names[:2] == ["call_start", "media"]
    assert names[-1] == "call_end"
    assert [each["sequence"] for each in events] == list(range(1, len(events) + 1))
    assert events[-1]["data"]["transcript"] == row["transcript"]
    assert events[-1]["data"]["reason"] == row["reason"]
    text = row["facts"]["transcript_text"]  # noted after the call, by another plugin
    assert events[-1]["data"]["facts"]["transcript_text"] == text
    said = [each["data"]["text"] for each in events if each["event"] == "transcript"]
    assert "What are your opening hours?" in said


def test_the_call_is_summed_up_after_a_restart(row: dict[str, Any]) -> None:
    facts = row["facts"]
    # The emulator repeats what was said last.
    assert row["transcript"][-1]["text"][-20:] in facts["summary"]
    assert facts["sentiment"] == "neutral"
    assert facts["topics"]
    assert "summary_failed" not in facts


def test_nothing_went_wrong_and_no_words_are_in_the_log(outcome: Outcome) -> None:
    assert not [each for each in outcome.logs if "exception" in each]
    said = [each for each in outcome.logs if each.get("plugin") in ("summary", "webhook")]
    assert {each["event"] for each in said if each["log_level"] in ("warning", "error")} <= {
        "delivery failed, and is tried again"
    }
    assert not [each for each in said if "opening hours" in repr(each)]
