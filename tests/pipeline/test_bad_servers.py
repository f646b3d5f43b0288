"""Servers that do anything but what they should: a session answers, or says that it is lost."""

from __future__ import annotations

from collections.abc import Iterator

import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.pipeline.house import House, Stt, Thinker, Voice, plan
from tests.pipeline.peer import Peer, Reply, Request, hours
from tests.pipeline.test_engine import CONFIG
from tests.pipeline.test_session_properties import responses, turns
from voiced.config.types import Agent, OwnVad
from voiced.engine import EngineFault, Lost, ResponseDone
from voiced.pipeline import PipelineEngine

BEHAVIOUR = st.one_of(
    st.just("well"),
    st.sampled_from([302, 400, 401, 404, 429, 500, 503]),
    st.sampled_from(["hang up", "cut", "silent", "silent amid", "empty"]),
    st.binary(max_size=60),
)


@settings(max_examples=40, deadline=None)
@given(
    behaviours=st.lists(BEHAVIOUR, max_size=12),
    kind=st.sampled_from(["application/json", "text/event-stream", "audio/pcm", "audio/wav", ""]),
)
@example(behaviours=["silent amid", 302], kind="application/json")
@example(behaviours=["silent amid", 302, 400, "hang up"], kind="application/json")
def test_no_server_does_harm(behaviours: list[str | int | bytes], kind: str) -> None:
    peer = Peer()
    left = iter(behaviours)

    async def handler(request: Request, reply: Reply) -> None:
        await behave(left, kind, request, reply)

    peer.handler = handler

    async def main() -> None:
        async with peer.http() as http, trio.open_nursery() as nursery:
            engine = PipelineEngine("test", CONFIG, http=http)
            agent = Agent(turn_detection=OwnVad(silence_ms=200))
            async with engine.open(plan(agent)) as session:
                h = House(session, Stt(), Thinker(), Voice())
                nursery.start_soon(h.listen)
                for _ in range(3):
                    await h.turn(ms=200, quiet_ms=400)
                    await trio.sleep(1)
                session.respond()
                await trio.sleep(120)
                check(h)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def check(h: House) -> None:
    events = [event for _, event in h.events]
    responses(events)
    turns(events)
    if any(isinstance(event, Lost) for event in events):
        assert [at for at, e in enumerate(events) if isinstance(e, Lost)] == [len(events) - 1]
    else:
        told = [event for event in events if not isinstance(event, EngineFault)]
        assert isinstance(told[-1], ResponseDone)
    assert len(h.sound()) % 2 == 0


async def behave(
    left: Iterator[str | int | bytes], kind: str, request: Request, reply: Reply
) -> None:
    match next(left, "well"):
        case int(status):
            await reply.json({"error": {"message": "no"}}, status=status, location="/elsewhere")
        case "hang up":
            pass
        case "cut":
            await reply.head(content_type=kind)
            await reply.part(b'data: {"choices":[{"delta":{"content":"We are "}}]}\n\n')
        case "silent":
            await trio.sleep(1000)
        case "silent amid":
            await reply.head(content_type=kind)
            await reply.part(b"\0\0\0\0\0")
            await trio.sleep(1000)
        case "empty":
            await reply.head(content_type=kind)
            await reply.end()
        case bytes(garbage):
            await reply.head(content_type=kind)
            await reply.part(garbage or b"\0")
            await reply.end()
        case _:
            await hours(request, reply)
