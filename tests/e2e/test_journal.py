"""The journal of a live daemon: what operators are told when its file is not there."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx
import trio

from tests.e2e.house import agent, house, until
from voiced.simulate.wire import Identifiers

WAITS = '[engine.offline]\nkind = "emulator"\n' + agent("waits", "offline", 'greeting = ""')
ADMIN = '[admin]\nlisten = "unix:{path}"\ntoken = "a-token"\n'


async def test_live_calls_are_in_a_journal_that_is_begun_anew(tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    async with house(tmp_path, ADMIN.format(path=socket) + WAITS) as here:

        async def asked(path: str) -> httpx.Response:
            with httpx.Client(
                transport=httpx.HTTPTransport(uds=str(socket)),
                headers={"Authorization": "Bearer a-token"},
            ) as client:
                return await trio.to_thread.run_sync(client.get, f"http://x{path}")

        def known() -> set[str]:
            with contextlib.suppress(Exception):
                return {row["carrier_call_id"] for row in here.rows()}
            return set()

        async with here.stream("waits") as stream:
            await until(lambda: known() == {stream.ids.call_sid}, "the row of the live call")
            for file in here.state_dir.glob("journal.sqlite*"):
                file.unlink()
            for path in ("/api/calls?all=1", "/api/calls/none", "/api/calls?all=1"):
                answer = await asked(path)
                assert answer.status_code == 503, answer.text
                assert answer.json()["error"] == "no_journal"
            assert (await asked("/api/calls")).status_code == 200, "live ones need no journal"
            assert not (here.state_dir / "journal.sqlite").exists(), "who reads makes none"

            other = Identifiers()
            await here.admit("waits", other)
            both = {stream.ids.call_sid, other.call_sid}
            await until(lambda: known() == both, "both rows in the new file")
            assert (await asked("/api/calls?all=1")).status_code == 200
            await here.over(other)
            await stream.hang_up()
        await here.idle()
        assert not here.tracebacks()
