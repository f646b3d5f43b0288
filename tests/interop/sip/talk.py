"""What the tests with baresip share: telephones, calls, and the judgement of a conversation."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from tests.e2e.house import Outcomes, judge, until
from tests.interop.sip.house import SipHouse
from tests.interop.sip.listening import Found, find, of_clip, read, words
from tests.interop.sip.peers import LOOPBACK, Certificates
from tests.interop.sip.phones import Baresip, baresip
from voiced import clips
from voiced.call import Call

__all__ = ["AGENTS", "Played", "Talk", "settled"]

LEAD_S = 1.0
LATE_MS = 2000
"""How late a machine with other things to do may be before a test takes it for a defect."""

LONGEST_S = 60.0
"""What no conversation here takes."""

TURN_MS = 500
"""Silence after which the model takes a turn for ended."""

_PATIENT = 'greeting = ""\nsilence_prompt_s = 0\nsilence_hangup_s = 0\n'

AGENTS = f"""
[agent.reception]
engine = "offline"
{_PATIENT}
[agent.parrot]
engine = "echo"
{_PATIENT}
[agent.greeter]
engine = "offline"
greeting_text = "{clips.load("greeting").text}"
silence_prompt_s = 0
silence_hangup_s = 0

[engine.offline]
kind = "emulator"
speech = "clips"

[engine.echo]
kind = "emulator"
speech = "echo"

[[number]]
match = "sip:echo@127.0.0.1"
agent = "parrot"

[[number]]
match = "sip:h*"
agent = "reception"
"""
"""`echo` says again what it hears, names with an h are answered."""


@dataclass
class Talk:
    """A daemon, and what its callers pressed, by Call-ID."""

    house: SipHouse
    papers: Certificates | None
    ports: Mapping[str, int]
    """Where telephones that we call wait."""
    pressed: Mapping[str, str] = field(default_factory=dict)
    checks: dict[str, list[Callable[[], None]]] = field(default_factory=dict)
    """By scene: what is looked at when no call is live any more, since it takes its time."""

    @asynccontextmanager
    async def phone(
        self,
        name: str,
        *,
        codecs: str = "PCMU",
        question: str = "hello",
        lead_s: float = LEAD_S,
        **more: Any,
    ) -> AsyncIterator[Baresip]:
        """A telephone that asks `question` after `lead_s` and then is silent for minutes."""
        rate = 16000 if codecs.startswith("G722") else 8000
        voice = self.house.folder / f"{name}.wav"
        words(voice, [lead_s, question, 120.0], rate)
        if self.papers is not None:
            more = {"certificate": self.papers.both, "ca": self.papers.ca, **more}
        folder = self.house.folder / name
        async with baresip(folder, voice, codecs=codecs, **more) as phone:
            yield phone

    async def calls(self, phone: Baresip, to: str, transport: str = "udp") -> str:
        """It calls us (or another host, `user@host`); returns the Call-ID when answered."""
        uri = f"sip:{to}" if "@" in to else f"sip:{to}@{LOOPBACK}:{self.house.ports[transport]}"
        await phone.command("dial", uri + ("" if transport == "udp" else f";transport={transport}"))
        call: str = (await phone.told("CALL_ESTABLISHED"))["id"]
        return call

    async def converses(self, phone: Baresip, to: str, transport: str = "udp") -> str:
        """It calls us, asks, and hears the answer to its end; returns the Call-ID."""
        call = await self.calls(phone, to, transport)
        await self.answer(call)
        return call

    async def answer(self, carrier_call_id: str) -> None:
        """Wait until the agent has spoken, and a little more."""
        await self.comes_to(carrier_call_id, "speaking")
        await self.comes_to(carrier_call_id, "listening")
        await trio.sleep(0.5)  # what is under way, and the telephone's own buffer

    async def comes_to(self, carrier_call_id: str, state: str) -> None:
        """Wait until the call is in a state."""
        await until(lambda: bool(self._live(carrier_call_id)), "the call")
        (call,) = self._live(carrier_call_id)
        with trio.move_on_after(LONGEST_S):
            while call.record.state.value != state:
                assert call.record.state.value != "ended", call.record.reason
                await trio.sleep(0.02)
            return
        raise AssertionError(f"{call.record.state}, never {state}")

    async def hangs_up(self, phone: Baresip) -> dict[str, Any]:
        """It ends its call; returns the journal's row."""
        call = (await phone.told("CALL_ESTABLISHED"))["id"]
        await phone.command("hangup")
        row = await self.row(call)
        assert row["reason"] == "caller_hangup"
        return row

    async def row(self, carrier_call_id: str) -> dict[str, Any]:
        """The journal's row of a call, once it has ended; the disk is left alone until then."""
        (line,) = [
            line
            for line in self.house.lines("call received")
            if line["carrier_call"] == carrier_call_id
        ]
        return await self.row_of(line["call"])

    async def row_of(self, call_id: str) -> dict[str, Any]:
        """The same, by voiced's own id."""
        await until(lambda: bool(self.house.lines("call ended", call=call_id)), "the call's end")
        return await self.house.row_of(call_id)

    def state(self, carrier_call_id: str) -> str:
        """Of the call with this Call-ID."""
        (call,) = self._live(carrier_call_id)
        return call.record.state.value

    def _live(self, carrier_call_id: str) -> list[Call]:
        return [
            call for call in self.house.switchboard if call.facts.carrier_call_id == carrier_call_id
        ]

    def expect(
        self,
        phone: Baresip,
        row: Mapping[str, Any],
        question: str,
        answer: str,
        *,
        codec: str,
        srtp: bool = False,
        said: str | None = None,
    ) -> None:
        """The model understood `question`, and the telephone heard all of the clip `answer`.

        `said`: the clip of which the transcript tells, where it is another than was heard.
        """
        media = row["media"]
        assert (media["codec"], media["srtp"]) == (codec, srtp)
        told = [entry["text"] for entry in row["transcript"]]
        wanted = [clips.load(question).text, clips.load(said or answer).text]
        assert told[-2:] == wanted, (told, media)
        mishaps = ("lost", "late", "malformed", "unexpected")
        assert not any(media[each] for each in mishaps), media
        self.later(phone, partial(_counted, phone, media))
        # Recorded is what came, so that a machine that stalled shortens the pause.
        slack_ms = media["skipped_ms"] + media["filled_ms"]
        self.later(phone, partial(self._conversation, phone, question, answer, codec, slack_ms))

    def hears(self, phone: Baresip, clip: str, before_ms: float = math.inf) -> None:
        """The telephone heard all of a clip, which began before `before_ms`."""
        self.later(phone, partial(self._clip, phone, clip, before_ms))

    def later(self, phone: Baresip, check: Callable[[], None]) -> None:
        """Look at recordings when the telephones are gone.

        A telephone is called as its scene is, with a dot and more where there are several.
        """
        self.checks.setdefault(phone.folder.name.partition(".")[0], []).append(check)

    def _conversation(
        self, phone: Baresip, question: str, answer: str, codec: str, slack_ms: float
    ) -> None:
        heard, spoken = read(phone.heard()), read(phone.said())
        asked = find(spoken, of_clip(question, spoken.rate))
        found = find(heard, of_clip(answer, heard.rate))
        # Both recordings begin with the call's first packets: within a few frames of each other.
        delay_ms = found.first_ms - asked.last_ms
        self._note(phone, f"{codec} {answer}, {delay_ms:.0f} ms after the question", found)
        _is_whole(found)
        assert TURN_MS - 100 - slack_ms < delay_ms < TURN_MS + LATE_MS

    def _clip(self, phone: Baresip, clip: str, before_ms: float) -> None:
        heard = read(phone.heard())
        found = find(heard, of_clip(clip, heard.rate))
        self._note(phone, clip, found)
        _is_whole(found)
        assert found.first_ms < before_ms

    def _note(self, phone: Baresip, what: str, found: Found) -> None:
        """Keep the figures beside the recordings."""
        with (self.house.folder / "measured.txt").open("a", encoding="utf-8") as file:
            file.write(f"{phone.folder.name}: {what}: {found}\n")


def _counted(phone: Baresip, media: Mapping[str, Any]) -> None:
    """What one side sent the other received, but for what was under way at the end.

    What a telephone that we call says before its 200 has reached us is a stranger's.
    """
    sent, received = phone.packets()
    assert abs(received - media["sent_packets"]) <= 2, (received, media)
    assert -2 <= sent - media["packets"] <= 2 + media["strangers"], (sent, media)


def _is_whole(found: Found) -> None:
    assert found.alike > 0.9, found
    assert found.slips_ms < 2, found
    assert abs(found.gain_db) < 1, found


async def settled(house: SipHouse) -> None:
    """Nothing is left of any call. The daemon's log joins the recordings."""
    with (house.folder / "daemon.log").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, default=str) + "\n" for line in house.logs)
    await house.nothing_left()


@dataclass(frozen=True)
class Played:
    """Scenes that are over, and what they left to be looked at."""

    outcomes: Outcomes
    talk: Talk

    def __post_init__(self) -> None:
        assert self.talk.checks.keys() <= self.outcomes.keys()

    def judge(self, name: str) -> None:
        """Fail the test of a scene that failed, or whose recordings are not as they should be."""
        judge(self.outcomes, name)
        for check in self.talk.checks.get(name, ()):
            check()
