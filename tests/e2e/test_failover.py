"""A model that is lost in every moment of a call, over both carriers: the caller talks on.

What was said is understood, what was owed is heard, and nobody waits in silence.
"""

from __future__ import annotations

from functools import partial

import pytest
import trio

from tests.e2e.failing import Line, Outcome, Plot, words
from tests.e2e.house import Outcomes, judge
from tests.e2e.plays import (
    BRIEF,
    GREETS,
    HEARS,
    SILENT,
    SLOW,
    Plays,
    no_dead_air,
    places_taken,
    went_on,
)
from tests.e2e.sip_peer import sip_peer
from voiced import clips
from voiced.audio import pcm_to_ulaw
from voiced.emulator.options import EmulatorOptions, Faults
from voiced.simulate.script import (
    HangUp,
    Pause,
    Press,
    Say,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)

OUTAGE_S = 1.5
TRANSFER = "+4930999"

plays = Plays()
scenario = plays.scenario


# ---- lost in every state; the server is back at once, or after a while

THANKS: tuple[Step, ...] = (Say("thanks"), *HEARS, HangUp())
GREETED: tuple[Step, ...] = (*HEARS, *THANKS)
ASKED: tuple[Step, ...] = (Say("interrupt"), *HEARS, *THANKS)

MOMENTS = (
    ("connecting", 0, GREETED, OUTAGE_S),
    ("greeting", 1, GREETED, 0.0),
    ("greeting", 1, GREETED, OUTAGE_S),
    ("listening", 2, ASKED, 0.0),
    ("listening", 2, ASKED, OUTAGE_S),
    ("caller_speaking", 1, ASKED, 0.0),
    ("caller_speaking", 1, ASKED, OUTAGE_S),
    ("thinking", 1, ASKED, 0.0),
    ("speaking", 1, ASKED, 0.0),
    ("speaking", 1, ASKED, OUTAGE_S),
)


async def lost_in(
    line: Line, state: str, times: int, steps: tuple[Step, ...], outage_s: float
) -> None:
    """Lose the model in a state that the call enters for the n-th time."""

    async def lose() -> None:
        if times:
            await line.state(state, times)
            await trio.sleep(0.3)
        line.wire.down()
        await trio.sleep(outage_s)
        line.wire.up()

    line.beside(lose)
    call = await line.call(*steps)
    went_on(line, call)
    assert call.row["engine"] == line.agent
    assert call.codes
    for said in call.result.caller:
        assert said.clip is not None
        assert words(said.clip) in call.said("caller")
        no_dead_air(line, call, said.end_ms)
    assert "Goodbye." in call.said("agent")
    if state != "listening":
        no_dead_air(line, call, max(0.0, call.losses_ms[0]))


for moment in MOMENTS:
    state, _, steps, outage_s = moment
    plot = Plot(SLOW, GREETS if steps is GREETED else SILENT)
    name = f"lost_while_{state}" + ("_for_long" if outage_s else "")
    scenario(plot, name)(
        partial(lost_in, state=state, times=moment[1], steps=steps, outage_s=outage_s)
    )


@scenario(Plot(SLOW, SILENT))
async def a_filler_covers_an_outage(line: Line) -> None:
    async def lose() -> None:
        await line.state("thinking")
        line.wire.down()
        await trio.sleep(3)
        line.wire.up()

    line.beside(lose)
    call = await line.call(Say("thanks"), *HEARS, WaitForAgentSilence(3000), HangUp())
    went_on(line, call)
    filler, answer = call.hears("one_moment"), call.hears("goodbye")
    assert filler is not None
    assert answer is not None
    assert filler < answer
    no_dead_air(line, call, call.losses_ms[0])


@scenario(Plot(SLOW, SILENT, engine="silent_s = 1"))
async def frozen_while_thinking(line: Line) -> None:
    """Half open: TCP is there, and nothing comes any more."""

    async def lose() -> None:
        await line.state("thinking")
        line.wire.freeze()
        await line.model("reconnecting")
        line.wire.up()

    line.beside(lose)
    call = await line.call(Say("thanks"), *HEARS, HangUp())
    went_on(line, call)
    assert call.codes == ["silent"]
    assert "Goodbye." in call.said("agent")


@scenario(Plot(SLOW, GREETS))
async def frozen_while_listening(line: Line) -> None:
    """Found out by pings, before the caller says a word."""

    async def lose() -> None:
        await line.state("listening")
        line.wire.freeze()
        await line.model("reconnecting")
        line.wire.up()

    line.beside(lose)
    call = await line.call(*HEARS, Pause(4000), Say("thanks"), *HEARS, HangUp())
    went_on(line, call)
    assert call.codes == ["half_open"]
    assert "Goodbye." in call.said("agent")


@scenario(Plot(EmulatorOptions(speech="clips", faults=Faults(answer_ms=9000)), GREETS))
async def frozen_while_answering(line: Line) -> None:
    """In the midst of a word."""

    async def lose() -> None:
        await line.state("greeting")
        await trio.sleep(0.2)
        line.wire.freeze()
        await line.model("reconnecting")
        line.wire.up()

    line.beside(lose)
    call = await line.call(*HEARS, Pause(3000), Say("thanks"), *HEARS, HangUp())
    went_on(line, call)
    assert call.codes == ["half_open"]
    assert "Goodbye." in call.said("agent")


# ---- never back


async def asks_and_remembers(line: Line) -> Outcome:
    async def lose() -> None:
        await line.state("listening", 2)
        line.wire.down()

    line.beside(lose)
    return await line.call(Say("interrupt"), *HEARS, Pause(500), Say("recall"), *HEARS, HangUp())


@scenario(Plot(SLOW, SILENT.replace("6", "1") + 'fallback_engine = "spare"\n'))
async def never_back(line: Line) -> None:
    """The other engine takes over, and knows what was said."""
    call = await asks_and_remembers(line)
    went_on(line, call)
    assert call.row["engine"] == "spare"
    assert words("you_asked") in call.said("agent")
    no_dead_air(line, call, call.result.caller[-1].end_ms)


@scenario(
    Plot(
        EmulatorOptions(speech="clips", faults=Faults(quota=True)),
        GREETS + 'fallback_engine = "spare"\n',
    )
)
async def no_quota(line: Line) -> None:
    """No attempt can succeed: the other engine answers at once."""
    call = await line.call(*HEARS, Say("thanks"), *HEARS, HangUp())
    went_on(line, call)
    assert call.row["engine"] == "spare"
    assert line.wire.connections == 1
    assert call.hears("one_moment") is None
    assert "Goodbye." in call.said("agent")


LOSES_BOTH = BRIEF + 'greeting = "Greet the caller."\nfallback_engine = "bad"\n'
BAD = """
[engine.bad]
kind = "emulator"
speech = "clips"
faults = { refuse_status = 503 }

[engine.full]
kind = "emulator"
speech = "clips"
"""


async def loses_both(line: Line) -> Outcome:
    async def lose() -> None:
        await line.state("listening")
        line.wire.down()

    line.beside(lose)
    return await line.call(WaitForAgentSpeech(300), WaitForHangUp())


@scenario(Plot(agent=LOSES_BOTH))
async def both_are_lost(line: Line) -> None:
    """The message, then the end."""
    call = await loses_both(line)
    assert call.result.failure is None
    assert (call.row["reason"], call.result.ended_by) == ("model_lost", "agent")
    filler, message = call.hears("one_moment"), call.hears("unavailable")
    assert message is not None
    assert filler is None or filler < message  # none where the message itself is there so soon
    no_dead_air(line, call, call.losses_ms[0])


@scenario(Plot(agent=f'{LOSES_BOTH}transfer_when_lost = "{TRANSFER}"\n'))
async def both_are_lost_and_somebody_else_is_there(line: Line) -> None:
    call = await loses_both(line)
    assert call.result.failure is None
    assert call.row["reason"] == "transferred"
    assert call.hears("unavailable") is None
    if line.carrier == "sip":
        assert call.result.sip is not None
        assert TRANSFER in str(call.result.sip.transferred_to)
    else:
        forms = [dict(asked.form) for asked in line.stage.rest.asked]
        assert any(f"<Number>{TRANSFER}</Number>" in form.get("Twiml", "") for form in forms)


ALONE = Plot(agent=f'{BRIEF}greeting = ""\ntransfer_when_lost = "{TRANSFER}"\n')


async def lose_now(line: Line) -> None:
    await line.state("listening")
    await line.model("ready")
    line.wire.down()


def told_of(line: Line, status: int) -> None:
    """The operator can read why the transfer failed."""
    (failed,) = line.logged("transfer failed")
    assert failed["status"] == status
    assert failed["why"]


@scenario(ALONE, carriers=("twilio",))
async def twilio_refuses_the_transfer(line: Line) -> None:
    """The call is over for Twilio (400), or none of this account's (404): the message after all."""
    for status in (400, 404):

        async def lose(status: int = status) -> None:
            if status == 400:
                line.stage.rest.calls[line.ids.call_sid]["status"] = "completed"
            else:
                del line.stage.rest.calls[line.ids.call_sid]
            await lose_now(line)

        line.wire.up()
        line.beside(lose)
        call = await line.call(WaitForHangUp())
        assert call.result.failure is None
        assert (call.row["reason"], call.result.ended_by) == ("model_lost", "agent")
        assert call.hears("unavailable") is not None
        told_of(line, status)


UNAVAILABLE = pcm_to_ulaw(clips.load("unavailable").pcm)


@scenario(ALONE, carriers=("sip",))
async def the_carrier_declines_the_transfer(line: Line) -> None:
    """The REFER itself, or what it asked for, as the NOTIFY tells: the message after all."""
    for declines in ("the REFER", "the transfer"):
        line.wire.up()
        line.begins()
        async with sip_peer() as peer:
            await peer.call(line.stage.sip, line.number)
            await lose_now(line)
            if declines == "the REFER":
                refer = await peer.comes("REFER")
                assert TRANSFER in (refer.get("refer-to") or "")
                await peer.respond(refer, 603)
            else:
                assert TRANSFER in await peer.takes_transfer("603 Decline")
            await peer.until_bye()
        row = await line.stage.here.row(peer.call_id)
        assert (row["reason"], row["states"][-2][0]) == ("model_lost", "ending")
        assert UNAVAILABLE in peer.heard(), "to its last sample"
        told_of(line, 603)


# ---- renewal

LIMITED = Plot(EmulatorOptions(speech="clips", session_s=12), SILENT)


@scenario(LIMITED)
async def renewed(line: Line) -> None:
    """Sessions of 12 s in a call of half a minute: nobody notices, nothing is forgotten."""
    call = await line.call(
        Say("interrupt"),
        *HEARS,
        Pause(5500),
        Say("recall"),
        *HEARS,
        Pause(2500),
        Say("thanks"),
        *HEARS,
        HangUp(),
    )
    went_on(line, call)
    renewals = [
        each
        for each in line.stage.here.logs
        if each["event"] == "model session renewed" and each["engine"] == line.agent
    ]
    assert len(renewals) >= 2
    assert call.codes == []
    assert call.hears("one_moment") is None
    assert f"{words('you_asked')} {words('interrupt')}" in call.said("agent")
    assert "Goodbye." in call.said("agent")
    assert not call.result.gaps


# ---- the caller does something else meanwhile


@scenario(Plot(SLOW, SILENT))
async def hangs_up_meanwhile(line: Line) -> None:
    async def lose() -> None:
        await line.state("thinking")
        line.wire.down()

    line.beside(lose)
    call = await line.call(Say("thanks"), Pause(1200), HangUp())
    line.wire.up()
    assert (call.row["reason"], call.result.failure) == ("caller_hangup", None)
    attempts = line.wire.connections
    await trio.sleep(1.5)
    assert line.wire.connections == attempts, "nobody tries for a call that is over"


@scenario(Plot(SLOW, SILENT.replace("6", "20") + "silence_hangup_s = 3\nmax_duration_s = 6\n"))
async def said_goodbye_to_meanwhile(line: Line) -> None:
    """The call has been long enough: the farewell does not wait for a model."""

    async def lose() -> None:
        await line.state("listening")
        line.wire.down()

    line.beside(lose)
    call = await line.call(Say("thanks"), WaitForHangUp())
    line.wire.up()
    assert call.result.failure is None
    assert call.row["reason"] == "max_duration"
    assert call.hears("farewell") is not None


@scenario(Plot(SLOW, GREETS))
async def keys_meanwhile(line: Line) -> None:
    """They are pressed while nobody listens, and known to who listens next."""

    async def lose() -> None:
        await line.state("listening")
        line.wire.down()
        await trio.sleep(OUTAGE_S)
        line.wire.up()

    line.beside(lose)
    call = await line.call(*HEARS, Press("7"), Pause(2500), Say("thanks"), *HEARS, HangUp())
    went_on(line, call)
    assert "Goodbye." in call.said("agent")


# ---- limits


@scenario(Plot(agent=GREETS + 'fallback_engine = "spare"\n', engine="max_sessions = 1"))
async def no_session_is_free(line: Line) -> None:
    """The second caller talks to the other engine; the place is free again after the first."""
    second = Line(line.stage, line.name, line.carrier, line.number, line.wire)
    outcomes: list[Outcome] = []

    async def call_too() -> None:
        await line.state("listening")
        outcomes.append(await second.call(*HEARS, HangUp()))

    line.beside(call_too)
    first = await line.call(*HEARS, Pause(6000), HangUp())
    went_on(line, first)
    (other,) = outcomes
    went_on(second, other)
    assert (first.row["engine"], other.row["engine"]) == (line.agent, "spare")

    await places_taken(line.stage, line.agent, 0)

    async def lose() -> None:
        await line.state("listening", 2)
        line.wire.cut()

    line.beside(lose)
    third = await line.call(*HEARS, Say("thanks"), *HEARS, HangUp())
    went_on(line, third)
    assert third.row["engine"] == line.agent, "a call keeps its place over a loss"


@scenario(Plot(agent=GREETS + 'fallback_engine = "spare"\n', engine="requests_per_minute = 1"))
async def no_answer_is_free(line: Line) -> None:
    call = await line.call(*HEARS, Say("interrupt"), *HEARS, Say("thanks"), *HEARS, HangUp())
    went_on(line, call)
    assert "Goodbye." in call.said("agent")
    assert call.row["engine"] in (line.agent, "spare")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    # 10 s until a half-open connection is found out would teach no more than 2 s.
    return plays.play(tmp_path_factory.mktemp("failover"), BAD, ping_s=1.0)


@pytest.mark.parametrize("name", plays.scenes.names)
def test_failover(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
