"""Two hundred calls, ended at random moments in every state by either side, leave nothing."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.house import House, agent, house, open_files, sample, until
from tests.e2e.model import Conversation, engine, serve_models
from voiced import call as voiced_call
from voiced import clips
from voiced.simulate import Script
from voiced.simulate.script import (
    CutLine,
    HangUp,
    Pause,
    Say,
    SayWhileAgentSpeaks,
    Step,
    WaitForHangUp,
)
from voiced.simulate.speech import Speech
from voiced.simulate.wire import Identifiers, Narrator

CALLS = 200
AT_A_TIME = 40
NO_MEDIA_S = 1.0

# States in which a call waits for something; the others (ringing, media_ready) are left in the step
# that enters them. Calls end on hold and before an answer in `test_sip_leaks`, in transfers in
# `test_dialling`.
STATES = {
    "answering",
    "greeting",
    "listening",
    "caller_speaking",
    "committing",
    "thinking",
    "speaking",
    "ending",
}

CONFIG = """
[engine.offline]
kind = "emulator"
speech = "clips"

[engine.slow]
kind = "emulator"
speech = "clips"
faults = { late_response_ms = 2000 }

[engine.refusing]
kind = "emulator"
faults = { refuse_status = 503 }
"""

QUICK = "turn_detection = { kind = 'server_vad', silence_ms = 200 }\n"

AGENTS = {
    "greets": ("offline", 'greeting = "Greet the caller."'),
    "waits": ("offline", 'greeting = ""'),
    "thinks": ("slow", 'greeting = ""'),
    "commits": ("commits", 'greeting = ""'),
    "closes": ("offline", 'greeting = ""\nmax_duration_s = 0.3'),
    "lost": ("refusing", 'greeting = ""'),
}


async def never_commits(session: Conversation) -> None:
    await session.configure()
    await session.until("input_audio_buffer.append")
    await session.send("input_audio_buffer.speech_started", item_id="item_a", audio_start_ms=0)
    await session.send("input_audio_buffer.speech_stopped", item_id="item_a", audio_end_ms=20)
    await session.listen()


def words(ms: int) -> Speech:
    """The first part of something said."""
    return Speech.from_pcm("part", "part", clips.load("interrupt").pcm[: 16 * ms])


class Crowd:
    """Makes callers that end their calls at random moments."""

    def __init__(self, here: House, rng: random.Random) -> None:
        self.house = here
        self.rng = rng
        self.ways: Counter[str] = Counter()
        self.sids: list[str] = []
        self._known: set[str] = set()
        self._read = 0  # of the log

    def next(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """Choose what one caller does."""
        rng = self.rng
        ids = Identifiers()
        self.sids.append(ids.call_sid)
        number = rng.choice([*AGENTS, "waits", "greets"])
        way = rng.choice(["stop", "stop", "cut", "broken", "over", "absent", "stranger", "daemon"])
        self.ways[way] += 1
        moment = rng.random()
        match way:
            case "over":
                return partial(self.given_up, ids, moment / 4)
            case "absent":
                return partial(self.absent, ids)
            case "stranger":
                return partial(self.stranger, ids)
            case "daemon":
                return partial(self.talk, ids, "closes", (WaitForHangUp(),))
            case "broken":
                steps = (*self.behaviour(number), WaitForHangUp())
                return partial(self.broken, ids, number, steps, 0.2 + 2 * moment)
            case _:
                last: Step = CutLine() if way == "cut" else HangUp()
                steps = (*self.behaviour(number), Pause(round(1000 * moment)), last)
                return partial(self.talk, ids, number, steps)

    def behaviour(self, number: str) -> tuple[Step, ...]:
        """Something said up to somewhere, or nothing."""
        part = words(self.rng.randrange(200, 1200))
        match number:
            case "greets" if self.rng.random() < 0.5:
                return (SayWhileAgentSpeaks(part, after_ms=200),)
            case "waits" if self.rng.random() < 0.7:
                return (Say(part),)
            case "thinks":
                return (Say(part),)
            case _:
                return ()

    async def talk(self, ids: Identifiers, to: str, steps: tuple[Step, ...]) -> None:
        await self.house.call(
            Script("random", "", steps), to, identifiers=ids, record=False, deadline_s=30
        )

    async def broken(
        self, ids: Identifiers, to: str, steps: tuple[Step, ...], after_s: float
    ) -> None:
        """Vanishes `after_s` after the call was received: before that there is none to be lost."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.talk, ids, to, steps)
            await until(lambda: self.received(ids.call_sid), "the call")
            await trio.sleep(after_s)
            nursery.cancel_scope.cancel()

    def received(self, sid: str) -> bool:
        """Whether the daemon knows of the call."""
        fresh = self.house.logs[self._read :]
        self._read += len(fresh)
        self._known |= {line["carrier_call"] for line in fresh if line["event"] == "call received"}
        return sid in self._known

    async def given_up(self, ids: Identifiers, after_s: float) -> None:
        await self.house.admit("waits", ids)
        await trio.sleep(after_s)
        await self.house.over(ids, self.rng.choice(["completed", "canceled", "failed"]))

    async def absent(self, ids: Identifiers) -> None:
        await self.house.admit("waits", ids)

    async def stranger(self, ids: Identifiers) -> None:
        url = await self.house.admit("waits", ids)
        async with self.house.network.open_media(url, timeout_s=5) as socket:
            await socket.send(Narrator(Identifiers()).start({}))
            with pytest.raises(Exception, match="1008 another call"):
                await socket.receive()


async def test_nothing_is_left(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voiced_call, "MEDIA_TIMEOUT_S", NO_MEDIA_S)
    port = await nursery.start(serve_models, {"commits": never_commits})
    text = CONFIG + engine("commits", port)
    text += "".join(agent(name, which, QUICK + more) for name, (which, more) in AGENTS.items())
    tasks_without = tasks()
    async with house(tmp_path, text) as here:
        warm = Crowd(here, random.Random(1))
        await held(warm, 20)  # threads, caches and clips are made once
        await here.idle()
        await settled()
        baseline_tasks, baseline_files = tasks(), open_files()

        crowd = Crowd(here, random.Random(20))
        await held(crowd, CALLS)
        await here.idle()
        await until(lambda: tasks() == baseline_tasks, "the tasks of the beginning")
        await until(lambda: open_files() == baseline_files, "the files of the beginning")

        rows = {row["carrier_call_id"]: row for row in here.rows()}
        mine = [rows[sid] for sid in crowd.sids]
        assert len(rows) == CALLS + 20  # one for each call, and none beside them
        assert all(row["reason"] and row["ended_at"] for row in mine)
        assert all(row["states"][-1][0] == "ended" for row in mine)
        # Is the test what it says? Every state, every way.
        last = Counter(row["states"][-2][0] for row in mine)
        assert set(last) == STATES, last
        assert min(crowd.ways.values()) >= 10, crowd.ways
        reasons = Counter(row["reason"] for row in mine)
        assert set(reasons) >= {
            "caller_hangup",
            "carrier_lost",
            "carrier_canceled",
            "carrier_failed",
            "max_duration",
            "no_media",
            "stream_refused",
        }, reasons
        assert "internal_error" not in reasons
        assert not here.tracebacks()
        assert sample("voiced_calls_live") == 0
    assert tasks() == tasks_without


async def held(crowd: Crowd, calls: int) -> None:
    limiter = trio.CapacityLimiter(AT_A_TIME)

    async def limited(part: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with limiter:
            await part()

    async with trio.open_nursery() as callers:
        for _ in range(calls):
            callers.start_soon(limited, crowd.next())


async def settled() -> None:
    """Wait until what ends by itself has ended: the model's sides of sockets."""
    before = -1
    while before != tasks():
        before = tasks()
        await trio.sleep(0.3)
    gc.collect()


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living
