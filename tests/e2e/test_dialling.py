"""Calls that voiced places over Twilio, and transfers there: the admin API in, the REST API out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from tests.e2e.house import SOON_S, House, Stream, agent, house, open_files, until
from tests.e2e.test_leaks import settled, tasks
from tests.twilio.fake_rest import ACCOUNT, TOKEN, Failure, FakeRest, fake_rest
from voiced.simulate.signature import sign
from voiced.simulate.twiml import parse_twiml
from voiced.simulate.wire import Identifiers, Narrator

PUBLIC = "https://voice.example.net"
OFFLINE = '[engine.offline]\nkind = "emulator"\nspeech = "clips"\n'


class Office:
    """A house with an account at Twilio, and its operator."""

    def __init__(self, here: House, rest: FakeRest, client: httpx.AsyncClient) -> None:
        self.here = here
        self.rest = rest
        self.client = client

    async def ask(self, path: str, **body: object) -> httpx.Response:
        return await self.client.post(path, json=body)

    async def dial(self, to: str = "+4930123456", **more: object) -> str:
        answer = await self.ask("/api/calls", to=to, trunk="twilio", **more)
        assert answer.status_code == 201, answer.text
        call_id: str = answer.json()["id"]
        return call_id

    async def show(self, call_id: str) -> dict[str, Any]:
        answer = await self.client.get(f"/api/calls/{call_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    @property
    def sid(self) -> str:
        """The newest call at Twilio."""
        return list(self.rest.calls)[-1]

    async def status(self, word: str) -> None:
        """Twilio tells that the call is over."""
        await self.here.over(Identifiers(call_sid=self.sid, account_sid=ACCOUNT), word)

    @asynccontextmanager
    async def answered(self, **more: str) -> AsyncIterator[Stream]:
        """The telephone is picked up: Twilio asks for TwiML and connects the stream."""
        ids = Identifiers(call_sid=self.sid, account_sid=ACCOUNT)
        fields = {
            "CallSid": self.sid,
            "AccountSid": ACCOUNT,
            "From": "+15550100",
            "To": "+4930123456",
            "CallStatus": "in-progress",
            "Direction": "outbound-api",
            **more,
        }
        answer = await self.here.post(fields=fields)
        assert answer.status == 200, answer
        told = parse_twiml(answer.body).url
        url = self.here.address.replace("http", "ws", 1) + urlsplit(told).path
        signature = [("X-Twilio-Signature", sign(TOKEN, told, ()))]
        network = self.here.network
        async with network.open_media(url, headers=signature, timeout_s=SOON_S) as socket:
            stream = Stream(socket, ids, Narrator(ids), self.here)
            await socket.send(stream.narrator.connected())
            await socket.send(stream.narrator.start({}))
            yield stream


@asynccontextmanager
async def office(folder: Path, more: str = "") -> AsyncIterator[Office]:
    with fake_rest() as rest:
        text = (
            f'[http]\npublic_url = "{PUBLIC}"\n[twilio]\nauth_token = "{TOKEN}"\n'
            f'account_sid = "{ACCOUNT}"\napi_url = "{rest.url}"\ncaller_id = "+15550100"\n'
            + OFFLINE
            + agent("sales", "offline", 'greeting = "Greet."')
            + more
        )
        async with house(folder, text, auth_token=TOKEN, public_url=PUBLIC) as here:
            (listening,) = [line for line in here.logs if line["event"] == "listening"]
            token = (here.state_dir / "admin.token").read_text().strip()
            async with httpx.AsyncClient(
                base_url=f"http://{listening['admin']}",
                headers={"Authorization": f"Bearer {token}"},
                timeout=SOON_S,
            ) as client:
                yield Office(here, rest, client)


LISTENS = """
from voiced.plugin import Plugin

class Listens(Plugin):
    async def on_media(self):
        self.call.set_fact("at_media", self.call.parameters.get("AnsweredBy"))

    async def on_parameters(self, changed):
        self.call.set_fact("told", changed.get("AnsweredBy"))
        self.call.set_fact("known", self.call.parameters.get("AnsweredBy"))
"""


async def test_plugins_hear_who_answered(tmp_path: Path) -> None:
    """By the request for TwiML, which waits for it, or by a later one of its own."""
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins" / "listens.py").write_text(LISTENS)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "plugins.toml").write_text(f'daemon.plugin_dir = "{tmp_path}/plugins"\n')
    async with office(tmp_path, "\n[plugins.listens]\n") as desk:
        call_id = await desk.dial(machine_detection=True)
        async with desk.answered(AnsweredBy="machine_end_beep") as stream:
            await stream.hears("media")
            assert (await desk.show(call_id))["parameters"]["AnsweredBy"] == "machine_end_beep"
            row = await stream.hang_up()
        assert row["facts"]["at_media"] == row["facts"]["told"] == "machine_end_beep"
        await desk.dial(machine_detection=True)
        async with desk.answered() as stream:
            await stream.hears("media")
            for _ in range(2):  # a callback that comes again is nothing new
                fields = {
                    "CallSid": desk.sid,
                    "AccountSid": ACCOUNT,
                    "CallStatus": "in-progress",
                    "AnsweredBy": "fax",
                }
                assert (await desk.here.post("/twilio/status", fields)).status == 204
            row = await stream.hang_up()
        assert row["facts"] == {"at_media": None, "told": "fax", "known": "fax"}
        await desk.here.idle()
        assert not desk.here.tracebacks()


async def test_answered_talked_with_and_hung_up(tmp_path: Path) -> None:
    async with office(tmp_path) as desk:
        call_id = await desk.dial(timeout_s=20, machine_detection=True)
        form = dict(desk.rest.asked[-1].form)
        assert form["To"] == "+4930123456"
        assert form["From"] == "+15550100"
        assert form["Url"] == f"{PUBLIC}/twilio/voice"
        assert form["StatusCallback"] == f"{PUBLIC}/twilio/status"
        assert form["Timeout"] == "20"
        assert form["MachineDetection"] == "Enable"
        assert (await desk.show(call_id))["state"] == "dialling"
        async with desk.answered() as stream:
            await stream.hears("media")  # the agent greets whoever picks up
            assert (await desk.show(call_id))["direction"] == "outbound"
            row = await stream.hang_up()
        assert (row["call_id"], row["reason"]) == (call_id, "callee_hangup")
        assert [state for state, _ in row["states"]][:3] == ["dialling", "media_ready", "greeting"]
        await desk.here.idle()
        assert desk.rest.asked[-1].path.endswith("Calls.json")  # nobody hangs up what is over


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("busy", "carrier_busy"),
        ("no-answer", "carrier_no_answer"),
        ("failed", "carrier_failed"),
    ],
)
async def test_not_answered(tmp_path: Path, word: str, reason: str) -> None:
    async with office(tmp_path) as desk:
        call_id = await desk.dial()
        await desk.status(word)
        await desk.here.idle()
        while (found := await desk.show(call_id))["live"]:  # until its slot is free
            await trio.sleep(0.02)
        assert found["reason"] == reason
        assert len(desk.rest.asked) == 1  # nobody hangs up what is over


async def test_hung_up_while_it_rings(tmp_path: Path) -> None:
    async with office(tmp_path) as desk:
        call_id = await desk.dial()
        assert (await desk.ask(f"/api/calls/{call_id}/hangup")).status_code == 200
        await until(lambda: desk.rest.calls[desk.sid]["status"] == "completed", "the hang-up")


async def test_twilio_refuses(tmp_path: Path) -> None:
    async with office(tmp_path) as desk:
        desk.rest.failures.append(Failure(400, b'{"code": 21215, "message": "Not allowed"}'))
        answer = await desk.ask("/api/calls", to="+4930123456", trunk="twilio")
        assert answer.status_code == 502
        assert answer.json()["error"] == "carrier_refused"
        assert "21215" in answer.json()["message"]
        answer = await desk.ask("/api/calls", to="+4930123456", headers={"X-Tier": "gold"})
        assert answer.status_code == 422
        assert not desk.here.rows()


async def test_the_webhook_may_overtake_the_answer_to_our_request(tmp_path: Path) -> None:
    async with office(tmp_path) as desk:
        desk.rest.answering.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.dial)
            await until(lambda: bool(desk.rest.calls), "the call at Twilio")

            async def pick_up() -> None:
                async with desk.answered() as stream:
                    await stream.hears("media")
                    await stream.hang_up()

            nursery.start_soon(pick_up)
            await trio.sleep(0.1)
            desk.rest.answering.set()
        await desk.here.idle()
        assert [row["direction"] for row in desk.here.rows()] == ["outbound"]


@pytest.mark.parametrize("first", ["answer", "stream"])
async def test_transfer(tmp_path: Path, first: str) -> None:
    """The new TwiML ends the stream, before or after the API has answered."""
    async with office(tmp_path) as desk:
        call_id = await desk.dial()
        async with desk.answered() as stream:
            await stream.hears("media")
            answer = await desk.ask(f"/api/calls/{call_id}/transfer", to="not a number")
            assert answer.status_code == 422
            if first == "stream":
                desk.rest.answering.clear()
            async with trio.open_nursery() as nursery:

                async def carried_out() -> None:
                    await until(lambda: "Twiml" in dict(desk.rest.asked[-1].form), "the update")
                    if first == "stream":
                        await stream.socket.send(stream.narrator.stop())
                        await stream.closed()
                        desk.rest.answering.set()

                nursery.start_soon(carried_out)
                answer = await desk.ask(f"/api/calls/{call_id}/transfer", to="+4930999")
            assert answer.json()["done"] is True, answer.text
            form = dict(desk.rest.asked[-1].form)
            assert "<Number>+4930999</Number>" in form["Twiml"]
        row = await desk.here.row(desk.sid)
        assert row["reason"] == "transferred"


async def test_callers_who_leave_during_a_transfer_leave_nothing(tmp_path: Path) -> None:
    """The REST API has not answered yet, and nobody waits for it any more."""
    async with office(tmp_path) as desk:

        async def leaves(call_id: str, stream: Stream, after_s: float) -> None:
            async with trio.open_nursery() as nursery:
                path = f"/api/calls/{call_id}/transfer"
                nursery.start_soon(partial(desk.ask, path, to="+4930999"))
                with trio.fail_after(SOON_S):
                    while (await desk.show(call_id))["state"] != "transferring":
                        await trio.sleep(0.05)
                await trio.sleep(after_s)
                await stream.socket.send(stream.narrator.stop())
                await stream.closed()

        async def all_leave(count: int) -> None:
            async with AsyncExitStack() as stack:
                calls = []
                for _ in range(count):
                    call_id = await desk.dial()
                    stream = await stack.enter_async_context(desk.answered())
                    await stream.hears("media")
                    calls.append((call_id, stream))
                desk.rest.answering.clear()
                async with trio.open_nursery() as nursery:
                    for number, (call_id, stream) in enumerate(calls):
                        nursery.start_soon(leaves, call_id, stream, 0.02 * number)
            await desk.here.idle()

        await all_leave(8)  # threads, clips and the operator's own connections are made once
        desk.rest.answering.set()
        await settled()
        tasks_before, files_before = tasks(), open_files()
        await all_leave(8)
        with trio.move_on_after(4.0):  # shorter than the patience with the REST API
            await until(lambda: tasks() <= tasks_before, "the tasks of before")
        assert tasks() <= tasks_before
        desk.rest.answering.set()  # the account's own sockets wait for it
        await until(lambda: open_files() <= files_before, "the files of before")
        rows = desk.here.rows()
        assert {row["states"][-2][0] for row in rows} == {"transferring"}
        assert len(rows) == 16
        assert not desk.here.tracebacks()
